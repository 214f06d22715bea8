//! Answers of our own in the form of Google's REST APIs.
//!
//! Whatever the kind, the status is one that no client sends again by itself: they do so upon 408, 429 and
//! 5xx, some upon 409, and would ask the same question as often as they may. Upon 421 one may ask again on another
//! connection (RFC 9110 section 15.5.20), which is what it is for: TLS made for the host that is asked for.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Answer;
use crate::seam::{Refusal, RefusalKind};

/// Longest message, bytes.
pub(super) const MAX_MESSAGE: usize = 8 * 1024;

/// An error in Google's shape (<https://cloud.google.com/apis/design/errors>): read by their libraries, and
/// as well by whoever reads any JSON.
pub(super) fn rest(refusal: &Refusal) -> Answer {
    // Nobody permitted it, whether by a no or by silence. A client that cancelled reads no answer; 499 is
    // what google.rpc.Code says for that.
    let (code, status, reason) = match refusal.kind {
        RefusalKind::Denied | RefusalKind::Expired => {
            (StatusCode::FORBIDDEN, "PERMISSION_DENIED", "accessDenied")
        }
        // google.rpc.Code has none for it: the client must do something else first.
        RefusalKind::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "FAILED_PRECONDITION", "misdirected"),
        RefusalKind::Cancelled => {
            (StatusCode::from_u16(499).unwrap_or(StatusCode::FORBIDDEN), "CANCELLED", "stopped")
        }
    };
    let message = json_string(bounded(&refusal.message));
    let number = code.as_u16();
    let body = format!(
        "{{\"error\":{{\"code\":{number},\"message\":{message},\"errors\":[{{\"message\":{message},\
         \"domain\":\"global\",\"reason\":\"{reason}\"}}],\"status\":\"{status}\"}}}}\n"
    );
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    Answer { status: code, headers, body: body.into_bytes() }
}

/// The beginning of a message, cut between two characters.
pub(super) fn bounded(message: &str) -> &str {
    message.get(..message.floor_char_boundary(MAX_MESSAGE)).unwrap_or_default()
}

fn json_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_json_in_googles_shape_whatever_its_message() {
        let refusal = Refusal { kind: RefusalKind::Denied, message: "no \"way\"\\\n\u{1}ä".into() };
        let answer = rest(&refusal);
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let body = String::from_utf8(answer.body).expect("text");
        assert!(
            body.starts_with(r#"{"error":{"code":403,"message":"no \"way\"\\\n\u0001ä","errors":[{"#),
            "{body}"
        );
        assert!(
            body.contains(r#""reason":"accessDenied""#) && body.contains(r#""status":"PERMISSION_DENIED""#)
        );
    }

    #[test]
    fn no_refusal_has_a_status_that_clients_send_again_upon() {
        for kind in
            [RefusalKind::Denied, RefusalKind::Expired, RefusalKind::Misdirected, RefusalKind::Cancelled]
        {
            let status = rest(&Refusal { kind, message: String::new() }).status.as_u16();
            assert!((400..500).contains(&status) && ![408, 409, 425, 429].contains(&status));
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let refusal = Refusal { kind: RefusalKind::Denied, message: "ä".repeat(MAX_MESSAGE) };
        assert!(String::from_utf8(rest(&refusal).body).expect("text").len() < 2 * MAX_MESSAGE + 300);
    }
}
