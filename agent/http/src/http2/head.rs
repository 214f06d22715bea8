//! What is done to heads between two HTTP/2 legs: nothing, but for what was asked.

use h2::Reason;
use http::{
    HeaderName, HeaderValue, Method, Request, Uri,
    header::{EXPECT, HOST},
    request,
    uri::{Authority, Scheme},
};

use super::errors::reset_code;

/// Whether the client waits for a 100 (RFC 9110 section 10.1.1).
pub(super) fn expects_continue(head: &request::Parts) -> bool {
    head.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether it has what a request must have (RFC 9113 section 8.3.1), as far as the library does not look.
pub(super) fn is_complete<B>(request: &Request<B>) -> bool {
    let uri = request.uri();
    let named = uri.authority().is_some() || request.headers().contains_key(HOST);
    named && (request.method() == Method::CONNECT || uri.path_and_query().is_some())
}

/// Puts a header in the place of those of the same name.
pub(crate) fn replace(headers: &mut http::HeaderMap, with: Vec<(HeaderName, HeaderValue)>) {
    for (name, value) in with {
        headers.insert(name, value);
    }
}

/// The request as the server gets it.
pub(super) fn onward(
    mut head: request::Parts,
    headers: Vec<(HeaderName, HeaderValue)>,
    encrypted: bool,
) -> Request<()> {
    replace(&mut head.headers, headers);
    if head.uri.authority().is_none()
        && let Some(uri) = named_by_host(&head, encrypted)
    {
        head.uri = uri;
    }
    Request::from_parts(head, ())
}

/// A request without `:authority` is named by its Host (RFC 9113 section 8.3.1); the library sends none
/// without either.
fn named_by_host(head: &request::Parts, encrypted: bool) -> Option<Uri> {
    let host = head.headers.get(HOST)?;
    let mut parts = head.uri.clone().into_parts();
    parts.authority = Some(Authority::try_from(host.as_bytes()).ok()?);
    parts.scheme = Some(if encrypted { Scheme::HTTPS } else { Scheme::HTTP });
    Uri::from_parts(parts).ok()
}

/// How the client is told that its exchange failed at the server. A request that the server has surely not
/// looked at may be sent again (RFC 9113 section 8.7).
pub(super) fn code_for_client(error: &h2::Error) -> Reason {
    let refused = error.reason() == Some(Reason::REFUSED_STREAM);
    if refused || (error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR)) {
        return Reason::REFUSED_STREAM;
    }
    reset_code(error.reason())
}

/// How the client is told that its request did not go to the server, by what was known of the connection: unless
/// there was a reason that matters to it, it may be sent again.
pub(super) fn code_for_unsent(error: &h2::Error) -> Reason {
    match reset_code(error.reason()) {
        Reason::NO_ERROR | Reason::INTERNAL_ERROR => Reason::REFUSED_STREAM,
        code => code,
    }
}
