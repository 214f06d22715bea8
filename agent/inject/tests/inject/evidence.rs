//! What is read back from stored pods.

use serde_json::{Value, json};
use verbatim_inject::{ContainerTrust, INJECTED, NotInjected, Own, OwnCause, Skip, trust};

use super::{applied, options, pod, roots};

fn of(json: &Value, container: &str) -> ContainerTrust {
    trust(&pod(json)).remove(container).expect("the container is told")
}

fn not(why: NotInjected) -> ContainerTrust {
    ContainerTrust::NotInjected { why }
}

/// A pod that was injected.
fn stored() -> Value {
    let before = json!({"spec": {"initContainers": [{"name": "init"}], "containers": [
        {"name": "app"},
        {"name": "own", "env": [{"name": "SSL_CERT_FILE", "value": "/own.pem"}]},
        {"name": "elsewhere", "envFrom": [{"secretRef": {"name": "s"}}]},
    ]}});
    applied(&before, &options()).0
}

#[test]
fn each_container_says_for_itself_what_it_was_given() {
    let stored = stored();
    let injected = ContainerTrust::Injected { roots: roots() };
    assert_eq!((of(&stored, "app"), of(&stored, "init")), (injected.clone(), injected));
    // curl goes by it, too, where it has no variable of its own.
    let own = ["SSL_CERT_FILE", "CURL_CA_BUNDLE"].map(|name| Own { name: name.into(), cause: OwnCause::Set });
    assert_eq!(of(&stored, "own"), ContainerTrust::Partly { roots: roots(), own: own.into() });
    assert_eq!(of(&stored, "elsewhere"), not(NotInjected::NotNamed));
}

#[test]
fn a_pod_that_only_claims_it_is_not_believed() {
    let claim = stored()["metadata"]["annotations"][INJECTED].clone();
    let claiming = |spec: Value| json!({"metadata": {"annotations": {INJECTED: claim}}, "spec": spec});
    let bare = claiming(json!({"containers": [{"name": "app"}, {"name": "later"}]}));
    assert_eq!(of(&bare, "app"), not(NotInjected::NotMounted));
    assert_eq!(of(&bare, "later"), not(NotInjected::NotNamed));
    // Another ConfigMap under the same name of a volume, or a part of ours.
    for source in [
        json!({"emptyDir": {}}),
        json!({"configMap": {"name": "mine"}}),
        json!({"configMap": {"name": "verbatim-trust", "optional": true}}),
        json!({"configMap": {"name": "verbatim-trust", "items": []}}),
    ] {
        let mut spec = stored()["spec"].clone();
        spec["volumes"][0] = source;
        spec["volumes"][0]["name"] = json!("verbatim-trust");
        assert_eq!(of(&claiming(spec), "app"), not(NotInjected::NotMounted));
    }
    // Mounted, but nothing leads there.
    let mut spec = stored()["spec"].clone();
    spec["containers"][0]["env"] = json!([]);
    assert_eq!(of(&claiming(spec), "app"), not(NotInjected::NoVariable));
    // Some of it was taken out by another webhook after us.
    let mut spec = stored()["spec"].clone();
    spec["containers"][0]["env"]
        .as_array_mut()
        .expect("list")
        .retain(|entry| entry["name"] != "NODE_EXTRA_CA_CERTS");
    let own = [Own { name: "NODE_EXTRA_CA_CERTS".into(), cause: OwnCause::Missing }];
    assert_eq!(of(&claiming(spec), "app"), ContainerTrust::Partly { roots: roots(), own: own.into() });
}

#[test]
fn what_was_never_injected_says_why() {
    let app = json!([{"name": "app"}]);
    let table = [
        (NotInjected::NeverSeen, json!({"spec": {"containers": app}})),
        (
            NotInjected::Unreadable,
            json!({"metadata": {"annotations": {INJECTED: "{"}}, "spec": {"containers": app}}),
        ),
        (
            NotInjected::Skipped(Skip::OptedOut),
            json!({"metadata": {"labels": {"verbatim-audit.github.io/inject": "false"}}, "spec": {"containers": app}}),
        ),
        (
            NotInjected::Skipped(Skip::Static),
            json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x", INJECTED: "{}"}}, "spec": {"containers": app}}),
        ),
        (
            NotInjected::Skipped(Skip::Windows),
            json!({"spec": {"os": {"name": "windows"}, "containers": app}}),
        ),
    ];
    for (why, json) in table {
        assert_eq!(of(&json, "app"), not(why));
    }
    assert!(trust(&pod(&json!({}))).is_empty());
}

#[test]
fn ephemeral_containers_are_given_nothing() {
    let mut stored = stored();
    stored["spec"]["ephemeralContainers"] = json!([{"name": "debugger", "targetContainerName": "app"}]);
    assert_eq!(of(&stored, "debugger"), not(NotInjected::Ephemeral));
    assert!(matches!(of(&stored, "app"), ContainerTrust::Injected { .. }));
}
