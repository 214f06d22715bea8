//! Nodes that ask, and others.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use verbatim_issuer::{Class, Kept, Rules, Store};
use verbatim_issuer_api::{NodeAnswer, NodeRequest, PATH};
use verbatim_tls::{Authority, AuthorityMaterial, LeafName, Request};

use super::Lab;

const USER: &str = "system:serviceaccount:verbatim:verbatim-agent";
const POD: &str = "/api/v1/namespaces/verbatim/pods/agent-1";

fn status(user: &str, audiences: &Value, pod: Option<(&str, &str)>) -> Value {
    let mut status = json!({"authenticated": true, "user": {"username": user}, "audiences": audiences});
    if let Some((name, uid)) = pod {
        status["user"]["extra"] = json!({
            "authentication.kubernetes.io/pod-name": [name],
            "authentication.kubernetes.io/pod-uid": [uid],
        });
    }
    status
}

fn agent_pod(lab: &Lab) {
    let spec = json!({"serviceAccountName": "verbatim-agent", "nodeName": "node-7", "containers": []});
    lab.fake.put(POD, json!({"metadata": {"uid": "u1"}, "spec": spec}));
}

fn requests() -> ([Request; 3], Vec<u8>) {
    let requests = [(); 3].map(|()| Request::make().expect("made"));
    let [api, databases, client] = [0, 1, 2].map(|n: usize| requests[n].pem().expect("PEM"));
    let body = serde_json::to_vec(&NodeRequest { api, databases, client }).expect("JSON");
    (requests, body)
}

#[tokio::test]
async fn a_node_agent_is_given_what_makes_leaves_that_workloads_trust() {
    let lab = Lab::start("").await;
    agent_pod(&lab);
    lab.fake.token("good", status(USER, &json!(["verbatim-issuer"]), Some(("agent-1", "u1"))));
    let (keys, body) = requests();
    let (code, answer) = lab.ask("POST", PATH, Some("good"), body).await;
    assert_eq!(code, 200, "{}", String::from_utf8_lossy(&answer));
    let answer: NodeAnswer = serde_json::from_slice(&answer).expect("answer");
    assert_eq!(answer.node, "node-7");
    let intermediates = answer.intermediates.iter().zip(&keys);
    let material = AuthorityMaterial {
        roots: answer.roots.clone(),
        intermediates: intermediates
            .map(|(one, key)| format!("{}{}", one.certificate.certificate, *key.key_pem()))
            .collect(),
    };
    let authority = Authority::from_pem(&material).expect("they sign");
    for (name, class) in [("bigquery.googleapis.com", 0), ("10.0.0.9", 1)] {
        let root = authority.root_for(&LeafName::parse(name).expect("name"));
        assert_eq!(root.as_ref(), Some(&answer.intermediates[class].root));
    }
    assert_eq!(answer.fingerprint_key.bytes().map(|key| key.len()), Some(32));
    // Another node of the same cluster gets the same key, and intermediates of its own.
    lab.fake.put(
        "/api/v1/namespaces/verbatim/pods/agent-2",
        json!({"metadata": {"uid": "u2"}, "spec": {"serviceAccountName": "verbatim-agent", "nodeName": "node-8"}}),
    );
    lab.fake.token("other", status(USER, &json!(["verbatim-issuer"]), Some(("agent-2", "u2"))));
    let (_, other) = lab.ask("POST", PATH, Some("other"), requests().1).await;
    let other: NodeAnswer = serde_json::from_slice(&other).expect("answer");
    assert_eq!((&*other.node, &other.fingerprint_key), ("node-8", &answer.fingerprint_key));
    let certificates: BTreeSet<_> = [&answer, &other]
        .iter()
        .flat_map(|one| &one.intermediates)
        .map(|one| &one.certificate.certificate)
        .collect();
    assert_eq!(certificates.len(), 4);
    lab.issuer.stop().await;
}

#[tokio::test]
async fn tokens_that_are_forged_foreign_or_left_over_are_given_nothing() {
    let lab = Lab::start("nodes: {requestsPerMinute: 1000}").await;
    agent_pod(&lab);
    let (ours, pod) = (json!(["verbatim-issuer"]), Some(("agent-1", "u1")));
    let table = [
        ("forged", 401, Value::Null),
        ("foreign-audience", 401, status(USER, &json!(["https://kubernetes.default.svc"]), pod)),
        ("no-audience-known", 401, status(USER, &Value::Null, pod)),
        ("another-account", 403, status("system:serviceaccount:verbatim:default", &ours, pod)),
        ("another-namespace", 403, status("system:serviceaccount:shop:verbatim-agent", &ours, pod)),
        ("a-person", 403, status("admin", &ours, pod)),
        ("unbound", 403, status(USER, &ours, None)),
        ("pod-is-gone", 403, status(USER, &ours, Some(("agent-9", "u1")))),
        ("name-was-used-again", 403, status(USER, &ours, Some(("agent-1", "u0")))),
        ("no-node", 403, status(USER, &ours, Some(("pending", "u3")))),
        ("wrong-account-in-pod", 403, status(USER, &ours, Some(("liar", "u4")))),
    ];
    let spec = |spec: Value, uid: &str| json!({"metadata": {"uid": uid}, "spec": spec});
    let pods = "/api/v1/namespaces/verbatim/pods";
    lab.fake.put(&format!("{pods}/pending"), spec(json!({"serviceAccountName": "verbatim-agent"}), "u3"));
    lab.fake
        .put(&format!("{pods}/liar"), spec(json!({"serviceAccountName": "default", "nodeName": "n"}), "u4"));
    for (token, code, said) in table {
        if !said.is_null() {
            lab.fake.token(token, said);
        }
        let (found, why) = lab.ask("POST", PATH, Some(token), requests().1).await;
        let why = String::from_utf8_lossy(&why).into_owned();
        assert_eq!(found, code, "{token}: {why}");
        assert!(!why.contains("BEGIN") && !why.contains(token), "{token}: {why}");
    }
    // What cannot be a token is not shown to anybody.
    let before = lab.fake.reviews.load(std::sync::atomic::Ordering::Relaxed);
    for bad in [None, Some(""), Some("a b"), Some(&*"x".repeat(16 * 1024 + 1))] {
        let (code, _) = lab.ask("POST", PATH, bad, requests().1).await;
        assert!([401, 431].contains(&code), "{code}");
    }
    assert_eq!(lab.fake.reviews.load(std::sync::atomic::Ordering::Relaxed), before);
    lab.issuer.stop().await;
}

#[tokio::test]
async fn requests_that_are_none_too_long_or_too_many_are_refused() {
    let lab = Lab::start("nodes: {requestsPerMinute: 6}").await;
    agent_pod(&lab);
    lab.fake.token("good", status(USER, &json!(["verbatim-issuer"]), Some(("agent-1", "u1"))));
    let nonsense = br#"{"api":"","databases":"","client":""}"#.to_vec();
    for (body, code) in [(b"{".to_vec(), 400), (nonsense, 400), (vec![b' '; 20 * 1024], 413)] {
        assert_eq!(lab.ask("POST", PATH, Some("good"), body).await.0, code);
    }
    // The API server is away: that is not the node's fault.
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    lab.fake.fail(reviews, 500);
    assert_eq!(lab.ask("POST", PATH, Some("good"), requests().1).await.0, 503);
    lab.fake.fail(reviews, 200);
    let mut codes = Vec::new();
    for _ in 0..6 {
        codes.push(lab.ask("POST", PATH, Some("good"), requests().1).await.0);
    }
    assert_eq!((codes.first(), codes.last()), (Some(&200), Some(&429)), "{codes:?}");
    lab.issuer.stop().await;
}

#[tokio::test]
async fn what_another_replica_withdrew_a_moment_ago_is_given_to_nobody() {
    let lab = Lab::start("").await;
    agent_pod(&lab);
    lab.fake.token("good", status(USER, &json!(["verbatim-issuer"]), Some(("agent-1", "u1"))));
    let roots = async || {
        let (code, answer) = lab.ask("POST", PATH, Some("good"), requests().1).await;
        assert_eq!(code, 200, "{}", String::from_utf8_lossy(&answer));
        let answer: NodeAnswer = serde_json::from_slice(&answer).expect("answer");
        answer.intermediates.into_iter().map(|one| one.root).collect::<Vec<_>>()
    };
    let before = roots().await;
    let day = Duration::from_secs(24 * 3600);
    let rules =
        Rules { names: Vec::new(), lifetime: 90 * day, lead: 30 * day, own_lead: 7 * day, signed: day };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed();
    let replica = Store::new(lab.fake.client(), "verbatim", "verbatim-issuer", rules);
    let rotate = |kept: &mut Kept, rules: &Rules| {
        kept.begin(Class::Databases, rules, now)?;
        kept.hasten(Class::Databases, now);
        Ok(())
    };
    replica.change(rotate).await.expect("rotated");
    let after = roots().await;
    assert_eq!(before[0], after[0], "API names were not rotated");
    assert_ne!(before[1], after[1], "databases were");
    // While it cannot be known, nothing is given.
    lab.fake.fail(super::SECRET, 500);
    assert_eq!(lab.ask("POST", PATH, Some("good"), requests().1).await.0, 503);
    lab.issuer.stop().await;
}
