//! `amqp` tells a broker that takes messages from one that does not. What each way of asking costs in RabbitMQ's log is
//! held here, as the top of `src/check/amqp/mod.rs` says it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::support::servers::{
    Server, ask, certificate, free_port, program, refuses, stranger, trusted, with,
};
use crate::support::{Scratch, eventually};

/// A RabbitMQ with a name and a port mapper of its own, so that it meets no other on this machine.
struct RabbitMq {
    server: Server,
    /// Its listener with TLS.
    secure: u16,
    mapper: Child,
    environment: Vec<(&'static str, String)>,
}

impl RabbitMq {
    fn start() -> Option<Self> {
        let (script, epmd) = (script("rabbitmq-server")?, program("epmd")?);
        let scratch = Scratch::new();
        let [plain, secure, mapper_port, nodes] = [(); 4].map(|()| free_port());
        let (config, plugins) = (scratch.join("rabbitmq.conf"), scratch.join("plugins"));
        let (cert, key) = (certificate("crt"), certificate("key"));
        let lines = format!(
            "listeners.tcp.1 = 127.0.0.1:{plain}\nlisteners.ssl.1 = 127.0.0.1:{secure}\n\
             ssl_options.certfile = {}\nssl_options.keyfile = {}\nlog.console = true\nlog.console.level = info\n\
             log.file = false\n",
            cert.display(),
            key.display(),
        );
        fs::write(&config, lines).expect("a file");
        fs::write(&plugins, "[].\n").expect("a file");
        let path = |name: &str| scratch.join(name).display().to_string();
        let environment = vec![
            ("HOME", path(".")),
            ("ERL_EPMD_PORT", mapper_port.to_string()),
            ("RABBITMQ_NODENAME", format!("readygate{plain}@localhost")),
            ("RABBITMQ_CONF_ENV_FILE", path("none")),
            ("RABBITMQ_CONFIG_FILE", config.display().to_string()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", plugins.display().to_string()),
            ("RABBITMQ_MNESIA_BASE", path("mnesia")),
            ("RABBITMQ_LOG_BASE", path("logs")),
            ("RABBITMQ_DIST_PORT", nodes.to_string()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +sbwt none".to_owned()),
            // The script then becomes the server instead of its parent: killed, it is gone.
            ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
            ("RABBITMQ_SERVER_START_ARGS", "-noinput".to_owned()),
        ];
        let mapper = Command::new(epmd)
            .args(["-address", "127.0.0.1", "-port", &mapper_port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut command = Command::new(script);
        command.envs(environment.iter().cloned());
        let log = scratch.join("log");
        Some(Self { server: Server::start(command, plain, log, scratch), secure, mapper, environment })
    }

    /// Sets the share of memory that it may use.
    fn allow_memory(&self, share: &str) {
        let script = script("rabbitmqctl").expect("it comes with the server");
        let mut command = Command::new(script);
        command.envs(self.environment.iter().cloned()).args(["set_vm_memory_high_watermark", share]);
        let done = command.output().expect("it starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// What 300 runs leave in its log. Not too fast: a logger of Erlang drops what goes beyond 500 lines a second.
    async fn log_of_300_runs(&self, own: Value) -> String {
        let before = self.whole_log().await.len();
        let mut pace = tokio::time::interval(Duration::from_millis(7));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..300 {
            pace.tick().await;
            ask("amqp", own.clone()).await.expect("it passes each time");
        }
        let log = self.whole_log().await[before..].to_owned();
        assert_eq!(log.matches("accepting AMQP connection").count(), 300, "{log}");
        log
    }

    /// Its log, once it has noted the end of each connection.
    async fn whole_log(&self) -> String {
        let settled = async || {
            let log = self.server.log();
            let (begun, ended) = ("accepting AMQP connection", "closing AMQP connection");
            log.ends_with('\n') && log.matches(begun).count() == log.matches(ended).count()
        };
        eventually("it has noted the end of each", Duration::from_secs(10), settled).await;
        self.server.log()
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        let _ = self.mapper.kill();
        let _ = self.mapper.wait();
    }
}

/// The script itself: Debian's of that name in the path changes to a user of the system.
fn script(name: &str) -> Option<PathBuf> {
    let own = Path::new("/usr/lib/rabbitmq/bin").join(name);
    if own.is_file() { Some(own) } else { program(name) }
}

/// One test for all states: the server takes ten seconds to start.
#[tokio::test]
async fn a_rabbitmq_that_takes_messages_passes_and_one_without_memory_fails() {
    let Some(rabbit) = RabbitMq::start() else { return };
    let stranger = rabbit.server.keys();
    let guest = with(&stranger, json!({ "user": "guest", "password": "guest" }));
    let over_tls = |own: &Value| {
        with(&with(own, json!({ "address": format!("127.0.0.1:{}", rabbit.secure) })), trusted())
    };
    let up = async || ask("amqp", guest.clone()).await.is_ok();
    eventually("it is up", Duration::from_secs(120), up).await;

    let summary = ask("amqp", stranger.clone()).await.expect("passes");
    assert!(summary.starts_with("RabbitMQ ") && summary.ends_with(", asks for credentials"), "{summary}");
    for own in [&guest, &over_tls(&guest)] {
        let summary = ask("amqp", own.clone()).await.expect("passes");
        assert!(summary.starts_with("RabbitMQ ") && summary.ends_with(", takes messages"), "{summary}");
    }
    let log = rabbit.log_of_300_runs(guest.clone()).await;
    assert!(!log.contains("[error]") && !log.contains("[warning]"), "{log}");
    let log = rabbit.log_of_300_runs(stranger.clone()).await;
    assert!(!log.contains("[error]"), "{log}");
    assert_eq!(log.matches("client unexpectedly closed TCP connection").count(), 300, "{log}");

    refuses("amqp", with(&over_tls(&guest), json!({ "tls": false })), "in TLS (is tls missing?)").await;
    refuses("amqp", with(&over_tls(&guest), json!({ "tls": true })), "the TLS handshake failed").await;
    refuses("amqp", with(&guest, trusted()), "the TLS handshake failed").await;
    refuses(
        "amqp",
        with(&guest, json!({ "password": "hunter2" })),
        "refused the connection: 403 ACCESS_REFUSED",
    )
    .await;
    let elsewhere = with(&guest, json!({ "vhost": "/orders" }));
    refuses("amqp", elsewhere, "refused the connection: 530 NOT_ALLOWED - vhost /orders not found").await;

    rabbit.allow_memory("0.000001");
    let full = async || ask("amqp", guest.clone()).await.is_err();
    eventually("it is short of memory", Duration::from_secs(10), full).await;
    refuses("amqp", guest.clone(), "takes no messages: low on memory").await;
    // It reads nothing more from such a connection, and yet must not keep it.
    let gone = async || established(rabbit.server.port) == 0;
    eventually("no connection stays", Duration::from_secs(10), gone).await;
    rabbit.allow_memory("0.4");
    eventually("it has memory again", Duration::from_secs(10), up).await;
    let unloved = rabbit.server.log();
    assert!(!unloved.contains("hunter2"), "{unloved}");
}

/// Connections that the server on `port` still has, by the kernel's table.
fn established(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
    let local = format!("0100007F:{port:04X} ");
    let open = ["01", "08"];
    let is_open = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|at| format!("{at} ") == local)
            && fields.nth(1).is_some_and(|state| open.contains(&state))
    };
    table.lines().filter(is_open).count()
}

#[tokio::test]
async fn a_broker_without_plain_and_one_of_another_version_fail() {
    let start = |minor: u8, mechanisms: &[u8]| {
        let mut payload = vec![0, 10, 0, 10, 0, minor, 0, 0, 0, 0];
        for text in [mechanisms, b"en_US"] {
            payload.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
            payload.extend_from_slice(text);
        }
        let length = u32::try_from(payload.len()).expect("short");
        stranger([&[1, 0, 0][..], &length.to_be_bytes(), &payload, &[0xce]].concat())
    };
    let credentials = json!({ "user": "a", "password": "b" });
    let own = with(&start(9, b"EXTERNAL"), credentials.clone());
    refuses("amqp", own, "offers the mechanisms EXTERNAL, expected PLAIN").await;
    refuses("amqp", start(10, b"PLAIN"), "expected Connection.Start of AMQP 0-9-1").await;
    let other = stranger(b"AMQP\0\x01\0\0".to_vec());
    refuses("amqp", other, "expected Connection.Start").await;
    // A server that hangs up after the password, as old ones do.
    let own = with(&start(9, b"PLAIN"), credentials);
    refuses("amqp", own, "closed the connection without an answer, expected Connection.OpenOk").await;
}
