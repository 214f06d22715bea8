//! Takes credentials out of SQL before anything is kept, cut or digested.
//!
//! Owns what counts as a credential by grammar: the literal after `PASSWORD`, `IDENTIFIED BY` or in
//! `SET … password`, and passwords of connection strings inside literals. Works on a stream: the result
//! does not depend on how the text was cut.

mod connection;
mod lexer;

use crate::{
    capture::Capture,
    seam::{Captured, Redaction, RedactionReason, Token},
    secret::Secret,
    tokens::{self, Tokens},
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
    kept: Kept,
    tokens: Tokens,
}

struct Kept {
    capture: Capture,
    redactions: Vec<Redaction>,
    tokens: Vec<Token>,
}

impl RedactedCapture {
    pub(super) fn new(limit: usize) -> Self {
        let kept = Kept { capture: Capture::new(limit), redactions: Vec::new(), tokens: Vec::new() };
        Self { kept, tokens: Tokens::new() }
    }

    pub(super) fn so_far(&self) -> (Captured, Vec<Redaction>) {
        let Kept { capture, redactions, tokens } = &self.kept;
        (Captured { tokens: tokens.clone(), ..capture.so_far() }, redactions.clone())
    }

    pub(super) fn finish(mut self) -> (Captured, Vec<Redaction>) {
        self.tokens.finish(&mut self.kept);
        let Kept { capture, redactions, tokens } = self.kept;
        (Captured { tokens, ..capture.finish() }, redactions)
    }
}

impl Output for RedactedCapture {
    fn text(&mut self, bytes: &[u8]) {
        self.tokens.push(bytes, &mut self.kept);
    }

    fn mark(&mut self, reason: RedactionReason) {
        self.tokens.finish(&mut self.kept);
        tokens::Output::mark(&mut self.kept, reason, None);
    }
}

impl tokens::Output for Kept {
    fn text(&mut self, bytes: &[u8]) {
        self.capture.push(bytes);
    }

    fn mark(&mut self, reason: RedactionReason, token: Option<Secret>) {
        let offset = self.capture.total();
        self.capture.push(MARK);
        let length = (self.capture.kept() as u64).saturating_sub(offset);
        if length > 0 {
            self.redactions.push(Redaction { offset, length, reason });
            let room = self.tokens.len() < Captured::TOKENS;
            self.tokens.extend(token.filter(|_| room).map(|secret| Token { mark: offset, secret }));
        }
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
