//! What a node agent asks for, and what it is given.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use tokio::sync::{Semaphore, watch};
use verbatim_issuer_api::{Certificate, Intermediate, NodeAnswer, NodeRequest};
use verbatim_tls::{IssueError, Issued, NameClass};

use crate::{
    config::Nodes,
    kept::{Class, Kept, KeptError},
    limits::Limits,
    metrics::{Asked, Metrics},
    review::{Agent, ReviewError, Reviewer},
    store::{Store, StoreError},
};

/// Tokens that are shown to the API server at the same time.
const REVIEWS: usize = 16;

/// Gives.
pub(crate) struct Desk {
    reviewer: Reviewer,
    config: Nodes,
    store: Store,
    kept: watch::Sender<Arc<Kept>>,
    by_address: Limits,
    by_node: Limits,
    reviews: Semaphore,
    metrics: Arc<Metrics>,
}

/// It is given nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// See [`ReviewError`].
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// See [`Limits`].
    #[error("asked too often: once at half of the certificates' time is enough")]
    TooOften,
    /// See [`NodeRequest`].
    #[error("the request was not understood: {0}")]
    Request(#[from] serde_json::Error),
    /// See [`IssueError`].
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// What is kept.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// See [`StoreError`].
    #[error("what is kept cannot be read now")]
    Store(#[from] StoreError),
}

impl Refusal {
    fn outcome(&self) -> (StatusCode, Asked) {
        match self {
            Self::Review(ReviewError::NoToken | ReviewError::Invalid { .. }) => {
                (StatusCode::UNAUTHORIZED, Asked::Refused)
            }
            Self::Review(ReviewError::Kube(_)) | Self::Store(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, Asked::Failed)
            }
            Self::Review(_) => (StatusCode::FORBIDDEN, Asked::Refused),
            Self::TooOften => (StatusCode::TOO_MANY_REQUESTS, Asked::TooOften),
            Self::Request(_) | Self::Issue(IssueError::Request(_)) => (StatusCode::BAD_REQUEST, Asked::Bad),
            Self::Issue(_) | Self::Kept(_) => (StatusCode::INTERNAL_SERVER_ERROR, Asked::Failed),
        }
    }
}

impl Desk {
    /// With the configured limits.
    #[must_use]
    pub(crate) fn new(
        reviewer: Reviewer,
        config: &Nodes,
        store: Store,
        kept: watch::Sender<Arc<Kept>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            reviewer,
            store,
            kept,
            by_address: Limits::new(config.requests_per_minute),
            by_node: Limits::new(config.requests_per_minute),
            config: config.clone(),
            reviews: Semaphore::new(REVIEWS),
            metrics,
        }
    }

    /// Answers, and writes down who was given what; the status says how it went, the text is for a person.
    ///
    /// # Errors
    /// With status and reason, where nothing is given.
    pub(crate) async fn ask(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<NodeAnswer, (StatusCode, String)> {
        let mut agent = None;
        match self.answer(peer, headers, body, &mut agent).await {
            Ok(answer) => {
                self.metrics.asked(Asked::Issued);
                let until = answer.intermediates.iter().map(|one| one.certificate.not_after).min();
                let Agent { node, pod, pod_uid } = agent.unwrap_or(Agent {
                    node: String::new(),
                    pod: String::new(),
                    pod_uid: String::new(),
                });
                tracing::info!(%peer, node, pod, pod_uid, until, "a node was given its certificates");
                Ok(answer)
            }
            Err(refusal) => {
                let (status, asked) = refusal.outcome();
                self.metrics.asked(asked);
                let node = agent.map(|agent| agent.node);
                tracing::warn!(%peer, node, %refusal, "a node was given nothing");
                Err((status, refusal.to_string()))
            }
        }
    }

    async fn answer(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        body: &[u8],
        found: &mut Option<Agent>,
    ) -> Result<NodeAnswer, Refusal> {
        if !self.by_address.admit(&peer.to_string(), Instant::now()) {
            return Err(Refusal::TooOften);
        }
        let header = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let token = header.and_then(|header| header.strip_prefix("Bearer ")).ok_or(ReviewError::NoToken)?;
        let agent = {
            // Closed by nobody.
            let _one = self.reviews.acquire().await.ok();
            self.reviewer.review(token).await?
        };
        let node = agent.node.clone();
        *found = Some(agent);
        if !self.by_node.admit(&node, Instant::now()) {
            return Err(Refusal::TooOften);
        }
        let request: NodeRequest = serde_json::from_slice(body)?;
        // Another replica may have begun a rotation a moment ago: nobody is given what was withdrawn.
        let kept = self.store.look_and_tell(&self.kept).await?;
        issue(&kept, &node, &request, self.config.intermediate_lifetime.0, self.config.client_lifetime.0)
    }
}

fn certificate(issued: Issued) -> Certificate {
    Certificate { certificate: issued.certificate, not_after: issued.not_after }
}

/// Everything that a node gets.
pub(crate) fn issue(
    kept: &Kept,
    node: &str,
    request: &NodeRequest,
    intermediate_lifetime: Duration,
    client_lifetime: Duration,
) -> Result<NodeAnswer, Refusal> {
    let mut intermediates = Vec::new();
    for (class, request) in [(NameClass::Api, &request.api), (NameClass::Databases, &request.databases)] {
        let root = kept.root(class)?;
        let certificate = certificate(root.intermediate(request, node, intermediate_lifetime)?);
        intermediates.push(Intermediate { class, root: root.id(), certificate });
    }
    let uri = format!("verbatim://node/{node}");
    let client = kept.plain(Class::Clients)?.client(&request.client, &uri, client_lifetime)?;
    Ok(NodeAnswer {
        node: node.to_owned(),
        roots: [Class::Api, Class::Databases].map(|class| kept.certificates(class)).concat(),
        intermediates,
        client: certificate(client),
        fingerprint_key: kept.fingerprint_key.clone(),
    })
}
