//! Whom records must name: everything that the API server knows about a pod, and nothing else.

use std::collections::HashSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use verbatim_api::v1::{self, ContainerKind, Resolution};
use verbatim_tests::{
    agent,
    audit::Seen,
    cluster::{
        NODE_NAME,
        product::{CLUSTER, container_id},
    },
};

use crate::stage::Stage;

/// The federated principal of a service account.
pub(crate) fn principal(namespace: &str, service_account: &str) -> String {
    agent::principal(namespace, service_account)
}

/// Each of these commands is this pod's, whichever of its containers sent it.
pub(crate) fn all_of(stage: &Stage, seen: &[Seen], pod: &Value) -> Result<()> {
    ensure!(!seen.is_empty(), "nothing is recorded");
    for command in commands(stage, seen)? {
        check(&command, pod)?;
    }
    Ok(())
}

/// The names of the containers that these commands came from.
pub(crate) fn containers(stage: &Stage, seen: &[Seen]) -> Result<HashSet<(String, ContainerKind)>> {
    let workloads = commands(stage, seen)?.into_iter().map(|command| workload(&command));
    workloads.map(|workload| workload.map(|one| (one.container.clone(), one.container_kind()))).collect()
}

/// UIDs of the pods that these commands came from.
pub(crate) fn pods(stage: &Stage, seen: &[Seen]) -> Result<HashSet<String>> {
    let workloads = commands(stage, seen)?.into_iter().map(|command| workload(&command));
    workloads.map(|workload| workload.map(|one| one.pod_uid)).collect()
}

/// Some of these commands are this pod's.
pub(crate) fn some_of(stage: &Stage, seen: &[Seen], uid: &str, pod: &Value) -> Result<()> {
    let mut all = commands(stage, seen)?;
    all.retain(|command| workload(command).is_ok_and(|workload| workload.pod_uid == uid));
    ensure!(!all.is_empty(), "nothing of pod {uid} is recorded");
    all.iter().try_for_each(|command| check(command, pod))
}

/// Some of these commands are this pod's, with these makers above it.
pub(crate) fn made_by(stage: &Stage, seen: &[Seen], pod: &Value, makers: &[&str]) -> Result<()> {
    let mut all = commands(stage, seen)?;
    let uid = text(pod, "/metadata/uid")?;
    all.retain(|command| workload(command).is_ok_and(|workload| workload.pod_uid == uid));
    ensure!(!all.is_empty(), "nothing of pod {uid} is recorded");
    for command in all {
        check(&command, pod)?;
        let kinds: Vec<String> = known(&command)?.owners.into_iter().map(|owner| owner.kind).collect();
        ensure!(kinds == makers, "made by {kinds:?}, expected {makers:?}");
    }
    Ok(())
}

/// These commands come out of this pod's cgroup, and no name in them is another's: either the pod is named, its
/// container perhaps not, or for one of these reasons nothing of it is.
pub(crate) fn nobody_elses(stage: &Stage, seen: &[Seen], pod: &Value, reasons: &[Resolution]) -> Result<()> {
    ensure!(!seen.is_empty(), "nothing is recorded");
    for command in commands(stage, seen)? {
        let workload = workload(&command)?;
        ensure!(workload.pod_uid == text(pod, "/metadata/uid")?, "of another pod: {workload:?}");
        let named = [&workload.namespace, &workload.pod_name, &workload.service_account, &workload.principal];
        let named = named.map(String::as_str);
        let (namespace, account) =
            (text(pod, "/metadata/namespace")?, text(pod, "/spec/serviceAccountName")?);
        match workload.resolution() {
            Resolution::Pod | Resolution::ContainerUnknown => {
                let its = [namespace, text(pod, "/metadata/name")?, account, &principal(namespace, account)];
                ensure!(named == its, "named {named:?}, expected {its:?}");
            }
            reason => {
                ensure!(reasons.contains(&reason), "unresolved for another reason: {workload:?}");
                ensure!(named.iter().all(|name| name.is_empty()), "named all the same: {workload:?}");
            }
        }
    }
    Ok(())
}

fn commands(stage: &Stage, seen: &[Seen]) -> Result<Vec<v1::Command>> {
    let ids: HashSet<&[u8]> = seen.iter().map(|one| one.record.as_slice()).collect();
    let mut all = stage.product()?.audit().commands()?;
    all.retain(|command| ids.contains(command.id.as_slice()));
    Ok(all)
}

fn workload(command: &v1::Command) -> Result<v1::Workload> {
    let started = command.started.as_ref().context("a command without a start")?;
    started.workload.clone().context("a command of nobody")
}

fn known(command: &v1::Command) -> Result<v1::Pod> {
    let content = command.started_content.as_ref().context("a command without a content")?;
    content.pod.clone().context("a command without what the cluster knows of its pod")
}

/// The record's names are the API server's.
fn check(command: &v1::Command, pod: &Value) -> Result<()> {
    let workload = workload(command)?;
    let (namespace, account) = (text(pod, "/metadata/namespace")?, text(pod, "/spec/serviceAccountName")?);
    let of = |what: &str, found: &str, expected: &str| {
        ensure!(found == expected, "{what} is {found:?}, expected {expected:?}: {workload:?}");
        Ok(())
    };
    of("resolution", workload.resolution().as_str_name(), Resolution::Pod.as_str_name())?;
    of("namespace", &workload.namespace, namespace)?;
    of("service account", &workload.service_account, account)?;
    of("pod", &workload.pod_name, text(pod, "/metadata/name")?)?;
    of("UID", &workload.pod_uid, text(pod, "/metadata/uid")?)?;
    of("node", &workload.node, NODE_NAME)?;
    of("cluster", &workload.cluster, CLUSTER)?;
    of("principal", &workload.principal, &principal(namespace, account))?;
    of("container's id", &workload.container_id, &container_id(pod, &workload.container)?)?;
    let known = known(command)?;
    let shared = pod["spec"]["hostNetwork"] == true;
    ensure!(known.host_network == shared, "on the node's network: {}", known.host_network);
    ensure!(known.image_digest.starts_with("sha256:"), "no digest of the image: {known:?}");
    let app = known.labels.iter().find(|label| label.name == "app").map(|label| &label.value[..]);
    ensure!(
        app == pod["metadata"]["labels"]["app"].as_str().map(str::as_bytes),
        "labels are {:?}",
        known.labels
    );
    Ok(())
}

fn text<'a>(pod: &'a Value, pointer: &str) -> Result<&'a str> {
    pod.pointer(pointer).and_then(Value::as_str).with_context(|| format!("a pod without {pointer}"))
}
