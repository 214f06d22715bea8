//! TLS over a socket, as either side of it. Owns the session and what of the socket's bytes it has not taken.
//!
//! An idle leg holds no buffer of ours: ciphertext is read 64 KiB at a time into one of the shard's, which goes
//! back as soon as the session has taken it.

mod socket;
#[cfg(test)]
mod tests;

use std::{
    io::{self, BufRead, IoSlice, Write},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use rustls::Connection;
use tokio::{io::AsyncWrite, net::TcpStream};

use self::socket::{Nothing, Outward, poll_read};
use super::{leg::read_regardless, watch::Watch};
use crate::buffer::{Buffer, Pool};

/// How the socket's input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    Fin,
    Reset,
}

/// One end of a TLS connection.
pub(crate) struct TlsLeg {
    socket: TcpStream,
    session: Connection,
    pool: Rc<Pool>,
    /// Read from the socket, not taken by the session.
    ahead: Buffer,
    input: Input,
    watch: Rc<Watch>,
    /// The socket's readiness was looked past.
    stale: bool,
    /// The session's own buffer may be larger than it need be.
    grown: bool,
    /// TLS's own end is sent, or is not to be.
    ending: bool,
    /// The peer has sent TLS's own end.
    closed: bool,
    /// The socket takes nothing any more, and the peer is heard out.
    hearing_out: bool,
}

impl TlsLeg {
    /// Before the handshake. `ahead`: what was read of the socket and is the session's.
    pub(crate) fn new(socket: TcpStream, session: Connection, pool: Rc<Pool>, ahead: Buffer) -> Self {
        Self {
            socket,
            session,
            pool,
            ahead,
            input: Input::Open,
            watch: Rc::default(),
            stale: false,
            grown: false,
            ending: false,
            closed: false,
            hearing_out: false,
        }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn session(&self) -> &Connection {
        &self.session
    }

    /// To be asked when the leg is gone.
    pub(crate) fn watch(&self) -> Rc<Watch> {
        Rc::clone(&self.watch)
    }

    fn failed(&self) -> bool {
        self.watch.failure.get().is_some()
    }

    /// The first failure is the one that counts.
    fn fail(&mut self, error: rustls::Error) {
        self.watch.failure.get_or_init(|| error);
        self.ahead.clear();
    }

    /// Goes on with the handshake until it is done and everything of ours is sent. An error of TLS's is inside
    /// the I/O error; `UnexpectedEof` and `ConnectionReset` say that the peer went away.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let flushed = self.poll_flush_records(cx);
            if matches!(flushed, Poll::Ready(Err(_))) {
                // What the peer said before it went is worth more: an alert.
                while self.listens() {
                    ready!(self.poll_feed(cx));
                }
                return Poll::Ready(if self.client_is_done() { Ok(()) } else { Err(self.gone()) });
            }
            if !self.session.is_handshaking() {
                return flushed;
            }
            ready!(self.poll_feed(cx));
            let ended = self.failed() || (self.input != Input::Open && self.ahead.is_empty());
            if ended && !self.client_is_done() {
                return Poll::Ready(Err(self.gone()));
            }
        }
    }

    /// A client that has done its part need not wait for our tickets: what its going means is for its protocol to
    /// say, as with any other.
    fn client_is_done(&self) -> bool {
        matches!(self.session, Connection::Server(_)) && !self.session.is_handshaking() && !self.failed()
    }

    /// Waits after the handshake for the server's first words of any kind: a ticket, data, or an error as of
    /// [`TlsLeg::poll_handshake`].
    pub(crate) fn poll_first_words(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.failed() {
                return Poll::Ready(Err(self.gone()));
            }
            let ticket = matches!(&self.session, Connection::Client(own) if own.tls13_tickets_received() > 0);
            if ticket || self.session.reader().into_first_chunk().is_ok_and(|chunk| !chunk.is_empty()) {
                return Poll::Ready(Ok(()));
            }
            if self.input != Input::Open && self.ahead.is_empty() {
                return Poll::Ready(Err(self.gone()));
            }
            ready!(self.poll_feed(cx));
        }
    }

    /// Whether the peer's next bytes may still say something that was not said yet.
    fn listens(&mut self) -> bool {
        let chunk = self.session.reader().into_first_chunk().map(drop);
        let waits = chunk.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        waits && !self.failed() && self.input == Input::Open
    }

    fn gone(&self) -> io::Error {
        self.watch.failure().unwrap_or_else(|| match self.input {
            Input::Fin => io::ErrorKind::UnexpectedEof.into(),
            Input::Open | Input::Reset => io::ErrorKind::ConnectionReset.into(),
        })
    }

    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.listens() || !self.ahead.is_empty() || self.stale {
            return Poll::Ready(());
        }
        let ready = self.socket.poll_read_ready(cx).map(drop);
        if ready.is_pending() {
            self.shrink();
        }
        ready
    }

    /// Has the session make its own buffer small again, which it does upon a read alone.
    fn shrink(&mut self) {
        if std::mem::take(&mut self.grown) {
            drop(self.session.read_tls(&mut Nothing));
        }
    }

    pub(crate) fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let peeked = self.session.reader().into_first_chunk().map(|chunk| !chunk.is_empty());
            match peeked.map_err(|error| error.kind()) {
                Ok(there) => return Poll::Ready(there),
                Err(io::ErrorKind::WouldBlock) if !self.failed() && self.input != Input::Reset => {
                    ready!(self.poll_feed(cx));
                }
                Err(_ended) => return Poll::Ready(false),
            }
        }
    }

    /// Reads into the slice.
    pub(crate) fn poll_take(&mut self, space: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        self.poll_yield(space.len(), cx, |bytes| {
            let end = taken + bytes.len();
            space.get_mut(taken..end).unwrap_or_default().copy_from_slice(bytes);
            taken = end;
        })
    }

    /// Gives at most so many bytes to `take`, and says how many; 0 is TLS's end.
    pub(crate) fn poll_yield(
        &mut self,
        room: usize,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        loop {
            if taken >= room {
                return Poll::Ready(Ok(taken));
            }
            let chunk = self.session.reader().into_first_chunk().map(|chunk| {
                let n = chunk.len().min(room - taken);
                take(chunk.get(..n).unwrap_or_default());
                n
            });
            match chunk {
                Ok(n) if n > 0 => {
                    self.session.reader().consume(n);
                    taken += n;
                    self.watch.spoke.set(true);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What was read comes first, the end with the next call.
                _ if taken > 0 => return Poll::Ready(Ok(taken)),
                ended => {
                    self.watch.truncated.set(ended.is_err());
                    self.watch.ended.set(ended.is_ok());
                    self.watch.over.get_or_init(Instant::now);
                    return Poll::Ready(ended);
                }
            }
            if taken > 0 && (self.ahead.is_empty() || self.failed()) {
                return Poll::Ready(Ok(taken));
            }
            if let Some(error) = self.watch.failure() {
                return Poll::Ready(Err(error));
            }
            if self.input == Input::Reset {
                self.watch.reset.set(true);
                self.watch.over.get_or_init(Instant::now);
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            ready!(self.poll_feed(cx));
        }
    }

    pub(crate) fn take_regardless(&mut self, space: &mut [u8], cx: &mut Context<'_>) -> io::Result<usize> {
        self.stale = true;
        match self.poll_take(space, cx) {
            Poll::Ready(taken) => taken,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Gives the session more of what the peer sent. What comes of it is in the session, in `failure` and in
    /// `input`.
    fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_empty() {
            ready!(self.poll_read_ahead(cx));
        }
        let mut bytes = self.ahead.all();
        if self.input == Input::Reset && bytes.is_empty() {
            return Poll::Ready(());
        }
        self.grown = true;
        match self.session.read_tls(&mut bytes) {
            // After TLS's own end nothing more is taken.
            Ok(0) => self.ahead.clear(),
            Ok(n) => self.ahead.dispose(n),
            Err(error) => self.fail(rustls::Error::General(error.to_string())),
        }
        match self.session.process_new_packets() {
            Ok(state) => self.closed |= state.peer_has_closed(),
            Err(error) => self.fail(error),
        }
        self.ahead.release(&self.pool);
        if self.session.wants_write() {
            // An alert, an answer to a key update. What does not go now goes with the next flush.
            drop(self.poll_flush_records(cx));
        }
        Poll::Ready(())
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.input != Input::Open {
            return Poll::Ready(());
        }
        let Some(space) = self.ahead.space(&self.pool) else { return Poll::Ready(()) };
        let read = match self.stale.then(|| read_regardless(&self.socket, space)) {
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_read(&mut self.socket, space, cx)
            }
            Some(read) => Poll::Ready(read),
            None => poll_read(&mut self.socket, space, cx),
        };
        match read {
            Poll::Pending => {
                self.stale = false;
                self.ahead.release(&self.pool);
                self.shrink();
                return Poll::Pending;
            }
            Poll::Ready(Ok(0)) => self.input = Input::Fin,
            Poll::Ready(Ok(n)) => self.ahead.filled(n),
            Poll::Ready(Err(_reset)) => self.input = Input::Reset,
        }
        Poll::Ready(())
    }

    pub(crate) fn poll_put(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush_records(cx))?;
        let written = self.session.writer().write(bytes)?;
        self.put(written, cx)
    }

    pub(crate) fn poll_put_vectored(
        &mut self,
        parts: &[IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush_records(cx))?;
        let written = self.session.writer().write_vectored(parts)?;
        self.put(written, cx)
    }

    fn put(&mut self, written: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.poll_flush_records(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(written)),
        }
    }

    /// Sends the records that the session has made. `BrokenPipe`, whatever the socket says, where the peer has ended
    /// TLS: what it does to the socket afterwards cuts off nothing.
    pub(crate) fn poll_flush_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.poll_send_records(cx);
        if matches!(flushed, Poll::Ready(Err(_))) {
            self.hear_out(cx);
            if self.closed {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
        }
        flushed
    }

    /// The socket takes nothing any more, and whoever writes may not come to read again: reads what the peer said
    /// before it went, which may be how it ended TLS.
    fn hear_out(&mut self, cx: &mut Context<'_>) {
        if std::mem::replace(&mut self.hearing_out, true) {
            return;
        }
        // What arrived since the last read does not show in the socket's readiness yet.
        self.stale = true;
        while self.listens() && self.poll_feed(cx).is_ready() {}
        match self.session.reader().into_first_chunk().map(<[u8]>::is_empty).map_err(|error| error.kind()) {
            Ok(ended) => {
                self.watch.ended.set(ended);
                self.watch.spoke.set(self.watch.spoke() || !ended);
            }
            Err(io::ErrorKind::UnexpectedEof) => self.watch.truncated.set(true),
            Err(_open) => self.watch.reset.set(self.input == Input::Reset),
        }
        if self.input != Input::Open || self.watch.ended() {
            self.watch.over.get_or_init(Instant::now);
        }
        self.hearing_out = false;
    }

    fn poll_send_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let mut socket = Outward { socket: &mut self.socket, cx };
            match self.session.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends TLS's own end, if that is clean, and FIN.
    pub(crate) fn poll_shut(&mut self, clean: bool, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ending, true) && clean && !self.failed() {
            self.session.send_close_notify();
        }
        let flushed = ready!(self.poll_flush_records(cx));
        let shut = ready!(Pin::new(&mut self.socket).poll_shutdown(cx));
        Poll::Ready(flushed.and(shut))
    }
}
