//! Reads the client's bytes: finds messages, holds those that wait for a decision, passes the others on.

use zeroize::Zeroizing;

use super::{
    core::{Core, Mode},
    framing::{self, Framer, Header},
    frontend::is_unit,
    long::{Long, LongUnit},
    startup,
};
use crate::seam::{OpaqueReason, Sink};

/// Start-up packets before the one that starts: a request for each encryption, and one to spare.
const MAX_REQUESTS: u32 = 4;
/// Bytes beyond the captured ones that a message may have before it is read as a long one.
const SLACK: usize = 1024;
/// First byte of a TLS record with a ClientHello.
const TLS_HANDSHAKE: u8 = 0x16;
/// What is kept allocated between messages, bytes.
const KEPT_BUFFER: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Startup,
    Messages,
}

/// A message that was begun.
struct Progress {
    kind: u8,
    remaining: usize,
    body: Body,
}

enum Body {
    Skipped,
    Collected,
    /// Collected, and wiped afterwards.
    Secret,
    Long(Box<Long>),
}

#[derive(Default)]
pub(super) struct Intake {
    phase: Phase,
    requests: u32,
    framer: Framer,
    current: Option<Progress>,
    buffer: Vec<u8>,
    secret: Zeroizing<Vec<u8>>,
}

impl Intake {
    /// Takes input until a unit waits.
    pub(super) fn feed(&mut self, core: &mut Core, bytes: &[u8], sink: &mut dyn Sink) -> usize {
        let mut consumed = 0usize;
        while let Some(rest) = bytes.get(consumed..).filter(|rest| !rest.is_empty()) {
            if core.waiting.is_some() {
                return consumed;
            }
            match core.mode {
                Mode::Opaque => return bytes.len(),
                Mode::Upgraded => return consumed,
                Mode::Closed => {
                    core.to_server.hold(rest.len());
                    core.drop_held(crate::seam::Direction::ToServer, sink);
                    return bytes.len();
                }
                Mode::Cancel => {
                    core.to_server.hold(rest.len());
                    core.to_server.pass();
                    return bytes.len();
                }
                Mode::Decoding | Mode::Doomed(_) => {}
            }
            if self.phase == Phase::Startup && core.awaits_encryption() {
                // What it is depends on the answer.
                return consumed;
            }
            if self.current.is_none() && core.awaits_answers() {
                return consumed;
            }
            match self.step(core, rest, sink) {
                Ok(taken) => consumed = consumed.saturating_add(taken),
                Err(reason) => {
                    core.go_opaque(reason, sink);
                    return bytes.len();
                }
            }
        }
        consumed
    }

    fn step(&mut self, core: &mut Core, rest: &[u8], sink: &mut dyn Sink) -> Result<usize, OpaqueReason> {
        if self.phase == Phase::Startup {
            return self.startup(core, rest, sink);
        }
        if let Some(progress) = self.current.take() {
            return self.go_on(core, progress, rest, sink);
        }
        match self.framer.read(rest) {
            Header::NeedMore => {
                core.to_server.hold(rest.len());
                Ok(rest.len())
            }
            Header::Bad => Err(OpaqueReason::Malformed),
            Header::Message { kind, body, taken } => self.begin(core, kind, body, taken, rest, sink),
        }
    }

    /// Start-up packets have no type: a length that counts itself, and as much.
    fn startup(&mut self, core: &mut Core, rest: &[u8], sink: &mut dyn Sink) -> Result<usize, OpaqueReason> {
        if self.buffer.is_empty() && self.requests > 0 && rest.first() == Some(&TLS_HANDSHAKE) {
            // The client does not wait for the answer.
            return Err(OpaqueReason::Tls);
        }
        let length = match self.buffer.first_chunk::<4>() {
            None => 4,
            Some(length) => u32::from_be_bytes(*length) as usize,
        };
        let taken = length.saturating_sub(self.buffer.len()).min(rest.len());
        self.buffer.extend_from_slice(rest.get(..taken).unwrap_or_default());
        core.to_server.hold(taken);
        let Some(length) = self.buffer.first_chunk::<4>() else {
            return Ok(taken);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if !(startup::MIN_LENGTH..=startup::MAX_LENGTH).contains(&length) {
            return Err(OpaqueReason::Malformed);
        }
        if self.buffer.len() < length {
            return Ok(taken);
        }
        self.requests = self.requests.saturating_add(1);
        if self.requests > MAX_REQUESTS {
            return Err(OpaqueReason::Malformed);
        }
        let packet = ::core::mem::take(&mut self.buffer);
        let packet = startup::parse(packet.get(4..).unwrap_or_default())?;
        if core.startup_packet(&packet, sink)? {
            self.phase = Phase::Messages;
        }
        Ok(taken)
    }

    fn begin(
        &mut self,
        core: &mut Core,
        kind: u8,
        body: usize,
        taken: usize,
        rest: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<usize, OpaqueReason> {
        let limit = framing::client_limit(kind).ok_or(OpaqueReason::Malformed)?;
        if body > limit {
            return Err(OpaqueReason::Malformed);
        }
        core.to_server.hold(taken);
        let body_kind = self.body(core, kind, body)?;
        let end = taken.saturating_add(body);
        match (&body_kind, rest.get(taken..end)) {
            (Body::Collected, Some(whole)) => {
                core.to_server.hold(body);
                core.client_message(kind, whole, sink)?;
                return Ok(end);
            }
            (Body::Secret, Some(whole)) => {
                core.to_server.hold(body);
                core.client_authenticates(whole, sink)?;
                core.to_server.pass();
                return Ok(end);
            }
            _ => {}
        }
        self.buffer.clear();
        if matches!(body_kind, Body::Secret) {
            // Never grows, and so leaves no copy behind.
            self.secret = Zeroizing::new(Vec::with_capacity(body));
        }
        let progress = Progress { kind, remaining: body, body: body_kind };
        self.settle(core, progress, sink)?;
        Ok(taken)
    }

    fn body(&self, core: &mut Core, kind: u8, body: usize) -> Result<Body, OpaqueReason> {
        let capture = core.limits.capture_bytes;
        let long = match kind {
            b'd' => {
                core.copied((body as u64).saturating_add(framing::HEADER as u64));
                return Ok(Body::Skipped);
            }
            b'p' if core.authentication.reads_client() => return Ok(Body::Secret),
            // Authentication: not a byte of it is kept.
            b'p' if core.transaction.is_none() => return Ok(Body::Skipped),
            b'Q' if body > capture.saturating_add(1) => Long::Unit(LongUnit::query(core, body)?),
            b'F' if body > capture.saturating_add(SLACK) => Long::Unit(LongUnit::call(core, body)?),
            b'P' if body > capture.saturating_add(SLACK) => Long::parse(core, body),
            b'B' if body > capture.saturating_add(SLACK) => Long::bind(core, body),
            _ => return Ok(Body::Collected),
        };
        Ok(Body::Long(Box::new(long)))
    }

    fn go_on(
        &mut self,
        core: &mut Core,
        mut progress: Progress,
        rest: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<usize, OpaqueReason> {
        let mut taken = progress.remaining.min(rest.len());
        if let Body::Long(long) = &progress.body {
            taken = taken.min(long.wants());
        }
        let part = rest.get(..taken).unwrap_or_default();
        progress.remaining = progress.remaining.saturating_sub(taken);
        core.to_server.hold(taken);
        match &mut progress.body {
            Body::Skipped => {}
            Body::Collected => self.buffer.extend_from_slice(part),
            Body::Secret => self.secret.extend_from_slice(part),
            Body::Long(long) => long.push(part)?,
        }
        self.settle(core, progress, sink)?;
        Ok(taken)
    }

    /// After each part of a message: is it whole, and what of it may pass?
    fn settle(
        &mut self,
        core: &mut Core,
        mut progress: Progress,
        sink: &mut dyn Sink,
    ) -> Result<(), OpaqueReason> {
        let whole = progress.remaining == 0;
        match progress.body {
            Body::Skipped => core.to_server.pass(),
            Body::Collected if whole => {
                let mut body = ::core::mem::take(&mut self.buffer);
                core.client_message(progress.kind, &body, sink)?;
                body.clear();
                if body.capacity() <= KEPT_BUFFER {
                    self.buffer = body;
                }
            }
            Body::Secret if whole => {
                let secret = ::core::mem::take(&mut self.secret);
                core.client_authenticates(&secret, sink)?;
                core.to_server.pass();
            }
            Body::Secret => {}
            Body::Collected if is_unit(progress.kind) => {}
            Body::Collected => core.to_server.pass(),
            Body::Long(long) if whole => return long.finish(core, sink),
            Body::Long(mut long) => {
                long.pass(core, sink);
                progress.body = Body::Long(long);
            }
        }
        if !whole {
            self.current = Some(progress);
        }
        Ok(())
    }
}
