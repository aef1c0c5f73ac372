//! Each problem, with its exact text.

use super::*;

#[test]
fn each_problem_says_where_what_and_what_is_allowed() {
    let cases: &[(&str, &str)] = &[
        (
            "drain:\n  quite: 3s\n",
            "app.yaml:2:3: drain.quite: unknown key, did you mean \"quiet\"? allowed: min, quiet, deadline, ready, restart_window",
        ),
        (
            "drain:\n  mni: { min: 1s, min2: 1s }\n  xyz: 1\n",
            "app.yaml:2:3: drain.mni: unknown key, did you mean \"min\"? allowed: min, quiet, deadline, ready, restart_window\n\
             app.yaml:3:3: drain.xyz: unknown key, allowed: min, quiet, deadline, ready, restart_window",
        ),
        (
            "drian: {}\n",
            "app.yaml:1:1: drian: unknown key, did you mean \"drain\"? allowed: listeners, admin, drain, checks, workers, log",
        ),
        (
            "a[99999999999]: 1\n",
            "app.yaml:1:1: \"a[99999999999]\": unknown key, allowed: listeners, admin, drain, checks, workers, log",
        ),
        (
            "drain: { min: 5 }\n",
            "app.yaml:1:15: drain.min: 5 is not allowed, expected a duration such as 250ms, 10s or 2m",
        ),
        (
            "drain: { min: 5x }\n",
            "app.yaml:1:15: drain.min: 5x is not allowed, expected a duration such as 250ms, 10s or 2m",
        ),
        ("drain: { min: 0s }\n", "app.yaml:1:15: drain.min: 0s is not allowed, expected more than 0s"),
        ("drain: { min: 9999d }\n", "app.yaml:1:15: drain.min: 9999d is not allowed, expected at most 365d"),
        (
            "drain: { min: 60s }\n",
            "app.yaml:1:15: drain.min: 60s is longer than drain.deadline (25s), expected at most that",
        ),
        (
            "drain: { deadline: 3s }\n",
            "app.yaml:1:20: drain.deadline: 3s is less than drain.min (5s), expected at least that",
        ),
        (
            "drain: { ready: hodl }\n",
            "app.yaml:1:17: drain.ready: hodl is not allowed, expected fail or hold",
        ),
        ("drain: { ready: 1 }\n", "app.yaml:1:17: drain.ready: 1 is not allowed, expected fail or hold"),
        ("drain: 5s\n", "app.yaml:1:8: drain: 5s is not allowed, expected a map of keys"),
        ("listeners: [a]\n", "app.yaml:1:12: listeners: a list is not allowed, expected a map"),
        (
            "listeners: {}\n",
            "app.yaml:1:12: listeners: an empty map is not allowed, expected at least one listener",
        ),
        (
            "listeners: { Web: {} }\n",
            "app.yaml:1:14: listeners.Web: not a name, expected at most 63 of the characters a-z, 0-9 and _",
        ),
        (
            "listeners: { a: { listen: 8800 } }\n",
            "app.yaml:1:27: listeners.a.listen: 8800 is not allowed, expected an IP address and a port such as 0.0.0.0:8800 or [::]:8800",
        ),
        (
            "listeners: { a: { listen: localhost:80 } }\n",
            "app.yaml:1:27: listeners.a.listen: \"localhost:80\" is not allowed, expected an IP address and a port such as 0.0.0.0:8800 or [::]:8800",
        ),
        (
            "listeners: { a: { upstream: localhost } }\n",
            "app.yaml:1:29: listeners.a.upstream: localhost is not allowed, expected a URL such as http://127.0.0.1:8080, h2c://…, https://…, tcp://… or unix:/path",
        ),
        (
            "listeners: { a: { upstream: 'ftp://h:1' } }\n",
            "app.yaml:1:29: listeners.a.upstream: \"ftp://h:1\" is not allowed, expected a URL such as http://127.0.0.1:8080, h2c://…, https://…, tcp://… or unix:/path",
        ),
        (
            "listeners: { a: { upstream: 'tcp://h' } }\n",
            "app.yaml:1:29: listeners.a.upstream: \"tcp://h\" is not allowed, expected a URL such as http://127.0.0.1:8080, h2c://…, https://…, tcp://… or unix:/path",
        ),
        (
            "listeners: { a: { upstream: 'unix:run/app.sock' } }\n",
            "app.yaml:1:29: listeners.a.upstream: \"unix:run/app.sock\" is not allowed, expected a URL such as http://127.0.0.1:8080, h2c://…, https://…, tcp://… or unix:/path",
        ),
        (
            "listeners: { a: { upstream_tls: { ca: /ca.crt } } }\n",
            "app.yaml:1:33: listeners.a.upstream_tls: a map of keys is not allowed for http://127.0.0.1:8080, expected an upstream of https://",
        ),
        (
            "listeners: { a: { upstream: 'https://h', upstream_tls: { ca: /ca, insecure_skip_verify: true } } }\n",
            "app.yaml:1:89: listeners.a.upstream_tls.insecure_skip_verify: true is not allowed together with ca, expected one of them",
        ),
        (
            "listeners: { a: { upstream: 'https://h', upstream_tls: { server_name: a/b } } }\n",
            "app.yaml:1:71: listeners.a.upstream_tls.server_name: \"a/b\" is not a host name, expected e.g. app.example.com",
        ),
        (
            "listeners: { a: { limits: { body_bytes: 0 } } }\n",
            "app.yaml:1:41: listeners.a.limits.body_bytes: 0 is not allowed, expected more than 0, or off",
        ),
        (
            "listeners: { a: { upstream: 'http://u@h:1' } }\n",
            "app.yaml:1:29: listeners.a.upstream: \"http://u@h:1\" is not allowed, expected a URL such as http://127.0.0.1:8080, h2c://…, https://…, tcp://… or unix:/path",
        ),
        (
            "listeners: { a: { upstream: 'http://localhost:8800' } }\n",
            "app.yaml:1:29: listeners.a.upstream: http://localhost:8800 is the listener itself: requests would go round in circles, expected the address of the app",
        ),
        (
            "listeners: { a: {}, b: {} }\n",
            "app.yaml:1:21: listeners.b.listen: 0.0.0.0:8800 is taken by listeners.a.listen, expected another port",
        ),
        (
            "listeners: { a: {} }\nadmin: { listen: 127.0.0.1:8800 }\n",
            "app.yaml:2:18: admin.listen: 127.0.0.1:8800 is taken by listeners.a.listen, expected another port",
        ),
        (
            "listeners: { a: { ramp: { from: 10 } } }\n",
            "app.yaml:1:33: listeners.a.ramp.from: 10 is not allowed, expected more than 0% and at most 100%, e.g. 10%",
        ),
        (
            "listeners: { a: { tls: { cert: /tls.crt } } }\n",
            "app.yaml:1:24: listeners.a.tls: a map is not allowed, expected the key key in it",
        ),
        (
            "listeners: { a: { not_ready: drop } }\n",
            "app.yaml:1:30: listeners.a.not_ready: drop is not allowed, expected forward, hold or reject",
        ),
        (
            "listeners: { a: { ready_path: ready } }\n",
            "app.yaml:1:31: listeners.a.ready_path: ready is not allowed, expected a path such as /.readygate/ready, or off",
        ),
        (
            "listeners: { a: { upstream: 'tcp://h:1', ready_path: /r } }\n",
            "app.yaml:1:54: listeners.a.ready_path: /r is not allowed for tcp://h:1: it carries no requests, expected off",
        ),
        (
            "listeners: { a: { timeouts: { response: no } } }\n",
            "app.yaml:1:41: listeners.a.timeouts.response: no is not allowed, expected a duration such as 250ms, 10s or 2m, or off",
        ),
        (
            "listeners: { a: { limits: { in_flight: 0 } } }\n",
            "app.yaml:1:40: listeners.a.limits.in_flight: 0 is not allowed, expected a whole number from 1, or off",
        ),
        (
            "listeners: { a: { limits: { queue: -1 } } }\n",
            "app.yaml:1:36: listeners.a.limits.queue: -1 is not allowed, expected a whole number",
        ),
        (
            "listeners: { a: { limits: { queue: 010 } } }\n",
            "app.yaml:1:36: listeners.a.limits.queue: 010 is doubtful, expected a decimal number without leading zeros, or text in quotes",
        ),
        (
            "listeners: { a: { limits: { header_bytes: 1KiB } } }\n",
            "app.yaml:1:43: listeners.a.limits.header_bytes: 1KiB is not allowed, expected 8KiB to 16MiB",
        ),
        (
            "listeners: { a: { limits: { header_bytes: big } } }\n",
            "app.yaml:1:43: listeners.a.limits.header_bytes: big is not allowed, expected a size such as 64KiB, 10MB or 4096 (bytes)",
        ),
        (
            "listeners: { a: { hold: { fro: 1s } } }\n",
            "app.yaml:1:27: listeners.a.hold.fro: unknown key, did you mean \"for\"? allowed: for",
        ),
        (
            "admin: { stale_after: 100ms }\n",
            "app.yaml:1:23: admin.stale_after: 100ms is not allowed, expected at least 500ms: the data plane beats every 250ms",
        ),
        ("workers: 0\n", "app.yaml:1:10: workers: 0 is not allowed, expected auto or a number from 1 to 256"),
        (
            "log: { level: infoo }\n",
            "app.yaml:1:15: log.level: infoo is not a level, did you mean \"info\"? allowed: error, warn, info, debug, trace, off",
        ),
        (
            "log: { access: yes }\n",
            "app.yaml:1:16: log.access: yes is not allowed, expected off, errors or all",
        ),
        ("checks: { a: {} }\n", "app.yaml:1:11: checks.a: no kind of check, expected one key of: tcp, http"),
        ("checks: { a: 5 }\n", "app.yaml:1:14: checks.a: 5 is not allowed, expected a map of keys"),
        (
            "checks: { a: { htp: { url: x } } }\n",
            "app.yaml:1:16: checks.a.htp: unknown kind of check, did you mean \"http\"? allowed: tcp, http",
        ),
        (
            "checks: { a: { tcp: { address: x }, http: { url: x } } }\n",
            "app.yaml:1:37: checks.a.http: second kind beside tcp, expected exactly one in a check",
        ),
        (
            "checks: { a: { tcp: { addres: x, address: x } } }\n",
            "app.yaml:1:23: checks.a.tcp.addres: unknown key, did you mean \"address\"? allowed: address",
        ),
        (
            "checks: { a: { http: { retries: x, ulr: 2, token: 3 } } }\n",
            "app.yaml:1:22: checks.a.http: url is missing\n\
             app.yaml:1:33: checks.a.http.retries: \"x\" is not allowed, expected a number\n\
             app.yaml:1:36: checks.a.http.ulr: unknown key, did you mean \"url\"? allowed: url, token, retries\n\
             app.yaml:1:51: checks.a.http.token: 3 is not allowed, expected text",
        ),
        (
            "checks: { a: { http: { url: admim } } }\n",
            "app.yaml:1:29: checks.a.http.url: there is no admim, did you mean \"admin\"?",
        ),
        (
            "checks: { a: { tcp: x } }\n",
            "app.yaml:1:21: checks.a.tcp: x is not allowed, expected a map of keys",
        ),
        (
            "checks: { a: { tcp: { address: x }, timeuot: 1s } }\n",
            "app.yaml:1:37: checks.a.timeuot: unknown key, did you mean \"timeout\"? allowed: gates, after, interval, interval_failing, timeout, success_threshold, failure_threshold",
        ),
        (
            "checks: { a: { tcp: { address: x }, guard: {} } }\n",
            "app.yaml:1:37: checks.a.guard: unknown key (not in this version), allowed: gates, after, interval, interval_failing, timeout, success_threshold, failure_threshold",
        ),
        (
            "checks: { a: { tcp: { address: x }, timeout: 6s } }\n",
            "app.yaml:1:46: checks.a.timeout: 6s is longer than the check's interval (5s), expected at most that",
        ),
        (
            "checks: { a: { tcp: { address: x }, interval: 1us } }\n",
            "app.yaml:1:47: checks.a.interval: 1us is not allowed, expected at least 10ms",
        ),
        (
            "checks: { a: { tcp: { address: x }, failure_threshold: 0 } }\n",
            "app.yaml:1:56: checks.a.failure_threshold: 0 is not allowed, expected a whole number from 1",
        ),
        (
            "checks: { a: { tcp: { address: x }, after: [b] } }\n",
            "app.yaml:1:45: checks.a.after.0: b is not a check",
        ),
        (
            "checks: { a: { tcp: { address: x }, after: [1] } }\n",
            "app.yaml:1:45: checks.a.after.0: 1 is not allowed, expected text",
        ),
        (
            "checks: { a: { tcp: { address: x }, after: [a] } }\n",
            "app.yaml:1:44: checks.a.after: a after a is a circle, expected an order",
        ),
        (
            "checks: { a: { tcp: { address: x }, after: [b] }, b: { tcp: { address: x }, after: [a] } }\n",
            "app.yaml:1:44: checks.a.after: a after b after a is a circle, expected an order",
        ),
        (
            "checks: { A-b: { tcp: { address: x } } }\n",
            "app.yaml:1:11: checks.A-b: not a name, expected at most 63 of the characters a-z, 0-9 and _",
        ),
        (
            "checks: { a: { http: { url: '${env:GONE}' } } }\n",
            "app.yaml:1:29: checks.a.http.url: variable GONE is not set, expected the value for ${env:GONE}",
        ),
        ("workers: 1\nworkers: 1\n", "app.yaml:2:1: workers: the key is there twice, expected once"),
        (
            "workers: 1\n  log: {\n",
            "app.yaml:2:6: not valid YAML: mapping values are not allowed in this context",
        ),
        ("- 1\n", "app.yaml:1:1: expected a map of keys such as listeners and checks"),
        ("workers: 1\n---\nworkers: 2\n", "app.yaml:2:1: a second document, expected one"),
        ("{ [1]: 2 }\n", "app.yaml:1:3: a key must be plain text"),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .map(|(text, expected)| (text, problems_of("app.yaml", text, &[]), expected))
        .filter(|(_, found, expected)| found != *expected)
        .map(|(text, found, expected)| format!("{text}found    {found}\nexpected {expected}\n"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
