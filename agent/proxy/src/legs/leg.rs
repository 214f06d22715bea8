//! One end of a connection: a socket, or TLS over it.
//!
//! The relay reads and writes through the functions here, HTTP through `AsyncRead` and `AsyncWrite`; both see
//! the same leg. A plain leg is the socket itself.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::tls::TlsLeg;

/// One end of a connection.
pub(crate) enum Leg {
    /// As the bytes come.
    Plain(TcpStream),
    /// TLS that ends here.
    Tls(Box<TlsLeg>),
}

impl Leg {
    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(leg) => leg.socket(),
        }
    }

    /// TLS, where there is any.
    pub(crate) fn tls(&self) -> Option<&TlsLeg> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(leg) => Some(leg),
        }
    }

    /// Whether a read is worth trying: so an idle leg costs no buffer.
    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(cx).map(drop),
            Self::Tls(leg) => leg.poll_read_ready(cx),
        }
    }

    /// Reads as much as there is, at most the slice; 0 is the end, `UnexpectedEof` one without TLS's own.
    pub(crate) fn poll_take(&mut self, space: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => {
                let mut space = ReadBuf::new(space);
                ready!(Pin::new(socket).poll_read(cx, &mut space))?;
                Poll::Ready(Ok(space.filled().len()))
            }
            Self::Tls(leg) => leg.poll_take(space, cx),
        }
    }

    /// Whether there is something to read, without taking it; `false` when the peer closed or reset.
    pub(crate) fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self {
            Self::Plain(socket) => {
                let mut byte = [0];
                let peeked = Pin::new(socket).poll_peek(cx, &mut ReadBuf::new(&mut byte));
                peeked.map(|peeked| matches!(peeked, Ok(1..)))
            }
            Self::Tls(leg) => leg.poll_peek(cx),
        }
    }

    /// Writes; what is taken may still have to be flushed.
    pub(crate) fn poll_put(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(leg) => leg.poll_put(bytes, cx),
        }
    }

    /// Whether everything that was taken is with the kernel. A leg that failed has nothing to flush: the next
    /// write tells.
    pub(crate) fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(_) => Poll::Ready(()),
            Self::Tls(leg) => leg.poll_flush_records(cx).map(drop),
        }
    }

    /// Sends FIN, before it TLS's own end unless the other side's was missing. A peer that is gone already is
    /// noticed by the other direction.
    pub(crate) fn poll_shut(&mut self, clean: bool, cx: &mut Context<'_>) -> Poll<()> {
        let shut = match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(leg) => leg.poll_shut(clean, cx),
        };
        shut.map(|shut| {
            if let Err(error) = shut {
                tracing::debug!(%error, "cannot shut down");
            }
        })
    }

    /// Whether the peer has closed or reset, seen past bytes that nobody reads now. Afterwards the socket's
    /// readiness is unknown: the next read must be [`Leg::take_regardless`].
    pub(crate) fn peer_has_gone(&mut self, cx: &mut Context<'_>) -> bool {
        let socket = self.socket();
        for _ in 0..2 {
            if socket.poll_read_ready(cx).is_pending() {
                return false;
            }
            // Clears "readable"; "closed" stays, and makes the second look ready again.
            let cleared: io::Result<()> =
                socket.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
            drop(cleared);
        }
        socket.poll_read_ready(cx).is_ready()
    }

    /// Whether the peer is known to have closed or reset, past bytes that were not read. Asks nobody, and leaves the
    /// socket's readiness as it is: what has only just happened may not be known.
    pub(crate) fn is_known_to_have_gone(&self) -> bool {
        let ready = pin!(self.socket().ready(Interest::READABLE));
        let mut cx = Context::from_waker(Waker::noop());
        matches!(ready.poll(&mut cx), Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Reads without asking for readiness first.
    pub(crate) fn take_regardless(&mut self, space: &mut [u8], cx: &mut Context<'_>) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => read_regardless(socket, space),
            Self::Tls(leg) => leg.take_regardless(space, cx),
        }
    }
}

/// Reads from a socket whose readiness is unknown.
pub(super) fn read_regardless(socket: &TcpStream, space: &mut [u8]) -> io::Result<usize> {
    loop {
        match io::Read::read(&mut &*SockRef::from(socket), space) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

impl AsyncRead for Leg {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(leg) => {
                // Into memory that need not be made ready for it.
                leg.poll_yield(buffer.remaining(), cx, |bytes| buffer.put_slice(bytes)).map_ok(drop)
            }
        }
    }
}

impl AsyncWrite for Leg {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_put(bytes, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Self::Tls(leg) => leg.poll_put_vectored(parts, cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(leg) => leg.poll_flush_records(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(leg) => leg.poll_shut(true, cx),
        }
    }
}
