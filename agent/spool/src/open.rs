//! Opening a node's spool: recovers what earlier instances left, then opens one chain per shard.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
    thread::{self, JoinHandle},
};

use crate::{
    Gauge, Ledger, Leftovers, Outbox, Spool, SpoolConfig, Surroundings, SyncMode,
    ages::Ages,
    bell::Bell,
    budget::Budget,
    keeper,
    node::Node,
    recover::{Folder, Instance},
    shard::{Common, Shard},
    slot::{Slot, shard_number},
    syncer,
};

/// A node's spool, open: the n-th of each belongs to shard n.
#[derive(Debug)]
pub struct Opened {
    /// For the shards' threads.
    pub spools: Vec<Spool>,
    /// For the thread that ships.
    pub outboxes: Vec<Outbox>,
    /// How full it is, and how long records have waited.
    pub gauge: Gauge,
    /// What earlier instances had left behind in the slot that is ours now.
    pub recovered: Recovered,
    /// Finds what is left in others.
    pub leftovers: Leftovers,
    /// Counts what was not acknowledged.
    pub ledger: Ledger,
}

/// What was found of earlier instances, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Chains without a closing record: their agents died.
    pub chains: u64,
    /// Commands and connections without an end that were given one.
    pub ended: u64,
    /// Records that stood behind a damaged place and were put aside.
    pub quarantined: u64,
}

impl Recovered {
    pub(crate) fn add(&mut self, other: Self) {
        self.chains += other.chains;
        self.ended += other.ended;
        self.quarantined += other.quarantined;
    }
}

/// Why a spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("spool: cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Many other processes have the spool open.
    #[error("spool: {0} is in use by many processes: stop agents, or give this one a folder of its own")]
    InUse(PathBuf),
    /// The configuration cannot work.
    #[error("spool: {0}")]
    Config(String),
}

/// Makes an [`OpenError::Io`] of what went wrong.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

/// For tests. The default of 8 MiB holds a statement and parameters at the capture limit many times; what
/// is larger than a segment is refused.
const SMALLEST_SEGMENT_BYTES: u64 = 64 * 1024;

/// A segment is mapped and read whole.
const LARGEST_SEGMENT_BYTES: u64 = 1024 * 1024 * 1024;

/// Opens the spool for `shards` shards; recovers predecessors first.
///
/// # Errors
/// When the folder cannot be used, is in use, or the configuration cannot work.
pub fn open(config: &SpoolConfig, shards: usize) -> Result<Opened, OpenError> {
    open_in(config, shards, Surroundings::default())
}

/// Like [`open`], in surroundings of the caller's making: for tests and golden files.
///
/// # Errors
/// As [`open`].
pub fn open_in(config: &SpoolConfig, shards: usize, surroundings: Surroundings) -> Result<Opened, OpenError> {
    check(config, shards)?;
    make_folder(&config.directory)?;
    let slot = Slot::first_free(&config.directory)?;
    let key = surroundings.key().ok_or_else(|| OpenError::Config("no randomness for a key".into()))?;
    let common = Arc::new(Common {
        sync: config.sync,
        segment_bytes: config.segment_bytes / 4096 * 4096,
        budget: Budget::new(config.limit_bytes),
        ages: Ages::default(),
        key,
        surroundings,
        keeper: Bell::default(),
        syncer: Bell::default(),
        accounts: Mutex::default(),
    });
    let instance = instance(config, &common)?;
    let (lanes, shards, recovered) = recover_all(&slot.path, &instance, &common, shards)?;
    for shard in &shards {
        shard.supply();
    }
    let threads = start(&common, &shards, config)?;
    let gauge = Gauge::new(common.clone(), shards.iter().map(Arc::downgrade).collect());
    let ledger = Ledger::new(Arc::clone(&common));
    let node = Arc::new(Node::new(common, shards.clone(), threads, slot));
    let leftovers = Leftovers::new(config.directory.clone(), instance, &node);
    let spools = shards.iter().map(|shard| Spool::new(shard.clone(), node.clone())).collect();
    let outboxes =
        lanes.into_iter().zip(shards).map(|(lanes, shard)| Outbox::new(lanes, shard, node.clone())).collect();
    Ok(Opened { spools, outboxes, gauge, recovered, leftovers, ledger })
}

fn check(config: &SpoolConfig, shards: usize) -> Result<(), OpenError> {
    let segment = config.segment_bytes;
    if !(SMALLEST_SEGMENT_BYTES..=LARGEST_SEGMENT_BYTES).contains(&segment) {
        return Err(OpenError::Config(format!(
            "segmentBytes is {segment}: expected {SMALLEST_SEGMENT_BYTES} to {LARGEST_SEGMENT_BYTES}"
        )));
    }
    if shards == 0 {
        return Err(OpenError::Config("no shards: expected at least one".into()));
    }
    let least = segment.saturating_mul(shards as u64).saturating_mul(2);
    if config.limit_bytes < least {
        let limit = config.limit_bytes;
        return Err(OpenError::Config(format!(
            "limitBytes is {limit}: expected at least two segments for each of {shards} shards, {least}"
        )));
    }
    Ok(())
}

pub(crate) fn make_folder(path: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("make", path))
}

type Lanes = Vec<Vec<crate::lane::Lane>>;

/// Folders that have no shard any more are shipped by one that there is.
fn recover_all(
    directory: &Path,
    instance: &Instance,
    common: &Arc<Common>,
    shards: usize,
) -> Result<(Lanes, Vec<Arc<Shard>>, Recovered), OpenError> {
    let mut lanes: Lanes = (0..shards).map(|_| Vec::new()).collect();
    let mut live = Vec::new();
    let mut sum = Recovered::default();
    let all: BTreeSet<usize> = existing(directory)?.into_iter().chain(0..shards).collect();
    // From the last: a shard's own folder comes after those that it ships for.
    for number in all.into_iter().rev() {
        let path = directory.join(format!("shard-{number}"));
        make_folder(&path)?;
        let shard = u32::try_from(number).unwrap_or(u32::MAX);
        let folder = Folder { common, instance, path, shard };
        let (lane, shard, recovered) = folder.recover(number < shards)?;
        lanes[number % shards].push(lane);
        live.extend(shard);
        sum.add(recovered);
    }
    live.reverse();
    if common.sync == SyncMode::Group {
        let sync = |file: File| (common.surroundings.sync)(&file);
        File::open(directory).and_then(sync).map_err(io_error("sync", directory))?;
    }
    Ok((lanes, live, sum))
}

pub(crate) fn existing(directory: &Path) -> Result<Vec<usize>, OpenError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
        let name = entry.map_err(io_error("list", directory))?.file_name();
        numbers.extend(name.to_str().and_then(shard_number));
    }
    Ok(numbers)
}

fn instance(config: &SpoolConfig, common: &Common) -> Result<Instance, OpenError> {
    let mut ambient = (common.surroundings.ambient)();
    let wall_nanos = ambient.wall_nanos();
    Ok(Instance {
        node: config.node.clone(),
        boot_id: common
            .surroundings
            .boot_id()
            .map_err(io_error("read", Path::new(crate::surroundings::BOOT_ID)))?,
        instance_id: crate::ambient::Ids::default().next(wall_nanos, &mut *ambient),
        when_full: config.when_full,
    })
}

fn start(
    common: &Arc<Common>,
    shards: &[Arc<Shard>],
    config: &SpoolConfig,
) -> Result<Vec<JoinHandle<()>>, OpenError> {
    let weak: Vec<Weak<Shard>> = shards.iter().map(Arc::downgrade).collect();
    let interval = config.head_interval;
    let mut threads = Vec::new();
    let (shared, looked_after) = (common.clone(), weak.clone());
    threads.push(spawn("spool", move || keeper::run(&shared, &looked_after, interval))?);
    if common.sync == SyncMode::Group {
        let shared = common.clone();
        threads.push(spawn("spool-sync", move || syncer::run(&shared, &weak, interval))?);
    }
    Ok(threads)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(io_error("start the thread", Path::new(name)))
}
