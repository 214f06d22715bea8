//! Orders to the cluster, by the `kubectl` that set-up built beside it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::programs;
use crate::{netns::Namespace, wait};

/// `kubectl` with somebody's rights.
#[derive(Clone, Debug)]
pub struct Kubectl {
    namespace: PathBuf,
    home: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub(super) fn new(namespace: &Namespace, home: &Path, kubeconfig: PathBuf) -> Self {
        Self { namespace: namespace.path(), home: home.to_owned(), kubeconfig }
    }

    /// A command that is not run yet.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.display())).arg("--").arg(programs().join("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        // It caches what the API server offers below its home.
        command.env("HOME", &self.home).current_dir("/").stdin(Stdio::null());
        command
    }

    /// How a person reaches the cluster.
    #[must_use]
    pub fn shown(&self) -> String {
        let command = self.command(&[]);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.display().to_string()).collect::<Vec<_>>().join(" ")
    }

    /// Runs one to its end; what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("starting kubectl")?;
        finished(arguments, &output)
    }

    /// Makes an object what the manifest says. Several may follow each other in a `List`.
    pub fn apply(&self, manifest: &Value) -> Result<()> {
        self.apply_text(&manifest.to_string())
    }

    /// The same for YAML.
    pub fn apply_text(&self, manifest: &str) -> Result<()> {
        self.fed(&["apply", "-f", "-"], manifest).map(drop)
    }

    /// Runs one that reads what it is given.
    pub fn fed(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("kubectl has no standard input")?.write_all(input.as_bytes())?;
        finished(arguments, &child.wait_with_output()?)
    }

    /// One object. Namespace is empty for those that have none.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let mut arguments = vec!["get", kind, name, "-o", "json"];
        if !namespace.is_empty() {
            arguments.extend(["-n", namespace]);
        }
        serde_json::from_str(&self.run(&arguments)?).with_context(|| format!("{kind} {name}"))
    }

    /// Objects with a label.
    pub fn list(&self, kind: &str, namespace: &str, selector: &str) -> Result<Vec<Value>> {
        let text = self.run(&["get", kind, "-n", namespace, "-l", selector, "-o", "json"])?;
        let list: Value = serde_json::from_str(&text).with_context(|| format!("{kind} with {selector}"))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Runs a command in a pod; what it printed.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
        self.run(&[&["exec", "-n", namespace, pod, "--"], command].concat())
    }

    /// What a pod's container has printed.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        self.run(&["logs", "-n", namespace, pod, "-c", container])
    }

    /// Deletes an object, whether it is there or not, and waits until it is gone.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let mut arguments = vec!["delete", kind, name, "--ignore-not-found", "--wait=true"];
        if !namespace.is_empty() {
            arguments.extend(["-n", namespace]);
        }
        self.run(&arguments).map(drop)
    }

    /// Waits until a pod is ready.
    pub fn wait_until_ready(&self, namespace: &str, pod: &str) -> Result<Value> {
        self.wait_for_pod(namespace, pod, "to be ready", |status| {
            let conditions = status["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
    }

    /// Waits until a pod has done its work, and done it well.
    pub fn wait_until_done(&self, namespace: &str, pod: &str) -> Result<Value> {
        let found = self.wait_for_pod(namespace, pod, "to end", |status| {
            status["phase"] == "Succeeded" || status["phase"] == "Failed"
        })?;
        if found["status"]["phase"] != "Succeeded" {
            let said = self.run(&["logs", "-n", namespace, pod, "--all-containers"]).unwrap_or_default();
            bail!("pod {namespace}/{pod} failed: {}\n{said}", found["status"]["containerStatuses"]);
        }
        Ok(found)
    }

    fn wait_for_pod(
        &self,
        namespace: &str,
        pod: &str,
        what: &str,
        reached: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let result = wait::until(&format!("pod {namespace}/{pod} {what}"), || {
            let found = self.get("pod", namespace, pod)?;
            Ok(reached(&found["status"]).then_some(found))
        });
        // What kubelet has to say about it is in its events.
        result.with_context(|| self.run(&["describe", "pod", "-n", namespace, pod]).unwrap_or_default())
    }
}

fn finished(arguments: &[&str], output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
