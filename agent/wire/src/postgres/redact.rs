//! Takes credentials out of SQL before anything is kept, cut or digested.
//!
//! Owns what counts as a credential by grammar: the literal after `PASSWORD`, `IDENTIFIED BY` or in
//! `SET … password`, and passwords of connection strings inside literals. Works on a stream: the result
//! does not depend on how the text was cut.

mod connection;
mod lexer;

use crate::{
    capture::Capture,
    seam::{Captured, Redaction, RedactionReason},
};

pub(super) use lexer::Redactor;

/// Stands where a credential stood.
pub(super) const MARK: &[u8] = b"[redacted]";

/// Where redacted text goes.
pub(super) trait Output {
    fn text(&mut self, bytes: &[u8]);
    /// A credential was here.
    fn mark(&mut self, reason: RedactionReason);
}

/// Redacted text, cut at a limit.
pub(super) struct RedactedCapture {
    capture: Capture,
    redactions: Vec<Redaction>,
}

impl RedactedCapture {
    pub(super) fn new(limit: usize) -> Self {
        Self { capture: Capture::new(limit), redactions: Vec::new() }
    }

    pub(super) fn so_far(&self) -> (Captured, Vec<Redaction>) {
        (self.capture.so_far(), self.redactions.clone())
    }

    pub(super) fn finish(self) -> (Captured, Vec<Redaction>) {
        (self.capture.finish(), self.redactions)
    }
}

impl Output for RedactedCapture {
    fn text(&mut self, bytes: &[u8]) {
        self.capture.push(bytes);
    }

    fn mark(&mut self, reason: RedactionReason) {
        let offset = self.capture.total();
        self.capture.push(MARK);
        let length = (self.capture.kept() as u64).saturating_sub(offset);
        if length > 0 {
            self.redactions.push(Redaction { offset, length, reason });
        }
    }
}

/// Whether a text could hold a credential at all: a quick look, without false negatives.
pub(super) fn is_suspect(text: &[u8]) -> bool {
    for (at, byte) in text.iter().enumerate() {
        let begins = |word: &[u8]| {
            text.get(at..at.saturating_add(word.len())).is_some_and(|here| here.eq_ignore_ascii_case(word))
        };
        let found = match byte {
            b'p' | b'P' => begins(b"password"),
            b'i' | b'I' => begins(b"identified"),
            b':' => begins(b"://"),
            _ => false,
        };
        if found {
            return true;
        }
    }
    false
}

/// Redacts a text that is in memory as a whole. `None`: there is nothing to redact.
pub(super) fn redact(text: &[u8], standard_strings: bool) -> Option<(Vec<u8>, Vec<Redaction>)> {
    if !is_suspect(text) {
        return None;
    }
    let mut output = RedactedCapture::new(usize::MAX);
    let mut redactor = Redactor::new(standard_strings);
    redactor.push(text, &mut output);
    redactor.finish(&mut output);
    let (captured, redactions) = output.finish();
    (!redactions.is_empty()).then_some((captured.bytes, redactions))
}

#[cfg(test)]
mod tests;
