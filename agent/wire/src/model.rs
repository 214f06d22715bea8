//! A relay in memory that executes edits, and watches that a decoder keeps its promises.
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

use crate::seam::{Command, CommandId, Decision, Decoder, Direction, Edit, Event, Sink, UnitId};

/// What happened, in order.
#[derive(Default)]
struct Log {
    actions: Vec<Action>,
}

enum Action {
    Event(Box<Event>),
    Edit(Direction, Edit),
}

impl Sink for Log {
    fn event(&mut self, event: Event) {
        self.actions.push(Action::Event(Box::new(event)));
    }
    fn edit(&mut self, direction: Direction, edit: Edit) {
        self.actions.push(Action::Edit(direction, edit));
    }
}

#[derive(Default)]
struct Leg {
    /// Consumed and without an edit.
    kept: Vec<u8>,
    /// Fed, not consumed.
    backlog: Vec<u8>,
    output: Vec<u8>,
    dropped: usize,
    inserted: usize,
    input: usize,
    spliced: bool,
    ended: bool,
}

/// Says what is decided about commands; `None` holds them.
pub type Policy = Box<dyn FnMut(&[Command]) -> Option<Decision>>;

/// The relay.
pub struct Model<D> {
    decoder: D,
    policy: Policy,
    legs: [Leg; 2],
    /// Everything that was seen.
    pub events: Vec<Event>,
    /// Whether the decoder closed the leg toward the server.
    pub closed: bool,
    /// What was agreed on, when the decoder has said its last word.
    pub upgraded: Option<crate::seam::Upgrade>,
    held: Option<UnitId>,
    units: HashSet<UnitId>,
    open: HashSet<CommandId>,
    commands: HashMap<CommandId, UnitId>,
    opaque: bool,
}

fn index(direction: Direction) -> usize {
    match direction {
        Direction::ToServer => 0,
        Direction::ToClient => 1,
    }
}

impl<D: Decoder> Model<D> {
    /// A relay around a decoder that has seen nothing.
    pub fn new(decoder: D, policy: Policy) -> Self {
        Self {
            decoder,
            policy,
            legs: [Leg::default(), Leg::default()],
            events: Vec::new(),
            closed: false,
            upgraded: None,
            held: None,
            units: HashSet::new(),
            open: HashSet::new(),
            commands: HashMap::new(),
            opaque: false,
        }
    }

    /// Input arrives.
    pub fn feed(&mut self, direction: Direction, bytes: &[u8]) {
        let leg = &mut self.legs[index(direction)];
        leg.input += bytes.len();
        leg.backlog.extend_from_slice(bytes);
        self.work(direction);
        if direction == Direction::ToClient && self.held.is_none() {
            // Something of the client may have waited for it.
            self.work(Direction::ToServer);
        }
    }

    /// What was consumed and has no edit, then what was not consumed: the next decoder's.
    pub fn left(&self, direction: Direction) -> Vec<u8> {
        let leg = &self.legs[index(direction)];
        [leg.kept.as_slice(), &leg.backlog].concat()
    }

    /// A direction's input ends.
    pub fn finish(&mut self, direction: Direction) {
        self.legs[index(direction)].ended = true;
        let mut log = Log::default();
        self.decoder.finish(direction, &mut log);
        self.apply(log);
    }

    /// What was held is decided.
    pub fn release(&mut self, decision: &Decision) {
        let unit = self.held.take().expect("nothing is held");
        let mut log = Log::default();
        self.decoder.decide(unit, decision, &mut log);
        self.apply(log);
        self.work(Direction::ToServer);
    }

    /// What has gone out in a direction.
    pub fn output(&self, direction: Direction) -> &[u8] {
        &self.legs[index(direction)].output
    }

    /// The decoder.
    pub fn decoder(&self) -> &D {
        &self.decoder
    }

    fn work(&mut self, direction: Direction) {
        loop {
            let backlog = std::mem::take(&mut self.legs[index(direction)].backlog);
            if backlog.is_empty() {
                return;
            }
            let mut log = Log::default();
            let consumed = self.decoder.feed(direction, &backlog, &mut log);
            let (taken, rest) = backlog.split_at(consumed);
            let leg = &mut self.legs[index(direction)];
            leg.kept.extend_from_slice(taken);
            leg.backlog = rest.to_vec();
            let rest = !rest.is_empty();
            let waited = self.apply(log);
            if self.upgraded.is_some() {
                return;
            }
            assert!(!rest || direction == Direction::ToServer, "only the client's input can wait");
            let awaits_answer = rest && consumed == 0 && self.decoder.outstanding();
            if self.held.is_some() || awaits_answer {
                return;
            }
            assert!(!rest || waited || consumed > 0, "input was refused although nothing waits");
        }
    }

    /// Executes a script. Returns whether a unit waited.
    fn apply(&mut self, log: Log) -> bool {
        let mut waiting = None;
        for action in log.actions {
            match action {
                Action::Event(event) => {
                    assert!(!self.opaque, "an event after Opaque: {event:?}");
                    assert!(self.upgraded.is_none(), "an event after Upgrade: {event:?}");
                    self.observe(&event, &mut waiting);
                    self.events.push(*event);
                }
                Action::Edit(direction, edit) => self.edit(direction, edit),
            }
        }
        let Some((unit, commands)) = waiting else {
            return false;
        };
        match (self.policy)(&commands) {
            None => self.held = Some(unit),
            Some(decision) => {
                let mut log = Log::default();
                self.decoder.decide(unit, &decision, &mut log);
                self.apply(log);
            }
        }
        true
    }

    fn observe(&mut self, event: &Event, waiting: &mut Option<(UnitId, Vec<Command>)>) {
        match event {
            Event::Prefix { unit, commands } => {
                assert!(self.units.insert(*unit), "a unit was announced twice");
                self.announce(*unit, commands, true);
                assert!(waiting.replace((*unit, commands.clone())).is_none(), "two units wait");
            }
            Event::Started { unit, commands } => {
                let first = self.units.insert(*unit);
                self.announce(*unit, commands, first);
                let rejected = commands.iter().any(|c| c.attributes.iter().any(|(n, _)| *n == "rejected"));
                if !rejected {
                    assert!(waiting.replace((*unit, commands.clone())).is_none(), "two units wait");
                }
            }
            Event::Finished { command, .. } => {
                assert!(self.open.remove(command), "{command:?} ended twice or never began");
            }
            Event::Opaque(_) => {
                assert!(self.open.is_empty(), "opaque with commands in flight");
                self.opaque = true;
            }
            Event::Upgrade(upgrade) => {
                assert!(self.open.is_empty(), "an upgrade with commands in flight");
                self.upgraded = Some(*upgrade);
            }
            Event::Session(_) | Event::ChainBegun { .. } | Event::ChainEnded { .. } => {}
        }
    }

    fn announce(&mut self, unit: UnitId, commands: &[Command], first: bool) {
        assert!(!commands.is_empty(), "a unit without commands");
        for command in commands {
            for redaction in &command.redactions {
                let end = redaction.offset + redaction.length;
                assert!(end <= command.statement.bytes.len() as u64, "a redaction outside of its text");
            }
            if first {
                assert!(self.open.insert(command.id), "{:?} began twice", command.id);
                self.commands.insert(command.id, unit);
            } else {
                assert_eq!(self.commands.get(&command.id), Some(&unit), "a prefix of another unit");
            }
        }
    }

    fn edit(&mut self, direction: Direction, edit: Edit) {
        let leg = &mut self.legs[index(direction)];
        match edit {
            Edit::Forward(u64::MAX) => {
                assert!(!leg.spliced, "spliced twice");
                leg.spliced = true;
            }
            Edit::Forward(bytes) | Edit::Drop(bytes) => {
                assert!(bytes > 0, "an empty edit");
                let bytes = usize::try_from(bytes).expect("fits");
                assert!(bytes <= leg.kept.len(), "an edit for more than was consumed");
                let gone: Vec<u8> = leg.kept.drain(..bytes).collect();
                if matches!(edit, Edit::Forward(_)) {
                    leg.output.extend(gone);
                } else {
                    leg.dropped += bytes;
                }
            }
            Edit::Insert(bytes) => {
                assert!(!leg.spliced, "an insertion after Opaque");
                leg.inserted += bytes.len();
                leg.output.extend(bytes);
            }
            Edit::Close => self.closed = true,
        }
        let leg = &mut self.legs[index(direction)];
        if leg.spliced {
            let kept = std::mem::take(&mut leg.kept);
            leg.output.extend(kept);
        }
    }

    /// Ends both directions and looks at the balance: no byte was lost or made up, every command ended.
    pub fn end(&mut self) {
        self.settle_splice();
        let waits = !self.legs[index(Direction::ToServer)].backlog.is_empty();
        if waits && self.held.is_none() && !self.legs[index(Direction::ToClient)].ended {
            // The client waits for an answer that will not come.
            self.finish(Direction::ToClient);
            self.work(Direction::ToServer);
            self.settle_splice();
        }
        for direction in [Direction::ToServer, Direction::ToClient] {
            if !self.legs[index(direction)].ended {
                self.finish(direction);
            }
        }
        self.settle_splice();
        assert!(self.open.is_empty(), "commands never ended: {:?}", self.open);
        if self.upgraded.is_some() {
            return;
        }
        for leg in &self.legs {
            assert!(leg.kept.is_empty(), "{} bytes were left without an edit", leg.kept.len());
            let out = leg.output.len() - leg.inserted + leg.dropped + leg.backlog.len();
            assert_eq!(out, leg.input, "bytes were lost or made up");
        }
    }

    fn settle_splice(&mut self) {
        for leg in &mut self.legs {
            if leg.spliced {
                let kept = std::mem::take(&mut leg.kept);
                leg.output.extend(kept);
                let backlog = std::mem::take(&mut leg.backlog);
                leg.output.extend(backlog);
            }
        }
    }
}

/// Allows everything.
#[must_use]
pub fn allow_all() -> Policy {
    Box::new(|_| Some(Decision::Allow))
}
