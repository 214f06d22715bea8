//! Upgrading and removing: two DaemonSets on one node, and what is left when Verbatim goes.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use verbatim_api::v1::Session;
use verbatim_tests::{
    binaries,
    cluster::{
        self, NODE,
        pods::{Pod, psql},
        product,
    },
    process::{Ended, Process},
    traffic::Counts,
    wait,
};

use crate::{
    Scenario, scenario,
    stage::{DATABASE, SHOP, Stage, TRAFFIC, TRAFFIC_PORT},
    who,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_second_daemon_set_takes_over_under_load_without_a_connection_lost_or_unrecorded),
        scenario!(what_an_agent_that_was_to_fail_closed_leaves_is_uninstalled),
        scenario!(deleting_the_kustomization_leaves_nothing_behind_and_workloads_connect_unsteered),
    ]
}

/// Name of the DaemonSet that takes over.
const NEXT: &str = "verbatim-agent-next";

fn a_second_daemon_set_takes_over_under_load_without_a_connection_lost_or_unrecorded(
    stage: &mut Stage,
) -> Result<()> {
    const CONNECTS: u64 = 4000;
    let mut command = stage.cluster.place("traffic")?.command(binaries::find("lab-helper")?);
    command.args(["serve", &format!("{NODE}:{TRAFFIC_PORT}")]);
    let mut server = Process::start("traffic", stage.cluster.folder(), command)?;
    server.wait_for_output("listening")?;

    let helper = binaries::find("lab-helper")?.display().to_string();
    let to = format!("{TRAFFIC}:{TRAFFIC_PORT}");
    let load = Pod::new(SHOP, "reader", "load")
        .runs(&[&helper, "load", &to, "200", &CONNECTS.to_string()])
        .with_open_input();
    stage.kubectl().apply(&load.manifest()?)?;
    stage.kubectl().wait_until_ready(SHOP, "load")?;

    let first = stage.kubectl().get("daemonset", product::NAMESPACE, "verbatim-agent")?;
    stage.kubectl().apply(&renamed(&first, NEXT)?)?;
    ready(stage, NEXT)?;
    stage.kubectl().delete("daemonset", product::NAMESPACE, "verbatim-agent")?;
    // And back, by the manifests themselves.
    stage.product()?.apply()?;
    ready(stage, "verbatim-agent")?;
    stage.kubectl().delete("daemonset", product::NAMESPACE, NEXT)?;

    stage.kubectl().wait_until_done(SHOP, "load")?;
    let said = stage.kubectl().logs(SHOP, "load", "client")?;
    let counts: Counts = serde_json::from_str(said.trim()).context("what the client counted")?;
    let served = served(server)?;
    eprintln!("{counts:?}; the server served {served}");
    ensure!(counts.failed == 0 && counts.lost == 0 && counts.served == CONNECTS, "{counts:?}");
    let recorded = recorded(stage, served)?;
    ensure!(recorded.len() as u64 == served, "{} recorded of {served}", recorded.len());
    let principal = who::principal(SHOP, "reader");
    let others = recorded.iter().filter(|one| one.principal != principal).count();
    ensure!(others == 0, "{others} of {served} under another name");
    let findings = stage.product()?.audit().findings()?;
    ensure!(findings.is_empty(), "the collector found {findings:?}");
    Ok(())
}

/// The same DaemonSet under another name.
fn renamed(daemon_set: &Value, name: &str) -> Result<Value> {
    let mut spec = daemon_set["spec"].clone();
    spec["selector"]["matchLabels"] = json!({"app": name});
    spec["template"]["metadata"]["labels"] = json!({"app": name});
    ensure!(spec["template"]["spec"].is_object(), "a DaemonSet without a pod");
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": product::NAMESPACE}, "spec": spec,
    }))
}

fn ready(stage: &Stage, name: &str) -> Result<()> {
    wait::until(&format!("{name} to be ready"), || {
        let found = stage.kubectl().get("daemonset", product::NAMESPACE, name)?;
        Ok((found["status"]["numberReady"] == 1).then_some(()))
    })
}

fn served(server: Process) -> Result<u64> {
    let ended: Ended = server.finish()?;
    let text = ended.text();
    let count = text.lines().find_map(|line| line.strip_prefix("served "));
    count.and_then(|count| count.parse().ok()).with_context(|| format!("the server said {text}"))
}

/// Sessions to the traffic's server, once there are as many and all have ended.
fn recorded(stage: &Stage, least: u64) -> Result<Vec<Session>> {
    wait::until(&format!("{least} connections in the records, all with an end"), || {
        let mut sessions = stage.product()?.audit().sessions()?;
        sessions.retain(|one| one.target.as_ref().is_some_and(|to| to.port == u32::from(TRAFFIC_PORT)));
        let open = sessions.iter().filter(|one| one.closed_wall_nanos == 0).count();
        ensure!(sessions.len() as u64 >= least && open == 0, "{} recorded, {open} open", sessions.len());
        Ok(Some(sessions))
    })
}

/// A pod that asks the database; its statement.
fn ask(stage: &Stage, name: &str) -> Result<()> {
    let statement = format!("SELECT 1 /* id:{name} */");
    let psql = psql()?;
    stage
        .run(&Pod::new(SHOP, "reader", name).for_database(DATABASE).runs(&[&psql, "-X", "-c", &statement]))?;
    Ok(())
}

/// Whether the server has it, and whether it is recorded.
fn found(stage: &Stage, name: &str) -> Result<(bool, bool)> {
    let mark = format!("id:{name} ");
    let served = stage.server.complete_log()?.iter().any(|one| one.text.contains(&mark));
    let recorded = stage.seen()?.iter().any(|one| one.ids.iter().any(|id| id == name));
    Ok((served, recorded))
}

/// Whether anything is. The folder itself holds nothing.
fn pinned() -> bool {
    fn below(folder: &Path) -> bool {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| !path.is_dir() || below(&path))
    }
    below(Path::new(cluster::PINS))
}

fn what_an_agent_that_was_to_fail_closed_leaves_is_uninstalled(stage: &mut Stage) -> Result<()> {
    stage.product()?.configure("whenStopped: detach", "whenStopped: failMode")?;
    stage.product()?.restart_agent()?;
    let agent = stage.kubectl().get("daemonset", product::NAMESPACE, "verbatim-agent")?;
    stage.kubectl().delete("daemonset", product::NAMESPACE, "verbatim-agent")?;
    gone(stage, "app=verbatim-agent")?;
    ensure!(pinned(), "nothing is pinned, so there is nothing to uninstall");
    // This selector's choice is to fail open, so workloads go on meanwhile.
    ask(stage, "between")?;

    let mut spec = agent["spec"]["template"]["spec"].clone();
    spec["restartPolicy"] = "Never".into();
    let container = &mut spec["containers"][0];
    container["args"] = json!(["uninstall", "--config", "/etc/verbatim/node-agent.yaml"]);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        container[probe] = Value::Null;
    }
    stage.kubectl().apply(&json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "uninstall", "namespace": product::NAMESPACE},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {"app": "uninstall"}}, "spec": spec}},
    }))?;
    wait::until("the Job to have uninstalled", || {
        let job = stage.kubectl().get("job", product::NAMESPACE, "uninstall")?;
        ensure!(job["status"]["failed"].is_null(), "it failed");
        Ok((job["status"]["succeeded"] == 1).then_some(()))
    })?;
    ensure!(!pinned(), "{} is still there", cluster::PINS);
    ask(stage, "afterwards")?;
    stage.kubectl().delete("job", product::NAMESPACE, "uninstall")?;

    // The next one goes on where this one was.
    stage.product()?.configure("whenStopped: failMode", "whenStopped: detach")?;
    stage.product()?.wait_until_ready()?;
    ask(stage, "captured-again")?;
    wait::until("the records of the agent that came back", || {
        Ok(found(stage, "captured-again")?.1.then_some(()))
    })?;
    for name in ["between", "afterwards"] {
        ensure!(found(stage, name)? == (true, false), "{name} was to be served and unrecorded");
    }
    Ok(())
}

fn gone(stage: &Stage, selector: &str) -> Result<()> {
    wait::until(&format!("the pods {selector} to be gone"), || {
        Ok(stage.kubectl().list("pod", product::NAMESPACE, selector)?.is_empty().then_some(()))
    })
}

fn deleting_the_kustomization_leaves_nothing_behind_and_workloads_connect_unsteered(
    stage: &mut Stage,
) -> Result<()> {
    ask(stage, "captured")?;
    wait::until("its record", || Ok(found(stage, "captured")?.1.then_some(())))?;
    let product = stage.removed()?;
    product.delete()?;
    ensure!(!pinned(), "{} is still there", cluster::PINS);
    let left = stage.kubectl().run(&["get", "namespace", product::NAMESPACE, "--ignore-not-found"])?;
    ensure!(left.is_empty(), "the namespace is still there: {left}");
    for kind in ["clusterrole", "clusterrolebinding", "mutatingwebhookconfiguration"] {
        let all = stage.kubectl().run(&["get", kind, "-o", "name"])?;
        ensure!(!all.contains("verbatim"), "{kind} of ours are left: {all}");
    }
    ask(stage, "uncaptured")?;
    // Asked when there is a collector again, on the same data.
    stage.install()?;
    wait::until("the records from before", || Ok(found(stage, "captured")?.1.then_some(())))?;
    ensure!(found(stage, "uncaptured")? == (true, false), "it was to be served and unrecorded");
    Ok(())
}
