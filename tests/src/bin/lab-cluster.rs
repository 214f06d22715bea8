//! The lab's Kubernetes node for people.
//!
//! `up` starts one with Verbatim on it, says how to reach it, and takes it away at the end of its standard input.
//! `demo FOLDER ISSUER AUDIENCE` does what `cargo xtask demo --cluster` shows, with the workload and the database of that
//! folder, and a delegation of that issuer with its key set.
#![allow(clippy::print_stdout, reason = "it talks to a person")]

use std::{
    fs,
    io::{Read as _, stdin},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use verbatim_tests::{
    cluster::{
        Cluster, NODE,
        pods::Pod,
        product::{NAMESPACE, Product, service_on_node},
    },
    google::Root,
    parts::{self, Part},
    postgres::Server,
};

/// The database's Service.
const DATABASE: &str = "10.246.61.54";
const DESTINATIONS: &str = "  - { cidr: 10.246.61.54/32, ports: [5432], action: steer }\n";
/// Namespace and service account of the demo's workload.
const WHO: (&str, &str) = ("support", "ai-agent");

fn main() -> Result<()> {
    let needs =
        [Part::Root, Part::Sandbox, Part::Cluster, Part::Binaries, Part::Postgres, Part::Python, Part::Bpf];
    if let Some((_, reason)) = parts::missing(&needs) {
        bail!(reason);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["up"] => up(),
        ["demo", folder, issuer, audience] => demo(Path::new(folder), issuer, audience),
        other => bail!("unknown arguments {other:?}: expected `up` or `demo FOLDER ISSUER AUDIENCE`"),
    }
}

/// What both begin with. Fields are dropped in this order.
struct Stage {
    product: Product,
    server: Server,
    cluster: Cluster,
}

impl Stage {
    fn start() -> Result<Self> {
        let begun = Instant::now();
        let cluster = Cluster::start()?;
        said(&format!("node {} is ready after {:.0} s", NODE, begun.elapsed().as_secs_f64()));
        let root = Root::create(&cluster.folder().join("root"), "root of the lab's servers")?;
        let server = cluster.postgres(Default::default())?;
        let (namespace, account) = WHO;
        for object in [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}}),
            service_on_node(namespace, "database", DATABASE, 5432),
        ] {
            cluster.kubectl.apply(&object)?;
        }
        command("kubectl apply -k docs/deploy");
        let product = Product::install(&cluster, DESTINATIONS, &fs::read_to_string(root.certificate())?)?;
        said(&format!("node agent and collector are ready after {:.0} s", begun.elapsed().as_secs_f64()));
        Ok(Self { product, server, cluster })
    }

    /// `kubectl`, shown as a person would type it.
    fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        command(&format!("kubectl {}", arguments.join(" ")));
        let printed = self.cluster.kubectl.run(arguments)?;
        print!("{printed}");
        Ok(())
    }

    fn verbatim(&self, arguments: &[&str]) -> Result<()> {
        let pod = ["exec", "-n", NAMESPACE, "verbatim-collector-0", "--", "verbatim"];
        self.kubectl(&[&pod, arguments].concat())
    }
}

fn up() -> Result<()> {
    let stage = Stage::start()?;
    println!("{}", stage.cluster.kubectl.shown());
    said("the end of standard input (Ctrl-D) takes it away");
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn demo(folder: &Path, issuer: &str, audience: &str) -> Result<()> {
    heading("A Kubernetes node of its own: control plane, kubelet, containerd, kube-proxy");
    let stage = Stage::start()?;
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    stage.server.admin("shop", &format!("DROP TABLE item CASCADE; {}", read("shop.sql")?))?;
    said(&format!("{issuer} is believed to say on whose behalf a workload acts"));
    stage.product.believe(issuer, audience, &read("delegation.keys.json")?)?;

    heading(
        "An AI agent with a database tool, as a Deployment would run it: nothing in its pod knows of Verbatim",
    );
    let (namespace, account) = WHO;
    let script = stage.cluster.folder().join("workload");
    fs::create_dir_all(&script)?;
    fs::write(script.join("agent.py"), read("agent.py")?)?;
    fs::write(script.join("token"), read("delegation.token")?)?;
    let (script, token) = (script.join("agent.py"), script.join("token").display().to_string());
    let script = script.display().to_string();
    let python = parts::python().display().to_string();
    let address = format!("postgresql://agent@{DATABASE}/shop?sslmode=disable");
    let pod = Pod::new(namespace, account, "assistant")
        .mounting(stage.cluster.folder().join("workload"))
        .runs(&[&python, &script, &address, &token]);
    stage.cluster.kubectl.apply(&pod.job()?)?;
    let done = ["wait", "-n", namespace, "--for=condition=complete", "--timeout=120s", "job/assistant"];
    stage.kubectl(&done)?;
    stage.kubectl(&["logs", "-n", namespace, "job/assistant"])?;

    heading("What the trail says, asked in the collector's pod");
    stage.recorded()?;
    stage.verbatim(&["records"])?;
    heading("What was done on whose behalf, verified?");
    stage.verbatim(&["records", "--behalf", "verified"])?;
    heading("All that is known of one of them: which pod, which principal, whose pod it is, and who asked");
    let verified = ["records", "--text", "DELETE", "--behalf", "verified", "--output", "json"];
    let answer = stage.product.verbatim(&verified)?;
    let first: Value = answer.lines().next().map(serde_json::from_str).transpose()?.unwrap_or_default();
    let id =
        first["id"].as_str().with_context(|| format!("no DELETE in the trail, which holds: {answer}"))?;
    stage.verbatim(&["show", id])?;
    heading("The node is taken away, with everything on it");
    Ok(())
}

impl Stage {
    /// Waits until the last of what the workload does is recorded.
    fn recorded(&self) -> Result<()> {
        verbatim_tests::wait::until("the trail to have the workload's last command", || {
            let seen = self.product.audit().seen()?;
            Ok(seen.iter().any(|one| one.statement.starts_with(b"DELETE")).then_some(()))
        })
    }
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn said(text: &str) {
    println!("  {text}");
}

fn command(text: &str) {
    println!("  $ {text}");
}
