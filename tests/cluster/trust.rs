//! TLS in pods that have nothing but what the webhook gave them, and in one that it gave nothing.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use verbatim_api::v1::{Capture, OpaqueReason, Operation};
use verbatim_tests::{
    audit::Seen,
    cluster::{
        google::{Google, TOKEN},
        pods::{Pod, node, psql, python},
        product,
    },
    did::{self, Did},
    find, google,
    parts::Part,
    postgres, wait,
};

use crate::{
    Scenario, scenario,
    stage::{DATABASE, SHOP, Stage, UNSELECTED},
    who,
};

const WITH_GOOGLE: &[Part] = &[
    Part::Root,
    Part::Sandbox,
    Part::Cluster,
    Part::Binaries,
    Part::Postgres,
    Part::Python,
    Part::Bpf,
    Part::PythonGoogle,
    Part::NodeGoogle,
    Part::Bq,
    Part::Emulator,
];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(psql_over_tls_is_recorded_where_the_webhook_gave_trust),
        scenario!(a_pod_that_was_not_injected_is_spliced_and_recorded_so),
        Scenario {
            name: "googles_clients_are_recorded_with_nothing_but_what_the_webhook_gave",
            needs: WITH_GOOGLE,
            body: googles_clients_are_recorded_with_nothing_but_what_the_webhook_gave,
        },
        scenario!(intermediates_change_unseen_and_a_root_leaves_stragglers_that_are_spliced_and_told),
    ]
}

fn over_tls(namespace: &str, name: &str) -> Pod {
    Pod::new(namespace, "reader", name).for_database(DATABASE).with("PGSSLMODE", "require")
}

/// psql, asking over which TLS it came.
fn asking(id: &str) -> (String, Did) {
    let statement = format!("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() /* id:{id} */");
    let did = Did::query(&who::principal(SHOP, "reader"), id, statement.clone()).rows(1);
    (statement, did)
}

fn psql_over_tls_is_recorded_where_the_webhook_gave_trust(stage: &mut Stage) -> Result<()> {
    let (statement, did) = asking("tls-1");
    let (said, pod) = stage.run(&over_tls(SHOP, "tls").runs(&[&psql()?, "-X", "-c", &statement]))?;
    ensure!(said.contains("TLSv1.3"), "the server was reached without TLS: {said}");
    injected(&pod)?;
    let seen = stage.agree(&[did])?;
    who::all_of(stage, &seen, &pod)?;

    // psycopg_simple has been here before.
    stage.server.admin(postgres::DATABASE_DB, "DELETE FROM item WHERE id > 100")?;
    // psycopg's own libpq verifies by the variable that the webhook has set.
    let [python, script] = python("psycopg_simple.py");
    let verifying =
        over_tls(SHOP, "verifying").with("PGSSLMODE", "verify-full").with("PGSSLROOTCERT", "system");
    let (said, pod) = stage.run(&verifying.runs(&[&python, &script]))?;
    let mut all = did::read(&said, &who::principal(SHOP, "reader"))?;
    all.push(asking("tls-1").1);
    let seen = stage.agree(&all)?;
    let of_pod: Vec<Seen> =
        seen.into_iter().filter(|one| one.ids.iter().any(|id| id.starts_with("verifying-"))).collect();
    who::all_of(stage, &of_pod, &pod)
}

/// Its container has the bundle, and the stored pod says so.
pub(crate) fn injected(pod: &Value) -> Result<()> {
    let said = pod.pointer("/metadata/annotations/verbatim-audit.github.io~1injected");
    said.map(drop).with_context(|| format!("the webhook gave it nothing: {}", pod["metadata"]))
}

fn a_pod_that_was_not_injected_is_spliced_and_recorded_so(stage: &mut Stage) -> Result<()> {
    let (statement, _) = asking("spliced-1");
    let pod = over_tls(UNSELECTED, "spliced").runs(&[&psql()?, "-X", "-c", &statement]);
    let (said, pod) = stage.run(&pod)?;
    ensure!(said.contains("TLSv1.3"), "it does not go on as without us: {said}");
    ensure!(injected(&pod).is_err(), "a namespace that is not selected was injected");
    spliced(stage, &pod, OpaqueReason::TrustNotInjected)
}

/// The pod's connection is recorded as its own, undecoded, and why.
pub(crate) fn spliced(stage: &Stage, pod: &Value, reason: OpaqueReason) -> Result<()> {
    let uid = pod["metadata"]["uid"].as_str().context("a pod without a UID")?;
    let session = wait::until("the record of what passed undecoded", || {
        let mut all = stage.product()?.audit().sessions()?;
        all.retain(|one| one.workload.as_ref().is_some_and(|workload| workload.pod_uid == uid));
        // The last one that it made.
        let last = all.into_iter().max_by_key(|one| one.opened_wall_nanos);
        let last = last.filter(|one| one.closed_wall_nanos != 0).context("no connection has ended")?;
        ensure!(last.opaque_reason() == reason, "{last:?}");
        Ok(Some(last))
    })?;
    ensure!(session.capture() != Capture::Decoded, "{session:?}");
    Ok(())
}

fn googles_clients_are_recorded_with_nothing_but_what_the_webhook_gave(stage: &mut Stage) -> Result<()> {
    let [interpreter, script] = python("bigquery_commands.py");
    let [_, bq] = python("bq_commands.py");
    let (node, module) = node("bigquery_node.mjs")?;
    let clients =
        [("bigquery", vec![interpreter.clone(), script]), ("bq", vec![interpreter, bq]), ("node", node)];
    let principal = who::principal(SHOP, "reader");
    let (mut all, mut called, mut pods) = (Vec::new(), Vec::new(), Vec::new());
    for (name, words) in clients {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let pod = Pod::new(SHOP, "reader", name)
            .with("VLAB_PREFIX", &format!("{name}-"))
            .with("VLAB_NODE", &module)
            .with("GOOGLE_CLOUD_PROJECT", google::names::PROJECT)
            .with("CLOUDSDK_CONFIG", "/tmp/gcloud")
            .with("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "1")
            .with("CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK", "1")
            .knowing(&Google::hosts())
            .runs(&words);
        let (said, pod) = stage.run(&pod)?;
        injected(&pod)?;
        all.extend(did::read(&said, &principal)?);
        called.extend(did::calls(&said)?);
        pods.push(pod);
    }
    let seen = stage.agree_with_google(&all)?;
    google::calls(&called, &principal, &seen)?;
    for one in seen.iter().filter(|one| one.operation != Operation::Connect) {
        ensure!(one.target.host == google::names::BIGQUERY, "host: {one:?}");
    }
    for pod in &pods {
        let uid = pod["metadata"]["uid"].as_str().context("a pod without a UID")?;
        who::some_of(stage, &seen, uid, pod)?;
    }
    // Neither in the collector's data nor in the spool.
    for folder in [stage.cluster.folder().join(product::VOLUME), stage.cluster.on_node("/var/lib/verbatim")] {
        let found = find::files_with(&folder, TOKEN.as_bytes())?;
        ensure!(found.is_empty(), "the access token is in {found:?}");
    }
    Ok(())
}

fn intermediates_change_unseen_and_a_root_leaves_stragglers_that_are_spliced_and_told(
    stage: &mut Stage,
) -> Result<()> {
    // One that lives through the rotation, and asks before and after.
    let waiting = over_tls(SHOP, "straggler");
    stage.kubectl().apply(&waiting.manifest()?)?;
    let pod = stage.kubectl().wait_until_ready(SHOP, "straggler")?;
    injected(&pod)?;
    let psql = psql()?;
    let ask = |id: &str| -> Result<Did> {
        let (statement, did) = asking(id);
        stage.kubectl().exec(SHOP, "straggler", &[&psql, "-X", "-c", &statement])?;
        Ok(did)
    };
    let before = ask("before-rotation")?;
    stage.agree(std::slice::from_ref(&before))?;
    // Others of the same root: every node asks for its intermediates at its start, and again in time.
    stage.product()?.restart_agent()?;
    let again = ask("other-intermediates")?;
    stage.agree(&[before, again])?;

    let issuer = stage.kubectl().list("pod", product::NAMESPACE, "app=verbatim-issuer")?;
    let issuer = issuer.first().and_then(|pod| pod["metadata"]["name"].as_str()).context("no issuer")?;
    let rotate = ["/usr/bin/verbatim-issuer", "rotate", "--config", "/etc/verbatim/issuer.yaml"];
    let rotate = [&rotate[..], &["--class", "databases", "--now"]].concat();
    stage.kubectl().exec(product::NAMESPACE, issuer, &rotate)?;
    // The node asks an issuer for the new ones at its start; without an answer it goes on after a while.
    wait::until("the node to have been given what leads to the new root", || {
        stage.product()?.restart_agent()?;
        let told = doctor(stage)?;
        let straggler = told.split_once("straggler").map(|(_, rest)| rest).unwrap_or_default();
        ensure!(straggler.contains("it lacks 1 of the roots"), "{told}");
        Ok(Some(()))
    })?;

    ask("straggling")?;
    spliced(stage, &pod, OpaqueReason::OtherRoots)?;
    let (statement, after) = asking("after-rotation");
    let (_, pod) = stage.run(&over_tls(SHOP, "rotated").runs(&[&psql, "-X", "-c", &statement]))?;
    injected(&pod)?;
    // The straggler's own connection passed: the server has its statement, no record does.
    let seen = wait::until("the new pod's record", || {
        let seen = stage.seen()?;
        Ok(seen.iter().any(|one| one.ids.contains(&after.id)).then_some(seen))
    })?;
    ensure!(!seen.iter().any(|one| one.ids.iter().any(|id| id == "straggling")), "it was looked into");
    stage.kubectl().delete("pod", SHOP, "straggler")
}

/// What the node agent says of its node's pods, asked in its pod. It ends with 2 where something is not captured.
pub(crate) fn doctor(stage: &Stage) -> Result<String> {
    let agent = stage.product()?.agent()?;
    let name = agent["metadata"]["name"].as_str().context("a pod without a name")?;
    let doctor = ["exec", "-n", product::NAMESPACE, name, "--", "/usr/bin/verbatim-agent", "doctor"];
    let output = stage.kubectl().command(&doctor).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}
