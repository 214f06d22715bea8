//! The request's way: read, shown, held, and let go as the exchange says. The same for both versions.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::{
    guarded::Guarded,
    seam::{Exchange, Step},
};

/// A piece of a message's body.
pub(crate) enum Piece<B> {
    Data(Bytes),
    End(Option<HeaderMap>),
    /// It ended before its end.
    Broken(B),
}

/// Where a body comes from.
pub(crate) trait Source {
    /// Says why a body ended early.
    type Broken;
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Piece<Self::Broken>>;
    /// Whether nothing follows what was given already; `false` where that is not known.
    fn is_end(&self) -> bool;
}

/// What came of looking at a request once more.
pub(crate) enum More<B> {
    /// Something may be sent now, or could be shown.
    Progress,
    /// The head may go on, with these headers in place of those of the same name.
    Head(Vec<(HeaderName, HeaderValue)>),
    Answer(Response<Bytes>),
    Reset,
    Broken(B),
}

/// The state of one request.
pub(crate) struct Request {
    /// Read, shown, and not sent.
    held: VecDeque<Bytes>,
    held_bytes: usize,
    most_held: usize,
    /// Bytes that may be sent.
    due: u64,
    trailers: Option<HeaderMap>,
    /// All of it was read and shown.
    ended: bool,
    /// Its end may be sent.
    end_due: bool,
    /// Nothing is asked any more.
    rest: bool,
}

impl Request {
    pub(crate) fn new(most_held: usize) -> Self {
        Self {
            held: VecDeque::new(),
            held_bytes: 0,
            most_held,
            due: 0,
            trailers: None,
            ended: false,
            end_due: false,
            rest: false,
        }
    }

    /// Bytes that may be sent now and are there.
    pub(crate) fn sendable(&self) -> usize {
        if self.rest {
            self.held_bytes
        } else {
            self.held_bytes.min(usize::try_from(self.due).unwrap_or(usize::MAX))
        }
    }

    /// Takes up to `most` of the bytes that may be sent, one piece as it was read; empty when there are none.
    pub(crate) fn take(&mut self, most: usize) -> Bytes {
        let most = most.min(self.sendable());
        let Some(first) = self.held.front_mut() else { return Bytes::new() };
        let taken = if first.len() <= most {
            self.held.pop_front().unwrap_or_default()
        } else {
            first.split_to(most)
        };
        self.held_bytes -= taken.len();
        if !self.rest {
            self.due -= taken.len() as u64;
        }
        taken
    }

    /// Whether nothing but the end is left to be sent, and may be.
    pub(crate) fn end_is_due(&self) -> bool {
        self.ended && self.held_bytes == 0 && (self.rest || self.end_due)
    }

    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Whether some of its body is held.
    pub(crate) fn has_body(&self) -> bool {
        self.held_bytes > 0
    }

    pub(crate) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Whether nothing of its body was held and more is to be read: where `Expect: 100-continue` waits.
    pub(crate) fn awaits_body(&self) -> bool {
        !self.ended && self.held_bytes == 0
    }

    /// Reads and asks once more. Nothing is read while as much as may be is held, or, once nothing is asked
    /// any more, while there is something to send.
    pub(crate) fn poll_more<S: Source, E: Exchange>(
        &mut self,
        source: &mut S,
        exchange: &mut Guarded<E>,
        cx: &mut Context<'_>,
    ) -> Poll<More<S::Broken>> {
        let mut progress = false;
        let room = if self.rest { self.held_bytes == 0 } else { self.held_bytes < self.most_held };
        if !self.ended && room {
            match source.poll_piece(cx) {
                Poll::Ready(Piece::Data(bytes)) => {
                    progress = true;
                    if !bytes.is_empty() {
                        exchange.request(&bytes);
                        self.held_bytes += bytes.len();
                        self.held.push_back(bytes);
                    }
                    // So that the last bytes and the end can be decided, and sent, at once.
                    if source.is_end() {
                        self.end(None, exchange);
                    }
                }
                Poll::Ready(Piece::End(trailers)) => {
                    progress = true;
                    self.end(trailers, exchange);
                }
                Poll::Ready(Piece::Broken(why)) => return Poll::Ready(More::Broken(why)),
                Poll::Pending => {}
            }
        }
        // All that may be done is heard before any of it is done, so that bytes and end can go on at once.
        while !self.rest {
            match exchange.poll_step(cx) {
                Poll::Ready(Step::Head(headers)) => return Poll::Ready(More::Head(headers)),
                Poll::Ready(Step::Answer(answer)) => return Poll::Ready(More::Answer(answer)),
                Poll::Ready(Step::Reset) => return Poll::Ready(More::Reset),
                Poll::Ready(Step::Body(n)) => self.due = self.due.saturating_add(n),
                Poll::Ready(Step::Rest) => self.rest = true,
                Poll::Ready(Step::End) if self.end_due => break,
                Poll::Ready(Step::End) => self.end_due = true,
                Poll::Pending => break,
            }
            progress = true;
        }
        if progress { Poll::Ready(More::Progress) } else { Poll::Pending }
    }

    fn end<E: Exchange>(&mut self, trailers: Option<HeaderMap>, exchange: &mut Guarded<E>) {
        self.ended = true;
        self.trailers = trailers;
        exchange.request_end(self.trailers.as_ref());
    }
}
