//! The cases, by what they are about.

mod addresses;
mod attachment;
mod bypass;
mod failing;
mod hand_off;
mod namespaces;
mod rules;
mod succession;
mod watchdog;

use crate::Outcome;

/// Name, what it does, and whether it is left out unless asked for: it only measures, or the kernel
/// lacks what it is about.
pub(crate) type Case = (&'static str, fn(&str) -> Outcome, bool);

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let multipath = std::path::Path::new("/proc/sys/net/mptcp/enabled").exists();
    let kernel: &[Case] = &[("multipath_tcp_is_steered", hand_off::multipath_tcp_is_steered, !multipath)];
    [
        kernel,
        addresses::CASES,
        attachment::CASES,
        bypass::CASES,
        failing::CASES,
        hand_off::CASES,
        namespaces::CASES,
        rules::CASES,
        succession::CASES,
        watchdog::CASES,
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
