//! Which trailer fields the library passes on: those that were announced, and toward a client that takes any.
//! Whatever else comes is lost, which RFC 9110 section 6.5.1 allows, and is told.

use http::{
    HeaderMap,
    header::{TE, TRAILER},
};

/// What was announced of a message's trailers.
#[derive(Default)]
pub(super) struct Announced(Vec<String>);

impl Announced {
    pub(super) fn by(head: &HeaderMap) -> Self {
        let values = head.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
        Self(values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect())
    }

    /// Whether all of these pass.
    pub(super) fn covers(&self, trailers: &HeaderMap) -> bool {
        trailers.keys().all(|name| self.0.iter().any(|announced| announced == name.as_str()))
    }
}

/// Whether a client with this head takes trailers.
pub(super) fn takes_trailers(head: &HeaderMap) -> bool {
    let values = head.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}
