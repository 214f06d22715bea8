//! A Bind that is longer than what is captured: each value is cut where the room for all of them ends.

use super::parse::keep_name;
use crate::{
    capture::Capture,
    postgres::{core::Core, messages::frontend::Formats, names::significant, statements::Arguments},
    reader::Malformed,
};

/// What a Bind says, however long it was.
pub(in crate::postgres) struct LongBound {
    pub(in crate::postgres) portal: Vec<u8>,
    pub(in crate::postgres) statement: Vec<u8>,
    pub(in crate::postgres) arguments: Arguments,
}

enum Part {
    Portal,
    Statement,
    FormatCount,
    Formats(usize),
    Count,
    Length,
    Value { remaining: usize, capture: Capture },
    ResultCount,
    Results(usize),
    End,
}

pub(in crate::postgres) struct LongBind {
    part: Part,
    bound: LongBound,
    formats: Vec<u8>,
    values: usize,
    taken: usize,
    /// Bytes of a number that is being read.
    number: Vec<u8>,
}

impl LongBind {
    pub(super) fn new(core: &Core) -> Self {
        Self {
            part: Part::Portal,
            bound: LongBound {
                portal: Vec::new(),
                statement: Vec::new(),
                arguments: Arguments::new(core.limits.capture_bytes, &core.values),
            },
            formats: Vec::new(),
            values: 0,
            taken: 0,
            number: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, mut rest: &[u8]) -> Result<(), Malformed> {
        while !rest.is_empty() {
            rest = match &mut self.part {
                Part::Portal | Part::Statement => self.name(rest),
                Part::Value { remaining, capture } => {
                    let taken = (*remaining).min(rest.len());
                    let (value, after) = rest.split_at_checked(taken).ok_or(Malformed)?;
                    capture.push(value);
                    *remaining = remaining.saturating_sub(taken);
                    if *remaining == 0 {
                        self.end_value();
                    }
                    after
                }
                Part::Formats(remaining) | Part::Results(remaining) => {
                    let taken = (*remaining).min(rest.len());
                    let (codes, after) = rest.split_at_checked(taken).ok_or(Malformed)?;
                    *remaining = remaining.saturating_sub(taken);
                    let ended = *remaining == 0;
                    if matches!(self.part, Part::Formats(_)) {
                        self.formats.extend_from_slice(codes);
                        if ended {
                            self.part = Part::Count;
                        }
                    } else if ended {
                        self.part = Part::End;
                    }
                    after
                }
                Part::Length => self.number(rest, 4)?,
                Part::FormatCount | Part::Count | Part::ResultCount => self.number(rest, 2)?,
                Part::End => return Err(Malformed),
            };
        }
        Ok(())
    }

    fn name<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let portal = matches!(self.part, Part::Portal);
        let name = if portal { &mut self.bound.portal } else { &mut self.bound.statement };
        let end = rest.iter().position(|byte| *byte == 0);
        keep_name(name, rest.get(..end.unwrap_or(rest.len())).unwrap_or_default());
        let Some(end) = end else {
            return &[];
        };
        self.part = if portal { Part::Statement } else { Part::FormatCount };
        rest.get(end.saturating_add(1)..).unwrap_or_default()
    }

    /// Reads on in a number of `width` bytes; acts when it is whole.
    fn number<'a>(&mut self, rest: &'a [u8], width: usize) -> Result<&'a [u8], Malformed> {
        let taken = width.saturating_sub(self.number.len()).min(rest.len());
        let (part, after) = rest.split_at_checked(taken).ok_or(Malformed)?;
        self.number.extend_from_slice(part);
        match *self.number.as_slice() {
            [a, b] if width == 2 => {
                let count = usize::from(u16::from_be_bytes([a, b]));
                self.counted(count);
            }
            [a, b, c, d] => self.length(i32::from_be_bytes([a, b, c, d]))?,
            _ => return Ok(after),
        }
        self.number.clear();
        Ok(after)
    }

    fn counted(&mut self, count: usize) {
        let codes = count.saturating_mul(2);
        self.part = match self.part {
            Part::FormatCount if count == 0 => Part::Count,
            Part::FormatCount => Part::Formats(codes),
            Part::Count => {
                self.values = count;
                if count == 0 { Part::ResultCount } else { Part::Length }
            }
            _ if count == 0 => Part::End,
            _ => Part::Results(codes),
        };
    }

    fn length(&mut self, length: i32) -> Result<(), Malformed> {
        match usize::try_from(length) {
            Ok(remaining) => {
                let capture = Capture::new(self.bound.arguments.room());
                self.part = Part::Value { remaining, capture };
                if remaining == 0 {
                    self.end_value();
                }
            }
            Err(_) if length == -1 => {
                self.bound.arguments.push(Formats::new(&self.formats).of(self.taken), None);
                self.next_value();
            }
            Err(_) => return Err(Malformed),
        }
        Ok(())
    }

    fn end_value(&mut self) {
        if let Part::Value { capture, .. } = ::core::mem::replace(&mut self.part, Part::Length) {
            let format = Formats::new(&self.formats).of(self.taken);
            self.bound.arguments.push(format, Some(capture.finish()));
        }
        self.next_value();
    }

    fn next_value(&mut self) {
        self.taken = self.taken.saturating_add(1);
        self.part = if self.taken < self.values { Part::Length } else { Part::ResultCount };
    }

    pub(super) fn finish(mut self) -> Result<LongBound, Malformed> {
        if !matches!(self.part, Part::End) {
            return Err(Malformed);
        }
        for name in [&mut self.bound.portal, &mut self.bound.statement] {
            *name = significant(name).to_vec();
        }
        Ok(self.bound)
    }
}
