//! Pods at their admission, as the API server asks.

use std::time::Duration;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::{Lab, bundle_of, eventually, text};

fn review(namespace: &str, pod: &Value, dry_run: bool) -> Vec<u8> {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "r1", "kind": kind, "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "", "namespace": namespace, "operation": "CREATE", "userInfo": {"username": "someone"},
            "object": pod, "oldObject": null, "dryRun": dry_run,
        },
    });
    serde_json::to_vec(&review).expect("JSON")
}

fn pod(labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "cart-", "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "x"}]}})
}

/// The response, and the pod that it makes.
async fn admitted(lab: &Lab, namespace: &str, pod: &Value) -> (Value, Value) {
    let (code, answer) = lab.ask("POST", "/mutate", None, review(namespace, pod, false)).await;
    assert_eq!(code, 200);
    let answer: Value = serde_json::from_slice(&answer).expect("a review");
    assert_eq!(
        (&answer["apiVersion"], &answer["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    let response = answer["response"].clone();
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("r1"), &json!(true)));
    let mut pod = pod.clone();
    if !response["patch"].is_null() {
        assert_eq!(response["patchType"], "JSONPatch");
        // Bytes, which JSON carries as base64.
        let patch: Vec<u8> = match serde_json::from_value::<ByteString>(response["patch"].clone()) {
            Ok(text) => text.0,
            Err(_) => serde_json::from_value(response["patch"].clone()).expect("bytes"),
        };
        let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a patch");
        json_patch::patch(&mut pod, &patch).expect("it fits");
    }
    (response, pod)
}

fn is_injected(pod: &Value) -> bool {
    pod["spec"]["containers"][0]["env"]
        .as_array()
        .is_some_and(|env| env.iter().any(|one| one["name"] == "SSL_CERT_FILE"))
}

const RULES: &str = "\
injection:
  exemptNamespaces: [spared]
  rules:
  - {match: {namespace: shop, labels: {team: off}}, set: {inject: false}}
  - {match: {labels: {team: bound}}, set: {extras: [no-bound-tokens]}}
";

#[tokio::test]
async fn pods_are_given_the_roots_by_namespace_and_rule() {
    let lab = Lab::start(RULES).await;
    eventually("the bundle", || lab.fake.get(&bundle_of("shop"))).await;
    for (namespace, labels, injected) in [
        ("shop", json!({}), true),
        ("shop", json!({"team": "off"}), false),
        ("other", json!({"team": "off"}), true),
        ("shop", json!({"verbatim-audit.github.io/inject": "false"}), false),
        ("kube-system", json!({}), false),
        ("verbatim", json!({}), false),
        ("spared", json!({}), false),
    ] {
        let (_, after) = admitted(&lab, namespace, &pod(&labels)).await;
        assert_eq!(is_injected(&after), injected, "{namespace} {labels}");
    }
    let (_, after) = admitted(&lab, "shop", &pod(&json!({"team": "bound"}))).await;
    let env = after["spec"]["containers"][0]["env"].as_array().expect("variables");
    assert!(
        env.iter()
            .any(|one| one["name"] == "GOOGLE_API_ENABLE_RUNTIME_BOUND_TOKEN" && one["value"] == "false")
    );
    let claim = text(&after["metadata"]["annotations"]["verbatim-audit.github.io/injected"]).to_owned();
    let claim: Value = serde_json::from_str(&claim).expect("readable");
    assert_eq!(claim["roots"].as_array().map(Vec::len), Some(2));
    lab.issuer.stop().await;
}

#[tokio::test]
async fn a_pods_own_variables_stay_and_its_maker_is_told() {
    let lab = Lab::start("").await;
    eventually("the bundle", || lab.fake.get(&bundle_of("shop"))).await;
    let mut own = pod(&json!({}));
    own["spec"]["containers"][0]["env"] = json!([{"name": "SSL_CERT_FILE", "value": "/own.pem"}]);
    let (response, after) = admitted(&lab, "shop", &own).await;
    assert_eq!(after["spec"]["containers"][0]["env"][0], own["spec"]["containers"][0]["env"][0]);
    let warning = text(&response["warnings"][0]).to_owned();
    assert!(warning.contains("SSL_CERT_FILE") && warning.len() <= 256, "{warning}");
    lab.issuer.stop().await;
}

#[tokio::test]
async fn a_pod_is_admitted_as_it_is_where_its_namespace_has_no_bundle() {
    let fake = super::Fake::start().await;
    fake.put(super::WEBHOOK, json!({"webhooks": []}));
    fake.put("/api/v1/namespaces/shop", json!({}));
    fake.fail(&bundle_of("shop"), 403);
    let lab = Lab::over(fake, "").await;
    let mut found = (Value::Null, Value::Null);
    for _ in 0..100 {
        found = admitted(&lab, "shop", &pod(&json!({}))).await;
        if !is_injected(&found.1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!is_injected(&found.1), "it would wait for the volume and never start");
    assert!(text(&found.0["warnings"][0]).contains("not injected"), "{}", found.0);
    lab.issuer.stop().await;
}

#[tokio::test]
async fn what_is_no_review_is_left_to_the_failure_policy_and_a_pod_that_is_not_known_passes() {
    let lab = Lab::start("").await;
    for bad in
        [&b"{"[..], b"{}", br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, b"\xff\xfe"]
    {
        let (code, _) = lab.ask("POST", "/mutate", None, bad.to_vec()).await;
        assert_eq!(code, 400, "the failure policy decides");
    }
    // A pod that is not as we know pods is admitted as it is.
    let mut newer = pod(&json!({}));
    newer["spec"]["containers"] = json!({"app": {}});
    let (response, after) = admitted(&lab, "shop", &newer).await;
    assert_eq!(after, newer);
    assert!(text(&response["warnings"][0]).contains("not understood"), "{response}");
    let (code, _) = lab.ask("POST", "/mutate", None, vec![b' '; 5 * 1024 * 1024]).await;
    assert_eq!(code, 413);
    assert!(lab.metric("verbatim_issuer_admissions_total{outcome=\"not_understood\"} 5").await);
    // And of other operations nothing is changed.
    let mut update: Value = serde_json::from_slice(&review("shop", &pod(&json!({})), false)).expect("JSON");
    update["request"]["operation"] = json!("UPDATE");
    let (_, answer) = lab.ask("POST", "/mutate", None, serde_json::to_vec(&update).expect("JSON")).await;
    let answer: Value = serde_json::from_slice(&answer).expect("a review");
    assert_eq!(answer["response"]["allowed"], true);
    assert!(answer["response"]["patch"].is_null());
    lab.issuer.stop().await;
}

#[tokio::test]
async fn a_thousand_pods_at_once_are_all_answered() {
    let lab = std::sync::Arc::new(Lab::start("").await);
    eventually("the bundle", || lab.fake.get(&bundle_of("shop"))).await;
    let mut asking = tokio::task::JoinSet::new();
    for lane in 0..50 {
        let lab = std::sync::Arc::clone(&lab);
        asking.spawn(async move {
            let mut injected = 0;
            for n in 0..20 {
                let (_, after) = admitted(&lab, "shop", &pod(&json!({"n": format!("{lane}-{n}")}))).await;
                injected += usize::from(is_injected(&after));
            }
            injected
        });
    }
    let injected: usize = asking.join_all().await.into_iter().sum();
    assert_eq!(injected, 1000);
    assert!(lab.metric("verbatim_issuer_admissions_total{outcome=\"injected\"} 1000").await);
}
