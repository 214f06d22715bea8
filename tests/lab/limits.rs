//! Connections that come to nothing, by the thousand.

use anyhow::{Result, ensure};
use verbatim_api::v1::OpaqueReason;
use verbatim_tests::{
    agent::Options,
    cli,
    did::Did,
    lab::Lab,
    network::{OTHER, Pod},
    peers, process, wait,
};

use crate::{
    safety::{Flight, did, queries},
    scenario::{Scenario, usual},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(a_thousand_dials_that_nobody_answers_slow_nobody_and_are_recorded).with(impatient),
        usual!(ten_thousand_connections_that_say_nothing_are_bounded_starve_nobody_and_are_recorded),
    ]
}

/// A hundred queries beside what is going on.
fn others_work(lab: &Lab, mut flight: Flight) -> Result<Vec<Did>> {
    let all = queries(Pod::A, 0, 100);
    for (_, text) in &all {
        flight.send(text)?;
    }
    flight.wait_for(100)?;
    flight.end()?;
    Ok(did(lab, Pod::A, &all))
}

fn impatient() -> Options {
    Options { extra: "limits: {dialTimeout: 3s}", ..Options::default() }
}

fn a_thousand_dials_that_nobody_answers_slow_nobody_and_are_recorded(lab: &mut Lab) -> Result<()> {
    const COUNT: usize = 1000;
    const NOBODY: &str = "10.61.9.77";
    // Not even a message that there is nobody.
    lab.ground.network.vpc.ip(&["route", "add", "blackhole", &format!("{NOBODY}/32")])?;
    let client = lab.pod(Pod::B).with("PGHOST", NOBODY);
    let mut client = client.python("half-open", "raw.py", &["silent_many", &COUNT.to_string()])?;
    client.wait_for_output("connected 1000 refused 0")?;
    let flight = Flight::start(lab, Pod::A, "beside")?;
    let did = others_work(lab, flight)?;
    wait::until("all of them to be recorded as failed", || {
        let seen = lab.collector.seen()?;
        let theirs = seen.iter().filter(|one| one.target.address == NOBODY);
        let failed = theirs.filter(|one| one.opaque_reason == OpaqueReason::DialFailed);
        let count = failed.count();
        ensure!(count == COUNT, "{count} of {COUNT} are");
        Ok(Some(()))
    })?;
    drop(client.stdin());
    ensure!(client.finish()?.text().contains("ended 1000"), "some were not told");
    lab.compare(&did)
}

fn ten_thousand_connections_that_say_nothing_are_bounded_starve_nobody_and_are_recorded(
    lab: &mut Lab,
) -> Result<()> {
    const COUNT: u64 = 10_000;
    // Fewer than they would all need; what waits fits into the queues of two listeners.
    for id in lab.agent.processes()? {
        process::limit_descriptors(id, 12_000)?;
    }
    let _server = peers::start(&lab.ground, "mute", OTHER, 5432, "")?;
    let client = lab.pod(Pod::B).with("PGHOST", OTHER);
    let mut client = client.python("half-open", "raw.py", &["silent_many", &COUNT.to_string()])?;
    client.wait_for_output(&format!("connected {COUNT} refused 0"))?;
    let flight = Flight::start(lab, Pod::A, "beside")?;
    let did = others_work(lab, flight)?;
    let said = lab.agent.complaints();
    ensure!(said.contains("has its share of connections"), "{said}");
    drop(client.stdin());
    client.finish()?;
    wait::until("each to be in a record", || {
        let socket = lab.collector.audit_socket();
        let rows = cli::run(cli::Source::Socket(&socket), &["coverage", "--json"])?;
        for line in rows.lines() {
            let row: serde_json::Value = serde_json::from_str(line)?;
            if row["address"] == OTHER {
                let silent = row["undecoded"].as_array().into_iter().flatten();
                let silent =
                    silent.filter(|one| one["kind"] == "silent").filter_map(|one| one["count"].as_u64());
                let found = (silent.sum(), row["missing"].as_u64(), row["connects"].as_u64());
                ensure!(found == (COUNT, Some(0), Some(COUNT)), "{line}");
                return Ok(Some(()));
            }
        }
        Ok(None)
    })?;
    lab.compare(&did)
}
