//! Ways around a steered connect(), each of which is steered, denied, or refused and reported.

use std::{fs, path::PathBuf, sync::mpsc::Receiver, time::Duration};

use verbatim_steer::{Action, CgroupVerdict, Event, EventKind, FailMode};

use crate::{
    Outcome,
    cases::cases,
    echo::{datagrams, received},
    lab::{Cgroup, Lab, Netns, Pair, STEER_OPEN, Server, equal},
    proxy::fields,
    workload::Workload,
};

cases![
    quic_to_a_steered_destination_is_denied_connected_and_unconnected,
    quic_follows_the_fail_mode_while_the_proxy_is_dead,
    quic_of_others_and_other_datagrams_pass,
    raw_sctp_and_smc_sockets_are_denied,
    fast_open_is_steered_with_its_data,
    a_socket_that_somebody_else_made_is_steered_for_its_caller,
    a_socket_that_somebody_else_connects_is_steered_for_its_maker,
    a_workload_that_nests_or_moves_itself_stays_steered_with_its_sockets,
    a_namespace_made_by_the_workload_leads_nowhere,
    behind_a_unix_socket_the_sidecars_own_connection_is_steered_and_named,
    a_multipath_socket_cannot_bind_the_listeners_port,
];

const EPERM: &str = "err=1";
const ECONNREFUSED: &str = "err=111";
const EPROTONOSUPPORT: &str = "err=93";
const DIAL: &str = "destination=10.1.2.3:5432";

fn next(events: &Receiver<Event>, kind: EventKind) -> Result<Event, Box<dyn std::error::Error>> {
    loop {
        let event = events.recv_timeout(Duration::from_secs(5))?;
        if event.kind == kind {
            return Ok(event);
        }
    }
}

/// The ways to send a datagram to port 443 of the server.
fn to_quic() -> Vec<String> {
    let mut orders = Vec::new();
    for to in ["destination=10.77.0.2:443", "destination=10.77.0.2:443 mapped=1", "destination=[fd77::2]:443"]
    {
        orders.push(format!("datagram {to} connected=1"));
        orders.push(format!("datagram {to}"));
    }
    orders
}

fn quic_to_a_steered_destination_is_denied_connected_and_unconnected(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    let (_proxy, cookie, _) = lab.proxy(&pair.client);
    let there =
        [datagrams(&pair.server, Pair::SERVER_V4, 443), datagrams(&pair.server, Pair::SERVER_V6, 443)];
    let mut workload = lab.workload(&pair.client);
    for order in to_quic() {
        equal(&order, &workload.ask(&order).as_str(), &EPERM)?;
    }
    equal("came through", &(received(&there[0]) + received(&there[1])), &0)?;
    equal("counted", &lab.count("quic_denied"), &6)?;
    let event = next(&events, EventKind::QuicDenied)?;
    equal("whose", &(event.cgroup_id, event.pid), &(Some(lab.steered.id()), Some(workload.pid())))?;
    equal("where", &(event.netns, event.address.port()), &(cookie, 443))
}

fn quic_follows_the_fail_mode_while_the_proxy_is_dead(name: &str) -> Outcome {
    let timeout = Duration::from_millis(300);
    let lab = Lab::configured(name, |config| config.heartbeat_timeout = timeout);
    let pair = Pair::new();
    lab.steering.attach()?;
    let _there =
        [datagrams(&pair.server, Pair::SERVER_V4, 443), datagrams(&pair.server, Pair::SERVER_V6, 443)];
    let mut workload = lab.workload(&pair.client);
    std::thread::sleep(timeout * 2);
    for order in to_quic() {
        equal(&order, &workload.ask(&order).as_str(), &EPERM)?;
    }
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    for order in to_quic() {
        equal(&order, &workload.ask(&order).as_str(), &"sent")?;
    }
    equal("denied", &lab.count("quic_denied"), &6)?;
    // A connect() to a v4-mapped address that passes is seen twice, as the kernel goes on with IPv4.
    equal("passed", &(6..=7).contains(&lab.count("quic_passed")), &true)
}

fn quic_of_others_and_other_datagrams_pass(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let there = datagrams(&pair.server, Pair::SERVER_V4, 443);
    let other = datagrams(&pair.server, Pair::SERVER_V4, 8443);
    let (mut steered, mut unsteered) = (lab.workload(&pair.client), lab.unsteered(&pair.client));
    for connected in ["", " connected=1"] {
        let order = format!("datagram destination=10.77.0.2:443{connected}");
        equal(&order, &unsteered.ask(&order).as_str(), &"sent")?;
        let order = format!("datagram destination=10.77.0.2:8443{connected}");
        equal(&order, &steered.ask(&order).as_str(), &"sent")?;
    }
    for (what, socket) in [("of others", &there), ("to another port", &other)] {
        let mut came = received(socket);
        for _ in 0..100 {
            if came >= 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            came += received(socket);
        }
        equal(what, &came, &2)?;
    }
    // Where no rule steers TCP, UDP passes too.
    lab.steering.set_destinations(&[])?;
    equal("no rule", &steered.ask("datagram destination=10.77.0.2:443").as_str(), &"sent")?;
    equal("counted", &lab.count("quic_denied"), &0)
}

fn raw_sctp_and_smc_sockets_are_denied(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    let (mut steered, mut unsteered) = (lab.workload(&pair.client), lab.unsteered(&pair.client));
    let raw = [
        "socket family=2 type=3 protocol=6",
        "socket family=10 type=3 protocol=6",
        "socket family=2 type=3 protocol=1",
    ];
    for order in raw {
        equal(order, &steered.ask(order).as_str(), &EPERM)?;
        equal(order, &unsteered.ask(order).as_str(), &"made")?;
    }
    let event = next(&events, EventKind::SocketDenied)?;
    equal("whose", &(event.cgroup_id, event.pid), &(Some(lab.steered.id()), Some(steered.pid())))?;
    equal("which protocol", &event.address.port(), &6)?;
    // A kernel without them says so before it asks anybody.
    for (what, order) in [
        ("sctp", "socket family=2 type=1 protocol=132"),
        ("sctp", "socket family=10 type=5 protocol=132"),
        ("smc", "socket family=2 type=1 protocol=256"),
        ("smc", "socket family=10 type=1 protocol=256"),
    ] {
        let answer = steered.ask(order);
        let refused = [EPERM, EPROTONOSUPPORT, "err=94"].contains(&answer.as_str());
        equal(&format!("{what}: {answer}"), &refused, &true)?;
    }
    equal("counted", &(lab.count("socket_denied") >= 3), &true)?;
    equal("plain ones", &steered.ask("socket family=2 type=1 protocol=6").as_str(), &"made")?;
    equal("plain ones", &steered.ask("socket family=2 type=2 protocol=17").as_str(), &"made")
}

fn fast_open_is_steered_with_its_data(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let mut workload = lab.workload(&pair.client);
    for order in [
        format!("connect {DIAL} fastopen=1 data=early"),
        format!("connect {DIAL} fastopen=1 data=early mapped=1"),
        "connect destination=[fd00::5]:5432 fastopen=1 data=early".to_owned(),
        // The second time there may be a cookie.
        format!("connect {DIAL} fastopen=1 data=early"),
    ] {
        let answer = workload.ask(&order);
        let pid = workload.pid().to_string();
        equal(&format!("{order}: {answer}"), &fields(&answer).get("pid").copied(), &Some(pid.as_str()))?;
    }
    equal("handed off", &lab.count("handed_off"), &4)?;
    equal("strays", &lab.count("stray"), &0)
}

/// Left out where there is neither io_uring nor a Python to speak it.
pub(crate) fn io_uring_connects_are_steered(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let mut workload = lab.workload(&pair.client);
    let python = python().ok_or("no python3")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/steering/uring.py");
    for (address, destination) in [("10.1.2.3", "10.1.2.3:5432"), ("fd00::5", "[fd00::5]:5432")] {
        for way in ["inline", "worker"] {
            let answer = workload.ask(&format!("run {} {script} {address} 5432 {way}", python.display()));
            let found = fields(&answer);
            equal(&format!("{way}: {answer}"), &found.get("destination").copied(), &Some(destination))?;
            let cgroup = lab.steered.id().to_string();
            equal(&format!("{way}: {answer}"), &found.get("cgroup").copied(), &Some(cgroup.as_str()))?;
        }
    }
    Ok(())
}

/// That of the lab's clients, else whatever is there.
pub(crate) fn python() -> Option<PathBuf> {
    let lab =
        std::env::var_os("VERBATIM_CACHE").map(|cache| PathBuf::from(cache).join("lab/venv/bin/python"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&path).map(|folder| folder.join("python3"));
    lab.into_iter().chain(others).find(|program| program.is_file())
}

fn a_socket_that_somebody_else_made_is_steered_for_its_caller(name: &str) -> Outcome {
    let (lab, pair, folder) = (Lab::new(name), Pair::new(), tempfile::tempdir()?);
    let (_proxy, ..) = lab.proxy(&pair.client);
    let (mut steered, mut unsteered) = (lab.workload(&pair.client), lab.unsteered(&pair.client));
    for (number, kind) in
        [DIAL, "destination=10.1.2.3:5432 mapped=1", "destination=10.1.2.3:5432 protocol=262"]
            .into_iter()
            .enumerate()
    {
        if kind.contains("262") && !multipath() {
            continue;
        }
        let path = folder.path().join(number.to_string());
        equal(
            "offer",
            &unsteered.ask(&format!("offer path={} {kind}", path.display())).as_str(),
            &"offered",
        )?;
        equal("adopt", &steered.ask(&format!("adopt path={}", path.display())).as_str(), &"adopted")?;
        let answer = steered.ask(&format!("finish {kind}"));
        let found = fields(&answer);
        let cgroup = lab.steered.id().to_string();
        equal(&answer, &found.get("cgroup").copied(), &Some(cgroup.as_str()))?;
        equal(&answer, &found.get("pid").copied(), &Some(steered.pid().to_string().as_str()))?;
    }
    equal("by its maker", &lab.count("judged_by_creator"), &0)
}

pub(crate) fn multipath() -> bool {
    std::path::Path::new("/proc/sys/net/mptcp/enabled").exists()
}

fn a_socket_that_somebody_else_connects_is_steered_for_its_maker(name: &str) -> Outcome {
    let (lab, pair, folder) = (Lab::new(name), Pair::new(), tempfile::tempdir()?);
    let (_proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let to = format!("destination={}:{}", Pair::SERVER_V4, server.port);
    let (mut steered, mut unsteered) = (lab.workload(&pair.client), lab.unsteered(&pair.client));
    let mut passed_on = |number: u32| {
        let path = folder.path().join(number.to_string());
        steered.ask(&format!("offer path={} {to}", path.display()));
        unsteered.ask(&format!("adopt path={}", path.display()));
        unsteered.ask(&format!("finish {to}"))
    };
    let answer = passed_on(1);
    let found = fields(&answer);
    let cgroup = lab.steered.id().to_string();
    equal(&answer, &found.get("cgroup").copied(), &Some(cgroup.as_str()))?;
    equal(&answer, &found.get("ancestors").copied(), &Some(""))?;
    equal("by its maker", &lab.count("judged_by_creator"), &1)?;
    // What is true of the maker now counts, not what was.
    lab.steering
        .set_cgroup(lab.steered.id(), CgroupVerdict { action: Action::Deny, fail_mode: FailMode::Open })?;
    equal("denied", &passed_on(2).as_str(), &EPERM)?;
    lab.steering
        .set_cgroup(lab.steered.id(), CgroupVerdict { action: Action::Pass, fail_mode: FailMode::Open })?;
    let answer = passed_on(3);
    equal(&answer, &answer.contains(" server "), &true)?;
    // A datagram socket is its maker's as well; what the caller itself makes is not.
    equal("by its maker", &lab.count("judged_by_creator"), &2)?;
    let own = unsteered.ask(&format!("connect {to}"));
    equal(&own, &own.contains(" server "), &true)
}

fn a_workload_that_nests_or_moves_itself_stays_steered_with_its_sockets(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let to = format!("destination={}:{}", Pair::SERVER_V4, server.port);
    let mut workload = lab.workload(&pair.client);
    let nested = lab.steered.path.join("nested");
    equal("nested", &workload.ask(&format!("nest cgroup={}", nested.display())).as_str(), &"moved")?;
    let nested = Cgroup { path: nested };
    let answer = workload.ask(&format!("connect {to}"));
    let found = fields(&answer);
    equal(&answer, &found.get("cgroup").copied(), &Some(nested.id().to_string().as_str()))?;
    let above = found.get("ancestors").and_then(|all| all.split(',').next()).map(str::to_owned);
    equal(&answer, &above, &Some(lab.steered.id().to_string()))?;

    // Out of it altogether, which takes a right to the cgroups outside: what it made before stays its own.
    workload.ask(&format!("make {to}"));
    let moved = workload.ask(&format!("move cgroup={}", lab.other.path.display()));
    equal("moved", &moved.as_str(), &"moved")?;
    let answer = workload.ask(&format!("finish {to}"));
    equal(&answer, &fields(&answer).get("cgroup").copied(), &Some(nested.id().to_string().as_str()))?;
    equal("by its maker", &lab.count("judged_by_creator"), &1)?;
    // What it makes from then on is its new cgroup's.
    let answer = workload.ask(&format!("connect {to}"));
    equal(&answer, &answer.contains(" server "), &true)
}

fn a_namespace_made_by_the_workload_leads_nowhere(name: &str) -> Outcome {
    let lab = Lab::new(name);
    let events = lab.steering.events().ok_or("events were taken before")?;
    let mut workload = Workload::unshared(&lab.steered.path);
    equal("up", &workload.ask("run ip link set lo up").as_str(), &"")?;
    equal("refused", &workload.ask(&format!("connect {DIAL}")).as_str(), &ECONNREFUSED)?;
    let event = next(&events, EventKind::Miss)?;
    equal("whose", &event.cgroup_id, &Some(lab.steered.id()))?;
    equal("counted", &lab.count("missed"), &1)?;
    equal("quic", &workload.ask("datagram destination=127.0.0.1:443").as_str(), &EPERM)
}

fn behind_a_unix_socket_the_sidecars_own_connection_is_steered_and_named(name: &str) -> Outcome {
    let (lab, pair, folder) = (Lab::new(name), Pair::new(), tempfile::tempdir()?);
    let (_proxy, ..) = lab.proxy(&pair.client);
    let (app, sidecar) =
        (Cgroup::below(&lab.steered.path, "app"), Cgroup::below(&lab.steered.path, "sidecar"));
    let netns = pair.client.path();
    let mut client = Workload::start(&app.path, Some(&netns));
    let mut proxy = Workload::start(&sidecar.path, Some(&netns));
    let path = folder.path().join("sidecar");
    equal("listens", &proxy.ask(&format!("relay path={} {DIAL}", path.display())).as_str(), &"relaying")?;
    let answer = client.ask(&format!("unix path={}", path.display()));
    let found = fields(&answer);
    equal(&answer, &found.get("destination").copied(), &Some("10.1.2.3:5432"))?;
    equal(&answer, &found.get("cgroup").copied(), &Some(sidecar.id().to_string().as_str()))?;
    equal(&answer, &found.get("pid").copied(), &Some(proxy.pid().to_string().as_str()))?;
    fs::remove_file(path)?;
    Ok(())
}

fn a_multipath_socket_cannot_bind_the_listeners_port(name: &str) -> Outcome {
    let (lab, netns) = (Lab::new(name), Netns::new());
    let (_proxy, _, port) = lab.proxy(&netns);
    let mut workload = lab.workload(&netns);
    for order in [format!("bind address=0.0.0.0:{port} share=1"), format!("bind address=[::]:{port} share=1")]
    {
        for protocol in if multipath() { &["", " protocol=262"][..] } else { &[""][..] } {
            let order = format!("{order}{protocol}");
            equal(&order, &workload.ask(&order).as_str(), &EPERM)?;
        }
    }
    Ok(())
}
