//! Metrics, health and a bypass under the load of real clients.

use std::{fs, io::Write as _};

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::Capture;
use verbatim_tests::{
    agent::Options,
    did::Did,
    lab::Lab,
    network::Pod,
    questions::{self, Metrics},
    wait,
};

use crate::scenario::{Scenario, usual};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(metrics_during_load_agree_with_the_trail).with(asked),
        usual!(a_shard_that_hangs_is_not_live_and_its_workloads_fail_closed).with(asked),
        usual!(with_a_full_spool_an_agent_is_not_ready_and_a_bypass_lets_work_go_on).with(small_and_asked),
    ]
}

fn asked() -> Options {
    Options { metrics: true, ..Options::default() }
}

fn small_and_asked() -> Options {
    Options { spool_limit: "4MiB", segment_size: "512KiB", ..asked() }
}

fn answers(lab: &Lab, path: &str, status: u16, part: &str) -> Result<()> {
    wait::until(&format!("{path} to be {status} with {part:?}"), || {
        let (found, text) = questions::page(lab.agent.metrics()?, path)?;
        ensure!(found == status && text.contains(part), "{found}: {text}");
        Ok(Some(()))
    })
}

fn metrics_during_load_agree_with_the_trail(lab: &mut Lab) -> Result<()> {
    answers(lab, "/readyz", 200, "namespaces: ok")?;
    let file = lab.ground.path("load.sql");
    fs::write(&file, "SELECT 1 /* vlab=a-load */;\n")?;
    let arguments = ["-n", "-C", "-c", "4", "-j", "2", "-t", "100", "-f"];
    let mut load =
        lab.pod(Pod::A).pgbench("load", &[&arguments[..], &[&file.display().to_string()]].concat())?;
    let mut last = 0.0;
    while load.running() {
        let metrics = Metrics::of(&lab.agent)?;
        let commands = metrics.get("verbatim_commands_total")?;
        ensure!(commands >= last, "{commands} after {last}");
        last = commands;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    load.finish()?;
    // Refused by the database's own word: an ended connection of another kind.
    let psql = lab.pod(Pod::B).with("PGDATABASE", "nosuch");
    drop(psql.psql("nosuch", &["-c", "SELECT 1"])?.wait()?);
    wait::until("the trail and the metrics to agree", || {
        let metrics = Metrics::of(&lab.agent)?;
        let (seen, sessions) = (lab.collector.seen()?, lab.collector.sessions()?);
        ensure!(metrics.get("verbatim_connections_open")? == 0.0, "some are open");
        ensure!(seen.len() >= 400, "{} commands are recorded", seen.len());
        ensure!(metrics.get("verbatim_commands_total")? == seen.len() as f64, "{} commands", seen.len());
        ensure!(sessions.iter().all(|one| one.closed_wall_nanos > 0), "some have not ended");
        for (capture, label) in [
            (Capture::Decoded, "capture=\"decoded\""),
            (Capture::Partly, "capture=\"partly\""),
            (Capture::SeenNotDecoded, "capture=\"seen_not_decoded\""),
        ] {
            let recorded = sessions.iter().filter(|one| one.capture() == capture).count();
            let counted = metrics.sum("verbatim_connections_ended_total", label);
            ensure!(counted == recorded as f64, "{label}: {counted} counted, {recorded} recorded");
        }
        // Every one that was accepted was steered, and has its record.
        let steered = metrics.get("verbatim_kernel_steered_in_pod_total")?;
        let accepted = metrics.get("verbatim_connections_accepted_total")?;
        ensure!(
            steered == accepted && accepted == sessions.len() as f64,
            "{steered}, {accepted}, {}",
            sessions.len()
        );
        ensure!(metrics.get("verbatim_collector_connected")? == 1.0, "not connected");
        ensure!(metrics.get("verbatim_namespaces")? == 2.0, "not two namespaces");
        ensure!(metrics.get("verbatim_spool_oldest_unacknowledged_age_seconds")? == 0.0, "some wait");
        ensure!(metrics.get("verbatim_connection_panics_total")? == 0.0, "panics");
        Ok(Some(()))
    })
}

fn a_shard_that_hangs_is_not_live_and_its_workloads_fail_closed(lab: &mut Lab) -> Result<()> {
    answers(lab, "/livez", 200, "shards: ok")?;
    let text = "SELECT 1 /* lab:hang id:a-hang */";
    let hanging = lab.pod(Pod::A).psql("hang", &["-c", text])?;
    answers(lab, "/livez", 503, "shards: silent")?;
    answers(lab, "/readyz", 503, "heartbeat: none")?;
    let refused = lab.pod(Pod::B).psql("refused", &["-c", "SELECT 2"])?.wait()?;
    ensure!(!refused.status.success(), "it fails closed, and passed");
    ensure!(refused.complaints().contains("Operation not permitted"), "{}", refused.complaints());
    // The policy lets go.
    fs::write(lab.agent.control().join("go-on"), "")?;
    answers(lab, "/livez", 200, "shards: ok")?;
    hanging.finish()?;
    let text_b = "SELECT 3 /* id:b-after */";
    lab.pod(Pod::B).psql("after", &["-c", text_b])?.finish()?;
    let did = [
        Did::query(&lab.principal(Pod::A), "a-hang", text).rows(1),
        Did::query(&lab.principal(Pod::B), "b-after", text_b).rows(1),
    ];
    lab.compare(&did)
}

fn with_a_full_spool_an_agent_is_not_ready_and_a_bypass_lets_work_go_on(lab: &mut Lab) -> Result<()> {
    answers(lab, "/readyz", 200, "spool: ok")?;
    lab.collector.kill();
    let mut filling = lab.pod(Pod::A).python("filling", "raw.py", &["flight"])?;
    let mut input = filling.stdin().context("no standard input")?;
    let feeder = std::thread::spawn(move || {
        let wide = "wide ".repeat(8000);
        for number in 0..300 {
            if input.write_all(format!("SELECT {number} /* id:a-{number} {wide} */\n").as_bytes()).is_err() {
                return;
            }
        }
    });
    answers(lab, "/readyz", 503, "spool: full")?;
    answers(lab, "/livez", 200, "shards: ok")?;
    ensure!(Metrics::of(&lab.agent)?.get("verbatim_collector_connected")? == 0.0, "connected to nobody");
    let said = questions::bypass(&lab.agent, &["--for", "5m", "--reason", "the collector is gone"])?;
    ensure!(said.contains("bypassed"), "{said}");
    let passed = lab.pod(Pod::B).psql("passed", &["-Atc", "SELECT 'uncaptured'"])?.finish()?;
    ensure!(passed.text().trim() == "uncaptured", "{}", passed.text());
    ensure!(questions::bypass(&lab.agent, &["--status"])?.contains("passed: 1"), "not counted");
    lab.collector.restart()?;
    answers(lab, "/readyz", 200, "spool: ok")?;
    questions::bypass(&lab.agent, &["--end"])?;
    ensure!(feeder.join().is_ok(), "the feeder panicked");
    filling.finish()?;
    let text = "SELECT 'captured' /* id:b-captured */";
    lab.pod(Pod::B).psql("captured", &["-Atc", text])?.finish()?;
    wait::until("what is captured, and nothing else", || {
        let seen = lab.collector.seen()?;
        let of_b: Vec<_> = seen.iter().filter(|one| one.principal == lab.principal(Pod::B)).collect();
        ensure!(of_b.len() == 1 && of_b[0].ids == ["b-captured"], "{of_b:?}");
        ensure!(seen.len() == 301, "{} are recorded", seen.len());
        Ok(Some(()))
    })
}
