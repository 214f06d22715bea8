//! Which end of a handshake means that the client does not trust us.
//!
//! Owns the alerts' names in the RFCs. A refusal looks the same from many clients: see the tests for which.

use std::io;

use rustls::{AlertDescription, Error};

/// When an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// While our handshake with the client was going on, our certificate being sent already.
    Handshake,
    /// After it, and before the client's first application byte: some verify only then.
    Established,
}

/// The rustls error inside an I/O error, where there is one.
pub(crate) fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether an error of the leg toward the client means that the client does not trust us: the alert's name,
/// e.g. `unknown_ca`, or `eof` for a client that went away upon our certificate without a word. `None` is
/// another failure, or none of the client's opinions.
///
/// GnuTLS verifies when the handshake is over, and its clients (wget) then close without a word: what that means is
/// told by what else the workload did, which is not known here.
#[must_use]
pub fn refusal(error: &io::Error, moment: Moment) -> Option<&'static str> {
    use AlertDescription as A;
    match tls_error(error) {
        Some(Error::AlertReceived(alert)) => match alert {
            A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied => Some(name(*alert)),
            _ => None,
        },
        Some(_) => None,
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                if moment == Moment::Handshake =>
            {
                Some("eof")
            }
            _ => None,
        },
    }
}

/// As RFC 8446, 6 and RFC 5246, 7.2 call them.
fn name(alert: AlertDescription) -> &'static str {
    use AlertDescription as A;
    match alert {
        A::BadCertificate => "bad_certificate",
        A::UnsupportedCertificate => "unsupported_certificate",
        A::CertificateRevoked => "certificate_revoked",
        A::CertificateExpired => "certificate_expired",
        A::CertificateUnknown => "certificate_unknown",
        A::UnknownCA => "unknown_ca",
        A::AccessDenied => "access_denied",
        _ => "other",
    }
}
