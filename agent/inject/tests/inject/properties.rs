//! What holds for every pod.

use proptest::prelude::*;
use serde_json::{Value, json};
use verbatim_inject::{ContainerTrust, trust};

use super::{applied, options, pod};

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("SSL_CERT_FILE".to_owned()),
        Just("REQUESTS_CA_BUNDLE".to_owned()),
        Just("NODE_EXTRA_CA_CERTS".to_owned()),
        Just("JAVA_TOOL_OPTIONS".to_owned()),
        Just("_JAVA_OPTIONS".to_owned()),
        Just("PGCHANNELBINDING".to_owned()),
        Just("GOOGLE_CLOUD_DISABLE_DIRECT_PATH".to_owned()),
        "[A-Z]{1,4}",
    ]
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"value": "/run/verbatim-trust/bundle.pem"})),
        Just(json!({"value": "disable"})),
        Just(json!({"value": "-Xmx1g"})),
        Just(json!({"value": "-Djavax.net.ssl.trustStore=/own.jks"})),
        Just(json!({"value": "$(OTHER)"})),
        Just(json!({})),
        Just(json!({"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})),
        "[ -~]{0,12}".prop_map(|text| json!({"value": text})),
    ]
}

fn variable() -> impl Strategy<Value = Value> {
    (names(), values()).prop_map(|(name, mut value)| {
        value["name"] = json!(name);
        value
    })
}

fn source() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"secretRef": {"name": "s"}})),
        Just(json!({"prefix": "SSL_", "configMapRef": {"name": "c"}})),
        Just(json!({"prefix": "APP_", "configMapRef": {"name": "c"}})),
    ]
}

fn mount() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"name": "verbatim-trust", "mountPath": "/run/verbatim-trust"})),
        Just(json!({"name": "verbatim-trust", "mountPath": "/elsewhere"})),
        Just(json!({"name": "data", "mountPath": "/run"})),
        Just(json!({"name": "data", "mountPath": "/run/verbatim-trust/below"})),
        "[a-z]{1,5}".prop_map(|name| json!({"name": name, "mountPath": format!("/{name}")})),
    ]
}

fn volume() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"name": "verbatim-trust", "emptyDir": {}})),
        Just(json!({"name": "verbatim-trust-2", "configMap": {"name": "verbatim-trust"}})),
        Just(json!({"name": "verbatim-trust", "configMap": {"name": "verbatim-trust", "optional": true}})),
        "[a-z]{1,5}".prop_map(|name| json!({"name": name, "emptyDir": {}})),
    ]
}

/// A list that may be absent altogether.
fn list(item: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Vec<Value>>> {
    prop::option::of(prop::collection::vec(item, 0..5))
}

fn with(mut object: Value, key: &str, list: Option<Vec<Value>>) -> Value {
    if let Some(list) = list {
        object[key] = Value::Array(list);
    }
    object
}

fn containers(prefix: &'static str, least: usize) -> impl Strategy<Value = Vec<Value>> {
    let container = (list(variable()), list(source()), list(mount()));
    prop::collection::vec(container, least..4).prop_map(move |containers| {
        containers
            .into_iter()
            .enumerate()
            .map(|(index, (env, env_from, mounts))| {
                let container = json!({"name": format!("{prefix}{index}")});
                with(with(with(container, "env", env), "envFrom", env_from), "volumeMounts", mounts)
            })
            .collect()
    })
}

fn pods() -> impl Strategy<Value = Value> {
    let annotations = prop::option::of(prop::collection::btree_map(
        prop_oneof![
            Just("verbatim-audit.github.io/injected".to_owned()),
            Just("verbatim-audit.github.io/extras".to_owned()),
            Just("verbatim-audit.github.io/env-from".to_owned()),
            "[a-z/~]{1,6}",
        ],
        prop_oneof![Just("override".to_owned()), Just("deno".to_owned()), "[ -~]{0,8}"],
        0..4,
    ));
    (annotations, list(volume()), containers("i", 0), containers("c", 1)).prop_map(
        |(annotations, volumes, init, regular)| {
            let mut pod = json!({"metadata": {}, "spec": {"containers": regular}});
            if let Some(annotations) = annotations {
                pod["metadata"]["annotations"] = json!(annotations);
            }
            if !init.is_empty() {
                pod["spec"]["initContainers"] = Value::Array(init);
            }
            pod["spec"] = with(pod["spec"].clone(), "volumes", volumes);
            pod
        },
    )
}

/// Whether everything that was there is there still, in its place; Java's options may have gained an end.
fn holds(before: &Value, after: &Value, at: &str) -> Result<(), String> {
    let ours = at.ends_with("verbatim-audit.github.io/injected");
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let java = before.get("name") == Some(&json!("JAVA_TOOL_OPTIONS"));
            for (key, value) in before {
                if key == "verbatim-audit.github.io/injected" {
                    continue;
                }
                let now = after.get(key).ok_or_else(|| format!("{at}/{key} is gone"))?;
                if java && key == "value" {
                    let (old, new) = (value.as_str().unwrap_or_default(), now.as_str().unwrap_or_default());
                    let appended =
                        old == new || new.starts_with(&format!("{old} -Djavax")) || old.trim().is_empty();
                    if !appended {
                        return Err(format!("{at}: {old} became {new}"));
                    }
                    continue;
                }
                holds(value, now, &format!("{at}/{key}"))?;
            }
            Ok(())
        }
        (Value::Array(before), Value::Array(after)) => {
            if after.len() < before.len() {
                return Err(format!("{at} has become shorter"));
            }
            before
                .iter()
                .zip(after)
                .enumerate()
                .try_for_each(|(n, (old, new))| holds(old, new, &format!("{at}/{n}")))
        }
        (before, after) if before == after || ours => Ok(()),
        (before, after) => Err(format!("{at}: {before} became {after}")),
    }
}

proptest! {
    #[test]
    fn nothing_of_the_pods_own_is_changed(before in pods()) {
        let (after, _) = applied(&before, &options());
        prop_assert_eq!(holds(&before, &after, ""), Ok(()));
    }

    #[test]
    fn a_second_time_changes_nothing(before in pods()) {
        let (once, first) = applied(&before, &options());
        let (twice, second) = applied(&once, &options());
        prop_assert_eq!(&once, &twice);
        prop_assert!(second.patch.0.is_empty(), "{}", second.patch);
        prop_assert_eq!(first.result, second.result);
    }

    #[test]
    fn what_was_given_is_what_is_read_back(before in pods()) {
        let (after, outcome) = applied(&before, &options());
        let found = trust(&pod(&after));
        let given = outcome.result.map(|injected| injected.containers).unwrap_or_default();
        for (name, trust) in found {
            match (given.get(&name), trust) {
                (Some(own), ContainerTrust::Injected { .. }) => prop_assert!(own.is_empty(), "{name}: {own:?}"),
                (Some(own), ContainerTrust::Partly { own: read, .. }) => {
                    let read: Vec<_> = read.into_iter().map(|own| own.name).collect();
                    prop_assert_eq!(own, &read);
                }
                (None, ContainerTrust::NotInjected { .. }) => {}
                (given, read) => prop_assert!(false, "{name}: {given:?} was read as {read:?}"),
            }
        }
    }
}
