//! A request's target: its path in segments, its query by name, and its text without credentials.
//!
//! Owns which parameters of a query are credentials. Knows no API.

use http::request;

use crate::{
    seam::{Captured, Redaction, RedactionReason},
    tokens::Marked,
};

/// Names of parameters, in lower case, whose values are as good as a password.
const TOKENS: &[&str] = &[
    "access_token",
    "api_key",
    "apikey",
    "assertion",
    "authorization",
    "client_secret",
    "id_token",
    "key",
    "oauth_token",
    "refresh_token",
    "subject_token",
    "token",
    "upload_id",
    "x-amz-security-token",
    "x-goog-security-token",
];
/// Names of parameters, in lower case, that sign a URL.
const SIGNATURES: &[&str] = &["sig", "signature", "x-amz-signature", "x-goog-signature"];
/// Names of parameters, in lower case, that hold a password.
const PASSWORDS: &[&str] = &["passwd", "password", "pwd"];

/// `%41` → `A`. What is no escape stays.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escape = (byte == b'%').then(|| after.split_first_chunk::<2>()).flatten();
        match escape.and_then(|(digits, rest)| Some((hex(digits)?, rest))) {
            Some((byte, after)) => {
                bytes.push(byte);
                rest = after;
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The value of a parameter of the query, decoded; the first where there are several.
pub(super) fn parameter(head: &request::Parts, name: &str) -> Option<String> {
    pairs(head.uri.query()?).find(|(key, _)| decoded(key) == name).map(|(_, value)| decoded(value))
}

/// Names and values as sent.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The segments of the path, decoded.
pub(super) fn segments(path: &str) -> Vec<String> {
    path.strip_prefix('/').unwrap_or(path).split('/').map(decoded).collect()
}

fn reason(name: &str) -> Option<RedactionReason> {
    let name = decoded(name).to_ascii_lowercase();
    let name = name.as_str();
    if TOKENS.contains(&name) {
        Some(RedactionReason::Token)
    } else if SIGNATURES.contains(&name) {
        Some(RedactionReason::Signature)
    } else {
        PASSWORDS.contains(&name).then_some(RedactionReason::Password)
    }
}

/// The request line without its version, e.g. `GET /a?b=c`, its credentials marked.
pub(super) fn request_line(head: &request::Parts, limit: usize) -> (Captured, Vec<Redaction>) {
    let mut line = Line(Marked::new(limit));
    line.text(head.method.as_str());
    line.text(" ");
    line.target(&head.uri);
    line.0.finish()
}

struct Line(Marked);

impl Line {
    fn text(&mut self, text: &str) {
        self.0.text(text.as_bytes());
    }

    fn mark(&mut self, reason: RedactionReason) {
        self.0.mark(reason);
    }

    fn target(&mut self, uri: &http::Uri) {
        // An authority of HTTP/2 is no part of the path; one of a proxy's request or CONNECT may hold a
        // password.
        if let Some((user, host)) = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@'))
        {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            self.text(user);
            if !password.is_empty() {
                self.text(":");
                self.mark(RedactionReason::Password);
            }
            self.text("@");
            self.text(host);
        } else if uri.path_and_query().is_none() {
            self.text(uri.authority().map(http::uri::Authority::as_str).unwrap_or_default());
        }
        self.text(if uri.path_and_query().is_some() { uri.path() } else { "" });
        let Some(query) = uri.query() else { return };
        let mut before = "?";
        for pair in query.split('&') {
            self.text(before);
            before = "&";
            match pair.split_once('=') {
                Some((name, value)) if !value.is_empty() && reason(name).is_some() => {
                    self.text(name);
                    self.text("=");
                    reason(name).into_iter().for_each(|reason| self.mark(reason));
                }
                _ => self.text(pair),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(uri: &str) -> request::Parts {
        Request::get(uri).body(()).expect("a request").into_parts().0
    }

    fn line(uri: &str) -> String {
        let (captured, redactions) = request_line(&head(uri), 1000);
        for redaction in &redactions {
            let (from, to) = (redaction.offset as usize, (redaction.offset + redaction.length) as usize);
            assert_eq!(&captured.bytes[from..to], b"[redacted]");
        }
        String::from_utf8(captured.bytes).expect("text")
    }

    #[test]
    fn credentials_in_a_query_are_marked_and_nothing_else() {
        assert_eq!(line("/a?b=c&key=s3cret&d"), "GET /a?b=c&key=[redacted]&d");
        assert_eq!(
            line("/o?X-Goog-Signature=ab12&X-Goog-Date=1"),
            "GET /o?X-Goog-Signature=[redacted]&X-Goog-Date=1"
        );
        assert_eq!(line("/o?upload%5Fid=A%2FB&keys=k&key="), "GET /o?upload%5Fid=[redacted]&keys=k&key=");
        assert_eq!(line("/plain"), "GET /plain");
        assert_eq!(line("/a/eyJh.e30.s3cret?x=ya29.s3cret"), "GET /a/eyJh.e30.[redacted]?x=ya29.[redacted]");
        assert_eq!(line("http://ada:s3cret@host/x"), "GET ada:[redacted]@host/x");
    }

    #[test]
    fn a_mark_is_never_cut_off_unnoticed() {
        for limit in 0..40 {
            let (captured, redactions) = request_line(&head("/a?token=s3cret&b=1"), limit);
            assert_eq!(captured.full_length, 27);
            assert!(!captured.bytes.windows(6).any(|window| window == b"s3cret"));
            for redaction in redactions {
                assert!(redaction.offset + redaction.length <= captured.bytes.len() as u64);
            }
        }
    }

    #[test]
    fn escapes_are_decoded_where_they_are_escapes() {
        assert_eq!(decoded("a%3Ab%2"), "a:b%2");
        assert_eq!(decoded("%zz%+1"), "%zz%+1");
        assert_eq!(segments("/a/b%2Fc/"), ["a", "b/c", ""]);
        assert_eq!(
            parameter(&head("/?location=europe%2Dwest3&x"), "location").as_deref(),
            Some("europe-west3")
        );
    }
}
