//! The ClientHello, as the session that answers it reads it.

use rustls::{
    CipherSuite, Error,
    server::{Accepted, Acceptor, ClientHello},
};
use verbatim_tls::Offer;

/// Reads it from everything that the client has sent; returns beside it how many bytes were taken. An error
/// comes with the alert to answer, as bytes.
pub(super) fn read(bytes: &[u8]) -> Result<(Accepted, usize), (Error, Vec<u8>)> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    loop {
        let taken = acceptor.read_tls(&mut rest);
        if !matches!(taken, Ok(1..)) {
            return Err((Error::General("it is too long".to_owned()), super::way_out::DECODE_ERROR.to_vec()));
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok((accepted, bytes.len().saturating_sub(rest.len()))),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                if alert.write_all(&mut bytes).is_err() || bytes.is_empty() {
                    bytes = super::way_out::DECODE_ERROR.to_vec();
                }
                return Err((error, bytes));
            }
        }
    }
}

/// What to offer to the server: what the client offers, no less and no more. `None`: no version that we speak.
pub(super) fn offer(hello: &ClientHello<'_>) -> Option<Offer> {
    // A client that speaks a version offers cipher suites for it, which are of one version only.
    let suites = || hello.cipher_suites().iter().map(|suite| u16::from(*suite));
    let tls13 = suites().any(|suite| suite >> 8 == 0x13);
    let tls12 = suites().any(is_tls12);
    let alpn = hello.alpn().map(|list| list.map(<[u8]>::to_vec).collect()).unwrap_or_default();
    (tls12 || tls13).then_some(Offer { alpn, tls12, tls13 })
}

/// Suites with forward secrecy and AEAD: all that are spoken here of TLS 1.2 (RFC 5288, 5289, 7905).
fn is_tls12(suite: u16) -> bool {
    use CipherSuite as S;
    matches!(
        CipherSuite::from(suite),
        S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            | S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}
