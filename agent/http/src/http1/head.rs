//! Reads the head of a request strictly: what could be read in two ways is refused.
//!
//! The library that parses it afterwards is lenient in places (a lone LF ends a line, a repeated
//! Content-Length is dropped, one beside Transfer-Encoding too). Whoever is behind us may be lenient in
//! others; so nothing passes here that needs leniency (RFC 9112 sections 2.2, 5.1, 5.2, 6.1, 6.3, 11.2).

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) what: &'static str,
    /// It can be read in two ways.
    pub(super) ambiguous: bool,
}

impl Refusal {
    pub(super) const fn plain(status: u16, what: &'static str) -> Self {
        Self { status, what, ambiguous: false }
    }

    pub(super) const fn ambiguous(what: &'static str) -> Self {
        Self { status: 400, what, ambiguous: true }
    }
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// Looks at a whole head, up to and with its empty line; its lines are known to end in CRLF.
pub(super) fn framing(head: &[u8], most_lines: usize) -> Result<Framing, Refusal> {
    let mut lines = lines(head);
    let (connect, modern) = request_line(lines.next().unwrap_or_default())?;
    let mut length = None;
    let mut coding = None;
    let mut hosts = 0_u32;
    for (number, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
        if number >= most_lines {
            return Err(Refusal::plain(431, "more header lines than the limit"));
        }
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err(Refusal::ambiguous("more than one Content-Length"));
            }
            length = Some(content_length(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if coding.is_some() {
                return Err(Refusal::ambiguous("more than one Transfer-Encoding"));
            }
            coding = Some(value);
        } else if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        }
    }
    if hosts > 1 {
        return Err(Refusal::ambiguous("more than one Host"));
    }
    if hosts == 0 && modern {
        return Err(Refusal::plain(400, "no Host"));
    }
    if connect && (length.is_some() || coding.is_some()) {
        return Err(Refusal::ambiguous("CONNECT with a body"));
    }
    match (coding, length) {
        (Some(_), Some(_)) => Err(Refusal::ambiguous("both Transfer-Encoding and Content-Length")),
        (Some(_), None) if !modern => Err(Refusal::ambiguous("Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None) => chunked(coding),
        (None, length) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// Looks at a line of a trailer section.
pub(super) fn trailer(line: &[u8]) -> Result<(), Refusal> {
    let (name, _) = field(line)?;
    let framing: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
    if framing.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
        return Err(Refusal::ambiguous("framing in a trailer"));
    }
    Ok(())
}

/// The length that a chunk's first line announces (RFC 9112 section 7.1). Extensions are passed over.
pub(super) fn chunk_size(line: &[u8]) -> Result<u64, Refusal> {
    const BAD: Refusal = Refusal::ambiguous("a chunk size that is none");
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at_checked(digits).ok_or(BAD)?;
    // More digits than any length needs; so it cannot overflow either.
    if size.is_empty() || size.len() > 15 {
        return Err(BAD);
    }
    if !extension.is_empty() && (!extension.starts_with(b";") || !extension.iter().all(|&byte| is_text(byte)))
    {
        return Err(BAD);
    }
    let size = std::str::from_utf8(size).ok();
    size.and_then(|size| u64::from_str_radix(size, 16).ok()).ok_or(BAD)
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Whether it is CONNECT, and whether it is HTTP/1.1.
fn request_line(line: &[u8]) -> Result<(bool, bool), Refusal> {
    const BAD: Refusal = Refusal::plain(400, "a request line that is none");
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD);
    };
    if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
        return Err(BAD);
    }
    // Nothing beyond ASCII belongs there, and some clients send it. A fragment would be lost on the way.
    if target.is_empty() || !target.iter().all(|&byte| is_text(byte) && byte != b'\t' && byte != b'#') {
        return Err(BAD);
    }
    let modern = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ if version.starts_with(b"HTTP/") => {
            return Err(Refusal::plain(505, "a version that is not spoken"));
        }
        _ => return Err(BAD),
    };
    Ok((method == b"CONNECT", modern))
}

fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err(Refusal::ambiguous("a folded header line"));
    }
    let colon = line.iter().position(|&byte| byte == b':');
    let Some((name, value)) = colon.and_then(|colon| line.split_at_checked(colon)) else {
        return Err(Refusal::ambiguous("a header line without a colon"));
    };
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        return Err(Refusal::ambiguous("a header name that is none"));
    }
    let value = value.get(1..).unwrap_or_default();
    if !value.iter().all(|&byte| is_text(byte)) {
        return Err(Refusal::ambiguous("a control character in a header"));
    }
    Ok((name, trim(value)))
}

fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    const BAD: Refusal = Refusal::ambiguous("a Content-Length that is none");
    // 18 digits cannot overflow.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    let value = std::str::from_utf8(value).ok();
    value.and_then(|value| value.parse().ok()).ok_or(BAD)
}

fn chunked(coding: &[u8]) -> Result<Framing, Refusal> {
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let known: [&[u8]; 5] = [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"];
    let mut codings = coding.rsplit(|&byte| byte == b',').map(trim);
    let last_is_chunked = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    if last_is_chunked && codings.all(|coding| known.iter().any(|known| coding.eq_ignore_ascii_case(known))) {
        return Err(Refusal::plain(501, "a transfer coding beside chunked"));
    }
    Err(Refusal::ambiguous("a Transfer-Encoding that is not chunked"))
}

fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 section 5.5: anything but control characters, the tab apart.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(head: &[u8]) -> Result<Framing, Refusal> {
        super::framing(head, 100)
    }

    fn refused(head: &str) -> &'static str {
        framing(head.as_bytes()).expect_err("refused").what
    }

    #[test]
    fn a_plain_head_says_how_its_body_is_delimited() {
        let get = framing(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(get, Ok(Framing::Length(0)));
        let post = framing(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length:  12 \r\n\r\n");
        assert_eq!(post, Ok(Framing::Length(12)));
        let chunked = framing(b"POST /a HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n");
        assert_eq!(chunked, Ok(Framing::Chunked));
        assert_eq!(framing(b"GET / HTTP/1.0\r\n\r\n"), Ok(Framing::Length(0)));
    }

    #[test]
    fn whatever_can_be_read_in_two_ways_is_refused() {
        let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        let both = "both Transfer-Encoding and Content-Length";
        assert_eq!(refused(&post("Content-Length: 1\r\nTransfer-Encoding: chunked")), both);
        assert_eq!(refused(&post("Content-Length: 1\r\nContent-Length: 1")), "more than one Content-Length");
        for length in ["1, 1", "+1", "0x1", "", "1 1", "18446744073709551617", "-1"] {
            assert_eq!(refused(&post(&format!("Content-Length: {length}"))), "a Content-Length that is none");
        }
        for coding in
            ["xchunked", "chunked, chunked", "identity", "chunked, identity", "\u{b}chunked", "gzip", ""]
        {
            let refusal =
                framing(post(&format!("Transfer-Encoding: {coding}")).as_bytes()).expect_err("refused");
            assert!(refusal.ambiguous, "{coding:?}");
        }
        assert_eq!(refused(&post("Transfer-Encoding : chunked")), "a header name that is none");
        assert_eq!(refused(&post("X: a\r\n chunked")), "a folded header line");
        assert_eq!(refused(&post("Host: b")), "more than one Host");
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(refused(old), "Transfer-Encoding in HTTP/1.0");
    }

    #[test]
    fn a_chunk_size_is_hexadecimal_and_nothing_else() {
        assert_eq!(chunk_size(b"1aF"), Ok(0x1af));
        assert_eq!(chunk_size(b"0;name=value"), Ok(0));
        for bad in ["", "0x1", "+1", "-1", " 1", "1 ", "g", "1\u{b}", "10000000000000000", "1 ;a"] {
            assert!(chunk_size(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
