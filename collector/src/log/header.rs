//! What the collector itself writes into the log: the header beside each batch, events, and what it knew
//! of the chains.
//!
//! Protocol buffers of the collector's own, apart from `verbatim.v1`: no other process reads them. Field
//! numbers are never used again.

use verbatim_api::v1;

/// Beside each batch, so that an index can be rebuilt with nothing missing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchHeader {
    /// Wall clock of the collector at reception, nanoseconds since 1970.
    #[prost(fixed64, tag = "1")]
    pub received_wall_nanos: u64,
    /// Who sent it: names of the client certificate, or user and process of a Unix socket.
    #[prost(string, tag = "2")]
    pub peer: String,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub chain_id: Vec<u8>,
    /// Sequence of the first entry.
    #[prost(uint64, tag = "4")]
    pub first_sequence: u64,
    /// The node's signed head, as it came.
    #[prost(message, optional, tag = "5")]
    pub head: Option<v1::SignedHead>,
    /// h before the first entry, where it was known: 32 bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub previous_hash: Vec<u8>,
    /// The hashes of the entries lead from `previous_hash` to the head.
    #[prost(bool, tag = "7")]
    pub chain_verified: bool,
    /// The head's signature is right for the key it names.
    #[prost(bool, tag = "8")]
    pub signature_verified: bool,
    /// Why that key was believed.
    #[prost(enumeration = "KeyBasis", tag = "9")]
    pub key_basis: i32,
    /// What was wrong.
    #[prost(message, repeated, tag = "10")]
    pub findings: Vec<v1::Finding>,
    /// The node that the client's certificate names; empty where it names none.
    #[prost(string, tag = "11")]
    pub node: String,
}

impl BatchHeader {
    /// Why the head's key was believed.
    #[must_use]
    pub fn basis(&self) -> KeyBasis {
        KeyBasis::try_from(self.key_basis).unwrap_or(KeyBasis::None)
    }
}

/// Why the key of a signed head was believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum KeyBasis {
    /// It was not.
    None = 0,
    /// Named by the chain's first record, which this batch brought: trusted on first use.
    FirstUse = 1,
    /// Taken from the head, for the chain's first record never came here.
    FirstUseOfHead = 2,
    /// As trusted before, or announced by a KEY record under a trusted key.
    Known = 3,
    /// A recovery head: the successor's key, to be confirmed by its CHAIN_OPENED.
    Successor = 4,
}

/// Something that the collector did or found outside of a batch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// Wall clock of the collector, nanoseconds since 1970.
    #[prost(fixed64, tag = "1")]
    pub wall_nanos: u64,
    /// What.
    #[prost(oneof = "EventKind", tags = "2, 3, 4")]
    pub kind: Option<EventKind>,
}

/// Kinds of [`Event`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum EventKind {
    /// Something wrong that belongs to no stored batch.
    #[prost(message, tag = "2")]
    Finding(v1::Finding),
    /// Contents are to be deleted, for privacy. Carried out by whoever reads past this event.
    #[prost(message, tag = "3")]
    Deletion(Deletion),
    /// Segments are to be removed because of their age or size. Carried out likewise.
    #[prost(message, tag = "4")]
    Expiry(Expiry),
}

/// See [`EventKind::Deletion`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Deletion {
    /// Record ids as the caller named them, 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub ids: Vec<Vec<u8>>,
    /// Who asked.
    #[prost(string, tag = "2")]
    pub peer: String,
    /// Why, in the caller's words.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// See [`EventKind::Expiry`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Expiry {
    /// Contents only; otherwise envelopes and contents.
    #[prost(bool, tag = "1")]
    pub contents_only: bool,
    /// First positions of the segments.
    #[prost(uint64, repeated, tag = "2")]
    pub segments: Vec<u64>,
    /// The rule, for a person.
    #[prost(string, tag = "3")]
    pub rule: String,
    /// Bytes that were kept in them.
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
}

/// What was known of all chains when a segment began.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Snapshot {
    /// Next position of the log.
    #[prost(uint64, tag = "1")]
    pub next_position: u64,
    /// One a chain.
    #[prost(message, repeated, tag = "2")]
    pub chains: Vec<ChainState>,
    /// Wall clock of the collector, nanoseconds since 1970: the segment before ends here.
    #[prost(fixed64, tag = "3")]
    pub wall_nanos: u64,
    /// Where batches stand in the segment before.
    #[prost(message, repeated, tag = "4")]
    pub held: Vec<Held>,
    /// First position of that segment.
    #[prost(uint64, optional, tag = "5")]
    pub held_segment: Option<u64>,
}

/// Where a chain's batches stand in a segment.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Held {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub chain: Vec<u8>,
    /// Of each run five numbers: lowest sequence, the one behind the highest, first and last batch's position,
    /// offset of the first one's frame.
    #[prost(uint64, repeated, tag = "2")]
    pub runs: Vec<u64>,
}

/// What is known of one chain.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChainState {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Sequence that is expected next.
    #[prost(uint64, tag = "2")]
    pub next: u64,
    /// h(next − 1) where known, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub hash: Vec<u8>,
    /// Keys that may sign, 32 bytes each; the first was trusted on first use.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub keys: Vec<Vec<u8>>,
    /// Key of a recovery head that was seen.
    #[prost(bytes = "vec", tag = "5")]
    pub successor_key: Vec<u8>,
    /// Ranges that never came, first and last in turn.
    #[prost(uint64, repeated, tag = "6")]
    pub missing: Vec<u64>,
    /// Position of its first batch; 0 where it is not known.
    #[prost(uint64, tag = "7")]
    pub begun: u64,
    /// The node that it is of; empty where that is not known.
    #[prost(string, tag = "8")]
    pub node: String,
    /// Sequence of its CHAIN_CLOSED, where that came.
    #[prost(uint64, optional, tag = "9")]
    pub closed: Option<u64>,
    /// Key of the first chain that names it as its predecessor, 32 bytes.
    #[prost(bytes = "vec", tag = "10")]
    pub succeeded_by: Vec<u8>,
}
