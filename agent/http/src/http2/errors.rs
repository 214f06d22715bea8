//! What an error on one leg means on the other.

use h2::Reason;

use crate::seam::Cut;

/// The code with which a stream is reset on the other leg.
///
/// Codes that accuse the receiver of a broken rule are not passed on: it has broken none. So those that the
/// library sends of its own accord can be told from ours.
pub(super) fn reset_code(reason: Option<Reason>) -> Reason {
    match reason {
        Some(
            code @ (Reason::NO_ERROR
            | Reason::REFUSED_STREAM
            | Reason::CANCEL
            | Reason::CONNECT_ERROR
            | Reason::ENHANCE_YOUR_CALM
            | Reason::INADEQUATE_SECURITY
            | Reason::HTTP_1_1_REQUIRED),
        ) => code,
        _ => Reason::INTERNAL_ERROR,
    }
}

/// Who ended an exchange, by an error of the leg toward `peer`.
pub(super) fn cut_by(error: &h2::Error, peer: Cut) -> Cut {
    if error.is_library() { Cut::Ours } else { peer }
}

/// Whether an error says that the peer broke a rule.
pub(super) fn broke_a_rule(error: &h2::Error) -> bool {
    error.is_library() && error.reason().is_some_and(|reason| reason != Reason::NO_ERROR)
}
