//! Pods of all kinds, and what they are given.

use serde_json::{Value, json};
use verbatim_inject::{EnvFrom, INJECTED, Injected, Skip};

use super::{applied, options, roots, value};

const BUNDLE: &str = "/run/verbatim-trust/bundle.pem";
const STORE: &str =
    "-Djavax.net.ssl.trustStore=/run/verbatim-trust/truststore.p12 -Djavax.net.ssl.trustStoreType=PKCS12";

/// The minimal set, and what always goes with it.
const EVERYTHING: [(&str, &str); 10] = [
    ("SSL_CERT_FILE", BUNDLE),
    ("REQUESTS_CA_BUNDLE", BUNDLE),
    ("CURL_CA_BUNDLE", BUNDLE),
    ("HTTPLIB2_CA_CERTS", BUNDLE),
    ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", BUNDLE),
    ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", BUNDLE),
    ("NODE_EXTRA_CA_CERTS", BUNDLE),
    ("JAVA_TOOL_OPTIONS", STORE),
    ("PGCHANNELBINDING", "disable"),
    ("GOOGLE_CLOUD_DISABLE_DIRECT_PATH", "true"),
];

fn annotation(pod: &Value) -> Injected {
    let text = pod["metadata"]["annotations"][INJECTED].as_str().expect("annotated");
    serde_json::from_str(text).expect("readable")
}

#[test]
fn a_bare_pod_is_given_exactly_the_minimal_set_in_every_container() {
    let before = json!({
        "metadata": {"name": "p"},
        "spec": {
            "initContainers": [{"name": "migrate"}, {"name": "sidecar", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "securityContext": {"readOnlyRootFilesystem": true}}],
        },
    });
    let (after, outcome) = applied(&before, &options());
    assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);
    for (list, index) in [("initContainers", 0), ("initContainers", 1), ("containers", 0)] {
        let container = &after["spec"][list][index];
        let env = container["env"].as_array().expect("variables");
        let found: Vec<_> = env
            .iter()
            .map(|entry| {
                (entry["name"].as_str().unwrap_or_default(), entry["value"].as_str().unwrap_or_default())
            })
            .collect();
        assert_eq!(found, EVERYTHING);
        let mount = json!([{"name": "verbatim-trust", "mountPath": "/run/verbatim-trust", "readOnly": true}]);
        assert_eq!(container["volumeMounts"], mount);
    }
    let volume =
        json!([{"name": "verbatim-trust", "configMap": {"name": "verbatim-trust", "defaultMode": 0o444}}]);
    assert_eq!(after["spec"]["volumes"], volume);
    let injected = annotation(&after);
    assert_eq!((injected.version, &injected.roots), (1, &roots()));
    let containers: Vec<_> = injected.containers.keys().map(String::as_str).collect();
    assert_eq!(containers, ["app", "migrate", "sidecar"]);
    assert!(injected.containers.values().all(Vec::is_empty));
}

#[test]
fn what_a_pod_sets_itself_stays_and_is_noted() {
    let reference = json!({"configMapKeyRef": {"name": "c", "key": "k"}});
    let elsewhere = json!([{"secretRef": {"name": "s"}}]);
    let prefixed = json!([{"prefix": "APP_", "secretRef": {"name": "s"}}]);
    let all: Vec<&str> =
        EVERYTHING.iter().map(|(name, _)| *name).filter(|name| !name.contains("DIRECT")).collect();
    let table: [(&str, Value, Value, Vec<&str>); 12] = [
        (
            "by value",
            json!([{"name": "SSL_CERT_FILE", "value": "/own.pem"}]),
            json!(null),
            vec!["CURL_CA_BUNDLE", "SSL_CERT_FILE"],
        ),
        ("to nothing", json!([{"name": "CURL_CA_BUNDLE"}]), json!(null), vec!["CURL_CA_BUNDLE"]),
        (
            "by reference",
            json!([{"name": "NODE_EXTRA_CA_CERTS", "valueFrom": reference}]),
            json!(null),
            vec!["NODE_EXTRA_CA_CERTS"],
        ),
        ("as we would", json!([{"name": "SSL_CERT_FILE", "value": BUNDLE}]), json!(null), vec![]),
        (
            "twice, the last counts",
            json!([{"name": "SSL_CERT_FILE", "value": BUNDLE}, {"name": "SSL_CERT_FILE", "value": "/own.pem"}]),
            json!(null),
            vec!["CURL_CA_BUNDLE", "SSL_CERT_FILE"],
        ),
        (
            "Java's store",
            json!([{"name": "JAVA_TOOL_OPTIONS", "value": "-Djavax.net.ssl.trustStore=/own.jks"}]),
            json!(null),
            vec!["JAVA_TOOL_OPTIONS"],
        ),
        (
            "Java's last word",
            json!([{"name": "_JAVA_OPTIONS", "value": "-Djavax.net.ssl.trustStore=/own.jks"}]),
            json!(null),
            vec!["_JAVA_OPTIONS"],
        ),
        (
            "Java's options by another variable",
            json!([{"name": "JAVA_TOOL_OPTIONS", "value": "-Xmx1g $(MORE)"}]),
            json!(null),
            vec!["JAVA_TOOL_OPTIONS"],
        ),
        (
            "Java's options by reference",
            json!([{"name": "JDK_JAVA_OPTIONS", "valueFrom": reference}]),
            json!(null),
            vec!["JDK_JAVA_OPTIONS"],
        ),
        (
            "channel binding",
            json!([{"name": "PGCHANNELBINDING", "value": "require"}]),
            json!(null),
            vec!["PGCHANNELBINDING"],
        ),
        (
            "the direct path, which is no matter of trust",
            json!([{"name": "GOOGLE_CLOUD_DISABLE_DIRECT_PATH", "value": "false"}]),
            json!(null),
            vec![],
        ),
        ("from elsewhere under another prefix", json!(null), prefixed, vec![]),
    ];
    for (what, env, env_from, own) in table {
        let mut container = json!({"name": "app"});
        for (key, part) in [("env", &env), ("envFrom", &env_from)] {
            if !part.is_null() {
                container[key] = part.clone();
            }
        }
        let before = json!({"spec": {"containers": [container]}});
        let (after, outcome) = applied(&before, &options());
        let kept = env.as_array().cloned().unwrap_or_default();
        let now = after["spec"]["containers"][0]["env"].as_array().expect("variables");
        assert_eq!(now.get(..kept.len()), Some(&*kept), "{what}");
        assert_eq!(annotation(&after).containers["app"], own, "{what}");
        assert_eq!(outcome.warnings.len(), usize::from(!own.is_empty()), "{what}: {:?}", outcome.warnings);
        for (name, wanted) in EVERYTHING.iter().filter(|(name, _)| !own.contains(name)) {
            let java_is_own = *name == "JAVA_TOOL_OPTIONS" && own.iter().any(|name| name.contains("JAVA"));
            if java_is_own || kept.iter().any(|entry| entry["name"] == *name) {
                continue;
            }
            let found = value(&after, "containers", 0, name).map(|entry| &entry["value"]);
            assert_eq!(found, Some(&json!(wanted)), "{what}: {name}");
        }
    }
    // And where everything may come from elsewhere, nothing is set, unless the pod or a selector says that it may be.
    let before = json!({"metadata": {}, "spec": {"containers": [{"name": "app", "envFrom": elsewhere}]}});
    let (after, outcome) = applied(&before, &options());
    assert_eq!((&after, &outcome.result), (&before, &Err(Skip::AllOwn)));
    assert_eq!(outcome.warnings.len(), 1, "{:?}", outcome.warnings);
    let annotated = json!({
        "metadata": {"annotations": {"verbatim-audit.github.io/env-from": "override"}},
        "spec": {"containers": [{"name": "app", "envFrom": elsewhere}]},
    });
    let overriding = verbatim_inject::Options { env_from: EnvFrom::Override, ..options() };
    for (pod, options) in [(&annotated, &options()), (&before, &overriding)] {
        let (after, _) = applied(pod, options);
        assert!(all.iter().all(|name| value(&after, "containers", 0, name).is_some()), "{after}");
    }
}

#[test]
fn javas_options_are_appended_to() {
    let before = json!({"spec": {"containers": [
        {"name": "app", "env": [{"name": "A", "value": "1"}, {"name": "JAVA_TOOL_OPTIONS", "value": "-Xmx1g"}]},
    ]}});
    let (after, outcome) = applied(&before, &options());
    let now = &value(&after, "containers", 0, "JAVA_TOOL_OPTIONS").expect("set")["value"];
    assert_eq!(now, &json!(format!("-Xmx1g {STORE}")));
    assert!(outcome.warnings.is_empty());
}

#[test]
fn extras_come_by_selector_or_by_the_pods_own_word() {
    let bare = json!({"spec": {"containers": [{"name": "app"}]}});
    let (after, _) = applied(&bare, &options());
    for name in [
        "GOOGLE_API_ENABLE_RUNTIME_BOUND_TOKEN",
        "DENO_CERT",
        "AWS_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "PGSSLROOTCERT",
    ] {
        assert_eq!(value(&after, "containers", 0, name), None, "{name}");
    }
    let annotated = json!({
        "metadata": {"annotations": {"verbatim-audit.github.io/extras": "no-bound-tokens, deno,nonsense"}},
        "spec": {"containers": [{"name": "app"}]},
    });
    let mut git = options();
    git.extras.insert(verbatim_inject::Extra::Git);
    let (after, outcome) = applied(&annotated, &git);
    let set = |name| value(&after, "containers", 0, name).map(|entry| entry["value"].clone());
    assert_eq!(set("GOOGLE_API_ENABLE_RUNTIME_BOUND_TOKEN"), Some(json!("false")));
    assert_eq!((set("DENO_CERT"), set("GIT_SSL_CAINFO")), (Some(json!(BUNDLE)), Some(json!(BUNDLE))));
    assert_eq!(set("AWS_CA_BUNDLE"), None);
    assert!(outcome.warnings.iter().any(|warning| warning.contains("`nonsense`")), "{:?}", outcome.warnings);
}

#[test]
fn some_pods_are_left_alone_and_what_they_claim_is_taken_away() {
    let containers = json!([{"name": "app"}]);
    let opted_out = "verbatim-audit.github.io/inject";
    let table = [
        (Skip::OptedOut, json!({"annotations": {opted_out: "false"}}), json!({"containers": containers})),
        (Skip::OptedOut, json!({"labels": {opted_out: "false"}}), json!({"containers": containers})),
        (Skip::Windows, json!({}), json!({"os": {"name": "windows"}, "containers": containers})),
        (
            Skip::Windows,
            json!({}),
            json!({"nodeSelector": {"kubernetes.io/os": "windows"}, "containers": containers}),
        ),
        (
            Skip::Static,
            json!({"annotations": {"kubernetes.io/config.mirror": "x"}}),
            json!({"containers": containers}),
        ),
    ];
    for (skip, metadata, spec) in table {
        let mut before = json!({"metadata": metadata, "spec": spec});
        let (after, outcome) = applied(&before, &options());
        assert_eq!((&outcome.result, &after), (&Err(skip), &before));
        before["metadata"]["annotations"][INJECTED] = json!("{\"version\":1}");
        let (after, _) = applied(&before, &options());
        let claims = after["metadata"]["annotations"].get(INJECTED).is_some();
        assert_eq!(claims, skip == Skip::Static, "{skip}");
    }
    // An empty or another word leaves nothing out.
    let before = json!({"metadata": {"labels": {opted_out: "true"}}, "spec": {"containers": containers}});
    assert!(applied(&before, &options()).1.result.is_ok());
}

#[test]
fn names_and_places_that_are_taken_are_not_taken_away() {
    // The volume's name.
    let before = json!({"spec": {
        "volumes": [{"name": "verbatim-trust", "emptyDir": {}}],
        "containers": [{"name": "app", "volumeMounts": [{"name": "verbatim-trust", "mountPath": "/x"}]}],
    }});
    let (after, _) = applied(&before, &options());
    assert_eq!(after["spec"]["volumes"][1]["name"], "verbatim-trust-2");
    assert_eq!(after["spec"]["containers"][0]["volumeMounts"][1]["name"], "verbatim-trust-2");
    // A part of the bundle is not the bundle.
    let part = json!({"name": "v", "configMap": {"name": "verbatim-trust", "items": [{"key": "bundle.pem", "path": "b"}]}});
    let before = json!({"spec": {"volumes": [part], "containers": [{"name": "app"}]}});
    let (after, _) = applied(&before, &options());
    assert_eq!(after["spec"]["volumes"].as_array().map(Vec::len), Some(2));
    // The folder.
    for taken in ["/run/verbatim-trust", "/run/verbatim-trust/", "/run//verbatim-trust/x"] {
        let mounts = json!([{"name": "v", "mountPath": taken}]);
        let before =
            json!({"spec": {"containers": [{"name": "app", "volumeMounts": mounts}, {"name": "other"}]}});
        let (after, outcome) = applied(&before, &options());
        assert_eq!(after["spec"]["containers"][0], before["spec"]["containers"][0], "{taken}");
        assert!(value(&after, "containers", 1, "SSL_CERT_FILE").is_some());
        assert!(outcome.warnings[0].contains("/run/verbatim-trust"), "{:?}", outcome.warnings);
    }
    // What is mounted above is no obstacle.
    let before = json!({"spec": {"containers": [{"name": "app", "volumeMounts": [{"name": "v", "mountPath": "/run"}]}]}});
    assert!(applied(&before, &options()).1.result.is_ok());
}

#[test]
fn a_container_in_which_our_folder_cannot_be_made_is_left_alone() {
    let host = json!({"name": "v", "hostPath": {"path": "/var/run"}});
    let secret = json!({"name": "v", "secret": {"secretName": "s"}});
    for (volume, mount) in [
        (&host, json!({"name": "v", "mountPath": "/run", "readOnly": true})),
        (&host, json!({"name": "v", "mountPath": "/var/run/", "readOnly": true})),
        (&secret, json!({"name": "v", "mountPath": "/run"})),
        (&secret, json!({"name": "v", "mountPath": "/"})),
    ] {
        let before = json!({"spec": {
            "volumes": [volume],
            "containers": [{"name": "app", "volumeMounts": [mount]}, {"name": "other"}],
        }});
        let (after, outcome) = applied(&before, &options());
        assert_eq!(after["spec"]["containers"][0], before["spec"]["containers"][0], "{mount}");
        assert!(value(&after, "containers", 1, "SSL_CERT_FILE").is_some());
        assert!(outcome.warnings[0].contains("read-only"), "{:?}", outcome.warnings);
    }
    for mount in [
        json!({"name": "v", "mountPath": "/run"}),
        json!({"name": "v", "mountPath": "/running", "readOnly": true}),
        json!({"name": "v", "mountPath": "/var/lib", "readOnly": true}),
    ] {
        let before =
            json!({"spec": {"volumes": [host], "containers": [{"name": "app", "volumeMounts": [mount]}]}});
        assert!(applied(&before, &options()).1.result.is_ok(), "{mount}");
    }
}

#[test]
fn a_client_that_goes_by_another_variable_of_the_pods_goes_on_doing_so() {
    for (set, left) in [
        ("SSL_CERT_FILE", "CURL_CA_BUNDLE"),
        ("SSL_CERT_DIR", "CURL_CA_BUNDLE"),
        ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
    ] {
        let before =
            json!({"spec": {"containers": [{"name": "app", "env": [{"name": set, "value": "/corp"}]}]}});
        let (after, _) = applied(&before, &options());
        assert_eq!(value(&after, "containers", 0, left), None, "{set}");
        assert!(value(&after, "containers", 0, "HTTPLIB2_CA_CERTS").is_some());
        assert!(annotation(&after).containers["app"].contains(&left.to_owned()), "{set}");
        assert!(applied(&after, &options()).1.patch.0.is_empty());
    }
}

#[test]
fn a_container_that_another_webhook_adds_is_given_the_same() {
    let before =
        json!({"metadata": {"annotations": {"other": "x"}}, "spec": {"containers": [{"name": "app"}]}});
    let (mut once, _) = applied(&before, &options());
    once["spec"]["containers"].as_array_mut().expect("containers").push(json!({"name": "sidecar"}));
    let (twice, _) = applied(&once, &options());
    assert_eq!(twice["spec"]["containers"][0], once["spec"]["containers"][0]);
    assert_eq!(twice["spec"]["containers"][1]["env"], twice["spec"]["containers"][0]["env"]);
    assert_eq!(twice["spec"]["volumes"], once["spec"]["volumes"]);
    assert_eq!(annotation(&twice).containers.len(), 2);
    assert_eq!(twice["metadata"]["annotations"]["other"], "x");
    assert!(applied(&twice, &options()).1.patch.0.is_empty());
}

#[test]
fn fields_that_are_newer_than_we_are_stay() {
    let before = json!({
        "spec": {"aFieldOfTomorrow": {"x": [1]}, "containers": [{"name": "app", "another": true}]},
    });
    let (after, _) = applied(&before, &options());
    assert_eq!(after["spec"]["aFieldOfTomorrow"], before["spec"]["aFieldOfTomorrow"]);
    assert_eq!(after["spec"]["containers"][0]["another"], true);
}

#[test]
fn a_pod_on_its_nodes_network_is_given_the_same() {
    let before = json!({"spec": {"hostNetwork": true, "containers": [{"name": "app"}]}});
    assert!(applied(&before, &options()).1.result.is_ok());
}
