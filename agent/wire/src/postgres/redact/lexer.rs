//! SQL's lexical structure as a stream: finds literals and the words before them.

use super::{Output, connection::Scanner};
use crate::{
    message::redact::{Redactor as Patterns, Sink},
    postgres::split::{is_word, is_word_start},
    seam::RedactionReason,
};

/// Longest word that is told from others; longer ones are no keywords.
const MAX_WORD: usize = 64;
/// Longest tag of a dollar quote that is followed.
const MAX_TAG: usize = 128;

enum State {
    Plain,
    Word,
    /// After `U&`, which may begin a literal.
    UnicodePrefix,
    Dash,
    LineComment,
    Slash,
    Comment {
        depth: u32,
        previous: u8,
    },
    QuotedName,
    Literal {
        escapes: bool,
        masked: bool,
    },
    /// A quote inside a literal: its end, or the first of two.
    Quote {
        escapes: bool,
        masked: bool,
    },
    /// After a backslash in a literal with escapes.
    Escape {
        masked: bool,
    },
    /// Inside `$tag`.
    Tag(Vec<u8>),
    /// Inside a dollar quote; how much of its closing tag was seen.
    Dollar {
        tag: Vec<u8>,
        seen: usize,
        masked: bool,
    },
}

/// Whether the next literal is a credential.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Armed {
    No,
    /// After PASSWORD or IDENTIFIED BY.
    Password,
    /// After a literal that ends in `password=`.
    Continued,
}

/// The redactor of one text.
pub(in crate::postgres) struct Redactor {
    state: State,
    standard_strings: bool,
    word: Vec<u8>,
    armed: Armed,
    /// As it was before the word that is being read, which may be the prefix of a literal.
    armed_before: Armed,
    after_identified: bool,
    first_word: bool,
    in_set: bool,
    /// In a SET: its name ends in `password`.
    sets_password: bool,
    scanner: Scanner,
    /// Of the comment that is being read: it may hold a statement that somebody has put aside.
    comment: Patterns,
    /// Text that goes out unchanged, gathered.
    pending: Vec<u8>,
}

/// Takes what is found in a comment.
struct Comment<'a, O>(&'a mut O);

impl<O: Output> Sink for Comment<'_, O> {
    fn byte(&mut self, byte: u8) {
        self.0.text(&[byte]);
    }

    fn mark(&mut self, reason: RedactionReason) {
        self.0.mark(reason);
    }
}

/// Puts text into a buffer and marks behind it.
struct Buffered<'a, O> {
    pending: &'a mut Vec<u8>,
    out: &'a mut O,
}

impl<O: Output> Output for Buffered<'_, O> {
    fn text(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= 4096 {
            self.out.text(self.pending);
            self.pending.clear();
        }
    }

    fn mark(&mut self, reason: RedactionReason) {
        self.out.text(self.pending);
        self.pending.clear();
        self.out.mark(reason);
    }
}

impl Redactor {
    /// `standard_strings`: the session's `standard_conforming_strings`.
    pub(in crate::postgres) fn new(standard_strings: bool) -> Self {
        Self {
            state: State::Plain,
            standard_strings,
            word: Vec::new(),
            armed: Armed::No,
            armed_before: Armed::No,
            after_identified: false,
            first_word: true,
            in_set: false,
            sets_password: false,
            scanner: Scanner::new(),
            comment: Patterns::new(),
            pending: Vec::new(),
        }
    }

    /// The next piece of the text. Something may be kept back until the next call.
    pub(in crate::postgres) fn push(&mut self, text: &[u8], out: &mut impl Output) {
        let mut pending = core::mem::take(&mut self.pending);
        let mut buffered = Buffered { pending: &mut pending, out };
        for byte in text {
            self.byte(*byte, &mut buffered);
        }
        buffered.out.text(buffered.pending);
        pending.clear();
        self.pending = pending;
    }

    /// The text has ended.
    pub(in crate::postgres) fn finish(&mut self, out: &mut impl Output) {
        match core::mem::replace(&mut self.state, State::Plain) {
            State::Quote { masked: true, .. } => out.text(b"'"),
            State::Quote { masked: false, .. } => {
                self.scanner.finish(out);
                out.text(b"'");
            }
            State::Literal { masked: false, .. } => {
                self.scanner.finish(out);
            }
            State::Escape { masked: false } => {
                self.scanner.unit(b"\\", b'\\', out);
                self.scanner.finish(out);
            }
            State::Dollar { tag, seen, masked: false } => {
                self.units(tag.get(..seen).unwrap_or_default(), out);
                self.scanner.finish(out);
            }
            State::Comment { previous: b'*', .. } => {
                self.comment.byte(b'*', &mut Comment(out));
                self.end_comment(out);
            }
            State::LineComment | State::Comment { .. } => self.end_comment(out),
            _ => {}
        }
    }

    fn byte(&mut self, byte: u8, out: &mut impl Output) {
        match &mut self.state {
            State::Plain => self.plain(byte, out),
            State::Word if is_word(byte) => {
                out.text(&[byte]);
                if self.word.len() <= MAX_WORD {
                    self.word.push(byte.to_ascii_lowercase());
                }
            }
            State::Word => self.word_ended(byte, out),
            State::UnicodePrefix => self.after_unicode_prefix(byte, out),
            State::Dash if byte == b'-' => self.go(State::LineComment, byte, out),
            State::Slash if byte == b'*' => self.go(State::Comment { depth: 1, previous: 0 }, byte, out),
            State::Dash | State::Slash => {
                self.armed = Armed::No;
                self.state = State::Plain;
                self.plain(byte, out);
            }
            State::LineComment if matches!(byte, b'\n' | b'\r') => {
                self.end_comment(out);
                self.go(State::Plain, byte, out);
            }
            State::LineComment => self.comment.byte(byte, &mut Comment(out)),
            State::Comment { .. } => self.comment(byte, out),
            State::QuotedName if byte == b'"' => {
                out.text(&[byte]);
                self.state = State::Plain;
                self.keyword();
            }
            State::QuotedName => {
                out.text(&[byte]);
                if self.word.len() <= MAX_WORD {
                    self.word.push(byte.to_ascii_lowercase());
                }
            }
            State::Literal { .. } | State::Quote { .. } | State::Escape { .. } => self.literal(byte, out),
            State::Tag(_) => self.tag(byte, out),
            State::Dollar { .. } => self.dollar(byte, out),
        }
    }

    fn go(&mut self, state: State, byte: u8, out: &mut impl Output) {
        out.text(&[byte]);
        self.state = state;
    }

    fn plain(&mut self, byte: u8, out: &mut impl Output) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => out.text(&[byte]),
            b'\'' => self.begin_literal(!self.standard_strings, out),
            b'"' => {
                self.word.clear();
                self.go(State::QuotedName, byte, out);
            }
            b'-' => self.go(State::Dash, byte, out),
            b'/' => self.go(State::Slash, byte, out),
            b'$' => self.go(State::Tag(vec![b'$']), byte, out),
            _ if is_word_start(byte) => {
                self.word.clear();
                self.word.push(byte.to_ascii_lowercase());
                self.armed_before = self.armed;
                self.go(State::Word, byte, out);
            }
            b';' => {
                out.text(&[byte]);
                self.armed = Armed::No;
                self.first_word = true;
                self.in_set = false;
                self.sets_password = false;
            }
            b'=' if self.sets_password => {
                out.text(&[byte]);
                self.armed = Armed::Password;
            }
            // `'password=' || 'secret'`
            b'|' if self.armed == Armed::Continued => out.text(&[byte]),
            _ => {
                out.text(&[byte]);
                self.armed = Armed::No;
                self.after_identified = false;
            }
        }
    }

    fn word_ended(&mut self, byte: u8, out: &mut impl Output) {
        self.state = State::Plain;
        match (self.word.as_slice(), byte) {
            (b"e", b'\'') => {
                self.armed = self.armed_before;
                self.begin_literal(true, out);
            }
            (b"n" | b"b" | b"x", b'\'') => {
                self.armed = self.armed_before;
                self.begin_literal(!self.standard_strings, out);
            }
            (b"u", b'&') => self.go(State::UnicodePrefix, byte, out),
            _ => {
                self.keyword();
                self.plain(byte, out);
            }
        }
    }

    fn after_unicode_prefix(&mut self, byte: u8, out: &mut impl Output) {
        self.state = State::Plain;
        self.armed = if byte == b'\'' { self.armed_before } else { Armed::No };
        match byte {
            b'\'' => self.begin_literal(false, out),
            _ => self.plain(byte, out),
        }
    }

    /// A word or quoted name is whole.
    fn keyword(&mut self) {
        let word = self.word.as_slice();
        let arms = match word {
            b"password" => true,
            b"by" => self.after_identified,
            b"to" => self.sets_password,
            _ => false,
        };
        self.armed = if arms { Armed::Password } else { Armed::No };
        self.after_identified = word == b"identified";
        if self.first_word {
            self.first_word = false;
            self.in_set = word == b"set";
        } else if self.in_set && word != b"to" {
            self.sets_password = word.ends_with(b"password");
        }
    }

    /// A star is held back until it is known whether it ends the comment: an end is never taken for a credential.
    fn end_comment(&mut self, out: &mut impl Output) {
        self.comment.finish(&mut Comment(out));
        self.comment = Patterns::new();
    }

    fn comment(&mut self, byte: u8, out: &mut impl Output) {
        let State::Comment { depth, previous } = &mut self.state else {
            return;
        };
        if (*depth, *previous, byte) == (1, b'*', b'/') {
            self.end_comment(out);
            out.text(b"*");
            return self.go(State::Plain, byte, out);
        }
        let held = *previous == b'*';
        let (starts, ends) = ((*previous, byte) == (b'/', b'*'), (*previous, byte) == (b'*', b'/'));
        match (starts, ends) {
            (true, _) => *depth = depth.saturating_add(1),
            (_, true) => *depth = depth.saturating_sub(1),
            _ => {}
        }
        *previous = if starts || ends { 0 } else { byte };
        let holds = *previous == b'*';
        let mut out = Comment(out);
        if held {
            self.comment.byte(b'*', &mut out);
        }
        if !holds {
            self.comment.byte(byte, &mut out);
        }
    }

    /// Whether the literal that begins is a credential; if so, its mark goes out.
    fn begin_content(&mut self, out: &mut impl Output) -> bool {
        self.scanner = Scanner::new();
        match self.armed {
            Armed::No => return false,
            Armed::Password => out.mark(RedactionReason::Password),
            Armed::Continued => out.mark(RedactionReason::ConnectionString),
        }
        true
    }

    fn begin_literal(&mut self, escapes: bool, out: &mut impl Output) {
        out.text(b"'");
        let masked = self.begin_content(out);
        self.state = State::Literal { escapes, masked };
    }

    fn end_content(&mut self, masked: bool, out: &mut impl Output) {
        // After a credential another literal may follow that goes on with it.
        if !masked && self.scanner.finish(out) {
            self.armed = Armed::Continued;
        }
    }

    fn literal(&mut self, byte: u8, out: &mut impl Output) {
        match self.state {
            State::Literal { escapes, masked } => match byte {
                b'\'' => self.state = State::Quote { escapes, masked },
                b'\\' if escapes => self.state = State::Escape { masked },
                _ if masked => {}
                _ => self.scanner.unit(&[byte], byte, out),
            },
            State::Escape { masked } => {
                self.state = State::Literal { escapes: true, masked };
                if !masked {
                    let meant = match byte {
                        b'n' | b't' | b'r' | b'f' => b' ',
                        other => other,
                    };
                    self.scanner.unit(&[b'\\', byte], meant, out);
                }
            }
            State::Quote { escapes, masked } if byte == b'\'' => {
                self.state = State::Literal { escapes, masked };
                if !masked {
                    self.scanner.unit(b"''", b'\'', out);
                }
            }
            State::Quote { masked, .. } => {
                self.end_content(masked, out);
                out.text(b"'");
                self.state = State::Plain;
                self.plain(byte, out);
            }
            _ => {}
        }
    }

    fn tag(&mut self, byte: u8, out: &mut impl Output) {
        let State::Tag(tag) = &mut self.state else {
            return;
        };
        let first = tag.len() == 1;
        if byte == b'$' {
            tag.push(byte);
            let tag = core::mem::take(tag);
            out.text(b"$");
            let masked = self.begin_content(out);
            self.state = State::Dollar { tag, seen: 0, masked };
        } else if tag.len() < MAX_TAG && (is_word_start(byte) || (!first && byte.is_ascii_digit())) {
            tag.push(byte);
            out.text(&[byte]);
        } else {
            // `$1` and the like.
            self.armed = Armed::No;
            self.state = State::Plain;
            self.plain(byte, out);
        }
    }

    fn dollar(&mut self, byte: u8, out: &mut impl Output) {
        let State::Dollar { tag, seen, masked } = &mut self.state else {
            return;
        };
        let masked = *masked;
        if tag.get(*seen) == Some(&byte) {
            *seen = seen.saturating_add(1);
            if *seen == tag.len() {
                let tag = core::mem::take(tag);
                self.end_content(masked, out);
                out.text(&tag);
                self.state = State::Plain;
            }
            return;
        }
        // No tag has a dollar inside: only its last byte can be the beginning of another try.
        let restart = byte == b'$';
        let mut missed = tag.get(..*seen).unwrap_or_default().to_vec();
        *seen = usize::from(restart);
        if !restart {
            missed.push(byte);
        }
        if !masked {
            self.units(&missed, out);
        }
    }

    fn units(&mut self, bytes: &[u8], out: &mut impl Output) {
        for byte in bytes {
            self.scanner.unit(core::slice::from_ref(byte), *byte, out);
        }
    }
}
