//! What a scenario may want of its agent, and of what that stands on.

use std::path::Path;

use crate::{google, network::Pod, postgres::Offers};

/// How an agent is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of all spools together, as the configuration writes it.
    pub spool_limit: &'static str,
    /// Of a spool's segment.
    pub segment_size: &'static str,
    /// `stop` or `shed`.
    pub when_full: &'static str,
    /// `process` or `group`.
    pub sync: &'static str,
    /// Ship over the network, by mutual TLS, instead of over a Unix socket.
    pub over_tls: bool,
    /// Metrics and health can be asked for.
    pub metrics: bool,
    /// The pods' connections to their metadata server are steered.
    pub metadata: bool,
    /// Lines that are added to the configuration.
    pub extra: &'static str,
    /// The same, made for the scenario's own folder.
    pub extra_in: Option<fn(&Path) -> String>,
    /// What there is of Google; with it TLS is terminated for the pods of `trusting`.
    pub google: Option<google::Options>,
    /// The pods that trust has been injected into.
    pub trusting: &'static [Pod],
    /// What becomes of connections of those that don't trust us: `splice` or `deny`.
    pub untrusted: &'static str,
    /// What becomes of requests that name another host than TLS: `pass` or `deny`.
    pub misdirected: &'static str,
    /// What the lab's database offers.
    pub database: Offers,
    /// What becomes of either pod's connects while the proxy is dead: `closed` or `open`.
    pub fail_modes: [&'static str; 2],
    /// How long connections may go on once a successor steers, or it was told to end.
    pub drain_deadline: &'static str,
    /// What it stands on that can be taken away.
    pub ground: Ground,
}

/// What agent and collector stand on, where a scenario takes it away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ground {
    /// Spool and log are on disks of their own, of so many MiB.
    pub disks: Option<u64>,
    /// The collector is behind a link that can be cut; goes with `over_tls`.
    pub link: bool,
    /// Each has a clock of its own.
    pub clocks: bool,
    /// The agent's memory can be limited.
    pub memory: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            spool_limit: "256MiB",
            segment_size: "8MiB",
            when_full: "stop",
            sync: "process",
            over_tls: false,
            metrics: false,
            metadata: false,
            extra: "",
            extra_in: None,
            google: None,
            trusting: &Pod::ALL,
            untrusted: "splice",
            misdirected: "pass",
            database: Offers::Plain,
            fail_modes: ["closed"; 2],
            drain_deadline: "5s",
            ground: Ground::default(),
        }
    }
}
