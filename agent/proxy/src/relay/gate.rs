//! The gate before the last byte of a unit: recorded, made safe, decided, and only then opened.

use std::{
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};
use verbatim_api::v1;
use verbatim_wire::seam::{Command, CommandId, Decision, Operation, Refusal, RefusalKind, UnitId};

use super::{Collect, Relay, Wait, entries::Entry};
use crate::{
    Records,
    journal::Journal,
    seam::{Grounds, HoldAnswer, Question, Verdict},
};

/// Longest time that a person is waited for: a year.
const LONGEST_HOLD: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// What is decided about at once.
#[derive(Debug)]
pub(super) struct Unit {
    id: UnitId,
    pub(super) commands: Vec<CommandId>,
    pub(super) grounds: Grounds,
    pub(super) next: Next,
    /// Of its last record, where one was written.
    position: Option<u64>,
    /// It is a cancel request.
    cancels: bool,
    /// Only its first part was read.
    prefix: bool,
}

/// What happens to a unit when its records are safe.
#[derive(Debug)]
pub(super) enum Next {
    Allow,
    Refuse(Refusal),
    Hold { deadline: std::time::Duration, answer: oneshot::Receiver<HoldAnswer> },
}

/// A unit that was let through by its first part.
#[derive(Debug)]
pub(super) struct Prefix {
    unit: UnitId,
    /// What was read of it; empty where it was recorded because it was held.
    commands: Vec<Command>,
    grounds: Grounds,
}

/// Where the unit under decision stands.
pub(super) enum Gate {
    /// There is none.
    Open,
    /// Its records are being written.
    Recording,
    /// They are written.
    Recorded,
    /// They are being made safe.
    Syncing(Wait),
    /// A person is asked.
    Held { deadline: Pin<Box<Sleep>>, answer: oneshot::Receiver<HoldAnswer> },
    /// A cancel request: the connection that it means is asked whether it gives up a hold.
    Cancelling(Pin<Box<dyn Future<Output = bool>>>),
}

impl Unit {
    pub(super) fn recorded(&mut self, position: Option<u64>) {
        self.position = position.or(self.position);
    }
}

impl Prefix {
    /// The connection ended before the command was whole: it was not executed, but it was there.
    pub(super) fn cut_off<R: Records>(self, journal: &mut Journal<R>) {
        for command in &self.commands {
            if journal.started(command, v1::Decision::Allowed, &self.grounds).is_err() {
                return;
            }
            journal.note(command.id, "the connection ended before the command was whole");
        }
    }
}

impl<R: Records> Relay<'_, R> {
    /// Asks the policy about a unit that was read whole, unless it was asked when its first part came.
    pub(super) fn judge(&mut self, id: UnitId, commands: Vec<Command>, journal: &Journal<R>) {
        if let Some(prefix) = self.prefix.take_if(|prefix| prefix.unit == id) {
            let unit = Unit { grounds: prefix.grounds, ..unit(id, &commands, Next::Allow) };
            let entry = |command: Command| match journal.is_open(command.id) {
                true => Entry::Rest { command },
                false => Entry::Start { command, decision: v1::Decision::Allowed },
            };
            self.enter(unit, commands.into_iter().map(entry));
            return;
        }
        let (decision, grounds, next) = self.ask(&commands, journal);
        let unit = Unit { grounds, ..unit(id, &commands, next) };
        self.enter(unit, commands.into_iter().map(|command| Entry::Start { command, decision }));
    }

    /// Asks the policy about a unit whose first part was read. Where it is let through at once, its
    /// start is recorded when it is whole: its last byte waits for that.
    pub(super) fn judge_prefix(&mut self, id: UnitId, commands: Vec<Command>, journal: &mut Journal<R>) {
        let (decision, grounds, next) = self.ask(&commands, journal);
        if matches!(next, Next::Allow) {
            self.prefix = Some(Prefix { unit: id, commands, grounds });
            self.tell_decoder(id, &Decision::Allow);
            return;
        }
        let unit = Unit { grounds, prefix: true, ..unit(id, &commands, next) };
        self.enter(unit, commands.into_iter().map(|command| Entry::Start { command, decision }));
    }

    fn ask(&self, commands: &[Command], journal: &Journal<R>) -> (v1::Decision, Grounds, Next) {
        if commands.iter().all(rejected) {
            return (v1::Decision::Allowed, Grounds::default(), Next::Allow);
        }
        let facts = &journal.facts;
        let policy = &self.shard.deps.policy;
        let verdict = policy.decide(&Question {
            identity: &facts.identity,
            flow: &facts.flow,
            commands,
            database: &facts.target.database,
            user: &facts.target.user,
        });
        let observe = facts.policy_mode != v1::PolicyMode::Enforce;
        match verdict {
            Verdict::Allow(grounds) => (v1::Decision::Allowed, grounds, Next::Allow),
            Verdict::Deny(grounds) if observe => {
                (v1::Decision::Allowed, would_be("denied", grounds), Next::Allow)
            }
            Verdict::Hold { grounds, .. } if observe => {
                (v1::Decision::Allowed, would_be("held", grounds), Next::Allow)
            }
            Verdict::Deny(grounds) => {
                let message = grounds.reason.clone();
                let refusal = Refusal { kind: RefusalKind::Denied, message };
                (v1::Decision::Denied, grounds, Next::Refuse(refusal))
            }
            Verdict::Hold { grounds, deadline, answer } => {
                (v1::Decision::Held, grounds, Next::Hold { deadline, answer })
            }
        }
    }

    /// Goes on with the unit under decision. `true`: something changed.
    pub(super) fn poll_gate(&mut self, journal: &mut Journal<R>, cx: &mut Context<'_>) -> bool {
        self.answer_cancel();
        match &mut self.gate {
            Gate::Open | Gate::Recording => false,
            Gate::Recorded => self.sync(journal, cx),
            Gate::Syncing(wait) => {
                let safe = wait.as_mut().poll(cx).is_ready();
                if safe {
                    self.proceed(journal);
                }
                safe
            }
            Gate::Cancelling(asking) => {
                let Poll::Ready(abandoned) = asking.as_mut().poll(cx) else { return false };
                self.cancelled(abandoned, journal);
                true
            }
            Gate::Held { .. } => self.poll_held(cx),
        }
    }

    fn sync(&mut self, journal: &mut Journal<R>, cx: &mut Context<'_>) -> bool {
        let refused = self.unit.as_ref().is_none_or(|unit| matches!(unit.next, Next::Refuse(_)));
        // What is refused goes nowhere, and so waits for no disk.
        if let Some(position) = self.unit.as_ref().and_then(|unit| unit.position).filter(|_| !refused) {
            let spool = journal.spool();
            if pin!(spool.durable(position)).poll(cx).is_pending() {
                let spool = Rc::clone(spool);
                self.gate = Gate::Syncing(Box::pin(async move { spool.durable(position).await }));
                return true;
            }
        }
        self.proceed(journal);
        true
    }

    /// The unit's records are safe.
    fn proceed(&mut self, journal: &mut Journal<R>) {
        let Some(unit) = &mut self.unit else {
            self.gate = Gate::Open;
            return;
        };
        match std::mem::replace(&mut unit.next, Next::Allow) {
            Next::Hold { deadline, answer } => {
                let deadline = Box::pin(sleep(deadline.min(LONGEST_HOLD)));
                self.gate = Gate::Held { deadline, answer };
            }
            Next::Refuse(refusal) => self.release(&Decision::Refuse(refusal), journal),
            Next::Allow => match self.cancel_request.take_if(|_| unit.cancels) {
                Some(key) => {
                    let registry = Arc::clone(&self.keys.registry);
                    let patience = self.shard.config.cancel_timeout;
                    self.gate = Gate::Cancelling(Box::pin(registry.abandon(key, patience)));
                }
                None => self.release(&Decision::Allow, journal),
            },
        }
    }

    /// A cancel request has been served here, or belongs to the server.
    fn cancelled(&mut self, abandoned: bool, journal: &mut Journal<R>) {
        if !abandoned {
            return self.release(&Decision::Allow, journal);
        }
        for &command in self.unit.iter().flat_map(|unit| &unit.commands) {
            journal.note(
                command,
                "the command it means was held here and was given up; the server was not asked",
            );
        }
        let refusal = Refusal { kind: RefusalKind::Cancelled, message: String::new() };
        self.release(&Decision::Refuse(refusal), journal);
    }

    /// Waits for a person, for the deadline, and for anybody to go away.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> bool {
        let client_gone = self.client_has_gone();
        let server_gone = self.server_has_gone();
        let Gate::Held { deadline, answer } = &mut self.gate else { return false };
        let (decision, verdict, refused) = if client_gone {
            abandoned("the client has closed the connection")
        } else if server_gone {
            abandoned("the server has closed the connection")
        } else if let Poll::Ready(answered) = Pin::new(answer).poll(cx) {
            by_person(answered.ok())
        } else if deadline.as_mut().poll(cx).is_ready() {
            let reason = "nobody decided in time".to_owned();
            let verdict = v1::Verdict { reason: reason.clone(), ..v1::Verdict::default() };
            (v1::Decision::Expired, verdict, Some(Refusal { kind: RefusalKind::Expired, message: reason }))
        } else {
            return false;
        };
        let next = refused.map_or(Next::Allow, Next::Refuse);
        self.decided(decision, &verdict, next);
        true
    }

    /// Somebody asks on another connection to cancel what runs on this one.
    fn answer_cancel(&mut self) {
        if matches!(self.gate, Gate::Recording) {
            // Asked again when the start is written.
            return;
        }
        let Some(asker) = self.control.take_cancel() else { return };
        let holds = match &self.gate {
            Gate::Held { .. } => true,
            _ => self.unit.as_ref().is_some_and(|unit| matches!(unit.next, Next::Hold { .. })),
        };
        // What runs at the server is what the client means: only the server can cancel that.
        let give_up = holds && !self.decoder.outstanding();
        if give_up {
            let (decision, verdict, refusal) = abandoned("canceling statement due to user request");
            self.decided(decision, &verdict, refusal.map_or(Next::Allow, Next::Refuse));
        }
        if asker.send(give_up).is_err() {
            tracing::debug!("a cancel request did not wait for its answer");
        }
    }

    /// Opens the gate.
    fn release(&mut self, decision: &Decision, journal: &mut Journal<R>) {
        self.gate = Gate::Open;
        let Some(unit) = self.unit.take() else { return };
        if matches!(decision, Decision::Allow) {
            for &command in &unit.commands {
                journal.released(command);
            }
            if unit.prefix {
                self.prefix = Some(Prefix { unit: unit.id, commands: Vec::new(), grounds: unit.grounds });
            }
        } else {
            self.last_refused = unit.commands.first().copied();
        }
        self.tell_decoder(unit.id, decision);
    }

    fn tell_decoder(&mut self, unit: UnitId, decision: &Decision) {
        let mut sink = Collect { entries: &mut self.entries, scripts: &mut self.scripts };
        self.decoder.decide(unit, decision, &mut sink);
    }
}

fn unit(id: UnitId, commands: &[Command], next: Next) -> Unit {
    Unit {
        id,
        commands: commands.iter().map(|command| command.id).collect(),
        grounds: Grounds::default(),
        next,
        position: None,
        cancels: commands.iter().any(|command| command.operation == Operation::Cancel),
        prefix: false,
    }
}

/// The server has refused it already: there is nothing to decide about.
fn rejected(command: &Command) -> bool {
    command.attributes.iter().any(|(name, _)| *name == "rejected")
}

fn would_be(what: &str, grounds: Grounds) -> Grounds {
    let reason = format!("observed only; would be {what}: {}", grounds.reason);
    Grounds { reason, ..grounds }
}

fn abandoned(why: &str) -> (v1::Decision, v1::Verdict, Option<Refusal>) {
    let verdict = v1::Verdict { reason: why.to_owned(), ..v1::Verdict::default() };
    let refusal = Refusal { kind: RefusalKind::Cancelled, message: why.to_owned() };
    (v1::Decision::Abandoned, verdict, Some(refusal))
}

fn by_person(answer: Option<HoldAnswer>) -> (v1::Decision, v1::Verdict, Option<Refusal>) {
    let Some(answer) = answer else {
        let reason = "nobody can be asked any more".to_owned();
        let verdict = v1::Verdict { reason: reason.clone(), ..v1::Verdict::default() };
        return (v1::Decision::Denied, verdict, Some(Refusal { kind: RefusalKind::Denied, message: reason }));
    };
    let verdict = v1::Verdict {
        policies: Vec::new(),
        reason: answer.reason.clone(),
        approval_id: answer.approval_id,
        approver: answer.approver,
    };
    if answer.allowed {
        return (v1::Decision::Allowed, verdict, None);
    }
    (v1::Decision::Denied, verdict, Some(Refusal { kind: RefusalKind::Denied, message: answer.reason }))
}
