//! What people and machines ask of a running `serve`: health, metrics; and what the watchdog finds.

use std::fs::File;

use verbatim_api::v1::CoverageEvent;
use verbatim_sys::bpf::{self, Hook};

use super::{
    cases,
    serving::{serve_as, stop},
    world::{CLOSED, OPEN, World, asked, family},
};
use crate::{
    Outcome,
    support::{Guard, ended, ensure, signal, until},
    workload::{WORKLOAD, program},
};

cases!(
    a_stopped_agent_fails_closed_or_open_as_its_selectors_say,
    programs_that_somebody_detaches_are_attached_again_and_that_is_recorded,
    an_agent_whose_programs_cannot_run_lives_and_is_not_ready,
    an_agent_that_cannot_look_at_namespaces_lives_and_is_not_ready_until_it_can,
    an_agent_that_drains_lives_and_is_not_ready,
    an_exclusive_program_on_a_hook_is_named_at_the_start,
    the_address_of_metrics_is_no_proxy,
);

fn a_stopped_agent_fails_closed_or_open_as_its_selectors_say() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    world.must_reach(CLOSED)?;
    world.must_reach(OPEN)?;
    until("records", || world.connections() == 2)?;
    let whole = family(agent.0.id());
    whole.iter().for_each(|pid| signal(*pid, "STOP"));
    // Until the heartbeat is too old, connects wait for a proxy that does not accept: they are not tried.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let (closed, open) = (world.reaches(CLOSED), world.reaches(OPEN));
    whole.iter().for_each(|pid| signal(*pid, "CONT"));
    ensure(!closed?, || "it fails closed, and passed".into())?;
    ensure(open?, || "it fails open, and was refused".into())?;
    until("it is steered again", || world.reaches(CLOSED).unwrap_or(false))?;
    until("both are recorded", || {
        [CoverageEvent::StalePassed, CoverageEvent::StaleDenied]
            .into_iter()
            .all(|event| !world.covered(event).is_empty())
    })?;
    world.answers("/livez", 200, "heartbeat: ok")?;
    stop(&world.bench, agent)
}

fn programs_that_somebody_detaches_are_attached_again_and_that_is_recorded() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    world.answers("/readyz", 200, "programs: ok")?;
    ensure(world.detach()? == 1, || "connect4 is not attached once".into())?;
    let (lost, content) = world.one(CoverageEvent::ProgramsLost)?;
    ensure(lost.count == 1 && content.note == "connect4: detached", || format!("{lost:?} {content:?}"))?;
    let (restored, content) = world.one(CoverageEvent::ProgramsRestored)?;
    ensure(restored.count == 1 && content.note == "connect4", || format!("{restored:?} {content:?}"))?;
    ensure(world.log().contains("alert=\"programs\""), || world.log())?;
    ensure(world.metric("verbatim_programs_lost_total")? == 1.0, || "not counted".into())?;
    world.answers("/readyz", 200, "programs: ok")?;
    let before = world.connections();
    world.must_reach(CLOSED)?;
    until("it is steered", || world.connections() == before + 1)?;
    stop(&world.bench, agent)
}

fn an_agent_whose_programs_cannot_run_lives_and_is_not_ready() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    world.answers("/readyz", 200, "programs: ok")?;
    // Somebody takes the hook for itself alone; the watchdog may come between, so it is tried again.
    let root = File::open(world.attach_root())?;
    let idle = bpf::idle_program()?;
    until("the hook is somebody else's", || {
        world.detach().is_ok() && bpf::program_attach_alone(&idle, &root, Hook::CONNECT4).is_ok()
    })?;
    world.answers("/readyz", 503, "programs: not running: connect4")?;
    world.answers("/livez", 200, "shards: ok")?;
    ensure(world.metric("verbatim_program_effective{program=\"connect4\"}")? == 0.0, || "effective".into())?;
    bpf::program_detach_alone(&root, Hook::CONNECT4)?;
    world.answers("/readyz", 200, "programs: ok")?;
    stop(&world.bench, agent)
}

fn an_agent_that_cannot_look_at_namespaces_lives_and_is_not_ready_until_it_can() -> Outcome {
    let world = World::new()?;
    let directory = world.bench.path("namespaces");
    std::fs::write(&directory, "no directory")?;
    let usual = "namespaces: {directory: /nonexistent}";
    let odd = format!("namespaces: {{directory: '{}'}}", directory.display());
    let agent = serve_as(&world.bench, &world.tree, &world.configuration().replace(usual, &odd))?;
    world.answers("/readyz", 503, "cannot be read: Not a directory")?;
    world.answers("/livez", 200, "shards: ok")?;
    ensure(world.metric("verbatim_namespaces_in_trouble")? == 1.0, || "no metric says so".into())?;
    // The node's own workloads are captured meanwhile.
    world.must_reach(CLOSED)?;
    until("a record", || world.connections() == 1)?;
    std::fs::remove_file(&directory)?;
    std::fs::create_dir(&directory)?;
    world.answers("/readyz", 200, "namespaces: ok")?;
    ensure(world.metric("verbatim_namespaces_in_trouble")? == 0.0, || "still in trouble".into())?;
    stop(&world.bench, agent)
}

fn an_agent_that_drains_lives_and_is_not_ready() -> Outcome {
    let world = World::new()?;
    let configuration = world.configuration().replace("drainDeadline: 1s", "drainDeadline: 60s");
    let agent = serve_as(&world.bench, &world.tree, &configuration)?;
    world.answers("/livez", 200, "heartbeat: ok")?;
    // A connection that is open keeps it draining.
    let mut open = world.tree.command(CLOSED, &program(), &[WORKLOAD, "hold", &world.server.to_string()]);
    let open = Guard(open.spawn()?);
    until("it is open", || world.metric("verbatim_connections_open").is_ok_and(|open| open == 1.0))?;
    signal(agent.0.id(), "TERM");
    world.answers("/readyz", 503, "serving: draining")?;
    world.answers("/livez", 200, "shards: ok")?;
    drop(open);
    let status = agent.output()?.status;
    ensure(status.success(), || format!("{status}: {}", world.log()))
}

fn an_exclusive_program_on_a_hook_is_named_at_the_start() -> Outcome {
    let world = World::new()?;
    bpf::program_attach_alone(bpf::idle_program()?, File::open(world.attach_root())?, Hook::CONNECT4)?;
    let file = world.bench.path("agent.yaml");
    std::fs::write(&file, world.configuration())?;
    let agent = env!("CARGO_BIN_EXE_verbatim-agent");
    let arguments = ["serve", "--config", &file.display().to_string()];
    let (code, _, stderr) = ended(&mut world.tree.command("node", agent, &arguments))?;
    ensure(code == Some(1), || format!("{code:?}: {stderr}"))?;
    ensure(stderr.contains("admits no others") && stderr.contains("verbatim_probe"), || stderr.clone())
}

fn the_address_of_metrics_is_no_proxy() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    let server = world.server;
    let ask = |request: &str| asked(world.metrics, &format!("{request}Connection: close\r\n\r\n"));
    for (request, expected) in [
        (format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n"), 400),
        (format!("GET http://{server}/ HTTP/1.1\r\nHost: {server}\r\n"), 400),
        (format!("GET http://{server}/metrics HTTP/1.1\r\nHost: {server}\r\n"), 400),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n".to_owned(), 405),
        ("GET /secrets HTTP/1.1\r\nHost: x\r\n".to_owned(), 404),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n".to_owned(), 200),
    ] {
        let (status, body) = ask(&request)?;
        ensure(status == expected, || format!("{request}: {status}: {body}"))?;
    }
    stop(&world.bench, agent)
}
