//! Reads the authority that `serve` is given.
//!
//! Owns PEM and what must be in it. Trusts nothing: without constraints it is refused.

use rcgen::{Issuer, KeyPair};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{AuthorityError, AuthorityMaterial, Issuing, constraints::Constraints};
use crate::root_id::RootId;

type Read = (Vec<CertificateDer<'static>>, Vec<Issuing>);

pub(super) fn read(material: &AuthorityMaterial) -> Result<Read, AuthorityError> {
    let roots: Vec<_> = CertificateDer::pem_slice_iter(material.roots.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap_or_default();
    if roots.is_empty() {
        return Err(AuthorityError::NoRoot);
    }
    if material.intermediates.is_empty() {
        return Err(AuthorityError::NoIntermediate);
    }
    let mut issuing = Vec::new();
    for (index, text) in material.intermediates.iter().enumerate() {
        let found = |found: String| AuthorityError::Intermediate { position: index.saturating_add(1), found };
        let (certificate, key) = certificate_and_key(text).map_err(found)?;
        issuing.push(intermediate(certificate, &key, &roots).map_err(|error| match error {
            Refused::Unreadable(reason) => found(reason),
            Refused::Error(error) => error,
        })?);
    }
    Ok((roots, issuing))
}

enum Refused {
    Unreadable(String),
    Error(AuthorityError),
}

fn certificate_and_key(text: &str) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), String> {
    let describe = |error: pem::Error| match error {
        pem::Error::NoItemsFound => "no private key".to_owned(),
        // Its own message could quote what is in the text.
        _ => "PEM that cannot be read".to_owned(),
    };
    let mut certificates: Vec<_> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(describe)?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(describe)?;
    match (certificates.pop(), certificates.len()) {
        (Some(certificate), 0) => Ok((certificate, key)),
        (_, others) => {
            Err(format!("{} certificates", if others == 0 { 0 } else { others.saturating_add(1) }))
        }
    }
}

fn intermediate(
    certificate: CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
    roots: &[CertificateDer<'static>],
) -> Result<Issuing, Refused> {
    let unreadable =
        |what: &str, error: String| Refused::Unreadable(format!("{what} that cannot be read: {error}"));
    let (_, parsed) = X509Certificate::from_der(&certificate)
        .map_err(|error| unreadable("a certificate", error.to_string()))?;
    let unusable =
        |reason: String| AuthorityError::Unusable { subject: parsed.subject().to_string(), reason };
    let key = KeyPair::try_from(key).map_err(|error| unreadable("a key", error.to_string()))?;
    if rcgen::PublicKeyData::subject_public_key_info(&key) != parsed.public_key().raw {
        return Err(Refused::Error(unusable("the key beside it is another one's".into())));
    }
    let parents: Vec<_> = roots
        .iter()
        .filter_map(|root| Some((RootId::of(root), X509Certificate::from_der(root).ok()?.1)))
        .filter(|(_, root)| root.subject().as_raw() == parsed.issuer().as_raw())
        .collect();
    let [(root_id, root)] = parents.as_slice() else {
        let reason = format!("expected one root named `{}`, found {}", parsed.issuer(), parents.len());
        return Err(Refused::Error(unusable(reason)));
    };
    let constraints =
        [constraints(&parsed).map_err(Refused::Error)?, constraints(root).map_err(Refused::Error)?];
    let not_after = parsed.validity().not_after.timestamp().min(root.validity().not_after.timestamp());
    let issuer = Issuer::from_ca_cert_der(&certificate, key)
        .map_err(|error| unreadable("a certificate", error.to_string()))?;
    Ok(Issuing { root: root_id.clone(), constraints, issuer, not_after, certificate: certificate.clone() })
}

fn constraints(certificate: &X509Certificate<'_>) -> Result<Constraints, AuthorityError> {
    let constraints = Constraints::read(certificate).unwrap_or_default();
    match constraints.unconstrained() {
        None => Ok(constraints),
        Some(what) => Err(AuthorityError::Unconstrained { subject: certificate.subject().to_string(), what }),
    }
}

/// A certificate's subject, for messages.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> String {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => certificate.subject().to_string(),
        Err(_) => "(unreadable)".to_owned(),
    }
}
