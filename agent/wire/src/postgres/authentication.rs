//! Authentication where it cannot simply be passed on, because a leg's TLS is ours.
//!
//! Four cases. The client's leg is plain and the server's is not: channel binding is taken out of the server's
//! offer. Both are TLS and the client binds nothing: it passes. Both are TLS and the client binds to our
//! certificate: where a verifier is known, its proof is made anew for the server's; where none is, it is asked for its
//! password instead, and we authenticate in its place, bound to the server's. Nothing of it is kept, but for the
//! password between two messages; that is wiped.

use super::{
    bridge::{Bridge, Last},
    core::Core,
    end_point::end_point,
    refuse,
    scram::{self, Failure},
};
use crate::{
    reader::{Malformed, Reader},
    seam::{Direction, Event, OpaqueReason, SessionFact, Sink},
};

/// AuthenticationOk.
const OK: u32 = 0;
/// AuthenticationCleartextPassword.
const CLEARTEXT: u32 = 3;
/// AuthenticationSASL.
const SASL: u32 = 10;
/// AuthenticationSASLContinue.
const SASL_CONTINUE: u32 = 11;
/// AuthenticationSASLFinal.
const SASL_FINAL: u32 = 12;
/// Under this name the record says how a session was authenticated.
const NAME: &[u8] = b"authentication";

/// How far it is.
#[derive(Default)]
pub(super) enum Authentication {
    /// Nothing is looked at.
    #[default]
    Passing,
    /// The server's first word is awaited.
    Awaited,
    /// An offer with channel binding has passed; the client's choice is awaited.
    Offered,
    /// The client was asked for its password.
    Asked,
    /// We authenticate in the client's place.
    Proving(Box<scram::Client>),
    /// The client authenticates to us and we to the server, by what is known of its password.
    Bridging(Box<Bridge>),
}

impl Authentication {
    /// Whether the server's messages of it are looked at, and held until that is done.
    pub(super) fn reads_server(&self) -> bool {
        !matches!(self, Self::Passing)
    }

    /// Whether the client's are.
    pub(super) fn reads_client(&self) -> bool {
        matches!(self, Self::Offered | Self::Asked | Self::Bridging(_))
    }
}

impl Core {
    /// A message of the server (`R`), which is held. What is still held afterwards passes.
    pub(super) fn server_authenticates(
        &mut self,
        body: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<(), OpaqueReason> {
        let mut reader = Reader::new(body);
        let code = reader.u32()?;
        match (code, &mut self.authentication) {
            (SASL, Authentication::Awaited) => return self.offer(reader.rest(), sink),
            (SASL_CONTINUE, Authentication::Proving(client)) => match client.last(reader.rest()) {
                Ok(last) => {
                    self.drop_held(Direction::ToClient, sink);
                    self.insert(Direction::ToServer, refuse::message(b'p', &[&last]), sink);
                }
                Err(failure) => self.fail(failure, sink),
            },
            (SASL_FINAL, Authentication::Proving(client)) => match client.verify(reader.rest()) {
                Ok(()) => self.drop_held(Direction::ToClient, sink),
                Err(failure) => self.fail(failure, sink),
            },
            (OK, Authentication::Proving(client)) if client.verified() => {
                self.authentication = Authentication::Passing;
            }
            (SASL_CONTINUE, Authentication::Bridging(bridge)) => match bridge.server_first(reader.rest()) {
                Ok(true) => {}
                Ok(false) => self.give_up(refuse::OUTDATED, refuse::RENEW, sink),
                Err(failure) => self.fail(failure, sink),
            },
            (SASL_FINAL, Authentication::Bridging(bridge)) => match bridge.server_last(reader.rest()) {
                Ok(last) => {
                    self.drop_held(Direction::ToClient, sink);
                    let parts: [&[u8]; 2] = [&SASL_FINAL.to_be_bytes(), &last];
                    self.insert(Direction::ToClient, refuse::message(b'R', &parts), sink);
                }
                Err(failure) => self.fail(failure, sink),
            },
            (OK, Authentication::Bridging(bridge)) if bridge.is_done() => {
                self.authentication = Authentication::Passing;
            }
            (_, Authentication::Proving(_) | Authentication::Bridging(_)) => {
                let failure = Failure("the server did not finish SCRAM, and so did not prove itself");
                self.fail(failure, sink);
            }
            // The client's choice, and whatever comes of it, is between the two.
            (_, Authentication::Awaited) => self.authentication = Authentication::Passing,
            (_, Authentication::Passing | Authentication::Offered | Authentication::Asked) => {}
        }
        Ok(())
    }

    /// The server offers mechanisms.
    fn offer(&mut self, list: &[u8], sink: &mut dyn Sink) -> Result<(), OpaqueReason> {
        let offered = mechanisms(list)?;
        if !offered.contains(&scram::PLUS) {
            self.authentication = Authentication::Passing;
        } else if self.encryption.client {
            let bridges = self.verifier.is_some() && self.bindings().is_some();
            if !bridges && (self.encryption.ask_password || offered.len() == 1) {
                self.ask(sink);
            } else {
                self.authentication = Authentication::Offered;
            }
        } else if offered.len() > 1 {
            // A client that is offered channel binding without TLS takes it for an attack.
            let mut body = SASL.to_be_bytes().to_vec();
            for mechanism in offered.into_iter().filter(|mechanism| *mechanism != scram::PLUS) {
                body.extend_from_slice(mechanism);
                body.push(0);
            }
            body.push(0);
            self.drop_held(Direction::ToClient, sink);
            self.insert(Direction::ToClient, refuse::message(b'R', &[&body]), sink);
            self.authentication = Authentication::Passing;
        } else {
            self.fail(
                Failure("the server insists on channel binding, which this client cannot do without TLS"),
                sink,
            );
        }
        Ok(())
    }

    /// Asks the client for its password, under our TLS.
    fn ask(&mut self, sink: &mut dyn Sink) {
        self.drop_held(Direction::ToClient, sink);
        let request = refuse::message(b'R', &[&CLEARTEXT.to_be_bytes()]);
        self.insert(Direction::ToClient, request, sink);
        self.tell("password asked of the client, SCRAM with the server", sink);
        self.authentication = Authentication::Asked;
    }

    /// A message of the client (`p`), which is held. What is still held afterwards passes.
    pub(super) fn client_authenticates(
        &mut self,
        body: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<(), OpaqueReason> {
        match &mut self.authentication {
            Authentication::Asked => {
                let password = body.strip_suffix(b"\0").ok_or(Malformed)?;
                self.prove(password, sink);
                return Ok(());
            }
            Authentication::Bridging(bridge) => {
                let last = bridge.client_last(body);
                self.drop_held(Direction::ToServer, sink);
                match last {
                    Ok(Last { message, fits }) => {
                        if !fits {
                            self.tell("the client's proof does not fit the known verifier", sink);
                        }
                        self.insert(Direction::ToServer, refuse::message(b'p', &[&message]), sink);
                    }
                    Err(failure) => self.fail(failure, sink),
                }
                return Ok(());
            }
            _ => {}
        }
        let mut reader = Reader::new(body);
        if reader.string()? != scram::PLUS {
            self.authentication = Authentication::Passing;
            return Ok(());
        }
        sink.event(Event::Session(SessionFact::BindsChannel));
        if let (Some(verifier), Some([ours, servers])) = (self.verifier.take(), self.bindings()) {
            let _length = reader.u32()?;
            let bridge = Bridge::begin(reader.rest(), verifier, ours, servers);
            self.authentication = bridge.map_or(Authentication::Passing, |bridge| {
                self.tell("SCRAM on both legs, by a known verifier", sink);
                Authentication::Bridging(Box::new(bridge))
            });
            return Ok(());
        }
        self.drop_held(Direction::ToServer, sink);
        self.ask(sink);
        Ok(())
    }

    /// Whose session it is: is a verifier known?
    pub(super) fn begins(&mut self, user: &[u8]) {
        let verifiers = self.encryption.verifiers.as_ref().filter(|_| self.encryption.client);
        self.verifier = verifiers.and_then(|verifiers| verifiers.of(user));
    }

    /// What is bound to our certificate, and to the server's.
    fn bindings(&self) -> Option<[Vec<u8>; 2]> {
        let server = self.encryption.server.as_ref()?;
        Some([end_point(&self.encryption.certificate)?, end_point(&server.certificate)?])
    }

    fn prove(&mut self, password: &[u8], sink: &mut dyn Sink) {
        let server = self.encryption.server.as_ref();
        let binding = server.and_then(|server| end_point(&server.certificate));
        let client = scram::Client::new(password, &self.encryption.nonce, binding.as_deref());
        let first = client.first();
        let length = u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes();
        let response = refuse::message(b'p', &[client.mechanism(), b"\0", &length, &first]);
        self.drop_held(Direction::ToServer, sink);
        self.insert(Direction::ToServer, response, sink);
        self.authentication = Authentication::Proving(Box::new(client));
    }

    fn fail(&mut self, Failure(why): Failure, sink: &mut dyn Sink) {
        self.give_up(why, refuse::UNBIND, sink);
    }

    /// Ends the session before it began. Nothing of the server's is passed on.
    fn give_up(&mut self, why: &str, hint: &str, sink: &mut dyn Sink) {
        self.authentication = Authentication::Passing;
        self.tell(why, sink);
        self.drop_held(Direction::ToClient, sink);
        self.insert(Direction::ToClient, refuse::start_with(why, hint), sink);
        self.close(sink);
    }

    fn tell(&self, what: &str, sink: &mut dyn Sink) {
        let fact = SessionFact::Parameter(NAME.to_vec(), what.as_bytes().to_vec());
        sink.event(Event::Session(fact));
    }
}

/// Names, each ended by a NUL, the list by another.
fn mechanisms(list: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut reader = Reader::new(list);
    let mut names = Vec::new();
    loop {
        match reader.string()? {
            b"" => break,
            name => names.push(name),
        }
    }
    reader.end()?;
    Ok(names)
}
