//! What goes past capture, or is refused for its sake, under `serve`: each is a record of its own kind.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Stdio,
};

use libtest_mimic::Failed;
use verbatim_api::v1::{self, CoverageEvent};

use super::{
    cases,
    serving::{serve_as, serve_with, stop},
    world::{CLOSED, OPEN, World},
};
use crate::{
    Outcome,
    support::{Guard, ended, ensure, until},
    workload::{WORKLOAD, program},
};

cases!(
    quic_that_is_denied_is_recorded_with_who_and_where_to,
    a_socket_that_slips_past_connect_is_denied_and_recorded_with_its_protocol,
    a_connection_from_before_is_recorded_as_passed_or_cut_off_and_ended,
    a_kernel_that_ends_no_sockets_is_named_and_what_was_before_is_cut_off,
    a_kernel_that_lacks_what_is_needed_is_refused_by_name,
    a_knock_on_the_listener_is_recorded_and_a_flood_of_them_with_its_count,
    binding_the_listeners_port_and_a_denied_destination_are_recorded,
    a_flood_of_denials_is_recorded_with_what_has_no_record_of_its_own,
);

const SERVICE_ACCOUNT: &str = "sa-c1";

/// Exit code and what it said.
fn does(world: &World, below: &str, arguments: &[&str]) -> Result<(Option<i32>, String), Failed> {
    let arguments = [&[WORKLOAD], arguments].concat();
    let (code, stdout, _) = ended(&mut world.tree.command(below, &program(), &arguments))?;
    Ok((code, stdout))
}

/// It is refused.
fn refused(world: &World, below: &str, arguments: &[&str]) -> Outcome {
    let (code, said) = does(world, below, arguments)?;
    ensure(code == Some(1) && said.contains("not permitted"), || format!("{arguments:?}: {code:?}: {said}"))
}

/// Its workload's service account and its destination, of the one record of a kind.
fn told(world: &World, event: CoverageEvent) -> Result<(v1::Coverage, v1::Workload, SocketAddr), Failed> {
    until(event.as_str_name(), || !world.covered_by(event).is_empty())?;
    let mut found = world.covered_by(event);
    ensure(found.len() == 1, || format!("{found:?}"))?;
    let (workload, coverage, content) = found.pop().ok_or("none")?;
    let target = content.target.unwrap_or_default();
    let address: IpAddr = target.address.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    Ok((coverage, workload, SocketAddr::new(address, u16::try_from(target.port)?)))
}

fn quic_that_is_denied_is_recorded_with_who_and_where_to() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    refused(&world, CLOSED, &["datagram", "127.0.0.1:443"])?;
    let (coverage, workload, to) = told(&world, CoverageEvent::QuicDenied)?;
    ensure(coverage.count == 1 && coverage.protocol_number == 17, || format!("{coverage:?}"))?;
    ensure(workload.service_account == SERVICE_ACCOUNT && workload.pod_uid == "1111-aaaa", || {
        format!("{workload:?}")
    })?;
    ensure(to == "127.0.0.1:443".parse()?, || format!("to {to}"))?;
    ensure(world.covered(CoverageEvent::Missed).is_empty(), || "it is missed as well".into())?;
    stop(&world.bench, agent)
}

fn a_socket_that_slips_past_connect_is_denied_and_recorded_with_its_protocol() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    refused(&world, CLOSED, &["raw"])?;
    let (coverage, workload, _) = told(&world, CoverageEvent::SocketDenied)?;
    ensure(coverage.count == 1 && coverage.protocol_number == 1, || format!("{coverage:?}"))?;
    ensure(workload.service_account == SERVICE_ACCOUNT, || format!("{workload:?}"))?;
    let contents = world.covered(CoverageEvent::SocketDenied);
    ensure(contents.iter().all(|(_, content)| content.target.is_none()), || format!("{contents:?}"))?;
    stop(&world.bench, agent)
}

/// Connections to the server in a process's network namespace.
fn connected(world: &World, guard: &Guard) -> usize {
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", guard.0.id())).unwrap_or_default();
    let port = format!(":{:04X} 01 ", world.server.port());
    sockets.lines().filter(|line| line.contains(&port)).count()
}

fn a_connection_from_before_is_recorded_as_passed_or_cut_off_and_ended() -> Outcome {
    let world = World::new()?;
    let talk = |below: &str| {
        let to = world.server.to_string();
        let mut command = world.tree.command(below, &program(), &[WORKLOAD, "talk", &to]);
        Ok::<_, Failed>(Guard(command.stdout(Stdio::piped()).spawn()?))
    };
    let (closed, mut open) = (talk(CLOSED)?, talk(OPEN)?);
    until("both talk", || connected(&world, &closed) >= 2)?;
    let agent = world.serve()?;

    // It fails closed, and so what was there before is ended, unless its selector says otherwise.
    let (_, workload, to) = told(&world, CoverageEvent::StrayDropped)?;
    ensure(workload.service_account == SERVICE_ACCOUNT && to == world.server, || {
        format!("{workload:?} {to}")
    })?;
    let (ended, workload, to) = told(&world, CoverageEvent::StrayEnded)?;
    ensure(ended.count == 1 && ended.protocol_number == 6, || format!("{ended:?}"))?;
    ensure(workload.service_account == SERVICE_ACCOUNT && to == world.server, || {
        format!("{workload:?} {to}")
    })?;
    let output = closed.output()?;
    ensure(!output.status.success(), || "it talks on".into())?;

    // It fails open: it goes on, and is told of once.
    let (stray, _, to) = told(&world, CoverageEvent::Stray)?;
    ensure(stray.count == 1 && to == world.server, || format!("{stray:?} {to}"))?;
    ensure(open.0.try_wait()?.is_none(), || "it fails open, and was ended".into())?;
    stop(&world.bench, agent)
}

const ENDING_SOCKETS: &str = "ending sockets by sock_diag (CONFIG_INET_DIAG_DESTROY)";

fn a_kernel_that_ends_no_sockets_is_named_and_what_was_before_is_cut_off() -> Outcome {
    let world = World::new()?;
    let to = world.server.to_string();
    let mut before = world.tree.command(CLOSED, &program(), &[WORKLOAD, "talk", &to]);
    let mut before = Guard(before.stdout(Stdio::piped()).spawn()?);
    let without = [("VERBATIM_TREAT_AS_ABSENT", ENDING_SOCKETS)];
    until("it talks", || connected(&world, &before) >= 1)?;
    let agent = serve_with(&world.bench, &world.tree, &world.configuration(), &without)?;
    ensure(world.log().contains("lacks ending sockets by sock_diag"), || world.log())?;
    ensure(world.metric(&format!("verbatim_kernel_lacks{{feature=\"{ENDING_SOCKETS}\"}}"))? == 1.0, || {
        "no metric says so".into()
    })?;
    let config = world.bench.path("agent.yaml").display().to_string();
    let (_, said, _) = ended(&mut world.bench.agent(&["doctor", "--config", &config]))?;
    ensure(said.contains(ENDING_SOCKETS) && said.contains("are never ended"), || said.clone())?;

    told(&world, CoverageEvent::StrayDropped)?;
    world.must_reach(CLOSED)?;
    until("a record", || world.connections() == 1)?;
    ensure(before.0.try_wait()?.is_none(), || "it was ended".into())?;
    stop(&world.bench, agent)?;
    ensure(world.covered(CoverageEvent::StrayEnded).is_empty(), || "it was recorded as ended".into())?;
    ensure(world.connections() == 1, || "it was captured".into())
}

fn a_kernel_that_lacks_what_is_needed_is_refused_by_name() -> Outcome {
    let world = World::new()?;
    let file = world.bench.path("agent.yaml");
    std::fs::write(&file, world.configuration())?;
    let agent = env!("CARGO_BIN_EXE_verbatim-agent");
    let arguments = ["serve", "--config", &file.display().to_string()];
    let mut command = world.tree.command("node", agent, &arguments);
    command.env("VERBATIM_TREAT_AS_ABSENT", "cgroup programs on getsockname4; bpf ring buffers");
    let (code, _, stderr) = ended(&mut command)?;
    let named = ["cgroup programs on getsockname4 (Linux 5.8)", "bpf ring buffers (Linux 5.8)"];
    ensure(code == Some(1) && named.iter().all(|name| stderr.contains(name)), || {
        format!("{code:?}: {stderr}")
    })
}

fn a_knock_on_the_listener_is_recorded_and_a_flood_of_them_with_its_count() -> Outcome {
    const KNOCKS: u64 = 200;
    let world = World::new()?;
    let agent = world.serve()?;
    let listener = world.listener()?;
    let (code, said) = does(&world, "system", &["knock-often", &listener.to_string(), "1"])?;
    ensure(code == Some(0), || format!("{code:?}: {said}"))?;
    let (one, content) = world.one(CoverageEvent::NoFlow)?;
    let client = content.client.unwrap_or_default();
    ensure(one.count == 1 && client.source_address == "127.0.0.1", || format!("{one:?} {client:?}"))?;

    let (code, said) = does(&world, "system", &["knock-often", &listener.to_string(), &KNOCKS.to_string()])?;
    ensure(code == Some(0), || format!("{code:?}: {said}"))?;
    let sum = || world.covered(CoverageEvent::NoFlow).iter().map(|(coverage, _)| coverage.count).sum::<u64>();
    until("each is in a count", || sum() == KNOCKS + 1)?;
    let records = world.covered(CoverageEvent::NoFlow).len() as u64;
    ensure(records < KNOCKS, || format!("{records} records"))?;
    stop(&world.bench, agent)
}

fn binding_the_listeners_port_and_a_denied_destination_are_recorded() -> Outcome {
    let world = World::new()?;
    let rules = "destinations:\n- {cidr: 127.9.0.0/16, action: deny}\n- {cidr: 127.0.0.0/8, action: steer}";
    let usual = "destinations:\n- {cidr: 127.0.0.0/8, action: steer}";
    let agent = serve_as(&world.bench, &world.tree, &world.configuration().replace(usual, rules))?;
    refused(&world, CLOSED, &["echo", "127.9.0.1:5432"])?;
    let (denied, workload, to) = told(&world, CoverageEvent::Denied)?;
    ensure(denied.count == 1 && to == "127.9.0.1:5432".parse()?, || format!("{denied:?} {to}"))?;
    ensure(workload.service_account == SERVICE_ACCOUNT, || format!("{workload:?}"))?;

    let listener = world.listener()?;
    refused(&world, CLOSED, &["bind", &listener.to_string()])?;
    let (bound, workload, to) = told(&world, CoverageEvent::BindDenied)?;
    ensure(bound.count == 1 && to == listener, || format!("{bound:?} {to}"))?;
    ensure(workload.service_account == SERVICE_ACCOUNT, || format!("{workload:?}"))?;
    stop(&world.bench, agent)
}

fn a_flood_of_denials_is_recorded_with_what_has_no_record_of_its_own() -> Outcome {
    const DATAGRAMS: u64 = 3000;
    let world = World::new()?;
    let agent = world.serve()?;
    let (code, said) = does(&world, CLOSED, &["flood", &DATAGRAMS.to_string()])?;
    ensure(code == Some(0), || format!("{code:?}: {said}"))?;
    // Another kind is told of all the same.
    refused(&world, CLOSED, &["raw"])?;
    told(&world, CoverageEvent::SocketDenied)?;
    let sum = |event| world.covered(event).iter().map(|(coverage, _)| coverage.count).sum::<u64>();
    until("each is in a count", || {
        sum(CoverageEvent::QuicDenied) + sum(CoverageEvent::EventsSuppressed) == DATAGRAMS
    })
    .map_err(|failed| {
        let (told, kept) = (sum(CoverageEvent::QuicDenied), sum(CoverageEvent::EventsSuppressed));
        format!("{}: {told} told of, {kept} kept back", failed.message().unwrap_or_default())
    })?;
    let records = world.covered(CoverageEvent::QuicDenied).len() as u64;
    ensure(records < DATAGRAMS / 10, || format!("{records} records"))?;
    stop(&world.bench, agent)
}
