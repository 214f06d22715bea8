//! Another connect-time translator on the same hook, as of a cluster's services, before and after ours.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use verbatim_steer::{DestinationRule, EventKind};
use verbatim_sys::bpf::{self, Hook};

use crate::{
    Outcome,
    cases::cases,
    echo::Echo,
    lab::{Cgroup, Lab, Pair, STEER_OPEN, base, equal},
    proxy::fields,
};

cases![
    a_translator_before_us_leaves_us_what_it_made_of_the_destination,
    a_translator_after_us_finds_a_steered_connect_as_it_was_meant,
    a_translator_after_us_that_leads_to_a_steered_destination_is_found_out,
    a_translator_after_us_that_takes_a_steered_connect_away_is_found_out,
];

/// A service's address for each test: what one translates, another must not.
const SERVICES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 96, 0, 2), Ipv4Addr::new(10, 96, 0, 3)];

/// `include/uapi/linux/bpf.h`: `user_ip4` and `user_port` of the context.
const USER_IP4: i16 = 4;
const USER_PORT: i16 = 24;

fn instruction(code: u8, registers: u8, offset: i16, value: u32) -> [u8; 8] {
    let (offset, value) = (offset.to_le_bytes(), value.to_le_bytes());
    [code, registers, offset[0], offset[1], value[0], value[1], value[2], value[3]]
}

/// A program that turns connects to one address into connects to another, by hand: r1 is the context.
fn translator(from: Ipv4Addr, to: SocketAddr) -> Result<std::os::fd::OwnedFd, Box<dyn std::error::Error>> {
    let IpAddr::V4(address) = to.ip() else { return Err("expected IPv4".into()) };
    let word = |ip: Ipv4Addr| u32::from_ne_bytes(ip.octets());
    Ok(bpf::connect4_program(&[
        // r2 = context.user_ip4; if it is not `from`, leave.
        instruction(0x61, 0x12, USER_IP4, 0),
        instruction(0x56, 0x02, 4, word(from)),
        // context.user_ip4 = to; context.user_port = its port.
        instruction(0xb4, 0x02, 0, word(address)),
        instruction(0x63, 0x21, USER_IP4, 0),
        instruction(0xb4, 0x02, 0, u32::from(to.port().to_be())),
        instruction(0x63, 0x21, USER_PORT, 0),
        // return 1
        instruction(0xb7, 0x00, 0, 1),
        instruction(0x95, 0x00, 0, 0),
    ])?)
}

/// A lab with somebody else's program on the same hook of the same cgroup.
struct Beside {
    lab: Lab,
    root: PathBuf,
    pair: Pair,
    server: Echo,
}

impl Beside {
    fn new(name: &str) -> Self {
        Self::at(name, base())
    }

    fn at(name: &str, root: &Path) -> Self {
        let (lab, pair) = (Lab::below(name, root, |_| {}), Pair::new());
        let server = Echo::on(&pair.server, Pair::SERVER_V4);
        Self { lab, root: root.to_owned(), pair, server }
    }

    fn backend(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), self.server.port)
    }

    fn translate(&self, from: Ipv4Addr) -> Result<std::os::fd::OwnedFd, Box<dyn std::error::Error>> {
        let program = translator(from, self.backend())?;
        let root = std::fs::File::open(&self.root)?;
        Ok(bpf::link_create(program, root, Hook::CONNECT4)?)
    }

    fn steer(&self, address: Ipv4Addr) -> Outcome {
        Ok(self.lab.steering.set_destinations(&[DestinationRule::steer(IpAddr::V4(address), None)])?)
    }
}

fn a_translator_before_us_leaves_us_what_it_made_of_the_destination(name: &str) -> Outcome {
    let (beside, service) = (Beside::new(name), SERVICES[0]);
    let _translator = beside.translate(service)?;
    beside.lab.steering.attach()?;
    let (_proxy, ..) = beside.lab.proxy(&beside.pair.client);
    let mut workload = beside.lab.workload(&beside.pair.client);
    beside.steer(Ipv4Addr::new(10, 77, 0, 2))?;
    let answer = workload.ask(&format!("connect destination={service}:5432"));
    let backend = beside.backend().to_string();
    equal(&answer, &fields(&answer).get("destination").copied(), &Some(backend.as_str()))?;
    equal("strays", &beside.lab.count("stray"), &0)
}

fn a_translator_after_us_finds_a_steered_connect_as_it_was_meant(name: &str) -> Outcome {
    let (beside, service) = (Beside::new(name), SERVICES[1]);
    beside.lab.steering.attach()?;
    let _translator = beside.translate(service)?;
    let (_proxy, ..) = beside.lab.proxy(&beside.pair.client);
    let mut workload = beside.lab.workload(&beside.pair.client);
    beside.steer(service)?;
    let answer = workload.ask(&format!("connect destination={service}:5432"));
    equal(&answer, &fields(&answer).get("destination").copied(), &Some("10.96.0.2:5432"))?;
    equal("elsewhere", &(beside.lab.count("stray"), beside.lab.count("diverted")), &(0, 0))
}

fn a_translator_after_us_that_leads_to_a_steered_destination_is_found_out(name: &str) -> Outcome {
    let (beside, service) = (Beside::new(name), SERVICES[2]);
    let lab = &beside.lab;
    let events = lab.steering.events().ok_or("events were taken before")?;
    lab.steering.attach()?;
    let _translator = beside.translate(service)?;
    let (_proxy, ..) = lab.proxy(&beside.pair.client);
    let mut workload = lab.workload(&beside.pair.client);
    beside.steer(Ipv4Addr::new(10, 77, 0, 2))?;
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    equal("opens", &workload.ask(&format!("open destination={service}:5432")).as_str(), &"open")?;
    equal("answers", &workload.ask("say word=hello").as_str(), &"echo hello")?;
    equal("counted", &(lab.count("stray"), lab.count("stray_dropped")), &(1, 0))?;
    let event = events.recv_timeout(std::time::Duration::from_secs(5))?;
    equal("reported", &(event.kind, event.address), &(EventKind::Stray, beside.backend()))?;
    equal("whose", &event.cgroup_id, &Some(lab.steered.id()))
}

fn a_translator_after_us_that_takes_a_steered_connect_away_is_found_out(name: &str) -> Outcome {
    // What it takes is everybody's: not where other tests are.
    let root = Cgroup::below(base(), &format!("{name}-root"));
    let beside = Beside::at(name, &root.path);
    let lab = &beside.lab;
    let events = lab.steering.events().ok_or("events were taken before")?;
    lab.steering.attach()?;
    // As we send it: to loopback.
    let _translator = beside.translate(Ipv4Addr::LOCALHOST)?;
    let (_proxy, ..) = lab.proxy(&beside.pair.client);
    let mut workload = lab.workload(&beside.pair.client);
    lab.steering.set_cgroup(lab.steered.id(), STEER_OPEN)?;
    equal("opens", &workload.ask("open destination=10.9.9.9:1").as_str(), &"open")?;
    equal("answers", &workload.ask("say word=hello").as_str(), &"echo hello")?;
    equal("counted", &(lab.count("diverted"), lab.count("stray")), &(1, 1))?;
    let event = events.recv_timeout(std::time::Duration::from_secs(5))?;
    equal("reported", &event.kind, &EventKind::Diverted)?;
    equal("as it was meant", &event.address.to_string().as_str(), &"10.9.9.9:1")
}
