//! The control plane: etcd, API server, controller manager and scheduler.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{NODE, SERVICES, keys::Keys, programs};
use crate::{
    process::{Place, Process},
    wait,
};

/// Running programs of the control plane.
#[derive(Debug)]
pub struct Control {
    api_server: Option<Process>,
    etcd: Process,
    _others: Vec<Process>,
    place: Place,
    keys: PathBuf,
}

impl Control {
    pub(super) fn start(place: &dyn Fn(&str) -> Result<Place>, folder: &Path, keys: &Keys) -> Result<Self> {
        let etcd = etcd(place("etcd")?, folder)?;
        let mut control = Self {
            api_server: None,
            etcd,
            _others: Vec::new(),
            place: place("kube-apiserver")?,
            keys: keys.folder().to_owned(),
        };
        control.restart_api_server()?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let place = place(name)?;
            let mut command = place.command(programs().join(name));
            command.arg("--kubeconfig").arg(keys.kubeconfig(name));
            command.args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
            if name == "kube-controller-manager" {
                command.arg("--service-account-private-key-file").arg(keys.path("service-accounts.key"));
                command.arg("--root-ca-file").arg(keys.path("ca.crt"));
                command.arg("--use-service-account-credentials");
            }
            control._others.push(Process::start(name, folder, command)?);
        }
        Ok(control)
    }

    /// Ends the API server as `kill -9` does: SIGTERM takes it a minute while a node is attached.
    pub fn kill_api_server(&mut self) {
        self.api_server = None;
    }

    /// Starts it (again), and waits until it is ready.
    pub fn restart_api_server(&mut self) -> Result<()> {
        self.api_server = None;
        let key = |name: &str| self.keys.join(name);
        let mut command = self.place.command(programs().join("kube-apiserver"));
        let files = [
            ("--client-ca-file", "ca.crt"),
            ("--tls-cert-file", "apiserver.crt"),
            ("--tls-private-key-file", "apiserver.key"),
            ("--service-account-key-file", "service-accounts.key"),
            ("--service-account-signing-key-file", "service-accounts.key"),
            ("--kubelet-client-certificate", "kubelet-client.crt"),
            ("--kubelet-client-key", "kubelet-client.key"),
        ];
        for (option, file) in files {
            command.arg(option).arg(key(file));
        }
        command.args([
            "--etcd-servers=http://127.0.0.1:2379",
            &format!("--advertise-address={NODE}"),
            &format!("--service-cluster-ip-range={SERVICES}"),
            "--service-account-issuer=https://kubernetes.default.svc",
            "--api-audiences=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            // Pods' own tokens are projected, as from Kubernetes 1.22 on.
            "--feature-gates=BoundServiceAccountTokenVolume=true",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
        ]);
        let mut process = Process::start("kube-apiserver", &self.place.folder, command)?;
        let kubectl = programs().join("kubectl");
        let admin = key("admin.kubeconfig");
        wait::until("the API server to be ready", || {
            if !process.running() {
                bail!("it ended: {}", last(&process.complaints()));
            }
            let arguments = [OsStr::new("--kubeconfig"), admin.as_os_str(), "get".as_ref()];
            let mut ask = self.place.command(&kubectl);
            let answer = ask.args(arguments).args(["--raw", "/readyz"]).output()?;
            Ok(answer.status.success().then_some(()))
        })?;
        self.api_server = Some(process);
        Ok(())
    }

    /// Has etcd forget what was before, which the API server's own cache hides until it is started again: then
    /// watches from before are told 410 Gone.
    pub fn compact(&self) -> Result<()> {
        let etcdctl = |arguments: &[&str]| -> Result<String> {
            let mut command = self.place.command("etcdctl");
            command.env("ETCDCTL_API", "3").arg("--endpoints=http://127.0.0.1:2379").args(arguments);
            let output = command.output().context("starting etcdctl")?;
            if !output.status.success() {
                bail!("etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let status = etcdctl(&["endpoint", "status", "--write-out=json"])?;
        let status: serde_json::Value = serde_json::from_str(&status).context("etcd's status")?;
        let revision = status[0]["Status"]["header"]["revision"].as_u64().context("etcd says no revision")?;
        etcdctl(&["compact", &revision.to_string()]).map(drop)
    }

    /// Whether etcd runs.
    pub fn has_store(&mut self) -> bool {
        self.etcd.running()
    }

    pub(super) fn complaints(&self) -> String {
        self.api_server.as_ref().map(|process| last(&process.complaints())).unwrap_or_default()
    }
}

fn etcd(place: Place, folder: &Path) -> Result<Process> {
    let mut command = place.command("etcd");
    command.arg("--data-dir").arg(folder.join("etcd"));
    // It is gone with the cluster: nothing in it need survive anything.
    command.args(["--unsafe-no-fsync", "--log-level=warn"]);
    Process::start("etcd", folder, command)
}

/// The last lines of what a program said.
pub(super) fn last(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n  ")
}
