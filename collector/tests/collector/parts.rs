//! The parts put together otherwise than `serve` does it: another store, another index, an impatient tail.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tonic::Request;
use verbatim_api::v1::{self, audit_server::Audit as _};
use verbatim_collector::{
    audit::{AuditParts, AuditService},
    index::{Index, MemoryIndex, SqliteIndex},
    indexer::{Carry, Indexer},
    log::{Log, LogLimits, prepare::prepare},
    store::{BucketStore, LocalStore, Store},
};

use crate::support::{NOW, node::Node};

/// A log, an index and the service over them, without sockets.
struct Parts {
    log: Log,
    audit: AuditService,
    stop: watch::Sender<bool>,
    _draining: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Parts {
    fn new(store: Arc<dyn Store>, index: Arc<dyn Index>, tail_patience: Duration) -> Self {
        let (parts, indexer) = Self::without_indexer(store, index, tail_patience);
        parts.index_with(indexer)
    }

    /// Nothing is read into the index before [`Parts::index_with`].
    fn without_indexer(
        store: Arc<dyn Store>,
        index: Arc<dyn Index>,
        tail_patience: Duration,
    ) -> (Self, Indexer) {
        let limits = LogLimits { segment_bytes: 8 << 10, ..LogLimits::default() };
        let (log, writer) = Log::open(store, &[], limits).expect("opens");
        let indexer = Indexer::new(Arc::clone(log.view()), Arc::clone(&index), Carry::Out(log.clone()));
        let (draining, drain) = watch::channel(false);
        let (stop, _) = watch::channel(false);
        let audit = AuditService::new(AuditParts {
            view: Arc::clone(log.view()),
            log: Some(log.clone()),
            index,
            indexed: indexer.watch(),
            outcomes: indexer.outcomes(),
            draining: drain,
            tail_patience,
        });
        (Self { log, audit, stop, _draining: draining, threads: vec![writer] }, indexer)
    }

    fn index_with(mut self, indexer: Indexer) -> Self {
        self.threads.push(indexer.spawn(self.stop.subscribe()).expect("spawns"));
        self
    }

    async fn append(&self, batch: v1::AppendRequest) -> v1::AppendResponse {
        let prepared = prepare(batch, "test").expect("can be kept");
        self.log.append(prepared).await.expect("taken").await.expect("answered").expect("durable")
    }

    async fn search(&self) -> Vec<v1::Command> {
        let request = v1::SearchRequest { page_size: 1000, at_least_position: NOW, ..Default::default() };
        self.audit.search(Request::new(request)).await.expect("search").into_inner().commands
    }

    /// Number of connections, and the positions of index and log.
    async fn sessions(&self) -> (usize, u64, u64) {
        let answer = self.audit.sessions(Request::new(v1::SessionsRequest::default())).await;
        let answer = answer.expect("sessions").into_inner();
        (answer.sessions.len(), answer.indexed_position, answer.log_position)
    }

    /// The positions of index and log that findings are told at.
    async fn findings_at(&self) -> (u64, u64) {
        let answer = self.audit.findings(Request::new(v1::FindingsRequest::default())).await;
        let answer = answer.expect("findings").into_inner();
        (answer.indexed_position, answer.log_position)
    }

    async fn close(self) {
        self.log.close().await;
        self.stop.send_replace(true);
        for thread in self.threads {
            tokio::task::spawn_blocking(|| thread.join()).await.expect("joins").expect("ends well");
        }
    }
}

fn in_memory() -> Arc<dyn Store> {
    let objects = Arc::<object_store::memory::InMemory>::default();
    tokio::task::block_in_place(|| Arc::new(BucketStore::open(objects).expect("opens")))
}

const PATIENT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn bucket_and_memory_answer_as_local_files_and_sqlite_do_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let objects: Arc<object_store::memory::InMemory> = Arc::default();
    let local = || {
        let store = LocalStore::open(&folder.path().join("log")).expect("opens").0;
        let index = SqliteIndex::open(&folder.path().join("index.sqlite")).expect("opens");
        Parts::new(Arc::new(store), Arc::new(index), PATIENT)
    };
    let bucket = || {
        let objects = Arc::clone(&objects) as Arc<dyn object_store::ObjectStore>;
        Parts::new(
            Arc::new(BucketStore::open(objects).expect("opens")),
            Arc::<MemoryIndex>::default(),
            PATIENT,
        )
    };
    let mut node = Node::new();
    for round in 0..3 {
        let (one, other) = tokio::task::block_in_place(|| (local(), bucket()));
        for n in 0..20 {
            node.command(b"", &format!("SELECT {round}, {n}, '{}'", "x".repeat(400)));
            let batch = node.batch();
            let answers = (one.append(batch.clone()).await, other.append(batch).await);
            assert_eq!(answers.0, answers.1);
            assert_eq!(answers.0.findings, [0_i32; 0], "round {round}, {n}");
        }
        let found = one.search().await;
        assert_eq!(found.len(), 20 * (round + 1));
        // Deleting works on objects as it does on files.
        let ids = vec![found[0].id.clone()];
        for parts in [&one, &other] {
            let request = v1::DeleteContentRequest { ids: ids.clone(), reason: "test".to_owned() };
            let deleted =
                parts.audit.delete_content(Request::new(request)).await.expect("deletes").into_inner();
            assert_eq!(deleted.deleted, 2);
        }
        let found = one.search().await;
        assert!(found[0].content_deleted);
        assert_eq!(found, other.search().await);
        one.close().await;
        other.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_behind_is_told_of_and_what_it_does_not_know_yet_is_not_denied() {
    let folder = tempfile::tempdir().expect("folder");
    let store = LocalStore::open(&folder.path().join("log")).expect("opens").0;
    let sqlite = SqliteIndex::open(&folder.path().join("index.sqlite")).expect("opens");
    for (index, store) in [
        (Arc::new(sqlite) as Arc<dyn Index>, Arc::new(store) as Arc<dyn Store>),
        (Arc::<MemoryIndex>::default(), in_memory()),
    ] {
        // Nobody reads the log into the index yet.
        let (parts, indexer) = tokio::task::block_in_place(|| Parts::without_indexer(store, index, PATIENT));
        let mut node = Node::new();
        let flow = node.connection(None, v1::Capture::Decoded);
        let id = node.command(&flow, "SELECT 1");
        parts.append(node.batch()).await;
        let end = parts.log.view().next_position();
        assert!(end > 0);

        assert_eq!(parts.sessions().await, (0, 0, end), "it says itself that it may lack some");
        assert_eq!(parts.findings_at().await, (0, end));
        let asked = |id: &[u8]| {
            let (audit, id) = (parts.audit.clone(), id.to_vec());
            tokio::spawn(async move { audit.get(Request::new(v1::GetRequest { id })).await })
        };
        let (mut known, mut unknown) = (asked(&id), asked(&[9; 16]));
        for answer in [&mut known, &mut unknown] {
            let early = tokio::time::timeout(Duration::from_millis(300), answer).await;
            assert!(early.is_err(), "answered by an index that knows nothing: {early:?}");
        }

        let parts = parts.index_with(indexer);
        let found = known.await.expect("joins").expect("found").into_inner();
        assert_eq!(found.command.expect("a command").id, id);
        assert_eq!((found.indexed_position, found.log_position), (end, end));
        let refused = unknown.await.expect("joins").expect_err("it is nowhere");
        assert_eq!(refused.code(), tonic::Code::NotFound);
        assert_eq!(parts.sessions().await, (1, end, end));
        assert_eq!(parts.findings_at().await, (end, end));
        parts.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_of_a_tail_is_told_where_to_go_on_and_misses_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let store = LocalStore::open(&folder.path().join("log")).expect("opens").0;
    let parts = Parts::new(Arc::new(store), Arc::<MemoryIndex>::default(), Duration::from_millis(100));
    let mut node = Node::new();
    parts.append(node.batch()).await;
    parts.search().await;
    let tail = |after_position: u64| {
        let request = v1::TailRequest { after_position, ..v1::TailRequest::default() };
        async { parts.audit.tail(Request::new(request)).await.expect("tail").into_inner() }
    };
    let mut slow = tail(0).await;
    for n in 0..500 {
        node.command(b"", &format!("SELECT {n}"));
    }
    parts.append(node.batch()).await;
    // It takes nothing until it was cut off, for which all of them have to be in the index.
    assert_eq!(parts.search().await.len(), 500);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut ids = Vec::new();
    let told = loop {
        match slow.next().await.expect("an end with a reason") {
            Ok(command) => ids.push(command.id),
            Err(status) => break status,
        }
    };
    assert_eq!(told.code(), tonic::Code::ResourceExhausted);
    assert!(ids.len() < 500, "nothing is kept for it beyond a few");
    let position: u64 = told.message().rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a position");
    let mut again = tail(position).await;
    while ids.len() < 500 {
        ids.push(again.next().await.expect("more").expect("a command").id);
    }
    let mut expected: Vec<_> = parts.search().await.into_iter().map(|c| c.id).collect();
    expected.reverse();
    assert_eq!(ids, expected);
    drop((slow, again));
    parts.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_batches_are_bounded_and_one_larger_than_the_bound_still_gets_through() {
    let folder = tempfile::tempdir().expect("folder");
    let store = LocalStore::open(&folder.path().join("log")).expect("opens").0;
    let limits = LogLimits { waiting_bytes: 4 << 10, ..LogLimits::default() };
    let (log, writer) = Log::open(Arc::new(store), &[], limits).expect("opens");
    let mut tasks = Vec::new();
    for n in 0..20 {
        let log = log.clone();
        tasks.push(tokio::spawn(async move {
            let mut node = Node::new();
            node.command(b"", &format!("SELECT {n}, '{}'", "x".repeat(20_000)));
            let prepared = prepare(node.batch(), "test").expect("can be kept");
            log.append(prepared).await.expect("taken").await.expect("answered").expect("durable")
        }));
    }
    for task in tasks {
        assert_eq!(task.await.expect("joins").durable_sequence, 2);
    }
    log.close().await;
    tokio::task::spawn_blocking(|| writer.join()).await.expect("joins").expect("ends well");
}
