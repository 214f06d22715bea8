//! A request for a certificate (PKCS #10, RFC 2986): made where the key stays, read where it is signed.
//!
//! Owns both ends. Of a request only the key counts: what a certificate says is its issuer's to say.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKey,
};
use zeroize::Zeroizing;

use super::AuthorityError;

/// The longest request that is read, bytes of PEM: one of ours has about 300.
const LONGEST: usize = 4096;

/// A request is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// It is no request, or whoever made it does not have the key.
    #[error("expected a certificate signing request (PEM) that its own P-256 key has signed: {0}")]
    Request(String),
    /// Signing failed.
    #[error("signing failed: {0}")]
    Sign(String),
    /// Who signs is about to expire.
    #[error("the authority that should sign has expired")]
    Expired,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// It alone, PEM.
    pub certificate: String,
    /// The end of its validity, seconds since 1970.
    pub not_after: i64,
}

/// A key, and the request for a certificate of it.
pub struct Request(KeyPair);

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

impl Request {
    /// With a new key.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn make() -> Result<Self, AuthorityError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// For whoever signs: PEM, `CERTIFICATE REQUEST`.
    ///
    /// # Errors
    ///
    /// When it cannot be signed.
    pub fn pem(&self) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.pem()?)
    }

    /// The private key, PEM.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }
}

/// The key of a request whose maker has proven to have it.
pub(super) fn key(request: &str) -> Result<PublicKey, IssueError> {
    if request.len() > LONGEST {
        return Err(IssueError::Request(format!("longer than {LONGEST} bytes")));
    }
    let request = CertificateSigningRequestParams::from_pem(request)
        .map_err(|error| IssueError::Request(error.to_string()))?;
    if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(IssueError::Request("a key of another kind".to_owned()));
    }
    Ok(request.public_key)
}
