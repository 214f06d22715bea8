//! The cases, by what they are about.

mod addresses;
mod attachment;
mod backstop;
mod bypass;
mod connects;
mod cost;
mod failing;
mod hand_off;
mod in_pod;
mod namespaces;
mod rules;
mod succession;
mod translators;
mod watchdog;
mod ways;

use crate::Outcome;

/// Name, what it does, and whether it is left out unless asked for: it only measures, or the kernel
/// lacks what it is about.
pub(crate) type Case = (&'static str, fn(&str) -> Outcome, bool);

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let uring = std::path::Path::new("/proc/sys/kernel/io_uring_disabled");
    let uring =
        std::fs::read_to_string(uring).is_ok_and(|level| level.trim() == "0") && ways::python().is_some();
    let kernel: &[Case] = &[
        ("multipath_tcp_is_steered", hand_off::multipath_tcp_is_steered, !ways::multipath()),
        ("measure_unsteered", cost::measure_unsteered, true),
        ("io_uring_connects_are_steered", ways::io_uring_connects_are_steered, !uring),
    ];
    [
        kernel,
        addresses::CASES,
        attachment::CASES,
        backstop::CASES,
        bypass::CASES,
        connects::CASES,
        failing::CASES,
        hand_off::CASES,
        &in_pod::cases(),
        namespaces::CASES,
        rules::CASES,
        succession::CASES,
        translators::CASES,
        watchdog::CASES,
        ways::CASES,
    ]
    .concat()
}

/// Cases under the names of their functions.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const CASES: &[crate::cases::Case] = &[$((stringify!($name), $name, false)),+];
    };
}

pub(crate) use cases;
