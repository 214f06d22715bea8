//! The public keys of an issuer: a JSON Web Key Set (RFC 7517, RFC 7518 section 6, RFC 8037).

use std::fmt;

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// Longest set that is read, bytes.
const MOST_BYTES: usize = 1 << 20;
/// Keys that are kept.
const MOST_KEYS: usize = 64;

/// Why a set cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeysError {
    /// Longer than is read.
    #[error("a key set of more than {MOST_BYTES} bytes")]
    TooLong,
    /// No JSON, or no `keys` in it.
    #[error("no JSON Web Key Set (RFC 7517): an object with `keys` was expected")]
    Malformed,
    /// None of its keys is one that signatures are checked with.
    #[error("no key in it is RSA (RS256), EC P-256 (ES256) or Ed25519 (EdDSA)")]
    NoKey,
}

enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Uncompressed point, 65 bytes.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// One public key. Its kind says with which algorithm it is used (RFC 8725 section 3.1).
pub(super) struct PublicKey {
    pub(super) id: String,
    material: Material,
}

impl PublicKey {
    /// As in a token's `alg`.
    pub(super) fn algorithm(&self) -> &'static str {
        match self.material {
            Material::Rsa { .. } => "RS256",
            Material::P256(_) => "ES256",
            Material::Ed25519(_) => "EdDSA",
        }
    }

    /// Whether it has signed this.
    pub(super) fn has_signed(&self, message: &[u8], signed: &[u8]) -> bool {
        let verified =
            match &self.material {
                Material::Rsa { modulus, exponent } => RsaPublicKeyComponents { n: modulus, e: exponent }
                    .verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signed),
                Material::P256(point) => {
                    UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, signed)
                }
                Material::Ed25519(key) => {
                    UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signed)
                }
            };
        verified.is_ok()
    }
}

/// The keys that can be used.
pub struct KeySet(pub(super) Vec<PublicKey>);

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl KeySet {
    /// Reads a set. Keys of a kind that is not used here, symmetric ones among them, are left out.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn parse(json: &[u8]) -> Result<Self, KeysError> {
        if json.len() > MOST_BYTES {
            return Err(KeysError::TooLong);
        }
        let set: Value = serde_json::from_slice(json).map_err(|_no_json| KeysError::Malformed)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeysError::Malformed)?;
        let keys: Vec<_> = keys.iter().filter_map(public_key).take(MOST_KEYS).collect();
        if keys.is_empty() { Err(KeysError::NoKey) } else { Ok(Self(keys)) }
    }
}

fn public_key(jwk: &Value) -> Option<PublicKey> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
    if text("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => Material::Rsa { modulus: bytes("n")?, exponent: bytes("e")? },
        ("EC", Some("P-256")) => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            // RFC 7518 section 6.2.1.2: of the field's full size.
            (x.len() == 32 && y.len() == 32).then(|| Material::P256([&[4], &*x, &*y].concat()))?
        }
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|key| key.len() == 32)?),
        _ => return None,
    };
    let key = PublicKey { id: text("kid").unwrap_or_default().to_owned(), material };
    let fits = |said: &str| said == key.algorithm() || (said == "Ed25519" && key.algorithm() == "EdDSA");
    text("alg").is_none_or(fits).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_set_is_refused_and_keys_that_cannot_be_used_are_left_out() {
        let error = |json: &[u8]| KeySet::parse(json).map(|keys| keys.0.len());
        assert_eq!(error(b""), Err(KeysError::Malformed));
        assert_eq!(error(b"{}"), Err(KeysError::Malformed));
        assert_eq!(error(b"[]"), Err(KeysError::Malformed));
        assert_eq!(error(&vec![b' '; MOST_BYTES + 1]), Err(KeysError::TooLong));
        let unusable = br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},
            {"kty":"RSA","n":"AQAB","e":"AQAB","use":"enc"},{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS512"},7]}"#;
        assert_eq!(error(unusable), Err(KeysError::NoKey));
        let one = br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kid":"a","kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
        assert_eq!(error(one), Ok(1));
    }
}
