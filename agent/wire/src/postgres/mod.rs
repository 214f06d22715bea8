//! PostgreSQL, frontend/backend protocol 3.x.
//!
//! Three layers: where messages begin and end ([`framing`]), what is in them ([`messages`], [`long`]),
//! and what they do to the session ([`core`] with [`frontend`], [`backend`], [`decide`]). [`client`] and
//! [`server`] drive them for one direction each. None of them knows a relay.
//!
//! [`framing`]: self
//! [`messages`]: self

mod authentication;
mod backend;
mod bridge;
mod client;
mod core;
mod decide;
mod end_point;
mod forgets;
mod framing;
mod frontend;
#[doc(hidden)]
pub mod fuzzing;
mod long;
mod messages;
mod names;
mod outcome;
mod pipeline;
mod redact;
mod refuse;
mod render;
mod scram;
mod server;
mod split;
pub(crate) mod startup;
mod statements;
#[cfg(test)]
mod tests;
mod verifier;

pub use self::verifier::{Verifier, VerifierError};
use crate::seam::{Decision, Decoder, Direction, Encryption, Limits, Sink, StartTls, UnitId};

/// SSLRequest, as a client sends it.
const START_TLS: StartTls =
    StartTls { request: &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f], agreed: b'S', refusal: refuse::start };

/// The decoder of one PostgreSQL connection, from its first byte on.
///
/// A Parse, Bind or Describe that the server rejects, and for which no Execute is under way, becomes a
/// command after the fact: [`Event::Started`] and [`Event::Finished`] in one go, with the attribute
/// `rejected`. Nothing of it is held, so that a decision about its unit changes nothing.
///
/// [`Event::Started`]: crate::seam::Event::Started
/// [`Event::Finished`]: crate::seam::Event::Finished
pub struct PostgresDecoder {
    core: core::Core,
    client: client::Intake,
    server: server::Intake,
}

impl PostgresDecoder {
    /// A decoder that has seen nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            core: core::Core::new(limits),
            client: client::Intake::default(),
            server: server::Intake::default(),
        }
    }
}

impl Decoder for PostgresDecoder {
    fn feed(&mut self, direction: Direction, bytes: &[u8], sink: &mut dyn Sink) -> usize {
        let consumed = match direction {
            Direction::ToServer => self.client.feed(&mut self.core, bytes, sink),
            Direction::ToClient => self.server.feed(&mut self.core, bytes, sink),
        };
        self.core.flush(sink);
        consumed
    }

    fn decide(&mut self, unit: UnitId, decision: &Decision, sink: &mut dyn Sink) {
        self.core.decide(unit, decision, sink);
        self.core.flush(sink);
    }

    fn finish(&mut self, direction: Direction, sink: &mut dyn Sink) {
        self.core.finish(direction, sink);
        self.core.flush(sink);
    }

    fn outstanding(&self) -> bool {
        self.core.outstanding()
    }

    fn opaque(&self) -> bool {
        self.core.mode == core::Mode::Opaque
    }

    fn encryption(&mut self, encryption: Encryption) {
        self.core.encrypted(encryption);
    }

    fn start_tls(&self) -> Option<StartTls> {
        Some(START_TLS)
    }
}
