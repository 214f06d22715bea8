//! A real Kubernetes node: control plane, kubelet, containerd and kube-proxy as processes of the harness's, in a
//! network and a mount namespace of their own, so that neither the machine's firewall nor its folders see any of it.
//!
//! Only one can be on a machine at a time: kubelet's cgroups have names that it cannot be talked out of.

pub mod google;
pub mod image;
pub mod kubectl;
pub mod pods;
pub mod product;

mod control;
mod keys;
mod lock;
mod node;
mod surroundings;

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{
    cgroup::{self, Tree},
    folder::Folder,
    name,
    netns::Namespace,
    parts, postgres,
    process::Place,
    reaper::Guard,
    undo::Leftover,
};
pub use control::Control;
pub use image::Image;
use keys::Keys;
pub use kubectl::Kubectl;
use lock::Lock;
use node::Node;

/// The node's own address, also the API server's.
pub const NODE: &str = "10.247.61.1";
/// Where Services get their addresses.
pub const SERVICES: &str = "10.246.61.0/24";
/// Of the `kubernetes` Service, always the first.
pub const API_SERVICE: &str = "10.246.61.1";
/// Where pods get theirs.
pub const PODS: &str = "10.245.61.0/24";
/// What the node is called.
pub const NODE_NAME: &str = "node1";

/// Folder in which set-up keeps Kubernetes's programs.
#[must_use]
pub fn programs() -> std::path::PathBuf {
    parts::cache().parent().map(|cache| cache.join("kubernetes")).unwrap_or_default()
}

/// Why a node cannot be had on this machine.
#[must_use]
pub fn missing() -> Option<String> {
    const BESIDE: [&str; 9] =
        ["etcd", "containerd", "ctr", "runc", "iptables", "conntrack", "busybox", "unshare", "openssl"];
    let absent = BESIDE.iter().find(|program| crate::shell::which(program).is_none());
    if let Some(program) = absent {
        return Some(format!("{program} is not installed: cargo xtask setup does that where it can"));
    }
    if !Path::new(node::CNI).join("ptp").is_file() {
        return Some("the CNI plugins are not installed: cargo xtask setup does that".to_owned());
    }
    if !programs().join("version").is_file() {
        let folder = programs().display().to_string();
        return Some(format!("{folder} does not hold Kubernetes: cargo xtask setup builds it where it can"));
    }
    // A harness that ends takes them with it; whose they are otherwise cannot be told.
    (Path::new("/var/lib/kubelet/config.yaml").exists())
        .then(|| "this machine is a Kubernetes node already, and there can be one only".to_owned())
}

/// The cluster. Fields are dropped in this order.
#[derive(Debug)]
pub struct Cluster {
    /// Orders to it.
    pub kubectl: Kubectl,
    // kubelet first: it would start pods again.
    node: Node,
    _pods: Vec<Guard>,
    control: Control,
    tree: Tree,
    _pins: Guard,
    _mount_points: Vec<Guard>,
    namespace: Namespace,
    folder: Folder,
    name: String,
    _lock: Lock,
}

impl Cluster {
    /// Starts one, and waits until its node is ready.
    pub fn start() -> Result<Self> {
        let lock = Lock::take()?;
        let name = name::unique("cluster");
        let folder = Folder::create(&name)?;
        let namespace = Namespace::create(format!("{name}-node"))?;
        surroundings::network(&namespace)?;
        let pins = Guard::new(Leftover::Pins(PINS.to_owned()))?;
        let mount_points = surroundings::mount_points()?;
        let tree = Tree::create(&name)?;
        let pods = surroundings::pod_cgroups()?;
        let keys = Keys::create(folder.path().join("keys"))?;
        let place = |what: &str| -> Result<Place> {
            Ok(Place::within(tree.make(what)?, &namespace, folder.path()).without_hosts())
        };
        let control = Control::start(&place, folder.path(), &keys)?;
        let kubectl = Kubectl::new(&namespace, folder.path(), keys.kubeconfig("admin"));
        let node = Node::start(&place, folder.path(), &keys)?;
        let cluster = Self {
            kubectl,
            _pods: pods,
            node,
            control,
            tree,
            _pins: pins,
            _mount_points: mount_points,
            namespace,
            folder,
            name,
            _lock: lock,
        };
        cluster.import(&Image::pause()?)?;
        cluster.import(&Image::tools()?)?;
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    fn wait_until_ready(&self) -> Result<()> {
        crate::wait::until("the node to be ready", || {
            let node = self.kubectl.get("node", "", NODE_NAME)?;
            let conditions = node["status"]["conditions"].as_array();
            let ready =
                conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
            // A pod that is made before this map waits 14 s for it.
            self.kubectl.get("configmap", "default", "kube-root-ca.crt")?;
            Ok(ready.then_some(()))
        })
        .with_context(|| format!("kubelet: {}", self.node.complaints()))
    }

    /// Puts an image on the node.
    pub fn import(&self, image: &Image) -> Result<()> {
        let file = image.write(self.folder.path())?;
        self.node.import(&file)
    }

    /// The name that all of its parts carry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder of its own, the same to the harness and to the node.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The node's own network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A place on the node, outside of any pod.
    pub fn place(&self, what: &str) -> Result<Place> {
        Ok(Place::within(self.tree.make(what)?, &self.namespace, self.folder.path()).without_hosts())
    }

    /// Starts PostgreSQL on the node's address, outside of any pod.
    pub fn postgres(&self, options: postgres::Options<'_>) -> Result<postgres::Server> {
        let folder = self.folder.path().join("postgres");
        std::fs::create_dir_all(&folder)?;
        postgres::Server::start(self.place("postgres")?, &folder, NODE, options)
    }

    /// A path of the node's as the harness reaches it: what is mounted on the node only is there too.
    #[must_use]
    pub fn on_node(&self, path: &str) -> std::path::PathBuf {
        self.node.path(path)
    }

    /// The control plane: what a scenario takes away.
    #[must_use]
    pub fn control(&mut self) -> &mut Control {
        &mut self.control
    }

    /// Root of the pods' cgroups, where programs are attached.
    pub fn pods_cgroup(&self) -> Result<std::path::PathBuf> {
        Ok(cgroup::mount_point()?.join(surroundings::PODS_CGROUP))
    }

    /// The last lines of what its parts complained of.
    #[must_use]
    pub fn complaints(&self) -> String {
        format!("kubelet: {}\nAPI server: {}", self.node.complaints(), self.control.complaints())
    }
}

/// Where the manifests in docs/deploy have programs and maps pinned.
pub const PINS: &str = "/sys/fs/bpf/verbatim";
