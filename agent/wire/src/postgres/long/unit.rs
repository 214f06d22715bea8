//! A Query or FunctionCall that is longer than what is captured: decided by its prefix, then read on,
//! its last byte held until the whole was recorded.

use crate::{
    postgres::{
        core::{Core, Pending, Stage, Waiting},
        names::Serial,
        outcome::bare_command,
        pipeline::{Commands, InFlight},
        redact::{RedactedCapture, Redactor},
    },
    reader::Malformed,
    seam::{Captured, Command, CommandId, Event, OpaqueReason, Operation, Redaction, Sink},
};

/// Bytes of a FunctionCall's body that name the function.
const FUNCTION_OID: usize = 4;

enum Kind {
    Query { redactor: Box<Redactor>, text: Box<RedactedCapture> },
    Call { oid: Vec<u8> },
}

pub(in crate::postgres) struct LongUnit {
    kind: Kind,
    id: CommandId,
    serial: Serial,
    /// Of the whole message, bytes.
    length: u64,
    /// Bytes of the body before the prefix is announced.
    before_prefix: usize,
    announced: bool,
    remaining: usize,
}

impl LongUnit {
    pub(in crate::postgres) fn query(core: &mut Core, body: usize) -> Result<Self, OpaqueReason> {
        let limit = core.limits.capture_bytes;
        let kind = Kind::Query {
            redactor: Box::new(Redactor::new(core.standard_strings)),
            text: Box::new(RedactedCapture::new(limit)),
        };
        Self::new(core, kind, body, limit)
    }

    pub(in crate::postgres) fn call(core: &mut Core, body: usize) -> Result<Self, OpaqueReason> {
        let prefix = core.limits.capture_bytes.max(FUNCTION_OID);
        Self::new(core, Kind::Call { oid: Vec::new() }, body, prefix)
    }

    fn new(core: &mut Core, kind: Kind, body: usize, before_prefix: usize) -> Result<Self, OpaqueReason> {
        core.room()?;
        Ok(Self {
            kind,
            id: core.next_command(),
            serial: core.next_serial(),
            length: (body as u64).saturating_add(5),
            before_prefix,
            announced: false,
            remaining: body,
        })
    }

    /// The prefix ends at the same byte however the input is cut.
    pub(super) fn wants(&self) -> usize {
        if self.announced { usize::MAX } else { self.before_prefix }
    }

    pub(super) fn push(&mut self, part: &[u8]) -> Result<(), Malformed> {
        self.remaining = self.remaining.saturating_sub(part.len());
        if !self.announced {
            self.before_prefix = self.before_prefix.saturating_sub(part.len());
        }
        match &mut self.kind {
            Kind::Call { oid } => {
                let missing = FUNCTION_OID.saturating_sub(oid.len());
                oid.extend(part.iter().take(missing));
            }
            Kind::Query { redactor, text } => {
                let end = if self.remaining == 0 {
                    let (last, part) = part.split_last().ok_or(Malformed)?;
                    if *last != 0 {
                        return Err(Malformed);
                    }
                    part
                } else {
                    part
                };
                if end.contains(&0) {
                    return Err(Malformed);
                }
                redactor.push(end, &mut **text);
            }
        }
        Ok(())
    }

    pub(super) fn pass(&mut self, core: &mut Core, sink: &mut dyn Sink) {
        if self.announced {
            core.to_server.pass();
            return;
        }
        if self.before_prefix > 0 {
            return;
        }
        self.announced = true;
        let statement = match &self.kind {
            Kind::Query { text, .. } => text.so_far(),
            Kind::Call { .. } => Default::default(),
        };
        let commands = vec![self.command(statement)];
        let unit = core.next_unit();
        core.in_flight = core.in_flight.saturating_add(1);
        core.extended = 0;
        let command = InFlight { id: self.id, serial: self.serial, sent: self.length, forgets: None };
        let simple = matches!(self.kind, Kind::Query { .. });
        let pending = Pending::Query { serial: self.serial, simple, commands: Commands::one(command) };
        core.waiting = Some(Waiting { unit, stage: Stage::Prefix, pending });
        core.flush(sink);
        sink.event(Event::Prefix { unit, commands });
    }

    pub(super) fn finish(mut self, core: &mut Core, sink: &mut dyn Sink) -> Result<(), OpaqueReason> {
        let statement = match &mut self.kind {
            Kind::Query { redactor, text } => {
                redactor.finish(&mut **text);
                ::core::mem::replace(&mut **text, RedactedCapture::new(0)).finish()
            }
            Kind::Call { .. } => Default::default(),
        };
        let commands = vec![self.command(statement)];
        // Without a decision about the prefix nothing is read on.
        let Some(waiting) = core.allowed.take() else {
            return Err(OpaqueReason::Desynchronised);
        };
        core.to_server.pass_all_but_last();
        core.flush(sink);
        let unit = waiting.unit;
        core.waiting = Some(Waiting { stage: Stage::Last, ..waiting });
        sink.event(Event::Started { unit, commands });
        Ok(())
    }

    fn command(&self, (statement, redactions): (Captured, Vec<Redaction>)) -> Command {
        let operation = match self.kind {
            Kind::Query { .. } => Operation::Query,
            Kind::Call { .. } => Operation::FunctionCall,
        };
        let mut command = bare_command(self.id, operation);
        command.statement = statement;
        command.redactions = redactions;
        if let Kind::Call { oid } = &self.kind {
            let oid = oid.first_chunk::<FUNCTION_OID>().map_or(0, |oid| u32::from_be_bytes(*oid));
            command.attributes.push(("function_oid", oid.to_string().into_bytes()));
            command.partly = Some(OpaqueReason::Limit);
        }
        command
    }
}
