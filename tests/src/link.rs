//! A link from the node to a namespace beside it, which can be cut: what is sent then goes nowhere, and nobody
//! is told.

use std::{
    net::{IpAddr, Ipv4Addr},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Result;

use crate::{netns::Namespace, shell::run};

/// A namespace and the one link to it.
#[derive(Debug)]
pub struct Link {
    namespace: Namespace,
    far: Ipv4Addr,
}

/// A link that is cut; dropping it mends it.
#[derive(Debug)]
pub struct Cut(String);

impl Link {
    /// Makes both. The node's end goes with the namespace.
    pub fn create(name: String) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = Namespace::create(name)?;
        // Two addresses that no other run has: a block that is set aside for measuring (RFC 2544).
        let number = (process::id() * 8 + COUNT.fetch_add(1, Ordering::Relaxed)) % 0x7f00;
        let device = format!("vlab{number}");
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number * 4;
        let (near, far) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
        run(
            "ip",
            &["link", "add", &device, "type", "veth", "peer", "name", "eth0", "netns", namespace.name()],
        )?;
        run("ip", &["address", "add", &format!("{near}/30"), "dev", &device])?;
        run("ip", &["link", "set", &device, "up"])?;
        namespace.ip(&["address", "add", &format!("{far}/30"), "dev", "eth0"])?;
        namespace.ip(&["link", "set", "eth0", "up"])?;
        Ok(Self { namespace, far })
    }

    /// The namespace at its far end.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Address of its far end.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.far.into()
    }

    /// Cuts it.
    pub fn cut(&self) -> Result<Cut> {
        self.namespace.ip(&["link", "set", "eth0", "down"])?;
        Ok(Cut(self.namespace.name().to_owned()))
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Where it cannot be mended, what comes next says so.
        drop(run("ip", &["-n", &self.0, "link", "set", "eth0", "up"]));
    }
}
