//! Record before forward: no record is lost, whatever dies or fills up.

use std::{fs, io::Write as _, os::fd::OwnedFd, thread};

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Finding, FindingKind, Status};
use verbatim_tests::{
    agent::Options,
    did::{Did, ServerSaw},
    lab::Lab,
    network::{OTHER, Pod},
    parts::Part,
    peers,
    process::Process,
    questions::Metrics,
    wait,
};

use crate::scenario::{Scenario, usual};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(a_command_whose_agent_is_killed_upon_its_last_byte_is_recorded),
        usual!(an_agent_that_is_killed_under_load_loses_no_record),
        usual!(a_collector_that_was_away_gets_every_record),
        usual!(a_collector_that_is_killed_under_load_loses_no_record),
        usual!(an_index_that_was_deleted_is_built_again_from_the_log),
        usual!(a_full_spool_stops_forwarding_until_there_is_room).with(small_spool),
        usual!(a_full_spool_that_sheds_says_how_many_are_missing).with(shedding_spool),
        usual!(group_sync_records_the_same).with(group_sync),
        usual!(records_travel_over_mutual_tls_and_survive_a_collectors_death)
            .with(over_tls)
            .needing(WITH_OPENSSL),
    ]
}

fn small_spool() -> Options {
    Options { spool_limit: "4MiB", segment_size: "512KiB", metrics: true, ..Options::default() }
}

fn shedding_spool() -> Options {
    Options { when_full: "shed", ..small_spool() }
}

fn group_sync() -> Options {
    Options { sync: "group", ..Options::default() }
}

const WITH_OPENSSL: &[Part] =
    &[Part::Root, Part::Sandbox, Part::Binaries, Part::Postgres, Part::Python, Part::Openssl, Part::Bpf];

fn over_tls() -> Options {
    Options { over_tls: true, ..Options::default() }
}

fn a_command_whose_agent_is_killed_upon_its_last_byte_is_recorded(lab: &mut Lab) -> Result<()> {
    let target = lab.ground.path("agent.pid");
    fs::write(&target, lab.agent.id()?.to_string())?;
    let mut witness = peers::start(&lab.ground, "witness", OTHER, 5432, &target.display().to_string())?;
    let text = "DROP TABLE item /* lab:kill id:a-killed */";
    let client = lab.pod(Pod::A).with("PGHOST", OTHER);
    let client = client.python("plain", "raw.py", &["plain", text])?;
    witness.wait_for_output("killed upon")?;
    ensure!(client.finish()?.text().contains("ended early"), "the client got an answer");
    let ended = lab.agent.wait_for_death()?;
    ensure!(!ended.status.success(), "the agent ended by itself: {}", ended.status);
    // What the witness got is the whole command: its last byte had gone.
    let hex: String = text.bytes().chain([0]).map(|byte| format!("{byte:02x}")).collect();
    ensure!(witness.output().contains(&hex), "the witness got {}", witness.output());
    lab.agent.restart()?;
    // The witness is no database: its log has nothing.
    let did = Did::query(&lab.principal(Pod::A), "a-killed", text)
        .ended(Status::OutcomeUnknown, ServerSaw::Nothing);
    lab.compare(&[did])
}

/// A client that runs a query for each line it is given, and so knows of each how it ended.
pub(crate) struct Flight {
    process: Process,
    input: fs::File,
}

impl Flight {
    pub(crate) fn start(lab: &Lab, pod: Pod, name: &str) -> Result<Self> {
        let mut process = lab.pod(pod).python(name, "raw.py", &["flight"])?;
        let input = process.stdin().context("no standard input")?;
        Ok(Self { process, input: OwnedFd::from(input).into() })
    }

    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        self.input.write_all(format!("{text}\n").as_bytes()).context("the client is gone")
    }

    /// Sends all of them from a thread of its own: a client that waits reads no further.
    pub(crate) fn feed(&self, queries: &[(String, String)]) -> Result<thread::JoinHandle<Result<()>>> {
        let sent: Vec<String> = queries.iter().map(|(_, text)| format!("{text}\n")).collect();
        let mut input = self.input.try_clone()?;
        Ok(thread::spawn(move || -> Result<()> {
            sent.iter().try_for_each(|line| Ok(input.write_all(line.as_bytes())?))
        }))
    }

    pub(crate) fn answers(&self) -> usize {
        self.process.output().lines().filter(|line| line.starts_with("answered")).count()
    }

    pub(crate) fn wait_for(&self, answers: usize) -> Result<()> {
        wait::until(&format!("{answers} answers"), || {
            let got = self.answers();
            ensure!(!self.process.output().contains("lost"), "the connection was lost");
            Ok((got >= answers).then_some(()))
        })
    }

    pub(crate) fn end(self) -> Result<()> {
        drop(self.input);
        self.process.finish().map(drop)
    }
}

fn an_agent_that_is_killed_under_load_loses_no_record(lab: &mut Lab) -> Result<()> {
    let file = lab.ground.path("load.sql");
    fs::write(&file, "SELECT 1 /* vlab=a-load */;\n")?;
    let arguments = ["-n", "-c", "4", "-j", "2", "-T", "600", "-f"];
    let load = lab.pod(Pod::A).pgbench("load", &[&arguments[..], &[&file.display().to_string()]].concat())?;
    wait::until("the load to be under way", || Ok((lab.server.log()?.len() > 400).then_some(())))?;
    lab.agent.kill();
    drop(load.wait()?);
    lab.agent.restart()?;
    // At the end the set is what the server saw: each once, and up to four that it may have seen.
    wait::until("records and log to agree", || {
        let seen = lab.collector.seen()?;
        let recorded: Vec<_> = seen.iter().filter(|one| one.ids == ["a-load"]).collect();
        let logged = lab.server.log()?.iter().filter(|one| one.text.contains("vlab=a-load")).count();
        let unknown = recorded.iter().filter(|one| one.status == Status::OutcomeUnknown).count();
        let done = recorded.iter().filter(|one| one.status == Status::Ok).count();
        ensure!(unknown <= 4, "{unknown} are unknown with four clients");
        ensure!(done <= logged && logged <= done + unknown, "{done} + {unknown} recorded, {logged} logged");
        ensure!(done + unknown == recorded.len(), "some have not ended");
        ensure!(recorded.iter().all(|one| one.principal == lab.principal(Pod::A)), "wrong principal");
        Ok(Some(()))
    })?;
    let findings = lab.collector.findings()?;
    ensure!(findings.is_empty(), "{findings:?}");
    Ok(())
}

pub(crate) fn queries(pod: Pod, from: usize, to: usize) -> Vec<(String, String)> {
    (from..to)
        .map(|number| {
            let id = format!("{}-q{number}", pod.letter());
            let text = format!("SELECT {number} /* id:{id} */");
            (id, text)
        })
        .collect()
}

pub(crate) fn did(lab: &Lab, pod: Pod, queries: &[(String, String)]) -> Vec<Did> {
    queries.iter().map(|(id, text)| Did::query(&lab.principal(pod), id, text.as_str()).rows(1)).collect()
}

fn a_collector_that_was_away_gets_every_record(lab: &mut Lab) -> Result<()> {
    let mut flight = Flight::start(lab, Pod::A, "flight")?;
    let all = queries(Pod::A, 0, 600);
    for (at, (_, text)) in all.iter().enumerate() {
        if at == 200 {
            flight.wait_for(200)?;
            lab.collector.kill();
        }
        if at == 400 {
            // Nothing waits for a collector.
            flight.wait_for(400)?;
            lab.collector.restart()?;
        }
        flight.send(text)?;
    }
    flight.wait_for(600)?;
    flight.end()?;
    let did = did(lab, Pod::A, &all);
    lab.compare(&did)
}

fn a_collector_that_is_killed_under_load_loses_no_record(lab: &mut Lab) -> Result<()> {
    let mut did_all = Vec::new();
    let mut flights = Vec::new();
    for pod in Pod::ALL {
        let all = queries(pod, 0, 1500);
        did_all.extend(did(lab, pod, &all));
        let mut flight = Flight::start(lab, pod, &format!("flight-{}", pod.letter()))?;
        for (_, text) in &all {
            flight.send(text)?;
        }
        flights.push(flight);
    }
    for at in [200, 600, 1000] {
        flights.iter().try_for_each(|flight| flight.wait_for(at))?;
        lab.collector.kill();
        lab.collector.restart()?;
    }
    for flight in flights {
        flight.wait_for(1500)?;
        flight.end()?;
    }
    lab.compare(&did_all)
}

fn an_index_that_was_deleted_is_built_again_from_the_log(lab: &mut Lab) -> Result<()> {
    let all = queries(Pod::B, 0, 50);
    let mut flight = Flight::start(lab, Pod::B, "flight")?;
    for (_, text) in &all {
        flight.send(text)?;
    }
    flight.wait_for(50)?;
    flight.end()?;
    let did = did(lab, Pod::B, &all);
    lab.agree(&did)?;
    lab.collector.kill();
    let deleted = lab.collector.delete_index()?;
    ensure!(deleted > 0, "there is no index to delete");
    lab.collector.restart()?;
    lab.compare(&did)
}

/// Statements that fill a small spool soon.
pub(crate) fn wide(pod: Pod, count: usize) -> Vec<(String, String)> {
    queries(pod, 0, count)
        .into_iter()
        .map(|(id, text)| (id, format!("{text} /* {} */", "wide ".repeat(8000))))
        .collect()
}

fn a_full_spool_stops_forwarding_until_there_is_room(lab: &mut Lab) -> Result<()> {
    let all = wide(Pod::A, 300);
    lab.collector.kill();
    let mut flight = Flight::start(lab, Pod::A, "flight")?;
    // 300 × 40 KB are three times the spool.
    let feeder = flight.feed(&all)?;
    wait::until("the spool to be full", || {
        Ok((Metrics::of(&lab.agent)?.get("verbatim_spool_full")? == 1.0).then_some(()))
    })?;
    // It stops: the number of answers no longer grows. The log of the server is the witness.
    let stopped = wait::until("forwarding to stop", || {
        let before = flight.answers();
        thread::sleep(std::time::Duration::from_secs(2));
        let (answered, logged) = (flight.answers(), lab.server.complete_log()?.len());
        ensure!(answered == before, "{answered} were answered, after {before}");
        // An answer whose record of its end cannot be written may be waiting on its way back: one more at most.
        ensure!(logged <= answered + 1, "{logged} reached the server, {answered} were answered");
        Ok(Some(answered))
    })?;
    ensure!(stopped < 300, "nothing stopped with a full spool");
    lab.collector.restart()?;
    flight.wait_for(300)?;
    feeder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    flight.send("SELECT 'more' /* id:a-more */")?;
    flight.wait_for(301)?;
    flight.end()?;
    let mut did = did(lab, Pod::A, &all);
    did.push(Did::query(&lab.principal(Pod::A), "a-more", "SELECT 'more' /* id:a-more */").rows(1));
    lab.compare(&did)
}

fn a_full_spool_that_sheds_says_how_many_are_missing(lab: &mut Lab) -> Result<()> {
    let all = wide(Pod::A, 300);
    lab.collector.kill();
    let mut flight = Flight::start(lab, Pod::A, "flight")?;
    for (_, text) in &all {
        flight.send(text)?;
    }
    flight.wait_for(300)?;
    lab.collector.restart()?;
    // A gap is told as soon as there is room again; the collector makes a finding of it.
    wait::until("the gap to be found", || {
        flight.send("SELECT 'room?'")?;
        let findings = lab.collector.findings()?;
        Ok(findings.iter().any(|finding| finding.kind() == FindingKind::NotRecorded).then_some(()))
    })?;
    flight.end()?;
    lab.agent.stop()?;
    let recorded = lab.collector.seen()?.iter().filter(|one| !one.ids.is_empty()).count() as u64;
    ensure!(recorded < 300, "nothing was shed");
    let missing: u64 = lab.collector.findings()?.iter().filter_map(shed).sum();
    // Of a command that is missing its start was shed, or start and end.
    ensure!(missing >= 300 - recorded, "{missing} are said to be missing, {recorded} of 300 are there");
    let other: Vec<_> = lab
        .collector
        .findings()?
        .into_iter()
        .filter(|finding| finding.kind() != FindingKind::NotRecorded)
        .collect();
    ensure!(other.is_empty(), "{other:?}");
    Ok(())
}

/// How many records a gap stands for: `REASON: N records between …`.
fn shed(finding: &Finding) -> Option<u64> {
    let (_, rest) = finding.detail.split_once(": ")?;
    (finding.kind() == FindingKind::NotRecorded).then(|| rest.split(' ').next()?.parse().ok())?
}

fn group_sync_records_the_same(lab: &mut Lab) -> Result<()> {
    hundred_each(lab)
}

fn records_travel_over_mutual_tls_and_survive_a_collectors_death(lab: &mut Lab) -> Result<()> {
    lab.collector.kill();
    lab.collector.restart()?;
    hundred_each(lab)
}

/// A hundred queries in each pod.
fn hundred_each(lab: &mut Lab) -> Result<()> {
    let mut did_all = Vec::new();
    for pod in Pod::ALL {
        let all = queries(pod, 0, 100);
        let mut flight = Flight::start(lab, pod, &format!("flight-{}", pod.letter()))?;
        for (_, text) in &all {
            flight.send(text)?;
        }
        flight.wait_for(100)?;
        flight.end()?;
        did_all.extend(did(lab, pod, &all));
    }
    lab.compare(&did_all)
}
