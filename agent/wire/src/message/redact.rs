//! Takes credentials out of GoogleSQL, and of JSON that may hold some, before anything is kept or digested.
//!
//! Owns what counts as a credential: the literal after a word that ends in `password` (also as a name: with
//! `=` or `:` between) or after `IDENTIFIED BY`, `password=…`, and the password of `scheme://user:password@`.
//! Looks at patterns, not at grammar, so that it sees them in a literal within a literal as well; when in
//! doubt it takes more away, never less. The result does not depend on how the text was cut.

use crate::{
    seam::{Captured, Redaction, RedactionReason},
    tokens::Marked,
};

/// The words that are told from others, as [`Word`] keeps them.
const PASSWORD: u128 = u64::from_be_bytes(*b"password") as u128;
const IDENTIFIED: u128 = u128::from_be_bytes(*b"\0\0\0\0\0\0identified");
const BY: u128 = u16::from_be_bytes(*b"by") as u128;
/// Longest user or password of a URL that is kept while it is not known what it is.
const MAX_CANDIDATE: usize = 1024;
/// Bytes that are captured at once.
const BATCH: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    /// After a word that a credential follows.
    Key(Key),
    /// After `IDENTIFIED`.
    Identified,
    /// Within a quoted credential.
    Quoted(Quoted),
    /// Within a bare one.
    Bare,
    /// After `://`.
    User {
        length: usize,
    },
    /// After `://user:`.
    Candidate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    /// The quote before the word: the same one after it ends a name.
    quote: Option<u8>,
    /// Whether anything came after the word.
    moved: bool,
    /// Whether `=` came, and nothing after it.
    equals: bool,
    /// Whether white space came.
    spaced: bool,
    /// Whether the byte before was a backslash.
    backslash: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quoted {
    quote: u8,
    /// The quote was written with a backslash: so is the one that ends it.
    nested: bool,
    marked: bool,
    /// The byte before was a backslash.
    backslash: bool,
    /// It takes three quotes to end it.
    triple: bool,
    /// Quotes that were seen and may be its end, or stand for one (`''`).
    run: u8,
}

/// The word that is read: its last 16 bytes in lower case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Word(u128);

impl Word {
    fn push(&mut self, byte: u8) {
        self.0 = self.0.wrapping_shl(8) | u128::from(byte.to_ascii_lowercase());
    }

    /// Whether it ends so, e.g. `db_password`.
    fn is_password(self) -> bool {
        self.0 & u128::from(u64::MAX) == PASSWORD
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Where a text goes, byte by byte.
pub(crate) trait Sink {
    fn byte(&mut self, byte: u8);
    /// A credential was here.
    fn mark(&mut self, reason: RedactionReason);
}

/// Finds credentials in one text.
pub(crate) struct Redactor {
    state: State,
    word: Word,
    /// The byte before the word.
    before: u8,
    /// How much of `://` was seen.
    scheme: usize,
    kept: Vec<u8>,
}

/// Redacted text, cut at a limit.
pub(super) struct RedactedCapture {
    redactor: Redactor,
    output: Output,
}

struct Output {
    marked: Marked,
    batch: Vec<u8>,
}

impl Output {
    fn flush(&mut self) {
        self.marked.text(&self.batch);
        self.batch.clear();
    }
}

impl Sink for Output {
    fn byte(&mut self, byte: u8) {
        self.batch.push(byte);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn mark(&mut self, reason: RedactionReason) {
        self.flush();
        self.marked.mark(reason);
    }
}

impl RedactedCapture {
    pub(super) fn new(limit: usize) -> Self {
        let redactor = Redactor::new();
        let output = Output { marked: Marked::new(limit), batch: Vec::new() };
        Self { redactor, output }
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        for byte in text {
            self.redactor.byte(*byte, &mut self.output);
        }
        self.output.flush();
    }

    pub(super) fn so_far(&self) -> (Captured, Vec<Redaction>) {
        self.output.marked.so_far()
    }

    pub(super) fn finish(mut self) -> (Captured, Vec<Redaction>) {
        self.redactor.finish(&mut self.output);
        self.output.flush();
        self.output.marked.finish()
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'\'' | b'"')
}

/// Ends a bare credential, and the user or password of a URL.
fn is_end(byte: u8) -> bool {
    byte.is_ascii_whitespace()
        || is_quote(byte)
        || matches!(byte, b';' | b'&' | b',' | b')' | b'}' | b'\\' | b'`')
}

impl Redactor {
    pub(crate) fn new() -> Self {
        Self { state: State::Plain, word: Word::default(), before: 0, scheme: 0, kept: Vec::new() }
    }

    pub(crate) fn byte(&mut self, byte: u8, out: &mut impl Sink) {
        match self.state {
            State::Plain | State::Identified => self.plain(byte, out),
            State::Key(key) => self.key(key, byte, out),
            State::Quoted(quoted) => self.quoted(quoted, byte, out),
            State::Bare if is_end(byte) => self.again(byte, out),
            State::Bare => {}
            State::User { length } => self.user(length, byte, out),
            State::Candidate => self.candidate(byte, out),
        }
    }

    /// The byte belongs to what comes next.
    fn again(&mut self, byte: u8, out: &mut impl Sink) {
        self.state = State::Plain;
        self.word = Word::default();
        self.before = 0;
        self.plain(byte, out);
    }

    fn plain(&mut self, byte: u8, out: &mut impl Sink) {
        if is_word(byte) {
            self.word.push(byte);
            self.scheme = 0;
            out.byte(byte);
            return;
        }
        let word = std::mem::take(&mut self.word);
        let quote = Some(self.before).filter(|before| is_quote(*before));
        self.before = byte;
        let by = self.state == State::Identified && word.0 == BY;
        if by || word.is_password() {
            let key = Key { quote, moved: false, equals: false, spaced: false, backslash: false };
            self.key(key, byte, out);
            return;
        }
        if word.0 == IDENTIFIED {
            self.state = State::Identified;
        } else if !word.is_empty() || !byte.is_ascii_whitespace() {
            self.state = State::Plain;
        }
        self.scheme = match (self.scheme, byte) {
            (_, b':') => 1,
            (seen @ (1 | 2), b'/') => seen.saturating_add(1),
            _ => 0,
        };
        out.byte(byte);
        if self.scheme == 3 {
            self.scheme = 0;
            self.state = State::User { length: 0 };
        }
    }

    fn key(&mut self, key: Key, byte: u8, out: &mut impl Sink) {
        let Key { quote, moved, equals, spaced, backslash } = key;
        let next = match byte {
            // The end of a name in quotes: `"password": "…"`.
            _ if is_quote(byte) && !moved && quote == Some(byte) => {
                Key { quote: None, moved: false, backslash: false, ..key }
            }
            _ if is_quote(byte) => {
                out.byte(byte);
                let nested = backslash;
                let begun =
                    Quoted { quote: byte, nested, marked: false, backslash: false, triple: false, run: 0 };
                self.state = State::Quoted(begun);
                return;
            }
            b'\\' => Key { backslash: true, ..key },
            b'=' => Key { moved: true, equals: true, backslash: false, ..key },
            b':' | b'>' => Key { moved: true, equals: false, backslash: false, ..key },
            _ if byte.is_ascii_whitespace() => Key { moved: true, spaced: true, backslash: false, ..key },
            _ if equals && !spaced && !is_end(byte) => {
                out.mark(RedactionReason::ConnectionString);
                self.state = State::Bare;
                return;
            }
            _ => {
                self.again(byte, out);
                return;
            }
        };
        out.byte(byte);
        self.state = State::Key(next);
    }

    fn quoted(&mut self, quoted: Quoted, byte: u8, out: &mut impl Sink) {
        if quoted.nested {
            self.nested(quoted, byte, out);
            return;
        }
        let Quoted { quote, marked, backslash, triple, run, .. } = quoted;
        let inside = Quoted { backslash: false, run: 0, ..quoted };
        if byte == quote && !backslash {
            let run = run.saturating_add(1);
            self.state = match (triple, run) {
                (true, 3) => {
                    out.byte(quote);
                    self.closed(byte);
                    return;
                }
                // Two quotes after the first one: nothing yet, and three to end it.
                (false, 2) if !marked => State::Quoted(Quoted { triple: true, ..inside }),
                (false, 2) => State::Quoted(inside),
                _ => State::Quoted(Quoted { run, ..inside }),
            };
        } else if run == 1 && !triple {
            out.byte(quote);
            self.again(byte, out);
        } else {
            self.hide(Quoted { backslash: byte == b'\\' && !backslash, ..inside }, out);
        }
    }

    /// `\"…\"`: ends with a backslash and the quote, or with what it is nested in.
    fn nested(&mut self, quoted: Quoted, byte: u8, out: &mut impl Sink) {
        let Quoted { quote, backslash, .. } = quoted;
        if is_quote(byte) && (backslash || byte == quote) {
            if backslash {
                out.byte(b'\\');
            }
            out.byte(byte);
            self.closed(byte);
        } else if byte == b'\\' && !backslash {
            self.state = State::Quoted(Quoted { backslash: true, ..quoted });
        } else {
            self.hide(Quoted { backslash: false, ..quoted }, out);
        }
    }

    fn closed(&mut self, quote: u8) {
        self.state = State::Plain;
        self.word = Word::default();
        self.before = quote;
    }

    fn hide(&mut self, quoted: Quoted, out: &mut impl Sink) {
        if !quoted.marked {
            out.mark(RedactionReason::Password);
        }
        self.state = State::Quoted(Quoted { marked: true, ..quoted });
    }

    fn user(&mut self, length: usize, byte: u8, out: &mut impl Sink) {
        match byte {
            b':' => {
                out.byte(byte);
                self.kept.clear();
                self.state = State::Candidate;
            }
            b'/' | b'?' | b'#' | b'@' => self.again(byte, out),
            _ if is_end(byte) || length >= MAX_CANDIDATE => self.again(byte, out),
            _ => {
                out.byte(byte);
                self.state = State::User { length: length.saturating_add(1) };
            }
        }
    }

    fn candidate(&mut self, byte: u8, out: &mut impl Sink) {
        // A password may hold whatever its writer did not escape, so only what no URL holds ends it.
        if byte == b'@' {
            out.mark(RedactionReason::ConnectionString);
            self.kept.clear();
            self.again(byte, out);
        } else if byte.is_ascii_whitespace() || is_quote(byte) || byte == b'\\' || byte == b'`' {
            self.release(out);
            self.again(byte, out);
        } else if self.kept.len() == MAX_CANDIDATE {
            out.mark(RedactionReason::ConnectionString);
            self.kept.clear();
            self.state = State::Bare;
        } else {
            self.kept.push(byte);
        }
    }

    fn release(&mut self, out: &mut impl Sink) {
        for byte in std::mem::take(&mut self.kept) {
            out.byte(byte);
        }
    }

    pub(crate) fn finish(&mut self, out: &mut impl Sink) {
        self.release(out);
        if let State::Quoted(Quoted { run: 1, triple: false, quote, .. }) = self.state {
            out.byte(quote);
        }
    }
}

#[cfg(test)]
mod tests;
