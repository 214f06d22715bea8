//! Corner cases of listeners in the workloads' own namespaces.

use std::{
    collections::BTreeSet,
    io::Write,
    net::SocketAddr,
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbatim_steer::{FlowReader, NamespaceChange, NamespaceListeners, NamespaceWatcher};

use crate::{
    Outcome,
    cases::{Case, hand_off::hand_offs},
    lab::{Lab, Netns, Pair, Server, equal, ip},
    workload::Workload,
};

/// Cases; those that are about a firewall need `nft`.
pub(crate) fn cases() -> Vec<Case> {
    let without_nft =
        !Command::new("nft").arg("--version").output().is_ok_and(|output| output.status.success());
    vec![
        ("a_socket_for_ipv6_only_is_steered", a_socket_for_ipv6_only_is_steered, false),
        (
            "default_deny_on_output_and_at_the_veth_stops_the_dial_and_not_the_listener",
            default_deny_on_output_and_at_the_veth_stops_the_dial_and_not_the_listener,
            without_nft,
        ),
        (
            "a_namespace_that_denies_itself_loopback_is_refused_and_passes_nothing_by",
            a_namespace_that_denies_itself_loopback_is_refused_and_passes_nothing_by,
            without_nft,
        ),
        (
            "namespaces_are_noticed_before_their_first_command",
            namespaces_are_noticed_before_their_first_command,
            false,
        ),
        (
            "namespaces_used_the_moment_they_are_made_are_captured_or_refused",
            namespaces_used_the_moment_they_are_made_are_captured_or_refused,
            false,
        ),
        (
            "two_hundred_and_fifty_namespaces_cost_less_than_ten_mebibytes",
            two_hundred_and_fifty_namespaces_cost_less_than_ten_mebibytes,
            false,
        ),
    ]
}

fn a_socket_for_ipv6_only_is_steered(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let (mut workload, mut unsteered) = (lab.workload(&pair.client), lab.unsteered(&pair.client));
    for order in [
        "connect destination=[fd77::2]:5432 v6only=1",
        "connect destination=[fd77::2]:5432 v6only=1 bind=[fd77::1]:0",
        "connect destination=[fd77::2]:5432 v6only=1 nonblocking=1",
    ] {
        let answer = workload.ask(order);
        equal(&format!("{order}: {answer}"), &answer.contains(" flow destination=[fd77::2]:5432 "), &true)?;
    }
    // It takes no v4-mapped destination, with us as without us.
    let mapped = "connect destination=10.77.0.2:5432 mapped=1 v6only=1";
    equal(mapped, &workload.ask(mapped), &unsteered.ask(mapped))?;
    equal("hand-offs", &lab.count("handed_off"), &3)
}

/// Rules for packets in a namespace; whoever is refused hears of it at once.
fn firewall(netns: &Netns, hook: &str, accepted: &[&str]) -> Outcome {
    let mut rules = format!("table inet deny {{ chain {hook} {{ type filter hook {hook} priority 0;\n");
    for rule in accepted {
        rules.push_str(&format!("{rule} accept\n"));
    }
    rules.push_str(
        "meta l4proto ipv6-icmp accept\nmeta l4proto tcp reject with icmpx admin-prohibited\n}\n}\n",
    );
    let mut nft = Command::new("ip")
        .args(["netns", "exec", &netns.name, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    nft.stdin.take().ok_or("piped")?.write_all(rules.as_bytes())?;
    equal("nft", &nft.wait()?.success(), &true)
}

/// Whether what the proxy dials for this namespace gets through.
fn dialled(lab: &Lab, cookie: u64, to: SocketAddr) -> Result<bool, Box<dyn std::error::Error>> {
    let socket = lab.namespaces().dial_socket(cookie, to)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) => return Ok(true),
        Err(rustix::io::Errno::INPROGRESS) => {}
        Err(_) => return Ok(false),
    }
    poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&Timespec { tv_sec: 5, tv_nsec: 0 }))?;
    Ok(rustix::net::sockopt::socket_error(&socket)?.is_ok())
}

fn default_deny_on_output_and_at_the_veth_stops_the_dial_and_not_the_listener(name: &str) -> Outcome {
    let lab = Lab::new(name);
    // On the way out of the pod itself, then on the other end of its cable.
    for on_output in [true, false] {
        let pair = Pair::new();
        let (_proxy, cookie, _) = lab.proxy(&pair.client);
        let (mut workload, mut unsteered) = (lab.workload(&pair.client), lab.unsteered(&pair.client));
        for address in [Pair::SERVER_V4, Pair::SERVER_V6] {
            let server = Server::on(&pair.server, address);
            let to = SocketAddr::new(address.parse()?, server.port);
            let order = format!("connect destination={to}");
            equal("reached before", &dialled(&lab, cookie, to)?, &true)?;
            if on_output {
                firewall(&pair.client, "output", &["oif lo"])?;
            } else {
                firewall(&pair.server, "input", &[])?;
            }
            let answer = unsteered.ask(&order);
            equal(&format!("denied without us: {answer}"), &answer.starts_with("err="), &true)?;
            let answer = workload.ask(&order);
            equal(&format!("the listener: {answer}"), &answer.contains(" flow "), &true)?;
            // The rules hold for the dial as they would have held for the workload.
            equal("dialled", &dialled(&lab, cookie, to)?, &false)?;
            let netns = if on_output { &pair.client } else { &pair.server };
            ip(&["netns", "exec", &netns.name, "nft", "flush", "ruleset"]);
            equal("dialled afterwards", &dialled(&lab, cookie, to)?, &true)?;
        }
    }
    Ok(())
}

fn a_namespace_that_denies_itself_loopback_is_refused_and_passes_nothing_by(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    firewall(&pair.client, "output", &["ip daddr 10.77.0.2"])?;
    let order = format!("connect destination={}:{}", Pair::SERVER_V4, server.port);
    let answer = lab.unsteered(&pair.client).ask(&order);
    equal(&format!("without us: {answer}"), &answer.contains(" server "), &true)?;
    let answer = lab.workload(&pair.client).ask(&order);
    equal(&format!("steered: {answer}"), &answer.starts_with("err="), &true)?;
    equal("handed off", &lab.count("handed_off"), &0)
}

/// Answers on every listener that it is given, with one thread for all.
struct Answering {
    listeners: Arc<Mutex<Vec<Arc<NamespaceListeners>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Answering {
    fn start(flows: FlowReader) -> Self {
        let (listeners, stop) =
            (Arc::<Mutex<Vec<Arc<NamespaceListeners>>>>::default(), Arc::new(AtomicBool::new(false)));
        let (all, stopped) = (Arc::clone(&listeners), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let now = locked(&all).clone();
                answer(&now, &flows);
            }
        });
        Self { listeners, stop, thread: Some(thread) }
    }
}

fn answer(all: &[Arc<NamespaceListeners>], flows: &FlowReader) {
    let sockets: Vec<_> = all.iter().flat_map(|one| &one.shards).map(|shard| &shard.v4).collect();
    let mut fds: Vec<_> = sockets.iter().map(|socket| PollFd::new(*socket, PollFlags::IN)).collect();
    let patience = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    if poll(&mut fds, Some(&patience)).is_err() {
        return;
    }
    for socket in sockets {
        while let Ok((mut stream, _)) = socket.accept() {
            let flow = flows.flow(stream.as_fd());
            let netns = flow.map_or(0, |flow| flow.0.client_netns);
            drop(writeln!(stream, "flow client_netns={netns}"));
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

/// The runtime does its own work before the first command; a loaded machine does that later, too.
const BEFORE_THE_FIRST_COMMAND: Duration = Duration::from_secs(5);

fn namespaces_are_noticed_before_their_first_command(name: &str) -> Outcome {
    let lab = Lab::new(name);
    let answers = many_namespaces(&lab, BEFORE_THE_FIRST_COMMAND)?;
    let not_captured: Vec<_> = answers.iter().filter(|(_, answer)| !answer.contains(" flow ")).collect();
    equal("not captured", &not_captured, &Vec::new())?;
    equal("missed", &lab.count("missed"), &0)?;
    equal("handed off", &lab.count("handed_off"), &(answers.len() as u64))
}

/// Whoever is quicker than a listener can be is refused, which is no way around.
fn namespaces_used_the_moment_they_are_made_are_captured_or_refused(name: &str) -> Outcome {
    let lab = Lab::new(name);
    let answers = many_namespaces(&lab, Duration::ZERO)?;
    let captured = answers.iter().filter(|(_, answer)| answer.contains(" flow ")).count() as u64;
    let refused = answers.iter().filter(|(_, answer)| answer == "err=111").count() as u64;
    equal(&format!("{answers:?}"), &(captured + refused), &(answers.len() as u64))?;
    equal("missed", &lab.count("missed"), &refused)?;
    equal("handed off", &lab.count("handed_off"), &captured)?;
    equal("by any other way", &lab.count("unmatched_destination"), &0)
}

/// Makes namespaces, some at a time, with a watcher that gives each its listener, and a workload in each that
/// connects once, when it has its listener or so long after it was made. Says what came of each; all stay until the
/// last was used.
fn many_namespaces(lab: &Lab, patience: Duration) -> Result<Vec<(String, String)>, Failed> {
    const MAKERS: u64 = 8;
    let each = (hand_offs() / 100).div_ceil(MAKERS);
    let answering = Answering::start(lab.steering.flows());
    let prefix = format!("vst{}-{}-", std::process::id(), patience.as_millis());
    let (namespaces, listeners, wanted) =
        (lab.namespaces(), Arc::clone(&answering.listeners), prefix.clone());
    let noticed = Arc::new(Mutex::new(BTreeSet::new()));
    let notice = Arc::clone(&noticed);
    let _watcher = NamespaceWatcher::start(
        Path::new("/run/netns"),
        move |name| name.starts_with(&wanted),
        move |change| match change {
            NamespaceChange::Appeared { name, namespace } => match namespaces.add(&name, namespace) {
                Ok(made) => {
                    locked(&listeners).push(Arc::new(made));
                    locked(&notice).insert(name);
                    true
                }
                Err(_) => false,
            },
            NamespaceChange::Gone { .. } => true,
        },
    )?;
    let answers: Mutex<Vec<(String, String)>> = Mutex::default();
    thread::scope(|scope| {
        for maker in 0..MAKERS {
            let (prefix, answers, noticed) = (&prefix, &answers, &noticed);
            scope.spawn(move || {
                let mut kept = Vec::new();
                for index in 0..each {
                    let name = format!("{prefix}{maker}-{index}");
                    ip(&["netns", "add", &name]);
                    let netns = Netns { name };
                    netns.ip(&["link", "set", "lo", "up"]);
                    let made = Instant::now();
                    while made.elapsed() < patience && !locked(noticed).contains(&netns.name) {
                        thread::sleep(Duration::from_millis(5));
                    }
                    let mut workload = Workload::start(&lab.steered.path, Some(&netns.path()));
                    let answer = workload.ask("connect destination=10.1.2.3:5432");
                    locked(answers).push((netns.name.clone(), answer));
                    kept.push(netns);
                }
            });
        }
    });
    Ok(answers.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn two_hundred_and_fifty_namespaces_cost_less_than_ten_mebibytes(name: &str) -> Outcome {
    const SHARDS: u64 = 4;
    let lab = Lab::configured(name, |_| {});
    let netns: Vec<Netns> = (0..250).map(|_| Netns::bare()).collect();
    let names: Vec<&str> = netns.iter().map(|netns| netns.name.as_str()).collect();
    // A process of its own: what other tests do at the same time is not counted.
    let order =
        format!("listeners shards={SHARDS} root={} names={}", lab.other.path.display(), names.join(","));
    let answer = Workload::start(&lab.other.path, None).ask(&order);
    let found = crate::proxy::fields(&answer);
    let number = |key: &str| found.get(key).and_then(|value| value.parse::<u64>().ok()).ok_or(answer.clone());
    equal("sockets", &number("sockets")?, &(250 * SHARDS * 2))?;
    let (process, kernel) = (number("process_bytes")?, number("kernel_bytes")?);
    println!("250 namespaces with {SHARDS} shards: {process} bytes of the process, {kernel} of the kernel's");
    equal(&answer, &(process + kernel < 10 << 20), &true)
}
