//! What was refused, or went past capture, is found by `verbatim events` with who and where to.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use verbatim_tests::{
    cli,
    lab::Lab,
    network::{DATABASE, DATABASE_V6, DENIED, Pod},
    wait,
};

use crate::{
    coverage::all,
    scenario::{Scenario, usual},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(what_was_refused_is_found_with_who_and_where_to),
        usual!(an_ipv6_route_that_comes_later_is_captured_from_then_on),
    ]
}

fn events(lab: &Lab, more: &[&str]) -> Result<Vec<Value>> {
    let socket = lab.collector.audit_socket();
    let lines = cli::run(cli::Source::Socket(&socket), &[&["events", "--output", "json"], more].concat())?;
    lines.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// How many of each kind, pod and destination.
fn sums(events: &[Value]) -> BTreeMap<(String, String, String), u64> {
    let mut sums = BTreeMap::new();
    for event in events {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let to = match event["port"].as_u64() {
            Some(port) if port > 0 => format!("{}:{port}", text("address")),
            _ => String::new(),
        };
        *sums.entry((text("event"), text("pod"), to)).or_default() +=
            event["count"].as_u64().unwrap_or_default();
    }
    sums
}

fn what_was_refused_is_found_with_who_and_where_to(lab: &mut Lab) -> Result<()> {
    let (a, b) = (lab.pod(Pod::A), lab.pod(Pod::B));
    all(&a, DATABASE, "quic", 3, "EPERM")?;
    all(&b, DATABASE, "quic", 2, "EPERM")?;
    all(&a, DATABASE, "raw", 1, "EPERM")?;
    all(&b, DENIED, "bare", 2, "EPERM")?;
    all(&a, DATABASE, "query", 1, "ok")?;
    let elsewhere = lab.pod_in(Pod::B, &lab.ground.network.vpc);
    all(&elsewhere, DATABASE, "bare", 1, "ECONNREFUSED")?;
    lab.agent.stop()?;

    let found = events(lab, &[])?;
    let one = |event: &str, pod: &str, to: &str| (event.to_owned(), pod.to_owned(), to.to_owned());
    let quic = format!("{DATABASE}:443");
    let expected = BTreeMap::from([
        (one("attached", "", ""), 1),
        (one("detached", "", ""), 1),
        (one("quic-denied", "pod-a", &quic), 3),
        (one("quic-denied", "pod-b", &quic), 2),
        (one("socket-denied", "pod-a", ""), 1),
        (one("denied", "pod-b", &format!("{DENIED}:5432")), 2),
        (one("missed", "pod-b", &format!("{DATABASE}:5432")), 1),
    ]);
    let sums = sums(&found);
    ensure!(sums == expected, "found {sums:#?}, expected {expected:#?}");
    ensure!(found.iter().all(|event| event["node"] == "lab-node"), "{found:#?}");

    let by_kind =
        events(lab, &["--event", "quic-denied,socket-denied", "--workload", &lab.principal(Pod::A)])?;
    let kinds: u64 = by_kind.iter().filter_map(|event| event["count"].as_u64()).sum();
    ensure!(kinds == 4, "{by_kind:#?}");
    let principal = lab.principal(Pod::A);
    ensure!(by_kind.iter().all(|event| event["principal"] == principal.as_str()), "{by_kind:#?}");
    ensure!(lab.collector.findings()?.is_empty(), "{:?}", lab.collector.findings()?);
    Ok(())
}

fn an_ipv6_route_that_comes_later_is_captured_from_then_on(lab: &mut Lab) -> Result<()> {
    let ip = |lab: &Lab, arguments: &[&str]| lab.ground.network.pod(Pod::A).ip(arguments).map(drop);
    lab.agent.stop()?;
    ip(lab, &["-6", "route", "delete", "default"])?;
    ip(lab, &["-6", "address", "flush", "dev", "eth0", "scope", "global"])?;
    lab.agent.restart()?;
    ip(lab, &["address", "add", "fd61:1::2/64", "dev", "eth0", "nodad"])?;
    ip(lab, &["-6", "route", "replace", "default", "via", "fd61:1::1"])?;
    let mut done = 0;
    let first = wait::until("a captured command over IPv6", || {
        let id = format!("a-late{done}");
        let text = format!("SELECT 1 /* id:{id} */");
        let client = lab.pod(Pod::A).with("PGHOST", DATABASE_V6);
        let answer = client.psql(&id, &["-Atc", &text])?.finish()?;
        ensure!(answer.text().trim() == "1", "answered {}", answer.text());
        done += 1;
        Ok(lab.collector.seen()?.into_iter().next())
    })?;
    ensure!(first.target.address == DATABASE_V6 && first.principal == lab.principal(Pod::A), "{first:?}");
    lab.agent.stop()?;
    let sums = sums(&events(lab, &["--event", "unrouted-connected"])?);
    let passed: u64 = sums.values().sum();
    let recorded = u64::try_from(lab.collector.seen()?.len())?;
    ensure!(passed >= 1 && passed + recorded == done, "{done} done, {passed} passed, {recorded} recorded");
    Ok(())
}
