//! Pods that clients run in: what they are made of, as manifests.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::image;
use crate::{binaries, clients, parts, postgres, shell};

/// A pod with one container. Clients are those of the machine, mounted and unmodified; nothing in it says that
/// anybody listens.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// Name; of whatever makes pods, that one's name.
    pub name: String,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Whether it shares the node's network.
    pub host_network: bool,
    open_input: bool,
    read_only: bool,
    restarted: bool,
    tokenless: bool,
    image: Option<String>,
    command: Vec<String>,
    init: Vec<String>,
    folders: Vec<PathBuf>,
    hosts: Vec<Value>,
    environment: Vec<(String, String)>,
}

impl Pod {
    /// One that does nothing.
    #[must_use]
    pub fn new(namespace: &str, service_account: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            name: name.to_owned(),
            labels: vec![("app".to_owned(), name.to_owned())],
            host_network: false,
            open_input: false,
            read_only: false,
            restarted: false,
            tokenless: false,
            image: None,
            command: words(&["sleep", "2147483647"]),
            init: Vec::new(),
            folders: Vec::new(),
            hosts: Vec::new(),
            environment: words_of(&[
                ("HOME", "/tmp"),
                ("PYTHONDONTWRITEBYTECODE", "1"),
                ("LC_ALL", "C.UTF-8"),
            ]),
        }
    }

    /// Its container's command.
    #[must_use]
    pub fn runs(mut self, command: &[&str]) -> Self {
        self.command = words(command);
        self
    }

    /// The command of a container that runs before.
    #[must_use]
    pub fn runs_first(mut self, command: &[&str]) -> Self {
        self.init = words(command);
        self
    }

    /// With another folder of the machine, read-only and under the same path.
    #[must_use]
    pub fn mounting(mut self, folder: PathBuf) -> Self {
        self.folders.push(folder);
        self
    }

    /// In whose hosts file these addresses have these names: the lab has no DNS.
    #[must_use]
    pub fn knowing(mut self, hosts: &[(&str, &[&str])]) -> Self {
        self.hosts =
            hosts.iter().map(|(address, names)| json!({"ip": address, "hostnames": names})).collect();
        self
    }

    /// With a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a label.
    #[must_use]
    pub fn labelled(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// For a PostgreSQL at this address, as libpq's environment has it.
    #[must_use]
    pub fn for_database(self, address: &str) -> Self {
        let prefix = format!("{}-", self.name);
        let environment = [
            ("PGHOST", address),
            ("PGPORT", "5432"),
            ("PGUSER", postgres::USER),
            ("PGDATABASE", postgres::DATABASE_DB),
            ("PGSSLMODE", "disable"),
            ("PGGSSENCMODE", "disable"),
            ("VLAB_PREFIX", &prefix),
        ];
        environment.iter().fold(self, |pod, (name, value)| pod.with(name, value))
    }

    /// With a standard input that does not end, for clients that end with it.
    #[must_use]
    pub fn with_open_input(mut self) -> Self {
        self.open_input = true;
        self
    }

    /// Whose containers may write nowhere in their root file system.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Whose container is started again when it ends.
    #[must_use]
    pub fn restarted(mut self) -> Self {
        self.restarted = true;
        self
    }

    /// Without its service account's token: kubelet need ask the API server for nothing to start it.
    #[must_use]
    pub fn without_token(mut self) -> Self {
        self.tokenless = true;
        self
    }

    /// Of another image, with nothing of the machine's.
    #[must_use]
    pub fn of_image(mut self, reference: &str) -> Self {
        self.image = Some(reference.to_owned());
        self
    }

    /// In the node's own network.
    #[must_use]
    pub fn on_the_nodes_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// What a pod, or whoever makes such pods, is specified by.
    pub fn spec(&self, restart: &str) -> Result<Value> {
        let mut mounted = if self.image.is_none() { mounted()? } else { Vec::new() };
        mounted.extend(self.folders.iter().cloned());
        let mounts: Vec<Value> = mounted
            .iter()
            .enumerate()
            .map(|(number, path)| json!({"name": format!("host-{number}"), "mountPath": path, "readOnly": true}))
            .collect();
        let volumes: Vec<Value> = mounted
            .iter()
            .enumerate()
            // With its type: kubelet would make a wrong one, and runc a cgroup named after it.
            .map(|(number, path)| json!({"name": format!("host-{number}"), "hostPath": {"path": path, "type": "Directory"}}))
            .collect();
        let environment: Vec<Value> =
            self.environment.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let container = |name: &str, command: &[String]| {
            json!({
                "name": name, "image": self.image.as_deref().unwrap_or(image::TOOLS), "imagePullPolicy": "Never", "command": command, "stdin": self.open_input,
                "env": environment, "volumeMounts": mounts,
                "securityContext": {"readOnlyRootFilesystem": self.read_only},
            })
        };
        let init: Vec<Value> =
            (!self.init.is_empty()).then(|| container("prepare", &self.init)).into_iter().collect();
        Ok(json!({
            "serviceAccountName": self.service_account,
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": 0,
            "hostNetwork": self.host_network,
            "automountServiceAccountToken": !self.tokenless,
            "hostAliases": self.hosts,
            "initContainers": init,
            "containers": [container("client", &self.command)],
            "volumes": volumes,
        }))
    }

    /// Labels, as metadata has them.
    #[must_use]
    pub fn labels(&self) -> Value {
        self.labels.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))).collect()
    }

    /// The pod itself; it is not started again unless that is asked for.
    pub fn manifest(&self) -> Result<Value> {
        Ok(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels()},
            "spec": self.spec(if self.restarted { "Always" } else { "Never" })?,
        }))
    }

    /// A Job that makes it once.
    pub fn job(&self) -> Result<Value> {
        Ok(json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"backoffLimit": 0, "template": self.template("Never")?},
        }))
    }

    /// A CronJob that makes it each minute.
    pub fn cron_job(&self) -> Result<Value> {
        Ok(json!({
            "apiVersion": "batch/v1beta1", "kind": "CronJob",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"backoffLimit": 0, "template": self.template("Never")?}}},
        }))
    }

    /// A Deployment that keeps so many of it running.
    pub fn deployment(&self, replicas: u32) -> Result<Value> {
        Ok(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"replicas": replicas, "selector": {"matchLabels": self.labels()}, "template": self.template("Always")?},
        }))
    }

    fn template(&self, restart: &str) -> Result<Value> {
        Ok(json!({"metadata": {"labels": self.labels()}, "spec": self.spec(restart)?}))
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn words_of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// psql itself: Debian's /usr/bin/psql is a wrapper in Perl.
pub fn psql() -> Result<String> {
    Ok(postgres::binaries().context("PostgreSQL is not installed")?.join("psql").display().to_string())
}

/// Command line of one of the lab's Python scripts.
#[must_use]
pub fn python(script: &str) -> [String; 2] {
    [parts::python().display().to_string(), clients::scripts().join(script).display().to_string()]
}

/// Command line of one of the lab's scripts for Node.js, and where it finds its packages.
pub fn node(script: &str) -> Result<(Vec<String>, String)> {
    let node = shell::which("node").context("node is not installed")?;
    let script = clients::scripts().join(script).display().to_string();
    Ok((vec![node.display().to_string(), script], parts::cache().join("node/").display().to_string()))
}

/// Folders of the machine that clients need, with what their Python links to.
fn mounted() -> Result<Vec<PathBuf>> {
    let cache = parts::cache();
    let base =
        shell::run(&parts::python().display().to_string(), &["-c", "import sys; print(sys.base_prefix)"])?;
    let helper = binaries::find("lab-helper")?;
    let mut all: Vec<PathBuf> = ["/usr", "/lib", "/lib64"].map(PathBuf::from).into();
    for path in
        [cache.as_path(), Path::new(base.trim()), &clients::scripts(), helper.parent().unwrap_or(&helper)]
    {
        if !all.iter().any(|above| path.starts_with(above)) {
            all.push(path.to_owned());
        }
    }
    Ok(all.into_iter().filter(|path| path.is_dir()).collect())
}
