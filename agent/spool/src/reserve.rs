//! What is kept back in a spool that fills up: room for the ends of what has begun.

use verbatim_api::v1;

/// For gap and closing records.
const FIXED_BYTES: usize = 4 * 1024;
/// For the end of one command or connection: its envelope, an error's text, a tag.
const END_BYTES: usize = 1024;

/// What a record means to the room that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Something has begun and its end must fit later.
    Begin,
    /// Something that had begun has ended: may use what was kept back.
    End,
    /// A hold's end, or something about the chain: may use what was kept back.
    Reserved,
    /// Anything else.
    Other,
}

impl Class {
    pub(crate) fn of(envelope: &v1::Envelope) -> Self {
        use v1::RecordKind as Kind;
        match envelope.kind() {
            Kind::Started => Self::Begin,
            Kind::Connection if envelope.status() == v1::Status::Pending => Self::Begin,
            Kind::Finished | Kind::Connection => Self::End,
            Kind::Decided | Kind::ChainOpened | Kind::ChainClosed | Kind::Key | Kind::Gap => Self::Reserved,
            Kind::Unspecified | Kind::Progress | Kind::Injected | Kind::Coverage | Kind::Heartbeat => {
                Self::Other
            }
        }
    }

    /// Whether such a record may use what was kept back.
    pub(crate) fn uses_reserve(self) -> bool {
        matches!(self, Self::End | Self::Reserved)
    }
}

/// Counts what has begun and not ended.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    open: usize,
}

impl Reserve {
    /// Bytes to keep free behind a record of this class in a segment that can hold `capacity`.
    pub(crate) fn kept(&self, class: Class, capacity: usize) -> usize {
        let open = match class {
            Class::End | Class::Reserved => return 0,
            Class::Begin => self.open + 1,
            Class::Other => self.open,
        };
        // More would leave nothing for what begins; ends beyond it wait for room like everything else.
        (FIXED_BYTES + open.saturating_mul(END_BYTES)).min(capacity / 2)
    }

    pub(crate) fn count(&mut self, class: Class) {
        match class {
            Class::Begin => self.open += 1,
            Class::End => self.open = self.open.saturating_sub(1),
            Class::Reserved | Class::Other => {}
        }
    }
}
