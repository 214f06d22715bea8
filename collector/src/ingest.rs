//! The Ingest service: batches in, acknowledgements out, in the order in which the batches came.
//!
//! A thin adapter before the log. Holds a bounded number of batches a stream; the log bounds the bytes of
//! all streams together, and a stream that finds no room stops reading, which the sender feels.

use std::pin::Pin;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use verbatim_api::v1::{self, FindingKind, ingest_server::Ingest};

use crate::{
    audit::commit_status,
    listen::{peer_name, peer_node},
    log::{CommitError, Log, header::EventKind, prepare::prepare, wall_nanos},
};

/// Batches of one stream that wait for their acknowledgement.
const IN_FLIGHT: usize = 32;
/// Batches larger than this are looked at on a thread of their own, bytes.
const INLINE: usize = 64 << 10;

type Answer = oneshot::Receiver<Result<v1::AppendResponse, CommitError>>;

/// See the module.
#[derive(Clone, Debug)]
pub struct IngestService {
    log: Log,
    draining: watch::Receiver<bool>,
}

impl IngestService {
    /// The service.
    #[must_use]
    pub fn new(log: Log, draining: watch::Receiver<bool>) -> Self {
        Self { log, draining }
    }

    /// Takes batches until the sender ends, something is wrong or the collector ends.
    async fn take(
        &self,
        mut batches: Streaming<v1::AppendRequest>,
        (peer, node): (&str, Option<&str>),
        answers: &mpsc::Sender<Result<Answer, Status>>,
    ) -> Result<(), Status> {
        let mut draining = self.draining.clone();
        loop {
            let batch = tokio::select! {
                biased;
                _ = draining.wait_for(|d| *d) => {
                    return Err(Status::unavailable("the collector is shutting down: connect again"));
                }
                () = answers.closed() => return Ok(()),
                batch = batches.message() => batch?,
            };
            let Some(batch) = batch else { return Ok(()) };
            let large =
                batch.entries.iter().map(|e| e.envelope.len() + e.content.len()).sum::<usize>() > INLINE;
            let prepared = if large {
                let peer = peer.to_owned();
                let looked = tokio::task::spawn_blocking(move || prepare(batch, &peer)).await;
                looked.map_err(|e| Status::internal(e.to_string()))?
            } else {
                prepare(batch, peer)
            };
            let prepared = match prepared {
                Ok(prepared) => prepared,
                Err(refused) => {
                    self.note(peer, &refused).await?;
                    return Err(Status::invalid_argument(refused.to_string()));
                }
            };
            let prepared = prepared.sent_by(node);
            let answer = self.log.append(prepared).await.map_err(|e| commit_status(&e))?;
            if answers.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// What cannot be kept is at least found.
    async fn note(&self, peer: &str, refused: &crate::log::prepare::BatchError) -> Result<(), Status> {
        let finding = v1::Finding {
            kind: FindingKind::BadEnvelope.into(),
            found_wall_nanos: wall_nanos(),
            detail: format!("batch from {peer} refused: {refused}"),
            ..v1::Finding::default()
        };
        self.log.event(EventKind::Finding(finding)).await.map(drop).map_err(|e| commit_status(&e))
    }
}

#[tonic::async_trait]
impl Ingest for IngestService {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<v1::AppendResponse, Status>> + Send + 'static>>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (peer, node) = (peer_name(&request), peer_node(&request));
        let batches = request.into_inner();
        let (answers, waiting) = mpsc::channel(IN_FLIGHT);
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(status) = service.take(batches, (&peer, node.as_deref()), &answers).await {
                tracing::warn!(peer, %status, "ingest stream ended");
                // Behind the acknowledgements that are still to come; the sender may be gone.
                answers.send(Err(status)).await.ok();
            }
        });
        let acknowledgements = ReceiverStream::new(waiting).then(|answer| async {
            match answer?.await {
                Ok(answer) => answer.map_err(|e| commit_status(&e)),
                Err(_dropped) => Err(commit_status(&CommitError::Closed)),
            }
        });
        Ok(Response::new(Box::pin(acknowledgements)))
    }
}
