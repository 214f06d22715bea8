//! A worker that dies, an agent that is taken over, one that is removed: what that costs connections and records.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::Session;
use verbatim_tests::{
    agent::Options,
    binaries,
    lab::Lab,
    network::{OTHER, Pod},
    peers,
    process::{Ended, Process},
    shell,
    traffic::Counts,
    wait,
};

use crate::scenario::{Scenario, usual};

const PORT: u16 = 9000;
/// How many connects there are to be while agents take over from each other; a few seconds' unless set.
const CONNECTS: &str = "VLAB_TAKE_OVER_CONNECTS";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(a_worker_that_is_killed_again_and_again_costs_no_connect),
        usual!(a_worker_that_takes_its_time_to_come_back_costs_no_connect).with(patient),
        usual!(an_agent_takes_over_from_another_without_a_connection_lost_or_unrecorded).with(patient),
        usual!(an_agent_that_is_taken_over_drains_and_records_what_it_resets),
        usual!(an_agent_whose_successor_does_not_come_to_steer_goes_on),
        usual!(an_agent_that_is_told_to_end_says_what_it_left).with(failing_closed),
        usual!(an_agent_that_is_removed_leaves_refusals_until_it_is_uninstalled).with(failing_closed),
    ]
}

fn failing_closed() -> Options {
    Options { extra: "whenStopped: failMode", ..Options::default() }
}

/// What is open gets to its end, also where the machine has little time for it.
fn patient() -> Options {
    Options { drain_deadline: "2m", ..Options::default() }
}

/// Of lab-helper.
fn server(lab: &Lab) -> Result<Process> {
    let mut command = lab.ground.vpc("traffic")?.command(binaries::find("lab-helper")?);
    command.args(["serve", &address().to_string()]);
    let mut process = Process::start("traffic", lab.ground.folder.path(), command)?;
    process.wait_for_output("listening")?;
    Ok(process)
}

fn address() -> SocketAddr {
    SocketAddr::from(([10, 61, 9, 20], PORT))
}

fn load(lab: &Lab, pod: Pod, rate: u32, most: u64) -> Result<Process> {
    let (to, rate, most) = (address().to_string(), rate.to_string(), most.to_string());
    let helper = binaries::find("lab-helper")?;
    lab.pod(pod).start(&format!("load-{}", pod.letter()), helper, &["load", &to, &rate, &most])
}

fn counts(load: Process) -> Result<Counts> {
    let ended = load.finish()?;
    serde_json::from_str(ended.text().trim()).context("what the client counted")
}

fn served(server: Process) -> Result<u64> {
    let ended: Ended = server.finish()?;
    let text = ended.text();
    let count = text.lines().find_map(|line| line.strip_prefix("served "));
    count.and_then(|count| count.parse().ok()).with_context(|| format!("the server said {text}"))
}

/// Sessions to the server, once all of them have ended and there are as many.
fn recorded(lab: &Lab, least: u64) -> Result<Vec<Session>> {
    wait::until(&format!("{least} connections in the records, all with an end"), || {
        let mut sessions = lab.collector.sessions()?;
        sessions.retain(|one| one.target.as_ref().is_some_and(|to| to.port == u32::from(PORT)));
        let open = sessions.iter().filter(|one| one.closed_wall_nanos == 0).count();
        ensure!(
            sessions.len() as u64 >= least && open == 0,
            "{} recorded, {open} of them open",
            sessions.len()
        );
        Ok(Some(sessions))
    })
}

fn sound(lab: &Lab) -> Result<()> {
    let findings = lab.collector.findings()?;
    ensure!(findings.is_empty(), "the collector found {findings:?}");
    Ok(())
}

/// The same after a worker was killed: what it had accepted and not recorded yet was counted by the kernel, and no
/// byte of it went on. Their clients have lost it.
fn sound_but_for(lab: &Lab, lost: u64) -> Result<()> {
    for finding in lab.collector.findings()? {
        let unrecorded = finding
            .detail
            .split_once(" connections that the kernel counted have no record")
            .and_then(|(before, _)| before.rsplit(' ').next()?.parse::<u64>().ok());
        ensure!(unrecorded.is_some_and(|unrecorded| unrecorded <= lost), "of {lost} lost: {finding:?}");
    }
    Ok(())
}

fn a_worker_that_is_killed_again_and_again_costs_no_connect(lab: &mut Lab) -> Result<()> {
    const ROUNDS: u32 = 5;
    let server = server(lab)?;
    let mut load = load(lab, Pod::A, 1000, u64::MAX)?;
    let stop = load.stdin();
    for _ in 0..ROUNDS {
        std::thread::sleep(Duration::from_secs(1));
        lab.agent.kill_worker()?;
    }
    drop(stop);
    let counts = counts(load)?;
    let served = served(server)?;
    println!("{ROUNDS} times killed: {counts:?}; the server served {served}");
    ensure!(counts.failed == 0 && counts.served > 0, "{counts:?}");
    lab.agent.stop()?;
    // Nothing was forwarded that is not recorded, and nothing is left open.
    let recorded = recorded(lab, served)?.len() as u64;
    println!("{recorded} connections are recorded");
    ensure!(recorded <= counts.served + counts.lost, "{recorded} recorded of {counts:?}");
    sound_but_for(lab, counts.lost)
}

fn a_worker_that_takes_its_time_to_come_back_costs_no_connect(lab: &mut Lab) -> Result<()> {
    let server = server(lab)?;
    let mut load = load(lab, Pod::A, 50, u64::MAX)?;
    let stop = load.stdin();
    let first = lab.agent.worker()?;
    shell::run("/bin/kill", &["-s", "KILL", &first.to_string()])?;
    let next = wait::until("the next worker to be started", || {
        let next = lab.agent.worker()?;
        let command = std::fs::read_to_string(format!("/proc/{next}/cmdline"))?;
        Ok((next != first && command.contains("serve-worker")).then_some(next))
    })?;
    // As on a machine that has no processor for it: for longer than the kernel goes without a sign of life.
    shell::run("/bin/kill", &["-s", "STOP", &next.to_string()])?;
    std::thread::sleep(Duration::from_secs(5));
    ensure!(load.running(), "the client has ended: {}", load.complaints());
    shell::run("/bin/kill", &["-s", "CONT", &next.to_string()])?;
    drop(stop);
    let counts = counts(load)?;
    let served = served(server)?;
    ensure!(counts.failed == 0 && counts.served > 50, "{counts:?}");
    lab.agent.stop()?;
    let recorded = recorded(lab, served)?.len() as u64;
    ensure!(recorded <= counts.served + counts.lost, "{recorded} recorded of {counts:?}");
    sound_but_for(lab, counts.lost)
}

fn an_agent_takes_over_from_another_without_a_connection_lost_or_unrecorded(lab: &mut Lab) -> Result<()> {
    // In seconds, or as many as somebody asks for.
    let wanted =
        std::env::var(CONNECTS).ok().map(|text| text.parse::<u64>().context(CONNECTS)).transpose()?;
    let each = wanted.map_or(u64::MAX, |all| all / 2);
    let server = server(lab)?;
    let mut loads = [load(lab, Pod::A, 500, each)?, load(lab, Pod::B, 500, each)?];
    let stops = loads.each_mut().map(Process::stdin);
    let mut times = 0;
    while times < 2 || wanted.is_some() && loads.iter_mut().any(Process::running) {
        std::thread::sleep(Duration::from_secs(1));
        let old = lab.agent.succeed()?.wait()?;
        ensure!(old.status.success(), "the old one ended with {}: {}", old.status, old.complaints());
        times += 1;
    }
    std::thread::sleep(Duration::from_secs(1));
    drop(stops);
    let mut all = 0;
    for load in loads {
        let counts = counts(load)?;
        println!("{times} take-overs: {counts:?}");
        ensure!(counts.failed == 0 && counts.lost == 0, "{counts:?}");
        all += counts.served;
    }
    ensure!(wanted.is_none_or(|wanted| all == wanted / 2 * 2), "{all} connects of {wanted:?}");
    ensure!(served(server)? == all, "the server saw others than the clients");
    // Which of them has it depends on who came when; whoever lives looks every few seconds.
    wait::until("the other slot of the spool to be shipped and removed", || {
        Ok((!lab.agent.spool().join("slot-1").exists()).then_some(()))
    })?;
    lab.agent.stop()?;
    let recorded = recorded(lab, all)?.len() as u64;
    ensure!(recorded == all, "{recorded} recorded of {all}");
    sound(lab)?;
    let pins = lab.agent.pins();
    let left = std::fs::read_dir(&pins).map_or(0, Iterator::count);
    ensure!(left == 0, "the last one has left its pins in {}", pins.display());
    Ok(())
}

fn an_agent_that_is_taken_over_drains_and_records_what_it_resets(lab: &mut Lab) -> Result<()> {
    let _peer = peers::start(&lab.ground, "echo", OTHER, PORT, "")?;
    let client = lab.pod(Pod::A).with("PGHOST", OTHER).with("PGPORT", PORT.to_string());
    let held = client.python("held", "raw.py", &["hold", ""])?;
    let (old, worker) = (lab.agent.id()?, lab.agent.worker()?);
    wait::until("the connection to stand", || Ok(held.output().contains("held").then_some(())))?;
    let draining = lab.agent.succeed()?;
    ensure!(draining.id() == old && lab.agent.worker()? != worker, "the old one is not the one that drains");
    let ended = draining.wait()?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.complaints());
    ensure!(ended.complaints().contains("reset=1"), "it did not say what it reset: {}", ended.complaints());
    let held = held.wait()?;
    ensure!(held.text().contains("reset"), "the client saw {}", held.text());
    let sessions = recorded(lab, 1)?;
    ensure!(sessions.len() == 1, "{sessions:?}");
    // The new one goes on.
    let text = "SELECT 1 /* id:a-after */";
    lab.pod(Pod::A).psql("after", &["-c", text])?.finish()?;
    lab.agent.stop()?;
    sound(lab)
}

fn an_agent_whose_successor_does_not_come_to_steer_goes_on(lab: &mut Lab) -> Result<()> {
    let server = server(lab)?;
    let mut load = load(lab, Pod::A, 200, u64::MAX)?;
    let stop = load.stdin();
    let mut successor = lab.agent.another()?;
    // Looked for closely: it is to die before it steers.
    let begun = Instant::now();
    while !lab.agent.complaints().contains("a successor is taking over") {
        ensure!(begun.elapsed() < wait::PATIENCE, "nobody takes over: {}", lab.agent.complaints());
        std::thread::sleep(Duration::from_millis(1));
    }
    successor.kill();
    wait::until("the old one to go on", || {
        Ok(lab.agent.complaints().contains("the successor is gone before it steered").then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(1));
    drop(stop);
    let counts = counts(load)?;
    ensure!(counts.failed == 0 && counts.lost == 0 && counts.served > 0, "{counts:?}");
    ensure!(served(server)? == counts.served, "the server saw others than the client");
    lab.agent.stop()?;
    recorded(lab, counts.served)?;
    sound(lab)
}

fn an_agent_that_is_told_to_end_says_what_it_left(lab: &mut Lab) -> Result<()> {
    let _peer = peers::start(&lab.ground, "echo", OTHER, PORT, "")?;
    let client = lab.pod(Pod::A).with("PGHOST", OTHER).with("PGPORT", PORT.to_string());
    let held = client.python("held", "raw.py", &["hold", ""])?;
    wait::until("the connection to stand", || Ok(held.output().contains("held").then_some(())))?;
    lab.collector.kill();
    let said = lab.agent.end()?;
    let number = |key: &str| -> Option<u64> {
        let (_, rest) = said.rsplit_once(&format!("{key}="))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    ensure!(number("reset") == Some(1), "it said {said}");
    ensure!(number("unacknowledged").is_some_and(|records| records > 0), "it said {said}");
    drop(held);
    lab.collector.restart()?;
    lab.agent.restart()?;
    recorded(lab, 1)?;
    lab.agent.stop()
}

fn an_agent_that_is_removed_leaves_refusals_until_it_is_uninstalled(lab: &mut Lab) -> Result<()> {
    let select = ["-Atc", "SELECT 1 /* id:a-removed */"];
    let refused = lab.agent.command("uninstall")?;
    ensure!(!refused.status.success(), "uninstalled beside a living agent");
    ensure!(refused.complaints().contains("stop it first"), "it said {}", refused.complaints());
    lab.agent.stop()?;
    let ended = lab.pod(Pod::A).psql("refused", &select)?.wait()?;
    ensure!(!ended.status.success(), "a workload that fails closed came through without an agent");
    ensure!(ended.complaints().contains("Operation not permitted"), "it saw {}", ended.complaints());
    let done = lab.agent.command("uninstall")?;
    ensure!(done.status.success(), "{}: {}", done.status, done.complaints());
    ensure!(!lab.agent.pins().exists(), "pins are left");
    lab.pod(Pod::A).psql("passes", &select)?.finish()?;
    ensure!(lab.collector.seen()?.is_empty(), "somebody has recorded it");
    Ok(())
}
