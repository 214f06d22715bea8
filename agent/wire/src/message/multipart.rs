//! The first part of a multipart body (RFC 2046, 5.1.1) as a stream.
//!
//! Owns boundaries and part headers. Knows nothing of what a part holds.

/// Longest boundary that is followed; RFC 2046 allows 70.
const MAX_BOUNDARY: usize = 200;
/// Bytes of headers of a part at most.
const MAX_HEADERS: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first boundary.
    Preamble,
    Headers,
    Part,
    /// The first part is whole.
    Done,
    /// Its headers never end: what follows is not looked at.
    Lost,
}

/// Reads the first part.
pub(super) struct FirstPart {
    /// As it may stand in the body; two where it is not certain whether quotes belong to it.
    boundaries: Vec<Vec<u8>>,
    state: State,
    /// The line that is read, as far as it may be a boundary.
    line: Vec<u8>,
    /// The line is longer than that, and so none.
    long: bool,
    /// The line break before the line: it belongs to a boundary, where one follows.
    newline: Vec<u8>,
    headers: usize,
    found: bool,
}

impl FirstPart {
    /// `None`: the content type names no boundary.
    pub(super) fn new(content_type: &[u8]) -> Option<Self> {
        let boundary = boundary(content_type)?;
        let mut boundaries = vec![boundary.clone()];
        // gsutil quotes as no RFC allows, and does not mean the quotes.
        if let Some(inner) = boundary.strip_prefix(b"'").and_then(|rest| rest.strip_suffix(b"'")) {
            boundaries.push(inner.to_vec());
        }
        boundaries.retain(|boundary| !boundary.is_empty() && boundary.len() <= MAX_BOUNDARY);
        (!boundaries.is_empty()).then_some(Self {
            boundaries,
            state: State::Preamble,
            line: Vec::new(),
            long: false,
            newline: Vec::new(),
            headers: 0,
            found: false,
        })
    }

    /// Whether it has begun.
    pub(super) fn is_found(&self) -> bool {
        self.found
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes until the part is whole and returns how many; its bytes go to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut dyn FnMut(&[u8])) -> usize {
        let mut taken = 0usize;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_done() {
                break;
            }
            taken = taken.saturating_add(line.len());
            self.piece(line, out);
        }
        taken
    }

    /// The body has ended: what was held back because it might have been a boundary goes out.
    pub(super) fn finish(&mut self, out: &mut dyn FnMut(&[u8])) {
        if self.state == State::Part && !self.is_boundary() {
            self.flush(out);
        }
        self.state = State::Done;
    }

    /// A piece that is a line or a part of one.
    fn piece(&mut self, piece: &[u8], out: &mut dyn FnMut(&[u8])) {
        let (text, ended) = match piece.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (piece, false),
        };
        self.take(text, out);
        if ended {
            self.end_line(out);
        }
    }

    fn take(&mut self, text: &[u8], out: &mut dyn FnMut(&[u8])) {
        if self.state == State::Headers {
            self.headers = self.headers.saturating_add(text.len());
        }
        if !self.long {
            let most = MAX_BOUNDARY.saturating_add(8);
            if self.line.len().saturating_add(text.len()) <= most {
                self.line.extend_from_slice(text);
                return;
            }
            self.long = true;
            if self.state == State::Part {
                self.flush(out);
            } else {
                self.line.clear();
                self.newline.clear();
            }
        }
        if self.state == State::Part {
            // A carriage return may belong to the line break.
            match text.strip_suffix(b"\r") {
                Some(before) => {
                    self.flush(out);
                    out(before);
                    self.newline.push(b'\r');
                }
                None if text.is_empty() => {}
                None => {
                    self.flush(out);
                    out(text);
                }
            }
        }
    }

    fn flush(&mut self, out: &mut dyn FnMut(&[u8])) {
        for held in [std::mem::take(&mut self.newline), std::mem::take(&mut self.line)] {
            if !held.is_empty() {
                out(&held);
            }
        }
    }

    fn is_boundary(&self) -> bool {
        let Some(text) = self.line.strip_prefix(b"--") else { return false };
        !self.long
            && self.boundaries.iter().any(|boundary| {
                text.strip_prefix(boundary.as_slice())
                    .is_some_and(|rest| rest.strip_prefix(b"--").unwrap_or(rest).trim_ascii().is_empty())
            })
    }

    fn end_line(&mut self, out: &mut dyn FnMut(&[u8])) {
        match self.state {
            State::Preamble if self.is_boundary() => self.state = State::Headers,
            State::Headers if self.headers > MAX_HEADERS => self.state = State::Lost,
            State::Headers if !self.long && self.line.trim_ascii().is_empty() => {
                self.state = State::Part;
                self.found = true;
            }
            State::Part if self.is_boundary() => self.state = State::Done,
            State::Part => {
                if let Some(text) = self.line.strip_suffix(b"\r").map(<[u8]>::to_vec) {
                    self.line = text;
                    self.flush(out);
                    self.newline.push(b'\r');
                } else if !self.line.is_empty() || !self.long {
                    self.flush(out);
                }
                self.newline.push(b'\n');
                self.line.clear();
                self.long = false;
                return;
            }
            _ => {}
        }
        self.line.clear();
        self.newline.clear();
        self.long = false;
    }
}

/// The boundary that a content type names (RFC 9110, 5.6.6 and 8.3.1), without double quotes; the first counts.
fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let mut rest = after(content_type, b';');
    while let Some(parameter) = rest {
        let end = parameter.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(parameter.len());
        let (name, value) = parameter.split_at_checked(end)?;
        let (value, next) = match value.strip_prefix(b"=").map(<[u8]>::trim_ascii_start) {
            Some([b'"', quoted @ ..]) => {
                let (value, behind) = unquoted(quoted);
                (Some(value), after(behind, b';'))
            }
            Some(token) => {
                let value = token.split(|byte| *byte == b';').next().unwrap_or_default();
                (Some(value.trim_ascii().to_vec()), after(token, b';'))
            }
            None => (None, after(value, b';')),
        };
        if name.trim_ascii().eq_ignore_ascii_case(b"boundary") && value.is_some() {
            return value;
        }
        rest = next;
    }
    None
}

/// What stands behind the first of these bytes.
fn after(text: &[u8], byte: u8) -> Option<&[u8]> {
    let at = text.iter().position(|one| *one == byte)?;
    text.get(at.saturating_add(1)..)
}

/// A quoted string behind its first quotation mark, and what follows it.
fn unquoted(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut value = Vec::new();
    let mut rest = text;
    loop {
        rest = match rest {
            [b'\\', byte, behind @ ..] => {
                value.push(*byte);
                behind
            }
            [b'"', behind @ ..] => return (value, behind),
            [byte, behind @ ..] => {
                value.push(*byte);
                behind
            }
            [] => return (value, rest),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: &str, body: &[u8], piece: usize) -> (Vec<u8>, usize, bool) {
        let mut part = FirstPart::new(content_type.as_bytes()).expect("a boundary");
        let (mut output, mut taken) = (Vec::new(), 0);
        for piece in body.chunks(piece) {
            let n = part.push(piece, &mut |bytes| output.extend_from_slice(bytes));
            taken += n;
            if n < piece.len() {
                break;
            }
        }
        let done = part.is_done();
        part.finish(&mut |bytes| output.extend_from_slice(bytes));
        (output, taken, done)
    }

    #[test]
    fn the_first_part_is_found_however_the_boundary_is_quoted() {
        let head = "multipart/related; boundary=";
        let types = ["=x=".to_owned(), "\"=x=\"; a=b".to_owned(), "'=x='".to_owned()];
        let body = b"junk\r\n--=x=\r\nContent-Type: application/json\r\n\r\n{\"a\":\r\n 1}\r\n--=x=\r\n\r\ndata\r\n--=x=--\r\n";
        for content_type in types {
            for piece in 1..=body.len() {
                let (part, taken, done) = read(&format!("{head}{content_type}"), body, piece);
                assert_eq!(part, b"{\"a\":\r\n 1}", "{content_type} by {piece}");
                assert!(done);
                assert!(body[taken..].starts_with(b"\r\ndata"), "{taken}");
            }
        }
    }

    #[test]
    fn a_boundary_may_end_in_lf_alone_and_a_long_line_is_none() {
        let long = format!("{{\"a\": \"{}\"}}\r", "x".repeat(1000));
        let body = format!("--b\n\n{long}\n--bc\n--b\nrest");
        for piece in 1..=body.len() {
            let (part, _, done) = read("multipart/related; boundary=b", body.as_bytes(), piece);
            assert_eq!(String::from_utf8(part).expect("text"), format!("{long}\n--bc"), "by {piece}");
            assert!(done);
        }
    }

    #[test]
    fn what_is_no_multipart_is_never_done_and_costs_nothing() {
        let (part, taken, done) = read("multipart/related; boundary=b", &vec![b'x'; 100_000], 999);
        assert_eq!((part.len(), taken, done), (0, 100_000, false));
        assert!(FirstPart::new(b"multipart/related").is_none());
        assert!(FirstPart::new(b"multipart/related; boundary=\"\"").is_none());
        let endless = [b"--b\r\n".to_vec(), b"a: b\r\n".repeat(10_000)].concat();
        let (part, _, done) = read("multipart/related; boundary=b", &endless, 999);
        assert!(part.is_empty() && !done);
    }

    #[test]
    fn the_boundary_is_a_parameter_of_its_own_however_others_look() {
        for (parameters, expected) in [
            ("boundary=b", Some("b")),
            (" BOUNDARY = b ; x=y", Some("b")),
            ("x=\"boundary=no\"; boundary=b", Some("b")),
            ("xboundary=no; boundary=\"b c\"", Some("b c")),
            ("boundary=\"a\\\"b\"", Some("a\"b")),
            ("x=\"a;\\\"; boundary=no\"; boundary=b; boundary=no", Some("b")),
            ("boundary='b'", Some("'b'")),
            ("boundary", None),
            ("x=\"boundary=b", None),
            ("boundary=\"b", Some("b")),
            ("", None),
        ] {
            let found = boundary(format!("multipart/related; {parameters}").as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{parameters}");
        }
    }
}
