//! Every family of metrics: name, type and help. The names are the product's contract.

/// What kind of numbers a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Quantiles that a warm-up measured; no sum and no count.
    Summary,
}

impl Kind {
    /// The word of the exposition format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// One family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    /// Names of its labels: each a closed set, nothing that a client chose.
    pub labels: &'static [&'static str],
    /// One line; says the unit where the name does not.
    pub help: &'static str,
}

/// Every family, in the order of `/metrics`.
pub const FAMILIES: &[Family] = &[
    BUILD_INFO,
    READY,
    PHASE,
    PHASE_TRANSITIONS,
    TIME_TO_READY,
    CHECK_PASSING,
    CHECK_RUNS,
    CHECK_DURATION,
    CHECK_TIME_TO_PASS,
    CHECK_GUARDED,
    GUARD_DECISIONS,
    WARMUP_REQUESTS,
    WARMUP_LATENCY,
    APP_RESTARTS,
    REQUESTS,
    REQUEST_DURATION,
    REQUESTS_IN_FLIGHT,
    PROXY_ERRORS,
    HELD_REQUESTS,
    CONNECTIONS,
    CONNECTIONS_TOTAL,
    BYTES,
    TLS_CERTIFICATE_EXPIRY,
    TLS_RELOADS,
    DRAIN_SECONDS,
    DRAIN_LAST_REQUEST,
    DRAIN_CUT,
    CONFIG_RELOADS,
    LOG_LINES_DROPPED,
    PROCESS_CPU,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    PROCESS_VIRTUAL_MEMORY,
    PROCESS_RESIDENT_MEMORY,
    PROCESS_START_TIME,
    PROCESS_THREADS,
];

pub const BUILD_INFO: Family =
    gauge("readygate_build_info", &["version", "revision"], "The running build; always 1.");
pub const READY: Family = gauge("readygate_ready", &[], "Whether /ready answers 200 (1) or 503 (0).");
pub const PHASE: Family =
    gauge("readygate_phase", &["phase"], "1 for the phase that the gate is in, 0 for the others.");
pub const PHASE_TRANSITIONS: Family =
    counter("readygate_phase_transitions_total", &["from", "to", "reason"], "Changes of phase.");
pub const TIME_TO_READY: Family = gauge(
    "readygate_time_to_ready_seconds",
    &[],
    "From the last arm that led to ready (start, or restart of the app) to ready; NaN before the first.",
);
pub const CHECK_PASSING: Family = gauge(
    "readygate_check_passing",
    &["check", "type"],
    "Whether the check counts as passing, thresholds applied.",
);
pub const CHECK_RUNS: Family =
    counter("readygate_check_runs_total", &["check", "result"], "Runs of a check that ended, by result.");
pub const CHECK_DURATION: Family =
    histogram("readygate_check_duration_seconds", &["check"], "How long one run of a check took.");
pub const CHECK_TIME_TO_PASS: Family = gauge(
    "readygate_check_time_to_pass_seconds",
    &["check"],
    "From the last arm (or the reload that brought the check) to the moment it counted as passing, what it waited \
     for included; NaN while it has not.",
);
pub const CHECK_GUARDED: Family = gauge(
    "readygate_check_guarded",
    &["check"],
    "Whether the check fails and its guard keeps the pod ready, since too few peers would remain.",
);
pub const GUARD_DECISIONS: Family = counter(
    "readygate_guard_decisions_total",
    &["check", "result"],
    "Decisions of a check's guard while the check fails: stay, leave, or leave_alone for a fault of this pod's own.",
);
pub const WARMUP_REQUESTS: Family =
    counter("readygate_warmup_requests_total", &["check", "result"], "Requests sent by a warm-up.");
pub const WARMUP_LATENCY: Family = summary(
    "readygate_warmup_latency_seconds",
    &["check", "quantile"],
    "Latency of the last window of warm-up requests, of the slowest where there are several; NaN before the first.",
);
pub const APP_RESTARTS: Family = counter(
    "readygate_app_restarts_total",
    &[],
    "Restarts of the app seen while this process ran; each arms the gate again.",
);
pub const REQUESTS: Family = counter(
    "readygate_requests_total",
    &["listener", "code"],
    "Requests answered, by class of the status code; warm-up requests and probes do not count.",
);
pub const REQUEST_DURATION: Family = histogram(
    "readygate_request_duration_seconds",
    &["listener"],
    "From the head of a request to the last byte of its answer.",
);
pub const REQUESTS_IN_FLIGHT: Family = gauge(
    "readygate_requests_in_flight",
    &["listener"],
    "Requests that have begun and not ended; upgraded and TCP connections until they end.",
);
pub const PROXY_ERRORS: Family = counter(
    "readygate_proxy_errors_total",
    &["listener", "kind"],
    "Requests that readygate answered by itself or gave up, by kind of error.",
);
pub const HELD_REQUESTS: Family = gauge(
    "readygate_held_requests",
    &["listener"],
    "Requests that wait: for the gate, for the app to come back, or for a place in flight.",
);
pub const CONNECTIONS: Family =
    gauge("readygate_connections", &["listener"], "Open connections from clients.");
pub const CONNECTIONS_TOTAL: Family =
    counter("readygate_connections_total", &["listener"], "Connections accepted from clients.");
pub const BYTES: Family =
    counter("readygate_bytes_total", &["listener", "direction"], "Bytes received from and sent to clients.");
pub const TLS_CERTIFICATE_EXPIRY: Family = gauge(
    "readygate_tls_certificate_expiry_timestamp_seconds",
    &["listener"],
    "When the certificate that is served ends, in seconds since 1970; NaN while there is none.",
);
pub const TLS_RELOADS: Family = counter(
    "readygate_tls_reloads_total",
    &["listener", "result"],
    "Changes of a listener's certificate, key or authorities, by what became of them.",
);
pub const DRAIN_SECONDS: Family =
    gauge("readygate_drain_seconds", &[], "How long the drain took; NaN before its end.");
pub const DRAIN_LAST_REQUEST: Family = gauge(
    "readygate_drain_last_request_seconds",
    &[],
    "From the start of the drain to the last new request, what drain.min should be; NaN before its end.",
);
pub const DRAIN_CUT: Family =
    counter("readygate_drain_cut_total", &[], "Requests still in flight when the drain's deadline came.");
pub const CONFIG_RELOADS: Family = counter(
    "readygate_config_reloads_total",
    &["result"],
    "Changes of the configuration file, by what became of them.",
);
pub const LOG_LINES_DROPPED: Family =
    counter("readygate_log_lines_dropped_total", &[], "Log lines lost because stderr took none.");
pub const PROCESS_CPU: Family =
    counter("process_cpu_seconds_total", &[], "Total user and system CPU time spent in seconds.");
pub const PROCESS_OPEN_FDS: Family = gauge("process_open_fds", &[], "Number of open file descriptors.");
pub const PROCESS_MAX_FDS: Family = gauge("process_max_fds", &[], "Maximum number of open file descriptors.");
pub const PROCESS_VIRTUAL_MEMORY: Family =
    gauge("process_virtual_memory_bytes", &[], "Virtual memory size in bytes.");
pub const PROCESS_RESIDENT_MEMORY: Family =
    gauge("process_resident_memory_bytes", &[], "Resident memory size in bytes.");
pub const PROCESS_START_TIME: Family =
    gauge("process_start_time_seconds", &[], "Start time of the process since unix epoch in seconds.");
pub const PROCESS_THREADS: Family = gauge("process_threads", &[], "Number of OS threads in the process.");

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, labels, help }
}

const fn summary(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Summary, labels, help }
}
