use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

const PHASES: [&str; 2] = ["starting", "ready"];

fn metrics() -> Metrics {
    let metrics = Metrics::new(Sets {
        version: "1.2.3",
        revision: "abc",
        phases: &PHASES,
        transitions: &[("starting", "ready", "checks_passed")],
    });
    metrics.checks(&[
        CheckSeries { name: "db", kind: "tcp", warmup_quantiles: &[], guarded: true },
        CheckSeries { name: "warm", kind: "warmup", warmup_quantiles: &[0.5, 0.95], guarded: false },
    ]);
    metrics.listener("http", &figures());
    metrics.tls_files("http");
    metrics.tls_certificate("http", None);
    metrics
}

fn figures() -> ListenerFigures<'static> {
    ListenerFigures {
        codes: [0, 7, 0, 1, 2],
        errors: &[("not_ready", 2), ("internal", 0)],
        in_flight: 1,
        held: 0,
        connections: 3,
        connections_total: 9,
        received_bytes: 100,
        sent_bytes: 2000,
        duration_bounds: &[0.1, 1.0],
        durations: &[6, 3, 1],
        duration_sum: Duration::from_millis(2500),
    }
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
}

#[test]
fn every_family_has_help_type_and_every_series_from_the_start() {
    let text = metrics().render();
    for family in FAMILIES {
        has(&text, &format!("# TYPE {} {}", family.name, family.kind.name()));
        assert!(text.contains(&format!("# HELP {} ", family.name)), "{}", family.name);
        let samples = text.lines().filter(|line| {
            line.strip_prefix(family.name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
        });
        assert!(samples.count() > 0, "{} has no series", family.name);
    }
    for line in [
        "readygate_build_info{version=\"1.2.3\",revision=\"abc\"} 1",
        "readygate_phase{phase=\"starting\"} 0",
        "readygate_phase_transitions_total{from=\"starting\",to=\"ready\",reason=\"checks_passed\"} 0",
        "readygate_time_to_ready_seconds NaN",
        "readygate_check_passing{check=\"db\",type=\"tcp\"} 0",
        "readygate_check_runs_total{check=\"db\",result=\"timeout\"} 0",
        "readygate_check_duration_seconds_count{check=\"db\"} 0",
        "readygate_warmup_requests_total{check=\"warm\",result=\"ok\"} 0",
        "readygate_warmup_latency_seconds{check=\"warm\",quantile=\"0.95\"} NaN",
        "readygate_proxy_errors_total{listener=\"http\",kind=\"internal\"} 0",
        "readygate_bytes_total{listener=\"http\",direction=\"sent\"} 2000",
        "readygate_config_reloads_total{result=\"rejected\"} 0",
        "readygate_tls_certificate_expiry_timestamp_seconds{listener=\"http\"} NaN",
        "readygate_tls_reloads_total{listener=\"http\",result=\"refused\"} 0",
    ] {
        has(&text, line);
    }
}

#[test]
fn histogram_of_the_data_plane_is_cumulative() {
    let text = metrics().render();
    for line in [
        "readygate_request_duration_seconds_bucket{listener=\"http\",le=\"0.1\"} 6",
        "readygate_request_duration_seconds_bucket{listener=\"http\",le=\"1\"} 9",
        "readygate_request_duration_seconds_bucket{listener=\"http\",le=\"+Inf\"} 10",
        "readygate_request_duration_seconds_sum{listener=\"http\"} 2.5",
        "readygate_request_duration_seconds_count{listener=\"http\"} 10",
    ] {
        has(&text, line);
    }
}

#[test]
fn setters_reach_their_series() {
    let metrics = metrics();
    metrics.phase("ready");
    metrics.ready(true);
    metrics.transition("starting", "ready", "checks_passed");
    metrics.check_run("db", RunResult::TimedOut, Duration::from_millis(3));
    metrics.check_passing("db", true);
    metrics.check_time_to_pass("db", Some(Duration::from_millis(1500)));
    metrics.warmup_request("warm", false);
    metrics.warmup_latency("warm", 0.95, Duration::from_millis(80));
    metrics.app_restart();
    metrics.reload(ReloadResult::Rejected);
    metrics.drained(Duration::from_secs(5), Duration::from_secs(2), 4);
    metrics.tls_certificate("http", Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
    metrics.tls_reload("http", CertificateResult::Applied);
    metrics.upkeep();
    let text = metrics.render();
    for line in [
        "readygate_ready 1",
        "readygate_phase{phase=\"ready\"} 1",
        "readygate_phase_transitions_total{from=\"starting\",to=\"ready\",reason=\"checks_passed\"} 1",
        "readygate_check_runs_total{check=\"db\",result=\"timeout\"} 1",
        "readygate_check_duration_seconds_bucket{check=\"db\",le=\"0.005\"} 1",
        "readygate_check_passing{check=\"db\",type=\"tcp\"} 1",
        "readygate_check_time_to_pass_seconds{check=\"db\"} 1.5",
        "readygate_warmup_requests_total{check=\"warm\",result=\"failed\"} 1",
        "readygate_warmup_latency_seconds{check=\"warm\",quantile=\"0.95\"} 0.08",
        "readygate_app_restarts_total 1",
        "readygate_config_reloads_total{result=\"rejected\"} 1",
        "readygate_drain_seconds 5",
        "readygate_drain_last_request_seconds 2",
        "readygate_drain_cut_total 4",
        "readygate_tls_certificate_expiry_timestamp_seconds{listener=\"http\"} 1800000000",
        "readygate_tls_reloads_total{listener=\"http\",result=\"applied\"} 1",
    ] {
        has(&text, line);
    }
}

#[test]
fn checks_that_a_reload_removed_or_changed_leave_no_stale_series() {
    let metrics = metrics();
    metrics.check_run("db", RunResult::Passed, Duration::from_millis(3));
    metrics.check_guarded("db", true);
    metrics.guard_decision("db", GuardDecision::Stay);
    metrics.guard_decision("warm", GuardDecision::Stay);
    let text = metrics.render();
    has(&text, "readygate_check_guarded{check=\"db\"} 1");
    has(&text, "readygate_guard_decisions_total{check=\"db\",result=\"stay\"} 1");
    has(&text, "readygate_guard_decisions_total{check=\"db\",result=\"leave_alone\"} 0");
    assert!(!text.contains("readygate_check_guarded{check=\"warm\"}"), "it has no guard");
    metrics.checks(&[
        CheckSeries { name: "warm", kind: "http", warmup_quantiles: &[], guarded: false },
        CheckSeries { name: "new", kind: "file", warmup_quantiles: &[], guarded: false },
    ]);
    let text = metrics.render();
    assert!(!text.contains("check=\"db\""), "{text}");
    assert!(!text.contains("type=\"warmup\"") && !text.contains("quantile="), "{text}");
    assert!(!text.contains("readygate_warmup_requests_total{"), "{text}");
    has(&text, "readygate_check_passing{check=\"new\",type=\"file\"} 0");
    metrics.checks(&[CheckSeries { name: "db", kind: "tcp", warmup_quantiles: &[], guarded: false }]);
    let text = metrics.render();
    has(&text, "readygate_check_runs_total{check=\"db\",result=\"pass\"} 1");
    assert!(!text.contains("readygate_check_guarded{") && !text.contains("guard_decisions_total{"), "{text}");
}

#[test]
fn output_is_the_same_at_each_scrape() {
    let metrics = metrics();
    let own =
        |text: String| text.lines().filter(|l| !l.starts_with("process_")).collect::<Vec<_>>().join("\n");
    assert_eq!(own(metrics.render()), own(metrics.render()));
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    for text in [
        metrics().render(),
        Metrics::new(Sets { version: "", revision: "", phases: &PHASES, transitions: &[] }).render(),
    ] {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is needed for this test: it is in Debian's package `prometheus`");
        promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("promtool reads");
        let output = promtool.wait_with_output().expect("promtool ends");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
    }
}
