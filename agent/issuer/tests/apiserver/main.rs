//! The issuer with a real API server and the rights of the manifest, no more.
//!
//! The programs are those that set-up built for the lab's cluster. Without them the scenarios count as ignored, or as
//! failed where `REQUIRE_LAB=1` says so.

mod control;

use std::{collections::BTreeSet, path::Path, process::ExitCode, sync::Arc, time::Duration};

use control::Control;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, WatchParams},
};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use verbatim_inject::{ContainerTrust, NotInjected, trust};
use verbatim_issuer::{Running, config, start};
use verbatim_issuer_api::PATH;
use verbatim_missing::Case;

fn main() -> ExitCode {
    let missing = control::missing();
    let case = |name, run| Case { name, missing: missing.clone(), run };
    verbatim_missing::main(vec![
        case("the_manifests_rights_are_enough_for_an_issuer_and_its_webhook", || {
            wait(the_manifests_rights_are_enough_for_an_issuer_and_its_webhook())
        }),
        case("tokens_are_what_a_real_api_server_says_of_them", || {
            wait(tokens_are_what_a_real_api_server_says_of_them())
        }),
        case("a_webhook_whose_certificate_has_expired_keeps_no_pod_from_starting", || {
            wait(a_webhook_whose_certificate_has_expired_keeps_no_pod_from_starting())
        }),
    ])
}

fn wait(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(case);
}

/// Waits for something to be there.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut found: impl FnMut() -> F) -> T {
    for _ in 0..300 {
        if let Some(found) = found().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: not within 30 s");
}

fn pod(namespace: &str, name: &str, spec: Value) -> Pod {
    let pod = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
    serde_json::from_value(pod).expect("a pod")
}

fn app() -> Value {
    json!({"containers": [{"name": "app", "image": "x"}]})
}

/// The webhook of the manifest, at an address of this machine, with as much time as there can be: a pod that a loaded
/// machine answers too late would be let through without trust (`failurePolicy: Ignore`), whatever the rights.
fn webhook(port: u16, ca: Option<&str>) -> Value {
    let manifest = include_str!("../../../../docs/deploy/webhook.yaml");
    assert!(manifest.contains("failurePolicy: Ignore"), "as below");
    let ca = ca.map(|ca| k8s_openapi::ByteString(ca.as_bytes().to_vec()));
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "verbatim"},
        "webhooks": [{
            "name": "pods.verbatim-audit.github.io", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://127.0.0.1:{port}/mutate"), "caBundle": ca},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"verbatim-audit.github.io/capture": "enabled"}},
            "failurePolicy": "Ignore", "reinvocationPolicy": "IfNeeded", "sideEffects": "None", "timeoutSeconds": 30,
        }],
    })
}

async fn issuer(control: &Control) -> Running {
    let port = control::free_port();
    control.apply(&webhook(port, None));
    let text = format!(
        "apiVersion: verbatim.v1\nkind: Issuer\nlisten: 127.0.0.1:{port}\nnames: [127.0.0.1]\nnamespace: verbatim\n\
         bundle: {{namespaceSelector: 'verbatim-audit.github.io/capture=enabled'}}\n\
         collector: {{names: [collector.verbatim.svc]}}\n"
    );
    let config = config::parse(&text, Path::new("issuer.yaml")).expect("configuration");
    // With the rights of its own account.
    let token = control.token("verbatim-issuer", &json!({"audiences": [control::AUDIENCE]}));
    start(control.client(&token), &config).await.expect("started")
}

async fn injected(pods: &Api<Pod>) -> Option<()> {
    let probe = pod("shop", "probe", app());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let made = pods.create(&dry, &probe).await.expect("admitted");
    matches!(trust(&made).get("app"), Some(ContainerTrust::Injected { .. })).then_some(())
}

async fn the_manifests_rights_are_enough_for_an_issuer_and_its_webhook() {
    let control = Control::start();
    let admin = control.admin();
    control.manifest("issuer.yaml");
    let issuer = issuer(&control).await;

    let bundles = Api::<ConfigMap>::namespaced(admin.clone(), "shop");
    let first =
        eventually("the bundle", async || bundles.get_opt("verbatim-trust").await.expect("read")).await;
    let secrets = Api::<Secret>::namespaced(admin.clone(), "verbatim");
    let collector = async || secrets.get_opt("verbatim-collector-tls").await.expect("read");
    eventually("the collector's certificate", collector).await;

    // A pod is asked about, also when it is only tried; and all of a thousand are.
    let pods = Api::<Pod>::namespaced(admin.clone(), "shop");
    eventually("the webhook to answer", async || injected(&pods).await).await;
    let made = pods.create(&PostParams::default(), &pod("shop", "one", app())).await.expect("made");
    let Some(ContainerTrust::Injected { roots }) = trust(&made).remove("app") else { panic!("{made:?}") };
    assert_eq!(roots.len(), 2);
    let elsewhere = Api::<Pod>::namespaced(admin.clone(), "other");
    let other = elsewhere.create(&PostParams::default(), &pod("other", "one", app())).await.expect("made");
    assert_eq!(
        trust(&other).remove("app"),
        Some(ContainerTrust::NotInjected { why: NotInjected::NeverSeen })
    );
    let mut making = tokio::task::JoinSet::new();
    for lane in 0..20 {
        let pods = pods.clone();
        making.spawn(async move {
            let mut seen = BTreeSet::new();
            for n in 0..50 {
                let name = format!("many-{lane}-{n}");
                let made =
                    pods.create(&PostParams::default(), &pod("shop", &name, app())).await.expect("made");
                if matches!(trust(&made).get("app"), Some(ContainerTrust::Injected { .. })) {
                    seen.insert(name);
                }
            }
            seen.len()
        });
    }
    assert_eq!(making.join_all().await.into_iter().sum::<usize>(), 1000);

    // What is edited or removed is mended.
    let spoiled = Patch::Merge(json!({"data": {"bundle.pem": "spoiled"}}));
    bundles.patch("verbatim-trust", &PatchParams::default(), &spoiled).await.expect("spoiled");
    let mended = async || bundles.get("verbatim-trust").await.ok().filter(|now| now.data == first.data);
    eventually("mended", mended).await;
    bundles.delete("verbatim-trust", &DeleteParams::default()).await.expect("removed");
    eventually("made again", mended).await;

    // What is kept can be watched, and no other Secret.
    let own = control.client(&control.token("verbatim-issuer", &json!({"audiences": [control::AUDIENCE]})));
    let secrets = Api::<PartialObjectMeta<Secret>>::namespaced(own, "verbatim");
    for (name, allowed) in [("verbatim-issuer", true), ("verbatim-collector-tls", false), ("another", false)]
    {
        let named = format!("metadata.name={name}");
        let listed = secrets.list(&ListParams::default().fields(&named)).await;
        let watched = secrets.watch(&WatchParams::default().fields(&named), "0").await;
        assert_eq!((listed.is_ok(), watched.is_ok()), (allowed, allowed), "{name}: {:?}", listed.err());
    }
    assert!(secrets.list(&ListParams::default()).await.is_err(), "all of them");

    // Away, it keeps nobody from starting.
    issuer.stop().await;
    let alone = pods.create(&PostParams::default(), &pod("shop", "alone", app())).await.expect("admitted");
    assert_eq!(
        trust(&alone).remove("app"),
        Some(ContainerTrust::NotInjected { why: NotInjected::NeverSeen })
    );
}

async fn ask(port: u16, token: &str) -> (u16, String) {
    let request = |()| verbatim_tls::Request::make().expect("made").pem().expect("PEM");
    let [api, databases, client] = [(); 3].map(request);
    let body = json!({"api": api, "databases": databases, "client": client}).to_string();
    control::post(port, PATH, token, body).await
}

async fn tokens_are_what_a_real_api_server_says_of_them() {
    let control = Control::start();
    control.manifest("issuer.yaml");
    let issuer = issuer(&control).await;
    let port = issuer.address.port();
    let pods = Api::<Pod>::namespaced(control.admin(), "verbatim");
    let mut spec = app();
    spec["serviceAccountName"] = json!("verbatim-agent");
    let pending =
        pods.create(&PostParams::default(), &pod("verbatim", "pending", spec.clone())).await.expect("made");
    spec["nodeName"] = json!("node-1");
    let agent = pods.create(&PostParams::default(), &pod("verbatim", "agent-1", spec)).await.expect("made");
    let bound = |pod: &Pod| json!({"kind": "Pod", "apiVersion": "v1", "name": pod.metadata.name, "uid": pod.metadata.uid});
    let ours = json!(["verbatim-issuer"]);
    let good = control.token("verbatim-agent", &json!({"audiences": ours, "boundObjectRef": bound(&agent)}));
    let (code, answer) = ask(port, &good).await;
    assert_eq!(code, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["node"], "node-1");

    let foreign = json!({"audiences": [control::AUDIENCE], "boundObjectRef": bound(&agent)});
    let unbound = json!({"audiences": ours});
    let waiting = json!({"audiences": ours, "boundObjectRef": bound(&pending)});
    let mut forged = good.clone();
    forged.replace_range(good.len() - 8.., "AAAAAAAA");
    for (token, expected) in [
        (control.token("verbatim-agent", &foreign), 401),
        (control.token("verbatim-agent", &unbound), 403),
        (control.token("verbatim-agent", &waiting), 403),
        (control.token("verbatim-issuer", &json!({"audiences": ours})), 403),
        (forged, 401),
    ] {
        let (code, why) = ask(port, &token).await;
        assert_eq!(code, expected, "{why}");
        assert!(!why.contains(&token), "{why}");
    }
    // A token ends with its pod.
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete("agent-1", &now).await.expect("deleted");
    let refused = async || (ask(port, &good).await.0 != 200).then_some(());
    eventually("the token to be refused", refused).await;
    issuer.stop().await;
}

async fn a_webhook_whose_certificate_has_expired_keeps_no_pod_from_starting() {
    let control = Control::start();
    // Everything is right but the time.
    let authority = verbatim_tls::PlainAuthority::make("servers", Duration::from_secs(3600)).expect("made");
    let expired = authority.server(&["127.0.0.1".to_owned()], Duration::from_secs(1)).expect("made");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let port = listener.local_addr().expect("address").port();
    let acceptor = TlsAcceptor::from(Arc::new(control::server(&expired)));
    let (seen, mut refused) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shaken = acceptor.accept(stream).await.map(drop).map_err(|error| error.to_string());
            seen.send(shaken).await.ok();
        }
    });
    control.apply(&webhook(port, Some(&authority.certificate_pem())));
    let pods = Api::<Pod>::namespaced(control.admin(), "shop");
    // Until the API server asks: it learns of webhooks by a watch.
    let mut n = 0;
    let refusal = loop {
        n += 1;
        let name = format!("p-{n}");
        let made = pods.create(&PostParams::default(), &pod("shop", &name, app())).await.expect("admitted");
        let why = trust(&made).remove("app");
        assert_eq!(why, Some(ContainerTrust::NotInjected { why: NotInjected::NeverSeen }));
        if let Ok(refusal) = refused.try_recv() {
            break refusal;
        }
        assert!(n < 300, "the API server never asked");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let refusal = refusal.expect_err("not believed");
    assert!(refusal.contains("BadCertificate") || refusal.contains("CertificateExpired"), "{refusal}");
}
