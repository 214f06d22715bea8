//! The certificate authority: who vouches for which name, and the leaves that it signs.
//!
//! Owns keys, constraints and the cache of leaves. Knows nothing of who trusts it, nor of connections.

mod constraints;
mod material;
mod plain;
mod request;
mod root;
mod shape;

pub use self::{
    plain::{Identity, PlainAuthority},
    request::{IssueError, Issued, Request},
    root::{IssuingRoot, NameClass},
};

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use hashlink::LruCache;
use rcgen::{Issuer, KeyPair};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    sign::{CertifiedKey, SigningKey},
};
use zeroize::Zeroize;

use self::constraints::Constraints;
use crate::{
    name::{LeafName, NameError},
    provider::provider,
    root_id::RootId,
};

/// Leaves kept at once: about 1.5 KiB each.
const CACHED_LEAVES: usize = 4096;

/// What `serve` is given: PEM texts.
#[derive(Clone, Default)]
pub struct AuthorityMaterial {
    /// Root certificates.
    pub roots: String,
    /// Each one intermediate certificate and its key, in any order.
    pub intermediates: Vec<String>,
}

impl fmt::Debug for AuthorityMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityMaterial").field("roots", &self.roots).finish_non_exhaustive()
    }
}

/// There is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A configured name is none.
    #[error("configured name: {0}; a range is written ADDRESS/LENGTH, and a name covers what is below it")]
    Name(#[from] NameError),
    /// A key or certificate could not be made.
    #[error("making a key or certificate failed: {0}")]
    Make(#[from] rcgen::Error),
    /// rustls did not take our own key.
    #[error("the leaves' key was not accepted: {0}")]
    Key(rustls::Error),
    /// There is no root certificate in the PEM text.
    #[error("no root certificate was found: expected `-----BEGIN CERTIFICATE-----` in the roots' file")]
    NoRoot,
    /// There is no intermediate.
    #[error("no intermediate certificate was given: at least one is needed to sign leaves")]
    NoIntermediate,
    /// A PEM text is not one certificate and its key.
    #[error("intermediate {position}: expected one certificate and its private key as PEM, found {found}")]
    Intermediate {
        /// Its place in the list, from 1.
        position: usize,
        /// What is there instead.
        found: String,
    },
    /// A certificate without constraints would let its holder vouch for every name.
    #[error(
        "certificate `{subject}` does not constrain {what}: expected name constraints for DNS names, IPv4 and IPv6"
    )]
    Unconstrained {
        /// Its subject.
        subject: String,
        /// What.
        what: &'static str,
    },
    /// No leaf of this intermediate would be accepted.
    #[error("intermediate `{subject}` is of no use: {reason}")]
    Unusable {
        /// Its subject.
        subject: String,
        /// Why.
        reason: String,
    },
}

/// There is no leaf for this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Nobody who trusts us would accept it.
    #[error("`{name}` is outside the names that Verbatim may vouch for: {hint}")]
    OutsideConstraints {
        /// The name.
        name: LeafName,
        /// What to do about it.
        hint: String,
    },
    /// The intermediate is about to expire, or has.
    #[error("the intermediate for `{name}` expires at {not_after} (seconds since 1970): give a new one")]
    Expired {
        /// The name.
        name: LeafName,
        /// The end of its validity, seconds since 1970.
        not_after: i64,
    },
    /// Signing failed.
    #[error("signing a certificate for `{name}` failed: {reason}")]
    Sign {
        /// The name.
        name: LeafName,
        /// Why.
        reason: String,
    },
}

/// An intermediate that signs leaves.
struct Issuing {
    /// The root that it leads to.
    root: RootId,
    /// Its own constraints and its root's: a name must be within both.
    constraints: [Constraints; 2],
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// Seconds since 1970.
    not_after: i64,
}

impl Issuing {
    fn permits(&self, name: &LeafName) -> bool {
        self.constraints.iter().all(|constraints| constraints.permits(name))
    }
}

struct Cached {
    key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    renew_at: i64,
}

/// What is signed with at one moment, and the leaves that were.
struct Current {
    roots: Vec<CertificateDer<'static>>,
    issuing: Vec<Issuing>,
    leaves: Mutex<LruCache<LeafName, Cached>>,
}

impl Current {
    fn new(roots: Vec<CertificateDer<'static>>, issuing: Vec<Issuing>) -> Self {
        Self { roots, issuing, leaves: Mutex::new(LruCache::new(CACHED_LEAVES)) }
    }
}

/// Vouches for the names of upstream services toward workloads that trust its roots. What it signs with can be
/// replaced while it is used: connections under way keep the leaf that they have.
pub struct Authority {
    current: ArcSwap<Current>,
    /// One key for all leaves of this process: making one would cost as much as a signature.
    leaf_key: KeyPair,
    signing_key: Arc<dyn SigningKey>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.current.load();
        let constraints: Vec<_> = current.issuing.iter().map(|issuing| &issuing.constraints).collect();
        f.debug_struct("Authority").field("constraints", &constraints).finish_non_exhaustive()
    }
}

impl Authority {
    /// For one run: both roots (API names; databases by address and configured name) and their intermediates,
    /// made in memory and valid for a year. The roots' keys are gone when this returns.
    ///
    /// A configured name is a DNS name, which covers what is below it, an IP address, or a range of them.
    ///
    /// # Errors
    ///
    /// When a configured name is none of these, or a key cannot be made.
    pub fn for_run(configured: &[String]) -> Result<Self, AuthorityError> {
        let now = now();
        // So that two runs' roots can be told apart in one bundle.
        let mut tag = [0; 4];
        aws_lc_rs::rand::fill(&mut tag).map_err(|_unspecified| rcgen::Error::RingUnspecified)?;
        let tag = u32::from_be_bytes(tag);
        let mut roots = Vec::new();
        let mut issuing = Vec::new();
        let not_after = now.saturating_add(shape::RUN_SECONDS);
        for class in NameClass::ALL {
            let constraints = shape::constraints(class, configured)?;
            let mut root_key = KeyPair::generate()?;
            let named = |role: &str| format!("Verbatim {role} for {class} of run {tag:08x}");
            let root_params = shape::authority(named("root"), Some(&constraints), 1, now, not_after)?;
            let root = CertificateDer::from(root_params.self_signed(&root_key)?);
            let key = KeyPair::generate()?;
            let params = shape::authority(named("intermediate"), Some(&constraints), 0, now, not_after)?;
            let certificate = params.signed_by(&key, &Issuer::from_params(&root_params, &root_key))?;
            root_key.zeroize();
            issuing.push(Issuing {
                root: RootId::of(&root),
                not_after: params.not_after.unix_timestamp(),
                issuer: Issuer::new(params, key),
                certificate: certificate.into(),
                constraints: [constraints.clone(), constraints],
            });
            roots.push(root);
        }
        Self::new(roots, issuing)
    }

    /// For `serve`: the intermediates of this node and the roots that workloads were given. What they may
    /// vouch for is read from the certificates, and each is tried before it is used.
    ///
    /// # Errors
    ///
    /// When something is missing, not constrained, expired, or does not verify up to one of the roots.
    pub fn from_pem(material: &AuthorityMaterial) -> Result<Self, AuthorityError> {
        let authority = Self::waiting()?;
        authority.replace(material)?;
        Ok(authority)
    }

    /// For `serve` before it was given anything: it vouches for no name.
    ///
    /// # Errors
    ///
    /// When a key cannot be made.
    pub fn waiting() -> Result<Self, AuthorityError> {
        Self::new(Vec::new(), Vec::new())
    }

    /// Signs with these from now on, after they were tried; leaves are made anew. What was there stays where it
    /// fails.
    ///
    /// # Errors
    ///
    /// As [`Authority::from_pem`].
    pub fn replace(&self, material: &AuthorityMaterial) -> Result<(), AuthorityError> {
        let (roots, issuing) = material::read(material)?;
        let next = Current::new(roots, issuing);
        self.verify(&next)?;
        self.current.store(Arc::new(next));
        Ok(())
    }

    fn new(roots: Vec<CertificateDer<'static>>, issuing: Vec<Issuing>) -> Result<Self, AuthorityError> {
        let leaf_key = KeyPair::generate()?;
        let der = PrivateKeyDer::Pkcs8(leaf_key.serialized_der().to_vec().into());
        let signing_key = any_ecdsa_type(&der).map_err(AuthorityError::Key)?;
        let current = ArcSwap::from_pointee(Current::new(roots, issuing));
        Ok(Self { current, leaf_key, signing_key })
    }

    /// Has a leaf of each intermediate verified as a client would do it.
    fn verify(&self, next: &Current) -> Result<(), AuthorityError> {
        let mut store = RootCertStore::empty();
        for root in &next.roots {
            store.add(root.clone()).map_err(AuthorityError::Key)?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map_err(|error| AuthorityError::Key(rustls::Error::General(error.to_string())))?;
        for issuing in &next.issuing {
            let unusable = |reason: String| AuthorityError::Unusable {
                subject: material::subject(&issuing.certificate),
                reason,
            };
            let [own, root] = &issuing.constraints;
            let name = own.sample().into_iter().chain(root.sample()).find(|name| issuing.permits(name));
            let name =
                name.ok_or_else(|| unusable("no name is within its and its root's constraints".into()))?;
            let leaf = self.sign(issuing, &name, now()).map_err(|error| unusable(error.to_string()))?;
            let (end_entity, intermediates) =
                leaf.cert.split_first().ok_or_else(|| unusable("its chain is empty".into()))?;
            verifier
                .verify_server_cert(end_entity, intermediates, &name.server_name(), &[], UnixTime::now())
                .map_err(|error| unusable(format!("a leaf for `{name}` does not verify: {error}")))?;
        }
        Ok(())
    }

    /// The roots, for bundles and trust stores.
    #[must_use]
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.current.load().roots.clone()
    }

    /// The roots as PEM.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        crate::trust::pem_text(&self.current.load().roots)
    }

    /// Whether it may vouch for the name.
    #[must_use]
    pub fn permits(&self, name: &LeafName) -> bool {
        self.current.load().issuing.iter().any(|issuing| issuing.permits(name))
    }

    /// Whether there is anything to vouch with now: it was given something, and not all of it has expired.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let now = now();
        self.current.load().issuing.iter().any(|issuing| now < issuing.not_after)
    }

    /// The root that a leaf for the name would lead to; `None` where it may not vouch for it.
    #[must_use]
    pub fn root_for(&self, name: &LeafName) -> Option<RootId> {
        self.current
            .load()
            .issuing
            .iter()
            .find(|issuing| issuing.permits(name))
            .map(|found| found.root.clone())
    }

    /// The roots that leaves lead to now, by what they may be for.
    #[must_use]
    pub fn leads_to(&self) -> Vec<RootId> {
        self.current.load().issuing.iter().map(|issuing| issuing.root.clone()).collect()
    }

    /// The leaf for the name, from the cache or signed now, with the intermediate to send along.
    ///
    /// # Errors
    ///
    /// When the name is outside the constraints, or the authority's time is over.
    pub fn leaf(&self, name: &LeafName) -> Result<Arc<CertifiedKey>, LeafError> {
        self.leaf_at(name, now())
    }

    fn leaf_at(&self, name: &LeafName, now: i64) -> Result<Arc<CertifiedKey>, LeafError> {
        let current = self.current.load();
        let mut leaves = current.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = leaves.get(name)
            && now < cached.renew_at
        {
            return Ok(Arc::clone(&cached.key));
        }
        drop(leaves);
        let issuing = current.issuing.iter().find(|issuing| issuing.permits(name)).ok_or_else(|| {
            let hint = format!("name it with `--name {name}`, if the workload may have it captured");
            LeafError::OutsideConstraints { name: name.clone(), hint }
        })?;
        // Not under the lock: two threads may sign the same name once, and none waits for another.
        let key = Arc::new(self.sign(issuing, name, now)?);
        let lifetime = issuing.not_after.min(now.saturating_add(shape::LEAF_SECONDS)).saturating_sub(now);
        let renew_at = now.saturating_add(lifetime / 2);
        leaves = current.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        leaves.insert(name.clone(), Cached { key: Arc::clone(&key), renew_at });
        Ok(key)
    }

    fn sign(&self, issuing: &Issuing, name: &LeafName, now: i64) -> Result<CertifiedKey, LeafError> {
        let not_after = issuing.not_after.min(now.saturating_add(shape::LEAF_SECONDS));
        if not_after <= now {
            return Err(LeafError::Expired { name: name.clone(), not_after: issuing.not_after });
        }
        let signed = shape::leaf(name, now, not_after)
            .and_then(|params| params.signed_by(&self.leaf_key, &issuing.issuer))
            .map_err(|error| LeafError::Sign { name: name.clone(), reason: error.to_string() })?;
        let chain = vec![signed.into(), issuing.certificate.clone()];
        Ok(CertifiedKey::new(chain, Arc::clone(&self.signing_key)))
    }
}

/// The time by which certificates are judged: seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
