//! A person's delegation to an agent, as a company's sign-in would issue it: a signed token (JWT, EdDSA) and the key set
//! that it can be checked with. Made by openssl, since nothing in here signs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::command;

/// Who issues it in the demo.
pub(super) const ISSUER: &str = "https://login.demo.example";
/// Whom it is for.
pub(super) const AUDIENCE: &str = "verbatim";
/// An Ed25519 key in DER ends with its 32 bytes (RFC 8410).
const KEY_BYTES: usize = 32;

/// It is in two files.
pub(super) struct Delegation {
    /// The token, for the agent's framework.
    pub(super) token: PathBuf,
    /// The key set, for Verbatim.
    pub(super) keys: PathBuf,
}

impl Delegation {
    /// Lets a workload (`NAMESPACE/SERVICE_ACCOUNT`) act for a person, for an hour.
    pub(super) fn issue(scratch: &Path, person: &str, workload: &str) -> Result<Self> {
        let path = |name: &str| scratch.join(format!("delegation.{name}"));
        let (key, message, signature) = (path("key"), path("message"), path("signature"));
        let openssl = |arguments: &[&str]| {
            let mut openssl = Command::new("openssl");
            openssl.args(arguments);
            openssl
        };
        command::quiet(openssl(&["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key))?;
        let public = path("der");
        let mut shown = openssl(&["pkey", "-pubout", "-outform", "DER", "-in"]);
        command::quiet(shown.arg(&key).arg("-out").arg(&public))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let header = json!({"alg": "EdDSA", "kid": "demo", "typ": "JWT"});
        let claims =
            json!({"iss": ISSUER, "aud": AUDIENCE, "sub": person, "exp": now + 3600, "workload": workload});
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        let text = format!("{}.{}", part(&header), part(&claims));
        fs::write(&message, &text).with_context(|| message.display().to_string())?;
        let mut sign = openssl(&["pkeyutl", "-sign", "-rawin", "-inkey"]);
        command::quiet(sign.arg(&key).arg("-in").arg(&message).arg("-out").arg(&signature))?;
        let token = path("token");
        let signature = fs::read(&signature).with_context(|| signature.display().to_string())?;
        fs::write(&token, format!("{text}.{}", base64url(&signature)))?;
        let der = fs::read(&public).with_context(|| public.display().to_string())?;
        let Some(x) = der.len().checked_sub(KEY_BYTES).and_then(|at| der.get(at..)) else {
            bail!("{}: no Ed25519 key", public.display());
        };
        let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "demo", "use": "sig", "x": base64url(x)}]});
        let keys = path("keys.json");
        fs::write(&keys, set.to_string())?;
        Ok(Self { token, keys })
    }
}

/// RFC 4648 section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_written_as_rfc_4648_does() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"\xff\xfe\xfd", "__79")]
        {
            assert_eq!(super::base64url(bytes), text);
        }
    }
}
