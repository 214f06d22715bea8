//! The answer's way: each piece is shown, and goes on once what was shown is recorded. The same for both
//! versions.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, response};

use crate::{
    guarded::Guarded,
    request::{Piece, Source},
    seam::Exchange,
};

/// What may go on of an answer's body.
pub(crate) enum Out {
    /// Bytes, and whether they are the last.
    Data(Bytes, bool),
    /// The end, with its trailers.
    End(Option<HeaderMap>),
}

/// Why no more goes on.
pub(crate) enum Stopped<B> {
    /// It ended before its end.
    Broken(B),
    /// It cannot be recorded.
    Unrecorded,
}

/// The state of one answer's body.
#[derive(Default)]
pub(crate) struct Response {
    /// Shown, not known to be recorded.
    shown: Option<Out>,
}

/// Shows the head of an answer, and its end where that is known.
pub(crate) fn show_head<E: Exchange>(head: &response::Parts, ends: bool, exchange: &mut Guarded<E>) {
    exchange.response_head(head);
    if ends {
        exchange.response_end(None);
    }
}

impl Response {
    /// The next piece that may go on. Not called again after the last.
    pub(crate) fn poll_out<S: Source, E: Exchange>(
        &mut self,
        source: &mut S,
        exchange: &mut Guarded<E>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Out, Stopped<S::Broken>>> {
        loop {
            if self.shown.is_some() {
                let recorded = ready!(exchange.poll_recorded(cx));
                return Poll::Ready(match self.shown.take() {
                    Some(out) if recorded => Ok(out),
                    _ => Err(Stopped::Unrecorded),
                });
            }
            match ready!(source.poll_piece(cx)) {
                // An empty piece carries nothing but, perhaps, the end.
                Piece::Data(bytes) if bytes.is_empty() && !source.is_end() => {}
                Piece::Data(bytes) => {
                    let last = source.is_end();
                    if !bytes.is_empty() {
                        exchange.response(&bytes);
                    }
                    if last {
                        exchange.response_end(None);
                    }
                    self.shown = Some(Out::Data(bytes, last));
                }
                Piece::End(trailers) => {
                    exchange.response_end(trailers.as_ref());
                    self.shown = Some(Out::End(trailers));
                }
                Piece::Broken(why) => return Poll::Ready(Err(Stopped::Broken(why))),
            }
        }
    }
}
