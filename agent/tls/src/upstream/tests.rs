//! Whom we believe upstream, whose sessions are resumed, and what is noticed.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    AlertDescription, Error, HandshakeKind, ProtocolVersion, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};

use super::*;
use crate::{
    name::LeafName,
    testing::{BOTH, Pair, shake},
};

/// An authority of the upstream's own.
struct World {
    root: CertificateDer<'static>,
    params: CertificateParams,
    key: KeyPair,
}

impl World {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        // Two worlds' roots have different names.
        let number = params.key_identifier(&key);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("upstream root {number:?}"));
        let root = params.self_signed(&key).unwrap().into();
        Self { root, params, key }
    }

    fn pem(&self) -> Vec<u8> {
        crate::trust::pem_text(std::slice::from_ref(&self.root)).into_bytes()
    }

    fn upstream(&self) -> Upstream {
        Upstream::new(&UpstreamRoots { system: false, extra_pem: vec![self.pem()] }).unwrap()
    }

    fn server(&self, names: &[&str]) -> ServerConfig {
        self.server_with(names, BOTH, false, |_| {})
    }

    fn server_with(
        &self,
        names: &[&str],
        versions: &[&'static SupportedProtocolVersion],
        client_certificate: bool,
        change: impl FnOnce(&mut CertificateParams),
    ) -> ServerConfig {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let builder = match client_certificate {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(self.root.clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(vec![leaf.into()], PrivateKeyDer::from(key)).unwrap();
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        config
    }
}

fn name(text: &str) -> ServerName<'static> {
    LeafName::parse(text).unwrap().server_name()
}

fn kind(upstream: &Upstream, workload: &str, server: &Arc<ServerConfig>) -> HandshakeKind {
    let pair = shake(upstream.config(workload, &Offer::default()), name("db.example"), Arc::clone(server));
    assert!(pair.succeeded(), "{:?} {:?}", pair.client_error, pair.server_error);
    pair.client.handshake_kind().unwrap()
}

fn failure(pair: &Pair) -> UpstreamFailure {
    let error = std::io::Error::new(std::io::ErrorKind::InvalidData, pair.client_error.clone().unwrap());
    UpstreamFailure::read(&error, pair.requested)
}

#[test]
fn sessions_are_resumed_within_a_workload_and_never_across() {
    let world = World::new();
    let only12: &[&SupportedProtocolVersion] = &[&TLS12];
    for versions in [BOTH, only12] {
        let upstream = world.upstream();
        let server = Arc::new(world.server_with(&["db.example"], versions, false, |_| {}));
        assert_eq!(kind(&upstream, "a", &server), HandshakeKind::Full);
        assert_eq!(kind(&upstream, "a", &server), HandshakeKind::Resumed);
        assert_eq!(kind(&upstream, "b", &server), HandshakeKind::Full, "another workload's session");
        assert_eq!(kind(&upstream, "b", &server), HandshakeKind::Resumed);
        upstream.forget("a");
        assert_eq!(kind(&upstream, "a", &server), HandshakeKind::Full, "a session that was forgotten");
        assert_eq!(kind(&upstream, "b", &server), HandshakeKind::Resumed, "what another workload forgot");
    }
}

#[test]
fn with_a_server_that_asks_for_a_certificate_no_session_is_resumed() {
    let world = World::new();
    let only12: &[&SupportedProtocolVersion] = &[&TLS12];
    for versions in [BOTH, only12] {
        let upstream = world.upstream();
        let server = Arc::new(world.server_with(&["db.example"], versions, false, |_| {}));
        assert_eq!(kind(&upstream, "a", &server), HandshakeKind::Full);
        upstream.never_resume("a", &name("db.example"));
        for _ in 0..2 {
            assert_eq!(kind(&upstream, "a", &server), HandshakeKind::Full, "a session that was to be none");
        }
        assert_eq!(kind(&upstream, "b", &server), HandshakeKind::Full);
        assert_eq!(kind(&upstream, "b", &server), HandshakeKind::Resumed, "what another workload forswore");
    }
}

#[test]
fn sessions_are_resumed_whatever_protocols_are_offered() {
    let world = World::new();
    let upstream = world.upstream();
    let server = Arc::new(world.server(&["db.example"]));
    assert_eq!(kind(&upstream, "a", &server), HandshakeKind::Full);
    let offer = Offer { alpn: vec![b"h2".to_vec()], tls13: true, ..Offer::default() };
    let pair = shake(upstream.config("a", &offer), name("db.example"), server);
    assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn no_more_sessions_are_kept_than_the_bound() {
    let sessions = Arc::new(Sessions::default());
    for n in 0..sessions::SERVERS + 500 {
        let scoped = Scoped::new(&format!("w{n}"), Arc::clone(&sessions));
        use rustls::client::ClientSessionStore as _;
        scoped.set_kx_hint(name("db.example"), rustls::NamedGroup::X25519);
    }
    assert!(sessions.len() <= sessions::SERVERS + 1, "{}", sessions.len());
}

#[test]
fn a_server_is_believed_only_with_a_certificate_that_verifies_for_its_name() {
    let world = World::new();
    let upstream = world.upstream();
    let try_with = |server: ServerConfig| {
        shake(upstream.config("a", &Offer::default()), name("db.example"), Arc::new(server))
    };
    assert!(try_with(world.server(&["db.example"])).succeeded());
    for (server, reason) in [
        (World::new().server(&["db.example"]), "its issuer is not among the trusted roots"),
        (world.server(&["other.example"]), "it is for another name"),
        (
            world.server_with(&["db.example"], BOTH, false, |params| {
                params.not_after = rcgen::date_time_ymd(2020, 1, 1);
            }),
            "it has expired",
        ),
        (
            world.server_with(&["db.example"], BOTH, false, |params| {
                params.not_before = rcgen::date_time_ymd(2090, 1, 1);
            }),
            "it is not valid yet",
        ),
        (
            world.server_with(&["db.example"], BOTH, false, |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }),
            "it is an authority's own certificate, not one that an authority issued to a server",
        ),
    ] {
        let pair = try_with(server);
        assert_eq!(failure(&pair), UpstreamFailure::ServerNotTrusted(reason.into()));
        assert!(pair.server.is_handshaking() || pair.server_error.is_some(), "it learned nothing of us");
    }
}

#[test]
fn a_server_by_address_must_be_certified_for_the_address() {
    let world = World::new();
    let upstream = world.upstream();
    for (names, accepted) in [(&["10.0.0.7"][..], true), (&["10.0.0.8", "db.example"], false)] {
        let server = Arc::new(world.server(names));
        let pair = shake(upstream.config("a", &Offer::default()), name("10.0.0.7"), server);
        assert_eq!(pair.succeeded(), accepted, "{names:?}");
    }
}

#[test]
fn what_the_client_offered_is_offered_and_nothing_else() {
    let world = World::new();
    let upstream = world.upstream();
    let mut server = world.server(&["db.example"]);
    server.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let server = Arc::new(server);
    let agreed = |offer: &Offer| {
        let pair = shake(upstream.config("a", offer), name("db.example"), Arc::clone(&server));
        assert!(pair.succeeded(), "{:?}", pair.client_error);
        (pair.client.alpn_protocol().map(<[u8]>::to_vec), pair.client.protocol_version())
    };
    let h2 = vec![b"h2".to_vec()];
    let tls13 = Some(ProtocolVersion::TLSv1_3);
    assert_eq!(agreed(&Offer { alpn: h2.clone(), tls12: true, tls13: true }), (Some(b"h2".to_vec()), tls13));
    assert_eq!(agreed(&Offer { alpn: vec![], tls12: true, tls13: true }), (None, tls13));
    let only12 = Offer { alpn: h2.clone(), tls12: true, tls13: false };
    assert_eq!(agreed(&only12), (Some(b"h2".to_vec()), Some(ProtocolVersion::TLSv1_2)));
    assert_eq!(agreed(&Offer { alpn: h2, tls12: false, tls13: true }).1, tls13);
}

#[test]
fn a_server_that_asks_for_a_certificate_in_vain_is_noticed() {
    let world = World::new();
    let upstream = world.upstream();
    let only12: &[&SupportedProtocolVersion] = &[&TLS12];
    for versions in [BOTH, only12] {
        let server = Arc::new(world.server_with(&["db.example"], versions, true, |_| {}));
        let pair = shake(upstream.config("a", &Offer::default()), name("db.example"), server);
        assert!(pair.requested);
        assert!(matches!(pair.server_error, Some(Error::NoCertificatesPresented)));
        assert!(matches!(
            pair.client_error,
            Some(Error::AlertReceived(AlertDescription::CertificateRequired))
        ));
        assert_eq!(failure(&pair), UpstreamFailure::ClientCertificateRequired);
    }
    let pair = shake(
        upstream.config("a", &Offer::default()),
        name("db.example"),
        Arc::new(world.server(&["db.example"])),
    );
    assert!(!pair.requested, "one that did not ask");
}

#[test]
fn the_notice_belongs_to_the_handshake_that_was_driven() {
    let asked = || {
        noticing_sync(|| {
            use rustls::client::ResolvesClientCert as _;
            NoCertificate.resolve(&[], &[]).is_none()
        })
    };
    let ((_, inner), outer) = noticing_sync(asked);
    assert!(inner.is_some() && outer.is_none());
    let (((), before), (_, after)) = (noticing_sync(|| ()), asked());
    assert!(before.is_none() && after.is_some());
}

#[test]
fn other_alerts_are_no_wish_for_a_certificate() {
    let read = |alert, requested| {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, Error::AlertReceived(alert));
        UpstreamFailure::read(&error, requested)
    };
    assert_eq!(read(AlertDescription::HandshakeFailure, true), UpstreamFailure::ClientCertificateRequired);
    assert_eq!(read(AlertDescription::HandshakeFailure, false), UpstreamFailure::Other);
    assert_eq!(read(AlertDescription::ProtocolVersion, true), UpstreamFailure::Other);
    let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    assert_eq!(UpstreamFailure::read(&lost, true), UpstreamFailure::Other);
}

#[test]
fn the_post_quantum_exchange_comes_first_and_the_classic_ones_remain() {
    let world = World::new();
    let upstream = world.upstream();
    let group = |server| {
        let pair = shake(upstream.config("a", &Offer::default()), name("db.example"), Arc::new(server));
        pair.client.negotiated_key_exchange_group().unwrap().name()
    };
    assert_eq!(group(world.server(&["db.example"])), rustls::NamedGroup::X25519MLKEM768);
    let mut classic = (*provider()).clone();
    classic.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::SECP256R1];
    let server = world.server(&["db.example"]);
    let mut old = ServerConfig::builder_with_provider(Arc::new(classic))
        .with_protocol_versions(BOTH)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&server.cert_resolver));
    old.session_storage = server.session_storage;
    assert_eq!(group(old), rustls::NamedGroup::secp256r1);
}

#[test]
fn roots_that_are_none_are_an_error_that_says_which() {
    let none = |extra_pem| Upstream::new(&UpstreamRoots { system: false, extra_pem }).unwrap_err();
    assert!(matches!(none(vec![]), UpstreamError::NoRoots));
    let error = none(vec![World::new().pem(), b"nothing".to_vec()]);
    assert!(matches!(error, UpstreamError::NoCertificate { position: 2 }), "{error}");
}

#[test]
fn the_systems_roots_are_trusted_when_they_are_asked_for() {
    if crate::system_bundle().is_none() {
        return verbatim_missing::skip("the system's bundle of roots is not on this machine");
    }
    let world = World::new();
    let upstream = Upstream::new(&UpstreamRoots { system: true, extra_pem: vec![world.pem()] }).unwrap();
    let server = Arc::new(world.server(&["db.example"]));
    assert_eq!(kind(&upstream, "a", &server), HandshakeKind::Full);
    Upstream::new(&UpstreamRoots { system: true, extra_pem: vec![] }).unwrap();
}
