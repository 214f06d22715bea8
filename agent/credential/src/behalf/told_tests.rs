//! Where people, traces and ids are found, and that nothing but a signature makes anybody verified.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use verbatim_api::v1::PrincipalKind;
use verbatim_wire::seam::Token;

use super::*;
use crate::behalf::{Issuer, KeySet};

const NOW: u64 = 1_800_000_000;

fn pod() -> Workload<'static> {
    Workload {
        kind: PrincipalKind::Federated,
        principal: "principal://p",
        namespace: "shop",
        service_account: "agent",
        impersonated: "",
    }
}

fn signed() -> (String, Verifier) {
    let key = Ed25519KeyPair::generate().expect("a key");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims =
        json!({"iss": "i", "sub": "ada@example.com", "aud": "a", "exp": NOW + 60, "workload": "shop/agent"});
    let message = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "k"})), part(&claims));
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes())));
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": URL_SAFE_NO_PAD.encode(key.public_key().as_ref())});
    let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).expect("keys");
    let issuer = Issuer {
        issuer: "i".into(),
        audiences: vec!["a".into()],
        workload_claim: "workload".into(),
        keys: Arc::new(ArcSwapOption::from_pointee(keys)),
    };
    (token, Verifier::new(vec![issuer]))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
        .collect()
}

/// As a decoder hands it on: signatures taken out.
fn statement(text: &str, token: &str) -> (Captured, Vec<Redaction>) {
    let dot = token.rfind('.').expect("a signature");
    let marked = text.replace(token, &format!("{}.[redacted]", &token[..dot]));
    let Some(mark) = marked.find("[redacted]").map(|at| at as u64) else {
        return (Captured { bytes: marked.into_bytes(), ..Captured::default() }, Vec::new());
    };
    let tokens = vec![Token { mark, secret: Secret::new(token.as_bytes().to_vec()) }];
    let redaction = Redaction { offset: mark, length: 10, reason: RedactionReason::Signature };
    (Captured { bytes: marked.into_bytes(), tokens, ..Captured::default() }, vec![redaction])
}

fn summary(behalf: &Behalf) -> Vec<(BehalfKind, &str, &str)> {
    behalf
        .on_behalf_of
        .iter()
        .map(|person| (person.kind(), person.subject.as_str(), person.evidence.as_str()))
        .collect()
}

#[test]
fn a_token_is_verified_in_each_place_where_one_can_be() {
    let (token, verifier) = signed();
    let names = Names::default();
    let verified = |carried: &Carried, place: &str| {
        let behalf = carried.check(&verifier, &pod(), NOW);
        assert_eq!(summary(&behalf), [(BehalfKind::Verified, "ada@example.com", place)]);
        assert_eq!((behalf.kind, behalf.finding), (BehalfKind::Verified, None));
    };
    for (name, value, place) in [
        ("baggage", format!("a=1,on-behalf-of={token};p=1"), "baggage"),
        ("on-behalf-of", token.clone(), "header on-behalf-of"),
        ("verbatim-delegation", token.clone(), "header verbatim-delegation"),
        ("x-goog-request-reason", format!("nightly report {token}"), "header x-goog-request-reason"),
    ] {
        verified(&Carried::of_headers(&headers(&[(name, &value)]), &names), place);
    }
    let (text, redactions) = statement(&format!("SELECT 1 /*on_behalf_of='{token}',tool='t'*/"), &token);
    let mut carried = Carried::default();
    carried.statement(&text, &redactions, &names);
    verified(&carried, "sqlcommenter");
}

#[test]
fn what_has_no_signature_that_holds_is_asserted_wherever_it_stands() {
    let (token, verifier) = signed();
    let names = Names::default();
    let check = |carried: &Carried| carried.check(&verifier, &pod(), NOW);
    let plain =
        Carried::of_headers(&headers(&[("baggage", "on-behalf-of=ada%40example.com%20(verified)")]), &names);
    assert_eq!(summary(&check(&plain)), [(BehalfKind::Asserted, "ada@example.com (verified)", "baggage")]);
    assert_eq!(check(&plain).finding, None);

    let mut session = Carried::default();
    session.application_name(b"agent on-behalf-of=ada@example.com;x=y", &names);
    assert_eq!(summary(&check(&session)), [(BehalfKind::Asserted, "ada@example.com", "application_name")]);
    let mut labels = Carried::default();
    labels.labels(br#"{"on_behalf_of": "ada", "mcp-toolbox-tool": "search", "n": 1}"#, &names);
    assert_eq!(summary(&check(&labels)), [(BehalfKind::Asserted, "ada", "label on_behalf_of")]);
    assert_eq!(check(&labels).trace.expect("a tool").tool_id, "search");

    // A good token in a place that cannot prove anything proves nothing, and its signature is not kept.
    let mut session = Carried::default();
    session.application_name(format!("on-behalf-of={token}").as_bytes(), &names);
    let behalf = check(&session);
    assert_eq!(behalf.kind, BehalfKind::Asserted);
    let signature = token.rsplit('.').next().expect("a signature");
    assert!(!format!("{session:?}{behalf:?}").contains(signature));

    let dot = token.rfind('.').expect("a signature");
    let forged = format!("{}.{}", &token[..dot], URL_SAFE_NO_PAD.encode([7; 64]));
    let forged = Carried::of_headers(&headers(&[("on-behalf-of", &forged)]), &names);
    let behalf = check(&forged);
    assert_eq!(summary(&behalf), [(BehalfKind::Asserted, "ada@example.com", "header on-behalf-of")]);
    assert_eq!(behalf.finding, Some(CommandFinding::OnBehalfOfRejected));
    assert_eq!(behalf.on_behalf_of[0].rejection, "its signature is not its issuer's");
}

#[test]
fn the_best_proven_is_first_and_a_rejected_one_beside_it_is_still_found() {
    let (token, verifier) = signed();
    let list = format!("on-behalf-of=eve,verbatim-delegation={token}");
    let carried = Carried::of_headers(
        &headers(&[("baggage", &list), ("on-behalf-of", "eyJhbGciOiJub25lIn0.e30.x")]),
        &Names::default(),
    );
    let behalf = carried.check(&verifier, &pod(), NOW);
    assert_eq!(behalf.on_behalf_of.len(), 3);
    assert_eq!(
        (behalf.kind, behalf.on_behalf_of[0].subject.as_str()),
        (BehalfKind::Verified, "ada@example.com")
    );
    assert_eq!(behalf.finding, Some(CommandFinding::OnBehalfOfRejected));
}

#[test]
fn a_token_whose_signature_is_not_at_hand_is_not_checkable() {
    let (token, verifier) = signed();
    let (mut text, redactions) = statement(&format!("SELECT 1 /*on_behalf_of='{token}'*/"), &token);
    text.tokens.clear();
    let mut carried = Carried::default();
    carried.statement(&text, &redactions, &Names::default());
    let behalf = carried.check(&verifier, &pod(), NOW);
    assert_eq!(summary(&behalf), [(BehalfKind::Asserted, "ada@example.com", "sqlcommenter")]);
    assert!(behalf.on_behalf_of[0].rejection.starts_with("not checkable"));
}

#[test]
fn traces_and_ids_are_kept_where_they_are_what_they_should_be() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let names = Names::default();
    let mut carried = Carried::of_headers(
        &headers(&[("traceparent", parent), ("tracestate", "bad"), ("baggage", "session.id=s1,task_id=t1")]),
        &names,
    );
    let (text, redactions) = statement("SELECT 1 /*tool='search',session_id='s2',traceparent='bad'*/", "a.b");
    carried.statement(&text, &redactions, &names);
    let trace = carried.check(&Verifier::new(Vec::new()), &pod(), NOW).trace.expect("a trace");
    assert_eq!((trace.traceparent.as_str(), trace.tracestate.as_str()), (parent, ""));
    assert_eq!(
        (trace.session_id.as_str(), trace.task_id.as_str(), trace.tool_id.as_str()),
        ("s1", "t1", "search")
    );
    assert!(
        trace.places.contains(&"sqlcommenter".to_owned()) && trace.places.contains(&"baggage".to_owned())
    );
    assert!(Carried::of_headers(&headers(&[("user-agent", "x")]), &names).is_empty());
}

#[test]
fn a_thousand_names_are_a_few() {
    let list = vec!["on-behalf-of=a"; 150].join(",");
    let carried = Carried::of_headers(&headers(&[("baggage", &list)]), &Names::default());
    assert_eq!(carried.check(&Verifier::new(Vec::new()), &pod(), NOW).on_behalf_of.len(), MOST_NAMED);
}
