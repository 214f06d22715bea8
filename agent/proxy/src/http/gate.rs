//! The gate before a unit of an exchange: recorded, made safe, decided, and only then opened. Other exchanges
//! of the connection go on meanwhile.

use std::{
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use verbatim_api::v1;
use verbatim_wire::seam::{Command, Decision, Finding, UnitId};

use super::{
    entries::Entry,
    exchange::{Exchange, Wait},
};
use crate::{
    Records,
    guard::{Panicked, catch},
    journal::Stall,
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
}

impl<R: Records> Exchange<R> {
    /// Asks the policy about a unit that was read whole, unless it was asked when its first part came.
    pub(super) fn judge(&mut self, id: UnitId, commands: Vec<Command>) {
        if let Some(prefix) = self.prefix.take_if(|prefix| prefix.unit == id) {
            let unit = Unit::new(id, &commands, Judgement::allowed(prefix.grounds));
            let connection = Rc::clone(&self.connection);
            let entry = |command: Command| match connection.with(|journal| Ok(journal.is_open(command.id))) {
                Ok(true) => Entry::Rest { command },
                _ => Entry::Start { command, decision: v1::Decision::Allowed },
            };
            return self.enter(unit, commands.into_iter().map(entry));
        }
        let Some(judgement) = self.ask(&commands) else { return };
        let decision = judgement.decision;
        let unit = Unit::new(id, &commands, judgement);
        self.enter(unit, commands.into_iter().map(|command| Entry::Start { command, decision }));
    }

    /// Asks the policy about a unit whose first part was read. Where it is let through at once, its start is
    /// recorded when it is whole: its end waits for that.
    pub(super) fn judge_prefix(&mut self, id: UnitId, commands: Vec<Command>) {
        let Some(judgement) = self.ask(&commands) else { return };
        let decision = judgement.decision;
        let mut unit = Unit { prefix: true, ..Unit::new(id, &commands, judgement) };
        if matches!(unit.next, Next::Allow) {
            self.replace(&mut unit);
            self.prefix = Some(Prefix { unit: id, commands, grounds: unit.grounds });
            return self.tell_decoder(id, &Decision::Allow);
        }
        self.enter(unit, commands.into_iter().map(|command| Entry::Start { command, decision }));
    }

    /// `None`: it could not be asked, and the exchange is broken.
    fn ask(&mut self, commands: &[Command]) -> Option<Judgement> {
        if self.is_misdirected(commands)? {
            return Some(Judgement::misdirected());
        }
        let policy = &self.connection.shard.deps.policy;
        let place = &self.place;
        let asked = self.connection.with(|journal| {
            let facts = &journal.facts;
            let question = Question {
                identity: &facts.identity,
                flow: &facts.flow,
                commands,
                service: place.service,
                host: &place.host,
                database: &facts.target.database,
                user: &facts.target.user,
            };
            let observe = facts.policy_mode != v1::PolicyMode::Enforce;
            Ok(catch(|| judge::ask(&**policy, &question, observe)))
        });
        self.answered(asked)
    }

    /// Whether it is refused because its host is not the one that TLS was made for. `None`: as of [`Self::ask`].
    fn is_misdirected(&mut self, commands: &[Command]) -> Option<bool> {
        let mismatch = |command: &Command| command.findings.contains(&Finding::HostMismatch);
        let Some(tls) = self.connection.shard.deps.tls.as_ref().filter(|_| commands.iter().any(mismatch))
        else {
            return Some(false);
        };
        if !self.connection.ends_tls() {
            return Some(false);
        }
        let trust = &tls.trust;
        let asked = self.connection.with(|journal| {
            let facts = &journal.facts;
            Ok(catch(|| trust.refuses_misdirected(&facts.identity, &facts.flow)))
        });
        self.answered(asked)
    }

    /// What foreign code has answered. `None`: it panicked, or the connection has ended.
    fn answered<T>(&mut self, asked: Result<Result<T, Panicked>, Stall>) -> Option<T> {
        match asked {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(panicked)) => {
                self.panicked(&panicked.0);
                None
            }
            Err(_ended) => None,
        }
    }

    /// Queues a unit's entries before everything else that was said.
    fn enter(&mut self, unit: Unit, entries: impl DoubleEndedIterator<Item = Entry>) {
        self.unit = Some(unit);
        self.gate = Gate::Recording;
        self.entries.push_front(Entry::Recorded);
        for entry in entries.rev() {
            self.entries.push_front(entry);
        }
    }

    pub(super) fn recorded(&mut self) {
        self.gate = Gate::Recorded;
    }

    /// Goes on with the unit under decision. `true`: something changed.
    pub(super) fn poll_gate(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.gate {
            Gate::Open | Gate::Recording => false,
            Gate::Recorded => {
                self.sync(cx);
                true
            }
            Gate::Syncing(wait) => {
                let safe = wait.as_mut().poll(cx).is_ready();
                if safe {
                    self.proceed();
                }
                safe
            }
            Gate::Held(held) => match held.poll(cx) {
                Poll::Pending => false,
                Poll::Ready(end) => {
                    self.decided(end);
                    true
                }
            },
        }
    }

    fn sync(&mut self, cx: &mut Context<'_>) {
        if let Some(position) = self.unit.as_ref().and_then(Unit::must_be_safe) {
            let spool = &self.connection.shard.spool;
            if pin!(spool.durable(position)).poll(cx).is_pending() {
                let spool = Rc::clone(spool);
                self.gate = Gate::Syncing(Box::pin(async move { spool.durable(position).await }));
                return;
            }
        }
        self.proceed();
    }

    /// The unit's records are safe.
    fn proceed(&mut self) {
        let Some(unit) = &mut self.unit else {
            self.gate = Gate::Open;
            return;
        };
        match std::mem::replace(&mut unit.next, Next::Allow) {
            Next::Hold { deadline, answer } => self.gate = Gate::Held(Held::new(deadline, answer)),
            Next::Refuse(refusal) => self.release(&Decision::Refuse(refusal)),
            Next::Allow => self.release(&Decision::Allow),
        }
    }

    /// A hold has ended: that is recorded for all commands of the unit, then it goes on.
    fn decided(&mut self, end: HoldEnd) {
        let Some(unit) = &mut self.unit else { return };
        unit.next = end.next;
        self.gate = Gate::Recording;
        self.entries.push_front(Entry::Recorded);
        for &command in unit.commands.iter().rev() {
            let verdict = end.verdict.clone();
            self.entries.push_front(Entry::Decided { command, decision: end.decision, verdict });
        }
    }

    /// Opens the gate.
    fn release(&mut self, decision: &Decision) {
        self.gate = Gate::Open;
        let Some(mut unit) = self.unit.take() else { return };
        if matches!(decision, Decision::Allow) {
            let released = self.connection.with(|journal| {
                unit.commands.iter().for_each(|&command| journal.released(command));
                Ok(())
            });
            drop(released);
            self.replace(&mut unit);
            if unit.prefix {
                self.prefix = Some(Prefix { unit: unit.id, commands: Vec::new(), grounds: unit.grounds });
            }
        } else {
            self.last_refused = unit.commands.first().copied();
            self.refused = true;
            self.unfed.clear();
        }
        self.tell_decoder(unit.id, decision);
    }

    /// Takes over the headers that the policy wants in the place of the workload's.
    fn replace(&mut self, unit: &mut Unit) {
        if unit.replaced.is_empty() {
            return;
        }
        self.replacer = unit.commands.first().copied();
        if !self.head_passed {
            self.replaced = std::mem::take(&mut unit.replaced);
            return;
        }
        let noted = self.connection.with(|journal| {
            let note = "the request's head had gone on: no header was replaced";
            unit.commands.iter().for_each(|&command| journal.note(command, note));
            Ok(())
        });
        drop(noted);
    }

    /// Nobody waits for the exchange any more: what a hold comes to.
    pub(super) fn abandon(&mut self, why: &str) -> Option<HoldEnd> {
        let held = match &self.gate {
            Gate::Held(_) => true,
            _ => self.unit.as_ref().is_some_and(|unit| matches!(unit.next, Next::Hold { .. })),
        };
        held.then(|| HoldEnd::abandoned(why))
    }
}
