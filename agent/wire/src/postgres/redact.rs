//! Takes credentials out of SQL before anything is kept, cut or digested.
//!
//! Owns what counts as a credential by grammar: the literal after `PASSWORD`, `IDENTIFIED BY` or in
//! `SET … password`, and passwords of connection strings inside literals. Works on a stream: the result
//! does not depend on how the text was cut.

mod connection;
mod lexer;

use crate::{
    seam::{Captured, Redaction, RedactionReason},
    tokens::{self, Marked},
};

pub(super) use lexer::Redactor;

pub(super) use crate::tokens::MARK;

/// Where redacted text goes.
pub(super) trait Output {
    fn text(&mut self, bytes: &[u8]);
    /// A credential was here.
    fn mark(&mut self, reason: RedactionReason);
}

/// Redacted text, cut at a limit.
pub(super) struct RedactedCapture(Marked);

impl RedactedCapture {
    pub(super) fn new(limit: usize) -> Self {
        Self(Marked::new(limit))
    }

    pub(super) fn so_far(&self) -> (Captured, Vec<Redaction>) {
        self.0.so_far()
    }

    pub(super) fn finish(self) -> (Captured, Vec<Redaction>) {
        self.0.finish()
    }
}

impl Output for RedactedCapture {
    fn text(&mut self, bytes: &[u8]) {
        self.0.text(bytes);
    }

    fn mark(&mut self, reason: RedactionReason) {
        self.0.mark(reason);
    }
}

/// Whether a text could hold a credential at all: a quick look, without false negatives.
pub(super) fn is_suspect(text: &[u8]) -> bool {
    if tokens::is_suspect(text) {
        return true;
    }
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
pub(super) fn redact(text: &[u8], standard_strings: bool) -> Option<(Captured, Vec<Redaction>)> {
    if !is_suspect(text) {
        return None;
    }
    let mut output = RedactedCapture::new(usize::MAX);
    let mut redactor = Redactor::new(standard_strings);
    redactor.push(text, &mut output);
    redactor.finish(&mut output);
    let (captured, redactions) = output.finish();
    (!redactions.is_empty()).then_some((captured, redactions))
}

#[cfg(test)]
mod tests;
