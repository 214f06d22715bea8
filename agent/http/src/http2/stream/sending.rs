//! The request's half of an exchange: what may go on goes to the server, as far as there is room.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use http::StatusCode;

use super::{Answer, Half, Stream, ToClient, Upstream};
use crate::{
    http2::{
        body::release,
        errors::{cut_by, reset_code},
        head,
    },
    request::More,
    seam::{Cut, Exchanges},
};

/// What a body may reserve at once of the server's windows.
const RESERVE_BYTES: usize = 64 << 10;

impl<X: Exchanges> Stream<X> {
    pub(super) fn poll_request(&mut self, cx: &mut Context<'_>) -> Half {
        match &mut self.upstream {
            Upstream::Done => return Half::Pending,
            Upstream::Waiting { leave, .. } => {
                // A request without a body waits for its end, so that both go on in one frame.
                let whole = self.request.end_is_due();
                if leave.is_some() && (whole || self.request.has_body() || !self.from_client.is_end_stream())
                {
                    return self.begin(whole);
                }
            }
            Upstream::Sending(stream) => match stream.poll_reset(cx) {
                // Why is said where the answer is read, if there is still one to come.
                Poll::Ready(_) => return self.server_wants_no_more(),
                Poll::Pending => {
                    if let Some(half) = self.send(cx) {
                        return half;
                    }
                }
            },
        }
        match self.request.poll_more(&mut self.from_client, &mut self.exchange, cx) {
            Poll::Ready(More::Progress) => Half::Progress,
            Poll::Ready(More::Head(headers)) => {
                if let Upstream::Waiting { leave, .. } = &mut self.upstream {
                    *leave = Some(headers);
                }
                Half::Progress
            }
            Poll::Ready(More::Answer(answer)) => self.answer(answer),
            Poll::Ready(More::Reset) => self.over(Reason::INTERNAL_ERROR, Reason::CANCEL, Cut::Ours),
            Poll::Ready(More::Broken(error)) => {
                let code = reset_code(error.reason());
                self.over(code, code, cut_by(&error, Cut::Client))
            }
            Poll::Pending => {
                self.say_continue();
                Half::Pending
            }
        }
    }

    /// Says 100 to a client that waits for it, while nothing has gone on: what is asked about its request may
    /// need its body. Otherwise the server says so.
    fn say_continue(&mut self) {
        if self.expects && matches!(self.upstream, Upstream::Waiting { .. }) && self.request.awaits_body() {
            self.send_continue();
        }
    }

    fn send_continue(&mut self) {
        if std::mem::take(&mut self.expects)
            && let ToClient::Unanswered(respond) = &mut self.to_client
        {
            let mut answer = http::Response::new(());
            *answer.status_mut() = StatusCode::CONTINUE;
            // Where it fails the stream is gone, which shows elsewhere.
            drop(respond.send_informational(answer));
        }
    }

    /// Sends the head, and the end with it where that is all.
    fn begin(&mut self, whole: bool) -> Half {
        let Upstream::Waiting { head, leave } = std::mem::replace(&mut self.upstream, Upstream::Done) else {
            return Half::Pending;
        };
        let trailers = if whole { self.request.take_trailers() } else { None };
        let ends = whole && trailers.is_none();
        let request = head::onward(*head, leave.unwrap_or_default(), self.shared.encrypted);
        match self.sender.send_request(request, ends) {
            Ok((answer, mut stream)) => {
                self.answer = Answer::Awaited(answer);
                if let Some(trailers) = trailers {
                    if stream.send_trailers(trailers).is_err() {
                        return Half::Progress;
                    }
                } else if !ends {
                    self.upstream = Upstream::Sending(stream);
                }
                Half::Progress
            }
            // The connection has failed, or the server has said GOAWAY.
            Err(error) if error.is_io() || error.is_go_away() => {
                self.over(head::code_for_unsent(&error), Reason::CANCEL, Cut::Unsent)
            }
            Err(error) => self.server_failed(&error),
        }
    }

    /// Sends what may be sent and has room. `None`: nothing moved.
    fn send(&mut self, cx: &mut Context<'_>) -> Option<Half> {
        let Upstream::Sending(stream) = &mut self.upstream else { return None };
        let sendable = self.request.sendable();
        if sendable > 0 {
            stream.reserve_capacity(sendable.min(RESERVE_BYTES));
            if stream.capacity() == 0 {
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => return Some(self.server_wants_no_more()),
                    Poll::Pending => return None,
                }
            }
            let bytes = self.request.take(stream.capacity());
            let taken = bytes.len();
            let ends = self.request.end_is_due() && !self.request.has_trailers();
            if stream.send_data(bytes, ends).is_err() {
                return Some(self.server_wants_no_more());
            }
            if ends {
                self.upstream = Upstream::Done;
            }
            release(&mut self.from_client, taken);
            return Some(Half::Progress);
        }
        if !self.request.end_is_due() {
            return None;
        }
        let sent = match self.request.take_trailers() {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        };
        if sent.is_err() {
            return Some(self.server_wants_no_more());
        }
        self.upstream = Upstream::Done;
        Some(Half::Progress)
    }

    /// The server has reset its stream. It may have answered before (RFC 9113 section 8.1).
    fn server_wants_no_more(&mut self) -> Half {
        self.upstream = Upstream::Done;
        Half::Progress
    }
}
