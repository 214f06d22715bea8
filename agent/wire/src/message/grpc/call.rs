//! One call: its units, what of it may go on, and that each of its commands ends once.
//!
//! Owns the order of events and passes. Knows no API: a [`GrpcMessages`] says what its messages are.

mod exchange;

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue, StatusCode, request};

use super::{
    framing::{Framing, PREFIX, Step},
    hook::{Found, GrpcMessages, Message},
    status,
};
use crate::{
    message::{MessageSink, Pass, coding::Coding},
    seam::{Command, CommandId, Direction, Event, Outcome, Status, UnitId},
};

/// Commands of one call that are open at once; what is more is let through unread.
const MAX_OPEN: usize = 4096;
/// Bytes that come out of one compressed message at most, for one that is wanted.
const MOST_RATIO: usize = 4;

/// A unit that was announced.
struct Waiting {
    unit: UnitId,
    ids: Vec<CommandId>,
    /// Whether more of the message is to come.
    prefix: bool,
}

struct Open {
    decided: bool,
    /// Bytes of its message; 0 where it is the whole call.
    bytes: u64,
}

/// Drives one [`GrpcMessages`].
pub(super) struct Call<M> {
    messages: M,
    command: Command,
    /// The head has gone on.
    head_gone: bool,
    /// Everything goes on unread, but counted.
    rest: bool,
    over: bool,
    /// The request has ended, the answer has.
    ended: bool,
    answered: bool,
    waiting: Option<Waiting>,
    /// A unit that was let through by its first part, until its message is whole.
    going: Option<(UnitId, Vec<Command>)>,
    /// The first part of a message was no command: the rest of it passes.
    passing: bool,
    open: BTreeMap<CommandId, Open>,
    next_command: u64,
    next_unit: u64,
    /// Bytes of the request that were consumed and may not go on yet.
    held: u64,
    sent: u64,
    received: u64,
    requests: Framing,
    responses: Framing,
    request_encoding: Vec<u8>,
    response_encoding: Vec<u8>,
    status: Option<StatusCode>,
    response_headers: Option<HeaderMap>,
    /// Messages that were let through unread, since too many commands were open.
    unread: u64,
}

fn encoding(headers: &HeaderMap) -> Vec<u8> {
    headers.get("grpc-encoding").map(HeaderValue::as_bytes).unwrap_or_default().to_vec()
}

impl<M: GrpcMessages> Call<M> {
    pub(super) fn new(head: &request::Parts, command: Command, messages: M) -> Self {
        let requests = Framing::new(messages.wanted(Direction::ToServer));
        let responses = Framing::new(messages.wanted(Direction::ToClient));
        Self {
            messages,
            command,
            head_gone: false,
            rest: false,
            over: false,
            ended: false,
            answered: false,
            waiting: None,
            going: None,
            passing: false,
            open: BTreeMap::new(),
            next_command: 0,
            next_unit: 0,
            held: 0,
            sent: 0,
            received: 0,
            requests,
            responses,
            request_encoding: encoding(&head.headers),
            response_encoding: Vec::new(),
            status: None,
            response_headers: None,
            unread: 0,
        }
    }

    /// Whether requests are read message by message.
    fn reads(&self) -> bool {
        self.messages.wanted(Direction::ToServer) > 0
    }

    fn announce(&mut self, mut commands: Vec<Command>, prefix: bool, sink: &mut dyn MessageSink) {
        let unit = UnitId(self.next_unit);
        self.next_unit = self.next_unit.saturating_add(1);
        let message = self.requests.length().saturating_add(PREFIX as u64);
        let bytes = if self.head_gone { message } else { 0 };
        for command in &mut commands {
            command.id = CommandId(self.next_command);
            self.next_command = self.next_command.saturating_add(1);
            self.open.insert(command.id, Open { decided: false, bytes });
        }
        let ids = commands.iter().map(|command| command.id).collect();
        self.waiting = Some(Waiting { unit, ids, prefix });
        if prefix {
            self.going = Some((unit, commands.clone()));
            sink.event(Event::Prefix { unit, commands });
        } else {
            sink.event(Event::Started { unit, commands });
        }
    }

    /// A unit that was let through by its first part is whole.
    fn announce_again(
        &mut self,
        unit: UnitId,
        known: Vec<Command>,
        found: Vec<Command>,
        sink: &mut dyn MessageSink,
    ) {
        let ids: Vec<CommandId> = known.iter().map(|command| command.id).collect();
        let commands = if found.len() == known.len() {
            found.into_iter().zip(&ids).map(|(command, id)| Command { id: *id, ..command }).collect()
        } else {
            known
        };
        self.waiting = Some(Waiting { unit, ids, prefix: false });
        sink.event(Event::Started { unit, commands });
    }

    fn pass(&mut self, bytes: u64, sink: &mut dyn MessageSink) {
        let bytes = bytes.min(self.held);
        if bytes > 0 {
            self.held = self.held.saturating_sub(bytes);
            sink.pass(Pass::Body(bytes));
        }
    }

    fn pass_rest(&mut self, sink: &mut dyn MessageSink) {
        if !std::mem::replace(&mut self.head_gone, true) {
            sink.pass(Pass::Head);
        }
        self.rest = true;
        self.held = 0;
        sink.pass(Pass::Rest);
    }

    /// A message of the client's is there, or as much of it as is wanted.
    fn request_message(&mut self, whole: bool, sink: &mut dyn MessageSink) {
        let Found { mut commands, ended } = self.read(Direction::ToServer, whole);
        self.end_found(ended, sink);
        if self.open.len().saturating_add(commands.len()) > MAX_OPEN {
            self.unread = self.unread.saturating_add(1);
            commands.clear();
        }
        if whole {
            self.requests.next();
        }
        if let Some((unit, known)) = self.going.take() {
            self.pass(self.held.saturating_sub(1), sink);
            self.announce_again(unit, known, commands, sink);
        } else if !commands.is_empty() && !self.passing {
            self.announce(commands, !whole, sink);
        } else if self.head_gone {
            self.passing = !whole;
            self.pass(u64::MAX, sink);
        } else {
            // The first message is no command: the call itself is one.
            self.announce(vec![self.command.clone()], false, sink);
            self.passing = !whole;
        }
    }

    /// Asks what is in the message that was read last.
    fn read(&mut self, direction: Direction, whole: bool) -> Found {
        let (framing, encoding) = match direction {
            Direction::ToServer => (&self.requests, &self.request_encoding),
            Direction::ToClient => (&self.responses, &self.response_encoding),
        };
        let wanted = self.messages.wanted(direction);
        let mut decoded = Vec::new();
        let mut undecoded = false;
        let bytes = if framing.is_compressed() {
            let mut coding = Coding::of_message(encoding);
            let most = wanted.saturating_mul(MOST_RATIO);
            let mut keep = |piece: &[u8]| {
                let room = most.saturating_sub(decoded.len());
                decoded.extend(piece.iter().take(room));
            };
            coding.push(framing.kept(), &mut keep);
            if whole && framing.kept().len() as u64 == framing.length() {
                coding.finish(&mut keep);
            }
            undecoded = coding.failure().is_some();
            &decoded
        } else {
            framing.kept()
        };
        let message = Message {
            direction,
            index: if whole { framing.messages.saturating_sub(1) } else { framing.messages },
            bytes,
            length: framing.length(),
            whole,
            undecoded,
            next_command: CommandId(self.next_command),
        };
        self.messages.message(&message)
    }

    fn end_found(&mut self, ended: Vec<(CommandId, Outcome)>, sink: &mut dyn MessageSink) {
        for (id, outcome) in ended {
            let decided = self.open.get(&id).is_some_and(|open| open.decided);
            if decided && let Some(open) = self.open.remove(&id) {
                let outcome = Outcome { bytes_sent: open.bytes, ..outcome };
                sink.event(Event::Finished { command: id, outcome });
            }
        }
    }

    /// Ends commands that are open with an outcome each.
    fn end(&mut self, which: impl Fn(&Open) -> bool, outcome: &Outcome, sink: &mut dyn MessageSink) {
        let ids: Vec<CommandId> =
            self.open.iter().filter(|(_, open)| which(open)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(open) = self.open.remove(&id) else { continue };
            let mut outcome = outcome.clone();
            outcome.bytes_sent = if open.bytes == 0 { self.sent } else { open.bytes };
            outcome.bytes_received = self.received;
            if outcome.status != Status::NotForwarded {
                self.messages.outcome(id, &mut outcome);
            }
            sink.event(Event::Finished { command: id, outcome });
        }
    }

    /// What was counted.
    fn counted(&self, outcome: &mut Outcome) {
        let mut put = |name, value: String| outcome.attributes.push((name, value.into_bytes()));
        put("messages_sent", self.requests.messages.to_string());
        put("messages_received", self.responses.messages.to_string());
        if self.unread > 0 {
            put("messages_unread", self.unread.to_string());
        }
        for (name, framing) in [("request_framing", &self.requests), ("response_framing", &self.responses)] {
            if framing.is_malformed() {
                put(name, "malformed".to_owned());
            } else if !framing.is_at_boundary() {
                put(name, "cut".to_owned());
            }
        }
    }

    fn conclude(&mut self, trailers: Option<&HeaderMap>, sink: &mut dyn MessageSink) {
        let mut outcome = status::outcome(self.status, self.response_headers.as_ref(), trailers);
        self.counted(&mut outcome);
        self.end(|open| open.decided, &outcome, sink);
    }

    /// Counts what passes unread.
    fn count(framing: &mut Framing, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (taken, step) = framing.push(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if step == Step::Message {
                framing.next();
            }
        }
    }
}
