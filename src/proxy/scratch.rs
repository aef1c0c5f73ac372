//! Memory that all connections of a thread read into, one at a time: what each of them keeps is about as large as what
//! came, and one that waits keeps none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// Reads up to `most` bytes, or [`SIZE`] if that is less, and says what `look` makes of them; of none, at the end.
///
/// # Panics
///
/// If `look` reads too.
pub fn read<T>(
    stream: Pin<&mut impl AsyncRead>,
    cx: &mut Context<'_>,
    most: usize,
    look: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    fill(stream, cx, most, |shared| look(shared))
}

/// Reads as [`read`] does, and keeps what came; nothing came at the end.
pub fn take(stream: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
    fill(stream, cx, most, |shared| {
        // Little is copied; much keeps the memory, and the next read finds new one.
        if shared.len() > SIZE / 2 { shared.split().freeze() } else { Bytes::copy_from_slice(shared) }
    })
}

fn fill<T>(
    stream: Pin<&mut impl AsyncRead>,
    cx: &mut Context<'_>,
    most: usize,
    then: impl FnOnce(&mut BytesMut) -> T,
) -> Poll<io::Result<T>> {
    thread_local! {
        static SHARED: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    }
    SHARED.with_borrow_mut(|shared| {
        shared.clear();
        shared.reserve(SIZE);
        ready!(poll_read_buf(stream, cx, &mut shared.limit(most.min(SIZE))))?;
        Poll::Ready(Ok(then(shared)))
    })
}

/// Room for most messages, and for the large pieces of others. Of 16 to 256 KiB this costs least by far (see
/// benches/README.md).
pub const SIZE: usize = 32 << 10;
