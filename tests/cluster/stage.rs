//! What all scenarios stand on: the cluster, Verbatim on it, and a database outside of any pod.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use verbatim_tests::{
    audit::Seen,
    cluster::{
        Cluster, Kubectl,
        pods::Pod,
        product::{Product, service_on_node},
    },
    did::Did,
    postgres::Server,
    sets,
};

/// The database's Service.
pub(crate) const DATABASE: &str = "10.246.61.54";
/// Namespace of the clients.
pub(crate) const SHOP: &str = "shop";
/// A Service for clients that only connect.
pub(crate) const TRAFFIC: &str = "10.246.61.90";
pub(crate) const TRAFFIC_PORT: u16 = 9000;

/// What is steered, as the lab's overlay has it.
const DESTINATIONS: &str = "  - { cidr: 10.246.61.54/32, ports: [5432], action: steer }
  - { cidr: 10.246.61.90/32, ports: [9000], action: steer }
";

/// Everything. Fields are dropped in this order.
pub(crate) struct Stage {
    product: Option<Product>,
    pub(crate) server: Server,
    pub(crate) cluster: Cluster,
    /// What was there when the scenario began is not its own.
    before: HashSet<Vec<u8>>,
    logged_before: usize,
}

impl Stage {
    pub(crate) fn start() -> Result<Self> {
        let begun = Instant::now();
        let cluster = Cluster::start()?;
        println!("the node is ready after {:.1} s", begun.elapsed().as_secs_f64());
        let server = cluster.postgres(Default::default())?;
        let objects = json!({
            "apiVersion": "v1", "kind": "List",
            "items": [
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}},
                account("reader"),
                account("writer"),
                service_on_node(SHOP, "database", DATABASE, 5432),
                service_on_node(SHOP, "traffic", TRAFFIC, TRAFFIC_PORT),
            ],
        });
        cluster.kubectl.apply(&flattened(&objects))?;
        Ok(Self { product: None, server, cluster, before: HashSet::new(), logged_before: 0 })
    }

    /// A scenario begins: Verbatim is there, and what is recorded until now is others'.
    pub(crate) fn begin(&mut self, name: &str) -> Result<()> {
        println!("{name}");
        if self.product.is_none() {
            self.install()?;
        }
        self.before = self.product()?.audit().seen()?.into_iter().map(|one| one.record).collect();
        self.logged_before = self.server.log()?.len();
        Ok(())
    }

    /// Has Verbatim installed, on what an installation before it has left.
    pub(crate) fn install(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.product = Some(Product::install(&self.cluster, DESTINATIONS)?);
        println!("Verbatim is ready after {:.1} s", begun.elapsed().as_secs_f64());
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

    /// Waits until what clients did, what is recorded and what the server saw are the same.
    pub(crate) fn agree(&self, did: &[Did]) -> Result<Vec<Seen>> {
        const LIMIT: Duration = Duration::from_secs(30);
        let begun = Instant::now();
        loop {
            let seen = self.seen()?;
            let logged = self.server.log()?;
            let logged = logged.get(self.logged_before..).unwrap_or_default();
            match sets::compare(did, &seen, logged) {
                Ok(()) => return Ok(seen),
                Err(differences) if begun.elapsed() > LIMIT => return Err(differences.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// For the report of a failure.
    pub(crate) fn situation(&self) -> String {
        let product = self.product.as_ref().map(Product::situation).unwrap_or_default();
        format!("{}\n{product}", self.cluster.complaints())
    }
}

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SHOP}})
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
