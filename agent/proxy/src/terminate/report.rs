//! What was agreed on in TLS, for the record.

use rustls::HandshakeKind;
use sha2::{Digest, Sha256};
use verbatim_api::v1;

use crate::legs::{Leg, Legs, TlsLeg};

/// Both legs.
pub(super) fn report(legs: &Legs, server_name: Option<&str>, certificate_requested: bool) -> v1::Tls {
    // What a client shows was not verified.
    let client = legs
        .client
        .as_ref()
        .and_then(Leg::tls)
        .map(|client| v1::TlsLeg { peer_certificate_sha256: Vec::new(), ..leg(client, false) });
    let server = legs.server.as_ref().and_then(Leg::tls);
    v1::Tls {
        client: client.or_else(|| Some(v1::TlsLeg::default())),
        server: server.map(|server| leg(server, certificate_requested)),
        server_name: server_name.unwrap_or_default().to_owned(),
        refusal: String::new(),
    }
}

/// One leg.
pub(super) fn leg(leg: &TlsLeg, certificate_requested: bool) -> v1::TlsLeg {
    let session = leg.session();
    let version = session.protocol_version().and_then(|version| version.as_str());
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    v1::TlsLeg {
        version: version.unwrap_or_default().replace('_', "."),
        cipher_suite: suite.and_then(|suite| suite.as_str()).unwrap_or_default().to_owned(),
        alpn: String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned(),
        peer_certificate_sha256: certificate.map(|der| Sha256::digest(der).to_vec()).unwrap_or_default(),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        client_certificate_requested: certificate_requested,
    }
}
