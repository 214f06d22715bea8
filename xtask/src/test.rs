//! `test`: every test there is, in the order from quick to slow, and one closing line over all of them.
//!
//! cargo runs as the developer. Test programs that need the kernel's help run as root: the lab's, and those
//! of the crates that load eBPF programs, make namespaces or mount.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    binaries::{self, TestProgram},
    cases::{self, Ran},
    command, ebpf, kernels,
    place::Place,
    say, setup,
    setup::Purpose,
    tally::{self, Ending, Tally},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Only test programs of these packages
    #[arg(short, long)]
    package: Vec<String>,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Packages whose tests need root: what they test is refused to anybody else.
const AS_ROOT: [&str; 6] = [
    "verbatim-agent",
    "verbatim-collector",
    "verbatim-proxy",
    "verbatim-steer",
    "verbatim-sys",
    "verbatim-tests",
];

/// The lab and its cluster: their lines are shown as they come, because each is a scenario that takes seconds.
const LAB: [&str; 2] = ["lab", "cluster"];

/// What the tests may be asked to insist on, passed on to those that run through sudo.
const PASSED_ON: [&str; 5] =
    ["REQUIRE_BPF", "REQUIRE_LAB", "REQUIRE_ROOT", HOLD_SECONDS, "VLAB_TAKE_OVER_CONNECTS"];

/// How long the lab lets a held statement wait; a second unless set.
const HOLD_SECONDS: &str = "VLAB_HOLD_SECONDS";

pub(crate) fn run(place: &Place, options: &Options) -> Result<ExitCode> {
    let begun = Instant::now();
    setup::ensure(place, Purpose::Test)?;
    ebpf::build(place)?;
    let built = binaries::everything(place)?;
    let mut programs: Vec<&TestProgram> = built
        .tests
        .iter()
        .filter(|program| options.package.is_empty() || options.package.contains(&program.package))
        .collect();
    if programs.is_empty() {
        bail!("no test program belongs to {}", options.package.join(", "));
    }
    // The lab last: when a unit fails, that is what a person wants to see first.
    programs.sort_by_key(|program| LAB.iter().position(|lab| program.target == *lab).map_or(0, |at| at + 1));

    say::heading("Tests");
    let logs = logs(place)?;
    let mut sum = Tally::default();
    let mut ran = Ran::default();
    let mut failures = Vec::new();
    for program in programs {
        let name = format!("{} {} {}", program.package, program.kind, program.target);
        let mut command = as_cargo_would(place, program, &built.folder)?;
        command.args(&options.filter);
        let tally = observe(&mut command, &name, &logs, LAB.contains(&program.target.as_str()), &mut ran)?;
        if tally.failed > 0 {
            failures.push(name);
        }
        sum.add(tally);
    }
    if options.filter.is_none() {
        let name = "examples in the documentation";
        let mut cargo = place.cargo();
        cargo.args(["test", "--locked", "--doc"]);
        if options.package.is_empty() {
            cargo.arg("--workspace");
        }
        for package in &options.package {
            cargo.args(["--package", package]);
        }
        let tally = observe(&mut cargo, name, &logs, false, &mut ran)?;
        if tally.failed > 0 {
            failures.push(name.to_owned());
        }
        sum.add(tally);
    }
    if options.filter.is_none() && options.package.is_empty() {
        let tally = kernels::short(place, &built, &mut ran)?;
        if tally.failed > 0 {
            failures.push("steering on an older kernel".to_owned());
        }
        sum.add(tally);
        for name in cases::DOCUMENTS {
            let path = place.root.join(name);
            let document = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let (tally, wrong) = ran.check(name, &document);
            say::line(&format!("cases of {name}, each with its test: {tally}"));
            failures.extend(wrong);
            sum.add(tally);
        }
    }
    say::line(&format!(
        "{}; everything that the tests printed is in {}",
        say::took(begun),
        place.short(&logs)
    ));
    for name in &failures {
        say::line(&format!("{} {name}", say::red("failed:")));
    }
    // The closing line, alone: whoever reads only the end reads this.
    println!("\n{sum}");
    Ok(if sum.failed == 0 && sum.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where everything that tests print is kept.
fn logs(place: &Place) -> Result<PathBuf> {
    let folder = place.target.join("test-logs");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// A test program with the folder and the variables that cargo would give it.
fn as_cargo_would(place: &Place, program: &TestProgram, binaries: &Path) -> Result<Command> {
    let mut variables = vec![
        ("CARGO_MANIFEST_DIR", program.folder.clone().into_os_string()),
        ("VERBATIM_BIN_DIR", binaries.as_os_str().to_owned()),
        ("VERBATIM_EBPF", place.ebpf().into_os_string()),
        ("VERBATIM_CACHE", place.cache.clone().into_os_string()),
    ];
    for name in PASSED_ON {
        variables.extend(std::env::var_os(name).map(|value| (name, value)));
    }
    let mut command = if AS_ROOT.contains(&program.package.as_str()) {
        command::as_root_with(&program.path, variables)?
    } else {
        let mut command = Command::new(&program.path);
        command.envs(variables);
        command
    };
    command.current_dir(&program.folder);
    Ok(command)
}

/// Runs one, keeps everything it prints, and shows a line for it; more when it fails or is watched.
fn observe(command: &mut Command, name: &str, logs: &Path, watched: bool, ran: &mut Ran) -> Result<Tally> {
    let begun = Instant::now();
    let log_path = logs.join(format!("{}.log", name.replace(' ', ".")));
    let mut log = fs::File::create(&log_path).with_context(|| log_path.display().to_string())?;
    if watched {
        say::line(&format!("{name}:"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    // Apart from each other: what a test's own child complains of must not fall into the middle of a line
    // that is counted.
    let complaints = child.stderr.take().context("the errors of a test program")?;
    let mut stderr_log = log.try_clone()?;
    let complaining = thread::spawn(move || -> io::Result<String> {
        let mut all = String::new();
        for line in BufReader::new(complaints).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            writeln!(stderr_log, "{line}")?;
            if watched {
                println!("    {line}");
            }
            all.push_str(&line);
            all.push('\n');
        }
        Ok(all)
    });
    let mut output = String::new();
    let mut ended = BTreeMap::new();
    for line in BufReader::new(child.stdout.take().context("the output of a test program")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(log, "{line}")?;
        if let Some((name, ending)) = tally::of_test_line(&line) {
            ended.insert(name.to_owned(), ending);
        }
        if watched {
            println!("    {line}");
        }
        output.push_str(&line);
        output.push('\n');
    }
    let complaints =
        complaining.join().ok().with_context(|| format!("reading the errors of {name} failed"))??;
    let status = child.wait()?;
    let skipped: BTreeSet<&str> = complaints.lines().filter_map(tally::of_skip_line).collect();
    let tally = Tally::of_run(&output, status.success()).without_skipped(skipped.len() as u64);
    for (name, ending) in &ended {
        let ending = if skipped.contains(name.as_str()) { Ending::Skipped } else { *ending };
        ran.add(name, ending);
    }
    let mark = if tally.failed == 0 { say::green("ok") } else { say::red("FAILED") };
    if tally.failed > 0 && !watched {
        print!("{output}{complaints}");
    }
    if tally != Tally::default() {
        say::line(&format!("{mark:6} {name}: {tally} ({})", say::took(begun)));
    }
    if tally.failed > 0 && !status.success() {
        say::line(&format!("       ended with {status}"));
    }
    Ok(tally)
}
