//! Rounds of work under disturbance, each judged to its last command.
//!
//! Owns what a round is and how it is judged. Chooses nothing: which disturbance comes next is its caller's,
//! the scenarios of the lab for single ones, `lab-soak` for hours of them.

pub mod disturbance;
pub mod growth;
pub mod judge;
pub mod load;
pub mod seed;
mod witness;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use verbatim_api::v1::{Filter, Finding, FindingKind};

pub use disturbance::Disturbance;
use growth::Growth;
use judge::{Counts, Judgement, judge};
use load::{Load, Told};
use seed::Seed;
use witness::Witness;

use crate::{
    agent::{self, Options},
    google,
    lab::Lab,
    parts::Part,
};

/// What a machine needs for all disturbances.
pub const NEEDS: &[Part] = &[
    Part::Root,
    Part::Sandbox,
    Part::Binaries,
    Part::Postgres,
    Part::Python,
    Part::Openssl,
    Part::Bpf,
    Part::Disks,
    Part::Clocks,
    Part::Memory,
];

/// How long it may be that no further record comes, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(60);
/// Memory that agent and collector may touch for the first time after their first round, KiB.
const AGENT_KIB: u64 = 48 * 1024;
const COLLECTOR_KIB: u64 = 128 * 1024;

/// A lab in which rounds are run.
#[derive(Debug)]
pub struct Soak {
    /// The lab.
    pub lab: Lab,
    /// What its processes had at most.
    pub growth: Growth,
    name: String,
    rounds: u32,
    witness: Witness,
    findings: usize,
    drip: Option<(String, Load)>,
}

/// How an agent has to be for all disturbances; disks are of so many MiB.
#[must_use]
pub fn options(disks: u64) -> Options {
    Options {
        spool_limit: "24MiB",
        segment_size: "1MiB",
        over_tls: true,
        google: Some(google::Options::default()),
        ground: agent::Ground { disks: Some(disks), link: true, clocks: true, memory: true },
        ..Options::default()
    }
}

impl Soak {
    /// In a lab of its own; the name is part of every command's id.
    pub fn start(scenario: &str, name: &str, options: Options) -> Result<Self> {
        let lab = Lab::with(scenario, options)?;
        let witness = Witness::new(&lab)?;
        let (growth, name) = (Growth::default(), name.to_owned());
        Ok(Self { lab, growth, name, rounds: 0, witness, findings: 0, drip: None })
    }

    /// Has one client more, which sends a byte each so many seconds, until the end.
    pub fn drip(&mut self, pause: &str) -> Result<()> {
        let mark = format!("{}drip", self.name);
        self.drip = Some((mark.clone(), Load::dripping(&self.lab, &mark, pause)?));
        Ok(())
    }

    /// One round: clients at work, what disturbs them, clients at work again, and then the judgement.
    pub fn round(&mut self, disturb: &[Disturbance], hold: Duration, seed: &mut Seed) -> Result<Counts> {
        self.rounds += 1;
        let mark = format!("{}r{}", self.name, self.rounds);
        let mut load = Load::start(&self.lab, &mark)?;
        load.go_on().context("before the disturbance")?;
        let mut disturb = disturb.to_vec();
        disturb.sort();
        let mut begun = Vec::new();
        for one in &disturb {
            begun.push(one.begin(&mut self.lab, seed).with_context(|| one.name())?);
        }
        let each = hold.checked_div(u32::try_from(begun.len())?).unwrap_or_default();
        for (kind, one) in disturb.iter().zip(&mut begun) {
            if kind.stood_still_by().is_some_and(|stall| disturb.contains(&stall)) {
                thread::sleep(each);
            } else {
                one.hold(each)?;
            }
        }
        while let Some(one) = begun.pop() {
            one.end(&mut self.lab).context("undoing what disturbs")?;
        }
        load.go_on().context("after the disturbance")?;
        let told = load.stop()?;
        let counts = self.judge(&mark, &told)?;
        self.settled(&disturb)?;
        Ok(counts)
    }

    /// Waits until records are as they must be.
    fn judge(&mut self, mark: &str, told: &Told) -> Result<Counts> {
        ensure!(!told.is_empty(), "nobody did anything");
        let (mut since, mut least) = (Instant::now(), usize::MAX);
        loop {
            let outcome = self.look(mark, told);
            match outcome {
                Ok(Judgement { counts, wrong, on_the_way }) if wrong.is_empty() => {
                    self.witness.forget(mark, on_the_way);
                    return Ok(counts);
                }
                Ok(Judgement { wrong, .. }) if wrong.len() < least => {
                    (since, least) = (Instant::now(), wrong.len());
                }
                Ok(Judgement { wrong, .. }) if since.elapsed() > PATIENCE => {
                    let some: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
                    bail!("{} commands are not recorded as they were:\n  {}", wrong.len(), some.join("\n  "));
                }
                Err(error) if since.elapsed() > PATIENCE => return Err(error),
                _ => {}
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn look(&mut self, mark: &str, told: &Told) -> Result<Judgement> {
        self.witness.read()?;
        let seen = self.lab.collector.seen_by(Filter { text: mark.to_owned(), ..Filter::default() })?;
        Ok(judge(told, &seen, self.witness.of(mark), |pod| self.lab.principal(pod)))
    }

    /// Those that the log keeps. Whether the kernel's sums and the records agree is worked out anew each time,
    /// and after a kill they need not: connections that were accepted and never spoke are counted only.
    fn kept_findings(&self) -> Result<Vec<Finding>> {
        let mut findings = self.lab.collector.findings()?;
        findings.retain(|one| one.kind() != FindingKind::CoverageDisagrees);
        Ok(findings)
    }

    /// Nothing is wrong with the chains, and nobody has grown.
    fn settled(&mut self, disturb: &[Disturbance]) -> Result<()> {
        let findings = self.kept_findings()?;
        let new = findings.get(self.findings..).unwrap_or_default();
        let odd: Vec<_> =
            new.iter().filter(|one| !disturb.iter().any(|cause| cause.explains(one.kind()))).collect();
        ensure!(odd.is_empty(), "the collector found {odd:?}");
        self.findings = findings.len();
        let mut grown = Vec::new();
        for process in self.lab.agent.processes()? {
            grown.extend(self.growth.look("agent", process, AGENT_KIB)?);
        }
        grown.extend(self.growth.look("collector", self.lab.collector.id()?, COLLECTOR_KIB)?);
        ensure!(grown.is_empty(), "{}", grown.join("; "));
        Ok(())
    }

    /// Ends all of it in order: nothing may come late, the chains must close without a finding, and an index
    /// that is made again from the log must say the same.
    pub fn finish(&mut self) -> Result<Counts> {
        let mut counts = Counts::default();
        if let Some((mark, load)) = self.drip.take() {
            let told = load.stop()?;
            if !told.is_empty() {
                counts = self.judge(&mark, &told)?;
            }
        }
        self.lab.agent.stop()?;
        self.settled_after_the_end()?;
        let before = self.lab.collector.commands()?.len();
        self.lab.collector.kill();
        self.lab.collector.delete_index()?;
        self.lab.collector.restart()?;
        let after = self.lab.collector.commands()?.len();
        ensure!(before == after, "the index had {before} commands, made again from the log it has {after}");
        self.settled_after_the_end()?;
        Ok(counts)
    }

    fn settled_after_the_end(&mut self) -> Result<()> {
        let findings = self.kept_findings()?;
        let new = findings.get(self.findings..).unwrap_or_default();
        ensure!(new.is_empty(), "at the end the collector found {new:?}");
        let late = self.witness.rest()?;
        ensure!(late.is_empty(), "after their rounds servers logged {late:?}");
        Ok(())
    }
}

/// The short form: one round with these, in a lab of its own.
pub fn short(scenario: &str, disturb: &[Disturbance], hold: Duration) -> Result<()> {
    let mut soak = Soak::start(scenario, "short", options(96))?;
    let outcome = soak.round(disturb, hold, &mut Seed::new(11)).and_then(|_| soak.finish());
    outcome.map(drop).with_context(|| soak.last_words())
}

impl Soak {
    /// What the binaries under test had to say.
    #[must_use]
    pub fn last_words(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n  ")
        };
        let (agent, collector) = (self.lab.agent.complaints(), self.lab.collector.complaints());
        format!("agent: {}\ncollector: {}\n", tail(agent), tail(collector))
    }
}
