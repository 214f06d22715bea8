//! Reads the server's bytes: finds messages and gives those to the session whose content matters.
//!
//! The others, rows above all, are counted and passed on without being looked at.

use super::{
    backend::needs_body,
    core::{Core, Mode},
    framing::{self, Framer, Header},
    messages::backend::MAX_FIELDS,
    pipeline::{Encryption, Owed},
};
use crate::seam::{OpaqueReason, Sink, Upgrade};

/// Longest ParameterDescription body: a count and as many OIDs.
const MAX_DESCRIPTION: usize = 2 + 4 * 65_535;

/// A message that was begun.
#[derive(Debug)]
struct Progress {
    kind: u8,
    remaining: usize,
    length: u64,
    /// Bytes of the body that are still to be kept; 0: it is passed over.
    keep: usize,
    collects: bool,
    /// It may be replaced, and is not passed on before it is whole.
    holds: bool,
}

#[derive(Debug, Default)]
pub(super) struct Intake {
    framer: Framer,
    current: Option<Progress>,
    buffer: Vec<u8>,
}

impl Intake {
    /// Takes everything.
    pub(super) fn feed(&mut self, core: &mut Core, bytes: &[u8], sink: &mut dyn Sink) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            match core.mode {
                Mode::Opaque => return bytes.len(),
                Mode::Upgraded => return bytes.len().saturating_sub(rest.len()),
                _ => {}
            }
            if core.mode != Mode::Decoding {
                core.to_client.hold(rest.len());
                core.to_client.pass();
                return bytes.len();
            }
            let before = core.to_client.read;
            match self.step(core, rest, sink) {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(reason) => {
                    core.go_opaque(reason, sink);
                    if core.mode != Mode::Opaque {
                        // It passes as it is, until what the client waits for is decided.
                        let counted = core.to_client.read.saturating_sub(before);
                        let counted = usize::try_from(counted).unwrap_or(usize::MAX);
                        core.to_client.hold(rest.len().saturating_sub(counted));
                        core.to_client.pass();
                    }
                    return bytes.len();
                }
            }
        }
        core.server_at_boundary = self.current.is_none() && self.framer.at_boundary();
        bytes.len()
    }

    fn step(&mut self, core: &mut Core, rest: &[u8], sink: &mut dyn Sink) -> Result<usize, OpaqueReason> {
        if let Some(progress) = self.current.take() {
            return self.go_on(core, progress, rest, sink);
        }
        if let Some(Owed::Encryption(asked)) = core.queue.front() {
            let asked = *asked;
            if self.framer.at_boundary() {
                return encryption(core, asked, rest, sink);
            }
        }
        match self.framer.read(rest) {
            Header::NeedMore => {
                core.to_client.hold(rest.len());
                Ok(rest.len())
            }
            Header::Bad => Err(OpaqueReason::Malformed),
            Header::Message { kind, body, taken } => self.begin(core, kind, body, taken, rest, sink),
        }
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
        check_length(kind, body)?;
        let length = (body as u64).saturating_add(framing::HEADER as u64);
        let authenticates = kind == b'R' && core.authentication.reads_server();
        let holds = authenticates || (kind == b'E' && core.may_replace_error());
        let needs_body = authenticates || needs_body(kind);
        let end = taken.saturating_add(body);
        if let Some(whole) = rest.get(taken..end) {
            core.to_client.hold(end);
            let kept = if needs_body { whole.get(..body.min(MAX_DESCRIPTION)) } else { None };
            if !holds {
                core.to_client.pass();
            }
            core.server_message(kind, kept.unwrap_or_default(), length, sink)?;
            core.to_client.pass();
            return Ok(end);
        }
        core.to_client.hold(taken);
        if !holds {
            core.to_client.pass();
        }
        if !needs_body {
            core.server_message(kind, &[], length, sink)?;
        }
        let keep = if matches!(kind, b'E' | b'N') { body.min(MAX_FIELDS) } else { body };
        self.buffer.clear();
        self.current = Some(Progress { kind, remaining: body, length, keep, collects: needs_body, holds });
        Ok(taken)
    }

    fn go_on(
        &mut self,
        core: &mut Core,
        mut progress: Progress,
        rest: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<usize, OpaqueReason> {
        let taken = progress.remaining.min(rest.len());
        let part = rest.get(..taken).unwrap_or_default();
        progress.remaining = progress.remaining.saturating_sub(taken);
        core.to_client.hold(taken);
        if progress.collects {
            let kept = progress.keep.min(taken);
            self.buffer.extend_from_slice(part.get(..kept).unwrap_or_default());
            progress.keep = progress.keep.saturating_sub(kept);
        }
        if !progress.holds {
            core.to_client.pass();
        }
        if progress.remaining > 0 {
            self.current = Some(progress);
            return Ok(taken);
        }
        if progress.collects {
            core.server_message(progress.kind, &self.buffer, progress.length, sink)?;
        }
        core.to_client.pass();
        Ok(taken)
    }
}

fn check_length(kind: u8, body: usize) -> Result<(), OpaqueReason> {
    let limit = framing::server_limit(kind).ok_or(OpaqueReason::Malformed)?;
    let limit = if kind == b't' { MAX_DESCRIPTION } else { limit };
    if body > limit { Err(OpaqueReason::Malformed) } else { Ok(()) }
}

/// The one byte that answers SSLRequest or GSSENCRequest.
fn encryption(
    core: &mut Core,
    asked: Encryption,
    rest: &[u8],
    sink: &mut dyn Sink,
) -> Result<usize, OpaqueReason> {
    match (rest.first(), asked) {
        (Some(b'S'), Encryption::Tls) if core.encryption.ends_here => {
            core.queue.pop_front();
            core.to_client.hold(1);
            core.to_client.pass();
            core.upgrade(Upgrade::Both, sink);
            Ok(1)
        }
        (Some(b'S'), Encryption::Tls) => Err(OpaqueReason::Tls),
        (Some(b'G'), Encryption::Gss) => Err(OpaqueReason::GssEncryption),
        (Some(b'N'), _) => {
            core.queue.pop_front();
            core.to_client.hold(1);
            core.to_client.pass();
            Ok(1)
        }
        // An old server: an ErrorResponse instead of an answer.
        (Some(b'E'), _) => {
            core.queue.pop_front();
            Ok(0)
        }
        _ => Err(OpaqueReason::Desynchronised),
    }
}
