//! What is counted by cgroup, destination and outcome, and the numbers that accepted sockets carry.

use std::{thread, time::Duration};

use verbatim_steer::{Action, Connects, DestinationRule, Outcome as Count, Prefix, Protocol};

use crate::{
    Outcome,
    cases::cases,
    echo::Echo,
    lab::{Lab, Netns, Pair, STEER_CLOSED, STEER_OPEN, equal},
    proxy::fields,
    workload::Workload,
};

cases![
    every_outcome_is_counted_by_cgroup_and_destination,
    what_no_rule_names_is_not_counted_by_destination,
    quic_and_strays_are_counted_by_destination,
    many_connects_at_once_are_numbered_without_a_hole,
    what_has_no_room_is_counted_all_the_same,
    an_element_is_forgotten_only_while_it_stands_still,
];

/// Destination, outcome, connects, connections.
type Counted = (String, Count, u64, u64);

/// What is counted of one cgroup.
fn counted(lab: &Lab, cgroup_id: u64) -> Result<Vec<Counted>, Box<dyn std::error::Error>> {
    let counts = lab.steering.connects().read()?;
    let mut found: Vec<_> = counts
        .iter()
        .filter(|one| one.cgroup_id == cgroup_id)
        .map(|one| (one.destination.to_string(), one.outcome, one.connects, one.connected))
        .collect();
    found.sort_by_key(|(destination, outcome, ..)| (destination.clone(), *outcome as u8));
    Ok(found)
}

fn connect(workload: &mut Workload, destination: &str, times: usize) -> Vec<String> {
    (0..times).map(|_| workload.ask(&format!("connect destination={destination}"))).collect()
}

fn every_outcome_is_counted_by_cgroup_and_destination(name: &str) -> Outcome {
    let netns = Netns::new();
    let lab = Lab::configured(name, |config| config.heartbeat_timeout = Duration::from_secs(30));
    lab.steering.attach()?;
    let beating = lab.steering.heartbeat().keep(|| true)?;
    let mut rules = DestinationRule::steer_everything().to_vec();
    let prefix = Prefix::new("10.9.0.0".parse()?, 16)?;
    rules.push(DestinationRule { prefix, port: None, protocol: Protocol::Tcp, action: Action::Deny });
    lab.steering.set_destinations(&rules)?;

    let mut workload = lab.workload(&netns);
    connect(&mut workload, "10.1.0.1:5432", 2);
    connect(&mut workload, "10.9.0.1:443", 3);
    let (proxy, ..) = lab.proxy(&netns);
    connect(&mut workload, "10.1.0.1:5432", 4);
    connect(&mut workload, "[2001:db8::1]:443", 1);
    drop(beating);
    lab.steering.heartbeat().cease()?;
    lab.steering.set_cgroup(lab.steered.id(), STEER_CLOSED)?;
    connect(&mut workload, "10.1.0.1:5432", 5);
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    connect(&mut workload, "10.1.0.1:5432", 6);
    drop(proxy);

    let expected = vec![
        ("10.1.0.1:5432".to_owned(), Count::Steered, 4, 4),
        ("10.1.0.1:5432".to_owned(), Count::StaleDenied, 5, 0),
        ("10.1.0.1:5432".to_owned(), Count::StalePassed, 6, 0),
        ("10.1.0.1:5432".to_owned(), Count::Missed, 2, 0),
        ("10.9.0.1:443".to_owned(), Count::Denied, 3, 0),
        ("[2001:db8::1]:443".to_owned(), Count::Unrouted, 1, 0),
    ];
    equal("counted", &counted(&lab, lab.steered.id())?, &expected)
}

fn what_no_rule_names_is_not_counted_by_destination(name: &str) -> Outcome {
    let (lab, netns) = (Lab::new(name), Netns::new());
    let (_proxy, ..) = lab.proxy(&netns);
    let prefix = Prefix::new("10.1.0.0".parse()?, 16)?;
    let rule = DestinationRule { prefix, port: None, protocol: Protocol::Tcp, action: Action::Steer };
    lab.steering.set_destinations(&[rule])?;
    let mut steered = lab.workload(&netns);
    connect(&mut steered, "127.0.0.1:9", 3);
    let mut other = lab.unsteered(&netns);
    connect(&mut other, "10.1.0.1:5432", 3);
    equal("steered", &counted(&lab, lab.steered.id())?, &Vec::new())?;
    equal("other", &counted(&lab, lab.other.id())?, &Vec::new())
}

fn quic_and_strays_are_counted_by_destination(name: &str) -> Outcome {
    let (lab, pair) = (Lab::configured(name, |_| {}), Pair::new());
    let server = Echo::on(&pair.server, Pair::SERVER_V4);
    let there = format!("{}:{}", Pair::SERVER_V4, server.port);
    let mut workload = lab.workload(&pair.client);
    equal("before", &workload.ask(&format!("open destination={there}")).as_str(), &"open")?;
    lab.steering.attach()?;
    for _ in 0..2 {
        equal("after", &workload.ask("say word=hello unheard=1").as_str(), &"silence")?;
        let order = format!("datagram destination={}:443", Pair::SERVER_V4);
        equal(&order, &workload.ask(&order).as_str(), &"err=1")?;
    }
    let mut expected = vec![
        (format!("{}:443", Pair::SERVER_V4), Count::QuicDenied, 2, 0),
        (there, Count::StrayDropped, 1, 0),
    ];
    expected.sort_by_key(|(destination, ..)| destination.clone());
    equal("counted", &counted(&lab, lab.steered.id())?, &expected)
}

fn many_connects_at_once_are_numbered_without_a_hole(name: &str) -> Outcome {
    const EACH: usize = 300;
    let (lab, netns) = (Lab::new(name), Netns::new());
    let (_proxy, ..) = lab.proxy(&netns);
    let mut workloads = [lab.workload(&netns), lab.workload(&netns), lab.workload(&netns)];
    let answers: Vec<String> = thread::scope(|scope| {
        let running: Vec<_> = workloads
            .iter_mut()
            .map(|workload| scope.spawn(|| connect(workload, "10.1.0.1:5432", EACH)))
            .collect();
        running.into_iter().flat_map(|one| one.join().unwrap_or_default()).collect()
    });
    let all = 3 * EACH as u64;
    let expected = vec![("10.1.0.1:5432".to_owned(), Count::Steered, all, all)];
    equal("counted", &counted(&lab, lab.steered.id())?, &expected)?;
    let number =
        |line: &str, name| fields(line).get(name).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
    let mut numbers: Vec<_> =
        answers.iter().map(|line| (number(line, "series"), number(line, "number"))).collect();
    numbers.sort_unstable();
    let series = numbers.first().map_or(0, |(series, _)| *series);
    let expected: Vec<_> = (1..=all).map(|number| (series, number)).collect();
    equal("numbers", &(series != 0, numbers), &(true, expected))
}

fn what_has_no_room_is_counted_all_the_same(name: &str) -> Outcome {
    /// More destinations than there are elements.
    const MANY: u64 = 66_000;
    let (lab, netns) = (Lab::new(name), Netns::new());
    let mut workload = lab.workload(&netns);
    let answer = workload.ask(&format!("many count={MANY} network=1"));
    equal(&answer, &answer.starts_with(&format!("right=0 wrong=0 failed={MANY} ")), &true)?;
    let counts = lab.steering.connects().read()?;
    let own: Vec<_> = counts.iter().filter(|one| one.cgroup_id == lab.steered.id()).collect();
    let told_apart = own.iter().map(|one| one.connects).sum::<u64>();
    let without_room: Vec<_> = counts.iter().filter(|one| one.outcome == Count::Uncounted).collect();
    equal("one element for all of them", &without_room.len(), &1)?;
    equal("there was no room", &(without_room[0].connects > 0, own.len() < 65_536), &(true, true))?;
    equal("all", &(told_apart + without_room[0].connects), &MANY)?;
    // Room that is made is used.
    equal("forgotten", &lab.steering.connects().forget(own[0])?, &true)?;
    equal("never forgotten", &lab.steering.connects().forget(without_room[0])?, &false)?;
    connect(&mut workload, "10.200.0.1:5432", 1);
    let counts = lab.steering.connects().read()?;
    equal("has room", &counts.iter().any(|one| one.destination.ip().to_string() == "10.200.0.1"), &true)
}

fn an_element_is_forgotten_only_while_it_stands_still(name: &str) -> Outcome {
    let (lab, netns) = (Lab::new(name), Netns::new());
    let (_proxy, ..) = lab.proxy(&netns);
    let mut workload = lab.workload(&netns);
    connect(&mut workload, "10.1.0.1:5432", 1);
    let reader = lab.steering.connects();
    let first = the_one(&lab)?;
    connect(&mut workload, "10.1.0.1:5432", 1);
    equal("changed", &reader.forget(&first)?, &false)?;
    let second = the_one(&lab)?;
    equal("still", &(second.connects, reader.forget(&second)?), &(2, true))?;
    connect(&mut workload, "10.1.0.1:5432", 1);
    let third = the_one(&lab)?;
    equal("begun anew", &(third.connects, third.series != second.series), &(1, true))
}

/// The one element of the steered cgroup.
fn the_one(lab: &Lab) -> Result<Connects, Box<dyn std::error::Error>> {
    let counts = lab.steering.connects().read()?;
    let id = lab.steered.id();
    counts.into_iter().find(|one| one.cgroup_id == id).ok_or_else(|| "nothing is counted".into())
}
