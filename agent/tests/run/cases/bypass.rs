//! Steering that a person has had stopped for a while.

use std::{path::PathBuf, process::Command};

use libtest_mimic::Failed;
use verbatim_api::v1::CoverageEvent;
use verbatim_steer::{Action, Bypasses, CgroupVerdict, DestinationRule, FailMode, SteerConfig, Steering};
use verbatim_sys::cgroup;

use super::{
    cases,
    serving::stop,
    world::{CLOSED, World, family},
};
use crate::{
    Outcome,
    support::{ended, ensure, signal, until},
};

cases!(
    a_bypass_begins_at_once_ends_by_itself_and_is_recorded,
    a_bypass_is_ended_early_and_recorded_so,
    a_bypass_outlives_a_killed_worker_ends_by_itself_and_is_recorded_once,
    a_bypass_needs_root_a_reason_and_no_more_than_the_configured_time,
    with_no_agent_alive_an_order_goes_into_the_pinned_maps,
);

fn a_bypass_begins_at_once_ends_by_itself_and_is_recorded() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    world.must_reach(CLOSED)?;
    until("a record", || world.connections() == 1)?;
    ensure(world.ordered(&["--status"])?.contains("are steered"), || "bypassed".into())?;

    let said = world.ordered(&["--for", "10m", "--reason", "the proxy is in the way"])?;
    ensure(said.contains("bypassed") && said.contains("the proxy is in the way"), || said.clone())?;
    ensure(world.metric("verbatim_bypass_active")? > 0.0, || "no metric says so".into())?;
    for _ in 0..3 {
        world.must_reach(CLOSED)?;
    }
    let (coverage, content) = world.one(CoverageEvent::BypassBegan)?;
    let bypass = content.bypass.ok_or("who and why is not recorded")?;
    ensure(bypass.reason == "the proxy is in the way", || format!("{bypass:?}"))?;
    ensure(bypass.uid == 0 && bypass.user == "root", || format!("{bypass:?}"))?;
    let ahead = coverage.until_wall_nanos.saturating_sub(verbatim_sys::clock::wall_nanos());
    ensure(ahead > 0 && ahead <= 600_000_000_000, || format!("until {ahead} ns from now"))?;
    ensure(world.log().contains("alert=\"bypass\""), || world.log())?;

    // A second order takes the place of the first; it ends by itself.
    world.ordered(&["--for", "500ms", "--reason", "nearly done"])?;
    until("its end", || world.ordered(&["--status"]).is_ok_and(|said| said.contains("are steered")))?;
    world.must_reach(CLOSED)?;
    until("a record again", || world.connections() == 2)?;
    until("both ends", || world.covered(CoverageEvent::BypassEnded).len() == 2)?;
    let ends = world.covered(CoverageEvent::BypassEnded);
    let how: Vec<_> = ends
        .iter()
        .map(|(coverage, content)| (coverage.count, content.bypass.clone().unwrap_or_default().end))
        .collect();
    let expected = [(3, "another took its place".to_owned()), (0, "by itself".to_owned())];
    ensure(how == expected, || format!("{how:?}"))?;
    let kernel = world.metric("verbatim_kernel_bypassed_total")?;
    ensure(kernel == 3.0, || format!("the kernel counted {kernel}"))?;
    stop(&world.bench, agent)
}

fn a_bypass_is_ended_early_and_recorded_so() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    world.ordered(&["--for", "5m", "--reason", "trying"])?;
    world.must_reach(CLOSED)?;
    let said = world.ordered(&["--end"])?;
    ensure(said.contains("are steered"), || said.clone())?;
    world.must_reach(CLOSED)?;
    let (coverage, content) = world.one(CoverageEvent::BypassEnded)?;
    let end = content.bypass.unwrap_or_default().end;
    ensure(coverage.count == 1 && end.contains("root (uid 0)"), || format!("{coverage:?}, {end}"))?;
    until("a record", || world.connections() == 1)?;
    stop(&world.bench, agent)
}

fn a_bypass_outlives_a_killed_worker_ends_by_itself_and_is_recorded_once() -> Outcome {
    // Another worker has to come while it lasts, which takes a loaded machine longer.
    for seconds in [8, 40] {
        if a_bypass_outlives_a_killed_worker(seconds)? {
            return Ok(());
        }
    }
    Err("no other worker came while it lasted".into())
}

/// Whether the bypass lasted until there was another worker; without one there is nothing to be seen.
fn a_bypass_outlives_a_killed_worker(seconds: u64) -> Result<bool, Failed> {
    let world = World::new()?;
    let agent = world.serve()?;
    world.must_reach(CLOSED)?;
    until("a record", || world.connections() == 1)?;
    world.ordered(&["--for", &format!("{seconds}s"), "--reason", "the proxy is in the way"])?;
    let (began, _) = world.one(CoverageEvent::BypassBegan)?;
    world.must_reach(CLOSED)?;

    let worker = || family(agent.0.id()).get(1).copied();
    let killed = worker().ok_or("there is no worker")?;
    signal(killed, "KILL");
    // Nobody is there to relay, and nobody is needed.
    world.must_reach(CLOSED)?;
    until("another worker", || {
        worker().is_some_and(|worker| worker != killed)
            && world.ask("/readyz").is_ok_and(|(status, _)| status == 200)
    })?;
    let said = world.ordered(&["--status"])?;
    world.must_reach(CLOSED)?;
    let (active, connections) = (world.metric("verbatim_bypass_active")?, world.connections());
    let ended = !world.covered(CoverageEvent::BypassEnded).is_empty();
    if verbatim_sys::clock::wall_nanos() >= began.until_wall_nanos {
        stop(&world.bench, agent)?;
        return Ok(false);
    }
    ensure(said.contains("the proxy is in the way") && said.contains("passed: 2"), || said.clone())?;
    ensure(active > 0.0, || "no metric says so".into())?;
    ensure(connections == 1, || format!("{connections} connections are recorded"))?;
    ensure(!ended, || "it has ended before its time".into())?;

    until("its end", || world.ordered(&["--status"]).is_ok_and(|said| said.contains("are steered")))?;
    ensure(verbatim_sys::clock::wall_nanos() >= began.until_wall_nanos, || {
        "it ended before its time".into()
    })?;
    world.must_reach(CLOSED)?;
    until("a record again", || world.connections() == 2)?;
    let (ended, content) = world.one(CoverageEvent::BypassEnded)?;
    let bypass = content.bypass.unwrap_or_default();
    ensure(ended.count == 3 && bypass.end == "by itself", || format!("{ended:?} {bypass:?}"))?;
    ensure(bypass.reason == "the proxy is in the way", || format!("{bypass:?}"))?;
    stop(&world.bench, agent)?;
    let (began, ended) =
        (world.covered(CoverageEvent::BypassBegan).len(), world.covered(CoverageEvent::BypassEnded).len());
    ensure((began, ended) == (1, 1), || format!("{began} begun, {ended} ended"))?;
    Ok(true)
}

fn a_bypass_needs_root_a_reason_and_no_more_than_the_configured_time() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    for (arguments, part) in [
        (&["--for", "11m", "--reason", "why"][..], "10m at most"),
        (&["--for", "1m", "--reason", "  "], "needs a reason"),
        (&["--for", "0s", "--reason", "why"], "no time"),
    ] {
        let (code, _, stderr) = world.bypass(arguments)?;
        ensure(code == Some(1) && stderr.contains(part), || format!("{arguments:?}: {code:?}: {stderr}"))?;
    }
    // The folder keeps others out; where somebody has opened it, the agent itself does.
    let run = world.bench.path("run");
    let order = |options: &[&str]| {
        let agent = env!("CARGO_BIN_EXE_verbatim-agent");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", agent, "bypass"]);
        ended(command.args(options).arg("--run-directory").arg(&run))
    };
    let bypass = ["--for", "1m", "--reason", "mine"];
    let (code, _, stderr) = order(&bypass)?;
    ensure(code == Some(1) && stderr.contains("Permission denied"), || format!("{code:?}: {stderr}"))?;
    for (path, mode) in [(run.clone(), "755"), (run.join("control.sock"), "666")] {
        ensure(Command::new("chmod").arg(mode).arg(path).status()?.success(), || "chmod".into())?;
    }
    let (code, _, stderr) = order(&bypass)?;
    ensure(code == Some(1) && stderr.contains("only root"), || format!("{code:?}: {stderr}"))?;
    ensure(world.ordered(&["--status"])?.contains("are steered"), || "bypassed".into())?;
    world.must_reach(CLOSED)?;
    until("a record", || world.connections() == 1)?;
    ensure(world.covered(CoverageEvent::BypassBegan).is_empty(), || "a bypass was recorded".into())?;
    stop(&world.bench, agent)
}

/// What is pinned goes with it.
struct Pinned(PathBuf);

impl Drop for Pinned {
    fn drop(&mut self) {
        verbatim_steer::unpin(&self.0).ok();
    }
}

fn with_no_agent_alive_an_order_goes_into_the_pinned_maps() -> Outcome {
    let world = World::new()?;
    let pins = PathBuf::from("/sys/fs/bpf").join(world.tree.name());
    let _pinned = Pinned(pins.clone());
    let text = world.configuration();
    let attach = format!("attach: {{cgroup: {}", world.tree.name());
    let text = match text.contains("pins: ") {
        true => text,
        false => text.replace(&attach, &format!("{attach}, pins: {}", pins.display())),
    };
    std::fs::write(world.bench.path("agent.yaml"), text)?;
    // Nothing is pinned, and nobody lives.
    let (code, _, stderr) = world.bypass(&["--status"])?;
    ensure(code == Some(1) && stderr.contains("no agent answers"), || format!("{code:?}: {stderr}"))?;

    // As an agent leaves it that dies.
    let mut steer = SteerConfig::new(world.attach_root());
    steer.pin_directory = Some(pins.clone());
    steer.heartbeat_timeout = std::time::Duration::from_millis(200);
    let steering = Steering::load(&steer)?;
    let closed = CgroupVerdict { action: Action::Steer, fail_mode: FailMode::Closed };
    steering.set_cgroup(cgroup::Cgroup::at(world.tree.path(CLOSED)).id()?, closed)?;
    steering.set_destinations(&DestinationRule::steer_everything())?;
    steering.attach()?;
    drop(steering);
    until("the heartbeat to be too old", || world.reaches(CLOSED).is_ok_and(|reaches| !reaches))?;

    let said = world.ordered(&["--for", "5m", "--reason", "nobody is there"])?;
    ensure(said.contains("bypassed") && said.contains("the next one records it"), || said.clone())?;
    world.must_reach(CLOSED)?;
    let said = world.ordered(&["--status"])?;
    ensure(said.contains("nobody is there") && said.contains("passed: 1"), || said.clone())?;
    let (code, _, stderr) = world.bypass(&["--for", "1m", "--reason", "again"])?;
    ensure(code == Some(1) && stderr.contains("end it first"), || format!("{code:?}: {stderr}"))?;
    let (code, _, stderr) = world.bypass(&["--for", "11m", "--reason", "long"])?;
    ensure(code == Some(1), || format!("{code:?}: {stderr}"))?;
    ensure(world.ordered(&["--end"])?.contains("are steered"), || "still bypassed".into())?;
    ensure(!world.reaches(CLOSED)?, || "it fails closed, and passed".into())?;
    // Until it is recorded, the next agent finds who and why.
    let order = Bypasses::pinned(&pins)?.bypasses.read()?.ok_or("forgotten")?;
    ensure(order.reason == "nobody is there" && !order.recorded, || format!("{order:?}"))
}
