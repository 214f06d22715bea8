//! Looks at the frame headers that pass on an HTTP/2 leg: what the library deals with in silence must show.
//!
//! Knows frames (RFC 9113 section 4.1) and nothing of what is in them, but for the code of a RST_STREAM.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const HEADER_BYTES: usize = 9;
/// The connection preface of a client (RFC 9113 section 3.4).
const PREFACE_BYTES: u64 = 24;
/// Resets of the library's that are kept until somebody looks.
const MOST_RESETS: usize = 16;
/// Streams whose acceptance is remembered.
const MOST_ACCEPTED: usize = 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// What was seen on a leg.
pub(super) struct Seen {
    budget: RefCell<Budget>,
    flood: Cell<Option<&'static str>>,
    resets: RefCell<VecDeque<(u32, u32)>>,
    /// Streams that came to us, in order.
    accepted: RefCell<VecDeque<u32>>,
    /// Streams that the library answered by itself.
    answered: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Seen {
    pub(super) fn new(control_frames: u32) -> Rc<Self> {
        Rc::new(Self {
            budget: RefCell::new(Budget::new(control_frames)),
            flood: Cell::new(None),
            resets: RefCell::default(),
            accepted: RefCell::default(),
            answered: Cell::new(0),
            waker: RefCell::default(),
        })
    }

    /// The kind of frame that the peer sent too many of. Nothing is read from then on.
    pub(super) fn flood(&self) -> Option<&'static str> {
        self.flood.get()
    }

    /// A stream that was reset with an error code for which only a broken rule is a reason, with that code.
    pub(super) fn take_reset(&self) -> Option<(u32, u32)> {
        self.resets.borrow_mut().pop_front()
    }

    /// How many requests were answered before anybody saw them, since last asked.
    pub(super) fn take_answered(&self) -> u64 {
        self.answered.take()
    }

    /// A request came to us, so that an answer to it is none of the library's own.
    pub(super) fn accepted(&self, stream: u32) {
        let mut accepted = self.accepted.borrow_mut();
        if accepted.len() == MOST_ACCEPTED {
            accepted.pop_front();
        }
        accepted.push_back(stream);
    }

    fn was_accepted(&self, stream: u32) -> bool {
        let accepted = self.accepted.borrow();
        match accepted.front() {
            // Streams come in the order of their numbers. What is older than what is remembered was accepted:
            // one that was not is answered at once.
            Some(&oldest) => stream < oldest || accepted.binary_search(&stream).is_ok(),
            None => false,
        }
    }

    fn read(&self, frame: Frame) {
        let what = match frame.kind {
            DATA if frame.length == 0 && frame.flags & END_STREAM == 0 => "empty DATA",
            PRIORITY => "PRIORITY",
            RST_STREAM => "RST_STREAM",
            SETTINGS => "SETTINGS",
            PING => "PING",
            DATA..=CONTINUATION => return,
            _ => "unknown",
        };
        if !self.budget.borrow_mut().spend() && self.flood.replace(Some(what)).is_none() {
            self.wake();
        }
    }

    fn written(&self, frame: Frame) {
        if frame.kind == HEADERS && !self.was_accepted(frame.stream) {
            self.answered.set(self.answered.get() + 1);
            self.wake();
        }
    }

    fn reset(&self, stream: u32, code: u32) {
        // PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR: never ours.
        if matches!(code, 1 | 3 | 5 | 6) {
            let mut resets = self.resets.borrow_mut();
            if resets.len() < MOST_RESETS {
                resets.push_back((stream, code));
                drop(resets);
                self.wake();
            }
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// A leg, looked at.
pub(super) struct Tap<T> {
    io: T,
    seen: Rc<Seen>,
    inward: Frames,
    outward: Frames,
}

impl<T> Tap<T> {
    /// The leg toward a client, which sends a preface first.
    pub(super) fn client(io: T, seen: Rc<Seen>) -> Self {
        Self { io, seen, inward: Frames::after(PREFACE_BYTES), outward: Frames::after(0) }
    }

    /// The leg toward a server, to which we send one.
    pub(super) fn server(io: T, seen: Rc<Seen>) -> Self {
        Self { io, seen, inward: Frames::after(0), outward: Frames::after(PREFACE_BYTES) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tap<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.seen.flood().is_some() {
            // Whoever drives the connection was woken to end it.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if read.is_pending() {
            let mut waker = this.seen.waker.borrow_mut();
            match waker.as_mut() {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let seen = &this.seen;
        if let Some(bytes) = buf.filled().get(before..) {
            this.inward.pass(bytes, |frame| seen.read(frame), |_, _| {});
        }
        if seen.flood().is_some() {
            cx.waker().wake_by_ref();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> Tap<T> {
    fn wrote(&mut self, bytes: &[u8]) {
        let seen = &self.seen;
        self.outward.pass(bytes, |frame| seen.written(frame), |stream, code| seen.reset(stream, code));
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tap<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.wrote(buf.get(..written).unwrap_or(buf));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = buf.get(..left).unwrap_or(buf);
            self.wrote(part);
            left -= part.len();
            if left == 0 {
                break;
            }
        }
        Poll::Ready(Ok(written))
    }
}

/// The header of a frame.
#[derive(Clone, Copy)]
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Finds the frames in a stream of bytes, wherever it is cut.
struct Frames {
    /// Bytes that are none of a frame's header.
    skip: u64,
    /// What has come of a header, and of the code behind that of a RST_STREAM.
    start: [u8; HEADER_BYTES + 4],
    have: usize,
}

impl Frames {
    fn after(skip: u64) -> Self {
        Self { skip, start: [0; HEADER_BYTES + 4], have: 0 }
    }

    fn pass(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame), mut reset: impl FnMut(u32, u32)) {
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((&next, rest)) = bytes.split_first() else { return };
            if let Some(slot) = self.start.get_mut(self.have) {
                *slot = next;
            }
            self.have += 1;
            bytes = rest;
            if self.have < HEADER_BYTES {
                continue;
            }
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3, c0, c1, c2, c3] = self.start;
            let length = u32::from_be_bytes([0, l0, l1, l2]);
            let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
            if self.have == HEADER_BYTES {
                each(Frame { length, kind, flags, stream });
                if kind == RST_STREAM && length == 4 {
                    continue;
                }
                self.skip = length.into();
                self.have = 0;
            } else if self.have == HEADER_BYTES + 4 {
                reset(stream, u32::from_be_bytes([c0, c1, c2, c3]));
                self.have = 0;
            }
        }
    }
}

/// So many at once, and a tenth of that a second.
struct Budget {
    most: u32,
    left: u32,
    filled: Instant,
}

impl Budget {
    fn new(most: u32) -> Self {
        Self { most, left: most, filled: Instant::now() }
    }

    fn spend(&mut self) -> bool {
        if self.left == 0 {
            let tenths = self.filled.elapsed().as_millis().saturating_mul(self.most.into()) / 10_000;
            self.left = u32::try_from(tenths).unwrap_or(self.most).min(self.most);
            self.filled = Instant::now();
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}
