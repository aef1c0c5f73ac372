//! Logs: lines on stderr, JSON unless a terminal reads them.
//!
//! Lines go through a thread of their own that drops and counts what stderr does not take in time, so a
//! reader that stopped stalls neither a request nor a probe. Nothing that came from outside can break a
//! line or reach a terminal raw: control characters are escaped in both formats.
//!
//! `app.rs` calls [`start`] once, first of all, and keeps the [`Telemetry`]: dropping it writes what is
//! still queued. The level can be changed while the process runs.

mod escape;

use std::io::{self, IsTerminal as _};

use tracing::Subscriber;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt as lines;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer, Registry, reload};

use self::escape::{Escaped, PlainFields};

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON unless stderr is a terminal.
    Auto,
    Json,
    Text,
}

/// What was wrong with a log level.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "log.level: {level:?} is not a log filter ({reason}), expected e.g. info or warn,readygate=debug"
    )]
    Level { level: String, reason: String },
    #[error("logs were set up twice in this process")]
    Twice,
}

/// The running logs.
#[derive(Debug)]
pub struct Telemetry {
    filter: reload::Handle<Targets, Registry>,
    dropped: ErrorCounter,
    /// Dropping it writes what is queued, for at most a second.
    _writer: WorkerGuard,
}

/// Sets logs up for the whole process, panics included.
///
/// # Errors
///
/// If `level` is no filter, or logs were set up before.
pub fn start(level: &str, format: Format) -> Result<Telemetry, Error> {
    let terminal = io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let json = match format {
        Format::Auto => !terminal,
        Format::Json => true,
        Format::Text => false,
    };
    let (subscriber, telemetry) = build(io::stderr(), level, json, colour)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Twice)?;
    // The default hook writes to stderr itself: past the format, and blocked while nobody reads it.
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(message, location, thread, "panic");
    }));
    Ok(telemetry)
}

impl Telemetry {
    /// Changes the level.
    ///
    /// # Errors
    ///
    /// If `level` is no filter; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), Error> {
        let filter = filter(level)?;
        // Fails only if the subscriber is gone: nobody is left to log.
        let _ = self.filter.reload(filter);
        Ok(())
    }

    /// Lines lost since the start.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }

    /// Reads the number of lost lines, for those who do not hold the logs.
    pub fn dropped_lines_counter(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || dropped.dropped_lines() as u64
    }
}

fn build(
    output: impl io::Write + Send + 'static,
    level: &str,
    json: bool,
    colour: bool,
) -> Result<(impl Subscriber + Send + Sync, Telemetry), Error> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUED_LINES)
        .thread_name("log")
        .finish(output);
    let telemetry = Telemetry { filter: handle, dropped: writer.error_counter(), _writer: guard };
    let layer = if json {
        let layer = lines::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
        layer.with_writer(Escaped(writer)).boxed()
    } else {
        lines::layer().with_ansi(colour).fmt_fields(PlainFields).with_writer(writer).boxed()
    };
    Ok((Registry::default().with(filter).with(layer), telemetry))
}

/// What `h2` warns of is the doing of clients: a line for every connection that is sent away would be a way to fill
/// the log. Whoever asks for it by name gets it.
fn filter(level: &str) -> Result<Targets, Error> {
    format!("h2=error,{level}")
        .parse()
        .map_err(|error: ParseError| Error::Level { level: level.to_owned(), reason: error.to_string() })
}

/// Lines that may wait for stderr; more are dropped.
const QUEUED_LINES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool, level: &str, log: impl FnOnce(&Telemetry)) -> String {
        let sink = Sink::default();
        let (subscriber, telemetry) = build(sink.clone(), level, json, false).expect("a level");
        tracing::subscriber::with_default(subscriber, || log(&telemetry));
        drop(telemetry);
        let bytes = sink.0.lock().expect("lock").clone();
        String::from_utf8(bytes).expect("text")
    }

    const HOSTILE: &str = "a\r\nb\x1b[31m\"q\"\x07\u{7f}\u{9b}\0 ü";

    #[test]
    fn nothing_from_outside_breaks_a_line_or_reaches_a_terminal_raw() {
        for json in [true, false] {
            let text = logged(json, "info", |_| {
                tracing::info!(agent = HOSTILE, shown = %HOSTILE, debug = ?HOSTILE, "{HOSTILE}");
            });
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(!text.trim_end_matches('\n').contains(char::is_control), "{text:?}");
            assert!(text.contains('ü'), "{text:?}");
            if json {
                let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(line["agent"], HOSTILE);
                assert_eq!(line["message"], HOSTILE);
            }
        }
    }

    #[test]
    fn level_changes_while_it_runs_and_a_bad_one_is_refused() {
        let text = logged(false, "info", |telemetry| {
            tracing::debug!("one");
            telemetry.set_level("debug").expect("a level");
            tracing::debug!("two");
            let refused = telemetry.set_level("readygate=loud").expect_err("no level");
            assert!(refused.to_string().starts_with("log.level: \"readygate=loud\" is not"), "{refused}");
            tracing::debug!(check = "db", "three");
        });
        assert!(
            !text.contains("one") && text.contains("two") && text.contains("three check=\"db\""),
            "{text}"
        );
    }

    #[test]
    fn what_clients_make_a_library_warn_of_is_logged_only_if_asked_for() {
        let of_library =
            |level| logged(false, level, |_| tracing::warn!(target: "h2::proto::streams", "too many resets"));
        assert_eq!(of_library("info"), "");
        assert_eq!(of_library("debug,readygate=trace"), "");
        assert!(of_library("info,h2=warn").contains("too many resets"));
    }

    /// Takes nothing until it is let go.
    struct Blocked(Receiver<()>, Sender<()>);

    impl io::Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.send(());
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn blocked_stderr_stalls_nobody_and_drops_are_counted() {
        let (release, blocked) = channel();
        let (began, writing) = channel();
        let (subscriber, telemetry) = build(Blocked(blocked, began), "info", true, false).expect("a level");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("the one that blocks");
            writing.recv().expect("the writer begins");
            for _ in 0..QUEUED_LINES + 10 {
                tracing::info!("line");
            }
        });
        assert_eq!(telemetry.dropped_lines(), 10);
        drop(release);
    }
}
