//! Every connection that the kernel counted is in a record, or missed with a number: `verbatim coverage`
//! adds up to what clients did.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use verbatim_tests::{
    agent::Options,
    cli,
    clients::Clients,
    lab::Lab,
    network::{DATABASE, DENIED, Pod},
    wait,
};

use crate::scenario::{Scenario, usual};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(the_sums_of_coverage_are_what_clients_did).with(one_fails_open),
        usual!(a_worker_that_is_killed_neither_loses_nor_doubles_what_was_counted),
    ]
}

fn one_fails_open() -> Options {
    Options { fail_modes: ["closed", "open"], ..Options::default() }
}

/// So many connects of one kind; how each went.
pub(crate) fn connects(clients: &Clients, host: &str, what: &str, count: usize) -> Result<Vec<String>> {
    let client = clients.clone().with("PGHOST", host);
    let ended =
        client.python(&format!("{what}-{host}-{count}"), "connects.py", &[what, &count.to_string()])?;
    let ended = ended.finish()?;
    let text = ended.text();
    let lines: Vec<String> = text.lines().map(str::to_owned).filter(|line| line != "done").collect();
    ensure!(lines.len() == count, "{count} connects, but: {text}");
    Ok(lines)
}

/// The same, of which each must go so.
pub(crate) fn all(clients: &Clients, host: &str, what: &str, count: usize, wanted: &str) -> Result<()> {
    let went = connects(clients, host, what, count)?;
    ensure!(went.iter().all(|one| one == wanted), "{what} to {host}: {went:?} instead of {wanted}");
    Ok(())
}

/// What the command line says; that it ends well means that the sums agree.
fn coverage(lab: &Lab) -> Result<Vec<Value>> {
    let socket = lab.collector.audit_socket();
    let lines = cli::run(cli::Source::Socket(&socket), &["coverage", "--json"])?;
    lines.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// The row of a pod and a destination.
fn row<'a>(rows: &'a [Value], pod: Pod, address: &str) -> Result<&'a Value> {
    let name = format!("pod-{}", pod.letter());
    let found = rows.iter().find(|row| row["pod"] == name.as_str() && row["address"] == address);
    found.with_context(|| format!("no row of {name} to {address}: {rows:#?}"))
}

/// All that a row counts, by name; zeros left out.
fn counts(row: &Value) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for name in [
        "connects",
        "decoded",
        "undecoded",
        "open",
        "cutOff",
        "denied",
        "missed",
        "passed",
        "failed",
        "pending",
        "missing",
        "invented",
        "ahead",
        "uncounted",
    ] {
        match &row[name] {
            Value::Array(kinds) => all.extend(kinds.iter().map(|kind| {
                let what = kind["kind"].as_str().unwrap_or_default();
                (format!("{name} {what}"), kind["count"].as_u64().unwrap_or(u64::MAX))
            })),
            number => all.push((name.to_owned(), number.as_u64().unwrap_or(u64::MAX))),
        }
    }
    all.retain(|(_, count)| *count > 0);
    all.sort();
    all
}

fn equal(row: &Value, expected: &[(&str, u64)]) -> Result<()> {
    let mut expected: Vec<_> = expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    expected.sort();
    let found = counts(row);
    ensure!(found == expected, "found {found:?}, expected {expected:?}: {row}");
    Ok(())
}

fn the_sums_of_coverage_are_what_clients_did(lab: &mut Lab) -> Result<()> {
    let (a, b) = (lab.pod(Pod::A), lab.pod(Pod::B));
    all(&a, DATABASE, "query", 5, "ok")?;
    all(&a, DATABASE, "garbage", 3, "ok")?;
    all(&a, DATABASE, "bare", 2, "ok")?;
    all(&b, DATABASE, "query", 4, "ok")?;
    // The rule says so.
    all(&a, DENIED, "bare", 7, "EPERM")?;
    // Nobody listens in this namespace, which is no pod's.
    let elsewhere = lab.pod_in(Pod::B, &lab.ground.network.vpc);
    all(&elsewhere, DATABASE, "bare", 6, "ECONNREFUSED")?;
    // The proxy gives no sign of life.
    lab.agent.signal_all("STOP")?;
    thread::sleep(Duration::from_secs(4));
    let (closed, open) = (all(&a, DATABASE, "bare", 8, "EPERM"), all(&b, DATABASE, "query", 9, "ok"));
    lab.agent.signal_all("CONT")?;
    closed?;
    open?;
    // And lives again.
    wait::until("steering to go on", || Ok((connects(&a, DATABASE, "query", 1)?[0] == "ok").then_some(())))?;
    lab.agent.stop()?;

    let rows = coverage(lab)?;
    // The waiting for life to come back has tried some number of times: as many as were refused.
    let of_a = row(&rows, Pod::A, DATABASE)?;
    let refused =
        counts(of_a).into_iter().find(|(name, _)| name == "missed stale-denied").map_or(0, |(_, n)| n);
    ensure!(refused >= 8, "{of_a}");
    let expected = [
        ("connects", 11 + refused),
        ("decoded", 6),
        ("undecoded unknown-protocol", 3),
        ("undecoded silent", 2),
        ("missed stale-denied", refused),
    ];
    equal(of_a, &expected)?;
    equal(row(&rows, Pod::A, DENIED)?, &[("connects", 7), ("denied", 7)])?;
    let expected = [("connects", 19), ("decoded", 4), ("missed missed", 6), ("passed stale-passed", 9)];
    equal(row(&rows, Pod::B, DATABASE)?, &expected)?;
    ensure!(rows.len() == 3, "{rows:#?}");
    ensure!(lab.collector.findings()?.is_empty(), "{:?}", lab.collector.findings()?);
    Ok(())
}

fn a_worker_that_is_killed_neither_loses_nor_doubles_what_was_counted(lab: &mut Lab) -> Result<()> {
    let a = lab.pod(Pod::A);
    all(&a, DATABASE, "query", 3, "ok")?;
    all(&a, DENIED, "bare", 2, "EPERM")?;
    // As the agent reads it by itself.
    wait::until("a reading of all of them", || {
        let rows = coverage(lab)?;
        let connects =
            |address: &str| Ok::<_, anyhow::Error>(row(&rows, Pod::A, address)?["connects"].as_u64());
        Ok((connects(DATABASE)? == Some(3) && connects(DENIED)? == Some(2)).then_some(()))
    })?;
    all(&a, DATABASE, "query", 2, "ok")?;
    lab.agent.kill();
    lab.agent.restart()?;
    all(&a, DATABASE, "query", 4, "ok")?;
    all(&a, DENIED, "bare", 3, "EPERM")?;
    lab.agent.stop()?;
    let rows = coverage(lab)?;
    let found = counts(row(&rows, Pod::A, DATABASE)?);
    let of = |name: &str| found.iter().find(|(other, _)| other == name).map_or(0, |(_, count)| *count);
    // What was counted after the last reading is lost where the counts die with the worker: those connections
    // have their records all the same.
    ensure!(of("connects") + of("ahead") == 9, "{found:?}");
    ensure!(of("decoded") == of("connects"), "{found:?}");
    ensure!(found.len() <= 3, "{found:?}");
    equal(row(&rows, Pod::A, DENIED)?, &[("connects", 5), ("denied", 5)])
}
