//! Connections that were there before they could be steered.

use std::time::Duration;

use verbatim_steer::{Action, CgroupVerdict, EventKind, FailMode};

use crate::{
    Outcome,
    cases::cases,
    echo::{Echo, datagrams, received},
    lab::{Lab, Pair, STEER_CLOSED, STEER_OPEN, equal},
};

cases![
    a_connection_from_before_is_counted_once_and_passes_where_the_workload_fails_open,
    a_connection_from_before_is_cut_off_where_the_workload_fails_closed,
    quic_on_a_socket_from_before_is_counted_once_and_cut_off_as_the_workload_says,
    quic_that_connect_has_let_through_is_no_stray,
    a_connection_from_before_its_rule_is_found_out,
    a_connection_from_before_is_ended_for_both_ends,
    servers_of_steered_workloads_are_never_cut_off,
];

const PATIENCE: Duration = Duration::from_secs(30);

fn a_connection_from_before_is_counted_once_and_passes_where_the_workload_fails_open(name: &str) -> Outcome {
    let (lab, pair) = (Lab::configured(name, |_| {}), Pair::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    let servers = [Echo::on(&pair.server, Pair::SERVER_V4), Echo::on(&pair.server, Pair::SERVER_V6)];
    let orders = [
        format!("open destination=10.77.0.2:{}", servers[0].port),
        format!("open destination=10.77.0.2:{} mapped=1", servers[0].port),
        format!("open destination=[fd77::2]:{}", servers[1].port),
    ];
    let mut before = Vec::new();
    for order in &orders {
        let mut workload = lab.workload(&pair.client);
        equal(order, &workload.ask(order).as_str(), &"open")?;
        before.push(workload);
    }
    let mut other = lab.unsteered(&pair.client);
    equal("unsteered", &other.ask(&orders[0]).as_str(), &"open")?;
    lab.steering.attach()?;
    let (_proxy, ..) = lab.proxy(&pair.client);
    for workload in &mut before {
        for _ in 0..3 {
            equal("goes on", &workload.ask("say word=hello").as_str(), &"echo hello")?;
        }
        let event = events.recv_timeout(PATIENCE)?;
        equal("reported", &(event.kind, event.cgroup_id), &(EventKind::Stray, Some(lab.steered.id())))?;
        equal("no caller", &event.pid, &None)?;
    }
    equal("unsteered", &other.ask("say word=hello").as_str(), &"echo hello")?;
    equal("counted once each", &(lab.count("stray"), lab.count("stray_dropped")), &(3, 0))?;
    let answer = before[0].ask(&orders[0].replace("open", "connect"));
    equal(&answer, &answer.contains(" flow "), &true)
}

fn a_connection_from_before_is_cut_off_where_the_workload_fails_closed(name: &str) -> Outcome {
    let (lab, pair) = (Lab::configured(name, |_| {}), Pair::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    let server = Echo::on(&pair.server, Pair::SERVER_V4);
    let order = format!("open destination=10.77.0.2:{}", server.port);
    let mut workload = lab.workload(&pair.client);
    equal("before", &workload.ask(&order).as_str(), &"open")?;
    equal("before", &workload.ask("say word=hello").as_str(), &"echo hello")?;
    lab.steering.attach()?;
    equal("after", &workload.ask("say word=hello unheard=1").as_str(), &"silence")?;
    equal("counted", &(lab.count("stray"), lab.count("stray_dropped")), &(1, 1))?;
    equal("reported", &events.recv_timeout(PATIENCE)?.kind, &EventKind::StrayDropped)
}

fn quic_on_a_socket_from_before_is_counted_once_and_cut_off_as_the_workload_says(name: &str) -> Outcome {
    let (lab, pair) = (Lab::configured(name, |_| {}), Pair::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    let there = [
        datagrams(&pair.server, Pair::SERVER_V4, 443),
        datagrams(&pair.server, Pair::SERVER_V6, 443),
        datagrams(&pair.server, Pair::SERVER_V4, 8443),
    ];
    let came = || there.iter().map(received).sum::<usize>();
    let (mut v4, mut v6) = (lab.workload(&pair.client), lab.workload(&pair.client));
    let (mut other_port, mut unsteered) = (lab.workload(&pair.client), lab.unsteered(&pair.client));
    for (workload, to) in [
        (&mut v4, "10.77.0.2:443"),
        (&mut v6, "[fd77::2]:443"),
        (&mut other_port, "10.77.0.2:8443"),
        (&mut unsteered, "10.77.0.2:443"),
    ] {
        equal(to, &workload.ask(&format!("open destination={to} datagram=1")).as_str(), &"open")?;
        equal(to, &workload.ask("say word=before unheard=1").as_str(), &"silence")?;
    }
    equal("before", &came(), &4)?;
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    lab.steering.attach()?;
    let (_proxy, ..) = lab.proxy(&pair.client);
    for workload in [&mut v4, &mut v6] {
        for _ in 0..2 {
            equal("open", &workload.ask("say word=open unheard=1").as_str(), &"silence")?;
        }
        let event = events.recv_timeout(PATIENCE)?;
        equal("reported", &(event.kind, event.cgroup_id), &(EventKind::Stray, Some(lab.steered.id())))?;
        equal("where", &(event.address.port(), event.protocol), &(443, 17))?;
    }
    equal("open", &(came(), lab.count("stray"), lab.count("stray_dropped")), &(4, 2, 0))?;
    lab.steering.set_cgroup(lab.steered.id(), STEER_CLOSED)?;
    lab.steering.set_destinations(&verbatim_steer::DestinationRule::steer_everything())?;
    for workload in [&mut v4, &mut v6] {
        equal("closed", &workload.ask("say word=closed").as_str(), &"err=1")?;
    }
    for workload in [&mut other_port, &mut unsteered] {
        equal("nobody's business", &workload.ask("say word=other unheard=1").as_str(), &"silence")?;
    }
    equal("came through", &(came(), lab.count("stray")), &(2, 2))?;
    equal("nothing is to be ended", &lab.steering.take_strays()?.len(), &0)
}

fn quic_that_connect_has_let_through_is_no_stray(name: &str) -> Outcome {
    // Fails open, and no proxy lives.
    let timeout = Duration::from_millis(300);
    let (lab, pair) = (Lab::configured(name, |config| config.heartbeat_timeout = timeout), Pair::new());
    lab.steering.attach()?;
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    let there = datagrams(&pair.server, Pair::SERVER_V4, 443);
    let mut workload = lab.workload(&pair.client);
    std::thread::sleep(timeout * 2);
    equal("open", &workload.ask("open destination=10.77.0.2:443 datagram=1").as_str(), &"open")?;
    equal("sent", &workload.ask("say word=passed unheard=1").as_str(), &"silence")?;
    equal("came", &received(&there), &1)?;
    equal("counted once", &(lab.count("quic_passed"), lab.count("stray")), &(1, 0))
}

fn a_connection_from_before_its_rule_is_found_out(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    let rules = verbatim_steer::DestinationRule::steer_everything();
    lab.steering.set_destinations(&[])?;
    let server = Echo::on(&pair.server, Pair::SERVER_V4);
    let mut workload = lab.workload(&pair.client);
    equal("open", &workload.ask(&format!("open destination=10.77.0.2:{}", server.port)).as_str(), &"open")?;
    equal("before", &workload.ask("say word=hello").as_str(), &"echo hello")?;
    equal("before", &lab.count("stray"), &0)?;
    lab.steering.set_destinations(&rules)?;
    equal("after", &workload.ask("say word=hello").as_str(), &"echo hello")?;
    equal("after", &lab.count("stray"), &1)?;
    let denied = CgroupVerdict { action: Action::Deny, fail_mode: FailMode::Open };
    lab.steering.set_cgroup(lab.steered.id(), denied)?;
    lab.steering.set_destinations(&rules)?;
    equal("denied", &workload.ask("say word=hello unheard=1").as_str(), &"silence")?;
    equal("the same one", &lab.count("stray"), &1)
}

fn a_connection_from_before_is_ended_for_both_ends(name: &str) -> Outcome {
    let (lab, pair) = (Lab::configured(name, |_| {}), Pair::new());
    let server = Echo::on(&pair.server, Pair::SERVER_V4);
    let server_v6 = Echo::on(&pair.server, Pair::SERVER_V6);
    lab.steering.attach()?;
    lab.steering.set_destinations(&[])?;
    let (_proxy, ..) = lab.proxy(&pair.client);
    for (verdict, dropped, to) in [
        (STEER_OPEN, false, format!("10.77.0.2:{}", server.port)),
        (STEER_CLOSED, true, format!("10.77.0.2:{} mapped=1", server.port)),
        (STEER_CLOSED, true, format!("[fd77::2]:{}", server_v6.port)),
    ] {
        lab.steering.set_cgroup(lab.steered.id(), verdict)?;
        let mut workload = lab.workload(&pair.client);
        equal(&to, &workload.ask(&format!("open destination={to}")).as_str(), &"open")?;
        equal("before", &workload.ask("say word=hello").as_str(), &"echo hello")?;
        lab.steering.set_destinations(&verbatim_steer::DestinationRule::steer_everything())?;
        let (order, said) = match dropped {
            true => ("say word=hello unheard=1", "silence"),
            false => ("say word=hello", "echo hello"),
        };
        equal("found out", &workload.ask(order).as_str(), &said)?;
        let found = lab.steering.take_strays()?;
        let [stray] = found[..] else { return Err(format!("{to}: {found:?}").into()) };
        equal("whose", &(stray.cgroup_id, stray.dropped), &(lab.steered.id(), dropped))?;
        equal("where", &to.starts_with(&stray.remote.to_string()), &true)?;
        equal("ended", &lab.steering.end_stray(&stray)?, &true)?;
        equal("gone", &lab.steering.end_stray(&stray)?, &false)?;
        equal("its owner", &workload.ask("say word=hello").as_str(), &"err=103")?;
        lab.steering.set_destinations(&[])?;
    }
    equal("counted", &lab.count("strays_ended"), &3)?;
    // The server has seen them end too: it holds none any more.
    let mut tries = 0;
    while server.open() + server_v6.open() > 0 {
        tries += 1;
        equal("connections that the server holds", &(tries < 1500), &true)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What is steered is what they dial, not who dials them: from every address, and also where the listener is gone
/// before the first answer.
fn servers_of_steered_workloads_are_never_cut_off(name: &str) -> Outcome {
    let (lab, pair) = (Lab::configured(name, |_| {}), Pair::new());
    let mut before = lab.workload(&pair.client);
    equal("serves", &before.ask("serve address=0.0.0.0:7001").as_str(), &"serving")?;
    let client = |port: u16| format!("open destination=10.77.0.1:{port}");
    let (mut one, mut two) = (lab.unsteered(&pair.server), lab.unsteered(&pair.server));
    equal("accepted before", &one.ask(&client(7001)).as_str(), &"open")?;
    lab.steering.set_cgroup(lab.steered.id(), STEER_CLOSED)?;
    lab.steering.attach()?;
    equal("accepted before", &one.ask("say word=hello").as_str(), &"echo hello")?;
    equal("accepted after", &two.ask(&client(7001)).as_str(), &"open")?;
    equal("accepted after", &two.ask("say word=hello").as_str(), &"echo hello")?;
    let mut after = lab.workload(&pair.client);
    for (port, order) in
        [(7002, "serve address=0.0.0.0:7002 once=1"), (7003, "serve address=[::]:7003 once=1")]
    {
        equal("serves", &after.ask(order).as_str(), &"serving")?;
        equal("one", &one.ask(&client(port)).as_str(), &"open")?;
        std::thread::sleep(Duration::from_millis(50));
        equal("without its listener", &one.ask("say word=hello").as_str(), &"echo hello")?;
    }
    equal("strays", &lab.count("stray"), &0)
}
