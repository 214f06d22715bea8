//! The keys of the configuration that say which cluster a node belongs to, and what is read of its pods.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;
use verbatim_config::Span;

/// Where pods are named by the API server.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// Name of this node in the cluster; the environment's `NODE_NAME` where it is absent.
    pub node_name: Option<String>,
    /// How the API server is reached; where it is absent, as this pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Google Cloud project number of the workload identity pool. This and what follows: GKE's metadata server says it
    /// where it is absent.
    pub project_number: Option<u64>,
    /// Google Cloud project id of the cluster.
    pub project: Option<String>,
    /// Workload identity pool; `PROJECT.svc.id.goog` where it is absent.
    pub pool: Option<String>,
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// Its region or zone.
    pub location: Option<String>,
    /// GKE's metadata server.
    #[serde(default = "default_metadata_server")]
    pub metadata_server: SocketAddr,
    /// Labels of pods that are kept in records.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How long a connection waits for its pod to be known.
    #[serde(default = "default_resolve_timeout")]
    pub resolve_timeout: Span,
    /// The kubelet's `--cgroup-root`, relative to where cgroup v2 is mounted; where it is absent, pods are looked for
    /// at the root and below `kubelet` and `kubelet.slice`.
    pub cgroup_root: Option<String>,
}

fn default_metadata_server() -> SocketAddr {
    ([169, 254, 169, 254], 80).into()
}

fn default_resolve_timeout() -> Span {
    Span(Duration::from_secs(2))
}

/// Longest time that a connection may be kept waiting for its name.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Kubernetes {
    /// What no single key can tell.
    pub(super) fn check(&self) -> Result<(), String> {
        let empty = |text: &Option<String>| text.as_deref() == Some("");
        for (key, value) in [
            ("nodeName", &self.node_name),
            ("project", &self.project),
            ("pool", &self.pool),
            ("cluster", &self.cluster),
            ("location", &self.location),
        ] {
            if empty(value) {
                return Err(format!("`kubernetes.{key}` is empty: give it, or leave the key out"));
            }
        }
        if self.project_number == Some(0) {
            return Err("`kubernetes.projectNumber` is 0: give it, or leave the key out".into());
        }
        if self.resolve_timeout.0 > LONGEST_WAIT {
            let longest = LONGEST_WAIT.as_secs();
            return Err(format!(
                "`kubernetes.resolveTimeout` keeps connections waiting too long: {longest}s at most"
            ));
        }
        Ok(())
    }
}
