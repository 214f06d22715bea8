//! Tests that need what a machine may lack: without it they count as skipped, never as passed, and as failed
//! where `REQUIRE_LAB=1` says that everything must be there.
//!
//! A harness of its own decides when it lists its tests ([`main`]). A unit test cannot be ignored once it runs:
//! it says that it did nothing ([`skip`]), and `cargo xtask test` takes it off those that passed.

use std::{
    env,
    io::{self, Write as _},
    panic,
    path::PathBuf,
    process::ExitCode,
    thread,
};

use libtest_mimic::{Arguments, Failed, Trial};

pub mod port;

/// What a line of [`skip`] begins with, before the test's name and the reason.
pub const SKIPPED: &str = "SKIPPED ";

/// Whether a missing part is a failure: `REQUIRE_LAB=1`.
#[must_use]
pub fn required() -> bool {
    env::var_os("REQUIRE_LAB").is_some_and(|value| value == "1")
}

/// Where a program is, among the folders of `PATH`.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Why the first of these programs that is not there keeps a test from running.
#[must_use]
pub fn programs(names: &[&str]) -> Option<String> {
    names.iter().find(|name| find(name).is_none()).map(|name| format!("{name} is not on this machine"))
}

/// To be called by a unit test that returns without having tested anything. Panics where everything must be
/// there.
pub fn skip(reason: &str) {
    if required() {
        panic::panic_any(format!("required here, but {reason}"));
    }
    let thread = thread::current();
    // Not by a macro that prints: the harness would keep the line of a test that passes to itself.
    writeln!(io::stderr(), "{SKIPPED}{}: {reason}", thread.name().unwrap_or("main")).ok();
}

/// Whether the program is there; [`skip`]s where it is not.
#[must_use]
pub fn has(program: &str) -> bool {
    let missing = programs(&[program]);
    missing.iter().for_each(|reason| skip(reason));
    missing.is_none()
}

/// A test of a harness of its own. It fails by panicking.
#[derive(Debug)]
pub struct Case {
    /// Its function's name.
    pub name: &'static str,
    /// Why it cannot run here.
    pub missing: Option<String>,
    /// The function.
    pub run: fn(),
}

/// The harness's `main`: those that can, run; the others are ignored, with the reason before their name, or
/// failed where everything must be there.
#[must_use]
pub fn main(cases: Vec<Case>) -> ExitCode {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, cases.into_iter().map(trial).collect()).exit_code()
}

fn trial(Case { name, missing, run }: Case) -> Trial {
    match missing {
        None => Trial::test(name, move || {
            run();
            Ok(())
        }),
        Some(reason) if required() => {
            Trial::test(name, move || Err(Failed::from(format!("required here, but {reason}"))))
        }
        Some(reason) => Trial::test(name, || Ok(())).with_ignored_flag(true).with_kind(reason),
    }
}
