//! All cases by name.

mod bypass;
mod confinement;
mod control;
mod ending;
mod kept;
mod pods;
mod records;
mod serving;
mod serving_tls;
mod starting;
mod trust;
mod uncaptured;
mod world;

use crate::Outcome;

/// A name and what it does.
pub(crate) type Case = (&'static str, fn() -> Outcome);

/// Names cases after their functions.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn cases() -> Vec<$crate::cases::Case> {
            vec![$((stringify!($name), $name as fn() -> $crate::Outcome)),*]
        }
    };
}
pub(crate) use cases;

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let cases = [
        bypass::cases(),
        starting::cases(),
        confinement::cases(),
        control::cases(),
        ending::cases(),
        kept::cases(),
        pods::cases(),
        records::cases(),
        serving::cases(),
        serving_tls::cases(),
        trust::cases(),
        uncaptured::cases(),
    ];
    cases.concat()
}
