//! What all scenarios stand on: the cluster, Verbatim on it, and a database outside of any pod.

use std::{collections::HashSet, fs, time::Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use verbatim_tests::{
    audit::Seen,
    cluster::{
        Cluster, Kubectl, NODE,
        google::Google,
        pods::Pod,
        product::{Product, service_on_node},
    },
    did::Did,
    google::{self, Root},
    parts::{self, Part},
    pglog::Logged,
    postgres::{self, Server},
    sets, wait,
};

/// The database's Service.
pub(crate) const DATABASE: &str = "10.246.61.54";
/// Namespace of the clients.
pub(crate) const SHOP: &str = "shop";
/// Namespace whose pods are not injected.
pub(crate) const UNSELECTED: &str = "unselected";
/// A Service for clients that only connect.
pub(crate) const TRAFFIC: &str = "10.246.61.90";
pub(crate) const TRAFFIC_PORT: u16 = 9000;

/// What is steered, as the lab's overlay has it.
const DESTINATIONS: &str = "  - { cidr: 199.36.153.8/30, ports: [443], action: steer }
  - { cidr: 10.246.61.54/32, ports: [5432], action: steer }
  - { cidr: 10.246.61.90/32, ports: [9000], action: steer }
";

/// Everything. Fields are dropped in this order.
pub(crate) struct Stage {
    product: Option<Product>,
    pub(crate) server: Server,
    google: Option<Google>,
    pub(crate) cluster: Cluster,
    /// Of the lab's servers, PEM.
    roots: String,
    /// What was there when the scenario began is not its own.
    before: HashSet<Vec<u8>>,
    logged_before: usize,
    requested_before: usize,
}

impl Stage {
    pub(crate) fn start() -> Result<Self> {
        let begun = Instant::now();
        let cluster = Cluster::start()?;
        eprintln!("the node is ready after {:.1} s", begun.elapsed().as_secs_f64());
        let root = Root::create(&cluster.folder().join("root"), "root of the lab's servers")?;
        let shown = root.issue("database", &[DATABASE, NODE])?;
        let server = cluster.postgres(postgres::Options { shown: Some(&shown), ..Default::default() })?;
        let google = parts::missing(&[Part::Emulator])
            .is_none()
            .then(|| Google::start(&cluster, &root))
            .transpose()?;
        let objects = json!({
            "apiVersion": "v1", "kind": "List",
            "items": [
                {
                    "apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"name": SHOP, "labels": {"verbatim-audit.github.io/capture": "enabled"}},
                },
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": UNSELECTED}},
                account(SHOP),
                account(UNSELECTED),
                service_on_node(SHOP, "database", DATABASE, 5432),
                service_on_node(SHOP, "traffic", TRAFFIC, TRAFFIC_PORT),
            ],
        });
        cluster.kubectl.apply(&flattened(&objects))?;
        let roots = fs::read_to_string(root.certificate())?;
        Ok(Self {
            product: None,
            server,
            google,
            roots,
            cluster,
            before: HashSet::new(),
            logged_before: 0,
            requested_before: 0,
        })
    }

    /// A scenario begins: Verbatim is there, and what is recorded until now is others'.
    pub(crate) fn begin(&mut self, name: &str) -> Result<()> {
        eprintln!("{name}");
        if self.product.is_none() {
            self.install()?;
        }
        self.before = self.product()?.audit().seen()?.into_iter().map(|one| one.record).collect();
        self.logged_before = self.server.complete_log()?.len();
        self.requested_before = self.requests()?.len();
        Ok(())
    }

    /// Has Verbatim installed, on what an installation before it has left.
    pub(crate) fn install(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.product = Some(Product::install(&self.cluster, DESTINATIONS, &self.roots)?);
        eprintln!("Verbatim is ready after {:.1} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    pub(crate) fn product(&self) -> Result<&Product> {
        self.product.as_ref().context("Verbatim is not installed")
    }

    /// Verbatim, to be removed; it is installed again by the next scenario at the latest.
    pub(crate) fn removed(&mut self) -> Result<Product> {
        self.product.take().context("Verbatim is not installed")
    }

    pub(crate) fn kubectl(&self) -> &Kubectl {
        &self.cluster.kubectl
    }

    /// Runs a pod to its end; what its client has printed, and the pod as the API server has it.
    pub(crate) fn run(&self, pod: &Pod) -> Result<(String, Value)> {
        self.kubectl().apply(&pod.manifest()?)?;
        let found = self.kubectl().wait_until_done(&pod.namespace, &pod.name)?;
        Ok((self.kubectl().logs(&pod.namespace, &pod.name, "client")?, found))
    }

    /// What was recorded since the scenario began.
    pub(crate) fn seen(&self) -> Result<Vec<Seen>> {
        let mut seen = self.product()?.audit().seen()?;
        seen.retain(|one| !self.before.contains(&one.record));
        Ok(seen)
    }

    /// What BigQuery's front has seen.
    fn requests(&self) -> Result<Vec<Logged>> {
        let requests = self.google.as_ref().map(Google::requests).transpose()?.unwrap_or_default();
        Ok(requests.iter().filter_map(google::logged).collect())
    }

    /// Waits until what clients did, what is recorded and what the database saw are the same.
    pub(crate) fn agree(&self, did: &[Did]) -> Result<Vec<Seen>> {
        self.agree_by(did, || Ok(self.server.log()?.split_off(self.logged_before)))
    }

    /// The same with what BigQuery saw.
    pub(crate) fn agree_with_google(&self, did: &[Did]) -> Result<Vec<Seen>> {
        self.agree_by(did, || Ok(self.requests()?.split_off(self.requested_before)))
    }

    fn agree_by(&self, did: &[Did], logged: impl Fn() -> Result<Vec<Logged>>) -> Result<Vec<Seen>> {
        wait::until("the three sets to be equal", || {
            let seen = self.seen()?;
            sets::compare(did, &seen, &logged()?)?;
            Ok(Some(seen))
        })
    }

    /// For the report of a failure.
    pub(crate) fn situation(&self) -> String {
        let product = self.product.as_ref().map(Product::situation).unwrap_or_default();
        format!("{}\n{product}", self.cluster.complaints())
    }
}

fn account(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": namespace}})
}

/// Lists within a list are none to the API server.
fn flattened(list: &Value) -> Value {
    let items = list["items"].as_array().into_iter().flatten();
    let items: Vec<Value> = items
        .flat_map(|item| match item["items"].as_array() {
            Some(inner) => inner.clone(),
            None => vec![item.clone()],
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
