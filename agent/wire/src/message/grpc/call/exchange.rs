//! What the endpoints say to a call.

use http::{HeaderMap, response};

use super::{Call, encoding};
use crate::{
    message::{
        Abort, Exchange, MessageSink, Pass,
        grpc::{
            framing::Step,
            hook::{Found, GrpcMessages, Opening},
            status,
        },
    },
    seam::{Decision, Direction, Outcome, Status, UnitId},
};

impl<M: GrpcMessages> Exchange for Call<M> {
    fn begin(&mut self, sink: &mut dyn MessageSink) {
        if self.messages.opening() == Opening::Head || !self.reads() {
            self.announce(vec![self.command.clone()], false, sink);
        }
    }

    fn request(&mut self, bytes: &[u8], sink: &mut dyn MessageSink) -> usize {
        if self.over || self.rest {
            self.sent = self.sent.saturating_add(bytes.len() as u64);
            Self::count(&mut self.requests, bytes);
            return bytes.len();
        }
        let mut consumed = 0usize;
        while self.waiting.is_none() && !self.rest {
            let left = bytes.get(consumed..).unwrap_or_default();
            if left.is_empty() {
                break;
            }
            let (taken, step) = self.requests.push(left);
            consumed = consumed.saturating_add(taken);
            self.held = self.held.saturating_add(taken as u64);
            self.sent = self.sent.saturating_add(taken as u64);
            match step {
                Step::More if self.passing => self.pass(u64::MAX, sink),
                Step::More if self.going.is_some() => self.pass(self.held.saturating_sub(1), sink),
                Step::More => {}
                Step::Limit => self.request_message(false, sink),
                Step::Message => {
                    if std::mem::take(&mut self.passing) {
                        let Found { ended, .. } = self.read(Direction::ToServer, true);
                        self.end_found(ended, sink);
                        self.requests.next();
                        self.pass(u64::MAX, sink);
                    } else {
                        self.request_message(true, sink);
                    }
                }
                // Where a message begins is not known any more.
                Step::Malformed if self.head_gone => self.pass_rest(sink),
                Step::Malformed => self.announce(vec![self.command.clone()], false, sink),
            }
        }
        if self.rest {
            let left = bytes.get(consumed..).unwrap_or_default();
            self.sent = self.sent.saturating_add(left.len() as u64);
            Self::count(&mut self.requests, left);
            return bytes.len();
        }
        consumed
    }

    fn request_end(&mut self, _: Option<&HeaderMap>, sink: &mut dyn MessageSink) {
        self.ended = true;
        if self.over || self.rest || self.waiting.is_some() {
            return;
        }
        if let Some((unit, known)) = self.going.take() {
            self.announce_again(unit, known, Vec::new(), sink);
        } else if self.head_gone {
            // The end, and what there is of a message that was not whole.
            self.pass_rest(sink);
        } else {
            self.announce(vec![self.command.clone()], false, sink);
        }
    }

    fn response_head(&mut self, head: &response::Parts, _: &mut dyn MessageSink) {
        self.status = Some(head.status);
        self.response_encoding = encoding(&head.headers);
        self.response_headers = Some(head.headers.clone());
    }

    fn response(&mut self, bytes: &[u8], sink: &mut dyn MessageSink) {
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.messages.wanted(Direction::ToClient) == 0 {
            Self::count(&mut self.responses, bytes);
            return;
        }
        let mut left = bytes;
        while !left.is_empty() {
            let (taken, step) = self.responses.push(left);
            left = left.get(taken..).unwrap_or_default();
            if step == Step::Message {
                let found = self.read(Direction::ToClient, true);
                self.responses.next();
                self.end_found(found.ended, sink);
            }
        }
    }

    fn response_end(&mut self, trailers: Option<&HeaderMap>, sink: &mut dyn MessageSink) {
        if self.over {
            return;
        }
        self.answered = true;
        self.conclude(trailers, sink);
        if self.waiting.is_none() && self.head_gone && !self.rest {
            self.pass_rest(sink);
        }
    }

    fn abort(&mut self, _: Abort, sink: &mut dyn MessageSink) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if self.next_command == 0 {
            // Nothing of it went on, and nothing will. It is recorded all the same.
            let mut command = self.command.clone();
            command.attributes.push(("rejected", b"the request ended before it was whole".to_vec()));
            self.announce(vec![command], false, sink);
        }
        let unsent = Outcome { status: Status::NotForwarded, ..Outcome::default() };
        self.end(|open| !open.decided, &unsent, sink);
        let mut unknown = status::outcome(self.status, None, None);
        unknown.status = Status::OutcomeUnknown;
        unknown.error = None;
        self.counted(&mut unknown);
        self.end(|_| true, &unknown, sink);
        self.waiting = None;
    }

    fn decide(&mut self, unit: UnitId, decision: &Decision, sink: &mut dyn MessageSink) {
        let Some(waiting) = self.waiting.take_if(|waiting| waiting.unit == unit) else { return };
        if self.over {
            return;
        }
        if let Decision::Refuse(refusal) = decision {
            self.over = true;
            let unsent = Outcome { status: Status::NotForwarded, ..Outcome::default() };
            for id in &waiting.ids {
                if let Some(open) = self.open.get_mut(id) {
                    open.decided = false;
                }
            }
            self.end(|open| !open.decided, &unsent, sink);
            // What was let through before is cut off with it.
            let unknown = Outcome { status: Status::OutcomeUnknown, ..Outcome::default() };
            self.end(|_| true, &unknown, sink);
            sink.answer(status::refusal(refusal));
            return;
        }
        for id in &waiting.ids {
            if let Some(open) = self.open.get_mut(id) {
                open.decided = true;
            }
        }
        if self.answered {
            // The server has ended the call while this waited: it is never seen.
            let unsent = Outcome { status: Status::NotForwarded, ..Outcome::default() };
            self.end(|_| true, &unsent, sink);
            self.pass_rest(sink);
            return;
        }
        if !self.reads() || self.ended || self.requests.is_malformed() {
            self.pass_rest(sink);
            return;
        }
        if !std::mem::replace(&mut self.head_gone, true) {
            sink.pass(Pass::Head);
        }
        if waiting.prefix {
            self.pass(self.held.saturating_sub(1), sink);
        } else {
            self.pass(u64::MAX, sink);
        }
    }
}
