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
    parts::is_root,
    wait,
};

/// Namespace of all of it.
pub const NAMESPACE: &str = "verbatim";
/// Folder of the cluster's where the collector's pod puts its data: the lab has nobody who makes volumes.
pub const VOLUME: &str = "collector-data";

/// Images of this workspace's binaries.
const AGENT_IMAGE: &str = "localhost/verbatim-agent:lab";
const COLLECTOR_IMAGE: &str = "localhost/verbatim-collector:lab";
const ISSUER_IMAGE: &str = "localhost/verbatim-issuer:lab";

/// Applied manifests.
#[derive(Debug)]
pub struct Product {
    kubectl: Kubectl,
    overlay: PathBuf,
    audit: Audit,
}

impl Product {
    /// Images, certificates, and an overlay; then `kubectl apply -k`, and waiting until all of it is ready.
    /// `roots`, PEM, vouch for the lab's servers: toward the node agent, and as a company's own in every bundle.
    pub fn install(cluster: &Cluster, destinations: &str, roots: &str) -> Result<Self> {
        anyhow::ensure!(is_root(), "a cluster is root's");
        cluster.import(&Image::of(AGENT_IMAGE, &["verbatim-agent"])?)?;
        cluster.import(&Image::of(COLLECTOR_IMAGE, &["verbatim-collector", "verbatim"])?)?;
        cluster.import(&Image::of(ISSUER_IMAGE, &["verbatim-issuer"])?.with_roots())?;
        let kubectl = cluster.kubectl.clone();
        let overlay = overlay(cluster, destinations, roots)?;
        volume(cluster)?;
        let product = Self { kubectl, overlay, audit: Audit::new(PathBuf::new())? };
        product.apply()?;
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

    /// Takes out of the node agent's file what a metadata server says as well.
    pub fn forget_platform(&self) -> Result<()> {
        let mut left = kubernetes();
        if let Some(left) = left.as_object_mut() {
            left.retain(|key, _| matches!(key.as_str(), "labels" | "resolveTimeout"));
        }
        self.configure(&kubernetes().to_string(), &left.to_string())
    }

    /// From now on an issuer's signed tokens say on whose behalf workloads act; `keys` is its JWKS.
    pub fn believe(&self, issuer: &str, audience: &str, keys: &str) -> Result<()> {
        let at = self.overlay.join("kustomization.yaml");
        let text = fs::read_to_string(&at)?;
        fs::write(self.overlay.join("issuer-keys.json"), keys)?;
        fs::write(&at, text.replace("lab-roots.pem]", "lab-roots.pem, issuer-keys.json]"))?;
        let one = json!({"issuer": issuer, "audiences": [audience], "jwks": {"file": "/etc/verbatim/issuer-keys.json"}});
        self.configure("spool:\n", &format!("onBehalfOf: {}\nspool:\n", json!({"issuers": [one]})))?;
        self.restart_agent()
    }

    /// Deletes the node agent's pod and waits for the one in its place.
    pub fn restart_agent(&self) -> Result<()> {
        let before = self.agent()?;
        let name = before["metadata"]["name"].as_str().context("a pod without a name")?;
        self.kubectl.delete("pod", NAMESPACE, name)?;
        // The DaemonSet's own numbers may still be of the pod that is gone.
        let another = wait::until("another pod of the node agent", || {
            let pod = self.agent().ok().filter(|pod| pod["metadata"]["uid"] != before["metadata"]["uid"]);
            Ok(pod.and_then(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)))
        })?;
        self.kubectl.wait_until_ready(NAMESPACE, &another).with_context(|| self.situation())?;
        self.wait_until_ready()
    }

    /// Waits until each part is.
    pub fn wait_until_ready(&self) -> Result<()> {
        wait::until("all parts to be ready", || {
            let agent = self.kubectl.get("daemonset", NAMESPACE, "verbatim-agent")?;
            let collector = self.kubectl.get("statefulset", NAMESPACE, "verbatim-collector")?;
            let issuer = self.kubectl.get("deployment", NAMESPACE, "verbatim-issuer")?;
            let ready = agent["status"]["numberReady"] == 1
                && collector["status"]["readyReplicas"] == 1
                && issuer["status"]["readyReplicas"] == issuer["spec"]["replicas"];
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
}

/// Id of the first process of a pod's container, as the harness sees it.
pub fn process(cluster: &Cluster, pod: &Value, container: &str) -> Result<u32> {
    let id = container_id(pod, container)?;
    let group = pod_cgroup(cluster, pod)?.map(|group| group.join(&id)).filter(|path| path.is_dir());
    let group = group.with_context(|| format!("no cgroup of container {id}"))?;
    let all = cgroup::processes(&group)?;
    all.first().copied().with_context(|| format!("no process in {}", group.display()))
}

/// The cgroup that the kubelet has made for a pod, if it has.
pub fn pod_cgroup(cluster: &Cluster, pod: &Value) -> Result<Option<PathBuf>> {
    let uid = pod["metadata"]["uid"].as_str().context("a pod without a UID")?;
    let root = cluster.pods_cgroup()?;
    let mut groups =
        ["burstable", "besteffort", ""].iter().map(|class| root.join(class).join(format!("pod{uid}")));
    Ok(groups.find(|path| path.is_dir()))
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
fn overlay(cluster: &Cluster, destinations: &str, roots: &str) -> Result<PathBuf> {
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
    fs::write(overlay.join("lab-roots.pem"), roots)?;
    fs::write(overlay.join("issuer.yaml"), issuer(roots))?;
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
    let after = after.replace("system: true }", "system: false, files: [/etc/verbatim/lab-roots.pem] }");
    Ok(format!("{before}destinations:\n{destinations}selectors:{after}"))
}

fn kubernetes() -> Value {
    json!({
        "projectNumber": PROJECT_NUMBER, "pool": POOL, "project": "lab-project", "cluster": "lab",
        "location": "europe-west6", "labels": ["app"], "resolveTimeout": "30s",
    })
}

const KUSTOMIZATION: &str = "\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
bases: [../deploy]
images:
  - { name: verbatim-agent, newName: localhost/verbatim-agent, newTag: lab }
  - { name: verbatim-collector, newName: localhost/verbatim-collector, newTag: lab }
  - { name: verbatim-issuer, newName: localhost/verbatim-issuer, newTag: lab }
configMapGenerator:
  - name: verbatim-agent
    namespace: verbatim
    behavior: replace
    files: [node-agent.yaml, lab-roots.pem]
patchesStrategicMerge: [agent.yaml, service.yaml, issuer.yaml]
patchesJson6902:
  - path: update.yaml
    target: { group: apps, version: v1, kind: DaemonSet, name: verbatim-agent, namespace: verbatim }
";

/// No DNS here: Services have given addresses.
const AGENT: &str = "\
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: verbatim-agent, namespace: verbatim }
spec:
  template:
    spec:
      hostAliases:
        - { ip: 10.246.61.74, hostnames: [verbatim-collector.verbatim.svc] }
        - { ip: 10.246.61.75, hostnames: [verbatim-issuer.verbatim.svc] }
";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: { name: verbatim-collector, namespace: verbatim }
spec: { clusterIP: 10.246.61.74 }
---
apiVersion: v1
kind: Service
metadata: { name: verbatim-issuer, namespace: verbatim }
spec: { clusterIP: 10.246.61.75 }
";

/// The issuer's own file as it is shipped, with a company's roots.
fn issuer(roots: &str) -> String {
    let shipped = include_str!("../../../docs/deploy/issuer.yaml");
    let file = shipped.lines().skip_while(|line| line.trim() != "issuer.yaml: |").skip(1);
    let file: String =
        file.take_while(|line| line.starts_with("    ")).map(|line| format!("{line}\n")).collect();
    let file = file.replace("extraRoots: []", "extraRoots: [/etc/verbatim/lab-roots.pem]");
    let roots: String = roots.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: verbatim-issuer, namespace: verbatim }}\ndata:\n  \
         issuer.yaml: |\n{file}  lab-roots.pem: |\n{roots}"
    )
}

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
