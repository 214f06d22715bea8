//! A node with its cgroups, an API server that tells of its pods, a server to connect to, and a collector.

use std::{fs, net::SocketAddr};

use libtest_mimic::Failed;
use serde_json::{Value, json};
use verbatim_api::v1;

use super::super::{
    serving::{Tree, configuration, ends, serve_as, stop},
    world::asked,
};
use crate::{
    Outcome,
    api_server::Server,
    collector::{Collector, Manner, socket},
    postgres::echo_server,
    support::{Bench, Guard, ended, ensure, until},
    workload::{WORKLOAD, program},
};

/// One pod's, and that of another with the same name.
pub(super) const UID: &str = "0f6e7c1a-2b3c-4d5e-8f90-a1b2c3d4e5f6";
pub(super) const OTHER: &str = "1f6e7c1a-2b3c-4d5e-8f90-a1b2c3d4e5f6";

/// A container's or an image's, of one digit.
pub(super) fn id(digit: &str) -> String {
    digit.repeat(64)
}

/// A pod as the API server stores it, of one container.
pub(super) fn pod(uid: &str, container: &str, app: &str) -> Value {
    json!({
        "metadata": {"name": "checkout-5d9-x", "namespace": "shop", "uid": uid, "labels": {"app": app},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-5d9",
                "uid": "22222222-2222-4222-8222-222222222222", "controller": true}]},
        "spec": {"nodeName": "node-1", "serviceAccountName": "checkout",
            "containers": [{"name": "app", "image": "registry.example/checkout:7"}]},
        "status": {"containerStatuses": [{"name": "app", "image": "i", "ready": true, "restartCount": 0,
            "imageID": format!("registry.example/checkout@sha256:{}", id("d")),
            "containerID": format!("containerd://{container}")}]},
    })
}

/// All of it, but the agent.
pub(super) struct World {
    pub(super) bench: Bench,
    pub(super) tree: Tree,
    pub(super) api: Server,
    pub(super) collector: Collector,
    /// Where the server is that workloads connect to.
    pub(super) address: String,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    pub(super) fn new() -> Result<Self, Failed> {
        let bench = Bench::new();
        let tree = Tree::new(&bench)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let api = runtime.block_on(Server::start());
        let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
        Ok(Self { bench, tree, api, collector, address: echo_server()?.to_string(), _runtime: runtime })
    }

    /// As of `serving`, named by the API server at this port.
    pub(super) fn configuration(&self, port: u16, timeout: &str) -> Result<String, Failed> {
        let kubeconfig = self.bench.path("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(&kubeconfig, text.to_string())?;
        let base = configuration(&self.bench, &self.tree, None);
        let (before, after) = base.split_once("selectors:").ok_or("no selectors")?;
        let (_, after) = after.split_once("spool:").ok_or("no spool")?;
        Ok(format!(
            "{before}kubernetes: {{nodeName: node-1, kubeconfig: {}, cgroupRoot: {}, projectNumber: 7, \
             project: my-project, cluster: c, location: l, labels: [app], resolveTimeout: {timeout}}}\n\
             selectors:\n- {{match: {{podLabels: {{app: spared}}}}, set: {{capture: pass, failMode: open}}}}\n\
             - {{match: {{namespace: shop}}, set: {{capture: steer, failMode: open}}}}\nspool:{after}",
            kubeconfig.display(),
            self.tree.name(),
        ))
    }

    /// An agent that waits for names as long as this.
    pub(super) fn serve(&self, timeout: &str) -> Result<Guard, Failed> {
        self.serve_as(&self.configuration(self.api.port, timeout)?)
    }

    pub(super) fn serve_as(&self, configuration: &str) -> Result<Guard, Failed> {
        serve_as(&self.bench, &self.tree, configuration)
    }

    /// The same, and where its metrics are.
    pub(super) fn serve_metrics(&self, timeout: &str) -> Result<(Guard, SocketAddr), Failed> {
        let metrics = verbatim_missing::port::free()?;
        let usual = self.configuration(self.api.port, timeout)?;
        Ok((self.serve_as(&format!("{usual}metrics: {{listen: '{metrics}'}}\n"))?, metrics))
    }

    pub(super) fn stop(&self, agent: Guard) -> Outcome {
        stop(&self.bench, agent)
    }

    /// Makes a container's cgroup as a kubelet does; its path below the tree.
    pub(super) fn container(&self, uid: &str, container: &str) -> Result<String, Failed> {
        let below = format!("kubepods/burstable/pod{uid}/{container}");
        fs::create_dir_all(self.tree.path(&below))?;
        Ok(below)
    }

    /// A process in this cgroup is answered by the server.
    pub(super) fn echo(&self, below: &str) -> Outcome {
        let arguments = [WORKLOAD, "echo", &self.address];
        let (code, stdout, stderr) = ended(&mut self.tree.command(below, &program(), &arguments))?;
        ensure(code == Some(0), || format!("in {below}: {code:?}: {stdout}{stderr}"))
    }

    /// Of the connections that the collector got.
    pub(super) fn workloads(&self) -> Vec<v1::Workload> {
        ends(&self.collector).into_iter().map(|envelope| envelope.workload.unwrap_or_default()).collect()
    }
}

/// Waits until a metric has this value.
pub(super) fn until_metric(address: SocketAddr, line: &str) -> Outcome {
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    until(line, || asked(address, request).is_ok_and(|(_, page)| page.lines().any(|found| found == line)))
}
