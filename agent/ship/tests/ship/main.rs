//! Shipping a real spool to a collector that dies, returns, lies mute or was never there.

mod collector;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use collector::{Collector, Kept, Manner, socket};
use tonic::transport::{Certificate, Identity};
use verbatim_api::v1;
use verbatim_ship::{Issued, Shipper, Source, Target, TlsFiles};
use verbatim_spool::{Draft, Opened, Spool, SpoolConfig, SyncMode, WhenFull};

/// Longer than anything here takes; a test that needs it has failed.
const LONG: Duration = Duration::from_secs(60);

fn open(folder: &Path, shards: usize) -> Opened {
    let config = SpoolConfig {
        directory: folder.join("spool"),
        sync: SyncMode::Process,
        segment_bytes: 1 << 20,
        limit_bytes: 64 << 20,
        when_full: WhenFull::Stop,
        head_interval: Duration::from_millis(10),
        node: "node-1".into(),
    };
    verbatim_spool::open(&config, shards).expect("spool")
}

/// Appends so many records of a recognisable kind.
fn append(spool: &Spool, count: u64) {
    for number in 0..count {
        let envelope = v1::Envelope {
            kind: v1::RecordKind::Started.into(),
            bytes_sent: number,
            ..v1::Envelope::default()
        };
        let content = v1::Content { note: "x".repeat(200), ..v1::Content::default() };
        spool.append(Draft { envelope, content: Some(content) }).expect("append");
    }
}

/// Every chain begins at 0, has no hole, ends closed, and holds `count` of our records once each.
fn assert_complete(kept: &Kept, chains: usize, count: u64) {
    assert_eq!(kept.len(), chains);
    for chain in kept.values() {
        let sequences: Vec<u64> = chain.keys().copied().collect();
        let expected: Vec<u64> = (0..).take(sequences.len()).collect();
        assert_eq!(sequences, expected, "no hole");
        let records: Vec<v1::Envelope> =
            chain.values().map(|bytes| prost::Message::decode(bytes.as_slice()).expect("envelope")).collect();
        let ours: Vec<u64> = records
            .iter()
            .filter(|record| record.kind() == v1::RecordKind::Started)
            .map(|record| record.bytes_sent)
            .collect();
        assert_eq!(ours, (0..count).collect::<Vec<_>>());
        assert_eq!(records.last().map(v1::Envelope::kind), Some(v1::RecordKind::ChainClosed));
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "{what} did not come true");
}

#[tokio::test]
async fn everything_is_shipped_and_its_segments_are_deleted_once_the_chains_are_closed() {
    let folder = tempfile::tempdir().expect("folder");
    let collector = Collector::start(&socket(folder.path()), Manner::Good, None);
    let opened = open(folder.path(), 2);
    let shipper = Shipper::start(&Target::unix(socket(folder.path())), opened.outboxes).expect("shipper");
    for spool in opened.spools {
        append(&spool, 3000);
        spool.close();
    }
    assert!(shipper.finish(tokio::time::sleep(LONG)).await);
    assert_complete(&collector.kept(), 2, 3000);
    let left = walk(&folder.path().join("spool"));
    assert!(!left.iter().any(|name| name.ends_with(".seg")), "{left:?}");
}

#[tokio::test]
async fn what_another_process_left_behind_is_shipped_while_its_own_goes_on() {
    let folder = tempfile::tempdir().expect("folder");
    let collector = Collector::start(&socket(folder.path()), Manner::Good, None);
    let (opened, other) = (open(folder.path(), 1), open(folder.path(), 1));
    let shipper = Shipper::start(&Target::unix(socket(folder.path())), opened.outboxes).expect("shipper");
    for spool in other.spools {
        append(&spool, 100);
        spool.close();
    }
    drop(other.outboxes);
    for (outbox, _) in opened.leftovers.adopt().expect("adopted") {
        shipper.add(outbox).await;
    }
    let slot = folder.path().join("spool/slot-1");
    until("its slot is removed", || !slot.exists()).await;
    for spool in opened.spools {
        append(&spool, 100);
        spool.close();
    }
    assert!(shipper.finish(tokio::time::sleep(LONG)).await);
    // Its own chain, the other's, and one that ends what the other had left open.
    let kept = collector.kept();
    let mut lengths: Vec<usize> = kept.values().map(std::collections::BTreeMap::len).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [103, 103, 103]);
}

#[tokio::test]
async fn a_collector_that_dies_in_the_middle_and_returns_misses_no_record_and_has_none_twice() {
    let folder = tempfile::tempdir().expect("folder");
    let path = socket(folder.path());
    let opened = open(folder.path(), 1);
    let shipper = Shipper::start(&Target::unix(&path), opened.outboxes).expect("shipper");
    let spool = opened.spools.into_iter().next().expect("spool");
    append(&spool, 20_000);
    let mut kept = Kept::new();
    // Breaks the stream after what it kept but had not acknowledged; then dies with its socket; then is
    // away while there is something to ship.
    for batches in [1, 2, 3] {
        let collector = Collector::start(&path, Manner::Breaks(batches), Some(kept));
        until("a batch", || collector.batches() >= batches).await;
        kept = collector.die();
        std::fs::remove_file(&path).expect("socket");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let collector = Collector::start(&path, Manner::Good, Some(kept));
    // Connected, it sees what is appended from now on.
    until("the rest", || collector.batches() > 0).await;
    spool.close();
    assert!(shipper.finish(tokio::time::sleep(LONG)).await);
    assert_complete(&collector.kept(), 1, 20_000);
}

#[tokio::test]
async fn whether_the_collector_takes_records_is_known() {
    let folder = tempfile::tempdir().expect("folder");
    let path = socket(folder.path());
    let opened = open(folder.path(), 1);
    let shipper = Shipper::start(&Target::unix(&path), opened.outboxes).expect("shipper");
    let connected = shipper.connected();
    let is = |wanted| {
        let connected = Arc::clone(&connected);
        move || connected.load(Ordering::Relaxed) == wanted
    };
    let spool = opened.spools.into_iter().next().expect("spool");
    append(&spool, 1);
    assert!(is(false)(), "there is none");
    for _ in 0..2 {
        let collector = Collector::start(&path, Manner::Good, None);
        append(&spool, 1);
        until("connected", is(true)).await;
        until("records of ours, with their contents", || collector.contents().len() > 1).await;
        drop(collector);
        append(&spool, 1);
        until("not connected", is(false)).await;
    }
    spool.close();
    drop(shipper);
}

#[tokio::test]
async fn without_a_collector_the_records_stay_and_the_next_start_ships_them() {
    let folder = tempfile::tempdir().expect("folder");
    let path = socket(folder.path());
    let opened = open(folder.path(), 1);
    let shipper = Shipper::start(&Target::unix(&path), opened.outboxes).expect("shipper");
    let spool = opened.spools.into_iter().next().expect("spool");
    append(&spool, 100);
    spool.close();
    assert!(!shipper.finish(tokio::time::sleep(Duration::from_millis(300))).await, "nobody has them");

    let collector = Collector::start(&path, Manner::Good, None);
    let opened = open(folder.path(), 1);
    let shipper = Shipper::start(&Target::unix(&path), opened.outboxes).expect("shipper");
    for spool in opened.spools {
        append(&spool, 100);
        spool.close();
    }
    assert!(shipper.finish(tokio::time::sleep(LONG)).await);
    assert_complete(&collector.kept(), 2, 100);
}

/// Has a batch whenever it is asked for one.
#[derive(Default)]
struct Endless {
    next: u64,
    acknowledged: Arc<AtomicU64>,
}

impl Source for Endless {
    type Error = std::convert::Infallible;

    fn next_batch(&mut self, _: usize, _: usize) -> Result<Option<v1::AppendRequest>, Self::Error> {
        let first_sequence = self.next;
        self.next += 1;
        let entries = vec![v1::Entry::default()];
        Ok(Some(v1::AppendRequest { chain_id: vec![7; 16], first_sequence, entries, head: None }))
    }

    async fn changed(&mut self) {}

    fn acknowledge(&mut self, _: &[u8], durable_sequence: u64) {
        self.acknowledged.store(durable_sequence, Ordering::Relaxed);
    }

    fn rewind(&mut self) {
        self.next = self.acknowledged.load(Ordering::Relaxed);
    }

    fn drained(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_mute_collector_gets_a_bounded_number_of_batches() {
    let folder = tempfile::tempdir().expect("folder");
    let collector = Collector::start(&socket(folder.path()), Manner::Mute, None);
    let sources = vec![Endless::default()];
    let shipper = Shipper::start(&Target::unix(socket(folder.path())), sources).expect("shipper");
    until("a full window", || collector.batches() == 8).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(collector.batches(), 8, "no more without an acknowledgement");
    assert!(!shipper.finish(tokio::time::sleep(Duration::from_millis(10))).await);
}

#[tokio::test]
async fn a_collector_that_refuses_behind_its_acknowledgements_is_heard_to_the_end() {
    let folder = tempfile::tempdir().expect("folder");
    let collector = Collector::start(&socket(folder.path()), Manner::Refuses(5), None);
    let acknowledged = Arc::default();
    let sources = vec![Endless { next: 0, acknowledged: Arc::clone(&acknowledged) }];
    let shipper = Shipper::start(&Target::unix(socket(folder.path())), sources).expect("shipper");
    until("a stream after the refusal", || collector.batches() > 5).await;
    // There is always one more batch to send: it is refused before the last answers are looked at.
    assert_eq!(acknowledged.load(Ordering::Relaxed), 4);
    assert!(!shipper.finish(tokio::time::sleep(Duration::from_millis(10))).await);
}

#[tokio::test]
async fn over_the_network_both_sides_show_certificates() {
    let folder = tempfile::tempdir().expect("folder");
    let authority = authority();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("file");
        path
    };
    let (server_certificate, server_key) = issue(&authority, "localhost");
    let (certificate, key) = issue(&authority, "node-1");
    let identity = Identity::from_pem(server_certificate, server_key);
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (collector, port) = Collector::start_tls(identity, Certificate::from_pem(authority.pem()));
    let mut files = TlsFiles {
        ca: file("ca.pem", &authority.pem()),
        certificate: file("node.pem", &certificate),
        key: file("node.key", &key),
        server_name: None,
    };
    let address = format!("https://localhost:{port}");

    let opened = open(folder.path(), 1);
    let target = Target::parse(&address, Some(&files)).expect("target");
    let shipper = Shipper::start(&target, opened.outboxes).expect("shipper");
    for spool in opened.spools {
        append(&spool, 10);
        spool.close();
    }
    assert!(shipper.finish(tokio::time::sleep(LONG)).await);
    assert_complete(&collector.kept(), 1, 10);

    // A collector of somebody else's gets nothing.
    files.ca = file("other.pem", &self::authority().pem());
    let stranger = tempfile::tempdir().expect("folder");
    let opened = open(stranger.path(), 1);
    let target = Target::parse(&address, Some(&files)).expect("target");
    let shipper = Shipper::start(&target, opened.outboxes).expect("shipper");
    for spool in opened.spools {
        spool.close();
    }
    assert!(!shipper.finish(tokio::time::sleep(Duration::from_millis(500))).await);
    assert_complete(&collector.kept(), 1, 10);
}

#[tokio::test]
async fn what_waits_for_a_certificate_is_shipped_once_it_is_given() {
    let folder = tempfile::tempdir().expect("folder");
    let authority = authority();
    let (server_certificate, server_key) = issue(&authority, "localhost");
    let identity = Identity::from_pem(server_certificate, server_key);
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (collector, port) = Collector::start_tls(identity, Certificate::from_pem(authority.pem()));
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("file");
    let given = Issued::default();
    let address = format!("https://localhost:{port}");
    let target = Target::issued(&address, &ca, None, given.clone()).expect("target");
    let opened = open(folder.path(), 1);
    let shipper = Shipper::start(&target, opened.outboxes).expect("shipper");
    for spool in opened.spools {
        append(&spool, 10);
        spool.close();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(collector.batches(), 0);
    // One of another authority is not believed; then ours comes.
    let (certificate, key) = issue(&self::authority(), "node-1");
    given.set(&certificate, &key).expect("set");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(collector.batches(), 0);
    let (certificate, key) = issue(&authority, "node-1");
    given.set(&certificate, &key).expect("set");
    assert!(shipper.finish(tokio::time::sleep(LONG)).await);
    assert_complete(&collector.kept(), 1, 10);
}

type Authority = rcgen::CertifiedIssuer<'static, rcgen::KeyPair>;

fn authority() -> Authority {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().expect("key")).expect("authority")
}

/// Certificate and key, PEM.
fn issue(authority: &Authority, name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("key");
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("name");
    (params.signed_by(&key, authority).expect("signed").pem(), key.serialize_pem())
}

fn walk(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let name = entry.path().display().to_string();
            let mut below = if entry.path().is_dir() { walk(&entry.path()) } else { Vec::new() };
            below.push(name);
            below
        })
        .collect()
}
