//! gRPC over HTTP (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): calls by service, method
//! and resource, their messages counted, and read where a decoder of an API is there.
//!
//! Owns framing, metadata, status and refusals. Knows no API.

mod call;
mod framing;
mod hook;
mod metadata;
mod status;
#[cfg(test)]
mod tests;

use http::request;

pub use hook::{Counted, Found, GrpcMessages, Message, Opening};

pub(super) use metadata::is_grpc;

use super::Exchange;
use crate::seam::{Finding, Limits};

/// An exchange that is a call, its messages read by `messages`.
pub fn exchange(
    head: &request::Parts,
    host: &str,
    findings: Vec<Finding>,
    limits: Limits,
    messages: impl GrpcMessages + 'static,
) -> Box<dyn Exchange> {
    let command = metadata::command(head, host, findings, limits);
    Box::new(call::Call::new(head, command, messages))
}
