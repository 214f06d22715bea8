//! What the issuer counts, in Prometheus' text format.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

/// What became of a pod at its admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It was given the roots.
    Injected,
    /// It is of a kind that is given nothing.
    Skipped,
    /// Its namespace or a rule spares it.
    Exempt,
    /// Its namespace has no bundle.
    NoBundle,
    /// The review was not understood.
    NotUnderstood,
}

/// What became of a node's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It was given everything.
    Issued,
    /// It is not who may ask.
    Refused,
    /// It asks too often.
    TooOften,
    /// It asks for nothing that there is.
    Bad,
    /// We could not answer.
    Failed,
}

const ADMISSIONS: [(Admission, &str); 5] = [
    (Admission::Injected, "injected"),
    (Admission::Skipped, "skipped"),
    (Admission::Exempt, "exempt"),
    (Admission::NoBundle, "no_bundle"),
    (Admission::NotUnderstood, "not_understood"),
];
const ASKED: [(Asked, &str); 5] = [
    (Asked::Issued, "issued"),
    (Asked::Refused, "refused"),
    (Asked::TooOften, "too_often"),
    (Asked::Bad, "bad_request"),
    (Asked::Failed, "failed"),
];

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    admissions: [AtomicU64; 5],
    asked: [AtomicU64; 5],
}

impl Metrics {
    /// A pod was admitted.
    pub(crate) fn admitted(&self, what: Admission) {
        for ((one, _), count) in ADMISSIONS.iter().zip(&self.admissions) {
            count.fetch_add(u64::from(*one == what), Ordering::Relaxed);
        }
    }

    /// A node has asked.
    pub(crate) fn asked(&self, what: Asked) {
        for ((one, _), count) in ASKED.iter().zip(&self.asked) {
            count.fetch_add(u64::from(*one == what), Ordering::Relaxed);
        }
    }

    /// As text; `bundles` are those that are kept, and those that cannot be.
    #[must_use]
    pub(crate) fn text(&self, bundles: (usize, usize)) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, label: &str, values: &[(&str, u64)]| {
            // Writing to a text cannot fail.
            writeln!(text, "# TYPE {name} {kind}").ok();
            for (value, count) in values {
                writeln!(text, "{name}{{{label}=\"{value}\"}} {count}").ok();
            }
        };
        let admissions: Vec<_> = ADMISSIONS
            .iter()
            .zip(&self.admissions)
            .map(|((_, name), count)| (*name, count.load(Ordering::Relaxed)))
            .collect();
        family("verbatim_issuer_admissions_total", "counter", "outcome", &admissions);
        let asked: Vec<_> = ASKED
            .iter()
            .zip(&self.asked)
            .map(|((_, name), count)| (*name, count.load(Ordering::Relaxed)))
            .collect();
        family("verbatim_issuer_node_requests_total", "counter", "outcome", &asked);
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        family(
            "verbatim_issuer_bundles",
            "gauge",
            "state",
            &[("kept", count(bundles.0)), ("failing", count(bundles.1))],
        );
        text
    }
}
