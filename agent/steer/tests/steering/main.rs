//! Steering end to end: real programs, cgroups, network namespaces and connects.
//!
//! Needs root and BPF. Where they are missing every test counts as ignored; `REQUIRE_BPF=1` makes
//! that a failure. The same binary is the workload: see `workload.rs`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test harness speaks to its reader")]

mod cases;
mod echo;
mod lab;
mod proxy;
mod sockets;
mod workload;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    if workload::is_one() {
        return workload::live();
    }
    let arguments = Arguments::from_args();
    let hindrance = lab::hindrance();
    let required = std::env::var_os("REQUIRE_BPF").is_some_and(|value| value == "1");
    if let Some(hindrance) = &hindrance {
        println!("SKIP ebpf: {hindrance}");
    }
    // Listing must not touch the machine.
    let base = (hindrance.is_none() && !arguments.list).then(lab::Base::enter);
    let trials = cases::all()
        .into_iter()
        .map(|(name, case, left_out)| {
            let hindrance = hindrance.clone();
            let ignored = (hindrance.is_some() && !required) || left_out;
            Trial::test(name, move || match hindrance {
                Some(hindrance) => Err(hindrance.into()),
                None => case(name),
            })
            .with_ignored_flag(ignored)
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(base);
    if lab::left_something_behind() { ExitCode::FAILURE } else { conclusion.exit_code() }
}
