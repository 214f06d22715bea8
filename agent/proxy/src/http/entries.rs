//! What an exchange's decoder said, in order, and what becomes of each thing when its turn has come.

use std::collections::VecDeque;

use http::Response;
use verbatim_api::v1;
use verbatim_http::seam::Step;
use verbatim_wire::{
    message::{Answer, MessageSink, Pass},
    seam::{Command, CommandId, Direction, Event, Status, UnitId},
};

use super::{connection::Late, exchange::Exchange};
use crate::{
    Records,
    journal::{Route, Stall},
};

/// One thing that was said, or that follows from it.
pub(super) enum Entry {
    /// A unit of which the first part was read.
    Prefix { unit: UnitId, commands: Vec<Command> },
    /// A unit that was read whole.
    Started { unit: UnitId, commands: Vec<Command> },
    /// A command of the unit under decision.
    Start { command: Command, decision: v1::Decision },
    /// The rest of one that was recorded by its first part.
    Rest { command: Command },
    /// How a hold ended, for one command.
    Decided { command: CommandId, decision: v1::Decision, verdict: v1::Verdict },
    /// Everything about the unit is recorded: go on with it.
    Recorded,
    /// So much of the request may go on.
    Pass(Pass),
    /// The request is answered here.
    Answer(Box<Answer>),
    /// What needs no exchange to be recorded.
    Late(Late),
}

/// Takes what the decoder says; its commands' ids become the connection's.
pub(super) struct Collect<'a> {
    pub(super) exchange: u32,
    pub(super) entries: &'a mut VecDeque<Entry>,
    /// Nothing of the request is held any more.
    pub(super) rest: &'a mut bool,
}

impl MessageSink for Collect<'_> {
    fn event(&mut self, event: Event) {
        let entry = match event {
            Event::Prefix { unit, commands } => Entry::Prefix { unit, commands: self.own_all(commands) },
            Event::Started { unit, commands } => Entry::Started { unit, commands: self.own_all(commands) },
            Event::Finished { command, outcome } => {
                let command = self.own(command);
                if !matches!(outcome.status, Status::Accepted | Status::OutcomeUnknown) {
                    self.over(command);
                }
                Entry::Late(Late::Finished { command, outcome: Box::new(outcome) })
            }
            Event::ChainBegun { command, chain } => {
                Entry::Late(Late::Begun { command: self.own(command), chain, over: false })
            }
            Event::ChainEnded { chain, outcome } => {
                Entry::Late(Late::Ended { chain, outcome: Box::new(outcome) })
            }
            // Of a connection, not of an exchange.
            Event::Session(_) | Event::Opaque(_) | Event::Upgrade(_) => return,
        };
        self.entries.push_back(entry);
    }

    fn pass(&mut self, pass: Pass) {
        *self.rest |= pass == Pass::Rest;
        self.entries.push_back(Entry::Pass(pass));
    }

    fn answer(&mut self, answer: Answer) {
        self.entries.push_back(Entry::Answer(Box::new(answer)));
    }
}

impl Collect<'_> {
    /// What the command began is over with it: what later requests say of the end is nothing new.
    fn over(&mut self, ended: CommandId) {
        for entry in self.entries.iter_mut() {
            if let Entry::Late(Late::Begun { command, over, .. }) = entry {
                *over |= *command == ended;
            }
        }
    }

    /// Each exchange counts its commands from the start: within the connection they are told apart by the
    /// exchange's number.
    fn own(&self, id: CommandId) -> CommandId {
        CommandId(u64::from(self.exchange) << 32 | id.0 & u64::from(u32::MAX))
    }

    fn own_all(&self, mut commands: Vec<Command>) -> Vec<Command> {
        for command in &mut commands {
            command.id = self.own(command.id);
        }
        commands
    }
}

/// Whether a command is one of an exchange's.
pub(super) fn belongs(id: CommandId, exchange: u32) -> bool {
    id.0 >> 32 == u64::from(exchange)
}

impl<R: Records> Exchange<R> {
    /// Records everything that was said, as far as there is room. `Err`: the entry that stalled is first.
    pub(super) fn record_now(&mut self) -> Result<(), Stall> {
        while let Some(mut entry) = self.entries.pop_front() {
            if let Err(stall) = self.record(&mut entry) {
                self.entries.push_front(entry);
                return Err(stall);
            }
        }
        Ok(())
    }

    /// Records one entry. When it cannot be now, the entry is as it was and nothing has happened.
    fn record(&mut self, entry: &mut Entry) -> Result<(), Stall> {
        match entry {
            Entry::Prefix { unit, commands } => {
                let commands = std::mem::take(commands);
                self.judge_prefix(*unit, commands);
            }
            Entry::Started { unit, commands } => {
                let commands = std::mem::take(commands);
                self.judge(*unit, commands);
            }
            Entry::Start { command, decision } => self.start(command, *decision)?,
            Entry::Rest { command } => {
                let position = self.connection.with(|journal| journal.rest(command))?;
                if let Some(unit) = &mut self.unit {
                    unit.recorded(position);
                }
            }
            Entry::Decided { command, decision, verdict } => {
                let position =
                    self.connection.with(|journal| journal.decided(*command, *decision, verdict))?;
                if let Some(unit) = &mut self.unit {
                    unit.recorded(position);
                }
            }
            Entry::Recorded => self.recorded(),
            Entry::Pass(pass) => self.pass(*pass)?,
            Entry::Answer(answer) => self.answer(answer)?,
            Entry::Late(late) => self.late(late)?,
        }
        Ok(())
    }

    fn start(&mut self, command: &Command, decision: v1::Decision) -> Result<(), Stall> {
        let Some(unit) = &mut self.unit else { return Ok(()) };
        let begun = self.connection.begun(command.continues.as_ref());
        let route =
            Route { place: Some(&self.place), continues: begun.as_deref(), request: Some(&self.proof) };
        let started =
            self.connection.with(|journal| journal.started_at(command, decision, &unit.grounds, &route));
        unit.recorded(started?);
        self.open += 1;
        Ok(())
    }

    fn late(&mut self, late: &mut Late) -> Result<(), Stall> {
        let ended = match late {
            Late::Finished { command, .. } => {
                let command = *command;
                self.begin_cut_off(command)?;
                true
            }
            _ => false,
        };
        self.connection.record(late)?;
        self.open = self.open.saturating_sub(u32::from(ended));
        Ok(())
    }

    /// A command that was let through by its first part ended before it was whole: it was not executed, but
    /// it was there.
    fn begin_cut_off(&mut self, id: CommandId) -> Result<(), Stall> {
        let Some(prefix) = &self.prefix else { return Ok(()) };
        let Some(command) = prefix.commands.iter().find(|command| command.id == id) else { return Ok(()) };
        let begun = self.connection.with(|journal| {
            if !journal.is_open(id) {
                let route = Route { place: Some(&self.place), continues: None, request: Some(&self.proof) };
                journal.started_at(command, v1::Decision::Allowed, &prefix.grounds, &route)?;
                journal.note(id, "the request ended before the command was whole");
            }
            Ok(())
        });
        begun.map(|()| self.open += 1)
    }

    fn pass(&mut self, pass: Pass) -> Result<(), Stall> {
        let step = match pass {
            Pass::Head => {
                if !self.replaced.is_empty() {
                    let headers = self.replaced.iter().map(|(name, value)| name.as_str().len() + value.len());
                    let bytes = headers.sum::<usize>() as u64;
                    let command = self.replacer;
                    self.connection.with(|journal| journal.injected(command, Direction::ToServer, bytes))?;
                }
                self.head_passed = true;
                Step::Head(std::mem::take(&mut self.replaced))
            }
            Pass::Body(n) => Step::Body(n),
            Pass::Rest => Step::Rest,
            Pass::End => Step::End,
        };
        self.steps.push_back(step);
        Ok(())
    }

    fn answer(&mut self, answer: &mut Answer) -> Result<(), Stall> {
        let headers = answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let bytes = headers.sum::<usize>() + answer.body.len();
        let command = self.last_refused;
        self.connection.with(|journal| journal.injected(command, Direction::ToClient, bytes as u64))?;
        let mut response = Response::new(std::mem::take(&mut answer.body).into());
        *response.status_mut() = answer.status;
        *response.headers_mut() = std::mem::take(&mut answer.headers);
        self.steps.push_back(Step::Answer(response));
        Ok(())
    }
}
