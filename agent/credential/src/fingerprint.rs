//! Fingerprints of credentials: equal ones are seen to be equal, and nobody without the key can try guesses.
//!
//! Owns the key, which can be replaced while it is in use, and its id, which stands beside every fingerprint.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of a key, and of a fingerprint.
const BYTES: usize = 32;

/// Why a key cannot be read. Never says anything of the key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// What is there is none.
    #[error("a fingerprint key is 32 bytes, written as 64 hexadecimal digits or in base64")]
    Malformed,
}

/// HMAC-SHA-256 of a credential (RFC 2104).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The code.
    pub code: [u8; BYTES],
    /// Under the key of this id.
    pub key_id: Arc<str>,
}

/// A key with its id.
#[derive(Clone)]
pub struct FingerprintKey {
    id: Arc<str>,
    mac: Hmac<Sha256>,
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FingerprintKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FingerprintKey {
    /// A key that somebody has named.
    #[must_use]
    pub fn new(id: &str, bytes: &[u8; BYTES]) -> Self {
        // RFC 2104 section 2: a key shorter than a block has zeros behind it.
        let mut block = Zeroizing::new([0; 64]);
        block[..BYTES].copy_from_slice(bytes);
        Self { id: id.into(), mac: Hmac::<Sha256>::new((&*block).into()) }
    }

    /// A key as it is written in a file: 64 hexadecimal digits or base64 (RFC 4648 section 4), white space around
    /// it. Its id is derived from it: the first 16 hexadecimal digits of
    /// SHA-256("verbatim.v1.fingerprint-key" ‖ key), so that two nodes with one key name it alike.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let bytes = hexadecimal(text).or_else(|| STANDARD.decode(text).ok().map(Zeroizing::new));
        let bytes = bytes.ok_or(KeyError::Malformed)?;
        let bytes: &[u8; BYTES] = bytes.as_slice().try_into().map_err(|_other_length| KeyError::Malformed)?;
        Ok(Self::new(&id_of(bytes), bytes))
    }

    /// A key of this process alone. Its id says so: what is fingerprinted with it can be compared with nothing
    /// that another process has seen.
    #[must_use]
    pub fn of_process() -> Self {
        let bytes: Zeroizing<[u8; BYTES]> = Zeroizing::new(rand::random());
        Self::new(&format!("process-{}", id_of(&bytes)), &bytes)
    }

    /// Its name in records.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The fingerprint of a credential.
    #[must_use]
    pub fn of(&self, credential: &[u8]) -> Fingerprint {
        let mut mac = self.mac.clone();
        mac.update(credential);
        Fingerprint { code: mac.finalize().into_bytes().into(), key_id: Arc::clone(&self.id) }
    }
}

fn hexadecimal(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    if text.len() != 2 * BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>().map(Zeroizing::new)
}

fn id_of(key: &[u8; BYTES]) -> String {
    let digest = Sha256::new().chain_update(b"verbatim.v1.fingerprint-key").chain_update(key).finalize();
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The key in use, shared by all who fingerprint.
#[derive(Debug)]
pub struct Fingerprints(ArcSwap<FingerprintKey>);

impl Fingerprints {
    /// With this key for now.
    #[must_use]
    pub fn new(key: FingerprintKey) -> Self {
        Self(ArcSwap::from_pointee(key))
    }

    /// From now on with another one.
    pub fn replace(&self, key: FingerprintKey) {
        self.0.store(Arc::new(key));
    }

    /// The id of the key in use.
    #[must_use]
    pub fn key_id(&self) -> Arc<str> {
        Arc::clone(&self.0.load().id)
    }

    /// See [`FingerprintKey::of`].
    #[must_use]
    pub fn of(&self, credential: &[u8]) -> Fingerprint {
        self.0.load().of(credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_however_it_is_written() {
        let digits = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
        let hex = FingerprintKey::parse(&format!(" {digits}\n")).expect("digits");
        let base64 = FingerprintKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("base64");
        assert_eq!(hex.of(b"token"), base64.of(b"token"));
        assert_eq!(hex.id().len(), 16);
        assert!(!format!("{hex:?}").contains("0001"));
        for bad in ["", "00", "zz", "AAEC", &digits[1..], &"0".repeat(66)] {
            assert_eq!(FingerprintKey::parse(bad).map(|_| ()), Err(KeyError::Malformed), "{bad}");
        }
    }

    #[test]
    fn the_code_is_that_of_rfc_4231() {
        // Test case 2 has the key "Jefe"; a key of 32 bytes with zeros behind it is the same one to HMAC.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let code = FingerprintKey::new("rfc4231", &key).of(b"what do ya want for nothing?").code;
        assert_eq!(code[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
    }

    #[test]
    fn a_key_can_be_replaced_and_each_fingerprint_names_its_own() {
        let fingerprints = Fingerprints::new(FingerprintKey::of_process());
        let before = fingerprints.of(b"token");
        assert!(before.key_id.starts_with("process-"));
        fingerprints.replace(FingerprintKey::new("cluster", &[7; 32]));
        let after = fingerprints.of(b"token");
        assert_eq!(&*after.key_id, "cluster");
        assert_ne!(before.code, after.code);
    }

    #[test]
    fn keys_of_two_processes_are_never_the_same() {
        assert_ne!(FingerprintKey::of_process().id(), FingerprintKey::of_process().id());
    }
}
