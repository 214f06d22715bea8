//! The two ends of a connection, and how an end or a reset of one is carried over to the other.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use verbatim_wire::seam::Direction;

mod leg;
mod tls;
mod watch;

pub(crate) use leg::Leg;
pub(crate) use tls::TlsLeg;
pub(crate) use watch::Watch;

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
    /// FIN; of TLS, its own end.
    Fin,
    /// FIN without TLS's own end: somebody may have cut it off.
    Truncated,
    /// RST, a time-out of the kernel's, a broken rule of TLS.
    Reset,
}

impl Ended {
    /// From what a read said.
    pub(crate) fn by(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Reset,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed.
    Closed,
    /// One side reset it.
    Reset(Side),
    /// One side went away in the middle, or broke the protocol; carries what happened.
    Broken(Side, String),
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
    /// TLS did not come about, or was refused; carries why.
    Tls(String),
}

/// Both ends.
pub(crate) struct Legs {
    /// `None` only while somebody else has it.
    pub(crate) client: Option<Leg>,
    /// `None` before the dial, and after a refusal that closed it.
    pub(crate) server: Option<Leg>,
}

impl Legs {
    pub(crate) fn side(&mut self, side: Side) -> Option<&mut Leg> {
        match side {
            Side::Client => self.client.as_mut(),
            Side::Server => self.server.as_mut(),
        }
    }

    /// Where a direction's input comes from.
    pub(crate) fn from(&mut self, direction: Direction) -> Option<&mut Leg> {
        self.side(source(direction))
    }

    /// Where a direction's output goes.
    pub(crate) fn to(&mut self, direction: Direction) -> Option<&mut Leg> {
        self.side(source(opposite(direction)))
    }

    /// Resets the server's leg: what is under way there is not to be completed.
    pub(crate) fn abort_server(&mut self) {
        if let Some(server) = self.server.take() {
            reset(server.socket());
        }
    }

    /// Closes both legs the way the connection ended.
    pub(crate) fn close(self, end: &End) {
        match end {
            End::Closed | End::Refused | End::Broken(..) | End::Tls(_) => {}
            End::Reset(_)
            | End::Killed
            | End::DialFailed(_)
            | End::Panicked(_)
            | End::Stuck(_)
            | End::Unrecordable(_) => {
                for leg in self.client.iter().chain(&self.server) {
                    reset(leg.socket());
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
