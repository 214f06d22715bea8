//! The body of a request for a token: what it asks for, and the credentials that it shows for it.
//!
//! Owns which parameters are kept: a closed list, none of them a credential. What is signed for somebody (`payload`)
//! is as good as one, and is not kept.

use http::{HeaderMap, header, request};

use crate::{
    Secret,
    message::{
        coding::Coding,
        headers::cut,
        json::{Kept, Tree, TreeBuilder, Value},
        single::Read,
        target,
    },
    seam::{OpaqueReason, PresentedSecret},
};

/// Longest body that is read, bytes: a token has 16 KiB at most.
const MOST_BYTES: usize = 64 * 1024;
/// Bytes kept of one attribute.
const MOST_ATTRIBUTE: usize = 1024;

/// Parameter and the attribute that it becomes.
const KEPT: &[(&str, &str)] = &[
    ("grant_type", "grant_type"),
    ("audience", "audience"),
    ("scope", "scope"),
    ("requested_token_type", "requested_token_type"),
    ("subject_token_type", "subject_token_type"),
    ("actor_token_type", "actor_token_type"),
    ("client_id", "client_id"),
    ("lifetime", "lifetime"),
    ("includeEmail", "include_email"),
    ("delegates", "delegates"),
];

/// Parameter and where it stands as a credential.
const SECRET: &[(&str, &str)] = &[
    ("subject_token", "form subject_token"),
    ("actor_token", "form actor_token"),
    ("assertion", "form assertion"),
    ("client_assertion", "form client_assertion"),
    ("refresh_token", "form refresh_token"),
    ("client_secret", "form client_secret"),
    ("password", "form password"),
    ("code", "form code"),
];

/// What a body says.
#[derive(Default)]
pub(super) struct Said {
    pub(super) attributes: Vec<(&'static str, Vec<u8>)>,
    pub(super) presented: Vec<PresentedSecret>,
    pub(super) lifetime_seconds: Option<u64>,
    pub(super) partly: Option<OpaqueReason>,
}

/// Reads a body.
pub(super) struct BodyReader {
    form: bool,
    coding: Coding,
    text: zeroize::Zeroizing<Vec<u8>>,
    raw: usize,
    too_long: bool,
}

impl BodyReader {
    pub(super) fn new(head: &request::Parts) -> Self {
        Self {
            form: is_form(&head.headers),
            coding: Coding::of(&head.headers),
            text: Default::default(),
            raw: 0,
            too_long: false,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Read {
        let before = self.too_long;
        self.raw = self.raw.saturating_add(bytes.len());
        let Self { coding, text, .. } = self;
        coding.push(bytes, &mut |decoded| keep(text, decoded));
        self.too_long |= self.raw > MOST_BYTES || self.text.len() >= MOST_BYTES;
        if self.too_long && !before { Read::Limit } else { Read::More }
    }

    pub(super) fn end(&mut self) {
        let Self { coding, text, .. } = self;
        coding.finish(&mut |decoded| keep(text, decoded));
    }

    pub(super) fn said(&self, whole: bool) -> Said {
        if self.coding.failure().is_some() {
            return Said { partly: Some(OpaqueReason::UnsupportedVersion), ..Said::default() };
        }
        let mut said = if self.form { self.form() } else { self.json() };
        if self.too_long || !whole {
            said.partly = Some(OpaqueReason::Limit);
        }
        said
    }

    fn form(&self) -> Said {
        let mut said = Said::default();
        for pair in self.text.split(|byte| *byte == b'&') {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = pair.split_at(at);
            let name = plain(name);
            said.put(&name, || plain(value.get(1..).unwrap_or_default()).into_bytes());
        }
        said
    }

    fn json(&self) -> Said {
        let mut tree = TreeBuilder::new(|_| Kept::All, MOST_BYTES);
        tree.push(&self.text);
        let tree: Tree = tree.finish();
        let mut said = Said::default();
        if tree.fault.is_some() {
            said.partly = Some(OpaqueReason::Malformed);
        }
        for (name, _) in KEPT.iter().chain(SECRET) {
            let value = tree.root().get(name);
            said.put(name, || text(value));
        }
        said
    }
}

impl Said {
    fn put(&mut self, name: &str, value: impl FnOnce() -> Vec<u8>) {
        if let Some((_, attribute)) = KEPT.iter().find(|(known, _)| *known == name) {
            let value = value();
            if name == "lifetime" {
                self.lifetime_seconds = seconds(&value);
            }
            if !value.is_empty() {
                self.attributes.push((attribute, cut(&value, MOST_ATTRIBUTE)));
            }
        } else if let Some((_, place)) = SECRET.iter().find(|(known, _)| *known == name) {
            let secret = Secret::new(value());
            if !secret.bytes().is_empty() && self.presented.len() < SECRET.len() {
                self.presented.push(PresentedSecret { place, secret });
            }
        }
    }
}

fn keep(text: &mut Vec<u8>, decoded: &[u8]) {
    let room = MOST_BYTES.saturating_sub(text.len());
    text.extend(decoded.iter().take(room));
}

/// `application/x-www-form-urlencoded`; STS takes JSON too.
fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    !value.to_ascii_lowercase().starts_with(b"application/json")
}

/// `+` is a space in a form.
fn plain(text: &[u8]) -> String {
    target::decoded(&String::from_utf8_lossy(text).replace('+', " "))
}

fn text(value: &Value) -> Vec<u8> {
    match value.items() {
        [] => value.bytes().unwrap_or_default(),
        items => items.iter().filter_map(Value::bytes).collect::<Vec<_>>().join(&b' '),
    }
}

/// A Duration of protocol buffers in JSON: `3600s`.
fn seconds(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.strip_suffix('s')?.split('.').next()?.parse().ok()
}
