//! A Parse that is longer than what is captured.

use crate::{
    postgres::{
        core::Core,
        messages::frontend::types,
        names::significant,
        redact::{RedactedCapture, Redactor},
    },
    reader::Malformed,
    seam::{Captured, Redaction},
};

/// A count and as many OIDs.
const MAX_TAIL: usize = 2 + 4 * 65_535;
/// Bytes kept of a name; the server looks at fewer.
const MAX_NAME: usize = 64;

/// What a Parse says, however long it was.
pub(in crate::postgres) struct LongStatement {
    pub(in crate::postgres) name: Vec<u8>,
    pub(in crate::postgres) text: (Captured, Vec<Redaction>),
    pub(in crate::postgres) types: Vec<u32>,
}

enum Part {
    Name,
    Text,
    Tail,
}

pub(in crate::postgres) struct LongParse {
    part: Part,
    name: Vec<u8>,
    redactor: Redactor,
    text: RedactedCapture,
    tail: Vec<u8>,
}

impl LongParse {
    pub(super) fn new(core: &Core) -> Self {
        Self {
            part: Part::Name,
            name: Vec::new(),
            redactor: Redactor::new(core.standard_strings),
            text: RedactedCapture::new(core.limits.capture_bytes),
            tail: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, mut rest: &[u8]) -> Result<(), Malformed> {
        while !rest.is_empty() {
            if matches!(self.part, Part::Tail) {
                self.tail.extend_from_slice(rest);
                return if self.tail.len() > MAX_TAIL { Err(Malformed) } else { Ok(()) };
            }
            let end = rest.iter().position(|byte| *byte == 0);
            let (text, after) = rest.split_at_checked(end.unwrap_or(rest.len())).ok_or(Malformed)?;
            match self.part {
                Part::Name => keep_name(&mut self.name, text),
                _ => self.redactor.push(text, &mut self.text),
            }
            if end.is_some() {
                self.part = match self.part {
                    Part::Name => Part::Text,
                    _ => Part::Tail,
                };
            }
            rest = after.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<LongStatement, Malformed> {
        self.redactor.finish(&mut self.text);
        let types = types(&self.tail)?;
        Ok(LongStatement { name: significant(&self.name).to_vec(), text: self.text.finish(), types })
    }
}

/// Keeps as much of a name as tells it from others.
pub(super) fn keep_name(name: &mut Vec<u8>, part: &[u8]) {
    let room = MAX_NAME.saturating_sub(name.len());
    name.extend(part.iter().take(room));
}
