//! Unmodified clients in real pods, to a database behind a Service.

use anyhow::{Result, ensure};
use serde_json::Value;
use verbatim_api::v1::ContainerKind;
use verbatim_tests::{
    cluster::{
        pods::{Pod, psql, python},
        product::NAMESPACE,
    },
    did::{self, Did},
    parts::Part,
    wait,
};

use crate::{
    Scenario, scenario,
    stage::{DATABASE, SHOP, Stage},
    who,
};

/// Google's servers are there where its emulator is.
const WITH_METADATA: &[Part] = &[
    Part::Root,
    Part::Sandbox,
    Part::Cluster,
    Part::Binaries,
    Part::Postgres,
    Part::Python,
    Part::Bpf,
    Part::Emulator,
];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(psql_in_a_pod_reaches_the_database_by_its_service_and_is_recorded),
        scenario!(psycopg_in_a_pod_is_recorded_command_by_command),
        scenario!(a_pod_on_the_nodes_own_network_is_recorded),
        scenario!(an_init_container_and_the_one_after_it_are_recorded_apart),
        scenario!(the_pods_of_jobs_and_deployments_are_recorded_with_whoever_made_them),
        scenario!(a_cron_jobs_pods_are_recorded_with_the_job_and_whoever_made_that),
        Scenario {
            name: "principal_and_cluster_are_those_that_the_metadata_server_says",
            needs: WITH_METADATA,
            body: principal_and_cluster_are_those_that_the_metadata_server_says,
        },
        scenario!(people_ask_in_the_collectors_pod_and_nowhere_else),
    ]
}

fn client(name: &str) -> Pod {
    Pod::new(SHOP, "reader", name).for_database(DATABASE)
}

/// The statement of a psql, and what of it must be recorded.
fn asking(id: &str) -> (String, Did) {
    let statement = format!("SELECT count(*) FROM item /* id:{id} */");
    let did = Did::query(&who::principal(SHOP, "reader"), id, statement.clone()).rows(1);
    (statement, did)
}

fn psql_in_a_pod_reaches_the_database_by_its_service_and_is_recorded(stage: &mut Stage) -> Result<()> {
    let (statement, did) = asking("psql-1");
    let (_, pod) = stage.run(&client("psql").runs(&[&psql()?, "-X", "-c", &statement]))?;
    let seen = stage.agree(&[did])?;
    who::all_of(stage, &seen, &pod)
}

fn psycopg_in_a_pod_is_recorded_command_by_command(stage: &mut Stage) -> Result<()> {
    let [python, script] = python("psycopg_simple.py");
    let (said, pod) = stage.run(&client("psycopg").runs(&[&python, &script]))?;
    let did = did::read(&said, &who::principal(SHOP, "reader"))?;
    let seen = stage.agree(&did)?;
    who::all_of(stage, &seen, &pod)
}

fn a_pod_on_the_nodes_own_network_is_recorded(stage: &mut Stage) -> Result<()> {
    let (statement, did) = asking("host-network-1");
    let pod = client("host-network").on_the_nodes_network().runs(&[&psql()?, "-X", "-c", &statement]);
    let (_, pod) = stage.run(&pod)?;
    let seen = stage.agree(&[did])?;
    who::all_of(stage, &seen, &pod)
}

fn an_init_container_and_the_one_after_it_are_recorded_apart(stage: &mut Stage) -> Result<()> {
    let ((first, did_first), (then, did_then)) = (asking("init-1"), asking("init-2"));
    let psql = psql()?;
    let pod = client("init").runs_first(&[&psql, "-X", "-c", &first]).runs(&[&psql, "-X", "-c", &then]);
    let (_, pod) = stage.run(&pod)?;
    let seen = stage.agree(&[did_first, did_then])?;
    who::all_of(stage, &seen, &pod)?;
    let containers = who::containers(stage, &seen)?;
    let expected = [("prepare", ContainerKind::Init), ("client", ContainerKind::Regular)];
    let expected = expected.map(|(name, kind)| (name.to_owned(), kind)).into();
    ensure!(containers == expected, "by {containers:?}");
    Ok(())
}

fn the_pods_of_jobs_and_deployments_are_recorded_with_whoever_made_them(stage: &mut Stage) -> Result<()> {
    let psql = psql()?;
    let (from_job, did_job) = asking("job-1");
    let (from_deployment, did_deployment) = asking("deployment-1");
    stage.kubectl().apply(&client("job").runs(&[&psql, "-X", "-c", &from_job]).job()?)?;
    let asks_once = format!("{psql} -X -c '{from_deployment}' && exec sleep 2147483647");
    let deployment = client("deployment").runs(&["sh", "-c", &asks_once]);
    stage.kubectl().apply(&deployment.deployment(2)?)?;
    let seen = stage.agree(&[did_job, did_deployment.clone(), did_deployment])?;
    for (name, makers) in [("job", &["Job"][..]), ("deployment", &["ReplicaSet", "Deployment"])] {
        for pod in stage.kubectl().list("pod", SHOP, &format!("app={name}"))? {
            who::made_by(stage, &seen, &pod, makers)?;
        }
    }
    stage.kubectl().delete("deployment", SHOP, "deployment")
}

fn a_cron_jobs_pods_are_recorded_with_the_job_and_whoever_made_that(stage: &mut Stage) -> Result<()> {
    let (statement, _) = asking("cron-1");
    stage.kubectl().apply(&client("cron").runs(&[&psql()?, "-X", "-c", &statement]).cron_job()?)?;
    // At the next full minute, and perhaps at one more.
    let seen = wait::until("what its first pod did", || {
        let mut seen = stage.seen()?;
        seen.retain(|one| one.ids.iter().any(|id| id == "cron-1"));
        Ok((!seen.is_empty()).then_some(seen))
    })?;
    let recorded = who::pods(stage, &seen)?;
    let mut pods = stage.kubectl().list("pod", SHOP, "app=cron")?;
    pods.retain(|pod| pod["metadata"]["uid"].as_str().is_some_and(|uid| recorded.contains(uid)));
    ensure!(pods.len() == recorded.len(), "of {recorded:?} there are {}", pods.len());
    for pod in &pods {
        who::made_by(stage, &seen, pod, &["Job", "CronJob"])?;
    }
    stage.kubectl().delete("cronjob", SHOP, "cron")?;
    // One that began meanwhile asks until it is gone.
    wait::until("its pods to be gone", || {
        Ok(stage.kubectl().list("pod", SHOP, "app=cron")?.is_empty().then_some(()))
    })
}

fn principal_and_cluster_are_those_that_the_metadata_server_says(stage: &mut Stage) -> Result<()> {
    // The configuration says nothing of them from here on.
    stage.product()?.forget_platform()?;
    stage.product()?.restart_agent()?;
    let (statement, did) = asking("metadata-1");
    let (_, pod) = stage.run(&client("metadata").runs(&[&psql()?, "-X", "-c", &statement]))?;
    let seen = stage.agree(&[did])?;
    who::all_of(stage, &seen, &pod)
}

fn people_ask_in_the_collectors_pod_and_nowhere_else(stage: &mut Stage) -> Result<()> {
    let (statement, did) = asking("asked-1");
    stage.run(&client("asked").runs(&[&psql()?, "-X", "-c", &statement]))?;
    stage.agree(&[did])?;
    let answer = stage.product()?.verbatim(&["records", "--text", "asked-1", "--output", "json"])?;
    ensure!(answer.contains("id:asked-1"), "{answer}");
    let services = stage.kubectl().run(&["get", "services", "-n", NAMESPACE, "-o", "json"])?;
    let services: Value = serde_json::from_str(&services)?;
    let ports: Vec<&Value> = services["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["spec"]["ports"].as_array())
        .flatten()
        .collect();
    ensure!(ports.iter().all(|port| port["name"] != "audit"), "Audit is behind a Service: {ports:?}");
    // Neither account may do anything that the page of permissions does not say.
    for account in ["verbatim-agent", "verbatim-collector"] {
        let account = format!("system:serviceaccount:{NAMESPACE}:{account}");
        for (verb, what) in [
            ("create", "serviceaccounts/token"),
            ("get", "secrets"),
            ("create", "pods/exec"),
            ("delete", "pods"),
        ] {
            let mut ask =
                stage.kubectl().command(&["auth", "can-i", verb, what, "--as", &account, "-A", "-q"]);
            ensure!(!ask.status()?.success(), "{account} may {verb} {what}");
        }
    }
    Ok(())
}
