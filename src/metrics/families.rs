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

/// Declares the families and the list of them, in the order of `/metrics`.
macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $labels:tt $help:literal;)*) => {
        $(pub const $constant: Family =
            Family { name: $name, kind: Kind::$kind, labels: &$labels, help: $help };)*
        /// Every family, in the order of `/metrics`.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    BUILD_INFO = Gauge "readygate_build_info" ["version", "revision"]
        "The running build; always 1.";
    READY = Gauge "readygate_ready" []
        "Whether /ready answers 200 (1) or 503 (0).";
    PHASE = Gauge "readygate_phase" ["phase"]
        "1 for the phase that the gate is in, 0 for the others.";
    PHASE_TRANSITIONS = Counter "readygate_phase_transitions_total" ["from", "to", "reason"]
        "Changes of phase.";
    TIME_TO_READY = Gauge "readygate_time_to_ready_seconds" []
        "From the last arm that led to ready (start, or restart of the app) to ready; NaN before the first.";
    CHECK_PASSING = Gauge "readygate_check_passing" ["check", "type"]
        "Whether the check counts as passing, thresholds applied.";
    CHECK_RUNS = Counter "readygate_check_runs_total" ["check", "result"]
        "Runs of a check that ended, by result.";
    CHECK_DURATION = Histogram "readygate_check_duration_seconds" ["check"]
        "How long one run of a check took.";
    CHECK_TIME_TO_PASS = Gauge "readygate_check_time_to_pass_seconds" ["check"]
        "From the last arm to the moment the check counted as passing; NaN while it has not.";
    WARMUP_REQUESTS = Counter "readygate_warmup_requests_total" ["check", "result"]
        "Requests sent by a warm-up.";
    WARMUP_LATENCY = Summary "readygate_warmup_latency_seconds" ["check", "quantile"]
        "Latency of the last window of warm-up requests; NaN before the first.";
    APP_RESTARTS = Counter "readygate_app_restarts_total" []
        "Restarts of the app seen while this process ran; each arms the gate again.";
    REQUESTS = Counter "readygate_requests_total" ["listener", "code"]
        "Requests answered, by class of the status code; warm-up requests and probes do not count.";
    REQUEST_DURATION = Histogram "readygate_request_duration_seconds" ["listener"]
        "From the head of a request to the last byte of its answer.";
    REQUESTS_IN_FLIGHT = Gauge "readygate_requests_in_flight" ["listener"]
        "Requests that have begun and not ended.";
    PROXY_ERRORS = Counter "readygate_proxy_errors_total" ["listener", "kind"]
        "Requests that readygate answered by itself or gave up, by kind of error.";
    HELD_REQUESTS = Gauge "readygate_held_requests" ["listener"]
        "Requests that wait: for the gate, for the app to come back, or for a place in flight.";
    CONNECTIONS = Gauge "readygate_connections" ["listener"]
        "Open connections from clients.";
    CONNECTIONS_TOTAL = Counter "readygate_connections_total" ["listener"]
        "Connections accepted from clients.";
    BYTES = Counter "readygate_bytes_total" ["listener", "direction"]
        "Bytes received from and sent to clients.";
    DRAIN_SECONDS = Gauge "readygate_drain_seconds" []
        "How long the drain took; NaN before its end.";
    DRAIN_LAST_REQUEST = Gauge "readygate_drain_last_request_seconds" []
        "From the start of the drain to the last new request, what drain.min should be; NaN before its end.";
    DRAIN_CUT = Counter "readygate_drain_cut_total" []
        "Requests still in flight when the drain's deadline came.";
    CONFIG_RELOADS = Counter "readygate_config_reloads_total" ["result"]
        "Changes of the configuration file, by what became of them.";
    LOG_LINES_DROPPED = Counter "readygate_log_lines_dropped_total" []
        "Log lines lost because stderr took none.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "Total user and system CPU time spent in seconds.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" []
        "Number of open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "Maximum number of open file descriptors.";
    PROCESS_VIRTUAL_MEMORY = Gauge "process_virtual_memory_bytes" []
        "Virtual memory size in bytes.";
    PROCESS_RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" []
        "Resident memory size in bytes.";
    PROCESS_START_TIME = Gauge "process_start_time_seconds" []
        "Start time of the process since unix epoch in seconds.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Number of OS threads in the process.";
}
