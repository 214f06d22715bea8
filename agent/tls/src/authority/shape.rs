//! What our certificates look like.
//!
//! Owns names, lifetimes and extensions. Why they are so: a root alone is no limit to clients that ignore the
//! constraints of what they trust, so an intermediate with the same ones is sent along; a common name or a
//! second alternative name would be one more thing that a client may check against them.

use aws_lc_rs::rand::fill;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber, string::Ia5String,
};
use time::OffsetDateTime;

use super::{
    constraints::{Configured, Constraints, Range},
    root::NameClass,
};
use crate::name::{LeafName, NameError};

/// Clocks of client and node may differ by this much.
const BACKDATED_SECONDS: i64 = 3600;
/// How long `run` may take: its roots cannot sign again.
pub(super) const RUN_SECONDS: i64 = 366 * 24 * 3600;
/// A leaf is made anew long before it expires.
pub(super) const LEAF_SECONDS: i64 = 24 * 3600;

/// Data services of Google and the names of Cloud SQL instances with DNS names.
const API_NAMES: [&str; 2] = ["googleapis.com", "sql.goog"];
/// RFC 1918, RFC 6598 (pods and nodes of many clusters), loopback.
const DATABASE_RANGES: [&str; 7] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fd00::/8", "::1"];
/// RFC 6761, 6.3: never anybody else's. There must be a DNS name in any case: a kind of name that is not
/// listed would be unrestricted.
const DATABASE_NAME: &str = "localhost";

/// What a root of this class may vouch for. `configured` counts for databases.
pub(super) fn constraints(class: NameClass, configured: &[String]) -> Result<Constraints, NameError> {
    match class {
        NameClass::Api => Ok(Constraints {
            permitted_dns: API_NAMES.map(str::to_owned).to_vec(),
            excluded_ip: vec![Range::ALL_V4, Range::ALL_V6],
            ..Constraints::default()
        }),
        NameClass::Databases => {
            let mut databases = Constraints::default();
            let ours = DATABASE_RANGES.into_iter().chain([DATABASE_NAME]);
            for text in ours.chain(configured.iter().map(String::as_str)) {
                match Configured::parse(text)? {
                    Configured::Dns(name) => databases.permitted_dns.push(name),
                    Configured::Range(range) => databases.permitted_ip.push(range),
                }
            }
            Ok(databases)
        }
    }
}

/// Seconds since 1970 in the type of certificates.
fn moment(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// 16 random bytes: as all leaves have one key, their numbers must tell them apart.
fn serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    fill(&mut bytes).map_err(|_unspecified| rcgen::Error::RingUnspecified)?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A certificate authority; `depth` is how many others may follow below. Only one that is in no workload's bundle may
/// be without constraints.
pub(super) fn authority(
    common_name: String,
    constraints: Option<&Constraints>,
    depth: u8,
    now: i64,
    not_after: i64,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = moment(now.saturating_sub(BACKDATED_SECONDS));
    params.not_after = moment(not_after);
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Verbatim");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = constraints.map(Constraints::extension);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A leaf for exactly one name: empty subject, so the alternative name is critical.
pub(super) fn leaf(name: &LeafName, now: i64, not_after: i64) -> Result<CertificateParams, rcgen::Error> {
    let names = match (name.as_dns(), name.as_ip()) {
        (Some(name), _) => vec![SanType::DnsName(Ia5String::try_from(name)?)],
        (None, Some(address)) => vec![SanType::IpAddress(address)],
        (None, None) => Vec::new(),
    };
    party(names, ExtendedKeyUsagePurpose::ServerAuth, now, not_after)
}

/// Who is at one end of a connection between Verbatim's own parts: empty subject, so the alternative names are
/// critical.
pub(super) fn party(
    names: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
    now: i64,
    not_after: i64,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = moment(now.saturating_sub(BACKDATED_SECONDS));
    params.not_after = moment(not_after);
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
