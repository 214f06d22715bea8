//! A node that makes chains as the agent does, honest ones and others.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use prost::Message as _;
use verbatim_api::{
    chain::{self, ChainId, Hash, NO_PREDECESSOR},
    v1::{self, Operation, RecordKind, Status, envelope::Detail},
};

pub(crate) type Id = Vec<u8>;

/// Wall clock of the first record, nanoseconds since 1970.
pub(crate) const EPOCH: u64 = 1_790_000_000_000_000_000;

/// One chain in the making.
pub(crate) struct Node {
    pub(crate) key: Ed25519KeyPair,
    pub(crate) chain: ChainId,
    pub(crate) next: u64,
    pub(crate) hash: Hash,
    pub(crate) wall: u64,
    pub(crate) workload: v1::Workload,
    pending: Vec<v1::Entry>,
    first: u64,
}

pub(crate) fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::generate().expect("key")
}

pub(crate) fn new_id() -> Id {
    uuid::Uuid::now_v7().as_bytes().to_vec()
}

impl Node {
    /// A chain without a predecessor, opened.
    pub(crate) fn new() -> Self {
        Self::open(key(), v1::ChainOpened { predecessor_chain_id: Vec::new(), ..v1::ChainOpened::default() })
    }

    /// A chain after another one, as its head stands.
    pub(crate) fn after(predecessor: &Self, key: Ed25519KeyPair) -> Self {
        let opened = v1::ChainOpened {
            predecessor_chain_id: predecessor.chain.to_vec(),
            predecessor_sequence: predecessor.next - 1,
            predecessor_head: predecessor.hash.to_vec(),
            ..v1::ChainOpened::default()
        };
        Self::open(key, opened)
    }

    pub(crate) fn open(key: Ed25519KeyPair, opened: v1::ChainOpened) -> Self {
        let chain: ChainId = *uuid::Uuid::now_v7().as_bytes();
        let head = Hash::try_from(opened.predecessor_head.as_slice()).unwrap_or(NO_PREDECESSOR);
        let public_key = key.public_key().as_ref().to_vec();
        let workload = v1::Workload {
            principal_kind: v1::PrincipalKind::Federated.into(),
            principal: "principal://pool/subject/ns/shop/sa/cart".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "cart".to_owned(),
            pod_name: "cart-0".to_owned(),
            pod_uid: "7e57".to_owned(),
            ..v1::Workload::default()
        };
        let mut node = Self {
            hash: chain::open(&chain, &head),
            key,
            chain,
            next: 0,
            wall: EPOCH,
            workload,
            pending: Vec::new(),
            first: 0,
        };
        let name = if opened.node.is_empty() { "node-1".to_owned() } else { opened.node.clone() };
        let detail = Detail::ChainOpened(v1::ChainOpened { public_key, node: name, ..opened });
        node.push(
            v1::Envelope { kind: RecordKind::ChainOpened.into(), detail: Some(detail), ..Default::default() },
            None,
        );
        node
    }

    /// Adds a record; fills in what the spool fills in. Returns its id.
    pub(crate) fn push(&mut self, mut envelope: v1::Envelope, content: Option<v1::Content>) -> Id {
        let content = content.map(|mut c| {
            c.salt = uuid::Uuid::now_v7().as_bytes().to_vec();
            c.encode_to_vec()
        });
        envelope.schema_version = 1;
        if envelope.record_id.is_empty() {
            envelope.record_id = new_id();
        }
        envelope.chain_id = self.chain.to_vec();
        envelope.sequence = self.next;
        self.wall += 1000;
        if envelope.wall_nanos == 0 {
            envelope.wall_nanos = self.wall;
        }
        if let Some(content) = &content {
            envelope.content_sha256 = chain::content_commitment(content).to_vec();
        }
        let id = envelope.record_id.clone();
        self.push_raw(envelope.encode_to_vec(), content.unwrap_or_default());
        id
    }

    /// Adds bytes as they are.
    pub(crate) fn push_raw(&mut self, envelope: Vec<u8>, content: Vec<u8>) {
        self.hash = chain::link(&self.hash, &envelope);
        self.next += 1;
        self.pending.push(v1::Entry { envelope: envelope.into(), content: content.into() });
    }

    /// A STARTED record's two parts.
    pub(crate) fn started(&self, flow: &[u8], statement: &str) -> (v1::Envelope, v1::Content) {
        let envelope = v1::Envelope {
            kind: RecordKind::Started.into(),
            flow_id: flow.to_vec(),
            workload: Some(self.workload.clone()),
            protocol: v1::Protocol::Postgresql.into(),
            operation: Operation::Query.into(),
            capture: v1::Capture::Decoded.into(),
            decision: v1::Decision::Allowed.into(),
            status: Status::Pending.into(),
            ..v1::Envelope::default()
        };
        let content = v1::Content {
            statement: Some(v1::Statement {
                text: statement.as_bytes().to_vec(),
                full_length: statement.len() as u64,
                ..v1::Statement::default()
            }),
            target: Some(v1::Target {
                service: "postgresql".to_owned(),
                database: "orders".to_owned(),
                ..v1::Target::default()
            }),
            client: Some(v1::Client { pid: 42, ..v1::Client::default() }),
            ..v1::Content::default()
        };
        (envelope, content)
    }

    pub(crate) fn start(&mut self, flow: &[u8], statement: &str) -> Id {
        let (envelope, content) = self.started(flow, statement);
        self.push(envelope, Some(content))
    }

    pub(crate) fn finish(&mut self, flow: &[u8], command: &[u8], status: Status) -> Id {
        let envelope = v1::Envelope {
            kind: RecordKind::Finished.into(),
            flow_id: flow.to_vec(),
            command_id: command.to_vec(),
            workload: Some(self.workload.clone()),
            protocol: v1::Protocol::Postgresql.into(),
            operation: Operation::Query.into(),
            capture: v1::Capture::Decoded.into(),
            status: status.into(),
            duration_nanos: 1000,
            rows: Some(1),
            ..v1::Envelope::default()
        };
        let content = v1::Content { command_tag: "SELECT 1".to_owned(), ..v1::Content::default() };
        self.push(envelope, Some(content))
    }

    /// How what a command began has ended, as a connection tells.
    pub(crate) fn progress(&mut self, flow: &[u8], command: &[u8], status: Status) -> Id {
        let envelope = v1::Envelope {
            kind: RecordKind::Progress.into(),
            flow_id: flow.to_vec(),
            command_id: command.to_vec(),
            operation: Operation::Query.into(),
            status: status.into(),
            duration_nanos: 7000,
            rows: Some(42),
            ..v1::Envelope::default()
        };
        let attributes = vec![v1::Attribute { name: "bytes_billed".to_owned(), value: b"10".to_vec() }];
        self.push(envelope, Some(v1::Content { attributes, ..v1::Content::default() }))
    }

    /// A whole command on a connection of its own name.
    pub(crate) fn command(&mut self, flow: &[u8], statement: &str) -> Id {
        let id = self.start(flow, statement);
        self.finish(flow, &id, Status::Ok);
        id
    }

    /// A connection's record: its opening without an id, its end with that of the opening.
    pub(crate) fn connection(&mut self, opened: Option<&[u8]>, capture: v1::Capture) -> Id {
        let envelope = v1::Envelope {
            kind: RecordKind::Connection.into(),
            flow_id: opened.map(<[u8]>::to_vec).unwrap_or_default(),
            workload: Some(self.workload.clone()),
            protocol: v1::Protocol::Postgresql.into(),
            capture: capture.into(),
            status: if opened.is_none() { Status::Pending.into() } else { Status::Ok.into() },
            bytes_sent: if opened.is_none() { 0 } else { 100 },
            bytes_received: if opened.is_none() { 0 } else { 200 },
            ..v1::Envelope::default()
        };
        let content = v1::Content {
            target: Some(v1::Target {
                service: "postgresql".to_owned(),
                address: "10.0.0.5".to_owned(),
                port: 5432,
                ..v1::Target::default()
            }),
            ..v1::Content::default()
        };
        self.push(envelope, Some(content))
    }

    /// What is pending, ending at a signed head.
    pub(crate) fn batch(&mut self) -> v1::AppendRequest {
        let head = self.head();
        self.batch_with(head)
    }

    pub(crate) fn batch_with(&mut self, head: v1::SignedHead) -> v1::AppendRequest {
        let entries = std::mem::take(&mut self.pending);
        let first_sequence = std::mem::replace(&mut self.first, self.next);
        v1::AppendRequest { chain_id: self.chain.to_vec(), first_sequence, entries, head: Some(head) }
    }

    pub(crate) fn head(&self) -> v1::SignedHead {
        self.head_by(&self.key, false)
    }

    pub(crate) fn head_by(&self, key: &Ed25519KeyPair, recovery: bool) -> v1::SignedHead {
        let message = chain::head_message(&self.chain, self.next - 1, &self.hash, self.wall);
        v1::SignedHead {
            sequence: self.next - 1,
            hash: self.hash.to_vec(),
            wall_nanos: self.wall,
            signature: key.sign(&message).as_ref().to_vec(),
            public_key: key.public_key().as_ref().to_vec(),
            recovery,
        }
    }

    /// A node whose power failed: it knows only what it had up to here.
    pub(crate) fn fork(&self) -> Self {
        Self {
            key: Ed25519KeyPair::from_pkcs8(self.key.to_pkcs8().expect("pkcs8").as_ref()).expect("key"),
            chain: self.chain,
            next: self.next,
            hash: self.hash,
            wall: self.wall,
            workload: self.workload.clone(),
            pending: Vec::new(),
            first: self.next,
        }
    }
}
