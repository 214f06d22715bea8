//! Stands between the client's socket and the HTTP/1.1 server: lets in only requests that can be read in one
//! way, and one at a time.
//!
//! Follows heads and bodies by their framing, so that it knows where the next head begins; changes nothing.
//! A request that is refused is replaced by one of its own that the service answers in its turn.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::HttpConfig;

use super::{
    head::{Framing, Refusal, chunk_size, framing, trailer},
    turn::Turn,
};

/// Stands for the request that is refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nHost: refused.invalid\r\nConnection: close\r\n\r\n";
/// The longest first line of a chunk, extensions and all.
const CHUNK_LINE_BYTES: usize = 256;
const READ_BYTES: usize = 16 << 10;
/// For how long a client's end is kept back: while an answer is read that is there already, and while it passes.
const TURNS_FOR_THE_ANSWER: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Behind a request whose answer has not gone on.
    Between,
    /// Nothing more is let in.
    Refused,
    /// The body that was let in in part goes on wrongly.
    Broken,
}

pub(super) struct Gate<T> {
    io: T,
    buffer: BytesMut,
    /// Bytes at the front of `buffer` that may be let in.
    vetted: usize,
    /// Bytes behind those that were looked through for the end of a line.
    looked: usize,
    /// Where the line begins that is looked for, behind the vetted bytes.
    line: usize,
    at: At,
    ended: bool,
    /// How the client has gone while its request was under way.
    gone: Option<io::Result<bool>>,
    turns_left: u8,
    head_bytes: usize,
    head_lines: usize,
    read_ahead: usize,
    turn: Rc<Turn>,
}

impl<T> Gate<T> {
    pub(super) fn new(io: T, config: &HttpConfig, turn: Rc<Turn>) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            vetted: 0,
            looked: 0,
            line: 0,
            at: At::Head,
            ended: false,
            gone: None,
            turns_left: TURNS_FOR_THE_ANSWER,
            head_bytes: config.header_bytes as usize,
            head_lines: config.header_count,
            read_ahead: config.read_buffer,
            turn,
        }
    }

    /// The socket, and what was read of it and not let in.
    pub(super) fn into_parts(self) -> (T, Bytes) {
        (self.io, self.buffer.freeze())
    }

    /// Whether the client ended in the middle of a request's head.
    pub(super) fn ended_in_head(&self) -> bool {
        self.ended && self.at == At::Head && !self.buffer.is_empty()
    }

    /// Looks through what was read and lets in what may be. `false`: more must be read first.
    fn vet(&mut self) -> bool {
        let before = self.vetted;
        loop {
            let step = match self.at {
                At::Head => self.head(),
                At::Body(left) => {
                    self.pass(left).map(|left| if left == 0 { At::Between } else { At::Body(left) })
                }
                At::Chunk(left) => {
                    self.pass(left).map(|left| if left == 0 { At::ChunkEnd } else { At::Chunk(left) })
                }
                At::ChunkEnd => self.chunk_end(),
                At::ChunkSize => self.chunk_size(),
                At::Trailers => self.trailers(),
                At::Between | At::Refused | At::Broken => None,
            };
            match step {
                Some(at) => self.at = at,
                None => return self.vetted > before || matches!(self.at, At::Refused | At::Broken),
            }
        }
    }

    fn unvetted(&self) -> &[u8] {
        self.buffer.get(self.vetted..).unwrap_or_default()
    }

    fn let_in(&mut self, bytes: usize) {
        self.vetted += bytes;
        self.looked = 0;
        self.line = 0;
    }

    /// Lets in up to `left` bytes; says how many are left. `None`: there are none.
    fn pass(&mut self, left: u64) -> Option<u64> {
        let there = self.unvetted().len();
        if there == 0 && left > 0 {
            return None;
        }
        let passed = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        self.let_in(passed);
        Some(left - passed as u64)
    }

    /// The next line, as a range behind the vetted bytes without its CRLF.
    fn next_line(&mut self) -> Result<Option<std::ops::Range<usize>>, Refusal> {
        let unvetted = self.unvetted();
        let fresh = unvetted.get(self.looked..).unwrap_or_default();
        let Some(lf) = fresh.iter().position(|&byte| byte == b'\n') else {
            self.looked = unvetted.len();
            return Ok(None);
        };
        let end = self.looked + lf;
        let line = unvetted.get(self.line..end).unwrap_or_default();
        match line.iter().position(|&byte| byte == b'\r') {
            Some(cr) if cr + 1 == line.len() => {}
            Some(_) => return Err(Refusal::ambiguous("a CR in the middle of a line")),
            None => return Err(Refusal::ambiguous("a line that ends in LF alone")),
        }
        let range = self.line..end - 1;
        self.looked = end + 1;
        self.line = end + 1;
        Ok(Some(range))
    }

    fn head(&mut self) -> Option<At> {
        loop {
            let first = self.line == 0;
            match self.next_line() {
                Err(refusal) => return Some(self.refuse(refusal)),
                // Empty lines before a request are passed over (RFC 9112 section 2.2).
                Ok(Some(line)) if line.is_empty() && first => {
                    // Nothing is vetted yet where a head begins.
                    self.buffer.advance(2);
                    self.let_in(0);
                }
                Ok(Some(line)) if line.is_empty() => break,
                Ok(Some(_)) => {}
                Ok(None) if self.unvetted().len() > self.head_bytes => {
                    let refusal = if first {
                        Refusal::plain(414, "a request line above the limit")
                    } else {
                        Refusal::plain(431, "a header section above the limit")
                    };
                    return Some(self.refuse(refusal));
                }
                Ok(None) => return None,
            }
        }
        if self.line > self.head_bytes {
            return Some(self.refuse(Refusal::plain(431, "a header section above the limit")));
        }
        match framing(self.unvetted().get(..self.line).unwrap_or_default(), self.head_lines) {
            Err(refusal) => Some(self.refuse(refusal)),
            Ok(framing) => {
                self.let_in(self.line);
                self.turn.entered();
                Some(match framing {
                    Framing::Length(0) => At::Between,
                    Framing::Length(length) => At::Body(length),
                    Framing::Chunked => At::ChunkSize,
                })
            }
        }
    }

    fn chunk_size(&mut self) -> Option<At> {
        match self.next_line() {
            Ok(Some(line)) => {
                let size = chunk_size(self.unvetted().get(line).unwrap_or_default());
                match size {
                    Ok(size) => {
                        self.let_in(self.line);
                        Some(if size == 0 { At::Trailers } else { At::Chunk(size) })
                    }
                    Err(refusal) => Some(self.broken(refusal)),
                }
            }
            Ok(None) if self.unvetted().len() > CHUNK_LINE_BYTES => {
                Some(self.broken(Refusal::ambiguous("a chunk size that does not end")))
            }
            Ok(None) => None,
            Err(refusal) => Some(self.broken(refusal)),
        }
    }

    fn chunk_end(&mut self) -> Option<At> {
        match self.unvetted() {
            [b'\r', b'\n', ..] => {
                self.let_in(2);
                Some(At::ChunkSize)
            }
            [] | [b'\r'] => None,
            _ => Some(self.broken(Refusal::ambiguous("a chunk that is longer than it said"))),
        }
    }

    fn trailers(&mut self) -> Option<At> {
        match self.next_line() {
            Ok(Some(line)) if line.is_empty() => {
                self.let_in(self.line);
                Some(At::Between)
            }
            Ok(Some(line)) => match trailer(self.unvetted().get(line).unwrap_or_default()) {
                Ok(()) => Some(At::Trailers),
                Err(refusal) => Some(self.broken(refusal)),
            },
            Ok(None) if self.unvetted().len() > self.head_bytes => {
                Some(self.broken(Refusal::plain(431, "a trailer section above the limit")))
            }
            Ok(None) => None,
            Err(refusal) => Some(self.broken(refusal)),
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> At {
        self.turn.refuse(refusal);
        self.buffer.truncate(self.vetted);
        self.buffer.extend_from_slice(STAND_IN);
        self.let_in(STAND_IN.len());
        self.turn.entered();
        At::Refused
    }

    fn broken(&mut self, refusal: Refusal) -> At {
        self.turn.refuse(refusal);
        self.buffer.truncate(self.vetted);
        At::Broken
    }
}

impl<T: AsyncRead + Unpin> Gate<T> {
    /// Reads more. `false`: the client has ended.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        let mut chunk = [0_u8; READ_BYTES];
        let mut chunk = ReadBuf::new(&mut chunk);
        match ready!(Pin::new(&mut self.io).poll_read(cx, &mut chunk)) {
            // TLS that ends without saying so: requests say whether something is missing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            read => read?,
        }
        self.buffer.extend_from_slice(chunk.filled());
        self.ended = chunk.filled().is_empty();
        Poll::Ready(Ok(!self.ended))
    }

    /// Waits for the answer to the request that is under way, and for the client to go meanwhile.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.turn.under_way() {
            self.turn.register(cx);
            if self.gone.is_some() {
                // The library drops the exchange with it, and with that an answer that nobody has looked at.
                let Some(left) = self.turns_left.checked_sub(1) else { break };
                self.turns_left = left;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.buffer.len() >= self.read_ahead {
                return Poll::Pending;
            }
            let more = ready!(self.poll_more(cx));
            self.gone = (!matches!(more, Ok(true))).then_some(more);
        }
        Poll::Ready(self.gone.take().unwrap_or(Ok(true)))
    }
}

impl<T: AsyncRead + Unpin> Read for Gate<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.vetted > 0 {
                let bytes = this.vetted.min(into.remaining());
                into.put_slice(this.buffer.get(..bytes).unwrap_or_default());
                this.buffer.advance(bytes);
                this.vetted -= bytes;
                if this.buffer.is_empty() {
                    // An idle connection keeps no buffer.
                    this.buffer = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match this.at {
                At::Refused => return Poll::Pending,
                At::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                At::Between => {
                    if !ready!(this.poll_turn(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                    this.at = At::Head;
                }
                _ => {}
            }
            if !this.vet() && !ready!(this.poll_more(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> Write for Gate<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, buf);
        self.turn.wrote(wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.turn.wrote(flushed)
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
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.turn.wrote(wrote)
    }
}
