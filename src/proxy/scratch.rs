//! Memory that all connections of a thread read into, one at a time: what each of them keeps is as large as what came,
//! and one that waits keeps none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

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
    thread_local! {
        static SHARED: RefCell<[u8; SIZE]> = const { RefCell::new([0; SIZE]) };
    }
    SHARED.with_borrow_mut(|shared| {
        let mut read = ReadBuf::new(&mut shared[..most.min(SIZE)]);
        ready!(stream.poll_read(cx, &mut read))?;
        Poll::Ready(Ok(look(read.filled())))
    })
}

/// Room for a head, and for all of most answers.
pub const SIZE: usize = 16 << 10;
