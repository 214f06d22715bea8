//! What nodes repeat, far back: how much of the log is read for it, whatever they do.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use verbatim_api::v1::{self, FindingKind};
use verbatim_collector::{
    log::{Log, LogLimits, frame::Part, prepare::prepare},
    store::{Committed, Group, LocalStore, SegmentInfo, Store, StoreError},
};

use crate::support::node::Node;

/// A store that counts what is read of it.
#[derive(Debug)]
struct Counted(LocalStore, Arc<AtomicU64>);

impl Store for Counted {
    fn commit(&self, group: &Group) -> Result<Committed, StoreError> {
        self.0.commit(group)
    }

    fn seal(&self) -> Result<(), StoreError> {
        self.0.seal()
    }

    fn segments(&self) -> Result<Vec<SegmentInfo>, StoreError> {
        self.0.segments()
    }

    fn read(&self, part: Part, segment: u64, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.0.read(part, segment, range)?;
        self.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn replace_contents(&self, segment: u64, bytes: Bytes) -> Result<(), StoreError> {
        self.0.replace_contents(segment, bytes)
    }

    fn remove(&self, part: Part, segment: u64) -> Result<(), StoreError> {
        self.0.remove(part, segment)
    }
}

const SEGMENT: u64 = 16 << 10;

/// A log over a folder, without an index.
pub(crate) struct Bare {
    pub(crate) log: Log,
    writer: std::thread::JoinHandle<()>,
    read: Arc<AtomicU64>,
}

impl Bare {
    pub(crate) fn open(folder: &std::path::Path) -> Self {
        let read = Arc::new(AtomicU64::new(0));
        let store = Counted(LocalStore::open(&folder.join("log")).expect("opens").0, Arc::clone(&read));
        let limits = LogLimits { segment_bytes: SEGMENT, ..LogLimits::default() };
        let (log, writer) = Log::open(Arc::new(store), &[], limits).expect("opens");
        Self { log, writer, read }
    }

    pub(crate) async fn append(&self, batch: &v1::AppendRequest) -> v1::AppendResponse {
        let prepared = prepare(batch.clone(), "test").expect("can be kept");
        self.log.append(prepared).await.expect("taken").await.expect("answered").expect("durable")
    }

    /// An answer, and how much was read for it.
    async fn counted(&self, batch: &v1::AppendRequest) -> (v1::AppendResponse, u64) {
        let before = self.read.load(Ordering::Relaxed);
        let answer = self.append(batch).await;
        (answer, self.read.load(Ordering::Relaxed) - before)
    }

    fn bytes(&self) -> u64 {
        self.log.view().segments().iter().map(|s| s.envelope_bytes + s.content_bytes).sum()
    }

    pub(crate) async fn close(self) {
        self.log.close().await;
        tokio::task::spawn_blocking(|| self.writer.join()).await.expect("joins").expect("ends well");
    }
}

/// Two chains by turns, two hundred segments of them; the first one's batches.
async fn filled(bare: &Bare) -> (Node, Vec<v1::AppendRequest>) {
    let (mut node, mut other) = (Node::new(), Node::new());
    let mut batches = vec![node.batch()];
    bare.append(&batches[0]).await;
    for n in 0..400 {
        node.command(b"", &format!("SELECT {n}"));
        batches.push(node.batch());
        bare.append(&batches[batches.len() - 1]).await;
        other.command(b"", &format!("SELECT '{}'", "x".repeat(10_000)));
        bare.append(&other.batch()).await;
    }
    assert!(bare.log.view().segments().len() >= 200, "{}", bare.log.view().segments().len());
    (node, batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_from_far_back_costs_a_piece_of_one_segment_and_not_the_log() {
    let folder = tempfile::tempdir().expect("folder");
    let bare = Bare::open(folder.path());
    let (mut node, batches) = filled(&bare).await;
    let end = batches.iter().map(|b| b.entries.len() as u64).sum::<u64>() - 1;
    let log = bare.bytes();
    // As a successor does, in order; and as nobody does.
    let orders = [0, 1, 2, 3, 4, 5, 250, 7, 390, 1, 200, 3];
    for n in orders {
        let (answer, read) = bare.counted(&batches[n]).await;
        assert_eq!((answer.durable_sequence, &answer.findings[..]), (end, &[][..]), "{n}");
        assert!(read <= 3 * SEGMENT, "batch {n}: {read} bytes of {log} were read");
    }
    assert_eq!(bare.bytes(), log, "nothing was kept twice");
    bare.close().await;

    // What stands where was written down: the first look back reads that of each segment, the others one.
    let bare = Bare::open(folder.path());
    bare.append(&batches[100]).await;
    for n in orders {
        let (answer, read) = bare.counted(&batches[n]).await;
        assert_eq!((answer.durable_sequence, &answer.findings[..]), (end, &[][..]), "{n}, after a restart");
        let known = n >= 100 || orders[..orders.iter().position(|o| *o == n).unwrap_or(0)].contains(&0);
        assert!(!known || read <= 3 * SEGMENT, "batch {n}, after a restart: {read} bytes of {log} were read");
    }
    node.command(b"", "SELECT 'after'");
    assert_eq!(bare.append(&node.batch()).await.durable_sequence, end + 2);
    bare.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_from_far_back_is_found_also_behind_a_repeat_of_the_beginning() {
    let folder = tempfile::tempdir().expect("folder");
    let bare = Bare::open(folder.path());
    let mut node = Node::new();
    let first = node.batch();
    let mut twin = node.fork();
    bare.append(&first).await;
    for n in 0..200 {
        node.command(b"", &format!("SELECT {n}"));
        bare.append(&node.batch()).await;
    }
    let mut forks = Vec::new();
    for n in 0..100 {
        twin.command(b"", &format!("SELECT 'other {n}'"));
        forks.push(twin.batch());
    }
    for n in [0, 50, 99] {
        let answer = bare.append(&forks[n]).await;
        assert!(answer.findings().any(|kind| kind == FindingKind::Fork), "{n}: {answer:?}");
    }
    for n in [0, 50, 99] {
        assert_eq!(bare.append(&forks[n]).await.findings, [0_i32; 0], "{n}: a repeat of the other side");
    }
    bare.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_scattered_on_purpose_has_no_log_read_for_it() {
    let folder = tempfile::tempdir().expect("folder");
    let bare = Bare::open(folder.path());
    let mut node = Node::new();
    let first = node.batch();
    bare.append(&first).await;
    // The lowest sequence, then the highest, in each segment: whatever lies between seems to be in all of them.
    let mut far = v1::AppendRequest { first_sequence: 1 << 40, ..first.clone() };
    far.entries[0].content = vec![b'x'; 1000].into();
    for n in 0..150 {
        let mut again = first.clone();
        again.entries[0].envelope = format!("{n}").into_bytes().into();
        bare.append(&again).await;
        let mut waiting = Vec::new();
        for _ in 0..20 {
            far.first_sequence += 1;
            let prepared = prepare(far.clone(), "test").expect("can be kept");
            waiting.push(bare.log.append(prepared).await.expect("taken"));
        }
        for answer in waiting {
            answer.await.expect("answered").expect("durable");
        }
    }
    assert!(bare.log.view().segments().len() >= 150, "{}", bare.log.view().segments().len());
    for (at, what) in [(1 << 20, "scattered"), (0, "a fork like all before")] {
        let mut batch = v1::AppendRequest { first_sequence: at, ..first.clone() };
        batch.entries[0].envelope = what.as_bytes().into();
        let (answer, read) = bare.counted(&batch).await;
        assert!(answer.findings().any(|kind| kind == FindingKind::Fork), "{what}: {answer:?}");
        assert!(read <= 40 * 2 * SEGMENT, "{what}: {read} bytes of {} were read", bare.bytes());
    }
    bare.close().await;
}
