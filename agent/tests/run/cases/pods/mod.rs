//! `serve` with `kubernetes`: cgroups as a kubelet lays them out, and an API server that knows their pods.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use prost::Message as _;
use serde_json::{Value, json};
use verbatim_api::v1::{self, PrincipalKind, Resolution};

use self::memory::two_hundred_and_fifty_pods_take_less_than_ten_mebibytes;
use self::world::{OTHER, UID, World, id, pod, until_metric};
use super::cases;
use crate::{
    Outcome,
    api_server::Mood,
    support::{Guard, ended, ensure, until},
    workload::{WORKLOAD, program},
};

mod memory;
mod world;

cases!(
    a_connection_is_recorded_under_its_pod_with_all_that_is_known_of_it,
    a_pod_that_is_told_late_is_waited_for_and_nobody_else_waits,
    a_pod_that_is_gone_before_anybody_has_told_of_it_is_named_all_the_same,
    a_pod_that_is_never_told_is_unresolved_with_its_evidence,
    metrics_say_how_many_pods_are_known_and_whether_the_api_server_tells_of_them,
    without_an_api_server_connections_pass_and_are_unresolved,
    a_pod_is_left_alone_once_its_labels_say_so,
    two_hundred_and_fifty_pods_take_less_than_ten_mebibytes,
    the_kernel_gives_no_cgroups_id_twice,
    a_cluster_without_the_nodes_name_is_refused_before_anything_is_touched,
);

fn a_connection_is_recorded_under_its_pod_with_all_that_is_known_of_it() -> Outcome {
    let world = World::new()?;
    world.api.put(pod(UID, &id("1"), "checkout"));
    let account = "app@my-project.iam.gserviceaccount.com";
    let metadata = |more: Value| json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": more});
    let annotated = json!({"name": "checkout", "annotations": {"iam.gke.io/gcp-service-account": account}});
    world.api.answer("/api/v1/namespaces/shop/serviceaccounts/checkout", 200, metadata(annotated));
    let agent = world.serve("30s")?;
    let below = world.container(UID, &id("1"))?;
    let nested = format!("{below}/nested");
    fs::create_dir(world.tree.path(&nested))?;
    for below in [&below, &nested] {
        world.echo(below)?;
    }
    world.stop(agent)?;
    let seen = world.workloads();
    ensure(seen.len() == 2, || format!("recorded: {seen:?}"))?;
    for workload in seen {
        let expected = v1::Workload {
            principal_kind: PrincipalKind::Federated.into(),
            principal: "principal://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/\
                        my-project.svc.id.goog/subject/ns/shop/sa/checkout"
                .into(),
            namespace: "shop".into(),
            service_account: "checkout".into(),
            pod_name: "checkout-5d9-x".into(),
            pod_uid: UID.into(),
            container: "app".into(),
            node: "node-1".into(),
            cgroup_id: workload.cgroup_id,
            impersonated_service_account: account.into(),
            cluster: "projects/my-project/locations/l/clusters/c".into(),
            container_kind: v1::ContainerKind::Regular.into(),
            resolution: Resolution::Pod.into(),
            container_id: id("1"),
        };
        ensure(workload == expected, || format!("recorded: {workload:?}"))?;
    }
    let contents = world.collector.contents();
    let contents = contents.iter().filter_map(|entry| v1::Content::decode(entry.content.as_ref()).ok());
    let pods: Vec<v1::Pod> = contents.filter_map(|content| content.pod).collect();
    let whole = |pod: &v1::Pod| {
        let owner = pod.owners.first().map(|owner| (owner.kind.as_str(), owner.name.as_str()));
        owner == Some(("ReplicaSet", "checkout-5d9"))
            && pod.image == "registry.example/checkout:7"
            && pod.image_digest == format!("sha256:{}", id("d"))
            && pod.labels.first().is_some_and(|label| label.name == "app" && label.value == b"checkout")
    };
    ensure(pods.len() == 2 && pods.iter().all(whole), || format!("recorded: {pods:?}"))
}

fn a_pod_that_is_told_late_is_waited_for_and_nobody_else_waits() -> Outcome {
    let world = World::new()?;
    world.api.put(pod(OTHER, &id("2"), "checkout"));
    let agent = world.serve("30s")?;
    let late = world.container(UID, &id("1"))?;
    let known = world.container(OTHER, &id("2"))?;
    let mut waiting = world.tree.command(&late, &program(), &[WORKLOAD, "echo", &world.address]);
    let mut waiting = Guard(waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    until("another's connection is served meanwhile", || {
        world.echo(&known).is_ok() && !world.workloads().is_empty()
    })?;
    ensure(waiting.0.try_wait()?.is_none(), || "it did not wait".into())?;
    ensure(world.workloads().iter().all(|workload| workload.pod_uid == OTHER), || "named before".into())?;
    world.api.put(pod(UID, &id("1"), "checkout"));
    ensure(waiting.output()?.status.success(), || "it failed".into())?;
    world.stop(agent)?;
    let seen = world.workloads();
    let named = |uid: &str| seen.iter().filter(|workload| workload.pod_uid == uid).count();
    ensure(named(UID) == 1 && named(UID) + named(OTHER) == seen.len(), || format!("recorded: {seen:?}"))?;
    let resolved = seen.iter().all(|workload| workload.resolution() == Resolution::Pod);
    ensure(resolved, || format!("recorded: {seen:?}"))
}

fn a_pod_that_is_gone_before_anybody_has_told_of_it_is_named_all_the_same() -> Outcome {
    let world = World::new()?;
    let agent = world.serve("30s")?;
    let below = world.container(UID, &id("1"))?;
    // What is told and taken back before it is listed is never told at all.
    until("pods are listed", || world.api.watches() > 0)?;
    // Until a walk has seen it nobody can know whose it was.
    let config = world.bench.path("agent.yaml").display().to_string();
    until("a walk has seen it", || {
        let doctor = ["doctor", "--config", &config, "--output", "json"];
        ended(&mut world.bench.agent(&doctor)).is_ok_and(|(_, report, _)| report.contains(&id("1")))
    })?;
    let (code, stdout, stderr) =
        ended(&mut world.tree.command(&below, &program(), &[WORKLOAD, "knock", &world.address]))?;
    ensure(code == Some(0), || format!("{code:?}: {stdout}{stderr}"))?;
    until("its cgroup is gone", || fs::remove_dir(world.tree.path(&below)).is_ok())?;
    fs::remove_dir(world.tree.path(&format!("kubepods/burstable/pod{UID}")))?;
    // Another of its name comes first.
    world.api.put(pod(OTHER, &id("2"), "checkout"));
    let mut late = pod(UID, &id("1"), "checkout");
    let container = json!({"exitCode": 0, "containerID": format!("containerd://{}", id("1"))});
    late["status"]["containerStatuses"][0]["containerID"] = json!("");
    late["status"]["containerStatuses"][0]["state"] = json!({"terminated": container});
    world.api.put(late);
    world.api.remove(UID);
    until("it is recorded", || !world.workloads().is_empty())?;
    world.stop(agent)?;
    let seen = world.workloads();
    let named = |workload: &v1::Workload| {
        (workload.pod_uid.as_str(), workload.container.as_str(), workload.resolution())
            == (UID, "app", Resolution::Pod)
    };
    ensure(seen.len() == 1 && seen.iter().all(named), || format!("recorded: {seen:?}"))
}

fn unresolved(world: &World, reason: Resolution) -> Outcome {
    let seen = world.workloads();
    let expected = |workload: &v1::Workload| {
        let kind = workload.principal_kind() == PrincipalKind::Unresolved && workload.principal.is_empty();
        let evidence = workload.pod_uid == UID && workload.container_id == id("1");
        let nameless = workload.namespace.is_empty() && workload.pod_name.is_empty();
        kind && evidence && nameless && workload.resolution() == reason
    };
    ensure(!seen.is_empty() && seen.iter().all(expected), || format!("recorded: {seen:?}"))
}

fn a_pod_that_is_never_told_is_unresolved_with_its_evidence() -> Outcome {
    let world = World::new()?;
    // Of the same name, and in a cgroup beside it.
    world.api.put(pod(OTHER, &id("2"), "checkout"));
    let agent = world.serve("300ms")?;
    until("pods are listed", || world.api.watches() > 0)?;
    world.container(OTHER, &id("2"))?;
    let below = world.container(UID, &id("1"))?;
    world.echo(&below)?;
    world.stop(agent)?;
    unresolved(&world, Resolution::PodUnknown)
}

fn metrics_say_how_many_pods_are_known_and_whether_the_api_server_tells_of_them() -> Outcome {
    let world = World::new()?;
    world.api.put(pod(UID, &id("1"), "checkout"));
    let (agent, metrics) = world.serve_metrics("1s")?;
    until_metric(metrics, "verbatim_pods_known 1")?;
    until_metric(metrics, "verbatim_api_server_synced 1")?;
    world.api.mood(Mood::HangsUp);
    world.api.hang_up();
    until_metric(metrics, "verbatim_api_server_synced 0")?;
    until_metric(metrics, "verbatim_pods_known 1")?;
    world.stop(agent)
}

fn without_an_api_server_connections_pass_and_are_unresolved() -> Outcome {
    let world = World::new()?;
    // Bound by us and not listened on.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let port = nobody.local_addr()?.port();
    let agent = world.serve_as(&world.configuration(port, "300ms")?)?;
    let below = world.container(UID, &id("1"))?;
    let began = Instant::now();
    for _ in 0..10 {
        world.echo(&below)?;
    }
    // A bound for each would be more than a bound for all.
    ensure(began.elapsed() < Duration::from_secs(30), || "each of them waited".into())?;
    world.stop(agent)?;
    unresolved(&world, Resolution::NoApiServer)
}

fn a_pod_is_left_alone_once_its_labels_say_so() -> Outcome {
    let world = World::new()?;
    world.api.put(pod(UID, &id("1"), "checkout"));
    let agent = world.serve("30s")?;
    let below = world.container(UID, &id("1"))?;
    world.echo(&below)?;
    world.api.put(pod(UID, &id("1"), "spared"));
    until("connections are not recorded any more", || {
        let before = world.workloads().len();
        let done = world.echo(&below).is_ok();
        std::thread::sleep(Duration::from_millis(200));
        done && before > 0 && world.workloads().len() == before
    })?;
    world.stop(agent)
}

/// What identity counts on beside its own checks: an id holds a generation.
fn the_kernel_gives_no_cgroups_id_twice() -> Outcome {
    let world = World::new()?;
    let path = world.tree.path("kubepods/again");
    let mut given = std::collections::HashSet::new();
    for _ in 0..2000 {
        fs::create_dir(&path)?;
        let id = verbatim_sys::cgroup::id(&path)?;
        fs::remove_dir(&path)?;
        ensure(given.insert(id), || format!("{id} was given again"))?;
    }
    Ok(())
}

fn a_cluster_without_the_nodes_name_is_refused_before_anything_is_touched() -> Outcome {
    let world = World::new()?;
    let text = world.configuration(1, "1s")?.replace("nodeName: node-1, ", "");
    let file = world.bench.path("agent.yaml");
    fs::write(&file, text)?;
    let file = file.display().to_string();
    let agent = |arguments: &[&str]| world.bench.agent(arguments).env_remove("NODE_NAME").output();
    let output = agent(&["serve", "--config", &file])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure(output.status.code() == Some(1), || format!("{}: {said}", output.status))?;
    ensure(said.contains("`kubernetes.nodeName` is absent") && said.contains("NODE_NAME"), || said)?;
    ensure(!world.bench.path("spool").exists(), || "a spool was made".into())?;
    // The file itself is good, wherever it is looked at.
    ensure(agent(&["serve", "--config", &file, "--check"])?.status.success(), || "refused".into())
}
