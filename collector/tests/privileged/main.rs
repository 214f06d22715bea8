//! What only root can try: losing power, filling a disk, being somebody else.
//!
//! Whether each can run is found out when the tests are listed; what cannot counts as ignored, with its reason,
//! or as failed where `REQUIRE_ROOT=1` or `REQUIRE_LAB=1` say so.

#![allow(clippy::print_stdout, reason = "a test harness speaks to its reader")]

mod full_disk;
mod peers;
mod powerloss;
#[path = "../collector/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests that need no root, which use more of it")]
mod support;

use std::{
    pin::Pin,
    process::{Command, ExitCode},
};

use libtest_mimic::{Arguments, Trial};

type Test = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// Set for the process that has its own mounts.
const OWN_MOUNTS: &str = "VERBATIM_TEST_OWN_MOUNTS";

/// Begins again where nobody else sees our mounts. A process that makes a mount namespace of its own copies all
/// mounts that it sees, and a file system that is mounted there as well does not go when it is unmounted here.
fn with_own_mounts() -> Option<ExitCode> {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return None;
    }
    let own = std::env::current_exe().ok()?;
    let can = Command::new("unshare").args(["--mount", "--propagation", "private", "true"]).output();
    if !can.is_ok_and(|o| o.status.success()) {
        return None;
    }
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private"]).arg(own).args(std::env::args_os().skip(1));
    let status = again.env(OWN_MOUNTS, "1").status().ok()?;
    Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn main() -> ExitCode {
    if let Some(code) = with_own_mounts() {
        return code;
    }
    let arguments = Arguments::from_args();
    let power = powerloss::Disk::new().and_then(|mut disk| disk.cut_power()).err();
    let tmpfs = full_disk::Mount::tmpfs(1 << 20).err();
    let cgroup = hindrance_of_cgroups();
    let user = powerloss::run(Command::new("setpriv").args([
        "--reuid",
        "65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-V",
    ]))
    .err();
    let tests: [(&str, Option<String>, Test); 5] = [
        ("cut_loses_what_was_not_synced_and_keeps_what_was", power.clone(), || {
            Box::pin(powerloss::cut_loses_what_was_not_synced_and_keeps_what_was())
        }),
        ("no_acknowledged_record_is_lost_with_the_power", power, || {
            Box::pin(powerloss::no_acknowledged_record_is_lost_with_the_power())
        }),
        ("full_disk_refuses_batches_and_takes_them_again_when_there_is_room", tmpfs, || {
            Box::pin(full_disk::full_disk_refuses_batches_and_takes_them_again_when_there_is_room())
        }),
        ("other_user_is_refused_even_where_the_file_lets_it_in", user, || {
            Box::pin(peers::other_user_is_refused_even_where_the_file_lets_it_in())
        }),
        ("process_of_a_refused_cgroup_is_refused_whoever_it_is", cgroup, || {
            Box::pin(peers::process_of_a_refused_cgroup_is_refused_whoever_it_is())
        }),
    ];
    let required =
        ["REQUIRE_ROOT", "REQUIRE_LAB"].iter().any(|r| std::env::var_os(r).is_some_and(|v| v == "1"));
    let trial = |(name, hindrance, test): (&str, Option<String>, Test)| {
        if let Some(hindrance) = &hindrance {
            println!("SKIP {name}: {hindrance}");
        }
        let ignored = hindrance.is_some() && !required;
        let run = move || match hindrance {
            Some(hindrance) => Err(hindrance.into()),
            None => {
                tokio::runtime::Runtime::new()?.block_on(test());
                Ok(())
            }
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

fn hindrance_of_cgroups() -> Option<String> {
    let place = peers::unified().join(format!("verbatim-collector-try-{}", std::process::id()));
    let tried = std::fs::create_dir(&place).and_then(|()| std::fs::remove_dir(&place));
    tried.err().map(|e| format!("{e} at mkdir {}", place.display()))
}
