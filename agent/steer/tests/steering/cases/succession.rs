//! One agent after the other on the same pins: links, listeners, verdicts, events; and what is left by the last.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use verbatim_steer::{
    DestinationRule, EventKind, Handed, NamespaceListeners, ShardListeners, SteerConfig, SteerError,
    Steering, Vault, unpin,
};

use crate::{
    Outcome,
    cases::cases,
    lab::{Bpffs, Lab, Netns, Pair, STEER_CLOSED, STEER_OPEN, Server, base, equal, id, soon},
    proxy::Proxy,
};

cases![
    five_hundred_link_updates_under_load_fail_no_connect,
    listeners_that_were_handed_over_keep_who_waits_and_their_port,
    more_shards_than_the_predecessor_had_share_its_port,
    who_is_frozen_decides_nothing_until_its_successor_is_gone,
    a_successor_with_another_layout_attaches_its_own_and_the_old_one_lets_go,
    links_to_a_cgroup_that_is_gone_are_replaced,
    an_agent_that_is_gone_leaves_each_fail_mode_and_uninstalling_ends_it,
];

fn on(pins: &Path) -> SteerConfig {
    let mut config = SteerConfig::new(base());
    config.own_cgroups = vec![id(&base().join("agent"))];
    config.heartbeat_timeout = Duration::from_secs(3600);
    config.pin_directory = Some(pins.to_owned());
    config
}

fn pinned(name: &str, pins: PathBuf) -> Lab {
    let lab = Lab::configured(name, |config| config.pin_directory = Some(pins));
    lab.steering.attach().expect("attach");
    lab
}

fn five_hundred_link_updates_under_load_fail_no_connect(name: &str) -> Outcome {
    const UPDATES: usize = 500;
    let (bpffs, pair) = (Bpffs::mount()?, Pair::new());
    let netns = &pair.client;
    let pins = bpffs.path().join("verbatim");
    let lab = pinned(name, pins.clone());
    let (_proxy, ..) = lab.proxy(netns);
    // Other programs than those that are attached, as a successor's are.
    let config = on(&pins);
    let other = Steering::load(&config)?;
    let mut workloads = [lab.workload(netns), lab.workload(netns)];
    let ended = AtomicBool::new(false);
    let (answers, updated) = thread::scope(|scope| {
        let load = workloads.each_mut().map(|workload| {
            scope.spawn(|| {
                let mut answers = Vec::new();
                while !ended.load(Ordering::Relaxed) {
                    answers.push(workload.ask("many count=200 network=1"));
                }
                answers
            })
        });
        let updated = (0..UPDATES).try_for_each(|update| {
            let steering = if update % 2 == 0 { &other } else { &lab.steering };
            thread::sleep(Duration::from_millis(2));
            // All nine links, and what else there is to say.
            steering.thaw(&config)
        });
        ended.store(true, Ordering::Relaxed);
        (load.map(|load| load.join().unwrap_or_default()), updated)
    });
    updated?;
    let answers: Vec<String> = answers.into_iter().flatten().collect();
    for answer in &answers {
        equal("hand-offs", &answer.as_str(), &"right=200 wrong=0 failed=0 first:")?;
    }
    println!("{} connects beside {UPDATES} updates of nine links", answers.len() * 200);
    equal("none was lost", &(lab.count("handshakes_lost") + lab.count("without_flow")), &0)?;
    lab.steering.detach().map_err(Into::into)
}

/// Duplicates, as a supervisor has them.
#[derive(Default)]
struct Kept(Mutex<Vec<(u64, u16, usize, OwnedFd)>>);

impl Vault for Kept {
    fn keep(&self, made: &NamespaceListeners) -> io::Result<()> {
        let mut kept = self.0.lock().expect("no panic");
        for (index, shard) in made.shards.iter().enumerate() {
            kept.push((made.cookie, made.port, index, shard.v4.try_clone()?.into()));
        }
        Ok(())
    }

    fn forget(&self, cookie: u64) {
        self.0.lock().expect("no panic").retain(|(kept, ..)| *kept != cookie);
    }
}

impl Kept {
    fn handed(&self) -> Vec<Handed> {
        let kept = self.0.lock().expect("no panic");
        let one = |(cookie, port, shard, fd): &(u64, u16, usize, OwnedFd)| Handed {
            cookie: *cookie,
            port: *port,
            shard: *shard,
            listeners: ShardListeners { v4: fd.try_clone().expect("duplicate").into(), v6: None },
        };
        kept.iter().map(one).collect()
    }
}

fn listeners_that_were_handed_over_keep_who_waits_and_their_port(name: &str) -> Outcome {
    let (bpffs, netns) = (Bpffs::mount()?, Netns::new());
    let pins = bpffs.path().join("verbatim");
    let kept = Arc::new(Kept::default());
    let lab = pinned(name, pins.clone());
    lab.namespaces().keep_in(kept.clone(), Vec::new());
    let made = lab.namespaces().add(&netns.name, netns.open())?;
    let (cookie, port) = (made.cookie, made.port);
    // The first agent dies before it accepts: the kernel completes the handshake all the same.
    drop(made);
    let mut workload = lab.workload(&netns);
    let waiting = thread::spawn(move || workload.ask("connect destination=10.1.2.3:5432"));
    while lab.count("handed_off") == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let cgroups = lab.into_cgroups();

    let second = Steering::load(&on(&pins))?;
    second.namespaces().keep_in(kept.clone(), kept.handed());
    let made = second.namespaces().add(&netns.name, netns.open())?;
    equal("the same place", &(made.cookie, made.port), &(cookie, port))?;
    let proxy = Proxy::start(second.flows(), made.shards);
    second.attach()?;
    let answer = waiting.join().map_err(|_panic| "the workload's thread panicked")?;
    equal(&answer, &answer.contains("flow destination=10.1.2.3:5432 "), &true)?;
    // What nobody has claimed when the namespaces are known is let go of.
    second.namespaces().remove(cookie)?;
    equal("forgotten", &kept.handed().len(), &0)?;
    drop((proxy, cgroups));
    second.detach().map_err(Into::into)
}

fn more_shards_than_the_predecessor_had_share_its_port(name: &str) -> Outcome {
    let netns = Netns::new();
    let kept = Arc::new(Kept::default());
    let first = Lab::new(name);
    first.namespaces().keep_in(kept.clone(), Vec::new());
    let made = first.namespaces().add(&netns.name, netns.open())?;
    let mut config = SteerConfig::new(base());
    config.shards = 3;
    let second = Steering::load(&config)?;
    second.namespaces().keep_in(Arc::new(Kept::default()), kept.handed());
    let more = second.namespaces().add(&netns.name, netns.open())?;
    equal("shards", &(made.shards.len(), more.shards.len()), &(1, 3))?;
    for shard in more.shards {
        equal("port", &shard.v4.local_addr()?.port(), &made.port)?;
    }
    Ok(())
}

fn who_is_frozen_decides_nothing_until_its_successor_is_gone(name: &str) -> Outcome {
    let (bpffs, netns) = (Bpffs::mount()?, Netns::new());
    let pins = bpffs.path().join("verbatim");
    let lab = pinned(name, pins.clone());
    let events = lab.steering.events().ok_or("events were taken before")?;
    lab.steering.freeze();
    for refused in [
        lab.steering.set_cgroup(lab.other.id(), STEER_OPEN),
        lab.steering.remove_cgroup(lab.steered.id()).map(drop),
        lab.steering.set_destinations(&[]),
        lab.namespaces().add(&netns.name, netns.open()).map(drop),
    ] {
        let said = refused.as_ref().err().map(ToString::to_string).unwrap_or_default();
        equal(&said, &matches!(refused, Err(SteerError::HandedOver { .. })), &true)?;
    }
    // It alone reads the events: a successor that begins gets this one.
    let mut workload = lab.workload(&netns);
    equal("refused", &workload.ask("connect destination=10.1.2.3:5432").as_str(), &"err=111")?;
    let successor = Steering::load(&on(&pins))?;
    let theirs = successor.events().ok_or("events were taken before")?;
    equal("its", &theirs.recv_timeout(Duration::from_secs(30))?.kind, &EventKind::Miss)?;
    equal("what holds is known to it", &successor.cgroups()?.get(&lab.steered.id()), &Some(&STEER_CLOSED))?;
    successor.set_destinations(&[])?;
    successor.set_own(&[])?;
    drop((theirs, successor));

    lab.steering.thaw(&on(&pins))?;
    lab.steering.set_destinations(&DestinationRule::steer_everything())?;
    let (_proxy, ..) = lab.proxy(&netns);
    let answer = workload.ask("connect destination=10.1.2.3:5432");
    equal(&answer, &answer.contains(" flow "), &true)?;
    let elsewhere = Netns::new();
    let mut workload = lab.workload(&elsewhere);
    equal("refused", &workload.ask("connect destination=10.1.2.3:5432").as_str(), &"err=111")?;
    equal("reported again", &events.recv_timeout(Duration::from_secs(30))?.kind, &EventKind::Miss)?;
    lab.steering.detach().map_err(Into::into)
}

fn a_successor_with_another_layout_attaches_its_own_and_the_old_one_lets_go(name: &str) -> Outcome {
    let (bpffs, netns) = (Bpffs::mount()?, Netns::new());
    let pins = bpffs.path().join("verbatim");
    let lab = pinned(name, pins.clone());
    let (old, _, port) = lab.proxy(&netns);
    let mut workload = lab.workload(&netns);
    let mut config = on(&pins);
    config.schema += 1;
    let successor = Steering::load(&config)?;
    successor.set_cgroup(lab.steered.id(), STEER_CLOSED)?;
    successor.set_destinations(&DestinationRule::steer_everything())?;
    lab.steering.freeze();
    let made = successor.namespaces().add(&netns.name, netns.open())?;
    equal("a port of its own", &(made.port == port), &false)?;
    let new = Proxy::start(successor.flows(), made.shards);
    let handed_off = || -> Result<u64, SteerError> {
        Ok(successor
            .counters()?
            .iter()
            .find(|(name, _)| *name == "handed_off")
            .map_or(0, |(_, count)| *count))
    };
    let mut through = |by: &str| {
        let answer = workload.ask("connect destination=10.1.2.3:5432");
        equal(
            &format!("through the {by} one: {answer}"),
            &answer.contains(" flow destination=10.1.2.3:5432 "),
            &true,
        )
    };
    through("old")?;
    lab.steering.release_connects()?;
    successor.attach()?;
    through("new")?;
    equal("whose it was", &(lab.count("handed_off"), handed_off()?), &(1, 1))?;
    drop(old);
    let cgroups = lab.detach()?;
    through("new")?;
    equal("only its pins are left", &fs::read_dir(&pins)?.count(), &1)?;
    drop((new, workload, cgroups));
    successor.detach().map_err(Into::into)
}

fn links_to_a_cgroup_that_is_gone_are_replaced(name: &str) -> Outcome {
    let (bpffs, netns) = (Bpffs::mount()?, Netns::new());
    let pins = bpffs.path().join("verbatim");
    let lab = Lab::configured(name, |_| {});
    let gone = lab.steered.path.join("gone");
    fs::create_dir(&gone)?;
    let mut elsewhere = on(&pins);
    elsewhere.attach_root = gone.clone();
    let first = Steering::load(&elsewhere)?;
    first.attach()?;
    drop(first);
    fs::remove_dir(&gone)?;
    let mut config = on(&pins);
    config.attach_root = lab.steered.path.clone();
    let second = Steering::load(&config)?;
    second.set_cgroup(lab.steered.id(), STEER_CLOSED)?;
    second.set_destinations(&DestinationRule::steer_everything())?;
    second.attach()?;
    let mut workload = lab.workload(&netns);
    equal("steered", &workload.ask("connect destination=10.1.2.3:5432").as_str(), &"err=111")?;
    second.detach().map_err(Into::into)
}

fn an_agent_that_is_gone_leaves_each_fail_mode_and_uninstalling_ends_it(name: &str) -> Outcome {
    let (bpffs, pair) = (Bpffs::mount()?, Pair::new());
    let pins = bpffs.path().join("verbatim");
    let lab = Lab::configured(name, |config| {
        (config.pin_directory, config.heartbeat_timeout) = (Some(pins.clone()), Duration::from_millis(300));
    });
    lab.steering.attach()?;
    let (proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let order = format!("connect destination={}:{}", Pair::SERVER_V4, server.port);
    let mut closed = lab.workload(&pair.client);
    let open = crate::lab::Cgroup::below(&lab.steered.path, "open");
    lab.steering.set_cgroup(open.id(), STEER_OPEN)?;
    let mut opened = crate::workload::Workload::start(&open.path, Some(&pair.client.path()));
    lab.steering.heartbeat().cease()?;
    let cgroups = lab.into_cgroups();
    drop(proxy);
    equal("closed", &closed.ask(&order).as_str(), &"err=1")?;
    let answer = opened.ask(&order);
    equal(&format!("open: {answer}"), &answer.contains(" server "), &true)?;
    // Another version may have left its own.
    fs::create_dir(pins.join("v999"))?;
    equal("unpinned", &(unpin(&pins)? >= 20), &true)?;
    equal("nothing is left", &pins.exists(), &false)?;
    soon("uninstalled", &mut closed, &order, |answer| answer.contains(" server "))?;
    equal("once more", &unpin(&pins)?, &0)?;
    drop((opened, open, closed, cgroups));
    Ok(())
}
