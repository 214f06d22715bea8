//! What pods become, and what is read back from them.

mod cases;
mod evidence;
mod properties;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use verbatim_inject::{Options, Outcome, RootId, inject};
use verbatim_tls::rustls::pki_types::CertificateDer;

fn root(byte: u8) -> RootId {
    RootId::of(&CertificateDer::from(vec![byte; 8]))
}

fn options() -> Options {
    Options::new([root(1), root(2)])
}

fn roots() -> BTreeSet<RootId> {
    options().roots
}

fn pod(json: &Value) -> Pod {
    serde_json::from_value(json.clone()).expect("a pod")
}

/// The pod with the outcome's patch applied, as the API server applies it: to what came in, not to what we read of it.
fn applied(json: &Value, options: &Options) -> (Value, Outcome) {
    let outcome = inject(&pod(json), options);
    let mut patched = json.clone();
    // Every pod that the API server knows has some.
    if patched.get("metadata").is_none() {
        patched["metadata"] = serde_json::json!({});
    }
    json_patch::patch(&mut patched, &outcome.patch).expect("the patch fits");
    (patched, outcome)
}

/// The value of a variable in a container: the last counts.
fn value<'a>(pod: &'a Value, list: &str, index: usize, name: &str) -> Option<&'a Value> {
    let env = pod["spec"][list][index]["env"].as_array()?;
    env.iter().rev().find(|entry| entry["name"] == name)
}
