//! What the proxy learns about a connection is what its connect() was.

use std::{
    fmt::Write,
    net::{Ipv4Addr, TcpListener},
    thread,
};

use verbatim_steer::{HostListener, ShardListeners};

use crate::{
    Outcome,
    cases::Case,
    lab::{Lab, Pair, base, equal, id},
    proxy::{Proxy, fields},
    workload,
};

pub(crate) const CASES: &[Case] = &[
    (
        "flow_names_destination_caller_and_namespace_of_every_kind_of_connect",
        flow_names_destination_caller_and_namespace_of_every_kind_of_connect,
        false,
    ),
    (
        "twenty_thousand_connections_from_two_namespaces_keep_their_flows",
        twenty_thousand_connections_from_two_namespaces_keep_their_flows,
        false,
    ),
    ("a_connection_aimed_at_the_listener_has_no_flow", a_connection_aimed_at_the_listener_has_no_flow, false),
    (
        "a_client_bound_to_a_device_goes_to_the_host_listener",
        a_client_bound_to_a_device_goes_to_the_host_listener,
        false,
    ),
    ("measure_connect", measure_connect, true),
];

fn flow_names_destination_caller_and_namespace_of_every_kind_of_connect(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, cookie, _) = lab.proxy(&pair.client);
    equal("cookie of the namespace", &cookie, &pair.client.cookie())?;
    let mut workload = lab.workload(&pair.client);
    let nested = [lab.steered.path.parent().map(id).unwrap_or(0), id(base())];
    let kinds = [
        ("destination=10.1.2.3:5432", "10.1.2.3:5432", "2"),
        ("destination=10.1.2.3:5432 nonblocking=1", "10.1.2.3:5432", "2"),
        ("destination=10.1.2.3:5432 mapped=1", "10.1.2.3:5432", "10"),
        ("destination=10.1.2.3:5432 mapped=1 nonblocking=1", "10.1.2.3:5432", "10"),
        ("destination=10.1.2.3:5432 bind=127.0.0.1:0", "10.1.2.3:5432", "2"),
        ("destination=10.1.2.3:5432 bind=10.77.0.1:0", "10.1.2.3:5432", "2"),
        ("destination=10.1.2.3:5432 mapped=1 bind=10.77.0.1:0", "10.1.2.3:5432", "10"),
        ("destination=10.1.2.3:5432 device=lo", "10.1.2.3:5432", "2"),
        ("destination=10.1.2.3:5432 fastopen=1", "10.1.2.3:5432", "2"),
        ("destination=127.0.0.1:5432", "127.0.0.1:5432", "2"),
        ("destination=127.0.0.9:5432", "127.0.0.9:5432", "2"),
        ("destination=0.0.0.0:5432", "0.0.0.0:5432", "2"),
        ("destination=[fd00::5]:5432", "[fd00::5]:5432", "10"),
        ("destination=[fd00::5]:5432 nonblocking=1", "[fd00::5]:5432", "10"),
        ("destination=[fd00::5]:5432 bind=[fd77::1]:0", "[fd00::5]:5432", "10"),
        ("destination=[::1]:5432", "[::1]:5432", "10"),
    ];
    for (order, destination, family) in kinds {
        let answer = workload.ask(&format!("connect {order}"));
        let found = fields(&answer);
        let pid = workload.pid().to_string();
        let mut ancestors = nested.map(|id| id.to_string()).join(",");
        // Whatever the machine has above the base.
        if let Some(more) = found.get("ancestors").and_then(|all| all.strip_prefix(&ancestors)) {
            write!(ancestors, "{more}")?;
        }
        let expected = [
            ("destination", destination),
            ("family", family),
            ("route", "1"),
            ("cgroup", &lab.steered.id().to_string()),
            ("ancestors", &ancestors),
            ("pid", &pid),
            ("tid", &pid),
            ("uid", "0"),
            ("gid", "0"),
            ("client_netns", &cookie.to_string()),
            ("listener_netns", &cookie.to_string()),
            ("own_netns", &cookie.to_string()),
            ("cookie", found.get("own_cookie").copied().unwrap_or("none")),
        ];
        for (key, value) in expected {
            equal(&format!("{order}: {key} in {answer:?}"), &found.get(key).copied(), &Some(value))?;
        }
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
        equal(order, &found.get("comm").copied(), &Some(comm.trim_end()))?;
    }
    equal("hand-offs", &lab.count("handed_off"), &(kinds.len() as u64))?;
    equal("without a flow", &lab.count("without_flow"), &0)
}

/// How many connections are handed over: more in a measurement, fewer where the machine is emulated.
pub(crate) fn hand_offs() -> u64 {
    std::env::var("VERBATIM_HAND_OFFS")
        .map_or(20_000, |count| count.parse().expect("VERBATIM_HAND_OFFS is a number"))
}

fn twenty_thousand_connections_from_two_namespaces_keep_their_flows(name: &str) -> Outcome {
    let lab = Lab::configured(name, |config| config.shards = 2);
    lab.steering.attach()?;
    let (one, two) = (Pair::new(), Pair::new());
    let (_proxy_one, ..) = lab.proxy(&one.client);
    let (_proxy_two, ..) = lab.proxy(&two.client);
    let (mut first, mut second) = (lab.workload(&one.client), lab.workload(&two.client));
    let each = hand_offs() / 4;
    // The same destinations from both, so that only the namespace tells the flows apart.
    let (fin, reset) = thread::scope(|scope| {
        let fin = scope.spawn(|| {
            ["network=1", "network=2 reset=1"].map(|how| first.ask(&format!("many count={each} {how}")))
        });
        let reset = scope.spawn(|| {
            ["network=1 reset=1", "network=2"].map(|how| second.ask(&format!("many count={each} {how}")))
        });
        (fin.join(), reset.join())
    });
    for answers in [fin, reset] {
        for answer in answers.map_err(|_panic| "a workload's thread panicked")? {
            equal("hand-offs", &answer, &format!("right={each} wrong=0 failed=0 first:"))?;
        }
    }
    equal("hand-offs", &lab.count("handed_off"), &(4 * each))?;
    equal("begun", &lab.count("handshakes_begun"), &(4 * each))?;
    equal("lost", &(lab.count("handshakes_lost") + lab.count("without_flow") + lab.count("no_memory")), &0)
}

fn a_connection_aimed_at_the_listener_has_no_flow(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, _, port) = lab.proxy(&pair.client);
    let events = lab.steering.events().ok_or("events were taken before")?;
    for mut workload in [lab.workload(&pair.client), lab.unsteered(&pair.client)] {
        for to in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"), format!("[::1]:{port}")] {
            let answer = workload.ask(&format!("connect destination={to}"));
            equal(&to, &answer.ends_with(" noflow"), &true).map_err(|_not| answer)?;
        }
    }
    equal("self-aimed", &lab.count("self_aimed"), &3)?;
    equal("without a flow", &lab.count("without_flow"), &6)?;
    let event = events.recv_timeout(std::time::Duration::from_secs(5))?;
    equal("event", &event.kind, &verbatim_steer::EventKind::NoFlow)?;
    equal("event's namespace", &event.netns, &pair.client.cookie())
}

/// Multipath sockets connect by a TCP socket of their own, which is steered like any other.
pub(crate) fn multipath_tcp_is_steered(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let mut workload = lab.workload(&pair.client);
    let answer = workload.ask("connect destination=10.1.2.3:5432 protocol=262");
    let found = fields(&answer);
    equal(&answer, &found.get("destination").copied(), &Some("10.1.2.3:5432"))?;
    equal(&answer, &found.get("pid").copied(), &Some(workload.pid().to_string().as_str()))
}

/// Bound to a device, a client cannot reach loopback; where there is a host listener it goes there.
fn a_client_bound_to_a_device_goes_to_the_host_listener(name: &str) -> Outcome {
    let pair = Pair::new();
    let address: Ipv4Addr = Pair::SERVER_V4.parse()?;
    let listener = pair.server.within(|| TcpListener::bind((address, 0)))?;
    let (port, netns) = (listener.local_addr()?.port(), pair.server.cookie());
    let lab = Lab::configured(name, |config| {
        config.host_listener = Some(HostListener { v4: address, v6: None, port, netns });
    });
    lab.steering.attach()?;
    let (_proxy, ..) = lab.proxy(&pair.client);
    let _host = Proxy::start(lab.steering.flows(), vec![ShardListeners { v4: listener, v6: None }]);
    let mut workload = lab.workload(&pair.client);
    let answer = workload.ask("connect destination=10.1.2.3:5432 device=eth0");
    let found = fields(&answer);
    for (key, value) in [
        ("destination", "10.1.2.3:5432".to_owned()),
        ("peer", "10.1.2.3:5432".to_owned()),
        ("route", "2".to_owned()),
        ("client_netns", pair.client.cookie().to_string()),
        ("listener_netns", netns.to_string()),
    ] {
        equal(&format!("{key} in {answer}"), &found.get(key).copied(), &Some(value.as_str()))?;
    }
    equal("local", &found.get("local").is_some_and(|local| local.starts_with("10.77.0.1:")), &true)
}

/// Prints medians of connect(): through steering; straight to the same listener, which leaves out
/// nothing but the programs' work; and to a server over a cable. Clients have one CPU and servers
/// another, else a server that wakes up takes the CPU in the middle of what is measured.
fn measure_connect(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    workload::stay_on(1)?;
    let (_proxy, _, port) = lab.proxy(&pair.client);
    let remote = crate::lab::Server::on(&pair.server, Pair::SERVER_V4);
    let (mut steered, mut unsteered) = (lab.workload(&pair.client), lab.unsteered(&pair.client));
    for round in 1..=5 {
        let a = steered.ask("latency count=3000 destination=10.1.2.3:5432");
        let b = unsteered.ask(&format!("latency count=3000 destination=127.0.0.1:{port}"));
        let c = unsteered.ask(&format!("latency count=3000 destination={}:{}", Pair::SERVER_V4, remote.port));
        println!("round {round}, ns: steered {a} | to the listener by itself {b} | veth {c}");
    }
    super::cost::account(|| steered.ask("latency count=3000 destination=10.1.2.3:5432"))?;
    super::cost::account(|| unsteered.ask(&format!("latency count=3000 destination=127.0.0.1:{port}")))
}
