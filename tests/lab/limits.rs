//! Connections that come to nothing, by the thousand.

use anyhow::{Result, ensure};
use verbatim_api::v1::OpaqueReason;
use verbatim_tests::{agent::Options, did::Did, lab::Lab, network::Pod, wait};

use crate::{
    safety::{Flight, did, queries},
    scenario::{Scenario, usual},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![usual!(a_thousand_dials_that_nobody_answers_slow_nobody_and_are_recorded).with(impatient)]
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
