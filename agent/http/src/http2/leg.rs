//! A socket as the HTTP/2 library gets it: frames are looked at as they pass, and written in one go.
//!
//! The library flushes behind nearly every DATA frame, which is a system call, and a TLS record or two, for
//! each of a hundred small answers. Here writing only fills a buffer; whoever drives the connection sends it
//! when there is nothing more to do.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{frames::Frames, seen::Seen};
use crate::heard_out::HeardOut;

/// The connection preface of a client (RFC 9113 section 3.4).
const PREFACE_BYTES: u64 = 24;
/// Read at once at most. The library asks for a tenth of that, and so it costs ten system calls.
const READ_BYTES: usize = 64 << 10;
/// Written at once at most; what is more waits.
const WRITE_BYTES: usize = 64 << 10;
/// What a buffer may keep while it is empty.
const IDLE_BYTES: usize = 4 << 10;

thread_local! {
    /// Where all legs of a thread read to: an idle connection keeps no buffer for it.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Shared by the library, which reads and writes, and by whoever sends what it wrote.
pub(super) struct Leg<T>(Rc<RefCell<Socket<T>>>);

struct Socket<T> {
    io: HeardOut<T>,
    seen: Rc<Seen>,
    inward: Frames,
    outward: Frames,
    /// Read, and not taken by the library yet.
    read: BytesMut,
    unsent: BytesMut,
    /// Something was written to `io` and not flushed.
    unflushed: bool,
    /// Who waits for room.
    waiting: Option<Waker>,
    end: End,
}

/// How a leg's end is told.
enum End {
    /// As it is read.
    Open,
    /// A turn after it is read. The library takes streams that are not done in both directions for broken with it,
    /// and forgets that an answer was whole: whoever waits for one sees it first.
    Behind,
    /// It has been read, so.
    Read(io::Result<()>),
}

impl<T> Clone for Leg<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Leg<T> {
    /// The leg toward a client, which sends a preface first.
    pub(super) fn client(io: T, seen: Rc<Seen>) -> Self {
        Self::new(io, seen, [PREFACE_BYTES, 0], End::Open)
    }

    /// The leg toward a server, to which we send one.
    pub(super) fn server(io: T, seen: Rc<Seen>) -> Self {
        Self::new(io, seen, [0, PREFACE_BYTES], End::Behind)
    }

    fn new(io: T, seen: Rc<Seen>, prefaces: [u64; 2], end: End) -> Self {
        let [inward, outward] = prefaces.map(Frames::after);
        Self(Rc::new(RefCell::new(Socket {
            io: HeardOut::new(io),
            seen,
            inward,
            outward,
            read: BytesMut::new(),
            unsent: BytesMut::new(),
            unflushed: false,
            waiting: None,
            end,
        })))
    }
}

impl<T: AsyncWrite + Unpin> Leg<T> {
    /// Sends what was written, as far as it is taken now; what is not wakes again. A failure shows to the
    /// library where it reads, behind all that the peer has said.
    pub(super) fn send(&self, cx: &mut Context<'_>) {
        let socket = &mut *self.0.borrow_mut();
        let failed = socket.io.has_failed();
        let _sent = socket.poll_send(cx);
        if socket.io.has_failed() != failed {
            // The library may be asleep, and its part of the connection with it.
            socket.seen.wake();
        }
        if socket.unsent.len() < WRITE_BYTES
            && let Some(waiting) = socket.waiting.take()
        {
            waiting.wake();
        }
    }

    /// Whether something that was written is not sent yet.
    pub(super) fn has_unsent(&self) -> bool {
        let socket = self.0.borrow();
        !socket.unsent.is_empty() || socket.unflushed
    }
}

impl<T: AsyncWrite + Unpin> Socket<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.unsent.is_empty() {
            let written = ready!(self.io.poll_put(&self.unsent, cx));
            self.unsent.advance(written);
            self.unflushed = true;
        }
        if self.unsent.capacity() > IDLE_BYTES {
            self.unsent = BytesMut::new();
        }
        if self.unflushed {
            ready!(self.io.poll_flushed(cx));
            self.unflushed = false;
        }
        Poll::Ready(())
    }

    /// Room for at least a byte.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.unsent.len() >= WRITE_BYTES
            && self.poll_send(cx).is_pending()
            && self.unsent.len() >= WRITE_BYTES
        {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(WRITE_BYTES - self.unsent.len())
    }

    fn write(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        let seen = &self.seen;
        self.outward.pass(bytes, |frame| seen.written(frame), |stream, code| seen.reset(stream, code));
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Leg<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = &mut *self.0.borrow_mut();
        socket.seen.register(cx);
        if socket.seen.flood().is_some() {
            // Whoever drives the connection ends it.
            return Poll::Pending;
        }
        if socket.read.is_empty() {
            return socket.poll_more(cx, buf);
        }
        let bytes = socket.read.split_to(buf.remaining().min(socket.read.len()));
        buf.put_slice(&bytes);
        if socket.read.is_empty() {
            socket.read = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> Socket<T> {
    /// As [`Socket::poll_fill`]; the end in its turn.
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if matches!(self.end, End::Read(_))
            && let End::Read(end) = std::mem::replace(&mut self.end, End::Open)
        {
            return Poll::Ready(end);
        }
        let before = buf.filled().len();
        let end = ready!(self.poll_fill(cx, buf));
        if buf.filled().len() > before || !matches!(self.end, End::Behind) {
            return Poll::Ready(end);
        }
        self.end = End::Read(end);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads as much as there is, gives what fits and keeps the rest.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut scratch = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut scratch)) {
                // TLS that ends without saying so: frames say whether something is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                read => read?,
            }
            let bytes = scratch.filled();
            let seen = &self.seen;
            self.inward.pass(bytes, |frame| seen.read(frame), |_, _| {});
            let (now, later) = bytes.split_at(buf.remaining().min(bytes.len()));
            buf.put_slice(now);
            self.read.extend_from_slice(later);
            Poll::Ready(Ok(()))
        })
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Leg<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let socket = &mut *self.0.borrow_mut();
        let room = ready!(socket.poll_room(cx));
        let bytes = buf.get(..room).unwrap_or(buf);
        socket.write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = &mut *self.0.borrow_mut();
        ready!(socket.poll_send(cx));
        socket.io.poll_shut(cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = &mut *self.0.borrow_mut();
        let room = ready!(socket.poll_room(cx));
        let mut written = 0;
        for buf in bufs {
            let bytes = buf.get(..room - written).unwrap_or(buf);
            socket.write(bytes);
            written += bytes.len();
        }
        Poll::Ready(Ok(written))
    }
}
