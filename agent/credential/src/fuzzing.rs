//! Bodies of the fuzz targets, so that the corpus runs as an ordinary test too.
#![allow(clippy::panic, clippy::expect_used, reason = "a fuzz target says by a panic what it found")]

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use serde_json::json;
use verbatim_api::v1::{BehalfKind, OnBehalfOf, PrincipalKind, Trace};
use verbatim_wire::{seam::Captured, without_tokens};

use crate::{
    Jwt, Workload,
    behalf::{Behalf, Carried, Issuer, KeySet, Names, Verifier},
    shown,
};

/// The body of a target.
pub type Target = fn(&[u8]);

/// Name and body of every target.
pub const TARGETS: &[(&str, Target)] = &[("behalf", behalf), ("credentials", credentials), ("token", token)];

const NOW: u64 = 1_800_000_000;
/// Longest text that a record keeps of what a client says; a mark in place of a token may stand beside it.
const MOST_TEXT: usize = 1024;

const POD: Workload<'static> = Workload {
    kind: PrincipalKind::Federated,
    principal: "principal://p",
    namespace: "shop",
    service_account: "agent",
    impersonated: "",
};

/// The one token that holds, and who says so.
struct Known {
    signed: String,
    verifier: Verifier,
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        // Always the same one, so that it can stand in the corpus; as texts, for which order the members of an object
        // are written in is for features of serde_json to say.
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let claims = r#"{"aud":"verbatim","exp":1800000060,"iss":"https://login.example","sub":"ada@example.com","workload":"shop/agent"}"#;
        let message = format!("{}.{}", part(r#"{"alg":"EdDSA","kid":"k"}"#), part(claims));
        let signed = format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes())));
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k",
                         "x": URL_SAFE_NO_PAD.encode(key.public_key().as_ref())});
        let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).expect("a set of keys");
        let issuer = Issuer {
            issuer: "https://login.example".into(),
            audiences: vec!["verbatim".into()],
            workload_claim: "workload".into(),
            keys: Arc::new(ArcSwapOption::from_pointee(keys)),
        };
        Known { signed, verifier: Verifier::new(vec![issuer]) }
    })
}

/// A token: what was signed is the only one that holds, whatever is done to it. And nothing that is read as a set of
/// keys stops anybody.
pub fn token(data: &[u8]) {
    let known = known();
    let holds = known.verifier.verify(data, &POD, NOW).is_ok();
    assert_eq!(holds, data == known.signed.as_bytes(), "another token than the signed one");
    assert!(!holds || known.verifier.verify(data, &POD, NOW + 3600).is_err(), "it holds for ever");
    if let Some(jwt) = Jwt::read(data) {
        for text in texts_of(&jwt) {
            kept(text);
        }
    }
    KeySet::parse(data).ok();
}

/// What a request's headers, a session, labels or a statement tell, by the first byte: nobody is verified but by the
/// signed token, and nothing that could be used again goes into a record.
pub fn behalf(data: &[u8]) {
    let Some((place, data)) = data.split_first() else { return };
    let (known, names) = (known(), Names::default());
    let mut carried = Carried::default();
    match place % 4 {
        0 => carried = Carried::of_headers(&headers(data), &names),
        1 => carried.application_name(data, &names),
        2 => carried.labels(data, &names),
        _ => {
            let statement = Captured { bytes: data.to_vec(), ..Captured::default() };
            carried.statement(&statement, &[], &names);
        }
    }
    let Behalf { on_behalf_of, kind, trace, .. } = carried.check(&known.verifier, &POD, NOW);
    let verified = on_behalf_of.iter().any(|person| person.kind() == BehalfKind::Verified);
    assert_eq!(verified, kind == BehalfKind::Verified, "the kind of all is not that of the best");
    // A comment may have it in percent encoding, with any byte of it as an escape.
    assert!(!verified || matches!(place % 4, 0 | 3), "a place that can only assert has verified somebody");
    assert!(on_behalf_of.len() <= 64, "{} people", on_behalf_of.len());
    for person in &on_behalf_of {
        let OnBehalfOf { subject, evidence, issuer, audiences, key_id, token_id, rejection, .. } = person;
        for text in [subject, evidence, issuer, key_id, token_id, rejection].into_iter().chain(audiences) {
            kept(text);
        }
    }
    if let Some(Trace { traceparent, tracestate, session_id, task_id, tool_id, places }) = &trace {
        for text in [traceparent, tracestate, session_id, task_id, tool_id].into_iter().chain(places) {
            kept(text);
        }
    }
}

/// The credentials of a request's head, its target in the first line: bounded, and each in a place that is known.
pub fn credentials(data: &[u8]) {
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (target, rest) = data.split_at(line);
    let Ok(request) = Request::builder().uri(target).body(()) else { return };
    let (mut head, ()) = request.into_parts();
    head.headers = headers(rest);
    for host in ["bigquery.googleapis.com", "bigquery.mtls.googleapis.com"] {
        let found = shown::of_head(&head, host);
        assert!(found.len() <= 64, "{} credentials", found.len());
        for one in &found {
            assert!(one.place.starts_with("header ") || one.place.starts_with("query "), "{}", one.place);
            kept(&one.place);
            kept(&one.subject);
            one.jwt.iter().flat_map(texts_of).for_each(kept);
        }
    }
    if let Ok(user) = std::str::from_utf8(data) {
        shown::of_session(user).iter().for_each(|one| kept(&one.subject));
    }
}

/// A text that goes into a record: bounded, and without a token in it.
fn kept(text: &str) {
    assert!(text.len() <= MOST_TEXT, "{} bytes are kept", text.len());
    assert_eq!(without_tokens(text.as_bytes()).as_ref(), text.as_bytes(), "a token is kept");
}

fn texts_of(jwt: &Jwt) -> impl Iterator<Item = &str> {
    let Jwt { algorithm, key_id, issuer, subject, email, audiences, id, service_account, .. } = jwt;
    let account = service_account.iter().flat_map(|(namespace, name)| [namespace, name]);
    let all = [algorithm, key_id, issuer, subject, email, id].into_iter().chain(audiences).chain(account);
    all.map(String::as_str)
}

/// A header a line.
fn headers(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name.trim_ascii());
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}
