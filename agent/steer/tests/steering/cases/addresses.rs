//! What a workload sees of its own sockets.

use std::net::SocketAddr;

use crate::{
    Outcome,
    cases::cases,
    lab::{Lab, Pair, Server, equal},
    proxy::fields,
};

cases![
    workload_sees_the_addresses_that_it_would_see_without_us,
    own_addresses_that_were_chosen_are_shown_as_they_are,
    a_socket_that_is_used_twice_forgets_its_first_connection,
    pod_address_that_comes_later_is_shown_after_a_refresh,
];

/// Address without its port, which is always another.
fn ip(address: &str) -> Result<String, Box<dyn std::error::Error>> {
    Ok(address.parse::<SocketAddr>()?.ip().to_string())
}

fn workload_sees_the_addresses_that_it_would_see_without_us(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let v4 = Server::on(&pair.server, Pair::SERVER_V4);
    let v6 = Server::on(&pair.server, Pair::SERVER_V6);
    let local = Server::on(&pair.client, "127.0.0.1");
    let (mut steered, mut unsteered) = (lab.workload(&pair.client), lab.unsteered(&pair.client));
    for to in [
        format!("destination={}:{}", Pair::SERVER_V4, v4.port),
        format!("destination={}:{} nonblocking=1", Pair::SERVER_V4, v4.port),
        format!("destination={}:{} mapped=1", Pair::SERVER_V4, v4.port),
        format!("destination=[{}]:{}", Pair::SERVER_V6, v6.port),
        format!("destination={}:{} bind=10.77.0.1:0", Pair::SERVER_V4, v4.port),
        format!("destination=127.0.0.1:{}", local.port),
        format!("destination=127.0.0.1:{} mapped=1", local.port),
    ] {
        let (with, without) =
            (steered.ask(&format!("connect {to}")), unsteered.ask(&format!("connect {to}")));
        let (found, expected) = (fields(&with), fields(&without));
        equal(&format!("{to}: not steered: {without}"), &without.contains(" server "), &true)?;
        equal(&format!("{to}: steered: {with}"), &with.contains(" flow "), &true)?;
        equal(&format!("{to}: peer"), &found["peer"], &expected["peer"])?;
        equal(&format!("{to}: local"), &ip(found["local"])?, &ip(expected["local"])?)?;
    }
    Ok(())
}

fn own_addresses_that_were_chosen_are_shown_as_they_are(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let mut workload = lab.workload(&pair.client);
    for (bind, shown) in
        [("127.0.0.1:0", "127.0.0.1"), ("10.77.0.1:0", "10.77.0.1"), ("0.0.0.0:0", "10.77.0.1")]
    {
        let answer = workload.ask(&format!("connect destination=10.1.2.3:5432 bind={bind}"));
        equal(&format!("bound to {bind}: {answer}"), &ip(fields(&answer)["local"])?, &shown.to_owned())?;
    }
    Ok(())
}

fn a_socket_that_is_used_twice_forgets_its_first_connection(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    let (_proxy, ..) = lab.proxy(&pair.client);
    let server = Server::on(&pair.server, Pair::SERVER_V4);
    let pass = verbatim_steer::DestinationRule {
        action: verbatim_steer::Action::Pass,
        ..verbatim_steer::DestinationRule::steer(std::net::IpAddr::from([10, 77, 0, 2]), Some(server.port))
    };
    let rules = [&verbatim_steer::DestinationRule::steer_everything()[..], &[pass]].concat();
    lab.steering.set_destinations(&rules)?;
    let mut workload = lab.workload(&pair.client);
    let second = format!("{}:{}", Pair::SERVER_V4, server.port);
    let answer = workload.ask(&format!("twice destination=10.1.2.3:5432 second={second}"));
    let parts: Vec<&str> = answer.split(" | ").collect();
    let [first, between, after] = parts[..] else { return Err(answer.into()) };
    equal(first, &fields(first).get("destination").copied(), &Some("10.1.2.3:5432"))?;
    equal(between, &between.starts_with("between=0.0.0.0:"), &true)?;
    equal(after, &after.contains(" server "), &true)?;
    equal(after, &fields(after)["peer"], &second.as_str())?;
    // Back again: from one that passes to one that is steered.
    let answer = workload.ask(&format!("twice destination={second} second=10.1.2.4:5432"));
    let after = answer.split(" | ").nth(2).ok_or(answer.clone())?;
    equal(after, &fields(after).get("destination").copied(), &Some("10.1.2.4:5432"))?;
    equal(after, &fields(after)["peer"], &"10.1.2.4:5432")
}

fn pod_address_that_comes_later_is_shown_after_a_refresh(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    pair.client.ip(&["address", "flush", "dev", "eth0"]);
    pair.client.ip(&["-6", "address", "flush", "dev", "eth0", "scope", "global"]);
    let (_proxy, cookie, _) = lab.proxy(&pair.client);
    let mut workload = lab.workload(&pair.client);
    let answer = workload.ask("connect destination=10.1.2.3:5432");
    equal("before it has one", &ip(fields(&answer)["local"])?, &"127.0.0.1".to_owned())?;
    equal("still without", &lab.namespaces().refresh_incomplete()?, &1)?;
    pair.client.ip(&["address", "add", "10.77.0.9/24", "dev", "eth0"]);
    equal("without", &lab.namespaces().refresh_incomplete()?, &0)?;
    let addresses = lab.namespaces().refresh(cookie)?;
    equal("refreshed", &addresses.v4, &Some([10, 77, 0, 9].into()))?;
    let answer = workload.ask("connect destination=10.1.2.3:5432");
    equal("afterwards", &ip(fields(&answer)["local"])?, &"10.77.0.9".to_owned())
}
