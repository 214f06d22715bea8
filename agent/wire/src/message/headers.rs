//! What of a request's headers is kept: a closed list, bounded, without credentials.

use http::{HeaderMap, request};

/// Bytes kept of one value.
const MAX_VALUE: usize = 1024;

/// Header and the attribute that it becomes.
const KEPT: &[(&str, &str)] = &[
    ("user-agent", "user_agent"),
    ("content-type", "content_type"),
    ("content-encoding", "content_encoding"),
    ("range", "range"),
    ("upgrade", "upgrade"),
    ("x-goog-user-project", "user_project"),
    ("x-goog-request-reason", "request_reason"),
    ("x-goog-api-client", "api_client"),
    ("x-http-method-override", "method_override"),
    ("traceparent", "traceparent"),
];

/// Attributes of a command: names and values as sent, cut at their bound.
pub(super) type Attributes = Vec<(&'static str, Vec<u8>)>;

/// The kept headers of a request.
pub(super) fn attributes(head: &request::Parts) -> Attributes {
    let kept = KEPT.iter().filter_map(|(name, attribute)| Some((*attribute, value(&head.headers, name)?)));
    kept.collect()
}

/// A header's first value, cut at its bound.
pub(super) fn value(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    headers.get(name).map(|value| cut(value.as_bytes(), MAX_VALUE))
}

/// The beginning of a value.
pub(super) fn cut(value: &[u8], limit: usize) -> Vec<u8> {
    value.get(..limit).unwrap_or(value).to_vec()
}

/// Whether the content type is JSON; a missing one is not.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(http::header::CONTENT_TYPE) else { return false };
    let value = value.as_bytes().to_ascii_lowercase();
    let kind = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    matches!(kind, b"application/json" | b"text/json" | b"text/javascript" | b"application/javascript")
        || kind.ends_with(b"+json")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn nothing_that_authenticates_is_kept() {
        let request = Request::get("/")
            .header("authorization", "Bearer s3cret")
            .header("cookie", "s3cret")
            .header("x-goog-api-key", "s3cret")
            .header("x-goog-iam-authorization-token", "s3cret")
            .header("user-agent", "u".repeat(5000));
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let attributes = attributes(&head);
        assert_eq!(attributes, [("user_agent", vec![b'u'; MAX_VALUE])]);
    }
}
