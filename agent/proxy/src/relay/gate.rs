//! The gate before the last byte of a unit: recorded, made safe, decided, and only then opened.

use std::{
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use verbatim_api::v1;
use verbatim_wire::seam::{Command, Decision, OpaqueReason, Refusal, RefusalKind, UnitId};

use super::{Collect, Relay, Wait, entries::Entry};
use crate::{
    Records,
    control::Control,
    journal::Journal,
    judge::{self, Held, HoldEnd, Judgement, Next, Prefix, Unit},
    seam::Question,
};

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
    Held(Held),
    /// A cancel request: the connection that it means is asked whether it gives up a hold.
    Cancelling(Pin<Box<dyn Future<Output = bool>>>),
}

/// What is said about a command that was not executed, but was there.
pub(super) const CUT_OFF: &str = "the connection ended before the command was whole";

impl Prefix {
    /// The connection ended before the command was whole. Waits for room.
    pub(crate) async fn cut_off<R: Records>(self, journal: &mut Journal<R>, control: &Control) {
        for command in &self.commands {
            if journal.insist_on_start(command, &self.grounds, control).await {
                journal.note(command.id, CUT_OFF);
            }
        }
    }
}

impl<R: Records> Relay<'_, R> {
    /// Asks the policy about a unit that was read whole, unless it was asked when its first part came.
    pub(super) fn judge(&mut self, id: UnitId, commands: Vec<Command>, journal: &Journal<R>) {
        if let Some(prefix) = self.prefix.take_if(|prefix| prefix.unit == id) {
            let unit = Unit::new(id, &commands, Judgement::allowed(prefix.grounds));
            let entry = |command: Command| match journal.is_open(command.id) {
                true => Entry::Rest { command },
                false => Entry::Start { command, decision: v1::Decision::Allowed },
            };
            self.enter(unit, commands.into_iter().map(entry));
            return;
        }
        let judgement = self.ask(&commands, journal);
        let decision = judgement.decision;
        let unit = Unit::new(id, &commands, judgement);
        self.enter(unit, commands.into_iter().map(|command| Entry::Start { command, decision }));
    }

    /// Asks the policy about a unit whose first part was read. Where it is let through at once, its
    /// start is recorded when it is whole: its last byte waits for that.
    pub(super) fn judge_prefix(&mut self, id: UnitId, mut commands: Vec<Command>, journal: &mut Journal<R>) {
        let judgement = self.ask(&commands, journal);
        if matches!(judgement.next, Next::Allow) {
            for command in &mut commands {
                // Should it never be read whole, this is all that there is of it.
                command.partly.get_or_insert(OpaqueReason::Limit);
            }
            self.prefix = Some(Prefix { unit: id, commands, grounds: judgement.grounds });
            self.tell_decoder(id, &Decision::Allow);
            return;
        }
        let decision = judgement.decision;
        let unit = Unit { prefix: true, ..Unit::new(id, &commands, judgement) };
        self.enter(unit, commands.into_iter().map(|command| Entry::Start { command, decision }));
    }

    fn ask(&self, commands: &[Command], journal: &Journal<R>) -> Judgement {
        let facts = &journal.facts;
        let question = Question {
            identity: &facts.identity,
            flow: &facts.flow,
            commands,
            service: facts.service,
            host: &facts.target.host,
            database: &facts.target.database,
            user: &facts.target.user,
        };
        judge::ask(&*self.shard.deps.policy, &question, facts.policy_mode != v1::PolicyMode::Enforce)
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
            Gate::Held(_) => self.poll_held(cx),
        }
    }

    fn sync(&mut self, journal: &mut Journal<R>, cx: &mut Context<'_>) -> bool {
        if let Some(position) = self.unit.as_ref().and_then(Unit::must_be_safe) {
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
            Next::Hold { deadline, answer } => self.gate = Gate::Held(Held::new(deadline, answer)),
            Next::Refuse(refusal) => self.release(&Decision::Refuse(refusal), journal),
            Next::Allow => match self.cancel_request.take_if(|_| unit.cancels) {
                Some(key) => {
                    let registry = Arc::clone(self.cancel_key.registry());
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
        let Gate::Held(held) = &mut self.gate else { return false };
        let end = if client_gone {
            HoldEnd::abandoned("the client has closed the connection")
        } else if server_gone {
            HoldEnd::abandoned("the server has closed the connection")
        } else if let Poll::Ready(end) = held.poll(cx) {
            end
        } else {
            return false;
        };
        self.decided(end.decision, &end.verdict, end.next);
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
            Gate::Held(_) => true,
            _ => self.unit.as_ref().is_some_and(|unit| matches!(unit.next, Next::Hold { .. })),
        };
        // What runs at the server is what the client means: only the server can cancel that.
        let give_up = holds && !self.decoder.outstanding();
        if give_up {
            let end = HoldEnd::abandoned("canceling statement due to user request");
            self.decided(end.decision, &end.verdict, end.next);
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
                if !unit.replaced.is_empty() {
                    journal.note(command, "this protocol has no headers: nothing was replaced");
                }
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
