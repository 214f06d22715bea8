//! `verbatim-agent` as a person runs it: real programs, cgroups, collector and clients.
//!
//! Needs root and BPF. Where they are missing every test counts as ignored; `REQUIRE_BPF=1` makes that a
//! failure. The same binary is the captured command where one has to do what no client does.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test harness speaks to its reader")]

#[expect(dead_code, reason = "shared with the tests of watching, which use all of it")]
#[path = "../../kube/tests/api/server.rs"]
mod api_server;
mod cases;
#[expect(dead_code, reason = "shared with the tests of shipping, which use all of it")]
#[path = "../../ship/tests/ship/collector.rs"]
mod collector;
mod postgres;
mod support;
mod tls;
mod workload;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use verbatim_steer::Steering;

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    if let Some(code) = workload::run() {
        return code;
    }
    let arguments = Arguments::from_args();
    let hindrance = Steering::probe().err().map(|error| error.to_string());
    let required = std::env::var_os("REQUIRE_BPF").is_some_and(|value| value == "1");
    if let Some(hindrance) = &hindrance {
        println!("SKIP ebpf: {hindrance}");
    }
    let trials = cases::all()
        .into_iter()
        .map(|(name, case)| {
            let hindrance = hindrance.clone();
            let ignored = hindrance.is_some() && !required;
            Trial::test(name, move || hindrance.map_or_else(case, |hindrance| Err(hindrance.into())))
                .with_ignored_flag(ignored)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
