//! Folders of spool and log that cannot be written, or are taken away: named at the start, said while it runs,
//! and nothing is claimed to be kept that is not.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::FindingKind;
use verbatim_tests::{
    agent::{Ground, Options},
    lab::Lab,
    network::Pod,
    parts::Part,
    shell, wait,
};

use crate::{
    safety::{Flight, did, queries, wide},
    scenario::{Scenario, usual},
};

const NEEDS: &[Part] =
    &[Part::Root, Part::Sandbox, Part::Binaries, Part::Postgres, Part::Python, Part::Bpf, Part::Disks];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(a_spool_or_a_log_that_cannot_be_written_is_named_at_the_start).with(on_disks).needing(NEEDS),
        usual!(a_spool_that_can_no_more_be_written_stops_forwarding_until_it_can)
            .with(on_disks)
            .needing(NEEDS),
        usual!(a_spools_folder_that_is_taken_away_is_made_again_and_loses_no_record).with(small),
        usual!(a_log_that_is_taken_away_ends_the_collector_before_it_acknowledges),
    ]
}

fn small() -> Options {
    Options { spool_limit: "8MiB", segment_size: "512KiB", ..Options::default() }
}

fn on_disks() -> Options {
    Options { ground: Ground { disks: Some(64), ..Ground::default() }, ..small() }
}

fn remount(at: &Path, how: &str) -> Result<()> {
    shell::run("mount", &["-o", &format!("remount,{how}"), &at.display().to_string()]).map(drop)
}

fn a_spool_or_a_log_that_cannot_be_written_is_named_at_the_start(lab: &mut Lab) -> Result<()> {
    lab.agent.stop()?;
    lab.collector.kill();
    let (spool, log) = lab.below.disks.as_ref().context("no disks")?;
    let (spool, log) = (spool.path().to_owned(), log.path().to_owned());
    for at in [&spool, &log] {
        remount(at, "ro")?;
    }
    for (ended, at) in [(lab.agent.fail_to_start()?, &spool), (lab.collector.fail_to_start()?, &log)] {
        let said = ended.complaints();
        ensure!(!ended.status.success(), "it started on what cannot be written");
        let named = said.contains(&at.display().to_string()) && said.contains("Read-only file system");
        ensure!(named, "{} is not named: {said}", at.display());
    }
    for at in [&spool, &log] {
        remount(at, "rw")?;
    }
    lab.collector.restart()?;
    lab.agent.restart()?;
    let all = queries(Pod::A, 0, 20);
    fly(lab, &all, "flight")?;
    let did = did(lab, Pod::A, &all);
    lab.compare(&did)
}

fn fly(lab: &Lab, queries: &[(String, String)], name: &str) -> Result<()> {
    let mut flight = Flight::start(lab, Pod::A, name)?;
    for (_, text) in queries {
        flight.send(text)?;
    }
    flight.wait_for(queries.len())?;
    flight.end()
}

/// Folders of the spool's shards.
fn shards(lab: &Lab) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(lab.agent.spool())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("shard-")) {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

fn change(lab: &Lab, flag: &str) -> Result<()> {
    shards(lab)?.iter().try_for_each(|folder| shell::run("chattr", &[flag, folder]).map(drop))
}

fn a_spool_that_can_no_more_be_written_stops_forwarding_until_it_can(lab: &mut Lab) -> Result<()> {
    let all = wide(Pod::A, 150);
    let mut flight = Flight::start(lab, Pod::A, "flight")?;
    flight.send("SELECT 'before'")?;
    flight.wait_for(1)?;
    change(lab, "+i")?;
    // 150 × 40 KB are more than one connection's segment and the one made ahead.
    let feeder = flight.feed(&all)?;
    let stopped = wait::until("forwarding to stop", || {
        let said = lab.agent.complaints();
        ensure!(said.contains("cannot make a spool segment"), "the agent says {said}");
        let before = flight.answers();
        std::thread::sleep(std::time::Duration::from_secs(2));
        Ok((flight.answers() == before).then_some(before))
    });
    let undone = change(lab, "-i");
    let stopped = stopped?;
    undone?;
    ensure!(stopped < 151, "nothing stopped");
    flight.wait_for(151)?;
    feeder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    flight.end()?;
    ensure!(lab.agent.complaints().contains("spool segments can be made again"), "it does not say so");
    let did = did(lab, Pod::A, &all);
    lab.compare(&did)
}

fn a_spools_folder_that_is_taken_away_is_made_again_and_loses_no_record(lab: &mut Lab) -> Result<()> {
    let all = wide(Pod::A, 200);
    let (before, after) = all.split_at(20);
    fly(lab, before, "before")?;
    lab.agree(&did(lab, Pod::A, before))?;
    fs::remove_dir_all(lab.agent.spool())?;
    // Several segments more.
    fly(lab, after, "after")?;
    let said = lab.agent.complaints();
    ensure!(said.contains("the spool's folder is gone"), "the agent says {said}");
    let did = did(lab, Pod::A, &all);
    lab.compare(&did)
}

fn a_log_that_is_taken_away_ends_the_collector_before_it_acknowledges(lab: &mut Lab) -> Result<()> {
    let all = queries(Pod::A, 0, 40);
    fly(lab, &all[..20], "before")?;
    lab.agree(&did(lab, Pod::A, &all[..20]))?;
    fs::remove_dir_all(lab.collector.data().join("log"))?;
    fly(lab, &all[20..], "after")?;
    let ended = lab.collector.wait_for_death()?;
    let said = ended.complaints();
    ensure!(!ended.status.success() && said.contains("it was deleted while it was written"), "{said}");
    // What was acknowledged before is gone; what was not, comes.
    lab.collector.restart()?;
    wait::until("what came later to be recorded", || {
        let seen = lab.collector.seen()?;
        let has = |id: &String| seen.iter().any(|one| one.ids.contains(id));
        ensure!(all[20..].iter().all(|(id, _)| has(id)), "some are missing");
        Ok(Some(()))
    })?;
    let findings = lab.collector.findings()?;
    ensure!(findings.iter().any(|one| one.kind() == FindingKind::Gap), "nobody says that any is missing");
    lab.agent.stop()
}
