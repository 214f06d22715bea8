//! The empty client certificate, and whether it was asked for.
//!
//! Owns the only way to learn of a CertificateRequest that rustls leaves: its resolver is called, on the thread
//! that drives the handshake, while it is driven. One resolver must serve all connections, or no session would
//! be resumed; so the notice goes through the thread.

use std::{cell::RefCell, future::poll_fn, pin::pin, sync::Arc};

use rustls::{DistinguishedName, SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};

thread_local! {
    static REQUESTED: RefCell<Option<Requested>> = const { RefCell::new(None) };
}

/// A server asked for a client's certificate (RFC 8446 section 4.3.2, RFC 5246 section 7.4.4).
#[derive(Clone, Debug, Default)]
pub struct Requested {
    /// The authorities whose certificates it takes; empty where it did not say.
    pub authorities: Vec<DistinguishedName>,
}

/// Has no certificate to show.
#[derive(Debug)]
pub(super) struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, authorities: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let authorities = authorities.iter().map(|name| name.to_vec().into()).collect();
        REQUESTED.set(Some(Requested { authorities }));
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Drives an upstream handshake; says beside its result whether the server asked for a client's certificate.
///
/// What is driven must be this one handshake: it may stop between polls for as long as it likes, and others
/// may run on the thread meanwhile.
pub async fn noticing<F: Future>(handshake: F) -> (F::Output, Option<Requested>) {
    let mut handshake = pin!(handshake);
    let mut requested = None;
    let output = poll_fn(|cx| {
        let (poll, noticed) = noticing_sync(|| handshake.as_mut().poll(cx));
        requested = noticed.or(requested.take());
        poll
    })
    .await;
    (output, requested)
}

/// The same for one step of a handshake that is driven by hand, e.g. `ClientConnection::process_new_packets`.
pub fn noticing_sync<T>(step: impl FnOnce() -> T) -> (T, Option<Requested>) {
    let before = REQUESTED.take();
    let output = step();
    (output, REQUESTED.replace(before))
}
