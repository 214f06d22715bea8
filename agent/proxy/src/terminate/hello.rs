//! The ClientHello, as the session that answers it reads it.

use rustls::{
    Error,
    server::{Accepted, Acceptor},
};
use verbatim_tls::Offer;
use verbatim_wire::detect::{ClientHello, Detection, detect};

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
pub(super) fn offer(bytes: &[u8]) -> Option<Offer> {
    let Detection::Tls(hello) = detect(bytes) else { return None };
    let ClientHello { alpn, tls12, tls13, .. } = hello;
    (tls12 || tls13).then_some(Offer { alpn, tls12, tls13 })
}
