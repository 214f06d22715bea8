//! Spools to test with, records to put in, and a collector's view of what comes out.

use std::{collections::BTreeMap, path::Path, time::Duration};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use prost::Message;
use verbatim_api::{
    chain::{self, Hash, NO_PREDECESSOR},
    v1::{self, envelope::Detail},
};
use verbatim_spool::{Draft, Opened, Outbox, SpoolConfig, SyncMode, WhenFull};

pub(crate) const SEGMENT: u64 = 64 * 1024;

pub(crate) fn config(directory: &Path) -> SpoolConfig {
    SpoolConfig {
        directory: directory.to_owned(),
        sync: SyncMode::Process,
        segment_bytes: SEGMENT,
        limit_bytes: 1 << 30,
        when_full: WhenFull::Stop,
        head_interval: Duration::from_millis(5),
        node: "node-1".into(),
    }
}

pub(crate) fn open(directory: &Path) -> Opened {
    verbatim_spool::open(&config(directory), 1).unwrap()
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

pub(crate) fn started(text: &str) -> Draft {
    Draft {
        envelope: v1::Envelope {
            kind: v1::RecordKind::Started.into(),
            flow_id: vec![5; 16],
            workload: Some(v1::Workload { namespace: "shop".into(), ..Default::default() }),
            protocol: v1::Protocol::Postgresql.into(),
            operation: v1::Operation::Query.into(),
            decision: v1::Decision::Allowed.into(),
            status: v1::Status::Pending.into(),
            ..Default::default()
        },
        content: Some(v1::Content {
            statement: Some(v1::Statement { text: text.into(), ..Default::default() }),
            ..Default::default()
        }),
    }
}

pub(crate) fn held(text: &str) -> Draft {
    let mut draft = started(text);
    draft.envelope.set_decision(v1::Decision::Held);
    draft
}

pub(crate) fn decided(command: [u8; 16], decision: v1::Decision) -> Draft {
    let envelope = v1::Envelope {
        kind: v1::RecordKind::Decided.into(),
        command_id: command.to_vec(),
        decision: decision.into(),
        ..Default::default()
    };
    Draft { envelope, content: None }
}

pub(crate) fn finished(command: [u8; 16]) -> Draft {
    let envelope = v1::Envelope {
        kind: v1::RecordKind::Finished.into(),
        command_id: command.to_vec(),
        status: v1::Status::Ok.into(),
        ..Default::default()
    };
    Draft { envelope, content: Some(v1::Content { command_tag: "SELECT 1".into(), ..Default::default() }) }
}

pub(crate) fn connected() -> Draft {
    let mut draft = started("");
    draft.envelope.set_kind(v1::RecordKind::Connection);
    draft.envelope.flow_id.clear();
    draft
}

/// A record that came out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) envelope: v1::Envelope,
    pub(crate) content: v1::Content,
}

impl Seen {
    pub(crate) fn kind(&self) -> v1::RecordKind {
        self.envelope.kind()
    }
    pub(crate) fn text(&self) -> String {
        let statement = self.content.statement.clone().unwrap_or_default();
        String::from_utf8(statement.text).unwrap()
    }
    pub(crate) fn opened(&self) -> &v1::ChainOpened {
        match &self.envelope.detail {
            Some(Detail::ChainOpened(opened)) => opened,
            other => panic!("not an opening: {other:?}"),
        }
    }
    pub(crate) fn gap(&self) -> &v1::Gap {
        match &self.envelope.detail {
            Some(Detail::Gap(gap)) => gap,
            other => panic!("not a gap: {other:?}"),
        }
    }
}

/// A collector that believes nothing: every batch is checked the way the format says.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    pub(crate) chains: BTreeMap<Vec<u8>, Vec<Seen>>,
    hashes: BTreeMap<Vec<u8>, Vec<Hash>>,
    /// In the order in which they came.
    pub(crate) order: Vec<Vec<u8>>,
    pub(crate) recovery_heads: usize,
    pub(crate) largest_batch: usize,
}

impl Collector {
    /// Takes a batch; repeats collapse.
    pub(crate) fn take(&mut self, batch: &v1::AppendRequest) {
        let id = batch.chain_id.clone();
        self.largest_batch = self.largest_batch.max(batch.entries.len());
        let head = batch.head.clone().unwrap();
        assert_eq!(batch.first_sequence + batch.entries.len() as u64 - 1, head.sequence, "ends at its head");
        if !self.chains.contains_key(&id) {
            self.order.push(id.clone());
        }
        for (sequence, entry) in (batch.first_sequence..).zip(&batch.entries) {
            self.entry(&id, sequence, entry);
        }
        self.head(&id, &head);
    }

    fn entry(&mut self, id: &[u8], sequence: u64, entry: &v1::Entry) {
        let envelope = v1::Envelope::decode(entry.envelope.clone()).unwrap();
        assert_eq!((&envelope.chain_id[..], envelope.sequence), (id, sequence));
        assert_eq!(envelope.schema_version, 1);
        if entry.content.is_empty() {
            assert!(envelope.content_sha256.is_empty());
        } else {
            assert_eq!(envelope.content_sha256, chain::content_commitment(&entry.content));
            assert_eq!(entry.content[..2], [0x0a, 16], "salt first");
        }
        let content = v1::Content::decode(entry.content.clone()).unwrap();
        let seen = self.chains.entry(id.to_owned()).or_default();
        let hashes = self.hashes.entry(id.to_owned()).or_default();
        let at = usize::try_from(sequence).unwrap();
        if at < seen.len() {
            assert_eq!(seen[at].envelope, envelope, "a repeat is the same");
            return;
        }
        assert_eq!(at, seen.len(), "no hole");
        let seen_now = Seen { envelope, content };
        let previous = hashes.last().copied().unwrap_or_else(|| {
            let opened = seen_now.opened();
            let head = Hash::try_from(opened.predecessor_head.as_slice()).unwrap_or(NO_PREDECESSOR);
            chain::open(&id.try_into().unwrap(), &head)
        });
        hashes.push(chain::link(&previous, &entry.envelope));
        seen.push(seen_now);
    }

    fn head(&mut self, id: &[u8], head: &v1::SignedHead) {
        let hash = self.hashes[id][usize::try_from(head.sequence).unwrap()];
        assert_eq!(head.hash, hash);
        let message = chain::head_message(&id.try_into().unwrap(), head.sequence, &hash, head.wall_nanos);
        UnparsedPublicKey::new(&ED25519, &head.public_key).verify(&message, &head.signature).unwrap();
        let own = self.chains[id][0].opened().public_key == head.public_key;
        assert_eq!(own, !head.recovery, "its own key, or its successor's");
        self.recovery_heads += usize::from(head.recovery);
    }

    /// Takes what the outbox has now, and acknowledges it.
    pub(crate) fn drain(&mut self, outbox: &mut Outbox) {
        for (chain, sequence) in self.read(outbox) {
            outbox.acknowledge(&chain, sequence);
        }
    }

    /// Takes what the outbox has now; says what could be acknowledged.
    pub(crate) fn read(&mut self, outbox: &mut Outbox) -> Vec<(Vec<u8>, u64)> {
        let mut reached = Vec::new();
        while let Some(batch) = outbox.next_batch(1000, 1 << 20).unwrap() {
            self.take(&batch);
            reached.push((batch.chain_id.clone(), batch.head.unwrap().sequence));
        }
        reached
    }

    /// Every record, chains in the order in which they came.
    pub(crate) fn all(&self) -> Vec<&Seen> {
        self.order.iter().flat_map(|id| &self.chains[id]).collect()
    }

    pub(crate) fn kinds(&self, chain: usize) -> Vec<v1::RecordKind> {
        self.chains[&self.order[chain]].iter().map(Seen::kind).collect()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.all()
            .iter()
            .filter(|seen| seen.kind() == v1::RecordKind::Started)
            .map(|seen| seen.text())
            .collect()
    }

    /// The ends of commands and connections, by what they end.
    pub(crate) fn ends(&self) -> Vec<&Seen> {
        let ends = |seen: &&Seen| match seen.kind() {
            v1::RecordKind::Finished => true,
            v1::RecordKind::Connection => seen.envelope.status() != v1::Status::Pending,
            _ => false,
        };
        self.all().into_iter().filter(ends).collect()
    }
}

/// A collector that took everything the folder holds, recovered as after a crash.
pub(crate) fn recovered(directory: &Path) -> Collector {
    let mut collector = Collector::default();
    recover_into(&mut collector, directory);
    collector
}

/// The same for a collector that has something already.
pub(crate) fn recover_into(collector: &mut Collector, directory: &Path) {
    let mut opened = open(directory);
    for spool in opened.spools {
        spool.close();
    }
    for outbox in &mut opened.outboxes {
        collector.drain(outbox);
        assert!(outbox.drained());
    }
}

/// Names of the segment files of a shard.
pub(crate) fn segments(directory: &Path, shard: usize) -> Vec<String> {
    let folder = directory.join(format!("shard-{shard}"));
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".seg")).collect();
    names.sort();
    names
}
