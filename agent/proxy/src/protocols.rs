//! Which decoder the first bytes call for. The one place where the proxy names a protocol.

use std::sync::Arc;

use verbatim_api::v1;
use verbatim_wire::{
    detect::{Detection, detect},
    message::{self, Messages},
    postgres::PostgresDecoder,
    seam::{Decoder, Limits},
};

/// What the first bytes of a client are.
pub enum Detected {
    /// Cannot be told yet: ask again with more.
    NeedMore,
    /// A protocol that is decoded.
    Decode {
        /// For the record.
        protocol: v1::Protocol,
        /// For the record's target, e.g. `postgresql`.
        service: &'static str,
        /// Sees the connection from its first byte.
        decoder: Box<dyn Decoder>,
    },
    /// Passes undecoded.
    Pass {
        /// For the record.
        protocol: v1::Protocol,
        /// Why.
        reason: v1::OpaqueReason,
        /// For the record's target, e.g. `tls`; may be empty.
        service: &'static str,
        /// The name that the client asked for, where there is one.
        host: Option<String>,
    },
}

/// Tells protocols apart by their first bytes.
pub trait Protocols: Send + Sync + 'static {
    /// Looks at everything that the client has sent so far; never empty.
    fn detect(&self, first: &[u8]) -> Detected;

    /// Decodes what is said by messages of HTTP. `None`: nobody does, and HTTP passes undecoded.
    fn messages(&self) -> Option<Arc<dyn Messages>> {
        None
    }
}

/// The protocols that Verbatim decodes.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// Of every decoder.
    pub limits: Limits,
}

impl Protocols for Builtin {
    fn detect(&self, first: &[u8]) -> Detected {
        let detection = detect(first);
        let host = detection.host().map(str::to_owned);
        let pass = |protocol, service, reason| Detected::Pass { protocol, reason, service, host };
        match detection {
            Detection::NeedMore => Detected::NeedMore,
            Detection::Postgres(_) => Detected::Decode {
                protocol: v1::Protocol::Postgresql,
                service: "postgresql",
                decoder: Box::new(PostgresDecoder::new(self.limits)),
            },
            Detection::Tls(_) => pass(v1::Protocol::Tls, "tls", v1::OpaqueReason::Tls),
            Detection::Http1 { .. } => pass(v1::Protocol::Http1, "http", v1::OpaqueReason::UnknownProtocol),
            Detection::Http2 => pass(v1::Protocol::Http2, "http", v1::OpaqueReason::UnknownProtocol),
            Detection::Unknown => pass(v1::Protocol::Unknown, "", v1::OpaqueReason::UnknownProtocol),
        }
    }

    fn messages(&self) -> Option<Arc<dyn Messages>> {
        Some(Arc::new(message::Builtin { limits: self.limits }))
    }
}
