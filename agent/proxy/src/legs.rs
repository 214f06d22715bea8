//! The two sockets of a connection, and how an end or a reset of one is carried over to the other.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};
use verbatim_wire::seam::Direction;

/// Both directions, in the order in which the relay serves them.
pub(crate) const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

/// Index of a direction's state.
pub(crate) const fn at(direction: Direction) -> usize {
    match direction {
        Direction::ToServer => 0,
        Direction::ToClient => 1,
    }
}

pub(crate) const fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::ToServer => Direction::ToClient,
        Direction::ToClient => Direction::ToServer,
    }
}

/// One end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Where a direction's input comes from.
pub(crate) const fn source(direction: Direction) -> Side {
    match direction {
        Direction::ToServer => Side::Client,
        Direction::ToClient => Side::Server,
    }
}

/// How a direction's input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// FIN.
    Fin,
    /// RST, or a time-out of the kernel's.
    Reset,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed.
    Closed,
    /// One side reset it.
    Reset(Side),
    /// We ended it because a command under way was refused.
    Refused,
    /// Drain: the deadline has passed.
    Killed,
    /// Upstream could not be reached.
    DialFailed(String),
    /// A bug of ours; carries its message.
    Panicked(String),
    /// What was said cannot be carried out; carries why.
    Stuck(&'static str),
    /// A record cannot be written although there is room; carries why.
    Unrecordable(String),
}

/// The sockets.
pub(crate) struct Legs {
    pub(crate) client: TcpStream,
    /// `None` before the dial, and after a refusal that closed it.
    pub(crate) server: Option<TcpStream>,
}

impl Legs {
    pub(crate) fn side(&mut self, side: Side) -> Option<&mut TcpStream> {
        match side {
            Side::Client => Some(&mut self.client),
            Side::Server => self.server.as_mut(),
        }
    }

    /// Where a direction's input comes from.
    pub(crate) fn from(&mut self, direction: Direction) -> Option<&mut TcpStream> {
        self.side(source(direction))
    }

    /// Where a direction's output goes.
    pub(crate) fn to(&mut self, direction: Direction) -> Option<&mut TcpStream> {
        self.side(source(opposite(direction)))
    }

    /// Resets the server's leg: what is under way there is not to be completed.
    pub(crate) fn abort_server(&mut self) {
        if let Some(server) = self.server.take() {
            reset(&server);
        }
    }

    /// Closes both legs the way the connection ended.
    pub(crate) fn close(self, end: &End) {
        match end {
            End::Closed | End::Refused => {}
            End::Reset(_)
            | End::Killed
            | End::DialFailed(_)
            | End::Panicked(_)
            | End::Stuck(_)
            | End::Unrecordable(_) => {
                reset(&self.client);
                if let Some(server) = &self.server {
                    reset(server);
                }
            }
        }
    }
}

/// From now on closing this socket resets it.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "cannot reset, closing instead");
    }
}

/// Options of both legs: no Nagle, keepalive.
pub(crate) fn prepare(stream: &TcpStream, keepalive: Duration) {
    let set = stream.set_nodelay(true).and_then(|()| {
        SockRef::from(stream).set_tcp_keepalive(
            &TcpKeepalive::new().with_time(keepalive).with_interval(Duration::from_secs(15)).with_retries(4),
        )
    });
    if let Err(error) = set {
        // The peer may have reset it already; reading will tell.
        tracing::debug!(%error, "socket options not set");
    }
}

/// Reads as much as there is, at most the slice; 0 is the end.
pub(crate) fn poll_read(
    stream: &mut TcpStream,
    space: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut space = ReadBuf::new(space);
    ready!(Pin::new(stream).poll_read(cx, &mut space))?;
    Poll::Ready(Ok(space.filled().len()))
}

pub(crate) fn poll_write(
    stream: &mut TcpStream,
    bytes: &[u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    Pin::new(stream).poll_write(cx, bytes)
}

/// Sends FIN. A peer that is gone already is noticed by the other direction.
pub(crate) fn shut(stream: &mut TcpStream, cx: &mut Context<'_>) {
    if let Poll::Ready(Err(error)) = Pin::new(stream).poll_shutdown(cx) {
        tracing::debug!(%error, "cannot shut down");
    }
}

/// Whether the peer has closed or reset, seen past bytes that nobody reads now. Afterwards the socket's
/// readiness is unknown: the next read must be [`read_regardless`].
pub(crate) fn peer_has_gone(stream: &TcpStream, cx: &mut Context<'_>) -> bool {
    for _ in 0..2 {
        if stream.poll_read_ready(cx).is_pending() {
            return false;
        }
        // Clears "readable"; "closed" stays, and makes the second look ready again.
        let cleared: io::Result<()> =
            stream.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
        drop(cleared);
    }
    stream.poll_read_ready(cx).is_ready()
}

/// Reads without asking for readiness first.
pub(crate) fn read_regardless(stream: &TcpStream, space: &mut [u8]) -> io::Result<usize> {
    loop {
        match io::Read::read(&mut &*SockRef::from(stream), space) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
