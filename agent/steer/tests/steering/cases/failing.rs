//! What happens when something is missing: the proxy, a listener, a route.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::Duration,
};

use verbatim_steer::{Action, DestinationRule, Event, EventKind};

use crate::{
    Outcome,
    cases::cases,
    lab::{Lab, Netns, Pair, STEER_CLOSED, STEER_OPEN, Server, equal, soon},
};

cases![
    a_dead_proxy_means_eperm_or_passing_as_the_workload_says,
    a_destination_that_fails_open_passes_whatever_the_workload_says,
    a_heartbeat_is_kept_for_as_long_as_it_is_said,
    without_a_listener_connects_are_refused_and_reported,
    reports_are_limited_and_what_is_kept_back_is_counted,
    without_an_ipv6_route_the_connect_fails_by_itself,
    an_ipv6_route_that_was_not_known_is_noticed,
    a_client_bound_to_a_device_follows_its_fail_mode,
    a_link_local_destination_follows_the_fail_mode,
    others_cannot_bind_the_listeners_port,
    what_the_programs_log_reaches_tracing,
];

const EPERM: &str = "err=1";
const ENETUNREACH: &str = "err=101";
const ECONNREFUSED: &str = "err=111";
const TIMEOUT: Duration = Duration::from_secs(2);

fn next(events: &Receiver<Event>, kind: EventKind) -> Result<Event, Box<dyn std::error::Error>> {
    loop {
        let event = events.recv_timeout(Duration::from_secs(30))?;
        if event.kind == kind {
            return Ok(event);
        }
    }
}

fn a_dead_proxy_means_eperm_or_passing_as_the_workload_says(name: &str) -> Outcome {
    let lab = Lab::configured(name, |config| config.heartbeat_timeout = TIMEOUT);
    let pair = Pair::new();
    lab.steering.attach()?;
    let events = lab.steering.events().ok_or("events were taken before")?;
    let (_proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let order = format!("connect destination={}:{}", Pair::SERVER_V4, server.port);
    let mut workload = lab.workload(&pair.client);
    soon("closed", &mut workload, &order, |answer| answer == EPERM)?;
    equal("closed, not named", &lab.count("stale_denied"), &1)?;
    equal("reported", &next(&events, EventKind::StaleDenied)?.cgroup_id, &Some(lab.steered.id()))?;
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" server "), &true)?;
    equal("open", &lab.count("stale_passed"), &1)?;
    equal("reported", &next(&events, EventKind::StalePassed)?.pid, &Some(workload.pid()))?;

    for verdict in [STEER_OPEN, STEER_CLOSED] {
        lab.steering.set_cgroup(lab.steered.id(), verdict)?;
        let beating = lab.steering.heartbeat().keep(|| true)?;
        soon("alive", &mut workload, &order, |answer| answer.contains(" flow "))?;
        drop(beating);
        lab.steering.heartbeat().cease()?;
    }
    Ok(())
}

fn a_destination_that_fails_open_passes_whatever_the_workload_says(name: &str) -> Outcome {
    let lab = Lab::configured(name, |config| config.heartbeat_timeout = TIMEOUT);
    let (pair, elsewhere) = (Pair::new(), Pair::new());
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let other = Server::on(&elsewhere.server, Pair::SERVER_V4);
    let rule = |port| DestinationRule {
        action: Action::SteerOrPass,
        ..DestinationRule::steer(Pair::SERVER_V4.parse::<std::net::IpAddr>().expect("address"), Some(port))
    };
    lab.steering.set_destinations(&[rule(server.port), rule(other.port)])?;
    lab.steering.attach()?;
    let (_proxy, ..) = lab.proxy(&pair.client);
    let order = |port| format!("connect destination={}:{port}", Pair::SERVER_V4);
    let (mut workload, mut missed) = (lab.workload(&pair.client), lab.workload(&elsewhere.client));
    lab.steering.set_cgroup(lab.steered.id(), STEER_CLOSED)?;
    soon("the proxy is dead", &mut workload, &order(server.port), |answer| answer.contains(" server "))?;
    equal("the proxy was dead", &lab.count("stale_passed"), &1)?;

    lab.steering.heartbeat().beat()?;
    let beating = lab.steering.heartbeat().keep(|| true)?;
    let answer = workload.ask(&order(server.port));
    equal(&answer, &answer.contains(" flow "), &true)?;
    // Without a listener in its namespace.
    let answer = missed.ask(&order(other.port));
    equal(&answer, &answer.contains(" server "), &true)?;
    equal("no listener", &lab.count("stale_passed"), &2)?;
    drop(beating);
    equal("nobody was refused", &lab.count("stale_denied"), &0)
}

fn a_heartbeat_is_kept_for_as_long_as_it_is_said(name: &str) -> Outcome {
    let lab = Lab::configured(name, |config| config.heartbeat_timeout = TIMEOUT);
    let netns = Netns::new();
    lab.steering.attach()?;
    let (_proxy, ..) = lab.proxy(&netns);
    let mut workload = lab.workload(&netns);
    let healthy = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&healthy);
    let _beating = lab.steering.heartbeat().keep(move || asked.load(Ordering::Relaxed))?;
    thread::sleep(TIMEOUT * 2);
    let answer = workload.ask("connect destination=10.1.2.3:5432");
    equal(&answer, &answer.contains(" flow "), &true)?;
    healthy.store(false, Ordering::Relaxed);
    soon("not healthy", &mut workload, "connect destination=10.1.2.3:5432", |answer| answer == EPERM)
}

fn without_a_listener_connects_are_refused_and_reported(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let to = format!("{}:{}", Pair::SERVER_V4, server.port);
    let mut workload = lab.workload(&pair.client);
    let orders = [
        format!("connect destination={to}"),
        format!("connect destination={to} mapped=1"),
        format!("connect destination={to} bind=10.77.0.1:0"),
        format!("connect destination={to} nonblocking=1"),
        "connect destination=[fd77::2]:5432".to_owned(),
    ];
    for order in &orders {
        equal(order, &workload.ask(order).as_str(), &ECONNREFUSED)?;
        let event = next(&events, EventKind::Miss)?;
        equal("namespace", &event.netns, &pair.client.cookie())?;
        equal("workload", &(event.cgroup_id, event.pid), &(Some(lab.steered.id()), Some(workload.pid())))?;
        equal("destination", &order.contains(format!("destination={} ", event.address).trim_end()), &true)?;
    }
    equal("counted", &lab.count("missed"), &(orders.len() as u64))?;
    // A listener that goes leaves the same behind.
    let (proxy, cookie, _) = lab.proxy(&pair.client);
    let answer = workload.ask(&orders[0]);
    equal(&answer, &answer.contains(" flow "), &true)?;
    equal("removed", &lab.namespaces().remove(cookie)?, &true)?;
    drop(proxy);
    equal("after it went", &workload.ask(&orders[0]).as_str(), &ECONNREFUSED)
}

fn reports_are_limited_and_what_is_kept_back_is_counted(name: &str) -> Outcome {
    let (lab, netns) = (Lab::new(name), Netns::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    let mut workload = lab.workload(&netns);
    let answer = workload.ask("many count=2000 network=1");
    equal(&answer, &answer.starts_with("right=0 wrong=0 failed=2000 "), &true)?;
    equal("counted", &lab.count("missed"), &2000)?;
    let kept_back = lab.count("events_suppressed");
    let mut reported = 0;
    while kept_back + reported < 2000 {
        next(&events, EventKind::Miss)?;
        reported += 1;
    }
    // And none beside them.
    thread::sleep(Duration::from_millis(300));
    reported += events.try_iter().filter(|event| event.kind == EventKind::Miss).count() as u64;
    equal("kept back or reported", &(lab.count("events_suppressed") + reported), &2000)?;
    equal("limited", &(reported < 2000), &true)
}

fn without_an_ipv6_route_the_connect_fails_by_itself(name: &str) -> Outcome {
    let (lab, netns) = (Lab::new(name), Netns::new());
    let (_proxy, ..) = lab.proxy(&netns);
    let mut workload = lab.workload(&netns);
    equal("ipv6", &workload.ask("connect destination=[2001:db8::1]:443").as_str(), &ENETUNREACH)?;
    equal("counted", &(lab.count("unrouted"), lab.count("unrouted_connected")), &(1, 0))?;
    for order in [
        "connect destination=10.1.2.3:443",
        "connect destination=10.1.2.3:443 mapped=1",
        "connect destination=[::1]:443",
    ] {
        let answer = workload.ask(order);
        equal(&answer, &answer.contains(" flow "), &true)?;
    }
    Ok(())
}

fn an_ipv6_route_that_was_not_known_is_noticed(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    pair.client.ip(&["-6", "address", "flush", "dev", "eth0"]);
    let (_proxy, cookie, _) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V6);
    pair.client.ip(&["address", "add", "fd77::1/64", "dev", "eth0", "nodad"]);
    let mut workload = lab.workload(&pair.client);
    let order = format!("connect destination=[{}]:{}", Pair::SERVER_V6, server.port);
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" server "), &true)?;
    equal("peer is the server", &answer.contains(&format!("peer=[fd77::2]:{}", server.port)), &true)?;
    equal("counted", &lab.count("unrouted_connected"), &1)?;
    equal("reported", &next(&events, EventKind::UnroutedConnected)?.netns, &cookie)?;
    lab.namespaces().refresh(cookie)?;
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" flow "), &true)
}

fn a_client_bound_to_a_device_follows_its_fail_mode(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    let (_proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let mut workload = lab.workload(&pair.client);
    let order = format!("connect destination={}:{} device=eth0", Pair::SERVER_V4, server.port);
    equal("closed", &workload.ask(&order).as_str(), &EPERM)?;
    equal("reported", &next(&events, EventKind::BoundToDevice)?.pid, &Some(workload.pid()))?;
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" server "), &true)?;
    equal("counted", &(lab.count("device_denied"), lab.count("device_passed")), &(1, 1))
}

/// The kernel tells the programs its address and not its link, without which it cannot be dialled.
fn a_link_local_destination_follows_the_fail_mode(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    let (_proxy, ..) = lab.proxy(&pair.client);
    pair.client.ip(&["address", "add", "fe80::77:1/64", "dev", "eth0", "nodad"]);
    pair.server.ip(&["address", "add", "fe80::77:2/64", "dev", "eth0", "nodad"]);
    let server = Server::on(&pair.server, "::");
    let mut workload = lab.workload(&pair.client);
    let order = format!("connect destination=fe80::77:2%eth0:{}", server.port);
    equal("closed", &workload.ask(&order).as_str(), &EPERM)?;
    equal("reported", &next(&events, EventKind::BoundToDevice)?.pid, &Some(workload.pid()))?;
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" server "), &true)?;
    equal(
        "counted",
        &(lab.count("device_denied"), lab.count("device_passed"), lab.count("stray")),
        &(1, 1, 0),
    )
}

fn others_cannot_bind_the_listeners_port(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let events = lab.steering.events().ok_or("events were taken before")?;
    let (_proxy, cookie, port) = lab.proxy(&pair.client);
    for mut workload in [lab.workload(&pair.client), lab.unsteered(&pair.client)] {
        for address in ["127.0.0.1", "10.77.0.1", "0.0.0.0", "[::]", "[::1]"] {
            let answer = workload.ask(&format!("bind address={address}:{port} share=1"));
            equal(address, &answer.as_str(), &EPERM)?;
        }
        equal("another port", &workload.ask("bind address=0.0.0.0:5999").as_str(), &"bound")?;
    }
    let mut elsewhere = lab.workload(&pair.server);
    let answer = elsewhere.ask(&format!("bind address=0.0.0.0:{port}"));
    equal("another namespace", &answer.as_str(), &"bound")?;
    equal("counted", &lab.count("bind_denied"), &10)?;
    equal("reported", &next(&events, EventKind::BindDenied)?.netns, &cookie)
}

/// The whole process has one subscriber: the test looks for what only it can have caused.
fn what_the_programs_log_reaches_tracing(name: &str) -> Outcome {
    let seen = Seen::default();
    tracing::subscriber::set_global_default(seen.clone())?;
    let (lab, netns) = (Lab::new(name), Netns::new());
    let mut workload = lab.workload(&netns);
    equal("refused", &workload.ask("connect destination=10.1.2.3:5432").as_str(), &ECONNREFUSED)?;
    let expected = format!(
        "connect refused: no listener in namespace {}, cgroup {}, port 5432",
        netns.cookie(),
        lab.steered.id()
    );
    for _ in 0..600 {
        if seen.0.lock().map_err(|error| error.to_string())?.contains(&expected) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::other(format!("not logged: {expected}")).into())
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Seen {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "verbatim_ebpf" && *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Message<'a>(&'a mut Vec<String>);
        impl tracing::field::Visit for Message<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0.push(format!("{value:?}"));
                }
            }
        }
        if let Ok(mut seen) = self.0.lock() {
            event.record(&mut Message(&mut seen));
        }
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
