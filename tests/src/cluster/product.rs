//! Verbatim on the cluster, by the very manifests of docs/deploy: with the lab's images and with what an overlay of
//! anybody's would patch.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Cluster, Image, Kubectl, NODE};
use crate::{
    agent::{POOL, PROJECT_NUMBER},
    asking::Audit,
    cgroup,
    google::Root,
    parts::is_root,
    wait,
};

/// Namespace of all of it.
pub const NAMESPACE: &str = "verbatim";
/// The collector's Service; its address is given, for the lab has no DNS.
const COLLECTOR: &str = "10.246.61.74";
/// Where the collector's pod puts its data: the lab has nobody who makes volumes.
const VOLUME: &str = "collector-data";

/// Images of this workspace's binaries.
const AGENT_IMAGE: &str = "localhost/verbatim-agent:lab";
const COLLECTOR_IMAGE: &str = "localhost/verbatim-collector:lab";

/// Applied manifests.
#[derive(Debug)]
pub struct Product {
    kubectl: Kubectl,
    overlay: PathBuf,
    audit: Audit,
}

impl Product {
    /// Images, certificates, and an overlay; then `kubectl apply -k`, and waiting until all of it is ready.
    pub fn install(cluster: &Cluster, destinations: &str) -> Result<Self> {
        anyhow::ensure!(is_root(), "a cluster is root's");
        cluster.import(&Image::of(AGENT_IMAGE, &["verbatim-agent"])?)?;
        cluster.import(&Image::of(COLLECTOR_IMAGE, &["verbatim-collector", "verbatim"])?)?;
        let kubectl = cluster.kubectl.clone();
        let overlay = overlay(cluster, destinations)?;
        volume(cluster)?;
        let product = Self { kubectl, overlay, audit: Audit::new(PathBuf::new())? };
        product.apply()?;
        product.secrets(cluster)?;
        product.wait_until_ready()?;
        let socket = product.audit_socket(cluster)?;
        Ok(Self { audit: Audit::new(socket)?, ..product })
    }

    /// `kubectl apply -k` of the lab's overlay.
    pub fn apply(&self) -> Result<()> {
        self.kubectl.run(&["apply", "-k", &self.overlay.display().to_string()]).map(drop)
    }

    /// `kubectl delete -k` of the same, to the end.
    pub fn delete(&self) -> Result<()> {
        let overlay = self.overlay.display().to_string();
        self.kubectl.run(&["delete", "-k", &overlay, "--ignore-not-found", "--wait=true"]).map(drop)
    }

    /// Changes the node agent's file, and applies it. A pod that runs goes on with what it has.
    pub fn configure(&self, from: &str, to: &str) -> Result<()> {
        let file = self.overlay.join("node-agent.yaml");
        let text = fs::read_to_string(&file)?;
        anyhow::ensure!(text.contains(from), "the node agent's file says nowhere {from:?}");
        fs::write(&file, text.replace(from, to))?;
        self.apply()
    }

    /// Deletes the node agent's pod and waits for the one in its place.
    pub fn restart_agent(&self) -> Result<()> {
        let before = self.agent()?;
        let name = before["metadata"]["name"].as_str().context("a pod without a name")?;
        self.kubectl.delete("pod", NAMESPACE, name)?;
        self.wait_until_ready()
    }

    /// Waits until each part is.
    pub fn wait_until_ready(&self) -> Result<()> {
        wait::until("the node agent and the collector to be ready", || {
            let agent = self.kubectl.get("daemonset", NAMESPACE, "verbatim-agent")?;
            let collector = self.kubectl.get("statefulset", NAMESPACE, "verbatim-collector")?;
            let ready = agent["status"]["numberReady"] == 1 && collector["status"]["readyReplicas"] == 1;
            Ok(ready.then_some(()))
        })
        .with_context(|| self.situation())
    }

    /// What its pods say, for the report of a failure.
    #[must_use]
    pub fn situation(&self) -> String {
        let mut all = self.kubectl.run(&["get", "pods", "-A", "-o", "wide"]).unwrap_or_default();
        for pod in self.kubectl.list("pod", NAMESPACE, "app").unwrap_or_default() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let said = self.kubectl.run(&["logs", "-n", NAMESPACE, name, "--tail=25"]).unwrap_or_default();
            let states = &pod["status"]["containerStatuses"];
            all.push_str(&format!("{name}: {states}\n{said}\n"));
        }
        all.push_str(&self.kubectl.run(&["get", "events", "-n", NAMESPACE]).unwrap_or_default());
        all
    }

    /// Questions to the collector, by its socket in the pod.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The same as people ask: the command line in the collector's pod, as JSON, one object a line.
    pub fn verbatim(&self, arguments: &[&str]) -> Result<String> {
        let command = [&["verbatim"], arguments].concat();
        self.kubectl.exec(NAMESPACE, "verbatim-collector-0", &command)
    }

    /// The one pod of the node agent's DaemonSet.
    pub fn agent(&self) -> Result<Value> {
        self.pod("app=verbatim-agent")
    }

    fn pod(&self, selector: &str) -> Result<Value> {
        let mut pods = self.kubectl.list("pod", NAMESPACE, selector)?;
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pods.into_iter().next().with_context(|| format!("no pod {selector}"))
    }

    /// The pod's own socket, through one of its processes.
    fn audit_socket(&self, cluster: &Cluster) -> Result<PathBuf> {
        let pod = self.pod("app=verbatim-collector")?;
        let process = process(cluster, &pod, "collector")?;
        Ok(PathBuf::from(format!("/proc/{process}/root/run/verbatim/audit.sock")))
    }

    /// What nobody issues yet: the collector's certificate and the node's, of an authority of the lab's own.
    fn secrets(&self, cluster: &Cluster) -> Result<()> {
        let root = Root::create(&cluster.folder().join("ingest"), "ingest of the lab")?;
        let authority = fs::read_to_string(root.certificate())?;
        let names = ["verbatim-collector.verbatim.svc", COLLECTOR];
        for (name, shown) in [
            ("verbatim-collector-tls", root.issue("collector", &names)?),
            ("verbatim-agent-tls", root.issue("agent", &["node1"])?),
        ] {
            self.kubectl.apply(&json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "stringData": {
                    "ca.crt": authority,
                    "tls.crt": fs::read_to_string(&shown.certificate)?,
                    "tls.key": fs::read_to_string(&shown.key)?,
                },
            }))?;
        }
        Ok(())
    }
}

/// Id of the first process of a pod's container, as the harness sees it.
pub fn process(cluster: &Cluster, pod: &Value, container: &str) -> Result<u32> {
    let id = container_id(pod, container)?;
    let uid = pod["metadata"]["uid"].as_str().context("a pod without a UID")?;
    let root = cluster.pods_cgroup()?;
    let group = ["burstable", "besteffort", ""]
        .iter()
        .map(|class| root.join(class).join(format!("pod{uid}")).join(&id))
        .find(|path| path.is_dir())
        .with_context(|| format!("no cgroup of container {id}"))?;
    let all = cgroup::processes(&group)?;
    all.first().copied().with_context(|| format!("no process in {}", group.display()))
}

/// The runtime's id of a pod's container.
pub fn container_id(pod: &Value, container: &str) -> Result<String> {
    let kinds = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let statuses = kinds.iter().filter_map(|kind| pod["status"][kind].as_array()).flatten();
    let id = statuses
        .filter(|status| status["name"] == container)
        .find_map(|status| status["containerID"].as_str()?.split_once("://"));
    id.map(|(_, id)| id.to_owned()).with_context(|| format!("container {container} has no id yet"))
}

/// A volume for the collector's claim.
fn volume(cluster: &Cluster) -> Result<()> {
    // The claim of an installation before this one holds it for ever.
    cluster.kubectl.delete("persistentvolume", "", VOLUME)?;
    let path = cluster.folder().join(VOLUME);
    fs::create_dir_all(&path)?;
    // kubelet gives no group to volumes of this kind.
    std::os::unix::fs::chown(&path, Some(65532), Some(65532))?;
    cluster.kubectl.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": VOLUME},
        "spec": {
            "capacity": {"storage": "50Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": path, "type": "Directory"},
        },
    }))
}

/// A copy of docs/deploy, and beside it an overlay of it.
fn overlay(cluster: &Cluster, destinations: &str) -> Result<PathBuf> {
    let base = cluster.folder().join("deploy");
    let overlay = cluster.folder().join("overlay");
    for folder in [&base, &overlay] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy");
    for entry in fs::read_dir(&source).with_context(|| format!("cannot read {}", source.display()))? {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            fs::copy(&path, base.join(name))?;
        }
    }
    let agent = fs::read_to_string(source.join("cluster-agent.yaml"))?;
    fs::write(overlay.join("node-agent.yaml"), lab_configuration(&agent, destinations)?)?;
    fs::write(overlay.join("kustomization.yaml"), KUSTOMIZATION)?;
    fs::write(overlay.join("agent.yaml"), AGENT)?;
    fs::write(overlay.join("service.yaml"), SERVICE)?;
    fs::write(overlay.join("update.yaml"), UPDATE)?;
    Ok(overlay)
}

/// What records call the cluster.
pub const CLUSTER: &str = "projects/lab-project/locations/europe-west6/clusters/lab";

/// The node agent's file, with what differs here: kubelet's other driver, what a metadata server would say, a machine
/// so busy that kubelet takes its time to report containers, and the lab's destinations.
fn lab_configuration(shipped: &str, destinations: &str) -> Result<String> {
    let (before, rest) =
        shipped.split_once("destinations:\n").context("cluster-agent.yaml has no destinations")?;
    let (_, after) = rest.split_once("selectors:").context("cluster-agent.yaml has no selectors")?;
    let before = before
        .replace("kubepods.slice", "kubepods")
        .replace("kubernetes: {}", &format!("kubernetes: {}", kubernetes()))
        .replace("kind: NodeAgent", "kind: NodeAgent\nnode: node1");
    Ok(format!("{before}destinations:\n{destinations}selectors:{after}"))
}

fn kubernetes() -> Value {
    json!({
        "projectNumber": PROJECT_NUMBER, "pool": POOL, "project": "lab-project", "cluster": "lab",
        "location": "europe-west6", "labels": ["app"], "resolveTimeout": "20s",
    })
}

const KUSTOMIZATION: &str = "\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: verbatim
bases: [../deploy]
images:
  - { name: verbatim-agent, newName: localhost/verbatim-agent, newTag: lab }
  - { name: verbatim-collector, newName: localhost/verbatim-collector, newTag: lab }
configMapGenerator:
  - name: verbatim-agent
    behavior: replace
    files: [node-agent.yaml]
patchesStrategicMerge: [agent.yaml, service.yaml]
patchesJson6902:
  - path: update.yaml
    target: { group: apps, version: v1, kind: DaemonSet, name: verbatim-agent, namespace: verbatim }
";

/// No DNS here.
const AGENT: &str = "\
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: verbatim-agent, namespace: verbatim }
spec:
  template:
    spec:
      hostAliases:
        - { ip: 10.246.61.74, hostnames: [verbatim-collector.verbatim.svc] }
";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: { name: verbatim-collector, namespace: verbatim }
spec: { clusterIP: 10.246.61.74 }
";

/// Kubernetes 1.20 has no `maxSurge` for DaemonSets.
const UPDATE: &str = "\
- op: replace
  path: /spec/updateStrategy
  value: { type: OnDelete }
";

/// A Service with a given address for what listens on the node itself, outside of any pod.
pub fn service_on_node(namespace: &str, name: &str, address: &str, port: u16) -> Value {
    let metadata = json!({"name": name, "namespace": namespace});
    json!({
        "apiVersion": "v1", "kind": "List",
        "items": [
            {
                "apiVersion": "v1", "kind": "Service", "metadata": metadata,
                "spec": {"clusterIP": address, "ports": [{"port": port}]},
            },
            {
                "apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
                "subsets": [{"addresses": [{"ip": NODE}], "ports": [{"port": port}]}],
            },
        ],
    })
}
