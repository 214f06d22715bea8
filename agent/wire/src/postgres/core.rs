//! The state of one connection, and how things leave it: events and edits.
//!
//! Owns the queue of what the server owes and the names. The rules of each direction are in
//! [`super::frontend`] and [`super::backend`].

use std::collections::VecDeque;

use super::{
    authentication::Authentication,
    names::{Names, Serial},
    outcome::Rejected,
    pipeline::{Commands, InFlight, Owed, Script},
    statements::{Budget, Portal, Statement},
    verifier::Verifier,
};
use crate::{
    reader::Malformed,
    seam::{
        Command, CommandId, Direction, Edit, Encryption, Event, Limits, OpaqueReason, Outcome, ServerMessage,
        Sink, TransactionState, UnitId, Upgrade,
    },
};

impl From<Malformed> for OpaqueReason {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// How far this connection is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Decoding,
    /// The server lost us while a unit waits: opaque as soon as that is decided, not before, since what
    /// is held must not slip through.
    Doomed(OpaqueReason),
    /// A cancel request: nothing else is to come.
    Cancel,
    /// The leg toward the server is closed by us.
    Closed,
    /// Legs become TLS; another decoder goes on.
    Upgraded,
    Opaque,
}

/// How much of a unit's message is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// All of it.
    Whole,
    /// Its beginning; the rest was not read.
    Prefix,
    /// Its last byte; the rest was forwarded.
    Last,
}

/// What becomes of a unit once it is forwarded.
#[derive(Debug)]
pub(super) enum Pending {
    /// A simple query, or a FunctionCall, which leaves the unnamed statement and portal alone.
    Query {
        serial: Serial,
        simple: bool,
        commands: Commands,
    },
    Execute {
        command: InFlight,
        portal: Option<std::sync::Arc<Portal>>,
    },
    Cancel(InFlight),
}

impl Pending {
    /// How many of its commands take names away.
    pub(super) fn forgetting(&self) -> usize {
        match self {
            Self::Query { commands, .. } => commands.iter().filter(|c| c.forgets.is_some()).count(),
            Self::Execute { command, .. } => usize::from(command.forgets.is_some()),
            Self::Cancel(_) => 0,
        }
    }
}

/// A unit about which nothing is decided yet, or only by its prefix.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) unit: UnitId,
    pub(super) stage: Stage,
    pub(super) pending: Pending,
}

pub(super) struct Core {
    pub(super) limits: Limits,
    pub(super) mode: Mode,
    pub(super) encryption: Encryption,
    pub(super) authentication: Authentication,
    /// Of the role that the client named.
    pub(super) verifier: Option<std::sync::Arc<Verifier>>,
    pub(super) queue: VecDeque<Owed>,
    pub(super) statements: Names<Statement>,
    pub(super) portals: Names<Portal>,
    pub(super) texts: Budget,
    pub(super) values: Budget,
    pub(super) to_server: Script,
    pub(super) to_client: Script,
    pub(super) waiting: Option<Waiting>,
    /// A long unit that was allowed by its prefix and is being read on.
    pub(super) allowed: Option<Waiting>,
    /// A cancel request that was forwarded.
    pub(super) cancel: Option<InFlight>,
    /// Commands that were started and have not ended.
    pub(super) in_flight: usize,
    units: u64,
    commands: u64,
    pub(super) serial: Serial,

    /// The last message that a ReadyForQuery answers, and the last one that was answered by one.
    pub(super) ready_owed: Serial,
    pub(super) ready_seen: Serial,
    /// The last Sync of the client.
    pub(super) last_sync: Serial,
    /// Commands in flight that take names away when they succeed.
    pub(super) forgetting: usize,
    /// Bytes of extended messages since the last Execute.
    pub(super) extended: u64,
    /// The client sent extended messages after which no ReadyForQuery has come.
    pub(super) unsynced: bool,
    /// The server takes COPY data, and with it a Sync, without an answer.
    pub(super) copy_in: bool,
    /// The last CopyDone or CopyFail.
    pub(super) copy_ended: Serial,

    /// Bytes from the server since the last command ended.
    pub(super) received: u64,
    pub(super) data_rows: u64,
    pub(super) notices: Vec<ServerMessage>,
    /// Ended, but ReadyForQuery follows: its transaction state, or an error upon commit, belongs to it.
    pub(super) closing: Option<(CommandId, Outcome)>,
    /// The server skips to the next Sync.
    pub(super) skipping: bool,
    pub(super) rejected: Option<Rejected>,
    /// Commands after the fact that wait until no unit does.
    pub(super) late: Vec<(Command, Outcome)>,
    pub(super) transaction: Option<TransactionState>,
    pub(super) standard_strings: bool,
    /// No part of a server's message is waiting for its rest.
    pub(super) server_at_boundary: bool,
    client_ended: bool,
    pub(super) server_ended: bool,
}

impl Core {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            mode: Mode::Decoding,
            encryption: Encryption::default(),
            authentication: Authentication::default(),
            verifier: None,
            queue: VecDeque::new(),
            statements: Names::new(limits.named_objects),
            portals: Names::new(limits.named_objects),
            texts: Budget::new(limits.statement_cache_bytes),
            values: Budget::new(limits.statement_cache_bytes.max(limits.capture_bytes)),
            to_server: Script::new(Direction::ToServer),
            to_client: Script::new(Direction::ToClient),
            waiting: None,
            allowed: None,
            cancel: None,
            in_flight: 0,
            units: 0,
            commands: 0,
            serial: 0,
            ready_owed: 0,
            ready_seen: 0,
            last_sync: 0,
            forgetting: 0,
            extended: 0,
            unsynced: false,
            copy_in: false,
            copy_ended: 0,
            received: 0,
            data_rows: 0,
            notices: Vec::new(),
            closing: None,
            skipping: false,
            rejected: None,
            late: Vec::new(),
            transaction: None,
            standard_strings: true,
            server_at_boundary: true,
            client_ended: false,
            server_ended: false,
            limits,
        }
    }

    pub(super) fn encrypted(&mut self, encryption: Encryption) {
        if encryption.server.is_some() {
            self.authentication = Authentication::Awaited;
        }
        self.encryption = encryption;
    }

    /// Nothing more is taken: TLS begins, and behind it another decoder.
    pub(super) fn upgrade(&mut self, upgrade: Upgrade, sink: &mut dyn Sink) {
        self.flush(sink);
        self.mode = Mode::Upgraded;
        sink.event(Event::Upgrade(upgrade));
    }

    /// Whether the server has yet to say whether TLS begins, and it would end with us.
    pub(super) fn awaits_encryption(&self) -> bool {
        self.encryption.ends_here && matches!(self.queue.front(), Some(Owed::Encryption(_)))
    }

    pub(super) fn next_unit(&mut self) -> UnitId {
        self.units = self.units.saturating_add(1);
        UnitId(self.units)
    }

    pub(super) fn next_command(&mut self) -> CommandId {
        self.commands = self.commands.saturating_add(1);
        CommandId(self.commands)
    }

    pub(super) fn outstanding(&self) -> bool {
        !self.queue.is_empty() || self.cancel.is_some()
    }

    /// Whether the client has to wait until the server has answered: as many commands are in flight as may
    /// be, and an answer is sure to come without another word of the client.
    pub(super) fn awaits_answers(&self) -> bool {
        self.room().is_err()
            && self.transaction.is_some()
            && self.ready_owed > self.ready_seen
            && !self.copy_in
            && !self.server_ended
    }

    /// How many more commands may be in flight; none is a reason to stop decoding.
    pub(super) fn room(&self) -> Result<usize, OpaqueReason> {
        let taken = self.queue.len().max(self.in_flight);
        match self.limits.commands_in_flight.saturating_sub(taken) {
            0 => Err(OpaqueReason::Limit),
            room => Ok(room),
        }
    }

    pub(super) fn push(&mut self, owed: Owed) -> Result<(), OpaqueReason> {
        self.room()?;
        self.queue.push_back(owed);
        Ok(())
    }

    /// A unit was read whole: it is announced, and waits.
    pub(super) fn start(&mut self, commands: Vec<Command>, pending: Pending, sink: &mut dyn Sink) {
        let unit = self.next_unit();
        self.in_flight = self.in_flight.saturating_add(commands.len());
        self.waiting = Some(Waiting { unit, stage: Stage::Whole, pending });
        self.flush(sink);
        sink.event(Event::Started { unit, commands });
    }

    pub(super) fn script(&mut self, direction: Direction) -> &mut Script {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }

    /// Emits what is to be forwarded in both directions.
    pub(super) fn flush(&mut self, sink: &mut dyn Sink) {
        for script in [&mut self.to_server, &mut self.to_client] {
            if let Some(bytes) = script.take_forward() {
                sink.edit(script.direction, Edit::Forward(bytes));
            }
        }
    }

    /// Everything that is held in a direction is taken out.
    pub(super) fn drop_held(&mut self, direction: Direction, sink: &mut dyn Sink) {
        self.flush(sink);
        let held = ::core::mem::take(&mut self.script(direction).held);
        if held > 0 {
            sink.edit(direction, Edit::Drop(held));
        }
    }

    pub(super) fn insert(&mut self, direction: Direction, bytes: Vec<u8>, sink: &mut dyn Sink) {
        self.flush(sink);
        sink.edit(direction, Edit::Insert(bytes));
    }

    /// Nothing is decoded from here on.
    pub(super) fn go_opaque(&mut self, reason: OpaqueReason, sink: &mut dyn Sink) {
        if self.mode == Mode::Opaque {
            return;
        }
        if self.waiting.is_some() {
            self.mode = Mode::Doomed(reason);
            self.to_client.pass();
            return;
        }
        self.finish_all(sink);
        self.mode = Mode::Opaque;
        sink.event(Event::Opaque(reason));
        self.flush(sink);
        for script in [&mut self.to_server, &mut self.to_client] {
            script.held = 0;
            sink.edit(script.direction, Edit::Forward(u64::MAX));
        }
    }

    /// The input of a direction has ended.
    pub(super) fn finish(&mut self, direction: Direction, sink: &mut dyn Sink) {
        if matches!(self.mode, Mode::Opaque | Mode::Upgraded) {
            return;
        }
        match direction {
            Direction::ToServer => self.client_ended = true,
            Direction::ToClient => self.server_ended = true,
        }
        if direction == Direction::ToServer && self.waiting.is_none() {
            self.end_unfinished_unit(sink);
            self.to_server.pass();
        }
        if direction == Direction::ToClient {
            self.to_client.pass();
            // Nothing is ever answered to a cancel request: the server closes.
            self.end_cancel(sink);
        }
        if self.client_ended && self.server_ended {
            self.abandon_waiting(sink);
            self.finish_all(sink);
        }
    }
}
