//! Passwords of connection strings inside one literal: `password=…` and `scheme://user:password@host`.
//!
//! Sees the literal unit by unit, as it is written and as it is meant (`''` means `'`). When in doubt it
//! takes more away, never less.

use super::Output;
use crate::seam::RedactionReason;

const KEY: &[u8] = b"password";
const SCHEME_END: &[u8] = b"://";
/// Longest candidate for a URL's password that is kept while it is not known what it is, bytes.
const MAX_CANDIDATE: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Looking for a key or the end of a scheme; how much of each was seen.
    Looking { key: usize, scheme: usize },
    /// The key was seen; white space may follow.
    AfterKey,
    /// `=` was seen; white space may follow.
    BeforeValue,
    /// Inside a value that was marked.
    Value { quoted: bool, escaped: bool },
    /// After `://`.
    User,
    /// After `://user:`; what was read may be a port.
    Candidate { kept: Vec<u8>, marked: bool },
}

const START: State = State::Looking { key: 0, scheme: 0 };

/// Scans one literal.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    state: State,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { state: START }
    }

    /// The next unit: as written, and the byte that it means.
    pub(super) fn unit(&mut self, raw: &[u8], meant: u8, out: &mut impl Output) {
        match &mut self.state {
            State::Looking { key, scheme } => {
                *key = advance(KEY, *key, meant.to_ascii_lowercase());
                *scheme = advance(SCHEME_END, *scheme, meant);
                out.text(raw);
                if *key == KEY.len() {
                    self.state = State::AfterKey;
                } else if *scheme == SCHEME_END.len() {
                    self.state = State::User;
                }
            }
            State::AfterKey if meant == b'=' => {
                out.text(raw);
                self.state = State::BeforeValue;
            }
            State::AfterKey | State::BeforeValue if meant.is_ascii_whitespace() => out.text(raw),
            State::AfterKey => {
                self.state = START;
                self.unit(raw, meant, out);
            }
            State::BeforeValue => {
                let quoted = meant == b'\'';
                if quoted {
                    out.text(raw);
                }
                out.mark(RedactionReason::ConnectionString);
                self.state = State::Value { quoted, escaped: meant == b'\\' };
            }
            State::Value { escaped, .. } if *escaped => *escaped = false,
            State::Value { escaped, .. } if meant == b'\\' => *escaped = true,
            State::Value { quoted, .. } => {
                let ends = if *quoted { meant == b'\'' } else { meant.is_ascii_whitespace() };
                if ends {
                    out.text(raw);
                    self.state = START;
                }
            }
            State::User => self.user(raw, meant, out),
            State::Candidate { .. } => self.candidate(raw, meant, out),
        }
    }

    fn user(&mut self, raw: &[u8], meant: u8, out: &mut impl Output) {
        match meant {
            b':' => {
                out.text(raw);
                self.state = State::Candidate { kept: Vec::new(), marked: false };
            }
            b'@' => {
                out.text(raw);
                self.state = START;
            }
            _ if ends_authority(meant) => {
                self.state = START;
                self.unit(raw, meant, out);
            }
            _ => out.text(raw),
        }
    }

    fn candidate(&mut self, raw: &[u8], meant: u8, out: &mut impl Output) {
        let State::Candidate { kept, marked } = &mut self.state else {
            return;
        };
        if meant == b'@' || ends_authority(meant) {
            let kept = core::mem::take(kept);
            let marked = *marked;
            self.state = START;
            if meant == b'@' && !marked && !kept.is_empty() {
                out.mark(RedactionReason::ConnectionString);
            } else if !marked {
                self.again(&kept, out);
            }
            self.unit(raw, meant, out);
        } else if *marked {
            // More of what was taken away already.
        } else if kept.len() >= MAX_CANDIDATE {
            *marked = true;
            out.mark(RedactionReason::ConnectionString);
        } else {
            kept.extend_from_slice(raw);
        }
    }

    /// What was kept is a port, or the like: it is looked at as any other text.
    fn again(&mut self, kept: &[u8], out: &mut impl Output) {
        for byte in kept {
            self.unit(core::slice::from_ref(byte), *byte, out);
        }
    }

    /// The literal has ended. Returns whether a value was to come, as in `'password=' || 'secret'`.
    pub(super) fn finish(&mut self, out: &mut impl Output) -> bool {
        match core::mem::replace(&mut self.state, START) {
            State::Candidate { kept, marked: false } => {
                self.again(&kept, out);
                self.state = START;
                false
            }
            State::BeforeValue => true,
            _ => false,
        }
    }
}

/// How much of `pattern` has been seen after one more byte.
fn advance(pattern: &[u8], seen: usize, byte: u8) -> usize {
    if pattern.get(seen) == Some(&byte) {
        return seen.saturating_add(1);
    }
    usize::from(pattern.first() == Some(&byte))
}

fn ends_authority(byte: u8) -> bool {
    matches!(byte, b'/' | b'?' | b'#' | b'\'' | b'"') || byte.is_ascii_whitespace()
}
