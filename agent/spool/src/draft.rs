//! A record before and after the spool has taken it.

use prost::Message;
use verbatim_api::v1;

/// A record as the proxy builds it: everything but what the spool adds (schema version, record id, chain
/// id, sequence, clocks, commitment, salt). Whatever stands in those fields is overwritten.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The lasting part.
    pub envelope: v1::Envelope,
    /// The part that can be deleted.
    pub content: Option<v1::Content>,
}

/// What many records have in common, serialised once. Protocol buffers join a message that is written in
/// parts: singular fields count as written last, messages are merged.
#[derive(Clone, Debug, Default)]
pub struct Common {
    pub(crate) envelope: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

impl Common {
    /// Of both parts of a record. Where a record has no content, that of `content` is left out.
    #[must_use]
    pub fn new(envelope: &v1::Envelope, content: &v1::Content) -> Self {
        Self { envelope: envelope.encode_to_vec(), content: content.encode_to_vec() }
    }

    /// The whole of a record that has this in common with others, as a reader sees it.
    ///
    /// # Errors
    /// Never for what [`Common::new`] made.
    pub fn join(&self, draft: &Draft) -> Result<Draft, prost::DecodeError> {
        let envelope = [&self.envelope[..], &draft.envelope.encode_to_vec()].concat();
        let content = draft.content.as_ref().map(|content| {
            let whole = [&self.content[..], &content.encode_to_vec()].concat();
            v1::Content::decode(&whole[..])
        });
        Ok(Draft { envelope: v1::Envelope::decode(&envelope[..])?, content: content.transpose()? })
    }
}

/// Where an appended record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// UUIDv7 of the record.
    pub record_id: [u8; 16],
    /// Its place in the chain.
    pub sequence: u64,
    /// CLOCK_BOOTTIME that it carries, nanoseconds.
    pub boottime_nanos: u64,
    /// For [`Spool::durable`](crate::Spool::durable).
    pub position: u64,
}

/// Why a record could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The spool is full and the configuration says stop: wait with [`Spool::room`](crate::Spool::room)
    /// and append again.
    #[error("spool is full: waiting for the collector to acknowledge")]
    Full,
    /// The spool is full and the configuration says shed: the record was counted for a gap record.
    #[error("spool is full: record shed")]
    Shed,
    /// Larger than a segment.
    #[error("record of {0} bytes is larger than a segment")]
    TooLarge(usize),
}
