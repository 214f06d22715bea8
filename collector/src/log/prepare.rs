//! What can be checked about a batch without knowing its chain: form, envelopes, commitments, signature.
//!
//! Done by each stream for itself, before the one thread that writes. Never refuses a batch that can be
//! attributed to a chain: what is wrong becomes a finding beside it.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use prost::Message as _;
use verbatim_api::{
    chain::{ChainId, Hash, content_commitment, head_message},
    v1::{self, FindingKind, envelope::Detail},
};

use super::{
    clock::{Clock, Reading},
    wall_nanos,
};

/// Why a batch cannot even be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// No chain to attribute it to.
    #[error("chain id has {0} bytes, expected 16")]
    ChainId(usize),
    /// Nothing in it.
    #[error("batch has no entries: send at least one")]
    Empty,
    /// The numbers run over.
    #[error("batch of {entries} entries from sequence {first} runs over the end of all sequences")]
    Overflow {
        /// First sequence.
        first: u64,
        /// Number of entries.
        entries: usize,
    },
    /// More entries than a batch may have.
    #[error("batch has {entries} entries, at most {limit} are taken: send smaller batches")]
    TooMany {
        /// Number of entries.
        entries: usize,
        /// The limit.
        limit: usize,
    },
}

/// Entries that a batch may have.
pub const MAX_ENTRIES: usize = 100_000;
/// Findings of one kind that are written out one by one; more are counted in the last one.
const SAME_FINDINGS: usize = 8;

/// A batch that was looked at by itself.
#[derive(Debug)]
pub struct Prepared {
    pub(super) chain: ChainId,
    pub(super) request: v1::AppendRequest,
    pub(super) peer: String,
    /// The node that the sender's certificate names.
    pub(super) node: Option<String>,
    /// Sequence of the chain's end, where the batch has it.
    pub(super) closed: Option<u64>,
    pub(super) received_wall_nanos: u64,
    pub(super) findings: Vec<v1::Finding>,
    /// The chain's opening, where the batch has it at sequence 0.
    pub(super) opened: Option<v1::ChainOpened>,
    /// Keys announced by KEY records.
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) head: Option<Head>,
    /// Readings of the node's clocks that tell of every step.
    pub(super) clock: Vec<Reading>,
    pub(super) bytes: usize,
}

/// A signed head whose parts have the right lengths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) sequence: u64,
    pub(super) hash: Hash,
    pub(super) key: [u8; 32],
    pub(super) recovery: bool,
    /// The signature is right for `key`.
    pub(super) signed: bool,
}

impl Prepared {
    /// Sequence of the last entry.
    pub(super) fn last(&self) -> u64 {
        self.request.first_sequence + (self.request.entries.len() as u64 - 1)
    }

    /// Sent under a certificate that names this node.
    #[must_use]
    pub fn sent_by(mut self, node: Option<&str>) -> Self {
        self.node = node.map(str::to_owned);
        self
    }

    /// Size for back-pressure, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The chain.
    #[must_use]
    pub fn chain_id(&self) -> ChainId {
        self.chain
    }
}

/// Looks at a batch. CPU-bound: about 3 µs a record.
pub fn prepare(request: v1::AppendRequest, peer: &str) -> Result<Prepared, BatchError> {
    let chain: ChainId = request
        .chain_id
        .as_slice()
        .try_into()
        .map_err(|_size| BatchError::ChainId(request.chain_id.len()))?;
    let entries = request.entries.len();
    if entries == 0 {
        return Err(BatchError::Empty);
    }
    if entries > MAX_ENTRIES {
        return Err(BatchError::TooMany { entries, limit: MAX_ENTRIES });
    }
    // The sequence after the last one must be a number, too.
    if request.first_sequence.checked_add(entries as u64).is_none() {
        return Err(BatchError::Overflow { first: request.first_sequence, entries });
    }
    let mut prepared = Prepared {
        chain,
        peer: peer.to_owned(),
        node: None,
        closed: None,
        received_wall_nanos: wall_nanos(),
        findings: Vec::new(),
        opened: None,
        keys: Vec::new(),
        head: None,
        clock: Vec::new(),
        bytes: request.entries.iter().map(|e| e.envelope.len() + e.content.len() + 16).sum(),
        request,
    };
    prepared.look_at_entries();
    prepared.look_at_head();
    Ok(prepared)
}

impl Prepared {
    fn look_at_entries(&mut self) {
        let mut found = Vec::new();
        let mut clock = Clock::default();
        for (index, entry) in self.request.entries.iter().enumerate() {
            let sequence = self.request.first_sequence + index as u64;
            let commitment = match v1::Envelope::decode(entry.envelope.clone()) {
                Err(e) => {
                    found.push((FindingKind::BadEnvelope, sequence, format!("does not parse: {e}")));
                    continue;
                }
                Ok(envelope) => {
                    if let Some(wrong) = misplaced(&envelope, &self.chain, sequence) {
                        found.push((FindingKind::BadEnvelope, sequence, wrong));
                    }
                    clock.see(sequence, &envelope);
                    match envelope.detail {
                        Some(Detail::ChainOpened(opened)) if sequence == 0 => self.opened = Some(opened),
                        Some(Detail::Key(key)) => self.keys.push(key.public_key),
                        Some(Detail::ChainClosed(_)) => self.closed = self.closed.or(Some(sequence)),
                        _ => {}
                    }
                    envelope.content_sha256
                }
            };
            if let Some(wrong) = uncommitted(&commitment, &entry.content) {
                found.push((FindingKind::BadContent, sequence, wrong.to_owned()));
            }
        }
        self.clock = clock.readings;
        if self.request.first_sequence == 0 && self.opened.is_none() {
            let wrong = "the chain's first record is no CHAIN_OPENED".to_owned();
            found.push((FindingKind::BadEnvelope, 0, wrong));
        }
        for kind in [FindingKind::BadEnvelope, FindingKind::BadContent] {
            let of_kind: Vec<_> = found.iter().filter(|(k, ..)| *k == kind).collect();
            for (_, sequence, detail) in of_kind.iter().take(SAME_FINDINGS) {
                self.find(kind, *sequence, *sequence, detail.clone());
            }
            if let (Some((_, first, _)), Some((_, last, _))) = (of_kind.get(SAME_FINDINGS), of_kind.last()) {
                let more = of_kind.len() - SAME_FINDINGS;
                self.find(kind, *first, *last, format!("{more} more in this batch"));
            }
        }
    }

    fn look_at_head(&mut self) {
        let last = self.last();
        let Some(head) = &self.request.head else {
            self.find(FindingKind::BadSignature, last, last, "the batch ends at no signed head".to_owned());
            return;
        };
        let (Ok(hash), Ok(key)) = (head.hash.as_slice().try_into(), head.public_key.as_slice().try_into())
        else {
            let wrong =
                format!("head with {} bytes of hash, {} of key", head.hash.len(), head.public_key.len());
            self.find(FindingKind::BadSignature, last, last, wrong);
            return;
        };
        let message = head_message(&self.chain, head.sequence, &hash, head.wall_nanos);
        let key: [u8; 32] = key;
        let signed = UnparsedPublicKey::new(&ED25519, key).verify(&message, &head.signature).is_ok();
        self.head = Some(Head { sequence: head.sequence, hash, key, recovery: head.recovery, signed });
        if !signed {
            let wrong = "the head's signature is not its key's".to_owned();
            self.find(FindingKind::BadSignature, last, last, wrong);
        }
    }

    pub(super) fn find(&mut self, kind: FindingKind, first: u64, last: u64, detail: String) {
        self.findings.push(v1::Finding {
            kind: kind.into(),
            chain_id: self.chain.to_vec(),
            first_sequence: first,
            last_sequence: last,
            found_wall_nanos: self.received_wall_nanos,
            detail,
        });
    }
}

/// What is wrong with an envelope at its place.
fn misplaced(envelope: &v1::Envelope, chain: &ChainId, sequence: u64) -> Option<String> {
    if envelope.schema_version != 1 {
        return Some(format!("schema version {}, expected 1", envelope.schema_version));
    }
    if envelope.chain_id != chain {
        return Some("names another chain".to_owned());
    }
    if envelope.sequence != sequence {
        return Some(format!("says sequence {}, stands at {sequence}", envelope.sequence));
    }
    if envelope.record_id.len() != 16 {
        return Some(format!("record id has {} bytes, expected 16", envelope.record_id.len()));
    }
    None
}

/// What is wrong with a content for its commitment.
fn uncommitted(commitment: &[u8], content: &[u8]) -> Option<&'static str> {
    match (commitment.is_empty(), content.is_empty()) {
        (true, true) => None,
        (true, false) => Some("a content without a commitment"),
        (false, true) => Some("a commitment without its content"),
        // A wiped content is told by its first byte: protocol buffers never begin with a zero.
        (false, false) if content[0] == 0 => Some("a content that begins with a zero byte"),
        (false, false) if content_commitment(content) != commitment => {
            Some("content is not what was committed to")
        }
        (false, false) => None,
    }
}
