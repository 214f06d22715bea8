//! What the client's messages do to the session.

use std::sync::Arc;

use super::{
    core::{Core, Mode, Pending},
    forgets::forgets,
    long::{LongBound, LongStatement},
    messages::frontend::{self as messages, Target},
    names::{Meanings, Serial, significant},
    outcome::{bare_command, execute_command},
    pipeline::{Commands, Encryption, InFlight, Owed},
    redact, split,
    startup::Packet,
    statements::{self, Arguments, Portal, Statement},
};
use crate::{
    capture::capture,
    seam::{
        Captured, Direction, Event, OpaqueReason, Operation, Redaction, SessionFact, Sink, Token, Upgrade,
    },
};

/// Statements of one message that get a command each; the last one takes what is left.
const MAX_STATEMENTS: usize = 10_000;

/// Whether a message is a unit: it waits for a decision.
pub(super) fn is_unit(kind: u8) -> bool {
    matches!(kind, b'Q' | b'E' | b'F')
}

impl Core {
    /// A start-up packet was read whole. Returns whether typed messages follow.
    pub(super) fn startup_packet(
        &mut self,
        packet: &Packet<'_>,
        sink: &mut dyn Sink,
    ) -> Result<bool, OpaqueReason> {
        match packet {
            Packet::Cancel { .. } | Packet::Session(_) if self.lacks_tls() => {
                self.upgrade(Upgrade::Server, sink);
                return Ok(false);
            }
            Packet::Ssl => self.push(Owed::Encryption(Encryption::Tls))?,
            Packet::GssEnc if self.encryption.declines_others => {
                self.drop_held(Direction::ToServer, sink);
                self.insert(Direction::ToClient, b"N".to_vec(), sink);
                return Ok(false);
            }
            Packet::GssEnc => self.push(Owed::Encryption(Encryption::Gss))?,
            Packet::Cancel { process_id, secret } => {
                self.cancel_request(*process_id, secret, sink);
                return Ok(false);
            }
            Packet::UnsupportedVersion => return Err(OpaqueReason::UnsupportedVersion),
            Packet::Session(parameters) => {
                self.begins(parameters.user);
                sink.event(Event::Session(SessionFact::User(parameters.user.to_vec())));
                sink.event(Event::Session(SessionFact::Database(parameters.database.to_vec())));
                for (name, value) in &parameters.others {
                    sink.event(Event::Session(SessionFact::Parameter(name.to_vec(), value.to_vec())));
                }
                if parameters.replication {
                    return Err(OpaqueReason::Replication);
                }
                self.push(Owed::Startup)?;
                self.to_server.pass();
                return Ok(true);
            }
        }
        self.to_server.pass();
        Ok(false)
    }

    fn lacks_tls(&self) -> bool {
        self.encryption.server_required && self.encryption.server.is_none()
    }

    fn cancel_request(&mut self, process_id: u32, secret: &[u8], sink: &mut dyn Sink) {
        let secret = secret.to_vec();
        sink.event(Event::Session(SessionFact::CancelRequest { process_id, secret }));
        self.mode = Mode::Cancel;
        let command = self.in_flight(self.to_server.held);
        let mut announced = bare_command(command.id, Operation::Cancel);
        announced.attributes.push(("process_id", process_id.to_string().into_bytes()));
        self.start(vec![announced], Pending::Cancel(command), sink);
    }

    fn in_flight(&mut self, sent: u64) -> InFlight {
        InFlight { id: self.next_command(), serial: self.serial, sent, forgets: None }
    }

    /// A typed message was read whole.
    pub(super) fn client_message(
        &mut self,
        kind: u8,
        body: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<(), OpaqueReason> {
        let length = (body.len() as u64).saturating_add(5);
        match kind {
            b'Q' => return self.query(messages::text(body)?, length, sink),
            b'E' => {
                let (portal, rows) = messages::execute(body)?;
                return self.execute(portal, rows, length, sink);
            }
            b'F' => return self.function_call(&messages::function_call(body)?, length, sink),
            b'P' => {
                let parse = messages::parse(body)?;
                let text = self.redacted(parse.text, self.limits.capture_bytes);
                self.parse(
                    LongStatement { name: significant(parse.name).to_vec(), text, types: parse.types },
                    length,
                )?;
            }
            b'B' => {
                let bind = messages::bind(body)?;
                let mut arguments = Arguments::new(self.limits.capture_bytes, &self.values);
                bind.values(|index, value| {
                    let value = value.map(|value| capture(value, arguments.room()));
                    arguments.push(bind.formats.of(index), value);
                })?;
                self.bind(bind.portal, bind.statement, arguments, length)?;
            }
            b'D' => self.describe(messages::target(body)?, length)?,
            b'C' => self.close_name(messages::target(body)?, length)?,
            b'S' => self.sync(body)?,
            b'H' if !body.is_empty() => return Err(OpaqueReason::Malformed),
            b'c' | b'f' => {
                self.serial = self.serial.saturating_add(1);
                self.copy_ended = self.serial;
                self.copy_in = false;
                self.copied(length);
            }
            b'p' if self.transaction.is_some() => return Err(OpaqueReason::Malformed),
            _ => {}
        }
        self.to_server.pass();
        Ok(())
    }

    /// COPY data belongs to the command that runs.
    pub(super) fn copied(&mut self, length: u64) {
        if let Some(command) = self.queue.front_mut().and_then(Owed::running) {
            command.sent = command.sent.saturating_add(length);
        }
    }

    fn redacted(&self, text: &[u8], limit: usize) -> (Captured, Vec<Redaction>) {
        let Some((text, mut redactions)) = redact::redact(text, self.standard_strings) else {
            return (capture(text, limit), Vec::new());
        };
        clip(&mut redactions, limit as u64);
        let tokens = tokens_within(&text.tokens, 0, limit as u64);
        (Captured { tokens, ..capture(&text.bytes, limit) }, redactions)
    }

    fn query(&mut self, text: &[u8], length: u64, sink: &mut dyn Sink) -> Result<(), OpaqueReason> {
        let limit = self.room()?.min(MAX_STATEMENTS);
        let serial = self.next_serial();
        let redacted = redact::redact(text, self.standard_strings);
        let (text, redactions, tokens) = match &redacted {
            Some((text, redactions)) => {
                (text.bytes.as_slice(), redactions.as_slice(), text.tokens.as_slice())
            }
            None => (text, &[][..], &[][..]),
        };
        let parts = split::split(text, self.standard_strings, limit);
        let cut_off = parts.len() == limit && limit > 1;
        let single = parts.len() == 1;
        let mut announced = Vec::with_capacity(parts.len());
        let mut commands = Commands::default();
        // The first statement has what is no statement's: the message's frame.
        let mut sent = length.saturating_sub(text.len() as u64);
        for (index, part) in parts.into_iter().enumerate() {
            let statement = text.get(part.clone()).unwrap_or_default();
            let own = if single { length } else { sent.saturating_add(statement.len() as u64) };
            let mut command = self.in_flight(own);
            sent = 0;
            command.forgets = forgets(statement);
            let mut shown = bare_command(command.id, Operation::Query);
            shown.statement = capture(statement, self.limits.capture_bytes);
            let kept = shown.statement.bytes.len() as u64;
            shown.redactions = within(redactions, part.start as u64, kept);
            shown.statement.tokens = tokens_within(tokens, part.start as u64, kept);
            shown.statement_index = u32::try_from(index).unwrap_or(u32::MAX);
            announced.push(shown);
            commands.push(command);
        }
        if let Some(last) = announced.last_mut().filter(|_| cut_off) {
            last.partly = Some(OpaqueReason::Limit);
        }
        self.extended = 0;
        self.start(announced, Pending::Query { serial, simple: true, commands }, sink);
        Ok(())
    }

    fn function_call(
        &mut self,
        call: &messages::FunctionCall<'_>,
        length: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), OpaqueReason> {
        self.room()?;
        let mut arguments = Arguments::new(self.limits.capture_bytes, &self.values);
        call.values(|index, value| {
            let value = value.map(|value| capture(value, arguments.room()));
            arguments.push(call.formats.of(index), value);
        })?;
        let serial = self.next_serial();
        let command = self.in_flight(length);
        let mut shown = bare_command(command.id, Operation::FunctionCall);
        shown.attributes.push(("function_oid", call.function.to_string().into_bytes()));
        shown.parameters = statements::untyped(&arguments.list);
        shown.partly = arguments.partly;
        self.extended = 0;
        let commands = Commands::one(command);
        self.start(vec![shown], Pending::Query { serial, simple: false, commands }, sink);
        Ok(())
    }

    pub(super) fn next_serial(&mut self) -> Serial {
        self.serial = self.serial.saturating_add(1);
        self.serial
    }

    fn extended(&mut self, length: u64) -> Serial {
        self.extended = self.extended.saturating_add(length);
        self.unsynced = true;
        self.next_serial()
    }

    pub(super) fn parse(&mut self, parsed: LongStatement, length: u64) -> Result<(), OpaqueReason> {
        let serial = self.extended(length);
        let statement = Arc::new(Statement::new(parsed.name, parsed.text, parsed.types, &self.texts));
        self.statements.propose(&statement.name, serial, Some(Arc::clone(&statement)));
        self.push(Owed::Parse { serial, statement })
    }

    pub(super) fn bind(
        &mut self,
        portal: &[u8],
        statement: &[u8],
        arguments: Arguments,
        length: u64,
    ) -> Result<(), OpaqueReason> {
        let serial = self.extended(length);
        let (portal, statement) = (significant(portal).to_vec(), significant(statement).to_vec());
        let bound = self.statements.meanings(&statement, self.last_sync);
        let doubtful = !bound.others.is_empty() || (self.forgetting > 0 && !statement.is_empty());
        let partly = match &bound.likeliest {
            _ if bound.more => Some(OpaqueReason::Limit),
            None => Some(unknown(self.statements.overflowed())),
            Some(_) if doubtful => Some(OpaqueReason::Desynchronised),
            Some(_) => None,
        };
        let portal = Arc::new(Portal::new(portal, statement, bound, arguments, partly));
        self.portals.propose(&portal.name, serial, Some(Arc::clone(&portal)));
        self.push(Owed::Bind { serial, portal })
    }

    pub(super) fn long_bind(&mut self, bound: LongBound, length: u64) -> Result<(), OpaqueReason> {
        self.bind(&bound.portal, &bound.statement, bound.arguments, length)
    }

    fn execute(
        &mut self,
        name: &[u8],
        max_rows: i32,
        length: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), OpaqueReason> {
        self.room()?;
        self.extended(length);
        let sent = ::core::mem::take(&mut self.extended);
        let command = self.in_flight(sent);
        let Meanings { likeliest: portal, others, more } = self.portals.meanings(name, self.last_sync);
        let mut command_forgets = None;
        let mut shown = match &portal {
            Some(portal) => {
                let again = portal.execute();
                if let Some(statement) = &portal.statement {
                    command_forgets = forgets(&statement.text.bytes);
                }
                let operation = if again { Operation::Fetch } else { Operation::Execute };
                execute_command(command.id, operation, portal, &others, self.limits.capture_bytes)
            }
            None => {
                let mut shown = bare_command(command.id, Operation::Execute);
                shown.portal_name = significant(name).to_vec();
                shown.partly = Some(unknown(self.portals.overflowed()));
                shown
            }
        };
        if more {
            shown.partly = Some(OpaqueReason::Limit);
        }
        if max_rows > 0 {
            shown.attributes.push(("max_rows", max_rows.to_string().into_bytes()));
        }
        let command = InFlight { forgets: command_forgets, ..command };
        self.start(vec![shown], Pending::Execute { command, portal }, sink);
        Ok(())
    }

    fn describe(&mut self, target: Target<'_>, length: u64) -> Result<(), OpaqueReason> {
        self.extended(length);
        let (statement, portal) = match target {
            Target::Statement(name) => (self.statements.latest(name).cloned(), None),
            Target::Portal(name) => (None, self.portals.latest(name).cloned()),
        };
        self.push(Owed::Describe { statement, portal })
    }

    fn close_name(&mut self, target: Target<'_>, length: u64) -> Result<(), OpaqueReason> {
        let serial = self.extended(length);
        match target {
            Target::Statement(name) => {
                self.statements.propose(name, serial, None);
                self.push(Owed::CloseStatement { serial, name: significant(name).into() })
            }
            Target::Portal(name) => {
                self.portals.propose(name, serial, None);
                self.push(Owed::ClosePortal { serial, name: significant(name).into() })
            }
        }
    }

    fn sync(&mut self, body: &[u8]) -> Result<(), OpaqueReason> {
        if !body.is_empty() {
            return Err(OpaqueReason::Malformed);
        }
        self.extended = 0;
        if self.copy_in {
            // The server takes it for a part of the data.
            return Ok(());
        }
        let serial = self.next_serial();
        self.last_sync = serial;
        self.ready_owed = serial;
        self.unsynced = true;
        self.push(Owed::Sync { serial })
    }
}

/// Why a name stands for nothing that was seen: it was not kept, or it was defined in a way that is not
/// followed (SQL's PREPARE and DECLARE).
fn unknown(overflowed: bool) -> OpaqueReason {
    if overflowed { OpaqueReason::Limit } else { OpaqueReason::Desynchronised }
}

/// Redactions of a part of a text, counted from the part's beginning. They are in order.
fn within(redactions: &[Redaction], start: u64, kept: u64) -> Vec<Redaction> {
    let end = start.saturating_add(kept);
    let first = redactions.partition_point(|redaction| redaction.offset < start);
    let inside = redactions.iter().skip(first).take_while(|redaction| redaction.offset < end);
    let mut inside = inside
        .map(|redaction| Redaction { offset: redaction.offset.saturating_sub(start), ..*redaction })
        .collect();
    clip(&mut inside, kept);
    inside
}

/// Redactions of a text that is cut.
fn clip(redactions: &mut Vec<Redaction>, kept: u64) {
    redactions.retain_mut(|redaction| {
        redaction.length = redaction.length.min(kept.saturating_sub(redaction.offset));
        redaction.length > 0
    });
}

/// Tokens of a part of a text, counted from the part's beginning.
fn tokens_within(tokens: &[Token], start: u64, kept: u64) -> Vec<Token> {
    let inside = tokens.iter().filter_map(|token| {
        let mark = token.mark.checked_sub(start).filter(|mark| *mark < kept)?;
        Some(Token { mark, ..token.clone() })
    });
    inside.collect()
}
