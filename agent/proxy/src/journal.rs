//! The records of one connection: what is open, what has ended, and that each start gets one end.
//!
//! Owns the table of open commands and every append of the connection. Knows no socket and no decoder.

use std::{cell::Cell, collections::VecDeque, rc::Rc, sync::Arc, time::Duration};

use verbatim_api::v1;
use verbatim_spool::{AppendError, Appended, Draft};
use verbatim_sys::clock;
use verbatim_wire::seam::{
    Command, CommandId, Direction, Outcome, RedactionReason, ServerMessage, SessionFact, Status,
};

use crate::{
    Records,
    chains::Begun,
    control::Control,
    guard::catch,
    record::{Facts, Finish, Place, Start, captured, operation},
    seam::{Evidence, Grounds, Observer, Policy, Proof, Summary},
    stats::{Counters, add},
};

mod chain;
mod close;
mod http;
mod hush;
mod places;

pub(crate) use close::room_in_time;

/// Refused commands whose answers may be yet to come: more are refused at once only by a flood.
const REFUSED: usize = 128;
/// Remarks kept of a connection.
const REMARKS: usize = 8;
/// How long a connection that was killed waits for room until its records are left to the successor.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Why a record is not in the spool.
#[derive(Debug)]
pub(crate) enum Stall {
    /// Wait for room and try again.
    Full,
    /// It never will be.
    Refused(String),
}

/// A command between its start and its end.
struct Open {
    id: CommandId,
    /// record_id of the STARTED record; empty where that was shed.
    command_id: Vec<u8>,
    started_boottime: u64,
    started_wall: u64,
    operation: v1::Operation,
    capture: v1::Capture,
    reason: v1::OpaqueReason,
    statement_index: u32,
    decision: v1::Decision,
    /// Whether it was let through; not whether it was sent.
    released: bool,
    note: &'static str,
    service: &'static str,
    /// What its credentials were found to be: so are tokens that are issued for them.
    findings: Vec<v1::CommandFinding>,
    /// Its text held a password, or that of what it goes on with: what the server says of it may quote that.
    sensitive: bool,
    /// For the live view, as all below; empty where nobody watches.
    statement: Vec<u8>,
    method: String,
    resource: String,
    credential_match: v1::CredentialMatch,
    on_behalf_of: Option<(v1::BehalfKind, String)>,
}

/// What a command says itself, where that is not the same for the whole connection.
#[derive(Clone, Copy, Default)]
pub(crate) struct Route<'a> {
    /// Where it goes.
    pub(crate) place: Option<&'a Place>,
    /// What it goes on with.
    pub(crate) continues: Option<&'a Begun>,
    /// What its request proves.
    pub(crate) request: Option<&'a Proof>,
}

/// The records of one connection.
pub(crate) struct Journal<R> {
    pub(crate) facts: Facts,
    spool: Rc<R>,
    counters: Arc<Counters>,
    policy: Arc<dyn Policy>,
    evidence: Arc<dyn Evidence>,
    observer: Arc<dyn Observer>,
    open: VecDeque<Open>,
    places: places::Places,
    /// How many of them have a text that held a password.
    sensitive: Cell<usize>,
    /// Commands that were refused of late, with their records' ids.
    refused: VecDeque<(CommandId, Vec<u8>)>,
    opened_boottime: u64,
    opened_wall: u64,
    commands: u64,
    undecoded: Option<v1::OpaqueReason>,
    /// For the closing record, beside what its end says.
    remarks: Vec<String>,
    /// It was killed, and there was no room for its last records: no other of them is waited for.
    hopeless: Cell<bool>,
    /// What only connections of HTTP have; nothing is allocated for others.
    http: http::Seen,
    /// Bytes forwarded, [to the server, to the workload].
    pub(crate) bytes: [u64; 2],
}

impl<R: Records> Journal<R> {
    pub(crate) fn new(
        facts: Facts,
        spool: Rc<R>,
        counters: Arc<Counters>,
        policy: Arc<dyn Policy>,
        evidence: Arc<dyn Evidence>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            facts,
            spool,
            counters,
            policy,
            evidence,
            observer,
            open: VecDeque::new(),
            places: places::Places::default(),
            sensitive: Cell::new(0),
            refused: VecDeque::new(),
            opened_boottime: clock::boottime_nanos(),
            opened_wall: clock::wall_nanos(),
            commands: 0,
            undecoded: None,
            remarks: Vec::new(),
            hopeless: Cell::new(false),
            http: http::Seen::default(),
            bytes: [0; 2],
        }
    }

    /// The spool, to wait for.
    pub(crate) fn spool(&self) -> &Rc<R> {
        &self.spool
    }

    fn append(&self, draft: Draft) -> Result<Option<Appended>, Stall> {
        Self::taken(self.spool.append(draft))
    }

    fn append_start(&self, start: &Start<'_>) -> Result<Option<Appended>, Stall> {
        Self::taken(self.spool.append_with(self.facts.started(start), self.facts.common(&*self.evidence)))
    }

    fn taken(appended: Result<Appended, AppendError>) -> Result<Option<Appended>, Stall> {
        match appended {
            Ok(appended) => Ok(Some(appended)),
            // Counted by the spool, for its gap record.
            Err(AppendError::Shed) => Ok(None),
            Err(AppendError::Full) => Err(Stall::Full),
            Err(error) => Err(Stall::Refused(error.to_string())),
        }
    }

    /// Waits for room, or until the connection is killed.
    pub(crate) async fn room(&self, control: &Control) {
        let killed = std::future::poll_fn(|cx| control.poll_killed(cx));
        tokio::select! { () = self.spool.room() => {} () = killed => {} }
    }

    /// Records that the connection was opened: before it is dialled. `false`: it must not go on.
    pub(crate) async fn opened(&mut self, control: &Control) -> bool {
        loop {
            match self.append(self.facts.opened()) {
                Ok(appended) => {
                    self.facts.flow_id = appended.map(|a| a.record_id.to_vec()).unwrap_or_default();
                    return true;
                }
                Err(Stall::Full) if !control.killed() => self.room(control).await,
                Err(stall) => {
                    tracing::error!(?stall, "connection refused: its opening cannot be recorded");
                    return false;
                }
            }
        }
    }

    pub(crate) fn learn(&mut self, fact: SessionFact) {
        self.facts.learn(fact);
    }

    /// From here on the connection passes undecoded.
    pub(crate) fn undecoded(&mut self, reason: v1::OpaqueReason) -> Result<(), Stall> {
        let capture = self.capture_with(Some(reason));
        self.append(self.facts.undecoded(capture, reason))?;
        self.undecoded = Some(reason);
        self.counters.spliced(reason);
        Ok(())
    }

    /// Something to be said about the connection when it ends: one line.
    pub(crate) fn remark(&mut self, what: String) {
        if self.remarks.len() < REMARKS {
            self.remarks.push(what);
        }
    }

    /// Whether any command has begun on the connection.
    pub(crate) fn has_commands(&self) -> bool {
        self.commands > 0
    }

    /// Whether the connection passes undecoded because it is encrypted from here on.
    pub(crate) fn agreed_on_tls(&self) -> bool {
        self.undecoded == Some(v1::OpaqueReason::Tls)
    }

    fn capture_with(&self, reason: Option<v1::OpaqueReason>) -> v1::Capture {
        match reason {
            None => v1::Capture::Decoded,
            Some(_) if self.commands > 0 => v1::Capture::Partly,
            Some(_) => v1::Capture::SeenNotDecoded,
        }
    }

    /// Records a command's start. Returns the position to make durable; `None` where it was shed.
    pub(crate) fn started(
        &mut self,
        command: &Command,
        decision: v1::Decision,
        grounds: &Grounds,
    ) -> Result<Option<u64>, Stall> {
        self.started_at(command, decision, grounds, &Route::default())
    }

    /// As [`Journal::started`], of a command that says itself where it goes.
    pub(crate) fn started_at(
        &mut self,
        command: &Command,
        decision: v1::Decision,
        grounds: &Grounds,
        route: &Route<'_>,
    ) -> Result<Option<u64>, Stall> {
        let policy_version = self.policy.version();
        let Route { place, continues, request } = *route;
        let parent = continues.map(|begun| begun.command_id.as_slice()).unwrap_or_default();
        let session = self.facts.session(&*self.evidence);
        let base = request.unwrap_or(&session.behalf);
        let added = catch(|| self.evidence.of_command(self.facts.whom(), base, command));
        let added = added.unwrap_or_else(|panicked| {
            add(&self.counters.panics, 1);
            tracing::error!(message = panicked.0, "looking at a command's credentials panicked");
            None
        });
        let proof = added.as_ref().unwrap_or(base);
        let start = Start { command, decision, grounds, policy_version, place, parent, proof };
        let appended = match self.append_start(&start) {
            Err(Stall::Refused(_)) => {
                let bare = bare(command);
                self.append_start(&Start { command: &bare, ..start })
            }
            appended => appended,
        }?;
        // One of the two says it: a request, or the session's start.
        self.counters.proven(proof.matches.max(session.presented.matches), proof.behalf);
        let (capture, reason) = captured(command);
        let watched = self.observer.enabled();
        let mut open = Open {
            id: command.id,
            command_id: appended.map(|a| a.record_id.to_vec()).unwrap_or_default(),
            started_boottime: appended.map_or_else(clock::boottime_nanos, |a| a.boottime_nanos),
            started_wall: 0,
            operation: operation(command.operation),
            capture,
            reason,
            statement_index: command.statement_index,
            decision,
            released: false,
            note: "",
            service: place.map_or(self.facts.service, |place| place.service),
            findings: proof.findings.clone(),
            sensitive: continues.is_some_and(|begun| begun.sensitive)
                || command.redactions.iter().any(|cut| {
                    matches!(cut.reason, RedactionReason::Password | RedactionReason::ConnectionString)
                }),
            credential_match: v1::CredentialMatch::Unspecified,
            on_behalf_of: None,
            statement: Vec::new(),
            method: String::new(),
            resource: String::new(),
        };
        if watched {
            open.started_wall = clock::wall_nanos();
            open.statement.clone_from(&command.statement.bytes);
            open.method.clone_from(&command.method);
            open.resource.clone_from(&command.resource);
            open.findings.extend(&session.presented.findings);
            open.credential_match = proof.matches.max(session.presented.matches);
            open.on_behalf_of =
                proof.on_behalf_of.first().map(|person| (person.kind(), person.subject.clone()));
        }
        self.sensitive.set(self.sensitive.get() + usize::from(open.sensitive));
        self.open.push_back(open);
        self.commands += 1;
        add(&self.counters.commands, 1);
        match decision {
            v1::Decision::Denied => add(&self.counters.denied, 1),
            v1::Decision::Held => add(&self.counters.held, 1),
            _ => {}
        }
        Ok(appended.map(|a| a.position))
    }

    /// Whether the command was recorded and has not ended.
    pub(crate) fn is_open(&self, id: CommandId) -> bool {
        self.place(id).is_some()
    }

    fn place(&self, id: CommandId) -> Option<usize> {
        self.places.find(&self.open, |open| open.id == id)
    }

    fn look(&self, id: CommandId) -> Option<&Open> {
        self.open.get(self.place(id)?)
    }

    fn find(&mut self, id: CommandId) -> Option<&mut Open> {
        let place = self.place(id)?;
        self.open.get_mut(place)
    }

    /// Records the length and digest of a command that was recorded by its first part.
    pub(crate) fn rest(&mut self, command: &Command) -> Result<Option<u64>, Stall> {
        let Some(open) = self.look(command.id).filter(|open| open.recorded()) else {
            return Ok(None);
        };
        Ok(self.append(self.facts.rest(&open.command_id, command))?.map(|a| a.position))
    }

    /// Records how a hold ended: before the release.
    pub(crate) fn decided(
        &mut self,
        id: CommandId,
        decision: v1::Decision,
        verdict: &v1::Verdict,
    ) -> Result<Option<u64>, Stall> {
        let Some(open) = self.look(id) else { return Ok(None) };
        let duration = clock::boottime_nanos().saturating_sub(open.started_boottime);
        let appended = if open.recorded() {
            self.append(self.facts.decided(&open.command_id, decision, verdict.clone(), duration))?
        } else {
            None
        };
        if let Some(open) = self.find(id) {
            open.decision = decision;
        }
        Ok(appended.map(|a| a.position))
    }

    /// Records bytes of our own, before they are written.
    pub(crate) fn injected(
        &self,
        id: Option<CommandId>,
        direction: Direction,
        bytes: u64,
    ) -> Result<(), Stall> {
        let command_id = id.and_then(|id| {
            let open = self.look(id).map(|open| &open.command_id);
            let refused = || self.refused.iter().rfind(|refused| refused.0 == id).map(|refused| &refused.1);
            open.or_else(refused)
        });
        let command_id = command_id.map(Vec::as_slice).unwrap_or_default();
        self.append(self.facts.injected(command_id, direction, bytes)).map(drop)
    }

    /// The command was let through.
    pub(crate) fn released(&mut self, id: CommandId) {
        if let Some(open) = self.find(id) {
            open.released = true;
        }
    }

    /// What is to be said about the command when it ends.
    pub(crate) fn note(&mut self, id: CommandId, note: &'static str) {
        if let Some(open) = self.find(id) {
            open.note = note;
        }
    }

    /// Records a command's end: before the answer's bytes go on.
    pub(crate) fn finished(&mut self, id: CommandId, outcome: &Outcome) -> Result<(), Stall> {
        let Some(place) = self.place(id) else {
            tracing::warn!("decoder finished a command that is not open");
            return Ok(());
        };
        if let Some(open) = self.open.get(place) {
            if open.operation == v1::Operation::Cancel
                && outcome.status == Status::OutcomeUnknown
                && self.facts.protocol == v1::Protocol::Postgresql
            {
                // A server's answer to it is the end of the connection, which is yet to come.
                return Ok(());
            }
            self.finish(open, outcome)?;
        }
        if let Some(ended) = self.open.remove(place)
            && outcome.status == Status::NotForwarded
        {
            // The answer to it is ours, and yet to come.
            if self.refused.len() >= REFUSED {
                self.refused.pop_front();
            }
            self.refused.push_back((id, ended.command_id));
        }
        Ok(())
    }

    fn finish(&self, open: &Open, outcome: &Outcome) -> Result<(), Stall> {
        if !outcome.issued.is_empty() {
            // Before the client has them: the answer goes on when this is recorded.
            let (whom, id) = (self.facts.whom(), &open.command_id);
            if catch(|| self.evidence.issued(whom, id, &open.findings, &outcome.issued)).is_err() {
                add(&self.counters.panics, 1);
            }
        }
        let hushed;
        // What fails a message or a pipeline is told of its first command.
        let outcome = if self.sensitive.get() > 0 {
            hushed = self.hushed(outcome);
            &hushed
        } else {
            outcome
        };
        let status = match outcome.status {
            Status::OutcomeUnknown if !open.released => Status::NotForwarded,
            status => status,
        };
        let duration = clock::boottime_nanos().saturating_sub(open.started_boottime);
        if open.recorded() {
            let finish = Finish {
                command_id: &open.command_id,
                operation: open.operation,
                capture: open.capture,
                reason: open.reason,
                statement_index: open.statement_index,
                decision: open.decision,
                status: crate::record::status(status),
                duration_nanos: duration,
                outcome,
                note: open.note,
            };
            self.append(self.facts.finished(&finish))?;
        }
        if self.observer.enabled() {
            self.observer.finished(Summary {
                wall_nanos: open.started_wall,
                service: open.service,
                operation: open.operation,
                method: open.method.clone(),
                resource: open.resource.clone(),
                decision: open.decision,
                status: crate::record::status(status),
                duration: Duration::from_nanos(duration),
                statement: open.statement.clone(),
                credential_match: open.credential_match,
                findings: open.findings.clone(),
                on_behalf_of: open.on_behalf_of.clone(),
                ..self.summary(outcome)
            });
        }
        self.sensitive.set(self.sensitive.get().saturating_sub(usize::from(open.sensitive)));
        Ok(())
    }

    /// The outcome without what may quote a password.
    fn hushed(&self, outcome: &Outcome) -> Outcome {
        hush::outcome(outcome, self.facts.protocol)
    }

    /// What the end of a command says of it.
    fn summary(&self, outcome: &Outcome) -> Summary {
        Summary {
            principal: self.facts.identity.display().to_owned(),
            http_status: outcome.http_status,
            grpc_status: outcome.grpc_status,
            error: outcome.error.as_ref().map(in_one_line),
            rows: outcome.rows,
            ..Summary::default()
        }
    }
}

/// A server's error, in one line.
fn in_one_line(error: &ServerMessage) -> String {
    let message = String::from_utf8_lossy(&error.message);
    match error.severity.as_str() {
        "" if error.code.is_empty() => message.into_owned(),
        "" => format!("{}: {message}", error.code),
        severity => format!("{severity}: {message}"),
    }
}

impl Open {
    /// Whether its start is in the spool, so that its end belongs there.
    fn recorded(&self) -> bool {
        !self.command_id.is_empty()
    }
}

/// The command without its content, for a spool whose segments are smaller than one command.
fn bare(command: &Command) -> Command {
    let mut bare = command.clone();
    bare.statement.bytes.clear();
    bare.redactions.clear();
    bare.statement_name.clear();
    bare.portal_name.clear();
    bare.parameters.clear();
    bare.attributes.clear();
    bare.method.clear();
    bare.resource.clear();
    bare.partly.get_or_insert(verbatim_wire::seam::OpaqueReason::Limit);
    bare
}
