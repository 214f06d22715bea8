//! The leg toward the client.
//!
//! Owns tickets and sessions that we issue. Knows no name: who chose the leaf answers for it.

mod asking;

use std::sync::Arc;

use rustls::{
    ServerConfig,
    server::{ServerSessionMemoryCache, StoresServerSessions},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use self::asking::Any;
use crate::{provider::provider, upstream::Requested};

/// Sessions kept for TLS 1.2 clients that take no tickets: about 300 bytes each.
const SESSIONS: usize = 4096;

/// Makes configurations for accepting clients: TLS 1.2 and 1.3, no early data, sessions resumed by tickets
/// under keys of this process that change every six hours.
///
/// A ticket does not carry over to another server name: rustls compares it with the one of the new hello.
#[derive(Debug)]
pub struct Downstream {
    base: ServerConfig,
}

impl Downstream {
    /// With fresh ticket keys.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn new() -> Result<Self, rustls::Error> {
        let sessions: Arc<dyn StoresServerSessions> = ServerSessionMemoryCache::new(SESSIONS);
        let mut base = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoLeaf));
        base.session_storage = sessions;
        base.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        // One is enough: a client that opens several connections at once shakes hands for each.
        base.send_tls13_tickets = 1;
        Ok(Self { base })
    }

    /// For one client: answers with this leaf and, where it offers it, this protocol and no other. `None`
    /// answers no ALPN at all, as an upstream does that chose nothing.
    ///
    /// Cheap: nothing is read, derived or looked up.
    #[must_use]
    pub fn config(&self, leaf: Arc<CertifiedKey>, alpn: Option<Vec<u8>>) -> Arc<ServerConfig> {
        let mut config = self.base.clone();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(leaf));
        config.alpn_protocols = alpn.into_iter().collect();
        Arc::new(config)
    }

    /// The same, and asks the client for a certificate as the server has asked us. Any is taken, and none; nothing that
    /// is shown is verified.
    ///
    /// # Errors
    ///
    /// When rustls refuses its own provider.
    pub fn config_asking(
        &self,
        leaf: Arc<CertifiedKey>,
        alpn: Option<Vec<u8>>,
        requested: &Requested,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_client_cert_verifier(Any::new(requested))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(leaf)));
        config.session_storage = Arc::clone(&self.base.session_storage);
        config.ticketer = Arc::clone(&self.base.ticketer);
        config.send_tls13_tickets = self.base.send_tls13_tickets;
        config.alpn_protocols = alpn.into_iter().collect();
        Ok(Arc::new(config))
    }
}

/// Stands in the configuration that others are cloned from.
#[derive(Debug)]
struct NoLeaf;

impl rustls::server::ResolvesServerCert for NoLeaf {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[cfg(test)]
mod tests;
