//! Whether a token that says on whose behalf holds: signature, audience, time and workload.
//!
//! Owns which algorithms are taken: RS256, ES256 and EdDSA, each with the one kind of key that it belongs to
//! (RFC 8725 section 3.1); never `none`, never a shared secret.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hashlink::LruCache;
use serde_json::{Map, Value};

use super::{KeySet, keys::PublicKey};
use crate::{fingerprint::FingerprintKey, judge::Workload, jwt::Jwt};

/// Clocks that differ by less are no reason to refuse, seconds.
const LEEWAY_SECONDS: u64 = 30;
/// Tokens whose signature is remembered as good.
const REMEMBERED: usize = 4096;
/// Keys without an id that are tried one after the other.
const TRIED: usize = 8;

/// Somebody whose word counts.
#[derive(Debug)]
pub struct Issuer {
    /// As in `iss`.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// The claim that names the workload it was given to: its principal, `NAMESPACE/SERVICE_ACCOUNT`, or the Google
    /// service account that it acts as; or a list of such.
    pub workload_claim: String,
    /// Its keys; `None` as long as they could not be had.
    pub keys: Arc<ArcSwapOption<KeySet>>,
}

/// A token that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it says; `subject` is who asked.
    pub jwt: Jwt,
}

/// Why a token does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// No compact JWS, or too long.
    #[error("no token that can be read")]
    Malformed,
    /// `none`, a shared secret, or another algorithm that is not taken.
    #[error("its algorithm is not RS256, ES256 or EdDSA")]
    Algorithm,
    /// It asks for something that is not understood (RFC 7515 section 4.1.11).
    #[error("its header has critical parameters that are not understood")]
    Critical,
    /// Nobody whose word counts.
    #[error("its issuer is not among those that are believed")]
    Issuer,
    /// The issuer's keys could not be had.
    #[error("not checkable: its issuer's keys could not be had")]
    KeysAway,
    /// No key of this id.
    #[error("signed with a key that its issuer does not publish")]
    UnknownKey,
    /// Forged, or changed.
    #[error("its signature is not its issuer's")]
    Signature,
    /// `exp` has passed.
    #[error("expired")]
    Expired,
    /// `nbf` is yet to come.
    #[error("not valid yet")]
    Immature,
    /// Without an end it would hold for ever.
    #[error("it has no expiry")]
    NoExpiry,
    /// For somebody else.
    #[error("for another audience")]
    Audience,
    /// It names nobody.
    #[error("it names no subject")]
    NoSubject,
    /// It was given to another workload, or to none.
    #[error("given to another workload")]
    Workload,
}

struct Remembered {
    /// Whose keys they were when it was checked.
    keys: Arc<KeySet>,
    claims: Arc<Map<String, Value>>,
}

/// Checks tokens.
pub struct Verifier {
    issuers: Vec<Issuer>,
    digest: FingerprintKey,
    remembered: Mutex<LruCache<[u8; 32], Remembered>>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuers", &self.issuers).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Believes these; nobody where there are none.
    #[must_use]
    pub fn new(issuers: Vec<Issuer>) -> Self {
        let remembered = Mutex::new(LruCache::new(REMEMBERED));
        Self { issuers, digest: FingerprintKey::of_process(), remembered }
    }

    /// Checks a token that a workload sent, at this time (seconds since 1970).
    ///
    /// # Errors
    /// Why it does not hold.
    pub fn verify(&self, token: &[u8], workload: &Workload<'_>, now: u64) -> Result<Verified, Rejection> {
        let jwt = Jwt::read(token).ok_or(Rejection::Malformed)?;
        let issuer = self.issuers.iter().find(|known| known.issuer == jwt.issuer).ok_or(Rejection::Issuer)?;
        let keys = issuer.keys.load_full().ok_or(Rejection::KeysAway)?;
        let digest = self.digest.of(token).code;
        let claims = match self.known(&digest, &keys) {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(signed_by(token, &jwt, &keys)?);
                let remembered = Remembered { keys, claims: Arc::clone(&claims) };
                self.remembered.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, remembered);
                claims
            }
        };
        holds(&jwt, &claims, issuer, workload, now)?;
        Ok(Verified { jwt })
    }

    fn known(&self, digest: &[u8; 32], keys: &Arc<KeySet>) -> Option<Arc<Map<String, Value>>> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = remembered.get(digest).filter(|known| Arc::ptr_eq(&known.keys, keys))?;
        Some(Arc::clone(&known.claims))
    }
}

/// The claims of a token whose signature is one of these keys'.
fn signed_by(token: &[u8], jwt: &Jwt, keys: &KeySet) -> Result<Map<String, Value>, Rejection> {
    if !matches!(jwt.algorithm.as_str(), "RS256" | "ES256" | "EdDSA" | "Ed25519") {
        return Err(Rejection::Algorithm);
    }
    let dot = token.iter().rposition(|byte| *byte == b'.').ok_or(Rejection::Malformed)?;
    let (message, signature) = token.split_at(dot);
    let (header, claims) = split_once(message).ok_or(Rejection::Malformed)?;
    if object(header)?.contains_key("crit") {
        return Err(Rejection::Critical);
    }
    let signature = decoded(signature.get(1..).unwrap_or_default())?;
    let named = |key: &&PublicKey| jwt.key_id.is_empty() || key.id == jwt.key_id;
    let algorithm = if jwt.algorithm == "Ed25519" { "EdDSA" } else { &jwt.algorithm };
    let mut refused = Rejection::UnknownKey;
    for key in keys.0.iter().filter(named).take(TRIED) {
        // The key says with which algorithm it is used, never the token alone.
        if key.algorithm() != algorithm {
            refused = Rejection::Algorithm;
        } else if key.has_signed(message, &signature) {
            return object(claims);
        } else {
            refused = Rejection::Signature;
        }
    }
    Err(refused)
}

fn split_once(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = message.iter().position(|byte| *byte == b'.')?;
    Some((message.get(..dot)?, message.get(dot + 1..)?))
}

fn decoded(part: &[u8]) -> Result<Vec<u8>, Rejection> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_no_base64| Rejection::Malformed)
}

fn object(part: &[u8]) -> Result<Map<String, Value>, Rejection> {
    serde_json::from_slice(&decoded(part)?).map_err(|_no_object| Rejection::Malformed)
}

fn holds(
    jwt: &Jwt,
    claims: &Map<String, Value>,
    issuer: &Issuer,
    workload: &Workload<'_>,
    now: u64,
) -> Result<(), Rejection> {
    let time = |name: &str| claims.get(name).map(|value| value.as_f64().unwrap_or(f64::NAN));
    let now = now as f64;
    let leeway = LEEWAY_SECONDS as f64;
    match time("exp") {
        None => return Err(Rejection::NoExpiry),
        // What is no number is no time that is yet to come.
        Some(expires) if expires + leeway > now => {}
        Some(_) => return Err(Rejection::Expired),
    }
    match time("nbf") {
        None => {}
        Some(begins) if begins - leeway <= now => {}
        Some(_) => return Err(Rejection::Immature),
    }
    if !jwt.audiences.iter().any(|audience| issuer.audiences.contains(audience)) {
        return Err(Rejection::Audience);
    }
    if jwt.subject.is_empty() {
        return Err(Rejection::NoSubject);
    }
    let is_this = |value: &Value| value.as_str().is_some_and(|name| workload.is(name));
    let given = match claims.get(&issuer.workload_claim) {
        Some(Value::Array(several)) => several.iter().any(is_this),
        Some(one) => is_this(one),
        None => false,
    };
    if given { Ok(()) } else { Err(Rejection::Workload) }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
