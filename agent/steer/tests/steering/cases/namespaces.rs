//! Listeners in network namespaces, dialling from there, noticing them.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbatim_steer::{NamespaceChange, NamespaceWatcher, SteerConfig, SteerError};
use verbatim_sys::{netns, socket};

use crate::{
    Outcome,
    cases::cases,
    lab::{Lab, Netns, Pair, Server, equal},
    proxy::{Proxy, fields},
    workload::Workload,
};

cases![
    dialled_socket_comes_from_the_workloads_namespace,
    a_namespace_that_is_not_known_is_not_dialled_from,
    listeners_stand_while_loopback_is_still_down,
    a_taken_port_is_left_to_its_owner,
    two_agents_side_by_side_steer_their_own,
    workloads_of_our_own_namespace_are_steered_too,
    a_namespace_gets_listeners_once,
    watcher_notices_namespaces_come_and_go,
    a_namespace_that_cannot_be_used_is_a_trouble_until_it_can_be,
];

fn dialled_socket_comes_from_the_workloads_namespace(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, cookie, _) = lab.proxy(&pair.client);
    let home = netns::cookie_here()?;
    for (server, client) in [(Pair::SERVER_V4, Pair::CLIENT_V4), (Pair::SERVER_V6, Pair::CLIENT_V6)] {
        let port = Server::on(&pair.server, server);
        let to = SocketAddr::new(server.parse()?, port.port);
        let dialled = lab.namespaces().dial_socket(cookie, to)?;
        equal("the socket's namespace", &socket::netns_cookie(&dialled)?, &cookie)?;
        equal("this thread's", &netns::cookie_here()?, &home)?;
        let flags = rustix::fs::fcntl_getfl(&dialled)?;
        equal("non-blocking", &flags.contains(rustix::fs::OFlags::NONBLOCK), &true)?;
        match rustix::net::connect(&dialled, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
        poll(&mut [PollFd::new(&dialled, PollFlags::OUT)], Some(&patience))?;
        let mut stream = TcpStream::from(dialled);
        stream.set_nonblocking(false)?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        let seen: SocketAddr = said.trim_end().strip_prefix("server ").ok_or(said.clone())?.parse()?;
        equal("who the server sees", &seen.ip().to_string().as_str(), &client)?;
    }
    Ok(())
}

fn a_namespace_that_is_not_known_is_not_dialled_from(name: &str) -> Outcome {
    let (lab, netns) = (Lab::configured(name, |_| {}), Netns::new());
    let to = SocketAddr::from(([10, 1, 2, 3], 5432));
    let error = lab.namespaces().dial_socket(netns.cookie(), to);
    equal("unknown", &error.map_err(|error| error.kind()).err(), &Some(std::io::ErrorKind::NotFound))?;
    let cookie = lab.namespaces().add(&netns.name, netns.open())?.cookie;
    lab.namespaces().dial_socket(cookie, to)?;
    equal("removed", &lab.namespaces().remove(cookie)?, &true)?;
    equal("removed twice", &lab.namespaces().remove(cookie)?, &false)?;
    equal("gone", &lab.namespaces().dial_socket(cookie, to).is_err(), &true)
}

fn listeners_stand_while_loopback_is_still_down(name: &str) -> Outcome {
    let (lab, netns) = (Lab::new(name), Netns::bare());
    let (_proxy, ..) = lab.proxy(&netns);
    let mut workload = lab.workload(&netns);
    let answer = workload.ask("connect destination=10.1.2.3:5432");
    equal("loopback is down", &answer.starts_with("err="), &true)?;
    netns.ip(&["link", "set", "lo", "up"]);
    for to in ["10.1.2.3:5432", "[::1]:5432"] {
        let answer = workload.ask(&format!("connect destination={to}"));
        equal(&answer, &answer.contains(" flow "), &true)?;
    }
    Ok(())
}

fn a_taken_port_is_left_to_its_owner(name: &str) -> Outcome {
    let lab = Lab::new(name);
    let [first, second] = SteerConfig::PORTS;
    let take = |port: u16| move || TcpListener::bind(("0.0.0.0", port));
    let one = Netns::new();
    let _taken = one.within(take(first))?;
    let (_proxy, _, port) = lab.proxy(&one);
    equal("second choice", &port, &second)?;
    let two = Netns::new();
    let _taken = (two.within(take(first))?, two.within(|| TcpListener::bind(("::1", second)))?);
    let (_proxy, _, port) = lab.proxy(&two);
    equal("neither", &[first, second, 0].contains(&port), &false)?;
    equal("outside the ephemeral range", &(32_768..=60_999).contains(&port), &false)?;
    let answer = lab.workload(&two).ask("connect destination=10.1.2.3:5432");
    equal(&answer, &answer.contains(" flow "), &true)
}

fn two_agents_side_by_side_steer_their_own(name: &str) -> Outcome {
    let pair = Pair::new();
    let (one, two) = (Lab::new(name), Lab::new(&format!("{name}_second")));
    let (_proxy_one, _, port_one) = one.proxy(&pair.client);
    let (_proxy_two, _, port_two) = two.proxy(&pair.client);
    equal("one port for both", &(port_one == port_two), &false)?;
    for lab in [&one, &two] {
        let mut workload = lab.workload(&pair.client);
        for _ in 0..100 {
            let answer = workload.ask("connect destination=10.1.2.3:5432");
            let found = fields(&answer);
            equal(&answer, &found.get("cgroup").copied(), &Some(lab.steered.id().to_string().as_str()))?;
            equal(&answer, &found.get("peer").copied(), &Some("10.1.2.3:5432"))?;
        }
        equal("handed off", &lab.count("handed_off"), &100)?;
    }
    Ok(())
}

fn workloads_of_our_own_namespace_are_steered_too(name: &str) -> Outcome {
    let lab = Lab::new(name);
    let listeners = lab.namespaces().add_current("host")?;
    equal("cookie", &listeners.cookie, &lab.namespaces().own_cookie())?;
    equal("cookie", &listeners.cookie, &netns::cookie_here()?)?;
    let _proxy = Proxy::start(lab.steering.flows(), listeners.shards);
    let mut workload = Workload::start(&lab.steered.path, None);
    for order in ["connect destination=10.1.2.3:5432", "connect destination=10.1.2.3:5432 mapped=1"] {
        let answer = workload.ask(order);
        equal(&answer, &fields(&answer).get("destination").copied(), &Some("10.1.2.3:5432"))?;
    }
    let dialled = lab.namespaces().dial_socket(listeners.cookie, SocketAddr::from(([10, 1, 2, 3], 1)))?;
    equal("dialled", &socket::netns_cookie(&dialled)?, &listeners.cookie)
}

fn a_namespace_gets_listeners_once(name: &str) -> Outcome {
    let (lab, netns) = (Lab::configured(name, |_| {}), Netns::new());
    lab.namespaces().add("first", netns.open())?;
    let again = lab.namespaces().add("second", netns.open());
    equal("known", &matches!(again, Err(SteerError::NamespaceKnown { .. })), &true)?;
    let no_namespace = lab.namespaces().add("file", std::fs::File::open("/dev/null")?.into());
    equal("no namespace", &no_namespace.is_err(), &true)
}

/// What was noticed: `+name cookie` and `-name`.
fn watch(prefix: String) -> std::io::Result<(NamespaceWatcher, Receiver<String>)> {
    let (sender, changes) = mpsc::channel();
    let home = netns::current()?;
    let watcher = NamespaceWatcher::start(
        Path::new("/run/netns"),
        move |name| name == prefix,
        move |change| {
            let told = match change {
                NamespaceChange::Appeared { name, namespace } => {
                    let cookie = netns::within(home.as_fd(), namespace.as_fd(), netns::cookie_here);
                    let Ok(Ok(cookie)) = cookie else { return false };
                    format!("+{name} {cookie}")
                }
                NamespaceChange::Gone { name } => format!("-{name}"),
            };
            sender.send(told).is_ok()
        },
    )?;
    Ok((watcher, changes))
}

fn watcher_notices_namespaces_come_and_go(_: &str) -> Outcome {
    let patience = Duration::from_secs(5);
    let there = Netns::new();
    let expected = format!("+{} {}", there.name, there.cookie());
    let (_watcher, changes) = watch(there.name.clone())?;
    equal("there before", &changes.try_recv()?, &expected)?;
    let name = there.name.clone();
    drop(there);
    equal("gone", &changes.recv_timeout(patience)?, &format!("-{name}"))?;
    crate::lab::ip(&["netns", "add", &name]);
    let again = Netns { name };
    let expected = format!("+{} {}", again.name, again.cookie());
    equal("back as another", &changes.recv_timeout(patience)?, &expected)
}

fn a_namespace_that_cannot_be_used_is_a_trouble_until_it_can_be(_: &str) -> Outcome {
    let there = Netns::new();
    let (name, usable) = (there.name.clone(), Arc::new(AtomicBool::new(false)));
    let (wanted, answer) = (name.clone(), Arc::clone(&usable));
    let watcher = NamespaceWatcher::start(
        Path::new("/run/netns"),
        move |name| name == wanted,
        move |change| match change {
            NamespaceChange::Appeared { .. } => answer.load(Ordering::Relaxed),
            NamespaceChange::Gone { .. } => true,
        },
    )?;
    let troubles = watcher.troubles();
    equal("in the making", &troubles.now(), &Vec::new())?;
    let patience = Instant::now() + Duration::from_secs(30);
    let until = |expected: &[String]| {
        while troubles.now() != expected && Instant::now() < patience {
            thread::sleep(Duration::from_millis(20));
        }
        equal("troubles", &troubles.now(), &expected.to_vec())
    };
    until(&[format!("{name}: no listener")])?;
    usable.store(true, Ordering::Relaxed);
    until(&[])
}
