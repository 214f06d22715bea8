//! Messages that are longer than what is captured: read as they pass, in constant memory.

mod bind;
mod parse;
mod unit;

use super::core::Core;
use crate::{
    reader::Malformed,
    seam::{OpaqueReason, Sink},
};

use bind::LongBind;
pub(super) use bind::LongBound;
use parse::LongParse;
pub(super) use parse::LongStatement;
pub(super) use unit::LongUnit;

/// A long message under way.
pub(super) enum Long {
    /// Query or FunctionCall: waits for decisions.
    Unit(LongUnit),
    Parse(LongParse, u64),
    Bind(LongBind, u64),
}

impl Long {
    pub(super) fn parse(core: &Core, body: usize) -> Self {
        Self::Parse(LongParse::new(core), (body as u64).saturating_add(5))
    }

    pub(super) fn bind(core: &Core, body: usize) -> Self {
        Self::Bind(LongBind::new(core), (body as u64).saturating_add(5))
    }

    /// How many bytes it takes at once, at most.
    pub(super) fn wants(&self) -> usize {
        match self {
            Self::Unit(unit) => unit.wants(),
            Self::Parse(..) | Self::Bind(..) => usize::MAX,
        }
    }

    /// The next part of the body.
    pub(super) fn push(&mut self, part: &[u8]) -> Result<(), Malformed> {
        match self {
            Self::Unit(unit) => unit.push(part),
            Self::Parse(parse, _) => parse.push(part),
            Self::Bind(bind, _) => bind.push(part),
        }
    }

    /// Lets pass what may pass; the message goes on.
    pub(super) fn pass(&mut self, core: &mut Core, sink: &mut dyn Sink) {
        match self {
            Self::Unit(unit) => unit.pass(core, sink),
            Self::Parse(..) | Self::Bind(..) => core.to_server.pass(),
        }
    }

    /// The message is whole.
    pub(super) fn finish(self: Box<Self>, core: &mut Core, sink: &mut dyn Sink) -> Result<(), OpaqueReason> {
        match *self {
            Self::Unit(unit) => return unit.finish(core, sink),
            Self::Parse(parse, length) => core.parse(parse.finish()?, length)?,
            Self::Bind(bind, length) => core.long_bind(bind.finish()?, length)?,
        }
        core.to_server.pass();
        Ok(())
    }
}
