//! Not steering for a while.

use std::{thread, time::Duration};

use verbatim_steer::{Bypass, SteerConfig, Steering};
use verbatim_sys::clock;

use crate::{
    Outcome,
    cases::cases,
    lab::{Bpffs, Lab, Pair, Server, base, equal, id},
};

cases![
    under_a_bypass_connects_pass_and_are_counted_until_it_ends_by_itself,
    a_bypass_goes_before_a_dead_proxy_and_a_missing_listener,
    a_bypass_outlives_its_agent_and_ends_by_itself,
];

fn order(length: Duration) -> Bypass {
    let now = clock::monotonic_nanos();
    Bypass {
        since_nanos: now,
        until_nanos: now.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)),
        counted_before: 0,
        uid: 0,
        login: None,
        reason: "a test".to_owned(),
        recorded: false,
    }
}

const LONG: Duration = Duration::from_secs(3600);

fn under_a_bypass_connects_pass_and_are_counted_until_it_ends_by_itself(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let order_to = format!("connect destination={}:{}", Pair::SERVER_V4, server.port);
    let mut workload = lab.workload(&pair.client);
    let bypasses = lab.steering.bypasses();
    equal("none", &bypasses.read()?, &None)?;

    let first = order(LONG);
    bypasses.set(&first)?;
    equal("as it was given", &bypasses.read()?, &Some(first))?;
    for _ in 0..3 {
        let answer = workload.ask(&order_to);
        equal(&answer, &answer.contains(" server "), &true)?;
    }
    equal("counted", &lab.count("bypassed"), &3)?;
    bypasses.forget()?;
    let answer = workload.ask(&order_to);
    equal(&answer, &answer.contains(" flow "), &true)?;

    let second = order(Duration::from_millis(300));
    bypasses.set(&second)?;
    while !second.left().is_zero() {
        thread::sleep(Duration::from_millis(10));
    }
    let answer = workload.ask(&order_to);
    equal(&answer, &answer.contains(" flow "), &true)
}

fn a_bypass_goes_before_a_dead_proxy_and_a_missing_listener(name: &str) -> Outcome {
    let lab = Lab::configured(name, |config| config.heartbeat_timeout = Duration::from_millis(200));
    let pair = Pair::new();
    lab.steering.attach()?;
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let order_to = format!("connect destination={}:{}", Pair::SERVER_V4, server.port);
    let mut workload = lab.workload(&pair.client);
    thread::sleep(Duration::from_millis(400));
    equal("dead", &workload.ask(&order_to).as_str(), &"err=1")?;
    lab.steering.bypasses().set(&order(LONG))?;
    let answer = workload.ask(&order_to);
    equal(&answer, &answer.contains(" server "), &true)
}

fn a_bypass_outlives_its_agent_and_ends_by_itself(name: &str) -> Outcome {
    let (bpffs, pair) = (Bpffs::mount()?, Pair::new());
    let pins = bpffs.path().join("verbatim");
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let order_to = format!("connect destination={}:{}", Pair::SERVER_V4, server.port);
    let first = Lab::configured(name, |config| config.pin_directory = Some(pins.clone()));
    first.steering.attach()?;
    let mut workload = first.workload(&pair.client);
    let given = order(Duration::from_secs(2));
    first.steering.bypasses().set(&given)?;
    let cgroups = first.into_cgroups();
    let answer = workload.ask(&order_to);
    equal(&answer, &answer.contains(" server "), &!given.left().is_zero())?;
    while !given.left().is_zero() {
        thread::sleep(Duration::from_millis(10));
    }
    equal("ended, and no listener stands", &workload.ask(&order_to).as_str(), &"err=111")?;
    let mut config = SteerConfig::new(base());
    config.own_cgroups = vec![id(&base().join("agent"))];
    config.pin_directory = Some(pins);
    let second = Steering::load(&config)?;
    equal("what a successor finds", &second.bypasses().read()?, &Some(given))?;
    second.detach()?;
    drop(cgroups);
    Ok(())
}
