//! A leg whose first bytes were read already, for an endpoint that reads for itself.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    buffer::{Buffer, Pool},
    legs::Leg,
};

/// Yields what was read before, then the leg.
pub(crate) struct Replay {
    first: Buffer,
    leg: Leg,
    pool: Rc<Pool>,
    /// Told when the first byte comes.
    heard: Option<Box<dyn FnOnce()>>,
}

impl Replay {
    pub(crate) fn new(first: Buffer, leg: Leg, pool: &Rc<Pool>, heard: Option<Box<dyn FnOnce()>>) -> Self {
        Self { first, leg, pool: Rc::clone(pool), heard }
    }

    /// The leg, and what was not read before it.
    pub(crate) fn into_parts(self) -> (Buffer, Leg) {
        (self.first, self.leg)
    }

    fn poll_first(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.leg).poll_read(cx, buffer);
        }
        let all = self.first.all();
        let n = all.len().min(buffer.remaining());
        buffer.put_slice(all.get(..n).unwrap_or_default());
        self.first.dispose(n);
        self.first.release(&self.pool);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Replay {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(this.poll_first(cx, buffer))?;
        if buffer.filled().len() > before
            && let Some(heard) = this.heard.take()
        {
            heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().leg).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().leg).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.leg.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().leg).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().leg).poll_shutdown(cx)
    }
}
