//! An exchange that is one command: when it is announced, what of it may go on, and that it ends once.
//!
//! Owns the order of events and passes. Knows no protocol: a [`Reading`] says what the bytes mean.

use http::{HeaderMap, response};

use super::{Abort, Answer, Exchange, MessageSink, Pass};
use crate::seam::{ChainKey, Command, CommandId, Decision, Event, Outcome, Refusal, Status, UnitId};

const UNIT: UnitId = UnitId(0);
const COMMAND: CommandId = CommandId(0);

/// What was found at the end of an exchange.
#[derive(Default)]
pub(super) struct Ending {
    /// Status, rows, error, attributes; the driver fills in bytes.
    pub(super) outcome: Outcome,
    /// What the answer says that the command began.
    pub(super) begun: Vec<ChainKey>,
    /// What the answer says has ended.
    pub(super) ended: Vec<(ChainKey, Outcome)>,
}

/// How far a request was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// All bytes were taken and the command is not whole.
    More,
    /// The command is whole after so many bytes, whatever of the body is still to come.
    Whole(usize),
    /// All bytes were taken, and the command is longer than is waited for.
    Limit,
}

/// What the bytes of an exchange mean.
pub(super) trait Reading: Send {
    /// Whether the head says all that there is to say about the command.
    fn by_head(&self) -> bool;
    /// The next bytes of the request's body, until the command is whole or, after [`Read::Limit`], to the
    /// body's end.
    fn request(&mut self, bytes: &[u8]) -> Read;
    /// The request's body has ended while it was being read.
    fn request_end(&mut self);
    /// The command as far as it is known. `whole`: no more of it will come.
    fn command(&mut self, whole: bool) -> Command;
    /// The head of the answer.
    fn response_head(&mut self, head: &response::Parts);
    /// The next bytes of its body.
    fn response(&mut self, bytes: &[u8]);
    /// The answer is whole.
    fn ending(&mut self, trailers: Option<&HeaderMap>) -> Ending;
    /// The answer ended before that: what is known of it.
    fn cut(&mut self) -> Outcome;
    /// What the request names itself, so that the command may have begun it although no answer says so.
    fn named(&self) -> Option<ChainKey> {
        None
    }
    /// The command is refused.
    fn refusal(&self, refusal: &Refusal) -> Answer;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The body is read; nothing was announced.
    Reading,
    /// Announced by its first part.
    PrefixWaits,
    /// Let through by its first part: all but the last byte goes on.
    Going,
    /// Announced whole. `head_gone`: it was let through by its first part.
    Waits { head_gone: bool },
    /// Everything goes on.
    Open,
    /// Refused, or over.
    Over,
}

/// Drives one [`Reading`].
pub(super) struct Single<R> {
    reading: R,
    state: State,
    /// Bytes of the body that were consumed and may not go on yet.
    held: u64,
    sent: u64,
    received: u64,
    finished: bool,
    /// The answer came before the command was decided.
    answered: bool,
}

impl<R: Reading> Single<R> {
    pub(super) fn new(reading: R) -> Self {
        Self {
            reading,
            state: State::Reading,
            held: 0,
            sent: 0,
            received: 0,
            finished: false,
            answered: false,
        }
    }

    fn command(&mut self, whole: bool) -> Vec<Command> {
        let command = self.reading.command(whole);
        vec![Command { id: COMMAND, ..command }]
    }

    fn announce(&mut self, head_gone: bool, sink: &mut dyn MessageSink) {
        self.state = State::Waits { head_gone };
        sink.event(Event::Started { unit: UNIT, commands: self.command(true) });
    }

    fn take(&mut self, bytes: usize) {
        self.held = self.held.saturating_add(bytes as u64);
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Lets everything go that is held, but for the last byte.
    fn pass_all_but_last(&mut self, sink: &mut dyn MessageSink) {
        let bytes = self.held.saturating_sub(1);
        if bytes > 0 {
            sink.pass(Pass::Body(bytes));
            self.held = self.held.saturating_sub(bytes);
        }
    }

    fn finish(&mut self, outcome: Outcome, sink: &mut dyn MessageSink) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let outcome = Outcome { bytes_sent: self.sent, bytes_received: self.received, ..outcome };
        sink.event(Event::Finished { command: COMMAND, outcome });
    }

    /// Ends the command by its answer.
    fn conclude(&mut self, trailers: Option<&HeaderMap>, sink: &mut dyn MessageSink) {
        if self.finished {
            return;
        }
        let Ending { outcome, begun, ended } = self.reading.ending(trailers);
        for chain in begun {
            sink.event(Event::ChainBegun { command: COMMAND, chain });
        }
        for (chain, outcome) in ended {
            sink.event(Event::ChainEnded { chain, outcome });
        }
        self.finish(outcome, sink);
    }
}

impl<R: Reading> Exchange for Single<R> {
    fn begin(&mut self, sink: &mut dyn MessageSink) {
        if self.reading.by_head() {
            self.announce(false, sink);
        }
    }

    fn request(&mut self, bytes: &[u8], sink: &mut dyn MessageSink) -> usize {
        match self.state {
            State::PrefixWaits | State::Waits { .. } => 0,
            State::Open | State::Over => {
                self.sent = self.sent.saturating_add(bytes.len() as u64);
                bytes.len()
            }
            State::Going => {
                // What counts as whole was decided by the first part; this is for length and digest.
                let _: Read = self.reading.request(bytes);
                self.take(bytes.len());
                self.pass_all_but_last(sink);
                bytes.len()
            }
            State::Reading => {
                let read = self.reading.request(bytes);
                let taken = match read {
                    Read::More | Read::Limit => bytes.len(),
                    Read::Whole(taken) => taken.min(bytes.len()),
                };
                self.take(taken);
                match read {
                    Read::More => {}
                    Read::Whole(_) => self.announce(false, sink),
                    Read::Limit => {
                        self.state = State::PrefixWaits;
                        sink.event(Event::Prefix { unit: UNIT, commands: self.command(false) });
                    }
                }
                taken
            }
        }
    }

    fn request_end(&mut self, _: Option<&HeaderMap>, sink: &mut dyn MessageSink) {
        if matches!(self.state, State::Reading | State::Going) {
            self.reading.request_end();
            self.announce(self.state == State::Going, sink);
        }
    }

    fn response_head(&mut self, head: &response::Parts, _: &mut dyn MessageSink) {
        self.reading.response_head(head);
    }

    fn response(&mut self, bytes: &[u8], _: &mut dyn MessageSink) {
        self.received = self.received.saturating_add(bytes.len() as u64);
        self.reading.response(bytes);
    }

    fn response_end(&mut self, trailers: Option<&HeaderMap>, sink: &mut dyn MessageSink) {
        match self.state {
            State::Open => self.conclude(trailers, sink),
            // The server answers although it has not seen the end: the rest changes nothing any more.
            State::Going => {
                self.state = State::Open;
                self.conclude(trailers, sink);
                sink.pass(Pass::Rest);
            }
            State::Reading | State::PrefixWaits | State::Waits { .. } => self.answered = true,
            State::Over => {}
        }
    }

    fn abort(&mut self, _: Abort, sink: &mut dyn MessageSink) {
        let state = std::mem::replace(&mut self.state, State::Over);
        let unsent = Outcome { status: Status::NotForwarded, ..Outcome::default() };
        match state {
            State::Over => {}
            State::Reading => {
                // Nothing of it went on, and nothing will. It is recorded all the same.
                self.reading.request_end();
                let mut commands = self.command(true);
                for command in &mut commands {
                    command.attributes.push(("rejected", b"the request ended before it was whole".to_vec()));
                }
                sink.event(Event::Started { unit: UNIT, commands });
                self.finish(unsent, sink);
            }
            State::PrefixWaits | State::Waits { head_gone: false } => self.finish(unsent, sink),
            State::Going | State::Waits { head_gone: true } | State::Open => {
                if state == State::Open
                    && !self.finished
                    && let Some(chain) = self.reading.named()
                {
                    sink.event(Event::ChainBegun { command: COMMAND, chain });
                }
                let outcome = self.reading.cut();
                self.finish(Outcome { status: Status::OutcomeUnknown, ..outcome }, sink);
            }
        }
    }

    fn decide(&mut self, unit: UnitId, decision: &Decision, sink: &mut dyn MessageSink) {
        if unit != UNIT {
            return;
        }
        match (self.state, decision) {
            (State::PrefixWaits, Decision::Allow) => {
                self.state = State::Going;
                sink.pass(Pass::Head);
                self.pass_all_but_last(sink);
            }
            (State::Waits { head_gone }, Decision::Allow) => {
                self.state = State::Open;
                if !head_gone {
                    sink.pass(Pass::Head);
                }
                sink.pass(Pass::Rest);
                if self.answered {
                    self.conclude(None, sink);
                }
            }
            (State::PrefixWaits | State::Waits { .. }, Decision::Refuse(refusal)) => {
                self.state = State::Over;
                let outcome = Outcome { status: Status::NotForwarded, ..Outcome::default() };
                self.finish(outcome, sink);
                sink.answer(self.reading.refusal(refusal));
            }
            _ => {}
        }
    }
}
