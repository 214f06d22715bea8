//! What clients are answered.

use rustls::{
    HandshakeKind,
    client::{ClientSessionMemoryCache, Resumption, Tls12Resumption},
    version::{TLS12, TLS13},
};

use super::*;
use crate::{
    Authority, LeafName,
    testing::{BOTH, Pair, client, shake},
};

struct Proxy {
    authority: Authority,
    downstream: Downstream,
}

impl Proxy {
    fn new() -> Self {
        Self { authority: Authority::for_run(&[]).unwrap(), downstream: Downstream::new().unwrap() }
    }

    fn serve(&self, client: &Arc<rustls::ClientConfig>, name: &str, alpn: Option<&[u8]>) -> Pair {
        let name = LeafName::parse(name).unwrap();
        let server = self.downstream.config(self.authority.leaf(&name).unwrap(), alpn.map(<[u8]>::to_vec));
        shake(Arc::clone(client), name.server_name(), server)
    }
}

#[test]
fn the_client_gets_the_protocol_that_the_upstream_chose() {
    let proxy = Proxy::new();
    let mut config = client(&proxy.authority.roots(), BOTH);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = Arc::new(config);
    for chosen in [Some(&b"h2"[..]), Some(b"http/1.1"), None] {
        let pair = proxy.serve(&config, "bigquery.googleapis.com", chosen);
        assert!(pair.succeeded(), "{:?}", pair.client_error);
        assert_eq!(pair.client.alpn_protocol(), chosen);
    }
}

#[test]
fn sessions_are_resumed_in_both_versions() {
    for versions in [&[&TLS13][..], &[&TLS12]] {
        for tls12 in [Tls12Resumption::SessionIdOrTickets, Tls12Resumption::SessionIdOnly] {
            let proxy = Proxy::new();
            let mut config = client(&proxy.authority.roots(), versions);
            config.resumption =
                Resumption::store(Arc::new(ClientSessionMemoryCache::new(32))).tls12_resumption(tls12);
            let config = Arc::new(config);
            let kind = |name| {
                let pair = proxy.serve(&config, name, None);
                assert!(pair.succeeded(), "{:?} {:?}", pair.client_error, pair.server_error);
                pair.server.handshake_kind().unwrap()
            };
            assert_eq!(kind("a.googleapis.com"), HandshakeKind::Full);
            assert_eq!(kind("a.googleapis.com"), HandshakeKind::Resumed);
            assert_eq!(kind("b.googleapis.com"), HandshakeKind::Full);
        }
    }
}

#[test]
fn early_data_is_never_taken() {
    let proxy = Proxy::new();
    let mut config = client(&proxy.authority.roots(), &[&TLS13]);
    config.enable_early_data = true;
    let config = Arc::new(config);
    drop(proxy.serve(&config, "a.googleapis.com", None));
    let name = LeafName::parse("a.googleapis.com").unwrap().server_name();
    let mut again = rustls::ClientConnection::new(config, name).unwrap();
    assert!(again.early_data().is_none(), "the ticket permits none");
}

#[test]
fn without_a_leaf_nobody_is_answered() {
    let proxy = Proxy::new();
    let config = Arc::new(client(&proxy.authority.roots(), BOTH));
    let name = LeafName::parse("a.googleapis.com").unwrap();
    let pair = shake(config, name.server_name(), Arc::new(proxy.downstream.base.clone()));
    assert!(!pair.succeeded());
}
