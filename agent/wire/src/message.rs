//! The seam between a pair of HTTP endpoints and a message protocol: one decoder per exchange.
//!
//! As [`crate::seam`] for byte protocols, it observes and says what may go on; it knows no connection and no
//! HTTP version. Bodies come without transfer-coding (chunks, frames) and with their content-coding (gzip).

mod bigquery;
mod builtin;
mod coding;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod grants;
pub mod grpc;
mod headers;
mod host;
mod http;
mod json;
#[doc(hidden)]
pub mod model;
mod multipart;
#[cfg(test)]
mod properties;
pub(crate) mod redact;
mod refuse;
mod single;
#[cfg(test)]
mod talk;
mod target;
#[cfg(test)]
mod tests;

pub use builtin::Builtin;

use std::net::SocketAddr;

use ::http::{HeaderMap, StatusCode, request, response};

use crate::seam::{Decision, Event, UnitId};

/// What of the request may go on, in order: its head, so many bytes of its body, its end with trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The head. Until then nothing of the exchange is known upstream.
    Head,
    /// The next `n` bytes of the body.
    Body(u64),
    /// Whatever comes of the body from here on, and the end: nothing more is held.
    Rest,
    /// The end, with the trailers there are.
    End,
}

/// An answer of our own, instead of the server's.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers, without `content-length`, `date` and the like.
    pub headers: HeaderMap,
    /// Body; empty for gRPC, whose status is among the headers (trailers-only).
    pub body: Vec<u8>,
}

/// Where a decoder's events go, and what may go on, in the order in which they arise.
pub trait MessageSink {
    /// Something was seen. [`Event::Session`] and [`Event::Opaque`] never come from an exchange.
    fn event(&mut self, event: Event);
    /// The next part of the request may go on.
    fn pass(&mut self, pass: Pass);
    /// The request is refused; nothing more of it goes on. Where its head has gone on already, the exchange
    /// upstream is reset.
    fn answer(&mut self, answer: Answer);
}

/// Why an exchange ended before its answer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// The client reset it, or went away.
    Client,
    /// The server reset it, or went away, or could not be reached.
    Server,
    /// We end it (drain, a broken rule of HTTP).
    Ours,
}

/// A decoder of one exchange. Made from the request's head, about which it has its say in
/// [`Exchange::begin`]. Never fails: a body that it cannot read is recorded as such and passes.
pub trait Exchange: Send {
    /// Called once, before everything else.
    fn begin(&mut self, sink: &mut dyn MessageSink);
    /// Takes the next bytes of the request's body and returns how many it consumed. Fewer than given only
    /// while a unit waits for [`Exchange::decide`]: give it the rest after that.
    fn request(&mut self, bytes: &[u8], sink: &mut dyn MessageSink) -> usize;
    /// The request is whole. Not called while a unit waits.
    fn request_end(&mut self, trailers: Option<&HeaderMap>, sink: &mut dyn MessageSink);
    /// The head of the answer; never an interim one.
    fn response_head(&mut self, head: &response::Parts, sink: &mut dyn MessageSink);
    /// The next bytes of its body.
    fn response(&mut self, bytes: &[u8], sink: &mut dyn MessageSink);
    /// The answer is whole. Afterwards every command whose unit was decided is finished.
    fn response_end(&mut self, trailers: Option<&HeaderMap>, sink: &mut dyn MessageSink);
    /// The exchange ends here. Afterwards every command is finished.
    ///
    /// What was not announced yet, since its request had not come whole, is announced now: its command has the
    /// attribute `rejected`, its end follows in the same call, and a decision about it changes nothing (see
    /// [`Event::Started`]).
    fn abort(&mut self, why: Abort, sink: &mut dyn MessageSink);
    /// Says what was decided about the unit that waits.
    fn decide(&mut self, unit: UnitId, decision: &Decision, sink: &mut dyn MessageSink);
}

/// What is known of the connection that an exchange comes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'a> {
    /// The name that TLS was made for; `None` without TLS or without a name.
    pub tls_name: Option<&'a str>,
    /// Where the workload dialled, where that is known.
    pub destination: Option<SocketAddr>,
}

/// Finds the decoder for a request: by host first, then by what kind of request it is. Always finds one.
pub trait Messages: Send + Sync {
    /// Looks at the head only. Also says which service it is, for the record, e.g. `bigquery`, `http`.
    fn exchange(&self, head: &request::Parts, peer: Peer<'_>) -> (&'static str, Box<dyn Exchange>);
}
