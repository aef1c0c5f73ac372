//! Tunnels between pipes in memory, and between ends that break when they are told to.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::timeout;

use super::way::BUFFER;
use super::*;
use crate::proxy::websocket::going_away;

impl Transport for DuplexStream {
    fn reset_on_close(&self) {}
}

/// An end whose faults are set from outside.
#[derive(Debug)]
struct Faulty {
    stream: DuplexStream,
    faults: Rc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    read: Cell<Option<io::ErrorKind>>,
    write: Cell<Option<io::ErrorKind>>,
    reset: Cell<bool>,
    shut: Cell<bool>,
    waker: RefCell<Option<std::task::Waker>>,
}

impl Faults {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl AsyncRead for Faulty {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.faults.waker.replace(Some(cx.waker().clone()));
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match self.faults.read.get() {
            // As of a socket: first what came before.
            Some(kind) if polled.is_pending() => Poll::Ready(Err(kind.into())),
            _ => polled,
        }
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.faults.write.get() {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut self.stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.faults.shut.set(true);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Transport for Faulty {
    fn reset_on_close(&self) {
        self.faults.reset.set(true);
    }
}

/// A tunnel that runs, and what its client and its app hold.
struct Running {
    client: DuplexStream,
    app: DuplexStream,
    client_faults: Rc<Faults>,
    app_faults: Rc<Faults>,
    end: JoinHandle<End>,
}

const PIPE: usize = 1000;

fn run(websocket: bool) -> Running {
    let ((client, near), (far, app)) = (duplex(PIPE), duplex(PIPE));
    let (client_faults, app_faults) = (Rc::<Faults>::default(), Rc::<Faults>::default());
    let near = Faulty { stream: near, faults: Rc::clone(&client_faults) };
    let far = Faulty { stream: far, faults: Rc::clone(&app_faults) };
    let tunnel = Tunnel::new((near, Bytes::new()), (far, Bytes::new()), websocket);
    Running { client, app, client_faults, app_faults, end: tokio::task::spawn_local(tunnel) }
}

/// Runs a scenario, which must not take long.
fn scenario(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        timeout(Duration::from_secs(10), scenario).await.expect("nothing is waited for in vain");
    });
}

async fn read(stream: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.expect("bytes");
    bytes
}

#[test]
fn end_of_one_way_is_passed_on_and_the_other_goes_on() {
    scenario(async {
        let mut it = run(false);
        it.client.write_all(b"all I have").await.expect("taken");
        it.client.shutdown().await.expect("shut");
        let mut heard = Vec::new();
        it.app.read_to_end(&mut heard).await.expect("an end");
        assert_eq!(heard, b"all I have");
        for _ in 0..100 {
            it.app.write_all(&[7; PIPE]).await.expect("taken");
            assert_eq!(read(&mut it.client, PIPE).await, [7; PIPE]);
        }
        assert!(!it.end.is_finished());
        drop(it.app);
        assert_eq!(it.client.read(&mut [0]).await.expect("an end"), 0);
        assert!(matches!(it.end.await, Ok(End::Whole)));
        assert!(!it.client_faults.reset.get() && !it.app_faults.reset.get());
    });
}

#[test]
fn app_may_end_first() {
    scenario(async {
        let mut it = run(false);
        it.app.write_all(b"220 hello").await.expect("taken");
        it.app.shutdown().await.expect("shut");
        let mut heard = Vec::new();
        it.client.read_to_end(&mut heard).await.expect("an end");
        assert_eq!(heard, b"220 hello");
        it.client.write_all(b"late").await.expect("taken");
        assert_eq!(read(&mut it.app, 4).await, b"late");
        it.client.shutdown().await.expect("shut");
        assert!(matches!(it.end.await, Ok(End::Whole)));
    });
}

#[test]
fn slow_reader_holds_its_sender_back() {
    scenario(async {
        let mut it = run(false);
        let mut taken = 0;
        while let Ok(wrote) = timeout(Duration::from_millis(10), it.client.write(&[1; 777])).await {
            taken += wrote.expect("taken");
        }
        // One pipe on each side, and one buffer of what was read and not taken.
        assert!((2 * PIPE..=2 * PIPE + BUFFER).contains(&taken), "{taken}");
        // The other way does not care.
        it.app.write_all(b"hello").await.expect("taken");
        assert_eq!(read(&mut it.client, 5).await, b"hello");
        assert_eq!(read(&mut it.app, taken).await.len(), taken);
    });
}

#[test]
fn tunnel_at_rest_holds_nothing() {
    scenario(async {
        let ((mut client, near), (far, mut app)) = (duplex(100), duplex(100));
        let early = Bytes::from(vec![5; 300]);
        let mut tunnel = Tunnel::new((near, early), (far, Bytes::new()), false);
        let mut heard = Vec::new();
        client.write_all(&[6; 100]).await.expect("taken");
        std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut tunnel).poll(cx).is_pending());
            let mut piece = [0; 50];
            while let Poll::Ready(Ok(())) = Pin::new(&mut app).poll_read(cx, &mut ReadBuf::new(&mut piece)) {
                heard.extend(piece);
                if heard.len() < 350 {
                    assert!(!tunnel.up.rest.is_empty());
                }
                let _ = Pin::new(&mut tunnel).poll(cx);
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(heard, [vec![5; 300], vec![6; 100]].concat());
        assert!(tunnel.up.rest.is_empty() && tunnel.down.rest.is_empty());
    });
}

#[test]
fn reset_of_one_side_is_a_reset_of_the_other() {
    scenario(async {
        for breaks in [Side::Client, Side::App] {
            let mut it = run(false);
            it.client.write_all(b"hi").await.expect("taken");
            assert_eq!(read(&mut it.app, 2).await, b"hi");
            let (broken, other) = match breaks {
                Side::Client => (&it.client_faults, &it.app_faults),
                Side::App => (&it.app_faults, &it.client_faults),
            };
            broken.read.set(Some(io::ErrorKind::ConnectionReset));
            broken.wake();
            let end = it.end.await.expect("no panic");
            let End::Broken(Broken { side, error }) = end else { panic!("{end:?}") };
            assert_eq!((side, error.kind()), (breaks, io::ErrorKind::ConnectionReset));
            assert!(other.reset.get() && !other.shut.get(), "a reset, and no end before it");
        }
    });
}

#[test]
fn what_a_side_sent_before_it_took_nothing_more_gets_across() {
    scenario(async {
        let mut it = run(false);
        it.app_faults.write.set(Some(io::ErrorKind::BrokenPipe));
        // More than pipes and buffers hold.
        let answer = vec![9; 3 * PIPE + BUFFER];
        let mut app = it.app;
        let sent = answer.clone();
        let sending = tokio::task::spawn_local(async move {
            app.write_all(&sent).await.expect("taken");
            app
        });
        it.client.write_all(b"unwanted").await.expect("taken");
        assert_eq!(read(&mut it.client, answer.len()).await, answer);
        drop(sending.await.expect("no panic"));
        let end = it.end.await.expect("no panic");
        assert!(matches!(end, End::Broken(Broken { side: Side::App, .. })), "{end:?}");
        assert!(it.client_faults.reset.get() && !it.client_faults.shut.get());
    });
}

/// `length` bytes of a binary message, as the app sends it.
fn message(length: u8) -> Vec<u8> {
    [&[0x82, length][..], &vec![b'x'; length.into()]].concat()
}

/// The same as a client sends it.
fn masked(length: u8) -> Vec<u8> {
    [&[0x82, 0x80 | length, 0, 0, 0, 0][..], &vec![b'x'; length.into()]].concat()
}

#[test]
fn websocket_is_told_to_go_after_the_frame_under_way() {
    scenario(async {
        let ((mut client, near), (far, mut app)) = (duplex(PIPE), duplex(PIPE));
        let mut tunnel = Tunnel::new((near, Bytes::new()), (far, Bytes::new()), true);
        app.write_all(&message(100)[..40]).await.expect("taken");
        client.write_all(&masked(5)).await.expect("taken");
        std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut tunnel).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(tunnel.leave());
        let end = tokio::task::spawn_local(tunnel);
        let mut heard = Vec::new();
        app.read_to_end(&mut heard).await.expect("an end");
        assert_eq!(heard[..11], masked(5));
        let mut frames = Frames::new(Sender::Client);
        frames.pass(&heard[11..]);
        assert!(frames.is_closed());
        // It sends the rest of its message, one more, and its own goodbye.
        let rest = [&message(100)[40..], &message(3), b"\x88\x00"].concat();
        app.write_all(&rest).await.expect("taken");
        drop(app);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("an end");
        assert_eq!(heard, [message(100), going_away(Sender::App).to_vec()].concat());
        assert!(!end.is_finished(), "the client's answer is waited for");
        client.write_all(&masked(7)).await.expect("taken");
        drop(client);
        assert!(matches!(end.await, Ok(End::Whole)));
    });
}

#[test]
fn goodbye_of_its_own_is_the_last_frame() {
    scenario(async {
        let ((mut client, near), (far, mut app)) = (duplex(PIPE), duplex(PIPE));
        let mut tunnel = Tunnel::new((near, Bytes::new()), (far, Bytes::from_static(b"\x88\x00")), true);
        assert!(tunnel.leave());
        let end = tokio::task::spawn_local(tunnel);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("an end");
        assert_eq!(heard, b"\x88\x00");
        drop(client);
        app.read_to_end(&mut heard).await.expect("an end");
        drop(app);
        assert!(matches!(end.await, Ok(End::Whole)));
    });
}

#[test]
fn what_is_no_websocket_cannot_be_told() {
    let ends = || (duplex(PIPE).0, Bytes::new());
    assert!(!Tunnel::new(ends(), ends(), false).leave());
    let garbage = (duplex(PIPE).0, Bytes::from_static(b"garbage"));
    assert!(!Tunnel::new(ends(), garbage, true).leave());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn bytes_arrive_as_they_were_sent(
        pipes in (1_usize..3000, 1_usize..3000),
        up in prop::collection::vec(any::<u8>(), 0..40_000),
        down in prop::collection::vec(any::<u8>(), 0..40_000),
        early in 0_usize..500,
    ) {
        scenario(async {
            let ((client, near), (far, app)) = (duplex(pipes.0), duplex(pipes.1));
            let early = (early.min(up.len()), early.min(down.len()));
            let near = (near, Bytes::copy_from_slice(&up[..early.0]));
            let far = (far, Bytes::copy_from_slice(&down[..early.1]));
            let end = tokio::task::spawn_local(Tunnel::new(near, far, false));
            let talk = async |stream: DuplexStream, says: &[u8]| {
                let (mut reads, mut writes) = tokio::io::split(stream);
                let mut heard = Vec::new();
                let say = async {
                    writes.write_all(says).await?;
                    writes.shutdown().await
                };
                let (said, read) = tokio::join!(say, reads.read_to_end(&mut heard));
                said.and(read).expect("both ways go on to their end");
                heard
            };
            let (at_client, at_app) =
                tokio::join!(talk(client, &up[early.0..]), talk(app, &down[early.1..]));
            assert_eq!(at_client, down);
            assert_eq!(at_app, up);
            assert!(matches!(end.await, Ok(End::Whole)));
        });
    }
}
