//! The socket as a session of TLS reads from it and writes to it.

use std::{
    io::{self, IoSlice, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Reads what there is, with the readiness that the runtime knows of; 0 is FIN.
pub(super) fn poll_read(
    socket: &mut TcpStream,
    space: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut space = ReadBuf::new(space);
    ready!(Pin::new(socket).poll_read(cx, &mut space))?;
    Poll::Ready(Ok(space.filled().len()))
}

/// The socket as what the session writes to.
pub(super) struct Outward<'a, 'b> {
    pub(super) socket: &'a mut TcpStream,
    pub(super) cx: &'a mut Context<'b>,
}

impl Write for Outward<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        not_now(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        not_now(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn not_now<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Has nothing to read now.
pub(super) struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}
