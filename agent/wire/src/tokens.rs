//! Takes tokens out of any text before it is kept or digested, wherever they stand: the signature of a compact JWS
//! (RFC 7515 section 3.1), without which it proves nothing, and an access token of Google's as a whole.
//!
//! Owns what looks like one. Works on a stream; the result does not depend on how the text was cut.

use std::borrow::Cow;

use crate::{
    capture::Capture,
    seam::{Captured, Redaction, RedactionReason, Token},
    secret::Secret,
};

/// Stands where a credential stood.
pub(crate) const MARK: &[u8] = b"[redacted]";
/// How the header of a JWS begins: `{"`, `{ "`, or a brace and a line's end, in base64url.
const HEADERS: [&[u8]; 4] = [b"eyJ", b"eyAi", b"ewog", b"ew0K"];
/// How an access token begins.
const ACCESS: &[u8] = b"ya29.";
/// Longest token that is handed on, bytes. Longer ones are taken out all the same.
const MOST_BYTES: usize = 16 * 1024;

/// Where the text goes.
pub(crate) trait Output {
    /// Nothing is wrong with this.
    fn text(&mut self, bytes: &[u8]);
    /// A token was here, or its signature. `token`: the whole of it, for one that is signed.
    fn mark(&mut self, reason: RedactionReason, token: Option<Secret>);
}

/// Text without its tokens, cut at a limit, with its marks.
pub(crate) struct Marked {
    tokens: Tokens,
    kept: Kept,
}

struct Kept {
    capture: Capture,
    redactions: Vec<Redaction>,
    tokens: Vec<Token>,
}

impl Marked {
    pub(crate) fn new(limit: usize) -> Self {
        let kept = Kept { capture: Capture::new(limit), redactions: Vec::new(), tokens: Vec::new() };
        Self { tokens: Tokens::new(), kept }
    }

    pub(crate) fn text(&mut self, bytes: &[u8]) {
        self.tokens.push(bytes, &mut self.kept);
    }

    /// Something else that was found was here.
    pub(crate) fn mark(&mut self, reason: RedactionReason) {
        self.tokens.finish(&mut self.kept);
        self.kept.mark(reason, None);
    }

    pub(crate) fn so_far(&self) -> (Captured, Vec<Redaction>) {
        let Kept { capture, redactions, tokens } = &self.kept;
        (Captured { tokens: tokens.clone(), ..capture.so_far() }, redactions.clone())
    }

    pub(crate) fn finish(mut self) -> (Captured, Vec<Redaction>) {
        self.tokens.finish(&mut self.kept);
        let Kept { capture, redactions, tokens } = self.kept;
        (Captured { tokens, ..capture.finish() }, redactions)
    }
}

impl Output for Kept {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not in a word that could be a token.
    Outside,
    /// In one that is none.
    Word,
    /// As much as `kept` is how a token begins.
    Begin,
    Header,
    Payload,
    /// After the second dot.
    Dot,
    Signature,
    /// A dot within what is taken out: part of it if more follows.
    SignatureDot,
    Access,
}

/// Finds tokens in one text.
#[derive(Debug)]
pub(crate) struct Tokens {
    state: State,
    /// The word so far, while it may be a token.
    kept: zeroize::Zeroizing<Vec<u8>>,
    too_long: bool,
}

/// Whether a text could hold a token at all: a quick look, without false negatives.
pub(crate) fn is_suspect(text: &[u8]) -> bool {
    text.iter().enumerate().any(|(at, byte)| {
        let begins = |word: &[u8]| text.get(at..).is_some_and(|rest| rest.starts_with(word));
        match byte {
            b'e' => HEADERS.iter().any(|header| begins(header)),
            b'y' => begins(ACCESS),
            _ => false,
        }
    })
}

/// A text that is in memory as a whole, without its tokens.
#[must_use]
pub fn without_tokens(text: &[u8]) -> Cow<'_, [u8]> {
    struct Plain(Vec<u8>);
    impl Output for Plain {
        fn text(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
        fn mark(&mut self, _: RedactionReason, _: Option<Secret>) {
            self.0.extend_from_slice(MARK);
        }
    }
    if !is_suspect(text) {
        return Cow::Borrowed(text);
    }
    let mut plain = Plain(Vec::with_capacity(text.len()));
    let mut tokens = Tokens::new();
    tokens.push(text, &mut plain);
    tokens.finish(&mut plain);
    Cow::Owned(plain.0)
}

/// The same of a text in UTF-8.
#[must_use]
pub fn text_without_tokens(text: &str) -> String {
    String::from_utf8_lossy(&without_tokens(text.as_bytes())).into_owned()
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self { state: State::Outside, kept: Default::default(), too_long: false }
    }

    /// The next piece of the text.
    pub(crate) fn push(&mut self, text: &[u8], out: &mut impl Output) {
        let mut from = 0;
        for (at, byte) in text.iter().enumerate() {
            let passes = self.byte(*byte, at, &mut from, text, out);
            if !passes {
                // It is held back: what was before it goes out.
                out.text(text.get(from..at).unwrap_or_default());
                from = at.saturating_add(1);
            }
        }
        out.text(text.get(from..).unwrap_or_default());
    }

    /// The text has ended.
    pub(crate) fn finish(&mut self, out: &mut impl Output) {
        let dot = self.state == State::SignatureDot;
        self.end(out);
        if dot {
            out.text(b".");
        }
        self.state = State::Outside;
    }

    /// Whether the byte stays where it is.
    fn byte(&mut self, byte: u8, at: usize, from: &mut usize, text: &[u8], out: &mut impl Output) -> bool {
        match self.state {
            State::Signature | State::Access if is_part(byte) => {
                self.keep(byte);
                return false;
            }
            State::Signature | State::Access if byte == b'.' => {
                self.state = State::SignatureDot;
                return false;
            }
            State::SignatureDot if is_part(byte) => {
                self.keep(b'.');
                self.keep(byte);
                self.state = State::Signature;
                return false;
            }
            State::Signature | State::Access | State::SignatureDot => {
                // Nothing of this text waits before it: it was taken out.
                out.text(text.get(*from..at).unwrap_or_default());
                *from = at;
                self.finish(out);
            }
            State::Dot if is_part(byte) => {
                self.keep(byte);
                self.state = State::Signature;
                return false;
            }
            _ => {}
        }
        self.state = self.next(byte);
        match self.state {
            State::Outside | State::Word => self.kept.clear(),
            State::Access => {
                self.keep(byte);
            }
            _ => self.keep(byte),
        }
        true
    }

    fn next(&self, byte: u8) -> State {
        match self.state {
            State::Outside if matches!(byte, b'e' | b'y') => State::Begin,
            State::Begin => self.begun(byte),
            State::Header if byte == b'.' => State::Payload,
            State::Payload if byte == b'.' => State::Dot,
            State::Header | State::Payload if is_part(byte) => self.state,
            State::Word if is_part(byte) => State::Word,
            _ if is_part(byte) && self.state != State::Outside => State::Word,
            State::Outside if is_part(byte) => State::Word,
            _ => State::Outside,
        }
    }

    fn begun(&self, byte: u8) -> State {
        let matches =
            |begin: &[u8]| begin.starts_with(&self.kept) && begin.get(self.kept.len()) == Some(&byte);
        let whole = |begin: &[u8]| begin.len() == self.kept.len().saturating_add(1);
        if HEADERS.iter().any(|header| matches(header) && whole(header)) {
            State::Header
        } else if matches(ACCESS) && whole(ACCESS) {
            State::Access
        } else if matches(ACCESS) || HEADERS.iter().any(|header| matches(header)) {
            State::Begin
        } else if is_part(byte) {
            State::Word
        } else {
            State::Outside
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.kept.len() < MOST_BYTES {
            self.kept.push(byte);
        } else {
            self.too_long = true;
        }
    }

    /// What was taken out is marked, once it is whole.
    fn end(&mut self, out: &mut impl Output) {
        let token = std::mem::take(&mut *self.kept);
        let too_long = std::mem::take(&mut self.too_long);
        let signed = !token.starts_with(ACCESS);
        match self.state {
            State::Signature | State::SignatureDot if signed => {
                let whole = Some(Secret::new(token)).filter(|_| !too_long);
                out.mark(RedactionReason::Signature, whole);
            }
            State::Signature | State::SignatureDot | State::Access if token.len() > ACCESS.len() => {
                out.mark(RedactionReason::Token, None);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default, PartialEq, Debug)]
    struct Seen(String, Vec<String>);

    impl Output for Seen {
        fn text(&mut self, bytes: &[u8]) {
            self.0.push_str(&String::from_utf8_lossy(bytes));
        }
        fn mark(&mut self, reason: RedactionReason, token: Option<Secret>) {
            self.0.push_str(if reason == RedactionReason::Token { "<T>" } else { "<S>" });
            self.1.extend(token.map(|token| String::from_utf8_lossy(token.bytes()).into_owned()));
        }
    }

    fn run(text: &[u8], split: usize) -> Seen {
        let (head, tail) = text.split_at(split.min(text.len()));
        let (mut seen, mut tokens) = (Seen::default(), Tokens::new());
        tokens.push(head, &mut seen);
        tokens.push(tail, &mut seen);
        tokens.finish(&mut seen);
        seen
    }

    #[test]
    fn signatures_and_access_tokens_are_taken_out_at_every_split() {
        for (text, expected, tokens) in [
            ("a eyJhbGci.eyJz.c2ln b", "a eyJhbGci.eyJz.<S> b", &["eyJhbGci.eyJz.c2ln"][..]),
            ("'eyJh.e30.c2ln'", "'eyJh.e30.<S>'", &["eyJh.e30.c2ln"]),
            ("x=eyJh..c2-_.", "x=eyJh..<S>.", &["eyJh..c2-_"]),
            ("eyJh.k.iv.text.tag", "eyJh.k.<S>", &["eyJh.k.iv.text.tag"]),
            ("ya29.a0Af-_x.y;", "ya29.<T>;", &[]),
            ("Bearer ya29.c", "Bearer ya29.<T>", &[]),
            ("ya29. and yay", "ya29. and yay", &[]),
            ("ey eyJ eyJa.b keyJa.b.c eyes.example.com", "ey eyJ eyJa.b keyJa.b.c eyes.example.com", &[]),
            ("eyJa.b.", "eyJa.b.", &[]),
            ("eyAiYSI.b.c", "eyAiYSI.b.<S>", &["eyAiYSI.b.c"]),
            ("eyJa.b.c,eyJd.e.f", "eyJa.b.<S>,eyJd.e.<S>", &["eyJa.b.c", "eyJd.e.f"]),
            ("\u{e4}eyJa.b.c\u{e4}", "\u{e4}eyJa.b.<S>\u{e4}", &["eyJa.b.c"]),
        ] {
            for split in 0..=text.len() {
                let seen = run(text.as_bytes(), split);
                let lossless = std::str::from_utf8(&text.as_bytes()[..split]).is_ok();
                if lossless {
                    assert_eq!(
                        (seen.0.as_str(), seen.1.as_slice()),
                        (expected, &*tokens.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()),
                        "{text} at {split}"
                    );
                }
            }
            let marked = String::from_utf8(without_tokens(text.as_bytes()).into_owned()).expect("text");
            assert_eq!(marked, expected.replace("<S>", "[redacted]").replace("<T>", "[redacted]"));
        }
    }

    #[test]
    fn a_token_that_is_too_long_is_taken_out_and_not_handed_on() {
        let long = format!("eyJh.e30.{}!", "s".repeat(20_000));
        assert_eq!(run(long.as_bytes(), 7), Seen("eyJh.e30.<S>!".into(), Vec::new()));
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_the_split(text in "[eyJ.a29A_ ']{0,40}", split in 0usize..40) {
            prop_assert_eq!(run(text.as_bytes(), split), run(text.as_bytes(), 0));
        }

        #[test]
        fn what_is_not_suspect_is_left_as_it_is(text in "[eyJ.a29A ']{0,40}") {
            let seen = run(text.as_bytes(), 0);
            prop_assert!(is_suspect(text.as_bytes()) || seen.0 == text);
        }
    }
}
