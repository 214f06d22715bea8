//! The names that a client's certificate carries.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;

/// Subject alternative names: URIs first (SPIFFE ids among them), then DNS names. A certificate without any
/// has its fingerprint: a common name is no identity (RFC 9525, section 2).
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) {
        names.extend(parsed.valid_uri_names().map(str::to_owned));
        names.extend(parsed.valid_dns_names().map(str::to_owned));
    }
    if names.is_empty() {
        names.push(format!("sha256:{}", crate::log::hex(digest(&SHA256, certificate).as_ref())));
    }
    names
}
