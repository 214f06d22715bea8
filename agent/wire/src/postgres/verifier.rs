//! What a server keeps of a role's password, in the form of `pg_authid.rolpassword` (PostgreSQL manual, 53.8):
//! `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
//!
//! Owns the form. Its keys are wiped, and shown to nobody.

use core::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::scram::{Hash, MAX_ITERATIONS, PLAIN};

/// Longest salt, bytes; PostgreSQL's own has 16.
const MAX_SALT: usize = 1024;

/// Of one role on one server: StoredKey and ServerKey of RFC 5802 section 3, with the salt and the iterations that
/// they were made with. Whoever has it can pretend to be the server, and whoever has it and sees a client's proof can
/// pretend to be that client: it is a credential.
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Zeroizing<Hash>,
    pub(super) server_key: Zeroizing<Hash>,
}

/// Why a text is no verifier. Never has any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifierError {
    /// A password in plaintext, an MD5 hash, another mechanism.
    Mechanism,
    /// Too few parts, or too many.
    Form,
    /// No number, 0, or more than 200000.
    Iterations,
    /// No base64, empty, or too long.
    Salt,
    /// No base64, or not of 32 bytes.
    Key,
}

impl fmt::Display for VerifierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mechanism => "it does not begin with `SCRAM-SHA-256$`",
            Self::Form => "it is not `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`",
            Self::Iterations => "its iterations are no number from 1 to 200000",
            Self::Salt => "its salt is not in base64, or empty, or too long",
            Self::Key => "one of its keys is not 32 bytes in base64",
        })
    }
}

impl core::error::Error for VerifierError {}

impl Verifier {
    /// Reads the form above.
    ///
    /// # Errors
    /// It is not in that form.
    pub fn parse(text: &str) -> Result<Self, VerifierError> {
        let mechanism = core::str::from_utf8(PLAIN).unwrap_or_default();
        let rest = text.strip_prefix(mechanism).and_then(|rest| rest.strip_prefix('$'));
        let (made, keys) =
            rest.ok_or(VerifierError::Mechanism)?.split_once('$').ok_or(VerifierError::Form)?;
        let (iterations, salt) = made.split_once(':').ok_or(VerifierError::Form)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(VerifierError::Form)?;
        let iterations = iterations.parse().map_err(|_invalid| VerifierError::Iterations)?;
        if iterations == 0 || iterations > MAX_ITERATIONS {
            return Err(VerifierError::Iterations);
        }
        let salt = BASE64_STANDARD.decode(salt).map_err(|_invalid| VerifierError::Salt)?;
        if salt.is_empty() || salt.len() > MAX_SALT {
            return Err(VerifierError::Salt);
        }
        Ok(Self { iterations, salt, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }
}

fn key(text: &str) -> Result<Zeroizing<Hash>, VerifierError> {
    let bytes = BASE64_STANDARD.decode(text).map(Zeroizing::new).map_err(|_invalid| VerifierError::Key)?;
    let mut key = Zeroizing::new(Hash::default());
    if bytes.len() != key.len() {
        return Err(VerifierError::Key);
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of the password `pencil` with the salt and the iterations of RFC 7677 section 3.
    pub(in crate::postgres) const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_verifier_is_read_as_postgresql_keeps_it() {
        let read = Verifier::parse(PENCIL).expect("one");
        assert_eq!((read.iterations, read.salt.len()), (4096, 16));
        assert_eq!(format!("{read:?}"), "Verifier { .. }");
    }

    #[test]
    fn what_is_no_verifier_is_told_without_a_word_of_it() {
        let key = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=";
        for (text, error) in [
            ("geheim".to_owned(), VerifierError::Mechanism),
            ("md5deadbeef".to_owned(), VerifierError::Mechanism),
            ("SCRAM-SHA-512$1:c2FsdA==$k:k".to_owned(), VerifierError::Mechanism),
            ("SCRAM-SHA-256$".to_owned(), VerifierError::Form),
            ("SCRAM-SHA-256$4096$a:b".to_owned(), VerifierError::Form),
            (format!("SCRAM-SHA-256$1:c2FsdA==${key}"), VerifierError::Form),
            (format!("SCRAM-SHA-256$0:c2FsdA==${key}:{key}"), VerifierError::Iterations),
            (format!("SCRAM-SHA-256$200001:c2FsdA==${key}:{key}"), VerifierError::Iterations),
            (format!("SCRAM-SHA-256$-1:c2FsdA==${key}:{key}"), VerifierError::Iterations),
            (format!("SCRAM-SHA-256$1:${key}:{key}"), VerifierError::Salt),
            (format!("SCRAM-SHA-256$1:!!${key}:{key}"), VerifierError::Salt),
            (format!("SCRAM-SHA-256$1:c2FsdA==${key}:c2FsdA=="), VerifierError::Key),
            (format!("SCRAM-SHA-256$1:c2FsdA==${key}:{key}x"), VerifierError::Key),
        ] {
            let said = Verifier::parse(&text).expect_err(&text);
            assert_eq!(said, error, "{text}");
            assert!(!said.to_string().contains("geheim") && !said.to_string().contains(key));
        }
    }
}
