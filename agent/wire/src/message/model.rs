//! Two endpoints in memory around an exchange, that watch that its decoder keeps its promises.
//!
//! For tests and fuzz targets: a broken promise is a panic.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a model for tests: a broken promise must stop the test"
)]

use std::collections::{HashMap, HashSet};

use ::http::{HeaderMap, response};

use super::{Abort, Answer, Exchange, MessageSink, Pass};
use crate::{
    model::Policy,
    seam::{Command, CommandId, Decision, Event, Outcome, UnitId},
};

enum Action {
    Event(Box<Event>),
    Pass(Pass),
    Answer(Answer),
}

#[derive(Default)]
struct Log(Vec<Action>);

impl MessageSink for Log {
    fn event(&mut self, event: Event) {
        self.0.push(Action::Event(Box::new(event)));
    }
    fn pass(&mut self, pass: Pass) {
        self.0.push(Action::Pass(pass));
    }
    fn answer(&mut self, answer: Answer) {
        self.0.push(Action::Answer(answer));
    }
}

/// The endpoints.
pub struct Model {
    exchange: Box<dyn Exchange>,
    policy: Policy,
    /// Everything that was seen.
    pub events: Vec<Event>,
    /// The answer of our own.
    pub answer: Option<Answer>,
    /// Whether the head has gone on.
    pub head: bool,
    /// Whether nothing is held any more.
    pub rest: bool,
    /// Whether the end has gone on.
    pub end: bool,
    backlog: Vec<u8>,
    consumed: Vec<u8>,
    passed: usize,
    request_ended: bool,
    request_end_told: bool,
    over: bool,
    waiting: Option<UnitId>,
    decided: HashSet<UnitId>,
    announced: HashMap<UnitId, Vec<CommandId>>,
    open: HashMap<CommandId, UnitId>,
}

impl Model {
    /// Endpoints that have seen the head.
    pub fn new(exchange: Box<dyn Exchange>, policy: Policy) -> Self {
        let mut model = Self {
            exchange,
            policy,
            events: Vec::new(),
            answer: None,
            head: false,
            rest: false,
            end: false,
            backlog: Vec::new(),
            consumed: Vec::new(),
            passed: 0,
            request_ended: false,
            request_end_told: false,
            over: false,
            waiting: None,
            decided: HashSet::new(),
            announced: HashMap::new(),
            open: HashMap::new(),
        };
        model.tell(|exchange, sink| exchange.begin(sink));
        model
    }

    /// The request's body goes on.
    pub fn request(&mut self, bytes: &[u8]) {
        self.backlog.extend_from_slice(bytes);
        self.work();
    }

    /// The request ends.
    pub fn request_end(&mut self) {
        self.request_ended = true;
        self.work();
    }

    /// What was held is decided.
    pub fn release(&mut self, decision: &Decision) {
        let unit = self.waiting.take().expect("nothing is held");
        self.decide(unit, decision);
        self.work();
    }

    /// Whether a unit waits.
    pub fn holds(&self) -> bool {
        self.waiting.is_some()
    }

    /// The server answers.
    pub fn response_head(&mut self, head: &response::Parts) {
        self.tell(|exchange, sink| exchange.response_head(head, sink));
    }

    /// Its body goes on.
    pub fn response(&mut self, bytes: &[u8]) {
        self.tell(|exchange, sink| exchange.response(bytes, sink));
    }

    /// It is whole.
    pub fn response_end(&mut self, trailers: Option<&HeaderMap>) {
        self.tell(|exchange, sink| exchange.response_end(trailers, sink));
        let late = self.open.values().find(|unit| self.decided.contains(unit));
        assert!(late.is_none(), "a command that was decided has no end after the answer's");
    }

    /// The exchange ends.
    pub fn abort(&mut self, why: Abort) {
        self.over = true;
        self.tell(|exchange, sink| exchange.abort(why, sink));
        assert!(self.open.is_empty(), "commands never ended: {:?}", self.open);
    }

    /// What of the request's body has gone on.
    pub fn output(&self) -> &[u8] {
        let passed = if self.rest { self.consumed.len() } else { self.passed };
        &self.consumed[..passed]
    }

    /// All commands, as they were announced last.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        for event in &self.events {
            if let Event::Started { commands: started, .. } | Event::Prefix { commands: started, .. } = event
            {
                for command in started {
                    commands.retain(|known| known.id != command.id);
                    commands.push(command.clone());
                }
            }
        }
        commands
    }

    /// How the only command ended.
    pub fn outcome(&self) -> Outcome {
        let mut outcomes = self.events.iter().filter_map(|event| match event {
            Event::Finished { outcome, .. } => Some(outcome.clone()),
            _ => None,
        });
        let outcome = outcomes.next().expect("a command that has ended");
        assert!(outcomes.next().is_none(), "several commands have ended");
        outcome
    }

    fn work(&mut self) {
        while self.waiting.is_none() && !self.backlog.is_empty() {
            let backlog = std::mem::take(&mut self.backlog);
            let mut log = Log::default();
            let taken = self.exchange.request(&backlog, &mut log);
            assert!(taken <= backlog.len(), "more was consumed than there was");
            self.consumed.extend_from_slice(&backlog[..taken]);
            self.backlog = backlog[taken..].to_vec();
            let waited = self.apply(log);
            assert!(taken == backlog.len() || waited, "bytes were left although nothing waits");
        }
        if self.waiting.is_none() && self.request_ended && !self.request_end_told && self.answer.is_none() {
            self.request_end_told = true;
            self.tell(|exchange, sink| exchange.request_end(None, sink));
        }
    }

    fn tell(&mut self, what: impl FnOnce(&mut dyn Exchange, &mut dyn MessageSink)) {
        let mut log = Log::default();
        what(self.exchange.as_mut(), &mut log);
        self.apply(log);
    }

    fn decide(&mut self, unit: UnitId, decision: &Decision) {
        self.decided.insert(unit);
        self.tell(|exchange, sink| exchange.decide(unit, decision, sink));
    }

    /// Returns whether a unit waited.
    fn apply(&mut self, log: Log) -> bool {
        let mut asked = None;
        for action in log.0 {
            match action {
                Action::Event(event) => {
                    self.observe(&event, &mut asked);
                    self.events.push(*event);
                }
                Action::Pass(pass) => self.pass(pass),
                Action::Answer(answer) => {
                    assert!(self.answer.is_none(), "two answers");
                    assert!(!self.rest, "an answer although everything went on");
                    self.answer = Some(answer);
                }
            }
        }
        let Some((unit, commands)) = asked else { return false };
        match (self.policy)(&commands) {
            _ if self.over => {}
            None => self.waiting = Some(unit),
            Some(decision) => self.decide(unit, &decision),
        }
        true
    }

    fn observe(&mut self, event: &Event, asked: &mut Option<(UnitId, Vec<Command>)>) {
        match event {
            Event::Prefix { unit, commands } => {
                assert!(!self.announced.contains_key(unit), "a prefix of a unit that is known");
                self.announce(*unit, commands);
                assert!(asked.replace((*unit, commands.clone())).is_none(), "two units wait");
            }
            Event::Started { unit, commands } => {
                self.announce(*unit, commands);
                let rejected =
                    |command: &Command| command.attributes.iter().any(|(name, _)| *name == "rejected");
                if !commands.iter().any(rejected) {
                    assert!(self.waiting.is_none(), "two units wait");
                    assert!(asked.replace((*unit, commands.clone())).is_none(), "two units wait");
                    self.decided.remove(unit);
                }
            }
            Event::Finished { command, .. } => {
                assert!(self.open.remove(command).is_some(), "{command:?} ended twice or never began");
            }
            Event::ChainBegun { command, .. } => {
                assert!(self.open.contains_key(command), "{command:?} begins a chain after its end");
            }
            Event::ChainEnded { .. } => {}
            other => panic!("not for an exchange: {other:?}"),
        }
    }

    fn announce(&mut self, unit: UnitId, commands: &[Command]) {
        assert!(!commands.is_empty(), "a unit without commands");
        let ids: Vec<CommandId> = commands.iter().map(|command| command.id).collect();
        match self.announced.get(&unit) {
            Some(known) => assert_eq!(*known, ids, "a prefix of another unit"),
            None => {
                for id in &ids {
                    assert!(self.open.insert(*id, unit).is_none(), "{id:?} began twice");
                }
                self.announced.insert(unit, ids);
            }
        }
        for command in commands {
            for redaction in &command.redactions {
                let end = redaction.offset + redaction.length;
                assert!(end <= command.statement.bytes.len() as u64, "a redaction outside of its text");
            }
            assert!(command.statement.bytes.len() as u64 <= command.statement.full_length);
        }
    }

    fn pass(&mut self, pass: Pass) {
        assert!(self.answer.is_none(), "something passes after an answer of ours");
        assert!(!self.rest && !self.end, "something passes after the rest");
        match pass {
            Pass::Head => assert!(!std::mem::replace(&mut self.head, true), "the head passes twice"),
            Pass::Body(bytes) => {
                assert!(self.head && bytes > 0);
                self.passed += usize::try_from(bytes).expect("fits");
                assert!(self.passed <= self.consumed.len(), "more passes than was consumed");
            }
            Pass::Rest => {
                assert!(self.head);
                self.rest = true;
            }
            Pass::End => {
                assert!(self.head && self.request_ended && self.passed == self.consumed.len());
                self.end = true;
            }
        }
    }
}
