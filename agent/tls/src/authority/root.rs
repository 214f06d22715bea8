//! The roots of a cluster: kept by the issuer, they sign the nodes' intermediates.

use std::{fmt, time::Duration};

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use zeroize::Zeroizing;

use super::{
    AuthorityError,
    constraints::Constraints,
    now,
    request::{self, IssueError, Issued},
    shape,
};
use crate::root_id::RootId;

/// What a root may be for: each has its own, so that losing one does not lose the other.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NameClass {
    /// Google's APIs, by name.
    Api,
    /// Databases, by address and by configured names.
    Databases,
}

impl NameClass {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Api, Self::Databases];
}

impl fmt::Display for NameClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Api => "API names",
            Self::Databases => "databases",
        })
    }
}

/// A constrained root with its key.
pub struct IssuingRoot {
    certificate: CertificateDer<'static>,
    constraints: Constraints,
    issuer: Issuer<'static, KeyPair>,
    /// Seconds since 1970.
    not_after: i64,
}

impl fmt::Debug for IssuingRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuingRoot").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// So many seconds from now.
pub(super) fn after(lifetime: Duration) -> i64 {
    now().saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
}

impl IssuingRoot {
    /// A new one. `configured` are names and address ranges beside the usual ones; they count for databases.
    ///
    /// # Errors
    ///
    /// When a configured name is none, or a key cannot be made.
    pub fn make(class: NameClass, configured: &[String], lifetime: Duration) -> Result<Self, AuthorityError> {
        // So that a root and its successor can be told apart by name.
        let mut tag = [0; 4];
        aws_lc_rs::rand::fill(&mut tag).map_err(|_unspecified| rcgen::Error::RingUnspecified)?;
        let constraints = shape::constraints(class, configured)?;
        let name = format!("Verbatim root for {class} {:08x}", u32::from_be_bytes(tag));
        let not_after = after(lifetime);
        let params = shape::authority(name, Some(&constraints), 1, now(), not_after)?;
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.into();
        Ok(Self { certificate, constraints, issuer: Issuer::new(params, key), not_after })
    }

    /// One that was kept. PEM texts.
    ///
    /// # Errors
    ///
    /// When they cannot be read, do not belong together, or the certificate does not constrain every kind of name.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let unusable = |reason: &str| AuthorityError::Unusable {
            subject: "(a kept root)".to_owned(),
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
        let constraints = Constraints::read(&parsed).unwrap_or_default();
        if let Some(what) = constraints.unconstrained() {
            return Err(AuthorityError::Unconstrained { subject: parsed.subject().to_string(), what });
        }
        let not_after = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let certificate = certificate.into_owned();
        Ok(Self { certificate, constraints, issuer, not_after })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> RootId {
        RootId::of(&self.certificate)
    }

    /// For bundles.
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

    /// An intermediate for the key of a request: constrained as the root is, and good for leaves alone.
    ///
    /// # Errors
    ///
    /// When the request is none, or cannot be granted.
    pub fn intermediate(&self, request: &str, name: &str, lifetime: Duration) -> Result<Issued, IssueError> {
        let key = request::key(request)?;
        let not_after = after(lifetime).min(self.not_after);
        if not_after <= now() {
            return Err(IssueError::Expired);
        }
        let sign = |error: rcgen::Error| IssueError::Sign(error.to_string());
        let params: CertificateParams = shape::authority(
            format!("Verbatim intermediate of {name}"),
            Some(&self.constraints),
            0,
            now(),
            not_after,
        )
        .map_err(sign)?;
        let signed = CertificateDer::from(params.signed_by(&key, &self.issuer).map_err(sign)?);
        Ok(Issued { certificate: crate::trust::pem_text(&[signed]), not_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Authority, AuthorityMaterial, Downstream, LeafName, Request,
        testing::{BOTH, client, shake},
    };

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// A node's authority under these roots.
    fn material(roots: &[&IssuingRoot], signing: &[&IssuingRoot], lifetime: Duration) -> AuthorityMaterial {
        let intermediates = signing.iter().map(|root| {
            let request = Request::make().unwrap();
            let issued = root.intermediate(&request.pem().unwrap(), "node-1", lifetime).unwrap();
            format!("{}{}", issued.certificate, *request.key_pem())
        });
        AuthorityMaterial {
            intermediates: intermediates.collect(),
            roots: roots.iter().map(|root| root.certificate_pem()).collect(),
        }
    }

    fn root(class: NameClass) -> IssuingRoot {
        IssuingRoot::make(class, &["db.example".to_owned()], 30 * DAY).unwrap()
    }

    #[test]
    fn a_node_vouches_with_what_it_was_issued_and_for_nothing_else() {
        let (api, databases) = (root(NameClass::Api), root(NameClass::Databases));
        let authority =
            Authority::from_pem(&material(&[&api, &databases], &[&api, &databases], DAY)).unwrap();
        let downstream = Downstream::new().unwrap();
        for (text, root) in
            [("bigquery.googleapis.com", &api), ("10.1.2.3", &databases), ("db.example", &databases)]
        {
            let name = LeafName::parse(text).unwrap();
            assert_eq!(authority.root_for(&name), Some(root.id()));
            let server = downstream.config(authority.leaf(&name).unwrap(), None);
            let pair =
                shake(std::sync::Arc::new(client(&authority.roots(), BOTH)), name.server_name(), server);
            assert!(pair.succeeded(), "{text}: {:?}", pair.client_error);
        }
        assert!(authority.leaf(&LeafName::parse("example.com").unwrap()).is_err());
    }

    #[test]
    fn a_root_is_the_same_after_it_was_kept_and_its_key_is_its_own() {
        let (root, other) = (root(NameClass::Databases), root(NameClass::Databases));
        let again = IssuingRoot::from_pem(&root.certificate_pem(), &root.key_pem()).unwrap();
        assert_eq!((again.id(), again.not_after()), (root.id(), root.not_after()));
        assert_ne!(root.id(), other.id());
        Authority::from_pem(&material(&[&root], &[&again], DAY)).unwrap();
        assert!(IssuingRoot::from_pem(&root.certificate_pem(), &other.key_pem()).is_err());
        let debug = format!("{root:?}");
        assert!(!debug.contains("PRIVATE") && debug.contains(root.id().as_str()), "{debug}");
    }

    #[test]
    fn an_intermediate_never_outlives_its_root() {
        let root = IssuingRoot::make(NameClass::Api, &[], DAY).unwrap();
        let request = Request::make().unwrap().pem().unwrap();
        let issued = root.intermediate(&request, "node-1", 10 * DAY).unwrap();
        assert_eq!(issued.not_after, root.not_after());
        let over = IssuingRoot::make(NameClass::Api, &[], Duration::ZERO).unwrap();
        assert_eq!(over.intermediate(&request, "node-1", DAY), Err(IssueError::Expired));
    }

    #[test]
    fn what_is_no_request_is_not_granted() {
        let root = root(NameClass::Api);
        let good = Request::make().unwrap().pem().unwrap();
        // Another's key under this one's signature.
        let mut der = pem::parse(&good).unwrap().into_contents();
        let last = der.len() - 1;
        der[last] ^= 1;
        let forged = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let p384 = CertificateParams::default().serialize_request(&p384).unwrap().pem().unwrap();
        for bad in ["", "nonsense", &root.certificate_pem(), &forged, &p384, &good.repeat(20)] {
            let refused = root.intermediate(bad, "node-1", DAY);
            assert!(matches!(refused, Err(IssueError::Request(_))), "{bad}: {refused:?}");
        }
    }

    #[test]
    fn an_authority_goes_on_with_new_intermediates_and_keeps_the_old_where_the_new_are_none() {
        let (old, new) = (root(NameClass::Api), root(NameClass::Api));
        let name = LeafName::parse("bigquery.googleapis.com").unwrap();
        let authority = Authority::waiting().unwrap();
        assert!(!authority.is_ready() && !authority.permits(&name) && authority.leaf(&name).is_err());
        authority.replace(&material(&[&old], &[&old], DAY)).unwrap();
        assert!(authority.is_ready());
        let under_way = authority.leaf(&name).unwrap();
        // A successor's root is published beside the old one, and then used.
        authority.replace(&material(&[&old, &new], &[&new], DAY)).unwrap();
        assert_eq!(authority.root_for(&name), Some(new.id()));
        assert_eq!(authority.roots().len(), 2);
        let next = authority.leaf(&name).unwrap();
        assert_ne!(next.cert, under_way.cert);
        // Under no root that is known.
        assert!(authority.replace(&material(&[&old], &[&new], DAY)).is_err());
        assert!(authority.replace(&AuthorityMaterial::default()).is_err());
        assert_eq!(authority.leaf(&name).unwrap().cert, next.cert);
    }
}
