//! What earlier instances left in a shard's folder: their chains, how far each holds, what was open, and
//! what must be put aside. Reads only, but for files in which nothing is lost: blanks, what was deleted
//! once already, zeros behind the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use prost::Message;
use verbatim_api::{
    chain::{ChainId, Hash},
    v1,
};

use crate::{
    OpenError,
    frame::{self, Parsed},
    key::Mark,
    open::io_error,
    pending::Pending,
    scan::{Rest, Scanned, rest},
    segment::{self, Header, SegmentFile},
    tail::Tail,
};

/// A chain of an earlier instance, as far as it holds.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) id: ChainId,
    pub(crate) segments: Vec<SegmentFile>,
    pub(crate) next_sequence: u64,
    /// h of the last entry that holds.
    pub(crate) hash: Hash,
    pub(crate) closed: bool,
    pub(crate) predecessor: Option<ChainId>,
    /// Places behind the last head of a segment.
    pub(crate) unsigned: Vec<Mark>,
    /// Heads that a successor signed, by sequence.
    pub(crate) recovery_heads: BTreeMap<u64, v1::SignedHead>,
}

/// Something to put aside once a gap record speaks of it.
#[derive(Debug)]
pub(crate) enum Aside {
    /// The whole file.
    File(PathBuf),
    /// The file from an offset on, `bytes` of it.
    Rest { path: PathBuf, offset: u64, bytes: u64 },
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// A predecessor stands before its successor.
    pub(crate) chains: Vec<Chain>,
    pub(crate) tail: Option<Tail>,
    pub(crate) pending: Pending,
    pub(crate) aside: Vec<Aside>,
    /// All that is put aside.
    pub(crate) lost: Rest,
}

/// Where a chain's heads that its successor signed are kept.
pub(crate) fn heads_path(folder: &Path, chain: &ChainId) -> PathBuf {
    folder.join(format!("{}.heads", segment::hex(chain)))
}

impl History {
    pub(crate) fn read(folder: &Path) -> Result<Self, OpenError> {
        let tail = Tail::read(folder).map_err(io_error("read the tail of", folder))?;
        let mut history = Self { tail, ..Self::default() };
        if let Some(tail) = &history.tail {
            history.pending = tail.pending.clone();
        }
        let mut buffer = Vec::new();
        for (chain, ordinals) in segments(folder)? {
            history.read_chain(folder, chain, &ordinals, &mut buffer)?;
        }
        history.add_deleted_chain();
        history.order();
        Ok(history)
    }

    fn read_chain(
        &mut self,
        folder: &Path,
        id: ChainId,
        ordinals: &BTreeSet<u32>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let tail = self.tail.as_ref().filter(|tail| tail.chain == id);
        let mut reading = Reading {
            expected: tail.map(|tail| (tail.next_sequence, tail.hash)),
            deleted: tail.map(|tail| tail.ordinal),
            broken: false,
            lost: Rest::default(),

            heads: read_heads(&heads_path(folder, &id))?,
            chain: Chain {
                id,
                segments: Vec::new(),
                next_sequence: tail.map_or(0, |tail| tail.next_sequence),
                hash: tail.map_or([0; 32], |tail| tail.hash),
                closed: tail.is_some_and(|tail| tail.closed),
                predecessor: None,
                unsigned: Vec::new(),
                recovery_heads: BTreeMap::new(),
            },
        };
        for ordinal in ordinals {
            let path = folder.join(segment::file_name(&id, *ordinal));
            self.read_segment(&mut reading, path, *ordinal, buffer)?;
        }
        // Some may not even have left a frame behind: the numbers of those after them tell.
        let missing = reading.lost.next_sequence.saturating_sub(reading.chain.next_sequence);
        reading.lost.entries = reading.lost.entries.max(missing);
        self.lost.add(&reading.lost);
        match reading.chain.next_sequence {
            0 => self.drop_empty(&reading.chain),
            _ => {
                self.chains.push(reading.chain);
                Ok(())
            }
        }
    }

    /// A chain that died before its first record: nothing of it was ever seen.
    fn drop_empty(&self, chain: &Chain) -> Result<(), OpenError> {
        for segment in &chain.segments {
            let kept = self
                .aside
                .iter()
                .any(|aside| matches!(aside, Aside::Rest { path, .. } if *path == segment.path));
            if !kept {
                fs::remove_file(&segment.path).map_err(io_error("remove", &segment.path))?;
            }
        }
        Ok(())
    }

    fn read_segment(
        &mut self,
        reading: &mut Reading,
        path: PathBuf,
        ordinal: u32,
        buffer: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        if reading.deleted.is_some_and(|deleted| ordinal <= deleted) {
            return fs::remove_file(&path).map_err(io_error("remove", &path));
        }
        buffer.clear();
        fs::File::open(&path)
            .and_then(|mut file| io::Read::read_to_end(&mut file, buffer))
            .map_err(io_error("read", &path))?;
        let header = Header::parse(buffer).filter(|header| reading.expects(header, ordinal));
        let (false, Some(_)) = (reading.broken, header) else {
            return self.put_aside_whole(reading, path, buffer);
        };
        let pending = &mut self.pending;
        let Some(scanned) = Scanned::read(buffer, |envelope| pending.read(envelope)) else {
            return self.put_aside_whole(reading, path, buffer);
        };
        // What follows in the chain goes on from here, or it is put aside by what it expects.
        self.put_aside_rest(reading, &scanned, &path, buffer.len())?;
        reading.take(&scanned, path);
        Ok(())
    }

    /// A file that is no segment of its chain. One of zeros was made ahead and never used.
    fn put_aside_whole(
        &mut self,
        reading: &mut Reading,
        path: PathBuf,
        bytes: &[u8],
    ) -> Result<(), OpenError> {
        let body = bytes.get(segment::HEADER..).unwrap_or_default();
        let lost = rest(body, &reading.chain.id);
        // If others follow, it was one that was written and did not reach the disk.
        reading.broken = true;
        if lost.bytes == 0 && bytes.iter().take(segment::HEADER).all(|byte| *byte == 0) {
            return fs::remove_file(&path).map_err(io_error("remove", &path));
        }
        reading.lost.add(&lost);

        self.aside.push(Aside::File(path));
        Ok(())
    }

    fn put_aside_rest(
        &mut self,
        reading: &mut Reading,
        scanned: &Scanned,
        path: &Path,
        length: usize,
    ) -> Result<(), OpenError> {
        if scanned.rest.bytes > 0 {
            reading.lost.add(&scanned.rest);

            self.aside.push(Aside::Rest {
                path: path.to_owned(),
                offset: scanned.end as u64,
                bytes: scanned.rest.bytes as u64,
            });
        } else if scanned.end < length {
            truncate(path, scanned.end as u64)?;
        }
        Ok(())
    }

    /// A chain of which every segment was deleted still is someone's predecessor.
    fn add_deleted_chain(&mut self) {
        let Some(tail) = &self.tail else { return };
        if self.chains.iter().any(|chain| chain.id == tail.chain) {
            return;
        }
        self.chains.push(Chain {
            id: tail.chain,
            segments: Vec::new(),
            next_sequence: tail.next_sequence,
            hash: tail.hash,
            closed: tail.closed,
            predecessor: None,
            unsigned: Vec::new(),
            recovery_heads: BTreeMap::new(),
        });
    }

    fn order(&mut self) {
        let first = self.tail.as_ref().map(|tail| tail.chain);
        let mut left: Vec<Chain> = self.chains.drain(..).collect();
        left.sort_by_key(|chain| (Some(chain.id) != first, chain.id));
        while !left.is_empty() {
            let waits = |chain: &Chain| left.iter().any(|other| chain.predecessor == Some(other.id));
            // Should they name each other in a circle, which nobody wrote, any is the first.
            let next = left.iter().position(|chain| !waits(chain)).unwrap_or(0);
            let chain = left.remove(next);
            self.chains.push(chain);
        }
    }

    /// Chains that no other names as its predecessor.
    pub(crate) fn unsucceeded(&self) -> Vec<usize> {
        let named: BTreeSet<_> = self.chains.iter().filter_map(|chain| chain.predecessor).collect();
        (0..self.chains.len()).filter(|at| !named.contains(&self.chains[*at].id)).collect()
    }
}

/// A chain while its segments are read.
struct Reading {
    /// Sequence and h that the next segment must go on from; `None` before the first.
    expected: Option<(u64, Hash)>,
    deleted: Option<u32>,
    /// Something before does not hold: what follows is put aside.
    broken: bool,
    /// What is put aside of this chain.
    lost: Rest,
    heads: BTreeMap<u64, v1::SignedHead>,
    chain: Chain,
}

impl Reading {
    fn expects(&self, header: &Header, ordinal: u32) -> bool {
        header.chain == self.chain.id
            && header.ordinal == ordinal
            && self.expected.is_none_or(|expected| expected == (header.first_sequence, header.previous))
    }

    fn take(&mut self, scanned: &Scanned, path: PathBuf) {
        let range = scanned.header.first_sequence..scanned.next_sequence();
        let heads = self.heads.range(range.clone()).filter(|(_, head)| scanned.fits(head));
        let heads: BTreeMap<_, _> = heads.map(|(sequence, head)| (*sequence, head.clone())).collect();
        let chain = &mut self.chain;
        chain.unsigned.extend(scanned.unsigned(heads.keys().copied()));
        chain.recovery_heads.extend(heads);
        chain.next_sequence = scanned.next_sequence();
        chain.hash = scanned.hash();
        chain.closed |= scanned.closed;
        if let Some(opened) = &scanned.opened {
            chain.predecessor = opened.predecessor_chain_id.as_slice().try_into().ok();
        }
        let end = scanned.end as u64;
        chain.segments.push(SegmentFile::new(path, scanned.header, end, end, scanned.next_sequence()));
        self.expected = Some((chain.next_sequence, chain.hash));
    }
}

pub(crate) fn truncate(path: &Path, length: u64) -> Result<(), OpenError> {
    let file = OpenOptions::new().write(true).open(path).map_err(io_error("open", path))?;
    file.set_len(length).map_err(io_error("truncate", path))
}

/// The folder's segment files by chain.
fn segments(folder: &Path) -> Result<BTreeMap<ChainId, BTreeSet<u32>>, OpenError> {
    let mut chains: BTreeMap<ChainId, BTreeSet<u32>> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let name = entry.map_err(io_error("list", folder))?.file_name();
        if let Some((chain, ordinal)) = name.to_str().and_then(segment::parse_name) {
            chains.entry(chain).or_default().insert(ordinal);
        }
    }
    Ok(chains)
}

fn read_heads(path: &Path) -> Result<BTreeMap<u64, v1::SignedHead>, OpenError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let mut heads = BTreeMap::new();
    let mut at = 0;
    while let Some(Parsed::Frame(frame)) = bytes.get(at..).map(frame::parse) {
        if let Ok(head) = v1::SignedHead::decode(frame.body) {
            heads.insert(head.sequence, head);
        }
        at += frame.size;
    }
    Ok(heads)
}
