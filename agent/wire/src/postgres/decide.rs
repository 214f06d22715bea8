//! From a decision about a unit to edits.

use super::{
    core::{Core, Mode, Pending, Stage, Waiting},
    names::Serial,
    pipeline::Owed,
    refuse,
};
use crate::seam::{Decision, Direction, Edit, Refusal, Sink, Status, TransactionState, UnitId};

impl Core {
    pub(super) fn decide(&mut self, unit: UnitId, decision: &Decision, sink: &mut dyn Sink) {
        let Some(waiting) = self.waiting.take_if(|waiting| waiting.unit == unit) else {
            return;
        };
        match (decision, waiting.stage) {
            (Decision::Allow, Stage::Prefix) => {
                self.to_server.pass();
                self.allowed = Some(waiting);
            }
            (Decision::Allow, Stage::Whole | Stage::Last) => {
                self.to_server.pass();
                self.forwarded(waiting.pending);
            }
            (Decision::Refuse(refusal), Stage::Whole) if self.mode == Mode::Decoding => {
                self.refuse(waiting.pending, refusal, sink);
            }
            (Decision::Refuse(refusal), _) => self.abort(&waiting, refusal, sink),
        }
        self.flush_late(sink);
        if let Mode::Doomed(reason) = self.mode {
            self.go_opaque(reason, sink);
        }
    }

    /// The server will get it: what does it owe?
    fn forwarded(&mut self, pending: Pending) {
        self.forgetting = self.forgetting.saturating_add(pending.forgetting());
        match pending {
            Pending::Query { serial, simple, commands } => {
                self.drop_unnamed(serial, simple);
                self.ready_owed = serial;
                self.queue.push_back(Owed::Query { serial, commands, failed: false });
            }
            Pending::Execute { command, portal } => {
                self.queue.push_back(Owed::Execute { command, portal });
            }
            Pending::Cancel(command) => self.cancel = Some(command),
        }
    }

    /// A simple query takes the unnamed statement and portal away, whatever becomes of it.
    fn drop_unnamed(&mut self, serial: Serial, simple: bool) {
        if !simple {
            return;
        }
        if self.statements.latest(b"").is_some() {
            self.statements.propose(b"", serial, None);
        }
        if self.portals.latest(b"").is_some() {
            self.portals.propose(b"", serial, None);
        }
    }

    fn refuse(&mut self, pending: Pending, refusal: &Refusal, sink: &mut dyn Sink) {
        self.end_pending(&pending, Status::NotForwarded, sink);
        let error = refuse::error(refusal, "ERROR");
        self.drop_held(Direction::ToServer, sink);
        match pending {
            Pending::Query { .. } if self.is_idle() => {
                self.insert(Direction::ToClient, [&error, refuse::READY_IDLE].concat(), sink);
            }
            Pending::Query { serial, .. } => {
                self.drop_unnamed(serial, true);
                self.ready_owed = serial;
                self.insert(Direction::ToServer, refuse::query(), sink);
                self.queue.push_back(Owed::Refused { serial, error: Some(error), ready: true });
            }
            Pending::Execute { command, .. } => {
                let serial = command.serial;
                self.insert(Direction::ToServer, refuse::parse(), sink);
                self.queue.push_back(Owed::Refused { serial, error: Some(error), ready: false });
            }
            Pending::Cancel(_) => self.close(sink),
        }
    }

    /// Whether the session is certainly at rest: an answer of ours cannot come out of order, and there is
    /// no transaction that would have to fail.
    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && !self.unsynced
            && self.closing.is_none()
            && self.transaction == Some(TransactionState::Idle)
            && self.server_at_boundary
            && !self.server_ended
    }

    /// A unit is refused that cannot be taken out cleanly any more.
    fn abort(&mut self, waiting: &Waiting, refusal: &Refusal, sink: &mut dyn Sink) {
        self.end_pending(&waiting.pending, Status::NotForwarded, sink);
        self.drop_held(Direction::ToServer, sink);
        let speaks = self.mode == Mode::Decoding && self.server_at_boundary && !self.server_ended;
        if speaks {
            self.insert(Direction::ToClient, refuse::error(refusal, "FATAL"), sink);
        }
        self.close(sink);
    }

    pub(super) fn close(&mut self, sink: &mut dyn Sink) {
        self.mode = Mode::Closed;
        self.flush(sink);
        sink.edit(Direction::ToServer, Edit::Close);
    }
}
