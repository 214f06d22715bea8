//! What a node agent and the cluster's issuer say to each other: one request, one answer, JSON over TLS.
//!
//! The agent shows its projected token (`Authorization: Bearer`), bound to its pod and to the issuer as audience, and
//! sends requests for certificates of keys that never leave the node.

use std::fmt;

use serde::{Deserialize, Serialize};
use verbatim_tls::{NameClass, RootId};
use zeroize::Zeroize;

/// Where it is asked for, by POST.
pub const PATH: &str = "/v1/node";
/// The audience of the agent's token, where the issuer's configuration names no other.
pub const AUDIENCE: &str = "verbatim-issuer";
/// The longest request that is read, bytes.
pub const LONGEST_REQUEST: usize = 16 * 1024;
/// The longest answer that is read, bytes.
pub const LONGEST_ANSWER: usize = 1024 * 1024;

/// What a node wants: PKCS #10 requests, PEM. Only their keys count.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRequest {
    /// For an intermediate that may vouch for API names.
    pub api: String,
    /// For one that may vouch for databases.
    pub databases: String,
    /// For the node's certificate toward the collector.
    pub client: String,
}

/// What a node gets.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnswer {
    /// The node, as the cluster names it.
    pub node: String,
    /// All roots of ours that are in the workloads' bundles, PEM.
    pub roots: String,
    /// One of each class.
    pub intermediates: Vec<Intermediate>,
    /// Toward the collector.
    pub client: Certificate,
    /// The cluster's key of fingerprints.
    pub fingerprint_key: FingerprintKey,
}

/// What signs leaves on the node.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Intermediate {
    /// What it may vouch for.
    pub class: NameClass,
    /// The root that it leads to.
    pub root: RootId,
    /// The certificate.
    #[serde(flatten)]
    pub certificate: Certificate,
}

/// A certificate.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// It alone, PEM.
    pub certificate: String,
    /// The end of its validity, seconds since 1970.
    pub not_after: i64,
}

/// The key by which the whole cluster makes fingerprints of credentials, so that one that is used in two places is
/// seen. Never printed.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FingerprintKey {
    /// Its name, for records.
    pub id: String,
    /// 32 bytes, hexadecimal.
    pub key: String,
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FingerprintKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for FingerprintKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl FingerprintKey {
    /// The key itself; `None` where the text is none.
    #[must_use]
    pub fn bytes(&self) -> Option<[u8; 32]> {
        let text = self.key.as_bytes();
        if text.len() != 64 {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(bytes)
    }

    /// Of a key and its name.
    #[must_use]
    pub fn new(id: &str, bytes: &[u8; 32]) -> Self {
        Self { id: id.to_owned(), key: bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_key_is_read_as_it_was_written_and_never_printed() {
        let mut bytes = [0; 32];
        for (byte, value) in bytes.iter_mut().zip(200_u8..) {
            *byte = value;
        }
        let key = FingerprintKey::new("k1", &bytes);
        assert_eq!(key.bytes(), Some(bytes));
        assert!(!format!("{key:?}").contains(&key.key));
        for bad in ["", "00", &"g0".repeat(32), &"00".repeat(33)] {
            assert_eq!(FingerprintKey { id: String::new(), key: bad.to_owned() }.bytes(), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_is_understood_by_who_is_older_and_a_request_is_exact() {
        let intermediate = r#"{"class":"api","root":"00","certificate":"C","notAfter":7,"new":1}"#;
        let intermediate: Intermediate = serde_json::from_str(intermediate).expect("understood");
        assert_eq!((intermediate.class, intermediate.certificate.not_after), (NameClass::Api, 7));
        let request = r#"{"api":"","databases":"","client":"","more":""}"#;
        assert!(serde_json::from_str::<NodeRequest>(request).is_err());
    }
}
