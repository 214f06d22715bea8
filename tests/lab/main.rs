//! The lab's harness: lists the scenarios, says which cannot run here and why, runs the others.
//!
//! What cannot run counts as ignored, or as failed where `REQUIRE_LAB=1` or `REQUIRE_BPF=1` say so.
#![allow(clippy::print_stdout, reason = "the reasons of what is ignored are part of the harness's report")]

mod bigquery;
mod cases;
mod control;
mod coverage;
mod decisions;
mod distrust;
mod evidence;
mod google;
mod grpc;
mod http;
mod input;
mod limits;
mod misdirected;
mod odd;
mod own;
mod passing;
mod places;
mod postgres_drivers;
mod postgres_tls;
mod postgres_verifiers;
mod run;
mod safety;
mod scenario;
mod serve;
mod soak;
mod takeover;
mod tls;
mod uncaptured;
mod upstream;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use scenario::Scenario;
use verbatim_tests::parts::{self, Part};

fn scenarios() -> Vec<Scenario> {
    [
        own::scenarios(),
        google::scenarios(),
        serve::scenarios(),
        decisions::scenarios(),
        passing::scenarios(),
        safety::scenarios(),
        control::scenarios(),
        soak::scenarios(),
        limits::scenarios(),
        places::scenarios(),
        takeover::scenarios(),
        input::scenarios(),
        tls::scenarios(),
        distrust::scenarios(),
        upstream::scenarios(),
        postgres_tls::scenarios(),
        postgres_drivers::scenarios(),
        postgres_verifiers::scenarios(),
        bigquery::scenarios(),
        http::scenarios(),
        misdirected::scenarios(),
        odd::scenarios(),
        grpc::scenarios(),
        coverage::scenarios(),
        uncaptured::scenarios(),
        evidence::scenarios(),
        run::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let scenarios = scenarios();
    let states: Vec<cases::State> = scenarios
        .iter()
        .map(|scenario| cases::State { name: scenario.name, missing: parts::missing(scenario.needs) })
        .collect();
    if !arguments.list {
        report(&states);
    }
    let filtered = arguments.filter.is_some() || !arguments.skip.is_empty();
    let mut trials: Vec<Trial> =
        scenarios.into_iter().zip(&states).map(|(one, state)| trial(one, state)).collect();
    trials.push(Trial::test("every_case_has_a_test_that_exists_and_runs", move || {
        cases::check(&states, filtered).map_err(|error| Failed::from(format!("{error:#}")))
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Once per reason, in the words that a log is searched for.
fn report(states: &[cases::State]) {
    let mut told: Vec<Part> = Vec::new();
    for (part, reason) in states.iter().filter_map(|state| state.missing.as_ref()) {
        if !told.contains(part) {
            told.push(*part);
            let what = if *part == Part::Bpf { "ebpf" } else { "lab" };
            println!("SKIP {what}: {reason}");
        }
    }
}

fn trial(scenario: Scenario, state: &cases::State) -> Trial {
    match &state.missing {
        Some((part, reason)) if parts::required(*part) => {
            let reason = format!("required here, but {reason}");
            Trial::test(scenario.name, move || Err(Failed::from(reason)))
        }
        Some((_, reason)) => {
            Trial::test(scenario.name, || Ok(())).with_ignored_flag(true).with_kind(reason.clone())
        }
        None => Trial::test(scenario.name, move || {
            scenario.run().map_err(|error| Failed::from(format!("{error:#}")))
        }),
    }
}
