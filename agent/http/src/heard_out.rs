//! A leg whose peer is heard out when it takes nothing any more.
//!
//! Who answers and closes while more is being sent to it resets the connection (RFC 9112 section 9.6), and who
//! closes is written to once more. What it said before lies in the socket; but either library gives up with the
//! first write that fails. Here such a write seems to succeed, and how the connection ended shows where that is
//! read.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module.
pub(crate) struct HeardOut<T> {
    io: T,
    failed: Option<ErrorKind>,
}

impl<T> HeardOut<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, failed: None }
    }

    pub(crate) fn into_inner(self) -> T {
        self.io
    }

    /// Whether nothing is taken any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn fail(&mut self, error: ErrorKind, cx: &Context<'_>) {
        self.failed = Some(error);
        // Whoever reads may be asleep.
        cx.waker().wake_by_ref();
    }

    /// What came of writing so many bytes.
    fn written(&mut self, wrote: Poll<io::Result<usize>>, all: usize, cx: &Context<'_>) -> Poll<usize> {
        let error = match wrote {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(written)) if written > 0 || all == 0 => return Poll::Ready(written),
            Poll::Ready(Ok(_)) => ErrorKind::WriteZero,
            Poll::Ready(Err(error)) => error.kind(),
        };
        self.fail(error, cx);
        Poll::Ready(all)
    }
}

impl<T: AsyncWrite + Unpin> HeardOut<T> {
    /// As [`AsyncWrite::poll_write`]; never 0 unless nothing is to be written.
    pub(crate) fn poll_put(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<usize> {
        if self.has_failed() {
            return Poll::Ready(bytes.len());
        }
        let wrote = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(wrote, bytes.len(), cx)
    }

    /// As [`AsyncWrite::poll_flush`].
    pub(crate) fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_failed() {
            return Poll::Ready(());
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        flushed.map(|flushed| flushed.unwrap_or_else(|error| self.fail(error.kind(), cx)))
    }

    /// As [`AsyncWrite::poll_shutdown`]: where that fails there is nobody to say the end to.
    pub(crate) fn poll_shut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_failed() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.io).poll_shutdown(cx).map(drop)
    }
}

/// What reading says, after a write has failed so, where it gives no more bytes.
fn end(failed: ErrorKind, read: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
    match (read, failed) {
        // Behind the peer's FIN its reset shows as this and nothing else.
        (Poll::Ready(end), ErrorKind::BrokenPipe) => Poll::Ready(end),
        // The failed write has taken the error, and what is left of a reset looks like a FIN.
        (Poll::Ready(_), failed) => Poll::Ready(Err(failed.into())),
        // The connection is no more: its end is going to be read.
        (
            Poll::Pending,
            ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable,
        ) => Poll::Pending,
        // It may live, and never end.
        (Poll::Pending, failed) => Poll::Ready(Err(failed.into())),
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HeardOut<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(failed) = self.failed else { return Pin::new(&mut self.io).poll_read(cx, space) };
        let before = space.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, space);
        if space.filled().len() > before { read } else { end(failed, read) }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HeardOut<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_put(bytes, cx).map(Ok)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(cx).map(Ok)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_shut(cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = parts.iter().map(|part| part.len()).sum();
        if self.has_failed() {
            return Poll::Ready(Ok(all));
        }
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.written(wrote, all, cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// What is read of a peer that has said something and is gone, once a write to it has failed.
    async fn heard_of(reset: bool) -> (Vec<u8>, io::Result<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let near = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connected");
        let (mut far, _) = listener.accept().await.expect("accepted");
        let mut near = HeardOut::new(near);
        near.write_all(b"unread").await.expect("written");
        if !reset {
            far.read_exact(&mut [0; 6]).await.expect("read");
        }
        far.write_all(b"last words").await.expect("said");
        // With something unread: a reset.
        drop(far);
        while !near.has_failed() {
            near.write_all(b"more").await.expect("seems to succeed");
        }
        let mut words = vec![0; 10];
        near.read_exact(&mut words).await.expect("words");
        (words, near.read(&mut [0]).await)
    }

    #[test]
    fn what_a_peer_said_before_it_went_is_read_and_how_it_went() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        for (reset, end) in [(true, Err(ErrorKind::ConnectionReset)), (false, Ok(0))] {
            let (words, ended) = runtime.block_on(heard_of(reset));
            assert_eq!(words, b"last words");
            assert_eq!(ended.map_err(|error| error.kind()), end);
        }
    }
}
