use serde_json::{Value, json};

use super::*;

const UID: &str = "0f6e7c1a-2b3c-4d5e-8f90-a1b2c3d4e5f6";
const HASH: &str = "d41d8cd98f00b204e9800998ecf8427e";

fn keep() -> Keep {
    Keep { node: "node-1".into(), labels: vec!["app".into()] }
}

fn read(object: Value) -> Result<Pod, Refused> {
    Pod::read(&serde_json::from_value(object).expect("a pod"), &keep())
}

fn id(digit: &str) -> String {
    digit.repeat(64)
}

/// As a kubelet of 1.29 leaves it: an init container, a native sidecar, one that has crashed, an ephemeral one.
fn deployed() -> Value {
    let digest = format!("registry.example/shop@sha256:{}", id("d"));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "checkout-5d9-abcde", "namespace": "shop", "uid": UID, "resourceVersion": "7",
            "labels": {"app": "checkout", "secret-project": "x"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-5d9",
                "uid": "11111111-1111-4111-8111-111111111111", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "nodeName": "node-1", "serviceAccountName": "checkout",
            "containers": [{"name": "app", "image": "registry.example/shop:1"}],
            "initContainers": [
                {"name": "migrate", "image": "migrate:2"},
                {"name": "proxy", "image": "proxy:3", "restartPolicy": "Always"},
            ],
            "ephemeralContainers": [{"name": "debug", "image": "busybox", "targetContainerName": "app"}],
        },
        "status": {
            "containerStatuses": [{"name": "app", "image": "x", "imageID": digest, "ready": true, "restartCount": 1,
                "containerID": format!("containerd://{}", id("2")), "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 1, "containerID": format!("containerd://{}", id("1"))}}}],
            "initContainerStatuses": [
                {"name": "migrate", "image": "x", "imageID": "", "ready": true, "restartCount": 0,
                 "containerID": format!("cri-o://{}", id("3")),
                 "state": {"terminated": {"exitCode": 0, "containerID": format!("cri-o://{}", id("3"))}}},
                {"name": "proxy", "image": "x", "imageID": "", "ready": true, "restartCount": 0,
                 "containerID": format!("containerd://{}", id("4"))}],
            "ephemeralContainerStatuses": [{"name": "debug", "image": "x", "imageID": "", "ready": true,
                "restartCount": 0, "containerID": format!("containerd://{}", id("5"))}],
        },
    })
}

/// As the API server of 1.20 tells a mirror pod.
fn mirrored() -> Value {
    json!({
        "metadata": {
            "name": "etcd-node-1", "namespace": "kube-system", "uid": UID,
            "annotations": {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH,
                "kubernetes.io/config.seen": "2021-01-01T00:00:00Z", "kubernetes.io/config.source": "file"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node-1",
                "uid": "22222222-2222-4222-8222-222222222222", "controller": true}],
        },
        "spec": {"nodeName": "node-1", "hostNetwork": true, "containers": [{"name": "etcd", "image": "etcd:3"}]},
        "status": {"containerStatuses": [{"name": "etcd", "image": "etcd:3", "ready": true, "restartCount": 0,
            "imageID": format!("sha256:{}", id("e")), "containerID": format!("containerd://{}", id("6"))}]},
    })
}

fn with(mut object: Value, at: &str, value: Value) -> Value {
    *object.pointer_mut(at).expect(at) = value;
    object
}

#[test]
fn every_list_of_containers_is_read_with_its_kind_and_its_lives() {
    let pod = read(deployed()).expect("read");
    let found = |digit: &str| {
        let (container, run) = pod.container(&id(digit))?;
        Some((container.name.as_str(), container.kind, run.image_digest.clone()))
    };
    let digest = format!("sha256:{}", id("d"));
    assert_eq!(found("2"), Some(("app", Kind::Regular, digest)));
    assert_eq!(found("1"), Some(("app", Kind::Regular, String::new())));
    assert_eq!(found("3"), Some(("migrate", Kind::Init, String::new())));
    assert_eq!(found("4"), Some(("proxy", Kind::Sidecar, String::new())));
    assert_eq!(found("5"), Some(("debug", Kind::Ephemeral, String::new())));
    assert_eq!(found("9"), None);
    assert_eq!(pod.cgroup_uid, UID);
    assert_eq!(pod.controller.map(|controller| controller.kind), Some("ReplicaSet".to_owned()));
}

#[test]
fn only_the_labels_that_are_named_are_kept() {
    let pod = read(deployed()).expect("read");
    assert_eq!(pod.labels.into_iter().collect::<Vec<_>>(), [("app".to_owned(), "checkout".to_owned())]);
}

#[test]
fn a_static_pod_bears_the_digest_of_its_file_and_no_service_account() {
    let pod = read(mirrored()).expect("read");
    assert_eq!((pod.uid.as_str(), pod.cgroup_uid.as_str()), (UID, HASH));
    assert!(pod.static_pod && pod.host_network && pod.service_account.is_empty());
    assert_eq!(pod.controller, None, "a node keeps it, which is no workload");
    let (_, run) = pod.container(&id("6")).expect("known");
    assert_eq!(run.image_digest, format!("sha256:{}", id("e")));
}

#[test]
fn what_the_api_server_cannot_have_made_names_nobody() {
    let account = "/spec/serviceAccountName";
    for (object, refused) in [
        (with(deployed(), "/spec/nodeName", json!("node-2")), Refused::Elsewhere),
        (with(deployed(), "/spec", Value::Null), Refused::Elsewhere),
        (with(deployed(), "/metadata/uid", json!(HASH)), Refused::Uid),
        (with(deployed(), "/metadata/uid", Value::Null), Refused::Uid),
        (with(deployed(), "/metadata/namespace", json!("shop/sa/admin")), Refused::Name),
        (with(deployed(), "/metadata/name", json!("Not a name")), Refused::Name),
        (with(deployed(), account, json!("a/sa/b")), Refused::Name),
        (with(deployed(), "/spec/containers/0/name", json!("a\nb")), Refused::Name),
    ] {
        assert_eq!(read(object), Err(refused));
    }
}

#[test]
fn a_pod_that_poses_as_the_mirror_of_another_is_not_believed() {
    let mut posing = deployed();
    posing["metadata"]["annotations"] = json!({
        "kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file",
        "kubernetes.io/config.hash": "33333333-3333-4333-8333-333333333333",
    });
    assert_eq!(read(posing.clone()), Err(Refused::Mirror), "another pod's UID");
    posing["metadata"]["annotations"]["kubernetes.io/config.hash"] = json!(HASH);
    assert_eq!(read(posing), Err(Refused::Mirror), "a service account");
    let unowned = with(mirrored(), "/metadata/ownerReferences", json!([]));
    assert_eq!(read(unowned), Err(Refused::Mirror));
    let elsewhere = with(mirrored(), "/metadata/ownerReferences/0/name", json!("node-2"));
    assert_eq!(read(elsewhere), Err(Refused::Mirror));
}

#[test]
fn a_container_remembers_the_lives_that_its_status_forgot() {
    let mut now = read(with(deployed(), "/status", json!({}))).expect("read");
    now.remember(&read(deployed()).expect("read"));
    assert_eq!(now.container(&id("1")).map(|(container, _)| container.name.as_str()), Some("app"));
    assert!(now.container(&id("5")).is_some());
}

#[test]
fn what_each_container_was_given_is_read_with_the_pod() {
    let mut object = deployed();
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(object.clone()).expect("a pod");
    let bare = Pod::read(&pod, &keep()).expect("read");
    let unseen = ContainerTrust::NotInjected { why: verbatim_inject::NotInjected::NeverSeen };
    assert_eq!(bare.trust.get("app"), Some(&unseen));
    let outcome = verbatim_inject::inject(&pod, &verbatim_inject::Options::new([]));
    json_patch::patch(&mut object, &outcome.patch).expect("it fits");
    let injected = read(object).expect("read").trust;
    for name in ["app", "migrate", "proxy"] {
        assert!(matches!(injected.get(name), Some(ContainerTrust::Injected { .. })), "{name}: {injected:?}");
    }
    assert!(matches!(injected.get("debug"), Some(ContainerTrust::NotInjected { .. })), "{injected:?}");
}
