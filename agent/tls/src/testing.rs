//! Handshakes in memory, for tests.

use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};

use crate::{provider::provider, upstream::noticing_sync};

/// Both ends after as much as came about.
pub(crate) struct Pair {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) client_error: Option<Error>,
    pub(crate) server_error: Option<Error>,
    /// The client's resolver was asked.
    pub(crate) requested: bool,
}

impl Pair {
    pub(crate) fn succeeded(&self) -> bool {
        self.client_error.is_none()
            && self.server_error.is_none()
            && !self.client.is_handshaking()
            && !self.server.is_handshaking()
    }
}

/// Moves bytes until nothing moves any more.
pub(crate) fn shake(client: Arc<ClientConfig>, name: ServerName<'static>, server: Arc<ServerConfig>) -> Pair {
    let mut pair = Pair {
        client: ClientConnection::new(client, name).unwrap(),
        server: ServerConnection::new(server).unwrap(),
        client_error: None,
        server_error: None,
        requested: false,
    };
    loop {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while pair.client.wants_write() {
            pair.client.write_tls(&mut to_server).unwrap();
        }
        while pair.server.wants_write() {
            pair.server.write_tls(&mut to_client).unwrap();
        }
        if to_server.is_empty() && to_client.is_empty() {
            return pair;
        }
        let mut bytes = to_server.as_slice();
        while !bytes.is_empty() && pair.server_error.is_none() {
            pair.server.read_tls(&mut bytes).unwrap();
            pair.server_error = pair.server.process_new_packets().err();
        }
        let mut bytes = to_client.as_slice();
        while !bytes.is_empty() && pair.client_error.is_none() {
            pair.client.read_tls(&mut bytes).unwrap();
            let (result, requested) = noticing_sync(|| pair.client.process_new_packets().err());
            pair.client_error = result;
            pair.requested |= requested.is_some();
        }
    }
}

/// A client that trusts these roots alone.
pub(crate) fn client(
    roots: &[CertificateDer<'static>],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth()
}

pub(crate) const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];
