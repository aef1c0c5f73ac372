//! Secrets are used, and shown nowhere.

use super::*;

#[test]
fn secrets_are_used_and_never_shown() {
    let folder = Folder::new();
    let token = folder.write("token", "s3cret-of-a-file\n");
    let text = format!(
        "checks: {{ web: {{ http: {{ url: 'http://${{env:HOST}}/', token: 'Bearer ${{file:{}}}' }} }} }}",
        token.display()
    );
    let config = folder.write("app.yaml", &text);
    let loaded = load(&sources(Some(config.clone()), &[("HOST", "s3cret-host")]), &kinds()).expect("valid");
    assert_eq!(loaded.config.checks[0].own.0["token"], "Bearer s3cret-of-a-file");
    assert_eq!(loaded.config.checks[0].own.0["url"], "http://s3cret-host/");
    assert_eq!(loaded.effective["checks"]["web"]["http"]["url"], "http://${env:HOST}/");
    assert_eq!(loaded.files, [config, token]);
    assert!(!format!("{loaded:?} {:?} {}", loaded.config, loaded.effective).contains("s3cret"));
}

#[test]
fn secrets_that_do_not_fit_are_not_shown_either() {
    let text = "
listeners: { a: { listen: '${env:S}', not_ready: '${env:S}', limits: { queue: '${env:S}' }, timeouts: { idle: '${env:S}' } } }
log: { level: '${env:S}', format: '${env:S}' }
drain: '${env:S}'
workers: '${env:S}'
checks:
  a: { http: { url: x, retries: '${env:S}' }, failure_threshold: '${env:S}', after: ['${env:S}'] }
  b: { http: '${env:S}', interval: '${env:S}' }
  c: '${env:S}'
";
    let folder = Folder::new();
    let file = folder.write("app.yaml", text);
    for secret in ["s3cret", "s3cret, expected `s3cret`", "'s3cret\n\"", "{ s3cret: s3cret }", "[s3cret]"] {
        let problems = load(&sources(Some(file.clone()), &[("S", secret)]), &kinds()).expect_err("problems");
        assert!(problems.all.len() >= 10, "{problems}");
        assert!(!format!("{problems} {problems:?}").contains("s3cret"), "{problems}");
    }
}

#[test]
fn numbers_may_be_secrets() {
    let text = "checks: { a: { http: { url: x, retries: '${env:N}' }, failure_threshold: '${env:N}' } }";
    let loaded = loaded(text, &[("N", "9")]);
    assert_eq!(loaded.config.checks[0].failure_threshold, 9);
    assert_eq!(loaded.config.checks[0].own.0["retries"], 9);
    assert_eq!(loaded.effective["checks"]["a"]["failure_threshold"], "${env:N}");
}

#[test]
fn a_missing_file_of_a_secret_is_to_be_watched() {
    let folder = Folder::new();
    let secret = folder.0.join("token");
    let text = format!("checks: {{ a: {{ http: {{ url: '${{file:{}}}' }} }} }}", secret.display());
    let file = folder.write("app.yaml", text);
    let problems = load(&sources(Some(file.clone()), &[]), &kinds()).expect_err("a problem");
    assert_eq!(problems.files, [file, secret]);
}
