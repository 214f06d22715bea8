//! Hours of rounds: lab-soak SECONDS SEED KEPT [DISTURBANCE,…]. What `cargo xtask soak` runs as root.
//!
//! Chooses what disturbs each round by the seed, begins with a new lab now and then, keeps the folder of a lab
//! in which something was wrong, and says at the end what there was.
#![allow(clippy::print_stdout, reason = "it talks to a person")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use verbatim_tests::{
    parts, shell,
    soak::{
        Disturbance, NEEDS, Soak,
        disturbance::{ALL, named},
        growth::Size,
        judge::Counts,
        options,
        seed::Seed,
    },
};

/// A lab lasts no longer: its logs are read whole at its end.
const LAB: Duration = Duration::from_secs(900);
/// Its disks, MiB; only what is written takes room.
const DISKS: u64 = 3072;
/// What disturbs lasts between these.
const HOLD: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// After so many labs in which something was wrong there is nothing left to learn.
const FAILURES: usize = 5;

struct Plan {
    end: Instant,
    seed: Seed,
    kept: PathBuf,
    among: Vec<Disturbance>,
}

#[derive(Default)]
struct Report {
    rounds: u32,
    labs: u32,
    counts: Counts,
    each: BTreeMap<&'static str, u32>,
    most: BTreeMap<&'static str, Size>,
    failures: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (seconds, seed, kept, among) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [seconds, seed, kept] => (seconds, seed, kept, ALL.map(|(one, _)| one).to_vec()),
        [seconds, seed, kept, list] => (seconds, seed, kept, named(list)?),
        _ => bail!("expected SECONDS SEED KEPT [DISTURBANCE,…]"),
    };
    if let Some((_, reason)) = parts::missing(NEEDS) {
        bail!("a soak cannot run here: {reason}");
    }
    let begun = Instant::now();
    let mut plan = Plan {
        end: begun + Duration::from_secs(seconds.parse().context("SECONDS")?),
        seed: Seed::new(seed.parse().context("SEED")?),
        kept: kept.into(),
        among,
    };
    let mut report = Report::default();
    while report.labs == 0 || Instant::now() < plan.end && report.failures.len() < FAILURES {
        report.labs += 1;
        lab(&mut plan, &mut report)?;
    }
    report.print(begun.elapsed(), seed);
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One lab until its time is over or something is wrong.
fn lab(plan: &mut Plan, report: &mut Report) -> Result<()> {
    let name = format!("soak{}", report.labs);
    let mut soak = Soak::start(&name, &name, options(DISKS))?;
    let end = plan.end.min(Instant::now() + LAB);
    let outcome = rounds(&mut soak, plan, report, end);
    for (name, size) in soak.growth.most() {
        let most = report.most.entry(name).or_default();
        most.descriptors = most.descriptors.max(size.descriptors);
        most.memory_kib = most.memory_kib.max(size.memory_kib);
    }
    if let Err(error) = outcome {
        let folder = plan.kept.join(&soak.lab.ground.name);
        keep(soak.lab.ground.folder.path(), &folder)?;
        println!("FAILED: {error:#}\n{}\nkept in {}", soak.last_words(), folder.display());
        report.failures.push(format!("lab {}: {error:#}; kept in {}", report.labs, folder.display()));
    }
    Ok(())
}

fn rounds(soak: &mut Soak, plan: &mut Plan, report: &mut Report, end: Instant) -> Result<()> {
    soak.drip("1")?;
    let mut first = true;
    while first || Instant::now() < end {
        first = false;
        report.rounds += 1;
        let first = plan.seed.one_of(&plan.among).context("nothing to choose from")?;
        let mut disturb = vec![first];
        // Every third round two things at once.
        if plan.seed.below(3) == 0 {
            disturb.extend(plan.seed.one_of(&plan.among).filter(|second| first.goes_with(*second)));
        }
        let hold = plan.seed.between(HOLD.0, HOLD.1);
        let names: Vec<&str> = disturb.iter().map(|one| one.name()).collect();
        let what = format!("round {} ({} for {:.1} s)", report.rounds, names.join(" + "), hold.as_secs_f64());
        let begun = Instant::now();
        let counts = soak.round(&disturb, hold, &mut plan.seed).with_context(|| what.clone())?;
        println!(
            "{what}: {} answered, {} lost, {} of unknown outcome, in {:.1} s",
            counts.answered,
            counts.lost,
            counts.unknown,
            begun.elapsed().as_secs_f64()
        );
        report.add(counts);
        names.into_iter().for_each(|name| *report.each.entry(name).or_default() += 1);
    }
    let counts = soak.finish().context("at the end of its lab")?;
    println!("end of lab {}: {} commands byte by byte", report.labs, counts.answered + counts.lost);
    report.add(counts);
    Ok(())
}

/// Everything that is not a file system's image: logs, spool, segments, what each process wrote.
fn keep(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let (from, to) = (format!("{}/.", from.display()), to.display().to_string());
    shell::run("cp", &["-a", "--sparse=always", &from, &to]).map(drop)
}

impl Report {
    fn add(&mut self, counts: Counts) {
        self.counts.answered += counts.answered;
        self.counts.lost += counts.lost;
        self.counts.unknown += counts.unknown;
    }

    fn print(&self, took: Duration, seed: &str) {
        println!("\nsoak: {} rounds in {} lab(s), {} s, seed {seed}", self.rounds, self.labs, took.as_secs());
        for (name, times) in &self.each {
            println!("  {name:18} {times} round(s)");
        }
        let Counts { answered, lost, unknown } = self.counts;
        println!(
            "  commands: {answered} answered, {lost} whose connection went away, {unknown} of unknown outcome"
        );
        for (name, Size { descriptors, memory_kib }) in &self.most {
            println!("  {name}: {descriptors} descriptors and {memory_kib} KiB of its own memory at most");
        }
        println!("  {} failure(s)", self.failures.len());
        self.failures.iter().for_each(|failure| println!("  - {failure}"));
    }
}
