//! The node: containerd, kubelet and kube-proxy. containerd holds the mount namespace that kubelet joins.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    NODE, NODE_NAME, PODS,
    control::last,
    keys::Keys,
    programs,
    surroundings::{FOLDERS, TUNABLES},
};
use crate::{
    process::{Place, Process},
    shell, wait,
};

/// Where Debian keeps CNI's plugins.
pub(super) const CNI: &str = "/usr/lib/cni";

/// Running programs of the node.
#[derive(Debug)]
pub(super) struct Node {
    kubelet: Process,
    _proxy: Process,
    containerd: Process,
    socket: PathBuf,
    place: Place,
}

impl Node {
    pub(super) fn start(place: &dyn Fn(&str) -> Result<Place>, folder: &Path, keys: &Keys) -> Result<Self> {
        let socket = folder.join("containerd.sock");
        let containerd = containerd(place("containerd")?, folder, &socket)?;
        let within = |what: &str| -> Result<Place> {
            let mut place = place(what)?;
            let holder = containerd.id().to_string();
            place.before = ["nsenter", "--target", &holder, "--mount", "--"].map(Into::into).into();
            Ok(place)
        };
        let place = within("tools")?;
        let kubelet = kubelet(&within("kubelet")?, folder, &socket, keys)?;
        let proxy = kube_proxy(&within("kube-proxy")?, folder, keys)?;
        Ok(Self { kubelet, _proxy: proxy, containerd, socket, place })
    }

    /// Puts an image on it.
    pub(super) fn import(&self, file: &Path) -> Result<()> {
        let mut command = self.place.command("ctr");
        command
            .arg("--address")
            .arg(&self.socket)
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(file);
        let output = command.output().context("starting ctr")?;
        if !output.status.success() {
            bail!("ctr could not import {}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// A path of the node's as the harness reaches it.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.containerd.id()))
    }

    pub(super) fn complaints(&self) -> String {
        last(&self.kubelet.complaints())
    }
}

/// Folders in the place of those that programs insist on, and files in the place of the machine's own settings. All
/// of it is mounted where only the node sees it, and goes with its last process.
fn mounts(folder: &Path) -> Result<String> {
    let mut script = String::from("set -e; mount --make-rshared /; ");
    let own = folder.join("node");
    let mut bind = |from: &Path, to: &str| {
        script.push_str(&format!("mount --bind {} {to}; ", from.display()));
    };
    for (number, path) in FOLDERS.iter().enumerate() {
        let from = own.join(number.to_string());
        fs::create_dir_all(&from).with_context(|| format!("cannot make {}", from.display()))?;
        bind(&from, path);
    }
    for (name, value) in TUNABLES {
        let from = own.join(name.replace('/', "."));
        fs::write(&from, value).with_context(|| format!("cannot write {}", from.display()))?;
        bind(&from, &format!("/proc/sys/{name}"));
    }
    script.push_str(r#"exec "$@""#);
    Ok(script)
}

fn containerd(mut place: Place, folder: &Path, socket: &Path) -> Result<Process> {
    let script = mounts(folder)?;
    place.before =
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"].map(Into::into).into();
    let configuration = folder.join("containerd.toml");
    fs::write(&configuration, containerd_configuration(folder, socket))?;
    let network = folder.join("cni");
    fs::create_dir_all(&network)?;
    fs::write(network.join("10-lab.conflist"), cni_configuration(folder))?;
    let mut command = place.command("containerd");
    command.arg("--config").arg(&configuration);
    let mut process = Process::start("containerd", folder, command)?;
    let address = socket.display().to_string();
    wait::until("containerd to answer", || {
        if !process.running() {
            bail!("it ended: {}", last(&process.complaints()));
        }
        Ok(shell::run("ctr", &["--address", &address, "version"]).ok())
    })?;
    Ok(process)
}

fn containerd_configuration(folder: &Path, socket: &Path) -> String {
    let runc = shell::which("runc").unwrap_or_default();
    format!(
        r#"version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true      # a container may run without CAP_SYS_RESOURCE
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false
"#,
        folder = folder.display(),
        socket = socket.display(),
        runc = runc.display(),
        pause = super::image::PAUSE,
    )
}

/// A link to the node for each pod: what goes to a Service and comes back to the same node is routed both ways, and
/// so translated both ways.
fn cni_configuration(folder: &Path) -> String {
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "lab",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": folder.join("ipam"),
                "ranges": [[{"subnet": PODS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

fn kubelet(place: &Place, folder: &Path, socket: &Path, keys: &Keys) -> Result<Process> {
    let configuration = folder.join("kubelet.yaml");
    // There is no DNS: asking for a name fails at once.
    fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
    let file = |name: &str| keys.path(name).display().to_string();
    fs::write(
        &configuration,
        format!(
            "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {NODE}
healthzBindAddress: 127.0.0.1
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {authority}}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {certificate}
tlsPrivateKeyFile: {key}
cgroupDriver: cgroupfs
failSwapOn: false
makeIPTablesUtilChains: false
resolvConf: {folder}/resolv.conf
volumePluginDir: {folder}/volume-plugins
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
maxPods: 250
",
            authority = file("ca.crt"),
            certificate = file("kubelet.crt"),
            key = file("kubelet.key"),
            folder = folder.display(),
        ),
    )?;
    let mut command = place.command(programs().join("kubelet"));
    command.arg("--config").arg(&configuration);
    command.arg("--kubeconfig").arg(keys.kubeconfig("kubelet"));
    command.args(["--hostname-override", NODE_NAME, "--node-ip", NODE, "--container-runtime=remote"]);
    command.arg(format!("--container-runtime-endpoint=unix://{}", socket.display()));
    Process::start("kubelet", folder, command)
}

fn kube_proxy(place: &Place, folder: &Path, keys: &Keys) -> Result<Process> {
    let mut command = place.command(programs().join("kube-proxy"));
    command.arg("--kubeconfig").arg(keys.kubeconfig("kube-proxy"));
    command.args(["--proxy-mode=iptables", "--hostname-override", NODE_NAME, "--bind-address=127.0.0.1"]);
    // How many connections are tracked is the machine's own to say.
    command.args(["--cluster-cidr", PODS, "--conntrack-max-per-core=0"]);
    Process::start("kube-proxy", folder, command)
}
