//! A collector of the test's own: keeps what it gets in memory, and misbehaves on demand.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tokio::{net::UnixListener, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};
use verbatim_api::v1::{
    self,
    ingest_server::{Ingest, IngestServer},
};

/// Envelopes by chain and sequence.
pub(crate) type Kept = BTreeMap<Vec<u8>, BTreeMap<u64, Vec<u8>>>;

/// What it does with batches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Keeps and acknowledges.
    Good,
    /// Keeps so many batches; the last of them it does not acknowledge but breaks the stream.
    Breaks(usize),
    /// Takes them and says nothing.
    Mute,
    /// Keeps so many batches of its first stream, then acknowledges them and refuses, all at once; then is mute.
    Refuses(usize),
}

#[derive(Clone, Debug)]
struct Service {
    manner: Manner,
    kept: Arc<Mutex<Kept>>,
    contents: Arc<Mutex<Vec<v1::Entry>>>,
    batches: Arc<Mutex<usize>>,
    /// Whether there was one.
    streams: Arc<Mutex<bool>>,
}

#[tonic::async_trait]
impl Ingest for Service {
    type AppendStream = ReceiverStream<Result<v1::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (answers, stream) = mpsc::channel(16);
        let service = self.clone();
        let mut requests = request.into_inner();
        let before = std::mem::replace(&mut *self.streams.lock().expect("lock"), true);
        tokio::spawn(async move {
            let mut seen = 0;
            let mut owed = Vec::new();
            while let Ok(Some(batch)) = requests.message().await {
                seen += 1;
                let answer = service.keep(batch);
                match service.manner {
                    Manner::Good => {}
                    Manner::Mute => continue,
                    Manner::Refuses(_) if before => continue,
                    Manner::Refuses(after) => {
                        owed.push(answer);
                        if seen < after {
                            continue;
                        }
                        for answer in owed {
                            answers.try_send(Ok(answer)).expect("room");
                        }
                        answers.try_send(Err(Status::permission_denied("not this node"))).expect("room");
                        return;
                    }
                    Manner::Breaks(after) if seen < after => {}
                    Manner::Breaks(_) => {
                        answers.send(Err(Status::unavailable("as the test wants"))).await.ok();
                        return;
                    }
                }
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// What it shares with whoever looks at it.
type Parts = (Arc<Mutex<Kept>>, Arc<Mutex<Vec<v1::Entry>>>, Arc<Mutex<usize>>);

impl Service {
    fn parts(&self) -> Parts {
        (Arc::clone(&self.kept), Arc::clone(&self.contents), Arc::clone(&self.batches))
    }

    fn keep(&self, batch: v1::AppendRequest) -> v1::AppendResponse {
        let mut kept = self.kept.lock().expect("lock");
        let chain = kept.entry(batch.chain_id.clone()).or_default();
        let mut durable_sequence = batch.first_sequence;
        for (sequence, entry) in (batch.first_sequence..).zip(batch.entries) {
            let before = chain.insert(sequence, entry.envelope.to_vec());
            assert!(
                before.as_ref().is_none_or(|before| *before == entry.envelope),
                "the same sequence, another record"
            );
            durable_sequence = sequence;
            if before.is_none() && !entry.content.is_empty() {
                self.contents.lock().expect("lock").push(entry);
            }
        }
        *self.batches.lock().expect("lock") += 1;
        v1::AppendResponse { chain_id: batch.chain_id, durable_sequence, findings: Vec::new() }
    }
}

/// Serves until it is dropped. Starting another on the same path continues with what was kept.
/// On a runtime of its own, so that its death takes its connections along.
pub(crate) struct Collector {
    runtime: Option<Runtime>,
    kept: Arc<Mutex<Kept>>,
    contents: Arc<Mutex<Vec<v1::Entry>>>,
    batches: Arc<Mutex<usize>>,
}

impl Collector {
    pub(crate) fn start(path: &Path, manner: Manner, kept: Option<Kept>) -> Self {
        std::fs::remove_file(path).ok();
        let runtime = runtime();
        let entered = runtime.enter();
        let listener = UnixListener::bind(path).expect("bind");
        drop(entered);
        let service = service(manner, kept);
        let (kept, contents, batches) = service.parts();
        runtime.spawn(async move {
            let served = Server::builder()
                .add_service(IngestServer::new(service).max_decoding_message_size(64 << 20))
                .serve_with_incoming(UnixListenerStream::new(listener));
            served.await.expect("serve");
        });
        Self { runtime: Some(runtime), kept, contents, batches }
    }

    /// Over TCP with TLS; the port it listens on.
    pub(crate) fn start_tls(identity: Identity, client_ca: tonic::transport::Certificate) -> (Self, u16) {
        let runtime = runtime();
        let entered = runtime.enter();
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("address")).expect("bind");
        drop(entered);
        let port = incoming.local_addr().expect("address").port();
        let service = service(Manner::Good, None);
        let (kept, contents, batches) = service.parts();
        let tls = ServerTlsConfig::new().identity(identity).client_ca_root(client_ca);
        runtime.spawn(async move {
            let served = Server::builder()
                .tls_config(tls)
                .expect("TLS")
                .add_service(IngestServer::new(service))
                .serve_with_incoming(incoming);
            served.await.expect("serve");
        });
        (Self { runtime: Some(runtime), kept, contents, batches }, port)
    }

    pub(crate) fn kept(&self) -> Kept {
        self.kept.lock().expect("lock").clone()
    }

    /// Entries that have a content, since it was started.
    pub(crate) fn contents(&self) -> Vec<v1::Entry> {
        self.contents.lock().expect("lock").clone()
    }

    pub(crate) fn batches(&self) -> usize {
        *self.batches.lock().expect("lock")
    }

    /// Dies at once, as by SIGKILL; what it had kept.
    pub(crate) fn die(self) -> Kept {
        self.kept()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime")
}

fn service(manner: Manner, kept: Option<Kept>) -> Service {
    let kept = Arc::new(Mutex::new(kept.unwrap_or_default()));
    Service { manner, kept, contents: Arc::default(), batches: Arc::default(), streams: Arc::default() }
}

pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("ingest.sock")
}
