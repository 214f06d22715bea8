//! What the server's messages do to the session: each answers the head of the queue.

use ::core::mem;

use super::{
    core::Core,
    messages::{backend as messages, frontend::types},
    outcome::{Ending, Rejected},
    pipeline::{Owed, ready_follows},
    refuse,
};
use crate::seam::{
    Direction, Event, OpaqueReason, ServerMessage, SessionFact, Sink, Status, TransactionState,
};

use OpaqueReason::{Desynchronised, Malformed};

/// Whether a message is of use only with its body.
pub(super) fn needs_body(kind: u8) -> bool {
    matches!(kind, b'C' | b'E' | b'K' | b'N' | b'S' | b'Z' | b't')
}

impl Core {
    /// A message of the server: read whole, or begun where its body is not needed. `length`: of the
    /// message in bytes.
    pub(super) fn server_message(
        &mut self,
        kind: u8,
        body: &[u8],
        length: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), OpaqueReason> {
        match kind {
            b'N' => {
                self.notice(body);
                return Ok(());
            }
            b'A' => return Ok(()),
            b'S' => return self.parameter(body, sink),
            b'E' => {
                self.received = self.received.saturating_add(length);
                return self.error(body, sink);
            }
            b'Z' => return self.ready(messages::ready(body)?, length, sink),
            b'R' | b'v' | b'K' => return self.authentication(kind, body, sink),
            _ => {}
        }
        if self.skipping {
            return Err(Desynchronised);
        }
        self.received = self.received.saturating_add(length);
        match kind {
            b'D' => {
                self.data_rows = self.data_rows.saturating_add(1);
                self.expect_running()
            }
            b'd' | b'c' | b'H' => self.expect_running(),
            b'C' => self.completed(messages::tag(body)?, sink),
            b'I' => self.completed(b"", sink),
            b'1' | b'2' | b'3' | b'n' => self.acknowledged(kind),
            b'T' => self.row_description(),
            b't' => self.parameter_description(body),
            b's' => self.suspended(sink),
            b'V' => self.completed(b"", sink),
            b'G' => self.copy_in(),
            b'W' => {
                self.expect_running()?;
                Err(OpaqueReason::Replication)
            }
            _ => Err(Malformed),
        }
    }

    fn expect_running(&self) -> Result<(), OpaqueReason> {
        match self.queue.front() {
            Some(Owed::Execute { .. } | Owed::Query { failed: false, .. }) => Ok(()),
            _ => Err(Desynchronised),
        }
    }

    fn notice(&mut self, body: &[u8]) {
        if !self.queue.is_empty() && self.notices.len() < self.limits.notices {
            self.notices.push(messages::fields(body));
        }
    }

    fn parameter(&mut self, body: &[u8], sink: &mut dyn Sink) -> Result<(), OpaqueReason> {
        let (name, value) = messages::parameter_status(body)?;
        if name == b"standard_conforming_strings" {
            self.standard_strings = value != b"off";
        }
        sink.event(Event::Session(SessionFact::Parameter(name.to_vec(), value.to_vec())));
        Ok(())
    }

    /// Nothing of authentication is kept but the key for cancelling.
    fn authentication(&mut self, kind: u8, body: &[u8], sink: &mut dyn Sink) -> Result<(), OpaqueReason> {
        if !matches!(self.queue.front(), Some(Owed::Startup)) {
            return Err(Desynchronised);
        }
        if kind == b'R' && self.authentication.reads_server() {
            return self.server_authenticates(body, sink);
        }
        if kind == b'K' {
            let (process_id, secret) = messages::key_data(body)?;
            let secret = secret.to_vec();
            sink.event(Event::Session(SessionFact::CancelKey { process_id, secret }));
        }
        Ok(())
    }

    /// ParseComplete, BindComplete, CloseComplete, NoData.
    fn acknowledged(&mut self, kind: u8) -> Result<(), OpaqueReason> {
        match (kind, self.queue.pop_front()) {
            (b'1', Some(Owed::Parse { serial, statement })) => {
                self.statements.confirm(&statement.name, serial);
            }
            (b'2', Some(Owed::Bind { serial, portal })) => self.portals.confirm(&portal.name, serial),
            (b'3', Some(Owed::CloseStatement { serial, name })) => self.statements.confirm(&name, serial),
            (b'3', Some(Owed::ClosePortal { serial, name })) => self.portals.confirm(&name, serial),
            (b'n', Some(Owed::Describe { .. })) => {}
            (_, other) => {
                self.put_back(other);
                return Err(Desynchronised);
            }
        }
        Ok(())
    }

    fn put_back(&mut self, owed: Option<Owed>) {
        if let Some(owed) = owed {
            self.queue.push_front(owed);
        }
    }

    fn row_description(&mut self) -> Result<(), OpaqueReason> {
        if matches!(self.queue.front(), Some(Owed::Describe { .. })) {
            self.queue.pop_front();
            return Ok(());
        }
        self.expect_running()
    }

    fn parameter_description(&mut self, body: &[u8]) -> Result<(), OpaqueReason> {
        let Some(Owed::Describe { statement, .. }) = self.queue.front() else {
            return Err(Desynchronised);
        };
        let oids = types(body)?;
        if let Some(statement) = statement {
            statement.describe(oids, &self.texts);
        }
        Ok(())
    }

    fn suspended(&mut self, sink: &mut dyn Sink) -> Result<(), OpaqueReason> {
        match self.queue.pop_front() {
            Some(Owed::Execute { command, .. }) => {
                let ending = Ending { rows: Some(self.data_rows), ..Ending::of(Status::Suspended) };
                let ready = ready_follows(&self.queue);
                self.complete(command, ending, ready, sink);
                Ok(())
            }
            other => {
                self.put_back(other);
                Err(Desynchronised)
            }
        }
    }

    /// CommandComplete, EmptyQueryResponse, FunctionCallResponse.
    fn completed(&mut self, tag: &[u8], sink: &mut dyn Sink) -> Result<(), OpaqueReason> {
        let ending = Ending { rows: messages::rows(tag), tag: tag.to_vec(), ..Ending::of(Status::Ok) };
        self.copy_in = false;
        match self.queue.front_mut() {
            Some(Owed::Query { failed: false, commands, .. }) => {
                let next = commands.next();
                let last = commands.is_empty();
                match next {
                    Some(command) => self.complete(command, ending, last, sink),
                    None => return self.completed_once_more(ending),
                }
                Ok(())
            }
            Some(Owed::Execute { .. }) => {
                if let Some(Owed::Execute { command, .. }) = self.queue.pop_front() {
                    let ready = ready_follows(&self.queue);
                    self.complete(command, ending, ready, sink);
                }
                Ok(())
            }
            _ => Err(Desynchronised),
        }
    }

    /// The server saw more statements in a message than we keep apart: the last command has them all.
    fn completed_once_more(&mut self, ending: Ending) -> Result<(), OpaqueReason> {
        let Some((_, outcome)) = &mut self.closing else {
            return Err(Desynchronised);
        };
        outcome.command_tag = ending.tag;
        outcome.rows = match (outcome.rows, ending.rows) {
            (Some(before), Some(more)) => Some(before.saturating_add(more)),
            (before, more) => before.or(more),
        };
        outcome.bytes_received = outcome.bytes_received.saturating_add(mem::take(&mut self.received));
        Ok(())
    }

    /// CopyInResponse. A Sync that was sent behind its Execute is read as a part of the data.
    fn copy_in(&mut self) -> Result<(), OpaqueReason> {
        self.expect_running()?;
        let Some(started) = self.queue.front_mut().and_then(Owed::running).map(|command| command.serial)
        else {
            return Err(Desynchronised);
        };
        let ended = self.copy_ended > started;
        while let Some(Owed::Sync { serial }) = self.queue.get(1) {
            if ended && *serial > self.copy_ended {
                break;
            }
            self.queue.remove(1);
        }
        self.copy_in = !ended;
        Ok(())
    }

    fn error(&mut self, body: &[u8], sink: &mut dyn Sink) -> Result<(), OpaqueReason> {
        if self.skipping {
            // The session ends; what was skipped was skipped.
            return Ok(());
        }
        self.copy_in = false;
        let error = messages::fields(body);
        match self.queue.pop_front() {
            Some(Owed::Execute { command, .. }) => {
                self.skipping = true;
                let ending = Ending { error: Some(error), ..Ending::of(Status::Error) };
                self.complete(command, ending, true, sink);
            }
            Some(Owed::Query { serial, mut commands, .. }) => {
                let failed = commands.next();
                self.queue.push_front(Owed::Query { serial, commands, failed: true });
                match failed {
                    Some(command) => {
                        let ending = Ending { error: Some(error), ..Ending::of(Status::Error) };
                        self.complete(command, ending, true, sink);
                    }
                    None => self.failed_late(error, "query", sink),
                }
            }
            Some(Owed::Parse { serial, statement }) => {
                self.statements.retract(&statement.name, serial);
                let statement = Some(statement);
                self.reject(Rejected { error, what: "parse", statement, portal: None, received: 0 });
            }
            Some(Owed::Bind { serial, portal }) => {
                self.portals.retract(&portal.name, serial);
                let portal = Some(portal);
                self.reject(Rejected { error, what: "bind", statement: None, portal, received: 0 });
            }
            Some(Owed::Describe { statement, portal }) => {
                self.reject(Rejected { error, what: "describe", statement, portal, received: 0 });
            }
            Some(Owed::CloseStatement { serial, name }) => {
                self.statements.retract(&name, serial);
                self.reject(Rejected { error, what: "close", statement: None, portal: None, received: 0 });
            }
            Some(Owed::ClosePortal { serial, name }) => {
                self.portals.retract(&name, serial);
                self.reject(Rejected { error, what: "close", statement: None, portal: None, received: 0 });
            }
            Some(Owed::Sync { serial }) => {
                self.queue.push_front(Owed::Sync { serial });
                self.failed_late(error, "sync", sink);
            }
            Some(Owed::Refused { serial, error: ours, ready }) => {
                if let Some(ours) = ours.filter(|_| self.replaces(&error)) {
                    self.drop_held(Direction::ToClient, sink);
                    self.insert(Direction::ToClient, ours, sink);
                }
                if ready {
                    self.queue.push_front(Owed::Refused { serial, error: None, ready });
                } else {
                    self.skipping = true;
                }
            }
            other => self.put_back(other),
        }
        Ok(())
    }

    /// Whether an error is the server's answer to our substitute. Another one (the server shuts down, the
    /// client cancelled) passes: the client gets one error either way.
    fn replaces(&self, error: &ServerMessage) -> bool {
        self.to_client.held > 0 && error.code == refuse::SYNTAX_ERROR
    }

    /// Whether the next ErrorResponse may have to be replaced, and so is held until it is whole.
    pub(super) fn may_replace_error(&self) -> bool {
        matches!(self.queue.front(), Some(Owed::Refused { error: Some(_), .. }))
    }

    /// An error after the command had completed, e.g. a deferred constraint upon commit.
    fn failed_late(&mut self, error: ServerMessage, what: &'static str, sink: &mut dyn Sink) {
        match &mut self.closing {
            Some((_, outcome)) => {
                outcome.status = Status::Error;
                outcome.error = Some(error);
            }
            None => {
                self.settle_rejected(None, sink);
                self.rejected = Some(Rejected { error, what, statement: None, portal: None, received: 0 });
            }
        }
    }

    fn reject(&mut self, rejected: Rejected) {
        self.skipping = true;
        let received = mem::take(&mut self.received);
        self.rejected = Some(Rejected { received, ..rejected });
    }

    fn ready(
        &mut self,
        state: TransactionState,
        length: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), OpaqueReason> {
        if let Some((_, outcome)) = &mut self.closing {
            outcome.bytes_received = outcome.bytes_received.saturating_add(length);
        }
        let serial = match self.queue.front() {
            Some(Owed::Startup) => 0,
            _ if self.skipping => {
                let sync = self.queue.iter().find_map(|owed| match owed {
                    Owed::Sync { serial } => Some(*serial),
                    _ => None,
                });
                sync.ok_or(Desynchronised)?
            }
            Some(
                Owed::Sync { serial }
                | Owed::Query { serial, .. }
                | Owed::Refused { serial, error: None, .. },
            ) => *serial,
            _ => return Err(Desynchronised),
        };
        self.ready_seen = serial;
        self.flush_closing(Some(state), sink);
        if self.skipping {
            self.drain_skipped(state, sink);
            self.skipping = false;
        } else {
            self.settle_rejected(Some(state), sink);
            self.answered(state, sink);
        }
        self.transaction = Some(state);
        self.received = 0;
        self.data_rows = 0;
        self.notices.clear();
        self.copy_in = false;
        if self.queue.is_empty() {
            // Whatever took names away has done so, or has failed.
            self.forgetting = 0;
            self.unsynced = self.extended > 0;
        }
        if state == TransactionState::Idle {
            // Portals don't outlive their transaction.
            self.portals.forget_named(serial);
            self.portals.forget(b"", serial);
        }
        Ok(())
    }

    /// The head of the queue has had its ReadyForQuery.
    fn answered(&mut self, state: TransactionState, sink: &mut dyn Sink) {
        match self.queue.pop_front() {
            Some(Owed::Query { serial, commands, failed }) => {
                self.statements.confirm(b"", serial);
                self.portals.confirm(b"", serial);
                // Without an error the server saw fewer statements than we did: no telling which.
                let status = if failed { Status::NotExecuted } else { Status::OutcomeUnknown };
                for command in commands {
                    self.end(&command, status, Some(state), sink);
                }
            }
            Some(Owed::Refused { serial, .. }) => {
                self.statements.confirm(b"", serial);
                self.portals.confirm(b"", serial);
            }
            _ => {}
        }
    }
}
