//! Takes over one shard's folder: signs what dead chains left unsigned, opens their successor, ends what
//! they left open, puts aside what is damaged. In this order, so that a crash at any point only means that
//! the next start does it again.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use prost::Message;
use verbatim_api::{
    chain::{ChainId, NO_PREDECESSOR},
    v1,
};
use verbatim_sys::clock;

use crate::{
    Draft, OpenError, Recovered, SyncMode, WhenFull,
    ambient::Ids,
    frame,
    history::{Chain, History, heads_path},
    lane::Lane,
    lock,
    open::io_error,
    quarantine,
    queue::Queue,
    scan::Rest,
    segment::Blank,
    shard::{self, Common, Shard},
    tail,
    writer::{Writer, detail_draft, gap_draft},
};

/// What a chain's opening says of where it is written.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) node: String,
    pub(crate) boot_id: Vec<u8>,
    pub(crate) instance_id: [u8; 16],
    pub(crate) when_full: WhenFull,
}

/// A folder and the number of the shard that it belongs to.
#[derive(Debug)]
pub(crate) struct Folder<'a> {
    pub(crate) common: &'a Arc<Common>,
    pub(crate) instance: &'a Instance,
    pub(crate) path: PathBuf,
    pub(crate) shard: u32,
}

/// The smallest segment that a chain is opened in when the disk has no room for a whole one.
const SMALLEST_BYTES: u64 = 256 * 1024;

impl Folder<'_> {
    /// Recovers the folder. With `live` there is a new chain to write to; without, one is opened only
    /// where something must be said, and closed at once.
    pub(crate) fn recover(&self, live: bool) -> Result<(Lane, Option<Arc<Shard>>, Recovered), OpenError> {
        let mut history = History::read(&self.path)?;
        tail::prepare(&self.path).map_err(io_error("allocate the tail in", &self.path))?;
        for chain in &mut history.chains {
            self.sign_rest(chain)?;
        }
        let ends: Vec<Draft> = std::mem::take(&mut history.pending).ends().collect();
        let unsucceeded = history.unsucceeded();
        let dead = unsucceeded.iter().filter(|at| !history.chains[**at].closed).count();
        let recovered =
            Recovered { chains: dead as u64, ended: ends.len() as u64, quarantined: history.lost.entries };
        let opened = self.open_successors(&history, &unsucceeded, ends, live)?;
        quarantine::put_aside(&self.path, &history.aside)?;
        let past = history.chains.into_iter().map(|chain| self.past(chain)).collect::<Result<Vec<_>, _>>()?;
        let queues = past.into_iter().chain(opened.iter().cloned().map(Queue::live)).collect();
        let shard = if live { opened.last().cloned() } else { None };
        Ok((Lane::new(self.path.clone(), history.tail, queues), shard, recovered))
    }

    /// One chain for each that has no successor and needs one; the last is the one that lives on.
    fn open_successors(
        &self,
        history: &History,
        unsucceeded: &[usize],
        ends: Vec<Draft>,
        live: bool,
    ) -> Result<Vec<Arc<Shard>>, OpenError> {
        let mut opened = Vec::new();
        let (latest, others) = match unsucceeded.split_last() {
            Some((latest, others)) => (Some(&history.chains[*latest]), others),
            None => (None, unsucceeded),
        };
        for chain in others.iter().map(|at| &history.chains[*at]).filter(|chain| !chain.closed) {
            let shard = self.open_chain(Some(chain))?;
            shard.close();
            opened.push(shard);
        }
        let died = latest.is_some_and(|chain| !chain.closed);
        if live || died || !ends.is_empty() || history.lost.entries > 0 {
            let shard = self.open_chain(latest)?;
            self.speak(&shard, &history.lost, ends)?;
            if !live {
                shard.close();
            }
            opened.push(shard);
        }
        Ok(opened)
    }

    /// A chain that ships: its bytes count, and in group mode they are on disk.
    fn past(&self, chain: Chain) -> Result<Queue, OpenError> {
        for segment in &chain.segments {
            self.common.budget.force(segment.bytes.load(Ordering::Acquire));
            if self.common.sync == SyncMode::Group {
                let sync = |file: File| (self.common.surroundings.sync)(&file);
                File::open(&segment.path).and_then(sync).map_err(io_error("sync", &segment.path))?;
            }
        }
        let (id, end) = (chain.id, chain.next_sequence);
        let queue = Queue::past(chain, &self.path);
        if queue.has_more() {
            self.common.ages.reached(id, end, clock::boottime_nanos());
        }
        Ok(queue)
    }

    /// Opens a chain. What its predecessor left unsigned is signed before the new chain names it: once
    /// a chain has a successor, its heads are there.
    fn open_chain(&self, predecessor: Option<&Chain>) -> Result<Arc<Shard>, OpenError> {
        let mut ambient = (self.common.surroundings.ambient)();
        let wall_nanos = ambient.wall_nanos();
        let id = Ids::default().next(wall_nanos, &mut *ambient);
        let first = self.first_segment(&id)?;
        let head = predecessor.map_or(NO_PREDECESSOR, |chain| chain.hash);
        let writer = Writer::new(id, &head, first, ambient, self.instance.when_full);
        let shard = Arc::new(Shard::new(self.common.clone(), self.path.clone(), writer));
        let opened = v1::envelope::Detail::ChainOpened(self.chain_opened(predecessor));
        self.append(&shard, detail_draft(v1::RecordKind::ChainOpened, opened))?;
        let key = v1::SigningKey {
            public_key: self.common.key.public().to_vec(),
            trust: v1::KeyTrust::FirstUse.into(),
        };
        self.append(&shard, detail_draft(v1::RecordKind::Key, v1::envelope::Detail::Key(key)))?;
        Ok(shard)
    }

    fn chain_opened(&self, predecessor: Option<&Chain>) -> v1::ChainOpened {
        v1::ChainOpened {
            predecessor_chain_id: predecessor.map_or_else(Vec::new, |chain| chain.id.to_vec()),
            predecessor_sequence: predecessor.map_or(0, |chain| chain.next_sequence.saturating_sub(1)),
            predecessor_head: predecessor.map_or_else(Vec::new, |chain| chain.hash.to_vec()),
            public_key: self.common.key.public().to_vec(),
            node: self.instance.node.clone(),
            boot_id: self.instance.boot_id.clone(),
            instance_id: self.instance.instance_id.to_vec(),
            shard: self.shard,
            agent_version: self.common.surroundings.agent_version.clone(),
            recovered: predecessor.is_some_and(|chain| !chain.closed),
        }
    }

    /// A whole segment, or on a full disk a smaller one: an agent that cannot start cannot ship, either.
    fn first_segment(&self, id: &ChainId) -> Result<Blank, OpenError> {
        let mut bytes = self.common.segment_bytes;
        loop {
            match shard::create(self.common, &self.path, id, 0, bytes) {
                Ok(blank) => {
                    self.common.budget.force(bytes);
                    return Ok(blank);
                }
                Err(error) if error.kind() == io::ErrorKind::StorageFull && bytes / 2 >= SMALLEST_BYTES => {
                    bytes /= 2;
                }
                Err(error) => return Err(io_error("make a segment in", &self.path)(error)),
            }
        }
    }

    /// Says what was lost and ends what was left open.
    fn speak(&self, shard: &Shard, lost: &Rest, ends: Vec<Draft>) -> Result<(), OpenError> {
        if lost.entries > 0 {
            let gap = v1::Gap {
                reason: v1::GapReason::Quarantined.into(),
                count: lost.entries,
                from_wall_nanos: lost.from_wall_nanos,
                to_wall_nanos: lost.to_wall_nanos,
            };
            self.append(shard, gap_draft(gap))?;
        }
        for end in ends {
            self.append(shard, end)?;
        }
        if self.common.sync == SyncMode::Group {
            shard.sync();
        }
        Ok(())
    }

    /// Appends on the thread that opens: makes segments as they are needed, beyond the limit if need be.
    fn append(&self, shard: &Shard, mut draft: Draft) -> Result<(), OpenError> {
        shard.supply_beyond_limit().map_err(io_error("make a segment in", &self.path))?;
        let appended = lock(&shard.writer).append(&mut draft);
        let too_small =
            |error| OpenError::Config(format!("segmentBytes is too small to open a chain: {error}"));
        appended.map(drop).map_err(too_small)
    }

    /// Signs what a chain left unsigned with the successor's key, into a file beside its segments.
    fn sign_rest(&self, chain: &mut Chain) -> Result<(), OpenError> {
        if chain.unsigned.is_empty() {
            return Ok(());
        }
        for mark in chain.unsigned.drain(..) {
            let wall = (self.common.surroundings.head_wall_nanos)();
            let head = self.common.key.sign(&chain.id, mark, wall, true);
            chain.recovery_heads.insert(mark.sequence, head);
        }
        let path = heads_path(&self.path, &chain.id);
        let bytes: Vec<u8> = chain
            .recovery_heads
            .values()
            .flat_map(|head| frame::whole(frame::HEAD, &head.encode_to_vec()))
            .collect();
        self.replace(&path, &bytes).map_err(io_error("write", &path))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = path.with_extension("heads.new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        io::Write::write_all(&mut &file, bytes)?;
        if self.common.sync == SyncMode::Group {
            (self.common.surroundings.sync)(&file)?;
        }
        fs::rename(&new, path)?;
        if self.common.sync == SyncMode::Group {
            (self.common.surroundings.sync)(&File::open(&self.path)?)?;
        }
        Ok(())
    }
}
