//! How a call ended: `grpc-status` and `grpc-message`, in trailers or, without any message, in the head; and
//! answers of our own in that form.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    message::{Answer, headers, refuse},
    seam::{Outcome, Refusal, RefusalKind, ServerMessage, Status},
};

/// Bytes kept of a message.
const MAX_MESSAGE: usize = 8 * 1024;
/// Bytes kept of `grpc-status-details-bin`.
const MAX_DETAILS: usize = 4 * 1024;

/// The codes by number (google.rpc.Code).
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The outcome that head and trailers stand for.
pub(super) fn outcome(
    status: Option<StatusCode>,
    head: Option<&HeaderMap>,
    trailers: Option<&HeaderMap>,
) -> Outcome {
    let mut outcome = Outcome { http_status: status.map(|status| status.as_u16()), ..Outcome::default() };
    let found = [trailers, head].into_iter().flatten().find(|headers| headers.contains_key("grpc-status"));
    let Some(found) = found else {
        // Nothing says how it ended; but an HTTP server's no is one.
        if let Some(status) = status.filter(|status| !status.is_success()) {
            outcome.status = Status::Error;
            outcome.error = Some(error(status.as_u16().to_string(), Vec::new()));
        }
        return outcome;
    };
    let code = found.get("grpc-status").and_then(|code| code.to_str().ok()?.trim().parse::<u32>().ok());
    // A client takes what is no number for UNKNOWN.
    let code = code.unwrap_or(2);
    outcome.grpc_status = Some(code);
    if code == 0 {
        outcome.status = Status::Ok;
        return outcome;
    }
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code)).map(|name| (*name).to_owned());
    let message = found.get("grpc-message").map(|message| decoded(message.as_bytes())).unwrap_or_default();
    outcome.status = Status::Error;
    outcome.error =
        Some(error(name.unwrap_or_else(|| code.to_string()), headers::cut(&message, MAX_MESSAGE)));
    if let Some(details) = found.get("grpc-status-details-bin") {
        outcome.attributes.push(("grpc_status_details", headers::cut(details.as_bytes(), MAX_DETAILS)));
    }
    outcome
}

fn error(code: String, message: Vec<u8>) -> ServerMessage {
    ServerMessage { severity: "ERROR".to_owned(), code, message, ..ServerMessage::default() }
}

/// `%41` → `A`; what is no escape stays, as the protocol asks for.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = (byte == b'%').then(|| after.split_first_chunk::<2>()).flatten();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match digits.and_then(|([high, low], rest)| Some((digit(*high)?, digit(*low)?, rest))) {
            Some((high, low, after)) => {
                bytes.push(high.wrapping_shl(4) | low);
                rest = after;
            }
            None => bytes.push(byte),
        }
    }
    bytes
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Trailers-only. No code that clients try again upon: they do so upon UNAVAILABLE, and many upon
/// DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED and INTERNAL, and would ask the same question as often as
/// they may. Nobody permitted it, whether by a no or by silence. A misdirected call has 421 as its HTTP status
/// besides, for whoever reads that: gRPC's own code goes before it (gRPC, "HTTP to gRPC Status Code Mapping"), and
/// UNAVAILABLE would be tried again on the same channel.
pub(super) fn refusal(refusal: &Refusal) -> Answer {
    let (status, code) = match refusal.kind {
        RefusalKind::Denied | RefusalKind::Expired => (StatusCode::OK, "7"),
        RefusalKind::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "9"),
        RefusalKind::Cancelled => (StatusCode::OK, "1"),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    if let Ok(message) = HeaderValue::from_str(&encoded(refuse::bounded(&refusal.message))) {
        headers.insert("grpc-message", message);
    }
    Answer { status, headers, body: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_escaped_and_read_back() {
        let message = "no: 100 % ä\n";
        assert_eq!(encoded(message), "no: 100 %25 %C3%A4%0A");
        assert_eq!(decoded(encoded(message).as_bytes()), message.as_bytes());
        assert_eq!(decoded(b"50% of %zz"), b"50% of %zz");
    }

    #[test]
    fn no_refusal_has_a_code_that_clients_try_again_upon() {
        for (kind, status) in [
            (RefusalKind::Denied, 200),
            (RefusalKind::Expired, 200),
            (RefusalKind::Misdirected, 421),
            (RefusalKind::Cancelled, 200),
        ] {
            let answer = refusal(&Refusal { kind, message: "nein, ä".to_owned() });
            let code = answer.headers["grpc-status"].to_str().expect("text").to_owned();
            assert!(!["0", "4", "8", "10", "13", "14"].contains(&code.as_str()));
            assert_eq!(answer.headers["grpc-message"], "nein, %C3%A4");
            assert!(answer.body.is_empty() && answer.status == status);
        }
    }
}
