//! `serve` with `kubernetes`: cgroups as a kubelet lays them out, and an API server that knows their pods.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::Stdio,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use prost::Message as _;
use serde_json::{Value, json};
use verbatim_api::v1::{self, PrincipalKind, Resolution};

use super::{
    cases,
    control::asked,
    serving::{Tree, configuration, ends, serve_as, stop},
};
use crate::{
    Outcome,
    api_server::{Mood, Server},
    collector::{Collector, Manner, socket},
    postgres::echo_server,
    support::{Bench, Guard, ended, ensure, until},
    workload::{WORKLOAD, program},
};

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

const UID: &str = "0f6e7c1a-2b3c-4d5e-8f90-a1b2c3d4e5f6";
const OTHER: &str = "1f6e7c1a-2b3c-4d5e-8f90-a1b2c3d4e5f6";

fn id(digit: &str) -> String {
    digit.repeat(64)
}

/// An API server in a runtime of its own.
struct Api {
    server: Server,
    _runtime: tokio::runtime::Runtime,
}

impl Api {
    fn start() -> Result<Self, Failed> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let server = runtime.block_on(Server::start());
        Ok(Self { server, _runtime: runtime })
    }
}

fn pod(uid: &str, container: &str, app: &str) -> Value {
    json!({
        "metadata": {"name": "checkout-5d9-x", "namespace": "shop", "uid": uid, "labels": {"app": app},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-5d9",
                "uid": "22222222-2222-4222-8222-222222222222", "controller": true}]},
        "spec": {"nodeName": "node-1", "serviceAccountName": "checkout",
            "containers": [{"name": "app", "image": "registry.example/checkout:7"}]},
        "status": {"containerStatuses": [{"name": "app", "image": "i", "ready": true, "restartCount": 0,
            "imageID": format!("registry.example/checkout@sha256:{}", id("d")),
            "containerID": format!("containerd://{container}")}]},
    })
}

/// As of `serving`, named by the API server at this port.
fn cluster(bench: &Bench, tree: &Tree, port: u16, timeout: &str) -> Result<String, Failed> {
    let kubeconfig = bench.path("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(&kubeconfig, text.to_string())?;
    let base = configuration(bench, tree, None);
    let (before, after) = base.split_once("selectors:").ok_or("no selectors")?;
    let (_, after) = after.split_once("spool:").ok_or("no spool")?;
    Ok(format!(
        "{before}kubernetes: {{nodeName: node-1, kubeconfig: {}, cgroupRoot: {}, projectNumber: 7, \
         project: my-project, cluster: c, location: l, labels: [app], resolveTimeout: {timeout}}}\n\
         selectors:\n- {{match: {{podLabels: {{app: spared}}}}, set: {{capture: pass, failMode: open}}}}\n\
         - {{match: {{namespace: shop}}, set: {{capture: steer, failMode: open}}}}\nspool:{after}",
        kubeconfig.display(),
        tree.name(),
    ))
}

fn container(tree: &Tree, uid: &str, container: &str) -> Result<String, Failed> {
    let below = format!("kubepods/burstable/pod{uid}/{container}");
    fs::create_dir_all(tree.path(&below))?;
    Ok(below)
}

fn echo(tree: &Tree, below: &str, address: &str) -> Outcome {
    let (code, stdout, stderr) = ended(&mut tree.command(below, &program(), &[WORKLOAD, "echo", address]))?;
    ensure(code == Some(0), || format!("in {below}: {code:?}: {stdout}{stderr}"))
}

fn workloads(collector: &Collector) -> Vec<v1::Workload> {
    ends(collector).into_iter().map(|envelope| envelope.workload.unwrap_or_default()).collect()
}

fn a_connection_is_recorded_under_its_pod_with_all_that_is_known_of_it() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let api = Api::start()?;
    api.server.put(pod(UID, &id("1"), "checkout"));
    let account = "app@my-project.iam.gserviceaccount.com";
    let metadata = |more: Value| json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": more});
    let annotated = json!({"name": "checkout", "annotations": {"iam.gke.io/gcp-service-account": account}});
    api.server.answer("/api/v1/namespaces/shop/serviceaccounts/checkout", 200, metadata(annotated));
    let address = echo_server()?.to_string();
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let agent = serve_as(&bench, &tree, &cluster(&bench, &tree, api.server.port, "30s")?)?;
    let below = container(&tree, UID, &id("1"))?;
    let nested = format!("{below}/nested");
    fs::create_dir(tree.path(&nested))?;
    for below in [&below, &nested] {
        echo(&tree, below, &address)?;
    }
    stop(&bench, agent)?;
    let seen = workloads(&collector);
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
    let contents = collector.contents();
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
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let api = Api::start()?;
    api.server.put(pod(OTHER, &id("2"), "checkout"));
    let address = echo_server()?.to_string();
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let agent = serve_as(&bench, &tree, &cluster(&bench, &tree, api.server.port, "30s")?)?;
    let late = container(&tree, UID, &id("1"))?;
    let known = container(&tree, OTHER, &id("2"))?;
    let mut waiting = tree.command(&late, &program(), &[WORKLOAD, "echo", &address]);
    let mut waiting = Guard(waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    until("another's connection is served meanwhile", || {
        echo(&tree, &known, &address).is_ok() && !workloads(&collector).is_empty()
    })?;
    ensure(waiting.0.try_wait()?.is_none(), || "it did not wait".into())?;
    ensure(workloads(&collector).iter().all(|workload| workload.pod_uid == OTHER), || "named before".into())?;
    api.server.put(pod(UID, &id("1"), "checkout"));
    ensure(waiting.output()?.status.success(), || "it failed".into())?;
    stop(&bench, agent)?;
    let seen = workloads(&collector);
    let named = |uid: &str| seen.iter().filter(|workload| workload.pod_uid == uid).count();
    ensure(named(UID) == 1 && named(UID) + named(OTHER) == seen.len(), || format!("recorded: {seen:?}"))?;
    let resolved = seen.iter().all(|workload| workload.resolution() == Resolution::Pod);
    ensure(resolved, || format!("recorded: {seen:?}"))
}

fn a_pod_that_is_gone_before_anybody_has_told_of_it_is_named_all_the_same() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let api = Api::start()?;
    let address = echo_server()?.to_string();
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let agent = serve_as(&bench, &tree, &cluster(&bench, &tree, api.server.port, "30s")?)?;
    let below = container(&tree, UID, &id("1"))?;
    // What is told and taken back before it is listed is never told at all.
    until("pods are listed", || api.server.watches() > 0)?;
    // Until a walk has seen it nobody can know whose it was.
    let config = bench.path("agent.yaml").display().to_string();
    until("a walk has seen it", || {
        let doctor = ["doctor", "--config", &config, "--output", "json"];
        ended(&mut bench.agent(&doctor)).is_ok_and(|(_, report, _)| report.contains(&id("1")))
    })?;
    let (code, stdout, stderr) =
        ended(&mut tree.command(&below, &program(), &[WORKLOAD, "knock", &address]))?;
    ensure(code == Some(0), || format!("{code:?}: {stdout}{stderr}"))?;
    until("its cgroup is gone", || fs::remove_dir(tree.path(&below)).is_ok())?;
    fs::remove_dir(tree.path(&format!("kubepods/burstable/pod{UID}")))?;
    // Another of its name comes first.
    api.server.put(pod(OTHER, &id("2"), "checkout"));
    let mut late = pod(UID, &id("1"), "checkout");
    let container = json!({"exitCode": 0, "containerID": format!("containerd://{}", id("1"))});
    late["status"]["containerStatuses"][0]["containerID"] = json!("");
    late["status"]["containerStatuses"][0]["state"] = json!({"terminated": container});
    api.server.put(late);
    api.server.remove(UID);
    until("it is recorded", || !workloads(&collector).is_empty())?;
    stop(&bench, agent)?;
    let seen = workloads(&collector);
    let named = |workload: &v1::Workload| {
        (workload.pod_uid.as_str(), workload.container.as_str(), workload.resolution())
            == (UID, "app", Resolution::Pod)
    };
    ensure(seen.len() == 1 && seen.iter().all(named), || format!("recorded: {seen:?}"))
}

fn unresolved(collector: &Collector, reason: Resolution) -> Outcome {
    let seen = workloads(collector);
    let expected = |workload: &v1::Workload| {
        let kind = workload.principal_kind() == PrincipalKind::Unresolved && workload.principal.is_empty();
        let evidence = workload.pod_uid == UID && workload.container_id == id("1");
        let nameless = workload.namespace.is_empty() && workload.pod_name.is_empty();
        kind && evidence && nameless && workload.resolution() == reason
    };
    ensure(!seen.is_empty() && seen.iter().all(expected), || format!("recorded: {seen:?}"))
}

fn a_pod_that_is_never_told_is_unresolved_with_its_evidence() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let api = Api::start()?;
    // Of the same name, and in a cgroup beside it.
    api.server.put(pod(OTHER, &id("2"), "checkout"));
    let address = echo_server()?.to_string();
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let agent = serve_as(&bench, &tree, &cluster(&bench, &tree, api.server.port, "300ms")?)?;
    until("pods are listed", || api.server.watches() > 0)?;
    container(&tree, OTHER, &id("2"))?;
    let below = container(&tree, UID, &id("1"))?;
    echo(&tree, &below, &address)?;
    stop(&bench, agent)?;
    unresolved(&collector, Resolution::PodUnknown)
}

/// Waits until a metric has this value.
fn until_metric(address: SocketAddr, line: &str) -> Outcome {
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    until(line, || asked(address, request).is_ok_and(|(_, page)| page.lines().any(|found| found == line)))
}

fn metrics_say_how_many_pods_are_known_and_whether_the_api_server_tells_of_them() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let api = Api::start()?;
    api.server.put(pod(UID, &id("1"), "checkout"));
    let _collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let metrics = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let usual = cluster(&bench, &tree, api.server.port, "1s")?;
    let agent = serve_as(&bench, &tree, &format!("{usual}metrics: {{listen: '{metrics}'}}\n"))?;
    until_metric(metrics, "verbatim_pods_known 1")?;
    until_metric(metrics, "verbatim_api_server_synced 1")?;
    api.server.mood(Mood::HangsUp);
    api.server.hang_up();
    until_metric(metrics, "verbatim_api_server_synced 0")?;
    until_metric(metrics, "verbatim_pods_known 1")?;
    stop(&bench, agent)
}

fn without_an_api_server_connections_pass_and_are_unresolved() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    // Bound by us and not listened on.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let port = nobody.local_addr()?.port();
    let address = echo_server()?.to_string();
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let agent = serve_as(&bench, &tree, &cluster(&bench, &tree, port, "300ms")?)?;
    let below = container(&tree, UID, &id("1"))?;
    let began = Instant::now();
    for _ in 0..10 {
        echo(&tree, &below, &address)?;
    }
    // A bound for each would be more than a bound for all.
    ensure(began.elapsed() < Duration::from_secs(30), || "each of them waited".into())?;
    stop(&bench, agent)?;
    unresolved(&collector, Resolution::NoApiServer)
}

fn a_pod_is_left_alone_once_its_labels_say_so() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let api = Api::start()?;
    api.server.put(pod(UID, &id("1"), "checkout"));
    let address = echo_server()?.to_string();
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let agent = serve_as(&bench, &tree, &cluster(&bench, &tree, api.server.port, "30s")?)?;
    let below = container(&tree, UID, &id("1"))?;
    echo(&tree, &below, &address)?;
    api.server.put(pod(UID, &id("1"), "spared"));
    until("connections are not recorded any more", || {
        let before = workloads(&collector).len();
        let done = echo(&tree, &below, &address).is_ok();
        std::thread::sleep(Duration::from_millis(200));
        done && before > 0 && workloads(&collector).len() == before
    })?;
    stop(&bench, agent)
}

/// Resident memory of the worker that serves, bytes.
fn resident(agent: &Guard) -> Result<u64, Failed> {
    let children = format!("/proc/{0}/task/{0}/children", agent.0.id());
    let worker = fs::read_to_string(children)?.split_whitespace().last().ok_or("no worker")?.to_owned();
    let status = fs::read_to_string(format!("/proc/{worker}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// As large as pods are: managed fields, environments, volumes and conditions are most of it.
fn large(number: u32) -> Value {
    let uid = format!("{number:08x}-0000-4000-8000-000000000000");
    let mut pod = pod(&uid, &format!("{number:064x}"), "checkout");
    pod["metadata"]["name"] = json!(format!("checkout-{number}"));
    let fields = "f:metadata ".repeat(300);
    pod["metadata"]["managedFields"] = json!([{"manager": "kubelet", "operation": "Update", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {"f:note": fields}}}]);
    let environment: Vec<Value> = (0..60)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "a value of usual length"}))
        .collect();
    pod["spec"]["containers"][0]["env"] = json!(environment);
    pod
}

fn two_hundred_and_fifty_pods_take_less_than_ten_mebibytes() -> Outcome {
    const PODS: u32 = 250;
    const LIMIT: u64 = 10 << 20;
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let api = Api::start()?;
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let address = echo_server()?.to_string();
    let agent = serve_as(&bench, &tree, &cluster(&bench, &tree, api.server.port, "30s")?)?;
    // One before, so that what the first of all costs does not count.
    api.server.put(large(PODS));
    let last = |number: u32| (format!("{number:08x}-0000-4000-8000-000000000000"), format!("{number:064x}"));
    let (uid, id) = last(PODS);
    echo(&tree, &container(&tree, &uid, &id)?, &address)?;
    let before = resident(&agent)?;
    for number in 0..PODS {
        let (uid, id) = last(number);
        container(&tree, &uid, &id)?;
        fs::create_dir(
            tree.path(&format!("kubepods/burstable/pod{uid}/{:064x}", u64::from(number) + (1 << 40))),
        )?;
        api.server.put(large(number));
    }
    // The connection waits for the last of them.
    let (uid, id) = last(PODS - 1);
    echo(&tree, &container(&tree, &uid, &id)?, &address)?;
    let listed = resident(&agent)?.saturating_sub(before);
    // And a list of all, which is the most that there is in memory at once.
    let lists = api.server.lists();
    api.server.compact();
    until("everything is listed anew", || api.server.lists() >= lists + 5)?;
    let after = resident(&agent)?.saturating_sub(before);
    println!("{PODS} pods: {listed} bytes after their events, {after} after a list");
    stop(&bench, agent)?;
    ensure(workloads(&collector).iter().all(|workload| workload.resolution() == Resolution::Pod), || {
        format!("recorded: {:?}", workloads(&collector))
    })?;
    ensure(listed.max(after) < LIMIT, || format!("{listed} bytes, {after} after a list"))
}

/// What identity counts on beside its own checks: an id holds a generation.
fn the_kernel_gives_no_cgroups_id_twice() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let path = tree.path("kubepods/again");
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
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let text = cluster(&bench, &tree, 1, "1s")?.replace("nodeName: node-1, ", "");
    let file = bench.path("agent.yaml");
    fs::write(&file, text)?;
    let file = file.display().to_string();
    let agent = |arguments: &[&str]| bench.agent(arguments).env_remove("NODE_NAME").output();
    let output = agent(&["serve", "--config", &file])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure(output.status.code() == Some(1), || format!("{}: {said}", output.status))?;
    ensure(said.contains("`kubernetes.nodeName` is absent") && said.contains("NODE_NAME"), || said)?;
    ensure(!bench.path("spool").exists(), || "a spool was made".into())?;
    // The file itself is good, wherever it is looked at.
    ensure(agent(&["serve", "--config", &file, "--check"])?.status.success(), || "refused".into())
}
