//! Reads one segment as a dead process left it: what holds, what is signed, what stands behind.

use prost::Message;
use verbatim_api::{
    chain::{self, ChainId, Hash},
    v1,
};

use crate::{
    frame::{self, Parsed},
    glance::Glance,
    key::Mark,
    segment::{self, HEAD_BYTES, HEAD_ENTRIES, Header},
};

/// A segment's frames, up to the first that does not hold.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) header: Header,
    /// Where its frames end to hold.
    pub(crate) end: usize,
    /// Per entry: h of it and the bytes of its frame.
    entries: Vec<(Hash, usize)>,
    /// Sequences of entries with a head that fits the chain.
    heads: Vec<u64>,
    /// The chain's first record, where it is here.
    pub(crate) opened: Option<v1::ChainOpened>,
    /// The chain's last record is here.
    pub(crate) closed: bool,
    pub(crate) rest: Rest,
}

/// What stands behind the place where frames end to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Bytes up to the last that is not zero.
    pub(crate) bytes: usize,
    /// Entries in it: those that hold by themselves, and the one that does not if it had a length.
    pub(crate) entries: u64,
    /// Wall clock of the earliest of them that can be read; 0 where none can.
    pub(crate) from_wall_nanos: u64,
    /// Wall clock of the latest.
    pub(crate) to_wall_nanos: u64,
    /// Sequence behind the highest of the chain among them.
    pub(crate) next_sequence: u64,
}

impl Rest {
    pub(crate) fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.entries += other.entries;
        self.next_sequence = self.next_sequence.max(other.next_sequence);

        self.cover(other.from_wall_nanos);
        self.cover(other.to_wall_nanos);
    }

    fn cover(&mut self, wall_nanos: u64) {
        if wall_nanos == 0 {
            return;
        }
        if self.from_wall_nanos == 0 || wall_nanos < self.from_wall_nanos {
            self.from_wall_nanos = wall_nanos;
        }
        self.to_wall_nanos = self.to_wall_nanos.max(wall_nanos);
    }
}

impl Scanned {
    /// Reads a segment's bytes; `each` is given every envelope that holds. `None`: no header.
    pub(crate) fn read(bytes: &[u8], mut each: impl FnMut(&[u8])) -> Option<Self> {
        let header = Header::parse(bytes)?;
        let mut scanned = Self {
            header,
            end: segment::HEADER,
            entries: Vec::new(),
            heads: Vec::new(),
            opened: None,
            closed: false,
            rest: Rest::default(),
        };
        let mut hash = header.previous;
        while let Some(Parsed::Frame(frame)) = bytes.get(scanned.end..).map(frame::parse) {
            let holds = match frame.kind {
                frame::ENTRY => scanned.entry(frame.body, frame.size, &mut hash, &mut each),
                frame::HEAD => scanned.head(frame.body),
                _ => false,
            };
            if !holds {
                break;
            }
            scanned.end = (scanned.end + frame.size).min(bytes.len());
        }
        scanned.rest = rest(&bytes[scanned.end..], &header.chain);

        Some(scanned)
    }

    /// An entry that does not stand where it says is none.
    fn entry(&mut self, body: &[u8], size: usize, hash: &mut Hash, each: &mut impl FnMut(&[u8])) -> bool {
        let Some((envelope, _)) = frame::split_entry(body) else { return false };
        let Some(glance) = Glance::parse(envelope) else { return false };
        if glance.chain_id != self.header.chain || glance.sequence != self.next_sequence() {
            return false;
        }
        match glance.kind() {
            v1::RecordKind::ChainOpened => self.opened = opened(envelope),
            v1::RecordKind::ChainClosed => self.closed = true,
            _ => {}
        }
        *hash = chain::link(hash, envelope);
        self.entries.push((*hash, size));
        each(envelope);
        true
    }

    /// A head that does not fit the chain signs nothing here.
    fn head(&mut self, body: &[u8]) -> bool {
        let Ok(head) = v1::SignedHead::decode(body) else { return false };
        let fits = self.hash_of(head.sequence).is_some_and(|hash| hash[..] == head.hash[..]);
        if fits {
            self.heads.push(head.sequence);
        }
        fits
    }

    fn hash_of(&self, sequence: u64) -> Option<&Hash> {
        let index = sequence.checked_sub(self.header.first_sequence)?;
        self.entries.get(usize::try_from(index).ok()?).map(|(hash, _)| hash)
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.header.first_sequence + self.entries.len() as u64
    }

    /// h of its last entry, or of the one before it begins.
    pub(crate) fn hash(&self) -> Hash {
        self.entries.last().map_or(self.header.previous, |(hash, _)| *hash)
    }

    /// Whether a head fits the chain here.
    pub(crate) fn fits(&self, head: &v1::SignedHead) -> bool {
        self.hash_of(head.sequence).is_some_and(|hash| hash[..] == head.hash[..])
    }

    /// The places behind the last head that must be signed for every entry to be in a batch. `also` are
    /// sequences with a head elsewhere.
    pub(crate) fn unsigned(&self, also: impl Iterator<Item = u64>) -> Vec<Mark> {
        let last_head = self.heads.iter().copied().chain(also).max();
        let (mut entries, mut bytes) = (0, 0);
        let mut marks = Vec::new();
        let mut last = None;
        for (sequence, (hash, size)) in (self.header.first_sequence..).zip(&self.entries) {
            if last_head.is_some_and(|head| sequence <= head) {
                continue;
            }
            if entries >= HEAD_ENTRIES || bytes > 0 && bytes + size > HEAD_BYTES {
                marks.extend(last);
                (entries, bytes) = (0, 0);
            }
            (entries, bytes) = (entries + 1, bytes + size);
            last = Some(Mark { sequence, hash: *hash });
        }
        marks.extend(last);
        marks
    }
}

fn opened(envelope: &[u8]) -> Option<v1::ChainOpened> {
    match v1::Envelope::decode(envelope).ok()?.detail? {
        v1::envelope::Detail::ChainOpened(opened) => Some(opened),
        _ => None,
    }
}

/// Counts what is left behind the end of the frames. Frames begin at multiples of four.
pub(crate) fn rest(bytes: &[u8], chain: &ChainId) -> Rest {
    let mut rest = Rest { bytes: significant(bytes), ..Rest::default() };
    if rest.bytes == 0 {
        return rest;
    }
    let mut at = 0;
    while at < rest.bytes {
        match frame::parse(&bytes[at..]) {
            Parsed::Frame(frame) => {
                if frame.kind == frame::ENTRY {
                    rest.entries += 1;
                    let glance =
                        frame::split_entry(frame.body).and_then(|(envelope, _)| Glance::parse(envelope));
                    if let Some(glance) = glance.filter(|glance| glance.chain_id == chain) {
                        rest.cover(glance.wall_nanos);
                        rest.next_sequence = rest.next_sequence.max(glance.sequence.saturating_add(1));
                    }
                }
                at += frame.size;
            }
            // A length was published at the very place where frames end to hold: a record was here. A
            // head may have been, too; one record too many is counted then, never one too few.
            Parsed::Bad | Parsed::Short(_) if at == 0 => {
                rest.entries += 1;
                at += 4;
            }
            Parsed::Bad | Parsed::Short(_) | Parsed::End => at += 4,
        }
    }
    rest
}

/// Bytes up to the last that is not zero.
fn significant(bytes: &[u8]) -> usize {
    let zero_words = bytes.rchunks_exact(8).take_while(|word| **word == [0; 8]).count();
    let bytes = &bytes[..bytes.len() - zero_words * 8];
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}
