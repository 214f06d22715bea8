//! Finds the decoder for a request: by host, then by content type and path.

use http::request;

use super::{Exchange, Messages, Peer, bigquery, grants::Grant, grpc, host, http::Request, single::Single};
use crate::seam::{Finding, Limits};

/// All message decoders that there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Builtin {
    /// Hard limits of each exchange.
    pub limits: Limits,
}

impl Messages for Builtin {
    fn exchange(&self, head: &request::Parts, peer: Peer<'_>) -> (&'static str, Box<dyn Exchange>) {
        let Self { limits } = *self;
        let mut host = host::host(head);
        if host.is_empty() {
            host = peer.tls_name.unwrap_or_default().to_ascii_lowercase();
        }
        let findings = if host::mismatch(head, peer) { vec![Finding::HostMismatch] } else { Vec::new() };
        let bigquery =
            host::is_bigquery(&host) || (host::is_shared(&host) && bigquery::is_below(head.uri.path()));
        if grpc::is_grpc(head) {
            return ("grpc", grpc::exchange(head, &host, findings, limits, grpc::Counted));
        }
        if let Some(grant) = Grant::new(head, &host, peer, &findings, limits) {
            return (grant.service(), Box::new(Single::new(grant)));
        }
        if bigquery && let Some(call) = bigquery::Call::new(head, &host, &findings, limits) {
            return ("bigquery", Box::new(Single::new(call)));
        }
        let service = if bigquery { "bigquery" } else { "http" };
        (service, Box::new(Single::new(Request::new(head, &host, findings, limits))))
    }
}
