//! The lab's network: two pods, each with a link of its own to the VPC where the servers are.
//!
//! Nothing of it is in the namespace that the harness and the node agent run in, so that a connection
//! made from there by mistake reaches no server.

use anyhow::Result;

use crate::{
    netns::{Namespace, connect},
    shell::run,
};

/// Address of the database, on a loopback device of the VPC as Cloud SQL's instance addresses are none
/// of the router's.
pub const DATABASE: &str = "10.61.9.10";
/// The same over IPv6.
pub const DATABASE_V6: &str = "fd61:9::10";
/// Address of servers that are no databases.
pub const OTHER: &str = "10.61.9.20";
/// An address that the agents' configurations deny.
pub const DENIED: &str = "10.61.9.66";
/// What the hosts files call [`DATABASE`].
pub const DATABASE_NAME: &str = "db.vpc.internal";

/// Which of the two pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pod {
    /// `pod-a`.
    A,
    /// `pod-b`.
    B,
}

impl Pod {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// As in names.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// Its own address.
    #[must_use]
    pub fn address(self) -> &'static str {
        match self {
            Self::A => "10.61.1.2",
            Self::B => "10.61.2.2",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }
}

/// What both pods' servers are in.
const SERVERS: [&str; 2] = ["10.61.9.0/24", "199.36.153.0/28"];

/// Pods that reach no server; dropping it lets them reach all again.
#[derive(Debug)]
pub struct Closed(Vec<String>);

impl Drop for Closed {
    fn drop(&mut self) {
        for namespace in &self.0 {
            for servers in SERVERS {
                // Where it is still there, what comes next says so.
                drop(run("ip", &["-n", namespace, "route", "del", "unreachable", servers]));
            }
        }
    }
}

/// The three namespaces.
#[derive(Debug)]
pub struct Network {
    /// Where pod-a's processes are.
    pub pod_a: Namespace,
    /// Where pod-b's processes are.
    pub pod_b: Namespace,
    /// Where the servers are.
    pub vpc: Namespace,
}

impl Network {
    /// Makes namespaces, links, addresses, routes and hosts files.
    pub fn create(name: &str) -> Result<Self> {
        let network = Self {
            pod_a: Namespace::create(format!("{name}-pod-a"))?,
            pod_b: Namespace::create(format!("{name}-pod-b"))?,
            vpc: Namespace::create(format!("{name}-vpc"))?,
        };
        for address in [DATABASE, OTHER] {
            network.vpc.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
        }
        network.vpc.ip(&["address", "add", &format!("{DATABASE_V6}/128"), "dev", "lo", "nodad"])?;
        for pod in Pod::ALL {
            network.link(pod)?;
        }
        network.vpc.hosts(&hosts())?;
        for pod in Pod::ALL {
            network.add_hosts(pod, "")?;
        }
        Ok(network)
    }

    /// Adds lines to a pod's hosts file, in the place of those added before.
    pub fn add_hosts(&self, pod: Pod, lines: &str) -> Result<()> {
        let own = format!("{}{} pod-{}\n{lines}", hosts(), pod.address(), pod.letter());
        self.pod(pod).hosts(&own)
    }

    /// Lets pods reach no server: for them that is as if each connect were refused.
    pub fn close(&self) -> Result<Closed> {
        let mut closed = Closed(Vec::new());
        for pod in Pod::ALL {
            closed.0.push(self.pod(pod).name().to_owned());
            for servers in SERVERS {
                self.pod(pod).ip(&["route", "add", "unreachable", servers])?;
            }
        }
        Ok(closed)
    }

    /// The namespace of a pod.
    #[must_use]
    pub fn pod(&self, pod: Pod) -> &Namespace {
        match pod {
            Pod::A => &self.pod_a,
            Pod::B => &self.pod_b,
        }
    }

    fn link(&self, pod: Pod) -> Result<()> {
        let number = pod.number();
        let at_vpc = format!("pod-{}", pod.letter());
        let namespace = self.pod(pod);
        connect((namespace, "eth0"), (&self.vpc, &at_vpc))?;
        let ends = [
            (namespace, "eth0", format!("10.61.{number}.2/24"), format!("fd61:{number}::2/64")),
            (&self.vpc, at_vpc.as_str(), format!("10.61.{number}.1/24"), format!("fd61:{number}::1/64")),
        ];
        for (end, device, v4, v6) in ends {
            end.ip(&["address", "add", &v4, "dev", device])?;
            end.ip(&["address", "add", &v6, "dev", device, "nodad"])?;
        }
        namespace.ip(&["route", "add", "default", "via", &format!("10.61.{number}.1")])?;
        namespace.ip(&["-6", "route", "add", "default", "via", &format!("fd61:{number}::1")]).map(drop)
    }
}

/// What every namespace's hosts file has.
fn hosts() -> String {
    format!("127.0.0.1 localhost\n::1 localhost\n{DATABASE} {DATABASE_NAME}\n")
}
