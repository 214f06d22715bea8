//! The empty client certificate, and whether it was asked for.
//!
//! Owns the only way to learn of a CertificateRequest that rustls leaves: its resolver is called, on the thread
//! that drives the handshake, while it is driven. One resolver must serve all connections, or no session would
//! be resumed; so the notice goes through the thread.

use std::{cell::Cell, future::poll_fn, pin::pin, sync::Arc};

use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};

thread_local! {
    static REQUESTED: Cell<bool> = const { Cell::new(false) };
}

/// Has no certificate to show.
#[derive(Debug)]
pub(super) struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        REQUESTED.set(true);
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
pub async fn noticing<F: Future>(handshake: F) -> (F::Output, bool) {
    let mut handshake = pin!(handshake);
    let mut requested = false;
    let output = poll_fn(|cx| {
        let (poll, noticed) = noticing_sync(|| handshake.as_mut().poll(cx));
        requested |= noticed;
        poll
    })
    .await;
    (output, requested)
}

/// The same for one step of a handshake that is driven by hand, e.g. `ClientConnection::process_new_packets`.
pub fn noticing_sync<T>(step: impl FnOnce() -> T) -> (T, bool) {
    let before = REQUESTED.replace(false);
    let output = step();
    (output, REQUESTED.replace(before))
}
