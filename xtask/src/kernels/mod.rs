//! `kernels`: steering on kernels that are not this machine's. Each of Debian's is started in qemu with a root
//! file system that holds the tests of `verbatim-steer` and the real binaries, and says over its serial line
//! what came of it. Nothing is installed into this machine but qemu, and no kernel is.

mod guest;
mod machine;
mod packages;

use std::{process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    binaries::{self, Built},
    cases::Ran,
    ebpf,
    place::Place,
    say,
    setup::{self, Purpose},
    tally::{Ending, Tally},
};
use guest::Scope;
use packages::{Kernel, Unpacked};

#[derive(Args)]
pub(crate) struct Options {
    /// Series such as 6.1 or 6.12; all that are listed in docs/architecture.md unless given
    series: Vec<String>,
    /// Only what `test` does on the least of them
    #[arg(long)]
    short: bool,
    /// Look for newer packages of kernels that are here already
    #[arg(long)]
    refresh: bool,
}

/// The kernels that Debian offers, the least one first. What is claimed in docs/architecture.md is what this
/// list holds.
const KERNELS: [Kernel; 4] = [
    // Has no network namespace's cookie for sock_ops: shows how that is told.
    Kernel { series: "5.10", suites: &["bullseye", "bullseye-security"], runs: false },
    Kernel { series: "6.1", suites: &["bookworm", "bookworm-security"], runs: true },
    Kernel { series: "6.12", suites: &["trixie", "trixie-security"], runs: true },
    Kernel { series: "7.3", suites: &["trixie-backports"], runs: true },
];

/// Package and name of the tests that run there.
const STEERING: (&str, &str) = ("verbatim-steer", "steering");
/// The one that `test` starts.
const SHORT: &str = "6.1";
/// Under which the row of docs/architecture.md finds it.
const TEST_NAME: &str = "linux_6_1_loads_attaches_steers_and_takes_over";

pub(crate) fn run(place: &Place, options: &Options) -> Result<ExitCode> {
    let begun = Instant::now();
    setup::ensure(place, Purpose::Kernels)?;
    ebpf::build(place)?;
    let built = binaries::product_and(place, STEERING.0, STEERING.1)?;
    let wanted: Vec<&Kernel> = if options.series.is_empty() {
        KERNELS.iter().collect()
    } else {
        options.series.iter().map(|series| known(series)).collect::<Result<_>>()?
    };
    let mut sum = Tally::default();
    let mut table = Vec::new();
    for kernel in wanted {
        say::heading(&format!("Linux {}", kernel.series));
        let unpacked = packages::ready(place, kernel, options.refresh)?;
        let began = Instant::now();
        let scope = if options.short { Scope::Short } else { Scope::Everything };
        let tally = on(place, &built, kernel, &unpacked, scope, &mut Ran::default())?;
        let what = if kernel.runs { "steers" } else { "told at start what it lacks" };
        table.push(format!("{:24} {what}: {tally} ({})", unpacked.release, say::took(began)));
        sum.add(tally);
    }
    say::heading("Kernels");
    for line in table {
        say::line(&line);
    }
    say::line(&format!("in {}", say::took(begun)));
    println!("\n{sum}");
    Ok(if sum.failed == 0 && sum.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The short form for `test`: the least kernel that is claimed. Where qemu or the kernel cannot be had it counts
/// as skipped, and says why.
pub(crate) fn short(place: &Place, built: &Built, ran: &mut Ran) -> Result<Tally> {
    let kernel = known(SHORT)?;
    let unpacked = match machine::missing() {
        Some(missing) => Err(anyhow::anyhow!(missing)),
        None => packages::ready(place, kernel, false),
    };
    let unpacked = match unpacked {
        Ok(unpacked) => unpacked,
        Err(why) => {
            say::note(&format!("SKIPPED Linux {SHORT} in qemu: {why:#}"));
            ran.add(TEST_NAME, Ending::Skipped);
            return Ok(Tally { skipped: 1, ..Tally::default() });
        }
    };
    let begun = Instant::now();
    // Its tests bear the names of those that ran on this machine: only the sum of them counts here.
    let tally = on(place, built, kernel, &unpacked, Scope::Short, &mut Ran::default())?;
    let well = tally.failed == 0 && tally.passed > 0;
    ran.add(TEST_NAME, if well { Ending::Passed } else { Ending::Failed });
    let mark = if well { say::green("ok") } else { say::red("FAILED") };
    say::line(&format!(
        "{mark:6} steering on Linux {} in qemu: {tally} ({})",
        unpacked.release,
        say::took(begun)
    ));
    Ok(tally)
}

fn known(series: &str) -> Result<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.series == series).with_context(|| {
        let all: Vec<&str> = KERNELS.iter().map(|kernel| kernel.series).collect();
        format!("no kernel of the series {series} is listed; there are {}", all.join(", "))
    })
}

fn on(
    place: &Place,
    built: &Built,
    kernel: &Kernel,
    unpacked: &Unpacked,
    scope: Scope,
    ran: &mut Ran,
) -> Result<Tally> {
    let steering = built
        .tests
        .iter()
        .find(|program| (program.package.as_str(), program.target.as_str()) == STEERING)
        .context("the tests of verbatim-steer were not built")?;
    let scope = if kernel.runs { scope } else { Scope::Refused };
    let image = guest::image(place, kernel, unpacked, &steering.path, &built.folder, scope)?;
    let output = machine::boot(place, kernel, unpacked, &image, scope.patience())?;
    let mut sum = Tally::default();
    for part in &output.parts {
        sum.add(Tally::of_run(&part.said, part.code == 0));
        part.said
            .lines()
            .filter_map(crate::tally::of_test_line)
            .for_each(|(name, ending)| ran.add(name, ending));
    }
    if output.parts.len() != scope.parts() {
        bail!("Linux {} ended early: see {}", unpacked.release, place.short(&output.log));
    }
    if sum.failed > 0 {
        say::line(&format!("{} see {}", say::red("failed:"), place.short(&output.log)));
    }
    Ok(sum)
}
