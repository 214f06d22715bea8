//! Which connects are steered, and which are not.

use std::net::IpAddr;

use verbatim_steer::{Action, CgroupVerdict, DestinationRule, FailMode, Prefix};

use crate::{
    Outcome,
    cases::cases,
    lab::{Cgroup, Lab, Pair, STEER_CLOSED, Server, equal},
    workload::Workload,
};

cases![
    a_cgroup_without_a_verdict_is_untouched,
    the_nearest_verdict_holds_for_cgroups_below,
    our_own_cgroup_is_never_steered,
    an_exact_port_beats_any_port_and_a_longer_prefix_a_shorter_one,
    replaced_rules_are_gone,
    contradicting_rules_are_refused,
];

const EPERM: &str = "err=1";

fn a_cgroup_without_a_verdict_is_untouched(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let mut workload = lab.unsteered(&pair.client);
    let to = format!("{}:{}", Pair::SERVER_V4, server.port);
    for order in [format!("connect destination={to}"), format!("connect destination={to} mapped=1")] {
        let answer = workload.ask(&order);
        equal(&answer, &answer.contains(" server 10.77.0.1:"), &true)?;
    }
    equal("steered", &(lab.count("steered_in_pod") + lab.count("handed_off")), &0)?;
    // Other tests run below the same attach root.
    equal("passed", &(lab.count("passed_cgroup") >= 2), &true)
}

fn the_nearest_verdict_holds_for_cgroups_below(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let middle = Cgroup::below(&lab.steered.path, "middle");
    let leaf = Cgroup::below(&middle.path, "leaf");
    let mut workload = Workload::start(&leaf.path, Some(&pair.client.path()));
    let mut answer = || workload.ask("connect destination=10.1.2.3:5432");

    let inherited = answer();
    equal(&inherited, &inherited.contains(" flow destination=10.1.2.3:5432 "), &true)?;
    lab.steering
        .set_cgroup(middle.id(), CgroupVerdict { action: Action::Deny, fail_mode: FailMode::Open })?;
    equal("nearer one", &answer().as_str(), &EPERM)?;
    lab.steering.set_cgroup(leaf.id(), STEER_CLOSED)?;
    let own = answer();
    equal(&own, &own.contains(" flow destination=10.1.2.3:5432 "), &true)?;
    equal("taken back", &lab.steering.remove_cgroup(leaf.id())?, &true)?;
    equal("again", &lab.steering.remove_cgroup(leaf.id())?, &false)?;
    equal("nearer one again", &answer().as_str(), &EPERM)
}

fn our_own_cgroup_is_never_steered(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let order = format!("connect destination={}:{}", Pair::SERVER_V4, server.port);
    let mut workload = lab.workload(&pair.client);
    let agent = crate::lab::id(&crate::lab::base().join("agent"));
    lab.steering.set_own(&[agent, lab.steered.id()])?;
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" server "), &true)?;
    lab.steering.set_own(&[agent])?;
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" flow "), &true)
}

fn an_exact_port_beats_any_port_and_a_longer_prefix_a_shorter_one(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let rule = |prefix: &str,
                length: u8,
                port: Option<u16>,
                action: Action|
     -> Result<_, Box<dyn std::error::Error>> {
        let prefix = Prefix::new(prefix.parse::<IpAddr>()?, length)?;
        Ok(DestinationRule { action, ..DestinationRule::steer(prefix, port) })
    };
    lab.steering.set_destinations(&[
        rule("10.0.0.0", 8, None, Action::Deny)?,
        rule("10.0.0.0", 8, Some(5432), Action::Steer)?,
        rule("10.9.0.0", 16, Some(5432), Action::Deny)?,
        rule("10.9.9.9", 32, Some(5432), Action::Steer)?,
        rule("10.9.9.9", 32, None, Action::Steer)?,
        rule("fd00::", 8, Some(5432), Action::Steer)?,
        rule("fd00:dead::", 32, None, Action::Deny)?,
    ])?;
    let mut workload = lab.workload(&pair.client);
    for (to, steered) in [
        ("10.1.1.1:5432", true),
        ("10.1.1.1:5433", false),
        ("10.9.1.1:5432", false),
        ("10.9.9.9:5432", true),
        ("10.9.9.9:80", true),
        ("[fd00::1]:5432", true),
        ("[fd00:dead::1]:5432", true),
        ("[fd00:dead::1]:80", false),
    ] {
        let answer = workload.ask(&format!("connect destination={to}"));
        equal(&format!("{to}: {answer}"), &answer.contains(" flow "), &steered)?;
        equal(&format!("{to}: {answer}"), &(answer == EPERM), &!steered)?;
        if to.starts_with("10.") {
            let answer = workload.ask(&format!("connect destination={to} mapped=1"));
            equal(&format!("{to} mapped: {answer}"), &answer.contains(" flow "), &steered)?;
        }
    }
    Ok(())
}

fn replaced_rules_are_gone(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let order = format!("connect destination={}:{}", Pair::SERVER_V4, server.port);
    let mut workload = lab.workload(&pair.client);
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" flow "), &true)?;
    lab.steering.set_destinations(&[DestinationRule::steer(IpAddr::from([10, 1, 1, 1]), None)])?;
    let answer = workload.ask(&order);
    equal(&answer, &answer.contains(" server "), &true)?;
    equal("not named by a rule", &(lab.count("unmatched_destination") >= 1), &true)
}

fn contradicting_rules_are_refused(name: &str) -> Outcome {
    let lab = Lab::configured(name, |_| {});
    let steer = DestinationRule::steer(IpAddr::from([10, 1, 1, 1]), Some(5432));
    lab.steering.set_destinations(&[steer, steer])?;
    let error = lab.steering.set_destinations(&[steer, DestinationRule { action: Action::Deny, ..steer }]);
    equal("refused", &error.is_err(), &true)
}
