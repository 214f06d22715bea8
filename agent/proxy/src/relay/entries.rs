//! What was seen and is to be recorded, in order: as long as something is left, no byte moves.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use verbatim_api::v1;
use verbatim_wire::seam::{Command, CommandId, Direction, Event, SessionFact, Status};

use super::{Gate, Relay, gate::CUT_OFF};
use crate::{
    Records,
    cancel::CancelKey,
    journal::{Journal, Stall},
    judge::{Next, Unit, rejected},
    legs::End,
    record::opaque_reason,
    seam::Grounds,
};

/// One thing to record.
#[derive(Debug)]
pub(super) enum Entry {
    /// From the decoder.
    Event(Event),
    /// Bytes of our own are in a script.
    Injected { direction: Direction, bytes: u64 },
    /// A command of the unit under decision.
    Start { command: Command, decision: v1::Decision },
    /// The rest of one that was recorded by its first part.
    Rest { command: Command },
    /// How a hold ended, for one command.
    Decided { command: CommandId, decision: v1::Decision, verdict: v1::Verdict },
    /// Everything about the unit is recorded: go on with it.
    Recorded,
}

impl<R: Records> Relay<'_, R> {
    /// Records everything that was seen. Pending only when the spool is full: that is the back-pressure.
    pub(super) fn poll_record(
        &mut self,
        journal: &mut Journal<R>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), End>> {
        let mut tried = false;
        while let Some(mut entry) = self.entries.pop_front() {
            if let Some(room) = &mut self.room {
                if room.as_mut().poll(cx).is_pending() {
                    self.entries.push_front(entry);
                    return Poll::Pending;
                }
                self.room = None;
                tried = true;
            }
            match self.record(&mut entry, journal) {
                Ok(()) => {}
                Err(Stop::Stall(Stall::Full)) => {
                    self.entries.push_front(entry);
                    if std::mem::take(&mut tried) {
                        // Room for others, not for this one: they go first.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let spool = Rc::clone(journal.spool());
                    self.room = Some(Box::pin(async move { spool.room().await }));
                }
                Err(Stop::Unsafe(position)) => {
                    self.entries.push_front(entry);
                    let spool = Rc::clone(journal.spool());
                    self.room = Some(Box::pin(async move { spool.durable(position).await }));
                }
                Err(Stop::Stall(Stall::Refused(why))) => return Poll::Ready(Err(End::Unrecordable(why))),
                Err(Stop::End(end)) => return Poll::Ready(Err(end)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// After the end: what can still be said without a new command that goes anywhere. Waits for room.
    pub(super) async fn record_rest(&mut self, journal: &mut Journal<R>) {
        while let Some(entry) = self.entries.pop_front() {
            match entry {
                Entry::Event(Event::Started { commands, .. }) => {
                    for command in &commands {
                        self.record_rejected(command, journal).await;
                    }
                }
                Entry::Start { command, .. } => self.record_rejected(&command, journal).await,
                // Its start is yet to be recorded.
                Entry::Event(Event::Finished { command, .. }) if self.is_prefix(command) => {}
                // It did not go on, and so it was not recorded.
                Entry::Event(Event::Finished { command, .. }) if !journal.is_open(command) => {}
                Entry::Event(Event::Finished { command, outcome }) => {
                    let end = |journal: &mut Journal<R>| journal.finished(command, &outcome);
                    journal.insist_on(self.control, end).await;
                }
                Entry::Event(Event::Session(fact)) => journal.learn(fact),
                Entry::Event(Event::Opaque(reason)) => {
                    let end = |journal: &mut Journal<R>| journal.undecoded(opaque_reason(reason));
                    journal.insist_on(self.control, end).await;
                }
                _ => {}
            }
        }
    }

    /// What the server has refused by itself was with the server, and is told of only when it ends.
    async fn record_rejected(&self, command: &Command, journal: &mut Journal<R>) {
        if rejected(command) && journal.insist_on_start(command, &Grounds::default(), self.control).await {
            journal.released(command.id);
        }
    }

    /// Records one entry. When it cannot be now, the entry is as it was and what was recorded already is not
    /// recorded again.
    fn record(&mut self, entry: &mut Entry, journal: &mut Journal<R>) -> Result<(), Stop> {
        match entry {
            Entry::Event(Event::Prefix { unit, commands }) => {
                let commands = std::mem::take(commands);
                self.judge_prefix(*unit, commands, journal);
            }
            Entry::Event(Event::Started { unit, commands }) => {
                let commands = std::mem::take(commands);
                self.judge(*unit, commands, journal);
            }
            Entry::Event(Event::Finished { command, outcome }) => {
                self.begin_cut_off(Some(*command), outcome.status != Status::NotForwarded, journal)?;
                journal.finished(*command, outcome)?;
            }
            Entry::Event(Event::Session(fact)) => self.learn(fact.clone(), journal),
            // Only an HTTP exchange begins what others go on with.
            Entry::Event(Event::ChainBegun { .. } | Event::ChainEnded { .. }) => {}
            Entry::Event(Event::Upgrade(upgrade)) => self.upgrade = Some(*upgrade),
            Entry::Event(Event::Opaque(reason)) => {
                self.begin_cut_off(None, true, journal)?;
                journal.undecoded(opaque_reason(*reason))?;
                if self.unit.is_some() {
                    // Passing everything on would release what nobody has decided.
                    return Err(Stop::End(End::Stuck(
                        "the server's bytes could not be decoded while a command waited for a decision",
                    )));
                }
            }
            Entry::Injected { direction, bytes } => {
                journal.injected(self.last_refused, *direction, *bytes)?
            }
            Entry::Start { command, decision } => {
                let Some(unit) = &mut self.unit else { return Ok(()) };
                let position = journal.started(command, *decision, &unit.grounds)?;
                unit.recorded(position);
            }
            Entry::Rest { command } => {
                let position = journal.rest(command)?;
                if let Some(unit) = &mut self.unit {
                    unit.recorded(position);
                }
            }
            Entry::Decided { command, decision, verdict } => {
                let position = journal.decided(*command, *decision, verdict)?;
                if let Some(unit) = &mut self.unit {
                    unit.recorded(position);
                }
            }
            Entry::Recorded => self.gate = Gate::Recorded,
        }
        Ok(())
    }

    fn is_prefix(&self, id: CommandId) -> bool {
        self.prefix.iter().flat_map(|prefix| &prefix.commands).any(|command| command.id == id)
    }

    /// A command that was let through by its first part ends before it was whole: its start is recorded, and
    /// safe before the rest goes on. `id`: which; `None` is any. `goes_on`: its rest passes undecoded.
    fn begin_cut_off(
        &mut self,
        id: Option<CommandId>,
        goes_on: bool,
        journal: &mut Journal<R>,
    ) -> Result<(), Stop> {
        let Some(prefix) = &mut self.prefix else { return Ok(()) };
        let mut last = None;
        let ends = |command: &Command| id.is_none_or(|id| command.id == id);
        while let Some(place) = prefix.commands.iter().position(ends) {
            let command = &prefix.commands[place];
            let position = journal.started(command, v1::Decision::Allowed, &prefix.grounds)?;
            if goes_on {
                journal.released(command.id);
                journal.note(command.id, "the connection was decoded no more before the command was whole");
                last = position.or(last);
            } else {
                journal.note(command.id, CUT_OFF);
            }
            prefix.commands.remove(place);
        }
        last.map_or(Ok(()), |position| Err(Stop::Unsafe(position)))
    }

    fn learn(&mut self, fact: SessionFact, journal: &mut Journal<R>) {
        match fact {
            SessionFact::CancelKey { process_id, secret } => {
                // Comes when the client has been let in.
                journal.facts.accepted = true;
                journal.learn(SessionFact::CancelKey { process_id, secret: Vec::new() });
                let key = CancelKey::new(&journal.facts.flow, process_id, secret);
                self.cancel_key.given(key);
            }
            SessionFact::CancelRequest { process_id, secret } => {
                self.cancel_request = Some(CancelKey::new(&journal.facts.flow, process_id, secret));
            }
            SessionFact::BindsChannel => self.shard.known.bound(&journal.facts.flow),
            fact => journal.learn(fact),
        }
    }

    /// Queues a unit's entries before everything else that was seen.
    pub(super) fn enter(&mut self, unit: Unit, entries: impl DoubleEndedIterator<Item = Entry>) {
        self.unit = Some(unit);
        self.gate = Gate::Recording;
        self.entries.push_front(Entry::Recorded);
        for entry in entries.rev() {
            self.entries.push_front(entry);
        }
    }

    /// Queues how a hold ended, for all commands of the unit; then it goes on with `next`.
    pub(super) fn decided(&mut self, decision: v1::Decision, verdict: &v1::Verdict, next: Next) {
        let Some(unit) = &mut self.unit else { return };
        unit.next = next;
        self.gate = Gate::Recording;
        self.entries.push_front(Entry::Recorded);
        for &command in unit.commands.iter().rev() {
            self.entries.push_front(Entry::Decided { command, decision, verdict: verdict.clone() });
        }
    }
}

/// Why an entry is not recorded.
enum Stop {
    Stall(Stall),
    /// Everything up to this position must be safe first.
    Unsafe(u64),
    End(End),
}

impl From<Stall> for Stop {
    fn from(stall: Stall) -> Self {
        Self::Stall(stall)
    }
}
