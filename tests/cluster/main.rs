//! The harness of scenarios on a real Kubernetes node. All of them share one cluster, which the first one starts:
//! one after the other, in the order in which they are listed, each also alone.
//!
//! Where a cluster cannot be had they count as ignored, or as failed where `REQUIRE_LAB=1` says so.
//!
//! Standard output is the harness's alone: it writes a test's name before it runs, and how it ended on the same line.
#![allow(clippy::print_stdout, reason = "the reasons of what is ignored are part of the harness's report")]
#![allow(clippy::print_stderr, reason = "a scenario takes long enough to say how far it is")]

mod clients;
mod kinds;
mod lifecycle;
mod outage;
mod stage;
mod trust;
mod who;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use stage::Stage;
use verbatim_tests::parts::{self, Part};

/// One scenario: a sentence about behaviour, what it cannot do without, and what it does.
pub(crate) struct Scenario {
    name: &'static str,
    needs: &'static [Part],
    body: fn(&mut Stage) -> Result<()>,
}

/// What every scenario needs.
pub(crate) const USUAL: &[Part] =
    &[Part::Root, Part::Sandbox, Part::Cluster, Part::Binaries, Part::Postgres, Part::Python, Part::Bpf];

/// A scenario named after its function.
macro_rules! scenario {
    ($function:ident) => {
        $crate::Scenario { name: stringify!($function), needs: $crate::USUAL, body: $function }
    };
}
pub(crate) use scenario;

fn scenarios() -> Vec<Scenario> {
    [
        clients::scenarios(),
        trust::scenarios(),
        kinds::scenarios(),
        outage::scenarios(),
        lifecycle::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Started by the first scenario that runs; its failure is that of all of them.
type Shared = Arc<Mutex<Option<Result<Stage, String>>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // There is one cluster, and scenarios take parts of it away.
    arguments.test_threads = Some(1);
    let shared = Shared::default();
    let trials = scenarios().into_iter().map(|scenario| trial(scenario, &shared)).collect();
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    // In the end, and not with the process: its parts are undone one by one.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    code
}

fn trial(scenario: Scenario, shared: &Shared) -> Trial {
    match parts::missing(scenario.needs) {
        Some((part, reason)) if parts::required(part) => {
            let reason = format!("required here, but {reason}");
            Trial::test(scenario.name, move || Err(Failed::from(reason)))
        }
        Some((_, reason)) => {
            println!("SKIP cluster: {}: {reason}", scenario.name);
            Trial::test(scenario.name, || Ok(())).with_ignored_flag(true).with_kind(reason)
        }
        None => {
            let shared = Arc::clone(shared);
            Trial::test(scenario.name, move || run(&scenario, &shared).map_err(Failed::from))
        }
    }
}

fn run(scenario: &Scenario, shared: &Shared) -> Result<(), String> {
    let mut stage = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = stage.get_or_insert_with(|| Stage::start().map_err(|error| format!("{error:#}")));
    let stage = stage.as_mut().map_err(|error| format!("there is no cluster: {error}"))?;
    stage.begin(scenario.name).map_err(|error| format!("{error:#}"))?;
    (scenario.body)(stage).map_err(|error| format!("{error:#}\n{}", stage.situation()))
}
