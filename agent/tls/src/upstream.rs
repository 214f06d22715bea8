//! The leg toward the server: always verified, and never with another workload's sessions.
//!
//! Owns verification, session stores and the empty client certificate. Knows no connection and no policy.

mod failure;
mod requested;
mod sessions;

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::ServerName,
    version::{TLS12, TLS13},
};

pub use self::{
    failure::UpstreamFailure,
    requested::{Requested, noticing, noticing_sync},
};
use self::{
    requested::NoCertificate,
    sessions::{Scoped, Sessions},
};
use crate::{
    provider::provider,
    roots::{Roots, RootsError},
};

/// Who is trusted to vouch for servers.
#[derive(Clone, Debug, Default)]
pub struct UpstreamRoots {
    /// The system's bundle.
    pub system: bool,
    /// PEM texts with further roots.
    pub extra_pem: Vec<Vec<u8>>,
}

/// No server could be verified.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The system's roots cannot be read.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// A configured PEM text holds no certificate.
    #[error("configured upstream roots, text {position}: expected PEM certificates, found none")]
    NoCertificate {
        /// Its place in the list, from 1.
        position: usize,
    },
    /// There is nobody to trust.
    #[error("no upstream root is trusted: let the system's be used, or configure some")]
    NoRoots,
    /// rustls refused its own provider.
    #[error("the upstream configuration was refused: {0}")]
    Refused(String),
}

/// What the client offered, to be offered upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offer {
    /// ALPN protocols in the client's order; empty: none is offered.
    pub alpn: Vec<Vec<u8>>,
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3. Where neither is set both are offered.
    pub tls13: bool,
}

/// Makes configurations for connecting to servers.
///
/// Certificates are verified by webpki, without exception. Sessions are resumed within one workload only.
/// A server that asks for a client's certificate gets an empty one. There is no early data.
#[derive(Debug)]
pub struct Upstream {
    both: ClientConfig,
    only12: ClientConfig,
    only13: ClientConfig,
    sessions: Arc<Sessions>,
}

impl Upstream {
    /// Reads the roots, once.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or there are none.
    pub fn new(roots: &UpstreamRoots) -> Result<Self, UpstreamError> {
        let mut trusted = Roots::default();
        if roots.system {
            trusted.add_system()?;
        }
        for (index, text) in roots.extra_pem.iter().enumerate() {
            if trusted.add_pem(text) == 0 {
                return Err(UpstreamError::NoCertificate { position: index.saturating_add(1) });
            }
        }
        let mut store = RootCertStore::empty();
        // Systems carry roots that webpki does not read; the others count.
        let (added, _ignored) = store.add_parsable_certificates(trusted.certificates().iter().cloned());
        if added == 0 {
            return Err(UpstreamError::NoRoots);
        }
        let refused = |error: &dyn std::fmt::Display| UpstreamError::Refused(error.to_string());
        // One verifier and one resolver for all: a session is resumed only under those that it was made under.
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map_err(|error| refused(&error))?;
        let resolver = Arc::new(NoCertificate);
        let base = |versions: &[&'static SupportedProtocolVersion]| {
            let mut config = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)
                .map_err(|error| refused(&error))?
                .with_webpki_verifier(Arc::clone(&verifier))
                .with_client_cert_resolver(resolver.clone());
            config.resumption = Resumption::disabled();
            Ok::<_, UpstreamError>(config)
        };
        Ok(Self {
            both: base(&[&TLS13, &TLS12])?,
            only12: base(&[&TLS12])?,
            only13: base(&[&TLS13])?,
            sessions: Arc::default(),
        })
    }

    /// For one connection of a workload, by whatever key names it for as long as it lives, e.g. its pod's UID.
    ///
    /// Cheap: roots and sessions are shared.
    #[must_use]
    pub fn config(&self, workload: &str, offer: &Offer) -> Arc<ClientConfig> {
        let base = match (offer.tls12, offer.tls13) {
            (true, false) => &self.only12,
            (false, true) => &self.only13,
            (true, true) | (false, false) => &self.both,
        };
        let mut config = base.clone();
        config.alpn_protocols.clone_from(&offer.alpn);
        config.resumption = Resumption::store(Arc::new(Scoped::new(workload, Arc::clone(&self.sessions))));
        Arc::new(config)
    }

    /// The workload resumes no session with this server any more: it asks for a client's certificate, which a resumed
    /// session would hide from the next client of the workload, who may have one.
    pub fn never_resume(&self, workload: &str, server: &ServerName<'_>) {
        Scoped::new(workload, Arc::clone(&self.sessions)).never(server);
    }

    /// The workload is gone: so are its sessions.
    pub fn forget(&self, workload: &str) {
        self.sessions.forget(workload);
    }
}

#[cfg(test)]
mod tests;
