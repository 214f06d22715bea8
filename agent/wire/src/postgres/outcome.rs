//! How commands end: exactly once each.

use std::sync::Arc;

use super::{
    core::{Core, Pending, Waiting},
    names::MAX_OTHERS,
    pipeline::{Forgets, InFlight, Owed},
    statements::{Portal, Statement},
};
use crate::seam::{
    Command, CommandId, Direction, Event, OpaqueReason, Operation, Outcome, ServerMessage, Sink, Status,
    TransactionState,
};

/// Something other than a command that the server rejected.
#[derive(Debug)]
pub(super) struct Rejected {
    pub(super) error: ServerMessage,
    /// Which message.
    pub(super) what: &'static str,
    pub(super) statement: Option<Arc<Statement>>,
    pub(super) portal: Option<Arc<Portal>>,
    pub(super) received: u64,
}

impl Rejected {
    /// Whether the command behind this portal is what failed.
    fn concerns(&self, portal: Option<&Arc<Portal>>) -> bool {
        let Some(portal) = portal else {
            return false;
        };
        if let Some(rejected) = &self.portal {
            return Arc::ptr_eq(rejected, portal);
        }
        matches!((&self.statement, &portal.statement), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
    }
}

/// What the server said at the end of a command.
pub(super) struct Ending {
    pub(super) status: Status,
    pub(super) rows: Option<u64>,
    pub(super) tag: Vec<u8>,
    pub(super) error: Option<ServerMessage>,
}

impl Ending {
    pub(super) fn of(status: Status) -> Self {
        Self { status, rows: None, tag: Vec::new(), error: None }
    }
}

impl Core {
    /// A command has ended. `ready_follows`: its transaction state is the next thing to come.
    pub(super) fn complete(
        &mut self,
        command: InFlight,
        ending: Ending,
        ready_follows: bool,
        sink: &mut dyn Sink,
    ) {
        self.flush_closing(None, sink);
        if ending.status == Status::Ok {
            self.forget(&command);
        }
        let outcome = Outcome {
            status: ending.status,
            rows: ending.rows,
            bytes_sent: command.sent,
            bytes_received: ::core::mem::take(&mut self.received),
            command_tag: ending.tag,
            error: ending.error,
            notices: ::core::mem::take(&mut self.notices),
            transaction: None,
            ..Outcome::default()
        };
        self.data_rows = 0;
        if ready_follows {
            self.closing = Some((command.id, outcome));
        } else {
            self.emit_finished(command.id, outcome, sink);
        }
    }

    fn forget(&mut self, command: &InFlight) {
        match command.forgets.as_deref() {
            None => {}
            Some(Forgets::Statement(name)) => self.statements.forget(name, command.serial),
            Some(Forgets::AllStatements) => self.statements.forget_named(command.serial),
        }
    }

    pub(super) fn flush_closing(&mut self, transaction: Option<TransactionState>, sink: &mut dyn Sink) {
        if let Some((id, mut outcome)) = self.closing.take() {
            outcome.transaction = transaction;
            self.emit_finished(id, outcome, sink);
        }
    }

    /// A command has ended about which the server said nothing.
    pub(super) fn end(
        &mut self,
        command: &InFlight,
        status: Status,
        transaction: Option<TransactionState>,
        sink: &mut dyn Sink,
    ) {
        let outcome = Outcome {
            status,
            rows: None,
            bytes_sent: if status == Status::NotForwarded { 0 } else { command.sent },
            bytes_received: 0,
            command_tag: Vec::new(),
            error: None,
            notices: Vec::new(),
            transaction,
            ..Outcome::default()
        };
        self.emit_finished(command.id, outcome, sink);
    }

    pub(super) fn emit_finished(&mut self, command: CommandId, outcome: Outcome, sink: &mut dyn Sink) {
        self.in_flight = self.in_flight.saturating_sub(1);
        sink.event(Event::Finished { command, outcome });
    }

    pub(super) fn end_pending(&mut self, pending: &Pending, status: Status, sink: &mut dyn Sink) {
        match pending {
            Pending::Query { commands, .. } => {
                for command in commands.iter() {
                    self.end(command, status, None, sink);
                }
            }
            Pending::Execute { command, .. } | Pending::Cancel(command) => {
                self.end(command, status, None, sink);
            }
        }
    }

    /// Everything in flight ends without an answer.
    pub(super) fn finish_all(&mut self, sink: &mut dyn Sink) {
        self.flush_closing(None, sink);
        self.settle_rejected(None, sink);
        self.flush_late(sink);
        self.skipping = false;
        for owed in ::core::mem::take(&mut self.queue) {
            match owed {
                Owed::Execute { command, .. } => self.unknown(command, sink),
                Owed::Query { commands, .. } => {
                    for command in commands {
                        self.unknown(command, sink);
                    }
                }
                _ => {}
            }
        }
        if let Some(Waiting { pending, .. }) = self.allowed.take() {
            self.end_pending(&pending, Status::OutcomeUnknown, sink);
        }
        if let Some(command) = self.cancel.take() {
            self.end(&command, Status::OutcomeUnknown, None, sink);
        }
    }

    fn unknown(&mut self, command: InFlight, sink: &mut dyn Sink) {
        self.complete(command, Ending::of(Status::OutcomeUnknown), false, sink);
    }

    /// The client has gone before the last byte of a long unit: the server never gets it whole.
    pub(super) fn end_unfinished_unit(&mut self, sink: &mut dyn Sink) {
        if let Some(Waiting { pending, .. }) = self.allowed.take() {
            self.end_pending(&pending, Status::NotForwarded, sink);
        }
    }

    /// Both sides have gone before anything was decided.
    pub(super) fn abandon_waiting(&mut self, sink: &mut dyn Sink) {
        if let Some(Waiting { pending, .. }) = self.waiting.take() {
            self.drop_held(Direction::ToServer, sink);
            self.end_pending(&pending, Status::NotForwarded, sink);
        }
    }

    pub(super) fn end_cancel(&mut self, sink: &mut dyn Sink) {
        if let Some(command) = self.cancel.take() {
            self.complete(command, Ending::of(Status::Ok), false, sink);
        }
    }

    /// What the server skipped, up to and with the Sync; `false` without one.
    pub(super) fn drain_skipped(&mut self, transaction: TransactionState, sink: &mut dyn Sink) -> bool {
        while let Some(owed) = self.queue.pop_front() {
            match owed {
                Owed::Sync { .. } => {
                    self.settle_rejected(Some(transaction), sink);
                    return true;
                }
                Owed::Parse { serial, statement } => self.statements.retract(&statement.name, serial),
                Owed::Bind { serial, portal } => self.portals.retract(&portal.name, serial),
                Owed::CloseStatement { serial, name } => self.statements.retract(&name, serial),
                Owed::ClosePortal { serial, name } => self.portals.retract(&name, serial),
                Owed::Execute { command, portal } => {
                    self.end_skipped(&command, portal.as_ref(), transaction, sink);
                }
                Owed::Query { serial, commands, .. } => {
                    self.statements.retract(b"", serial);
                    self.portals.retract(b"", serial);
                    for command in commands {
                        self.end(&command, Status::NotExecuted, Some(transaction), sink);
                    }
                }
                Owed::Describe { .. } | Owed::Refused { .. } | Owed::Startup | Owed::Encryption(_) => {}
            }
        }
        false
    }

    /// The first command of what was rejected carries the error.
    fn end_skipped(
        &mut self,
        command: &InFlight,
        portal: Option<&Arc<Portal>>,
        transaction: TransactionState,
        sink: &mut dyn Sink,
    ) {
        let Some(rejected) = self.rejected.take_if(|rejected| rejected.concerns(portal)) else {
            self.end(command, Status::NotExecuted, Some(transaction), sink);
            return;
        };
        let outcome = rejected_outcome(rejected.error, command.sent, rejected.received, Some(transaction));
        self.emit_finished(command.id, outcome, sink);
    }

    /// What was rejected and has no command becomes one, after the fact.
    pub(super) fn settle_rejected(&mut self, transaction: Option<TransactionState>, sink: &mut dyn Sink) {
        let Some(rejected) = self.rejected.take() else {
            return;
        };
        let id = self.next_command();
        let mut command = match &rejected.portal {
            Some(portal) => execute_command(id, Operation::Execute, portal, &[], self.limits.capture_bytes),
            None => statement_command(id, rejected.statement.as_deref()),
        };
        command.attributes.push(("rejected", rejected.what.as_bytes().to_vec()));
        let outcome = rejected_outcome(rejected.error, 0, rejected.received, transaction);
        self.late.push((command, outcome));
        self.flush_late(sink);
    }

    /// Announces what was rejected, unless a unit waits: there is never more than one at a time.
    pub(super) fn flush_late(&mut self, sink: &mut dyn Sink) {
        if self.waiting.is_some() {
            return;
        }
        for (command, outcome) in ::core::mem::take(&mut self.late) {
            let unit = self.next_unit();
            let id = command.id;
            self.in_flight = self.in_flight.saturating_add(1);
            sink.event(Event::Started { unit, commands: vec![command] });
            self.emit_finished(id, outcome, sink);
        }
    }
}

fn rejected_outcome(
    error: ServerMessage,
    bytes_sent: u64,
    bytes_received: u64,
    transaction: Option<TransactionState>,
) -> Outcome {
    Outcome {
        status: Status::Error,
        rows: None,
        bytes_sent,
        bytes_received,
        command_tag: Vec::new(),
        error: Some(error),
        notices: Vec::new(),
        transaction,
        ..Outcome::default()
    }
}

/// The command of an Execute whose portal is known. `others`: portals that its name may mean instead.
/// `room`: for the texts that may run instead, bytes.
pub(super) fn execute_command(
    id: CommandId,
    operation: Operation,
    portal: &Portal,
    others: &[Arc<Portal>],
    room: usize,
) -> Command {
    let mut command = statement_command(id, portal.statement.as_deref());
    command.operation = operation;
    command.statement_name.clone_from(&portal.statement_name);
    command.portal_name.clone_from(&portal.name);
    command.parameters = portal.parameters();
    command.partly = portal.partly();
    if !others.is_empty() {
        command.partly = command.partly.or(Some(OpaqueReason::Desynchronised));
    }
    let others = others.iter().flat_map(|other| other.statement.iter().chain(&other.alternatives));
    push_alternatives(&mut command, portal, others, room);
    command
}

/// Texts that a name may have meant instead, when the client did not wait for the server to settle it.
fn push_alternatives<'a>(
    command: &mut Command,
    portal: &'a Portal,
    others: impl Iterator<Item = &'a Arc<Statement>>,
    mut room: usize,
) {
    let mut seen: Vec<&Arc<Statement>> = portal.statement.iter().collect();
    for statement in portal.alternatives.iter().chain(others) {
        if seen.iter().any(|known| Arc::ptr_eq(known, statement)) {
            continue;
        }
        let text = &statement.text.bytes;
        if seen.len() > MAX_OTHERS || text.len() > room {
            command.partly = Some(OpaqueReason::Limit);
            continue;
        }
        seen.push(statement);
        room = room.saturating_sub(text.len());
        command.attributes.push(("alternative_statement", text.clone()));
    }
}

fn statement_command(id: CommandId, statement: Option<&Statement>) -> Command {
    let mut command = bare_command(id, Operation::Execute);
    if let Some(statement) = statement {
        command.statement = statement.text.clone();
        command.redactions.clone_from(&statement.redactions);
        command.statement_name.clone_from(&statement.name);
        command.partly = statement.partly();
    }
    command
}

pub(super) fn bare_command(id: CommandId, operation: Operation) -> Command {
    Command { id, operation, ..Command::default() }
}
