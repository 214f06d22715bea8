//! Attaching, pinning, detaching, and what is said when that does not work.

use std::{fs, path::Path};

use verbatim_steer::{SteerConfig, SteerError, Steering};

use crate::{
    Outcome,
    cases::cases,
    lab::{Bpffs, Lab, Pair, Server, base, equal, soon},
    workload::Workload,
};

cases![
    nothing_is_steered_before_attaching_and_after_dropping,
    pinned_programs_outlive_their_agent_and_a_successor_takes_over,
    a_wrong_attach_root_or_pin_directory_is_named,
    meaningless_settings_are_refused,
    without_privileges_the_error_says_what_is_needed,
];

fn nothing_is_steered_before_attaching_and_after_dropping(name: &str) -> Outcome {
    let (lab, pair) = (Lab::configured(name, |_| {}), Pair::new());
    let (proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let order = format!("connect destination={}:{}", Pair::SERVER_V4, server.port);
    let mut workload = lab.workload(&pair.client);
    let answer = workload.ask(&order);
    equal(&format!("loaded: {answer}"), &answer.contains(" server "), &true)?;
    lab.steering.attach()?;
    lab.steering.attach()?;
    let answer = workload.ask(&order);
    equal(&format!("attached: {answer}"), &answer.contains(" flow "), &true)?;
    // Readers may live longer; they must not keep the programs attached.
    let (_flows, _namespaces) = (lab.steering.flows(), lab.namespaces());
    equal("handed off", &lab.count("handed_off"), &1)?;
    let cgroups = lab.into_cgroups();
    soon("dropped", &mut workload, &order, |answer| answer.contains(" server "))?;
    drop((proxy, cgroups));
    Ok(())
}

fn pinned_programs_outlive_their_agent_and_a_successor_takes_over(name: &str) -> Outcome {
    let (bpffs, pair) = (Bpffs::mount()?, Pair::new());
    let pins = bpffs.path().join("verbatim");
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let order = format!("connect destination={}:{}", Pair::SERVER_V4, server.port);
    let pinned = |config: &mut SteerConfig| config.pin_directory = Some(pins.clone());

    let first = Lab::configured(name, pinned);
    first.steering.attach()?;
    let (proxy, cookie, _) = first.proxy(&pair.client);
    let mut workload = first.workload(&pair.client);
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" flow "), &true)?;
    drop(proxy);
    let cgroups = first.into_cgroups();
    let refused = |answer: &str| answer == "err=111";
    soon("its listener is gone, its programs are not", &mut workload, &order, refused)?;

    let mut config = SteerConfig::new(base());
    config.own_cgroups = vec![crate::lab::id(&base().join("agent"))];
    pinned(&mut config);
    let second = Steering::load(&config)?;
    equal("stale namespaces", &second.namespaces().sweep()?, &1)?;
    let listeners = second.namespaces().add(&pair.client.name, pair.client.open())?;
    equal("namespace", &listeners.cookie, &cookie)?;
    let _beating = second.heartbeat().keep(|| true)?;
    let _proxy = crate::proxy::Proxy::start(second.flows(), listeners.shards);
    second.attach()?;
    let answer = workload.ask(&order);
    let counted = format!("{answer}, {:?}", second.counters()?);
    equal(&counted, &answer.contains(&format!(" cgroup={} ", cgroups[0].id())), &true)?;
    // What the first has counted goes on: one was answered, one found no listener, one is the second's.
    let counts = second.connects().read()?;
    let counts: Vec<_> = counts
        .iter()
        .filter(|one| one.cgroup_id == cgroups[0].id())
        .map(|one| (one.outcome, one.connects, one.connected))
        .collect();
    equal("counted by both", &counts, &vec![(verbatim_steer::Outcome::Steered, 3, 2)])?;
    second.detach()?;
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" server "), &true)?;
    equal("pins left", &fs::read_dir(&pins)?.count(), &0)
}

fn a_wrong_attach_root_or_pin_directory_is_named(_: &str) -> Outcome {
    let directory = tempfile::tempdir()?;
    for root in [directory.path(), Path::new("/nonexistent")] {
        let error = Steering::load(&SteerConfig::new(root)).err().ok_or("loaded")?;
        equal(&error.to_string(), &matches!(error, SteerError::AttachRoot { .. }), &true)?;
        equal(&error.to_string(), &error.to_string().contains(&root.display().to_string()), &true)?;
    }
    let mut config = SteerConfig::new(base());
    config.pin_directory = Some(directory.path().join("pins"));
    let error = Steering::load(&config).err().ok_or("loaded")?;
    equal(&error.to_string(), &matches!(error, SteerError::PinDirectory { .. }), &true)
}

fn meaningless_settings_are_refused(_: &str) -> Outcome {
    let mut one = SteerConfig::new(base());
    one.shards = 0;
    let mut two = SteerConfig::new(base());
    two.heartbeat_timeout = std::time::Duration::from_millis(10);
    let mut three = SteerConfig::new(base());
    three.ports = vec![0];
    for config in [one, two, three] {
        let error = Steering::load(&config).err().ok_or("loaded")?;
        equal(&error.to_string(), &matches!(error, SteerError::Invalid { .. }), &true)?;
    }
    Ok(())
}

fn without_privileges_the_error_says_what_is_needed(name: &str) -> Outcome {
    let lab = Lab::configured(name, |_| {});
    let answer = Workload::start(&lab.other.path, None).ask("probe");
    equal(&answer, &answer.contains("Operation not permitted"), &true)?;
    equal(&answer, &answer.contains("needs root, or CAP_BPF"), &true)?;
    equal(&answer, &answer.ends_with(" at loading a probe program"), &true)
}
