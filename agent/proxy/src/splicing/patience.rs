//! Waiting for a larger piece: a long and fast stream is moved on in fewer system calls and fewer wake-ups.
//!
//! The kernel does the waiting (`SO_RCVLOWAT`, socket(7)). What does not come to a piece in time goes on as it is, and
//! the stream has to pass much again before it is waited for: one that pauses loses a millisecond or two in each
//! 64 MiB.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use verbatim_sys::socket;

/// What passes before a stream is waited for.
const LONG: u64 = 64 * 1024 * 1024;
/// Bytes of a piece.
const PIECE: u32 = 256 * 1024;
/// The longest wait; the runtime's clock has a grain of a millisecond.
const LIMIT: Duration = Duration::from_millis(1);

/// Of one direction.
#[derive(Default)]
pub(super) struct Patience {
    /// Since it was last waited for in vain.
    passed: u64,
    waits: bool,
    limit: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Patience {
    /// `bytes` were read, and that `all` that there was.
    pub(super) fn read(&mut self, from: &TcpStream, bytes: usize, all: bool) {
        self.armed = false;
        if !self.waits {
            self.passed = self.passed.saturating_add(bytes as u64);
            // Where the kernel does not grant it, each piece is taken as it comes.
            self.waits = self.passed >= LONG && socket::wake_at(from, PIECE).is_ok();
        }
        if self.waits && all {
            // Whatever has come since makes the kernel tell again, once it is a piece.
            from.try_io(Interest::READABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())).ok();
        }
    }

    /// There is no piece yet: waits no longer than the limit.
    pub(super) fn poll_wait(&mut self, from: &TcpStream, cx: &mut Context<'_>) {
        if !self.waits {
            return;
        }
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(LIMIT)));
        if !self.armed {
            limit.as_mut().reset(Instant::now() + LIMIT);
            self.armed = true;
        }
        if limit.as_mut().poll(cx) == Poll::Ready(()) {
            *self = Self::default();
            // The kernel tells of what is there when this is set.
            if let Err(error) = socket::wake_at(from, 1) {
                tracing::debug!(%error, "a stream stays one that is waited for");
                self.waits = true;
            }
        }
    }
}
