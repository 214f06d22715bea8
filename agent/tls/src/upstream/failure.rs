//! What a failed upstream handshake means.
//!
//! Owns the three answers that lead to different records. Knows no record.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, OtherError};

use crate::refusals::tls_error;

/// Why an upstream connection did not come about, or ended right after its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// We do not accept the server's certificate; why, in one line.
    ServerNotTrusted(String),
    /// The server insists on a client's certificate.
    ClientCertificateRequired,
    /// Something else: the server's alert, a broken rule, a lost connection.
    Other,
}

impl UpstreamFailure {
    /// Reads an error of the handshake, or of reading before the server's first application byte: TLS 1.3 brings
    /// a server's opinion of the client's certificate only then.
    ///
    /// `certificate_requested` is what [`noticing`](crate::noticing) said of the handshake.
    #[must_use]
    pub fn read(error: &io::Error, certificate_requested: bool) -> Self {
        use AlertDescription as A;
        match tls_error(error) {
            Some(Error::InvalidCertificate(reason)) => Self::ServerNotTrusted(describe(reason)),
            Some(Error::NoCertificatesPresented) => Self::ServerNotTrusted("it showed no certificate".into()),
            Some(Error::AlertReceived(A::CertificateRequired)) => Self::ClientCertificateRequired,
            // Servers of TLS 1.2 have no alert of its own for it.
            Some(Error::AlertReceived(
                A::HandshakeFailure
                | A::BadCertificate
                | A::NoCertificate
                | A::AccessDenied
                | A::CertificateUnknown,
            )) if certificate_requested => Self::ClientCertificateRequired,
            _ => Self::Other,
        }
    }
}

fn describe(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => "its issuer is not among the trusted roots".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".into()
        }
        CertificateError::BadSignature => "its issuer's signature does not verify".into(),
        CertificateError::Other(OtherError(reason)) if reason.to_string() == "CaUsedAsEndEntity" => {
            "it is an authority's own certificate, not one that an authority issued to a server".into()
        }
        other => other.to_string(),
    }
}
