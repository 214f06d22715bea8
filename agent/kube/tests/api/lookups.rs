use serde_json::{Value, json};
use verbatim_kube::{Account, Owners};

use crate::{
    Watching, pod,
    server::{Server, status},
    uid,
};

fn owned(number: u32, api_version: &str, kind: &str, name: &str, owner: u32) -> Value {
    let mut pod = pod(number, "a");
    pod["metadata"]["ownerReferences"] = json!([reference(api_version, kind, name, owner)]);
    pod
}

fn reference(api_version: &str, kind: &str, name: &str, owner: u32) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid(owner), "controller": true})
}

fn object(number: u32, owner: Option<Value>) -> Value {
    let owners = owner.into_iter().collect::<Vec<_>>();
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "x", "namespace": "shop", "uid": uid(number), "ownerReferences": owners}})
}

const SETS: &str = "/apis/apps/v1/namespaces/shop/replicasets/";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments/";

async fn owners(server: &Server) -> Vec<String> {
    let watching = Watching::start(server).await;
    let known = |at: &Watching| match at.known(1).map(|known| known.owners.clone()) {
        Some(Owners::Known(owners)) => Some(owners),
        _ => None,
    };
    watching.until("the owners are known", |at| known(at).is_some()).await;
    known(&watching)
        .iter()
        .flat_map(|all| all.iter())
        .map(|one| format!("{} {}", one.kind, one.name))
        .collect()
}

#[tokio::test]
async fn a_chain_leads_from_a_replica_set_over_its_deployment_to_a_custom_resource() {
    let server = Server::start().await;
    server.put(owned(1, "apps/v1", "ReplicaSet", "web-5d9", 11));
    server.answer(
        &format!("{SETS}web-5d9"),
        200,
        object(11, Some(reference("apps/v1", "Deployment", "web", 12))),
    );
    let custom = reference("example.com/v1", "Shop", "main", 13);
    server.answer(&format!("{DEPLOYMENTS}web"), 200, object(12, Some(custom)));
    let resources = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "example.com/v1",
        "resources": [{"name": "shops", "singularName": "shop", "namespaced": true, "kind": "Shop",
            "verbs": ["get"]}]});
    server.answer("/apis/example.com/v1", 200, resources);
    server.answer("/apis/example.com/v1/namespaces/shop/shops/main", 200, object(13, None));
    assert_eq!(owners(&server).await, ["ReplicaSet web-5d9", "Deployment web", "Shop main"]);
}

#[tokio::test]
async fn a_chain_ends_where_it_may_not_be_read_or_leads_to_another_of_the_same_name() {
    let server = Server::start().await;
    server.put(owned(1, "batch/v1", "Job", "nightly-1", 11));
    server.answer("/apis/batch/v1/namespaces/shop/jobs/nightly-1", 403, status(403, "Forbidden"));
    assert_eq!(owners(&server).await, ["Job nightly-1"]);

    let server = Server::start().await;
    server.put(owned(1, "apps/v1", "ReplicaSet", "web-5d9", 11));
    let other = object(99, Some(reference("apps/v1", "Deployment", "another", 12)));
    server.answer(&format!("{SETS}web-5d9"), 200, other);
    assert_eq!(owners(&server).await, ["ReplicaSet web-5d9"]);
}

#[tokio::test]
async fn a_chain_that_leads_in_a_circle_or_on_and_on_is_cut() {
    let server = Server::start().await;
    server.put(owned(1, "apps/v1", "ReplicaSet", "a", 11));
    server.answer(&format!("{SETS}a"), 200, object(11, Some(reference("apps/v1", "ReplicaSet", "b", 12))));
    server.answer(&format!("{SETS}b"), 200, object(12, Some(reference("apps/v1", "ReplicaSet", "a", 11))));
    assert_eq!(owners(&server).await, ["ReplicaSet a", "ReplicaSet b"]);

    let server = Server::start().await;
    server.put(owned(1, "apps/v1", "ReplicaSet", "n0", 20));
    for number in 0..9 {
        let parent = reference("apps/v1", "ReplicaSet", &format!("n{}", number + 1), 21 + number);
        server.answer(&format!("{SETS}n{number}"), 200, object(20 + number, Some(parent)));
    }
    assert_eq!(owners(&server).await.len(), 5);
}

#[tokio::test]
async fn a_reference_that_is_no_name_is_not_followed() {
    let server = Server::start().await;
    server.put(owned(1, "apps/v1", "ReplicaSet", "../../../api/v1/secrets/x", 11));
    assert_eq!(owners(&server).await, Vec::<String>::new());
    assert!(server.requests().iter().all(|path| !path.contains("secrets")));
}

fn annotated(email: Option<&str>) -> Value {
    let annotations = email.map(|email| json!({"iam.gke.io/gcp-service-account": email}));
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "checkout", "namespace": "shop", "uid": uid(50), "annotations": annotations}})
}

#[tokio::test]
async fn what_was_asked_about_a_pod_that_went_meanwhile_is_known_all_the_same() {
    let server = Server::start().await;
    let watching = Watching::start(&server).await;
    let path = "/api/v1/namespaces/shop/serviceaccounts/checkout";
    server.answer(path, 200, annotated(Some("app@my-project.iam.gserviceaccount.com")));
    watching.until("a watch", |_| server.watches() == 1).await;
    server.put(owned(1, "apps/v1", "ReplicaSet", "web-5d9", 11));
    server.remove(&uid(1));
    watching.until("all is known", |at| at.known(1).is_some_and(|known| known.complete())).await;
    let known = watching.known(1).expect("remembered");
    assert_eq!(known.account, Account::Acts("app@my-project.iam.gserviceaccount.com".into()));
}

#[tokio::test]
async fn the_account_that_a_service_account_acts_as_is_read_and_read_again() {
    let path = "/api/v1/namespaces/shop/serviceaccounts/checkout";
    let server = Server::start().await;
    server.put(pod(1, "a"));
    server.answer(path, 200, annotated(Some("app@my-project.iam.gserviceaccount.com")));
    let watching = Watching::start(&server).await;
    let account = |at: &Watching| at.known(1).map(|known| known.account.clone());
    let acts = |email: &str| Some(Account::Acts(email.into()));
    let first = acts("app@my-project.iam.gserviceaccount.com");
    watching.until("it is known", |at| account(at) == first).await;
    server.answer(path, 200, annotated(Some("other@my-project.iam.gserviceaccount.com")));
    let second = acts("other@my-project.iam.gserviceaccount.com");
    watching.until("its change is known", |at| account(at) == second).await;
    server.answer(path, 200, annotated(Some("forged\nprincipal")));
    watching.until("what is no account is none", |at| account(at) == Some(Account::None)).await;
    server.answer(path, 403, status(403, "Forbidden"));
    watching.until("what may not be read is not guessed", |at| account(at) == Some(Account::Failed)).await;
}
