//! The syntax of JSON (RFC 8259), pushed in pieces.

/// Deepest nesting that is followed. BigQuery's own limit for records is 15; protocol buffers' is 100.
const MAX_DEPTH: usize = 128;
/// Bytes kept of a name or number.
const MAX_WORD: usize = 1024;

/// Why nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::message) enum Fault {
    /// Not JSON, or cut.
    Malformed,
    /// Nested deeper than is followed.
    TooDeep,
}

/// What was read, in order.
pub(super) trait Events {
    /// An object begins, or an array.
    fn begin(&mut self, object: bool);
    /// The innermost object or array ends.
    fn end(&mut self);
    /// The name of the next value, its escapes resolved; cut at a bound.
    fn name(&mut self, name: &[u8]);
    /// The next piece of a string, its escapes resolved.
    fn text(&mut self, piece: &[u8]);
    /// The string is whole.
    fn text_end(&mut self);
    /// A number, `true`, `false` or `null`, as written; cut at a bound.
    fn word(&mut self, word: &[u8]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value must come.
    Value,
    /// A value or `]`.
    Element,
    /// A name or `}`.
    Name,
    /// A name without quotes.
    BareName,
    Colon,
    /// A comma or an end.
    After,
    Text {
        quote: u8,
    },
    Escape {
        quote: u8,
    },
    /// Inside `\uXXXX`: digits read and their value.
    Unicode {
        quote: u8,
        digits: u8,
        value: u16,
    },
    Word,
    /// The outermost value has ended.
    Done,
}

/// Reads one JSON text.
pub(super) struct Lexer {
    state: State,
    /// Of each open object or array, the outermost first: is it an object?
    nest: Vec<bool>,
    /// Whether the string that is read is a name.
    naming: bool,
    word: Vec<u8>,
    /// The first half of a surrogate pair (RFC 8259, 7).
    high: Option<u16>,
    fault: Option<Fault>,
    begun: bool,
}

impl Lexer {
    pub(super) fn new() -> Self {
        Self {
            state: State::Value,
            nest: Vec::new(),
            naming: false,
            word: Vec::new(),
            high: None,
            fault: None,
            begun: false,
        }
    }

    /// Whether nothing but white space was read.
    pub(super) fn is_empty(&self) -> bool {
        !self.begun
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut impl Events) {
        while self.fault.is_none() {
            if let State::Text { quote } = self.state {
                let plain = bytes.iter().take_while(|byte| **byte != quote && **byte != b'\\').count();
                let (piece, rest) = bytes.split_at_checked(plain).unwrap_or((bytes, b""));
                self.piece(piece, out);
                bytes = rest;
            }
            let Some((&byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            self.byte(byte, out);
        }
    }

    /// The text is whole.
    pub(super) fn finish(&mut self, out: &mut impl Events) -> Result<(), Fault> {
        if self.fault.is_none() && self.state == State::Word {
            self.end_word(out);
        }
        match self.fault {
            Some(fault) => Err(fault),
            None if self.state == State::Done => Ok(()),
            None => Err(self.fail(Fault::Malformed)),
        }
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        self.fault = Some(fault);
        fault
    }

    fn malformed(&mut self) {
        self.fail(Fault::Malformed);
    }

    fn byte(&mut self, byte: u8, out: &mut impl Events) {
        let white = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.state {
            State::Text { quote } if byte == quote => self.end_text(out),
            State::Text { quote } => self.state = State::Escape { quote },
            State::Escape { quote } => self.escape(quote, byte, out),
            State::Unicode { quote, digits, value } => self.unicode(quote, digits, value, byte, out),
            State::Word if is_word(byte) => self.keep(byte),
            State::Word => {
                self.end_word(out);
                if self.fault.is_none() {
                    self.byte(byte, out);
                }
            }
            State::BareName if is_word(byte) => self.keep(byte),
            State::BareName => {
                self.end_name(out);
                self.byte(byte, out);
            }
            // A byte order mark may come first.
            State::Value if self.nest.is_empty() && matches!(byte, 0xef | 0xbb | 0xbf) && !self.begun => {}
            _ if white => {}
            State::Value => self.value(byte, out),
            State::Element if byte == b']' => self.close(false, out),
            State::Element => self.value(byte, out),
            State::Name => match byte {
                b'}' => self.close(true, out),
                b'"' | b'\'' => {
                    self.naming = true;
                    self.word.clear();
                    self.state = State::Text { quote: byte };
                }
                _ if is_word(byte) => {
                    self.word.clear();
                    self.keep(byte);
                    self.state = State::BareName;
                }
                _ => self.malformed(),
            },
            State::Colon if byte == b':' => self.state = State::Value,
            State::After => self.after(byte, out),
            State::Colon | State::Done => self.malformed(),
        }
    }

    fn after(&mut self, byte: u8, out: &mut impl Events) {
        match (byte, self.nest.last()) {
            (b',', Some(true)) => self.state = State::Name,
            (b',', Some(false)) => self.state = State::Element,
            (b'}', Some(true)) => self.close(true, out),
            (b']', Some(false)) => self.close(false, out),
            _ => self.malformed(),
        }
    }

    fn value(&mut self, byte: u8, out: &mut impl Events) {
        self.begun = true;
        match byte {
            b'{' | b'[' if self.nest.len() >= MAX_DEPTH => drop(self.fail(Fault::TooDeep)),
            b'{' | b'[' => {
                let object = byte == b'{';
                self.nest.push(object);
                out.begin(object);
                self.state = if object { State::Name } else { State::Element };
            }
            b'"' | b'\'' => {
                self.naming = false;
                self.state = State::Text { quote: byte };
            }
            _ if is_word(byte) => {
                self.word.clear();
                self.keep(byte);
                self.state = State::Word;
            }
            _ => self.malformed(),
        }
    }

    fn close(&mut self, object: bool, out: &mut impl Events) {
        if self.nest.pop() != Some(object) {
            self.malformed();
            return;
        }
        out.end();
        self.ended();
    }

    /// A value has ended.
    fn ended(&mut self) {
        self.state = if self.nest.is_empty() { State::Done } else { State::After };
    }

    fn keep(&mut self, byte: u8) {
        if self.word.len() < MAX_WORD {
            self.word.push(byte);
        }
    }

    fn end_word(&mut self, out: &mut impl Events) {
        let number = self.word.first().is_some_and(|first| first.is_ascii_digit() || *first == b'-');
        if !number && !matches!(self.word.as_slice(), b"true" | b"false" | b"null") {
            self.malformed();
            return;
        }
        out.word(&self.word);
        self.ended();
    }

    fn end_name(&mut self, out: &mut impl Events) {
        out.name(&self.word);
        self.state = State::Colon;
    }

    fn end_text(&mut self, out: &mut impl Events) {
        self.flush_high(out);
        if self.naming {
            self.end_name(out);
        } else {
            out.text_end();
            self.ended();
        }
    }

    fn piece(&mut self, piece: &[u8], out: &mut impl Events) {
        if piece.is_empty() {
            return;
        }
        self.flush_high(out);
        self.give(piece, out);
    }

    fn give(&mut self, piece: &[u8], out: &mut impl Events) {
        if self.naming {
            let room = MAX_WORD.saturating_sub(self.word.len());
            self.word.extend(piece.iter().take(room));
        } else {
            out.text(piece);
        }
    }

    fn escape(&mut self, quote: u8, byte: u8, out: &mut impl Events) {
        self.state = State::Text { quote };
        let meant = match byte {
            b'"' | b'\\' | b'/' | b'\'' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.state = State::Unicode { quote, digits: 0, value: 0 };
                return;
            }
            _ => {
                self.malformed();
                return;
            }
        };
        self.piece(&[meant], out);
    }

    fn unicode(&mut self, quote: u8, digits: u8, value: u16, byte: u8, out: &mut impl Events) {
        let Some(digit) = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
            self.malformed();
            return;
        };
        let value = value.wrapping_shl(4) | digit;
        if digits < 3 {
            self.state = State::Unicode { quote, digits: digits.saturating_add(1), value };
            return;
        }
        self.state = State::Text { quote };
        match (self.high.take(), value) {
            (Some(high), 0xdc00..=0xdfff) => {
                let high = u32::from(high & 0x03ff).wrapping_shl(10);
                let code = (high | u32::from(value & 0x03ff)).saturating_add(0x1_0000);
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                self.give(c.encode_utf8(&mut [0; 4]).as_bytes(), out);
            }
            (high, _) => {
                if let Some(high) = high {
                    self.lone(high, out);
                }
                match char::from_u32(u32::from(value)) {
                    Some(c) => self.give(c.encode_utf8(&mut [0; 4]).as_bytes(), out),
                    None if value < 0xdc00 => self.high = Some(value),
                    None => self.lone(value, out),
                }
            }
        }
    }

    fn flush_high(&mut self, out: &mut impl Events) {
        if let Some(high) = self.high.take() {
            self.lone(high, out);
        }
    }

    /// Half of a surrogate pair without the other: no character, kept as three bytes (as WTF-8 does), so that
    /// two different texts stay different.
    fn lone(&mut self, half: u16, out: &mut impl Events) {
        let low = |shift: u32| u8::try_from(half.wrapping_shr(shift) & 0x3f).unwrap_or_default() | 0x80;
        self.give(&[0xe0 | u8::try_from(half.wrapping_shr(12)).unwrap_or_default(), low(6), low(0)], out);
    }
}

/// Bytes of numbers, literal names and names without quotes.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_' | b'$')
}

#[cfg(test)]
mod tests;
