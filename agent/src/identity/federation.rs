//! Which project, pool and cluster the node's pods belong to: as configured, else as GKE's metadata server says.

use std::{sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use verbatim_agent_config::Kubernetes;
use verbatim_kube::gke::{self, Platform, is_project};

use super::names::{NameError, Pool, principal};

/// Between two questions while there is no answer: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What a pool's id is made of, beside the project's.
const POOL: &str = ".svc.id.goog";

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Federation {
    /// Of the pool.
    pub project_number: Option<u64>,
    /// Workload identity pool.
    pub pool: Option<Pool>,
    /// `projects/PROJECT/locations/LOCATION/clusters/CLUSTER`, or empty.
    pub cluster: String,
    /// Nothing more is to come, or what there is to ask has failed once.
    pub settled: bool,
}

impl Federation {
    /// What the configuration says, and, where it says nothing, the platform.
    ///
    /// # Errors
    /// The configured pool is none.
    pub fn of(config: &Kubernetes, platform: Option<&Platform>) -> Result<Self, NameError> {
        let project_of =
            |pool: &str| pool.strip_suffix(POOL).filter(|id| is_project(id)).map(ToOwned::to_owned);
        let project = config
            .project
            .clone()
            .or_else(|| config.pool.as_deref().and_then(project_of))
            .or_else(|| platform.map(|platform| platform.project.clone()));
        let pool = match (&config.pool, &project) {
            (Some(pool), _) => Some(pool.parse()?),
            (None, Some(project)) => Some(format!("{project}{POOL}").parse()?),
            (None, None) => None,
        };
        let of = |given: &Option<String>, told: fn(&Platform) -> &String| {
            given.clone().or_else(|| platform.map(|platform| told(platform).clone()))
        };
        let cluster = of(&config.cluster, |platform| &platform.cluster);
        let location = of(&config.location, |platform| &platform.location);
        let cluster = project.zip(location).zip(cluster).map(|((project, location), cluster)| {
            format!("projects/{project}/locations/{location}/clusters/{cluster}")
        });
        let project_number = config.project_number.or(platform.map(|platform| platform.project_number));
        let complete = project_number.is_some() && pool.is_some() && cluster.is_some();
        Ok(Self {
            project_number,
            pool,
            cluster: cluster.unwrap_or_default(),
            settled: complete || platform.is_some(),
        })
    }

    /// See [`principal`]; `None` while project or pool are not known.
    #[must_use]
    pub fn principal(&self, namespace: &str, service_account: &str) -> Option<String> {
        let number = self.project_number?;
        self.pool.as_ref().map(|pool| principal(number, pool, namespace, service_account))
    }
}

/// What is known, for readers.
#[derive(Debug)]
pub struct Federated {
    config: Kubernetes,
    now: ArcSwap<Federation>,
}

impl Federated {
    /// As far as the configuration says.
    ///
    /// # Errors
    /// The configured pool is none.
    pub fn new(config: &Kubernetes) -> Result<Arc<Self>, NameError> {
        let now = ArcSwap::from_pointee(Federation::of(config, None)?);
        Ok(Arc::new(Self { config: config.clone(), now }))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Guard<Arc<Federation>> {
        self.now.load()
    }

    fn learn(&self, platform: &Platform) -> Result<(), NameError> {
        self.now.store(Arc::new(Federation::of(&self.config, Some(platform))?));
        Ok(())
    }

    /// Asks the metadata server until it has answered, where the configuration leaves something open. `changed` is
    /// called after what it learns.
    pub async fn ask(self: Arc<Self>, changed: impl Fn() + Send + 'static) {
        let server = self.config.metadata_server.to_string();
        let mut pause = AGAIN.0;
        while !self.now().settled || !self.complete() {
            match gke::read(&server).await.map(|platform| self.learn(&platform)) {
                Ok(learned) => {
                    match learned {
                        Ok(()) => tracing::info!(cluster = self.now().cluster, "the cluster is known"),
                        Err(error) => tracing::error!(%error, "the metadata server's project has no pool"),
                    }
                    changed();
                    return;
                }
                Err(error) if pause == AGAIN.0 => {
                    tracing::warn!(%error, "project and cluster are not known: give them in `kubernetes`");
                    let unknown = Federation { settled: true, ..Federation::clone(&self.now()) };
                    self.now.store(Arc::new(unknown));
                    changed();
                }
                Err(error) => tracing::debug!(%error, "project and cluster are still not known"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    fn complete(&self) -> bool {
        let now = self.now();
        now.project_number.is_some() && now.pool.is_some() && !now.cluster.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &str) -> Kubernetes {
        let text = format!(
            "apiVersion: verbatim.v1\nkind: NodeAgent\ndestinations: [{{cidr: 10.0.0.0/8, action: steer}}]\n\
             spool: {{directory: /s}}\ncollector: {{address: 'unix:/c'}}\nkubernetes: {{{keys}}}\n\
             selectors: [{{set: {{capture: pass, failMode: open}}}}]"
        );
        let config = verbatim_agent_config::parse(&text, std::path::Path::new("agent.yaml"));
        config.expect("configuration").kubernetes.expect("there")
    }

    fn platform() -> Platform {
        Platform {
            project_number: 7,
            project: "my-project".into(),
            cluster: "shop".into(),
            location: "europe-west6".into(),
        }
    }

    #[test]
    fn the_metadata_server_says_what_the_configuration_does_not() {
        let federation = Federation::of(&config(""), Some(&platform())).expect("pool");
        assert_eq!(
            federation.principal("shop", "checkout").as_deref(),
            Some(
                "principal://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/\
                 my-project.svc.id.goog/subject/ns/shop/sa/checkout"
            )
        );
        assert_eq!(federation.cluster, "projects/my-project/locations/europe-west6/clusters/shop");
        let given = config("projectNumber: 9, pool: other-project.svc.id.goog, cluster: c, location: l");
        let federation = Federation::of(&given, Some(&platform())).expect("pool");
        assert_eq!(federation.project_number, Some(9));
        assert_eq!(federation.cluster, "projects/other-project/locations/l/clusters/c");
        assert_eq!(Federation::of(&given, None).map(|known| known.settled), Ok(true), "nobody is asked");
    }

    #[test]
    fn without_project_there_is_no_principal() {
        let federation = Federation::of(&config("pool: p.svc.id.goog"), None).expect("pool");
        assert_eq!(federation.principal("shop", "checkout"), None);
        assert!(!federation.settled);
        assert!(Federation::of(&config("pool: 'a/b'"), None).is_err());
    }
}
