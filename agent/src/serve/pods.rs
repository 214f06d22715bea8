//! Who tells `serve` of pods: the API server and GKE's metadata server, each in a task of its own.

use std::sync::Arc;

use verbatim_agent_config::{Kubernetes, NodeAgent};
use verbatim_kube::{ClientError, Keep, Pace, Store};

use crate::{
    identity::{Federated, NameError, Pods},
    workloads::Nudge,
};

/// Where a pod's manifest says which node it is on.
const NODE_NAME: &str = "NODE_NAME";

/// Why pods cannot be named.
#[derive(Debug, thiserror::Error)]
pub(super) enum PodsError {
    /// Neither.
    #[error(
        "`kubernetes.nodeName` is absent, and so is NODE_NAME in the environment: give one, e.g. by `fieldRef: \
         {{fieldPath: spec.nodeName}}`"
    )]
    NoNode,
    /// See [`Pool`](crate::identity::Pool).
    #[error("`kubernetes.pool` or `kubernetes.project`: {0}")]
    Pool(#[from] NameError),
    /// See [`ClientError`].
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Name of this node in the cluster.
pub(super) fn node_name(kubernetes: &Kubernetes) -> Result<String, PodsError> {
    let environment = || std::env::var(NODE_NAME).ok().filter(|name| !name.is_empty());
    kubernetes.node_name.clone().or_else(environment).ok_or(PodsError::NoNode)
}

/// What the file alone can tell, wherever it is read.
pub(super) fn check(config: &NodeAgent) -> Result<(), PodsError> {
    config.kubernetes.as_ref().map(Federated::new).transpose()?;
    Ok(())
}

/// Starts to ask, where the configuration says so.
pub(super) async fn start(config: &NodeAgent, nudge: &Arc<Nudge>) -> Result<Option<Pods>, PodsError> {
    let Some(kubernetes) = &config.kubernetes else { return Ok(None) };
    let node = node_name(kubernetes)?;
    let federated = Federated::new(kubernetes)?;
    let client = verbatim_kube::client(kubernetes.kubeconfig.as_deref()).await?;
    let changed = Arc::clone(nudge);
    let store = Store::new(move || changed.renew());
    let selected = config.selectors.iter().flat_map(|selector| selector.matching.pod_labels.keys());
    let mut labels: Vec<String> = kubernetes.labels.iter().chain(selected).cloned().collect();
    labels.sort_unstable();
    labels.dedup();
    let keep = Keep { node, labels };
    tokio::spawn(verbatim_kube::follow(client, keep, Pace::default(), Arc::clone(&store)));
    let changed = Arc::clone(nudge);
    tokio::spawn(Arc::clone(&federated).ask(move || changed.renew()));
    Ok(Some(Pods { store, federated }))
}
