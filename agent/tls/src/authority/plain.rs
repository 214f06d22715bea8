//! Authorities of Verbatim's own connections: between nodes, issuer and collector. They are in no workload's bundle,
//! and so need no constraints.

use std::{fmt, net::IpAddr, time::Duration};

use rcgen::{ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType, string::Ia5String};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use zeroize::Zeroizing;

use super::{
    AuthorityError, now,
    request::{self, IssueError, Issued},
    root::after,
    shape,
};

/// A certificate with its key, PEM.
#[derive(Clone)]
pub struct Identity {
    /// It alone.
    pub certificate: String,
    /// Its private key.
    pub key: Zeroizing<String>,
    /// The end of its validity, seconds since 1970.
    pub not_after: i64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// An authority with its key.
pub struct PlainAuthority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// Seconds since 1970.
    not_after: i64,
}

impl fmt::Debug for PlainAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainAuthority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

fn sign(error: rcgen::Error) -> IssueError {
    IssueError::Sign(error.to_string())
}

impl PlainAuthority {
    /// A new one; `purpose` goes into its name.
    ///
    /// # Errors
    ///
    /// When a key cannot be made.
    pub fn make(purpose: &str, lifetime: Duration) -> Result<Self, AuthorityError> {
        let mut tag = [0; 4];
        aws_lc_rs::rand::fill(&mut tag).map_err(|_unspecified| rcgen::Error::RingUnspecified)?;
        let name = format!("Verbatim {purpose} {:08x}", u32::from_be_bytes(tag));
        let not_after = after(lifetime);
        let params = shape::authority(name, None, 0, now(), not_after)?;
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.into();
        Ok(Self { certificate, issuer: Issuer::new(params, key), not_after })
    }

    /// One that was kept. PEM texts.
    ///
    /// # Errors
    ///
    /// When they cannot be read or do not belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let unusable = |reason: &str| AuthorityError::Unusable {
            subject: "(a kept authority)".to_owned(),
            reason: reason.to_owned(),
        };
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_unreadable| unusable("its certificate cannot be read"))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_unreadable| unusable("its key cannot be read"))?;
        let key = KeyPair::try_from(&key)?;
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|_unreadable| unusable("its certificate cannot be read"))?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != parsed.public_key().raw {
            return Err(unusable("the key beside it is another one's"));
        }
        let not_after = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate: certificate.into_owned(), issuer, not_after })
    }

    /// For whoever is to believe it.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        crate::trust::pem_text(std::slice::from_ref(&self.certificate))
    }

    /// Its private key, PEM.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// The end of its validity, seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    fn end(&self, lifetime: Duration) -> Result<i64, IssueError> {
        let not_after = after(lifetime).min(self.not_after);
        if not_after <= now() { Err(IssueError::Expired) } else { Ok(not_after) }
    }

    /// A client's certificate for the key of a request; who it is for is a URI.
    ///
    /// # Errors
    ///
    /// When the request is none, or cannot be granted.
    pub fn client(&self, request: &str, uri: &str, lifetime: Duration) -> Result<Issued, IssueError> {
        let key = request::key(request)?;
        let not_after = self.end(lifetime)?;
        let names = vec![SanType::URI(Ia5String::try_from(uri).map_err(sign)?)];
        let params =
            shape::party(names, ExtendedKeyUsagePurpose::ClientAuth, now(), not_after).map_err(sign)?;
        let signed = CertificateDer::from(params.signed_by(&key, &self.issuer).map_err(sign)?);
        Ok(Issued { certificate: crate::trust::pem_text(&[signed]), not_after })
    }

    /// A server's certificate with a new key, for DNS names and addresses.
    ///
    /// # Errors
    ///
    /// When a name is none, or it cannot be granted.
    pub fn server(&self, names: &[String], lifetime: Duration) -> Result<Identity, IssueError> {
        let not_after = self.end(lifetime)?;
        let name = |name: &String| match name.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => Ia5String::try_from(name.as_str()).map(SanType::DnsName).map_err(sign),
        };
        let names = names.iter().map(name).collect::<Result<_, _>>()?;
        let params =
            shape::party(names, ExtendedKeyUsagePurpose::ServerAuth, now(), not_after).map_err(sign)?;
        let key = KeyPair::generate().map_err(sign)?;
        let signed = CertificateDer::from(params.signed_by(&key, &self.issuer).map_err(sign)?);
        let certificate = crate::trust::pem_text(&[signed]);
        Ok(Identity { certificate, key: Zeroizing::new(key.serialize_pem()), not_after })
    }
}
