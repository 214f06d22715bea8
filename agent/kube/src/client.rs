//! How the API server is reached: with the pod's own account, or as a file says.
//!
//! Owns the client and the bound on what an answer may hold in memory.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::{BoxError, timeout::TimeoutLayer, util::MapResponseLayer};

/// What an API server may send between two ends of lines: a list, or one event.
const MOST_BYTES: u64 = 32 << 20;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither.
    #[error("`kubernetes.kubeconfig` is absent, and this is no pod with a service account's token: {0}")]
    NotInCluster(#[source] InClusterError),
    /// The file.
    #[error("`kubernetes.kubeconfig` {path}: {source}")]
    Kubeconfig {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: Box<KubeconfigError>,
    },
    /// What it says.
    #[error("no client for the API server: {0}")]
    Unusable(#[source] Box<kube::Error>),
}

/// An answer begins no later; a watch's, whose end is far, at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client with the account of the file, or of this pod.
///
/// # Errors
/// See [`ClientError`]. The API server is not asked yet.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    patient_client(kubeconfig, PATIENCE).await
}

/// The same, whose questions fail where no answer has begun after `patience`.
///
/// # Errors
/// The same.
pub async fn patient_client(kubeconfig: Option<&Path>, patience: Duration) -> Result<Client, ClientError> {
    let config = match kubeconfig {
        None => Config::incluster().map_err(ClientError::NotInCluster)?,
        Some(path) => {
            let bad = |source| ClientError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(bad)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(bad)?
        }
    };
    with(config, patience).map_err(|error| ClientError::Unusable(Box::new(error)))
}

fn with(config: Config, patience: Duration) -> kube::Result<Client> {
    let builder = ClientBuilder::try_from(config)?;
    let bounded = MapResponseLayer::new(|response: http::Response<_>| {
        response.map(|body| Bounded { body, since_line: 0 })
    });
    Ok(builder.with_layer(&TimeoutLayer::new(patience)).with_layer(&bounded).build())
}

/// A body that ends with an error where a line grows too long.
struct Bounded<B> {
    body: B,
    since_line: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the API server sent more than {MOST_BYTES} bytes at once")]
struct TooMuch;

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let after = data.iter().rev().position(|byte| *byte == b'\n');
            let length = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
            self.since_line = match after {
                Some(after) => length(after),
                None => self.since_line.saturating_add(length(data.len())),
            };
            if self.since_line > MOST_BYTES {
                return Poll::Ready(Some(Err(TooMuch.into())));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
