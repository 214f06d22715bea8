//! An API server that is away, and one that has forgotten what was before.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use verbatim_api::v1::Resolution;
use verbatim_tests::{
    audit::Seen,
    cluster::{
        pods::{Pod, psql},
        product,
    },
    shell, wait,
};

use crate::{
    Scenario, scenario,
    stage::{DATABASE, SHOP, Stage, UNSELECTED},
    who,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(an_api_server_that_is_away_misleads_nobody_and_is_followed_again_after_a_compaction)]
}

/// What the node agent logs when it loses the API server, and when it has listed the pods anew.
const LOST: &str = "the API server fails";
const LISTED: &str = "pods of this node are known";

fn client(namespace: &str, name: &str, script: &str) -> Pod {
    Pod::new(namespace, "reader", name).for_database(DATABASE).runs(&["sh", "-c", script])
}

/// psql in a shell; `id` may refer to its variables.
fn ask(id: &str) -> Result<String> {
    Ok(format!(r#"{} -X -c "SELECT count(*) FROM item /* id:{id} */""#, psql()?))
}

fn an_api_server_that_is_away_misleads_nobody_and_is_followed_again_after_a_compaction(
    stage: &mut Stage,
) -> Result<()> {
    let steadily = ask("steady-$n")?;
    let steadily = format!("n=0; while true; do {steadily} || exit 1; n=$((n+1)); sleep 0.5; done");
    stage.kubectl().apply(&client(SHOP, "steady", &steadily).manifest()?)?;
    let steady = stage.kubectl().wait_until_ready(SHOP, "steady")?;
    // A container that begins anew is another container. The uptime tells its commands from the first one's.
    let anew = ask("anew-${up%.*}")?;
    let anew = format!("read up rest < /proc/uptime; {anew} && exec sleep 2147483647");
    stage.kubectl().apply(&client(SHOP, "anew", &anew).restarted().manifest()?)?;
    let anew = stage.kubectl().wait_until_ready(SHOP, "anew")?;
    ensure!(until(stage, "anew-", 1)?.len() == 1, "one container, one command");
    until(stage, "steady-", 1)?;
    let process = product::process(&stage.cluster, &anew, "client")?;

    // A pod that kubelet knows and the API server has not been told anything about.
    let late = format!("{} && exec sleep 2147483647", ask("late-1")?);
    stage.kubectl().apply(&client(UNSELECTED, "late", &late).without_token().manifest()?)?;
    let late = wait::until("the pod to have a node", || {
        let pod = stage.kubectl().get("pod", UNSELECTED, "late")?;
        Ok(pod["spec"]["nodeName"].is_string().then_some(pod))
    })?;
    // Not before the kubelet has read of it, which it shows by making the pod's cgroup.
    wait::until("the kubelet to know the pod", || Ok(product::pod_cgroup(&stage.cluster, &late)?.map(drop)))?;
    stage.cluster.control().kill_api_server();
    let before = of(stage, "steady-")?.len();
    shell::run("kill", &["-KILL", &process.to_string()])?;
    let of_late = until(stage, "late-", 1)?;
    let of_anew = until(stage, "anew-", 2)?;
    until(stage, "steady-", before + 5)?;

    stage.cluster.control().compact()?;
    stage.cluster.control().restart_api_server()?;
    wait::until("the pods to be listed anew", || {
        let said = said(stage)?;
        let (_, since) = said.rsplit_once(LOST).context("it never lost the API server")?;
        Ok(since.contains(LISTED).then_some(()))
    })?;
    who::all_of(stage, &of(stage, "steady-")?, &steady)?;
    who::nobody_elses(stage, &of_late, &late, &[Resolution::PodUnknown, Resolution::NoApiServer])?;
    who::nobody_elses(stage, &of_anew, &anew, &[])?;
    served(stage, "id:late-1 ")?;

    let after = format!("{} && exec sleep 2147483647", ask("after-1")?);
    stage.kubectl().apply(&client(SHOP, "after", &after).manifest()?)?;
    let after = stage.kubectl().wait_until_ready(SHOP, "after")?;
    who::all_of(stage, &until(stage, "after-", 1)?, &after)?;
    // The container that began meanwhile has its name now.
    let again = ["sh", "-c", &ask("again-1")?];
    stage.kubectl().exec(SHOP, "anew", &again)?;
    let anew = stage.kubectl().get("pod", SHOP, "anew")?;
    who::all_of(stage, &until(stage, "again-", 1)?, &anew)?;
    for (namespace, name) in [(SHOP, "steady"), (SHOP, "anew"), (UNSELECTED, "late"), (SHOP, "after")] {
        stage.kubectl().delete("pod", namespace, name)?;
    }
    stage.product()?.wait_until_ready()
}

/// What is recorded with such an id.
fn of(stage: &Stage, prefix: &str) -> Result<Vec<Seen>> {
    let mut seen = stage.seen()?;
    seen.retain(|one| one.ids.iter().any(|id| id.starts_with(prefix)));
    Ok(seen)
}

/// The same, once there is as much.
fn until(stage: &Stage, prefix: &str, count: usize) -> Result<Vec<Seen>> {
    wait::until(&format!("{count} records of {prefix}"), || {
        let seen = of(stage, prefix)?;
        ensure!(seen.len() >= count, "{} so far", seen.len());
        Ok(Some(seen))
    })
}

fn served(stage: &Stage, mark: &str) -> Result<()> {
    let served = stage.server.complete_log()?.iter().any(|one| one.text.contains(mark));
    ensure!(served, "the server never saw {mark}");
    Ok(())
}

/// Everything that the node agent has logged.
fn said(stage: &Stage) -> Result<String> {
    let agent: Value = stage.product()?.agent()?;
    let name = agent["metadata"]["name"].as_str().context("a pod without a name")?;
    stage.kubectl().run(&["logs", "-n", product::NAMESPACE, name])
}
