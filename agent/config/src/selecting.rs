//! Which connections are captured: destinations, and selectors of workloads with what holds for them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Cidr, Misdirected, Pattern, Trust, Untrusted};

/// What becomes of connections to a destination.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Through the proxy.
    Steer,
    /// Not through the proxy.
    Pass,
    /// Refused.
    Deny,
}

/// Some destinations.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// e.g. `10.20.0.0/16`, `fd00::/8`, `192.0.2.7`.
    pub cidr: Cidr,
    /// Empty or absent: every port.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// What becomes of them.
    pub action: Action,
    /// `open`: while the agent cannot take them they pass, unrecorded, also where a selector says `closed`. For what a
    /// workload cannot do without, such as the metadata server.
    pub fail_mode: Option<FailMode>,
}

/// What to do with some workloads.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Which; all where it is absent.
    #[serde(default, rename = "match")]
    pub matching: Match,
    /// What.
    pub set: Setting,
}

/// All that is given must match.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// Of the workload's cgroup, relative to where cgroup v2 is mounted.
    pub cgroup: Option<Pattern>,
    /// Exact; of the identity.
    pub namespace: Option<String>,
    /// Exact; of the identity.
    pub service_account: Option<String>,
    /// Exact, and all of them; of the pod.
    #[serde(default)]
    pub pod_labels: BTreeMap<String, String>,
    /// Exact; of the identity.
    pub container: Option<String>,
    /// Cgroups of pods that are not known, or not yet: only where it is `true`.
    #[serde(default)]
    pub unknown_pod: bool,
}

impl Match {
    /// Whether it matches everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.cgroup.is_none() && !self.unknown_pod && !self.asks_who()
    }

    /// Whether it must be known who a workload is to tell whether it matches.
    #[must_use]
    pub fn asks_who(&self) -> bool {
        self.namespace.is_some()
            || self.service_account.is_some()
            || self.container.is_some()
            || !self.pod_labels.is_empty()
    }
}

/// What a selector sets. There is no default for `failMode`: who installs must say.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Setting {
    /// Whether its connections are captured.
    pub capture: Capture,
    /// What becomes of its connections while the agent does not live.
    pub fail_mode: FailMode,
    /// What becomes of its connections that were there before they could be steered; where it is absent, `failMode`
    /// says.
    pub existing: Option<Existing>,
    /// Whether it trusts the authority of `tls`; where it is absent, nothing says so.
    pub trust: Option<Trust>,
    /// What becomes of its TLS that cannot be looked into.
    #[serde(default)]
    pub untrusted: Untrusted,
    /// What becomes of its requests that name another host than the TLS around them was made for.
    #[serde(default)]
    pub misdirected: Misdirected,
}

impl Setting {
    /// Whether connections that were there before are ended. Where the workload fails closed their packets are dropped
    /// anyway: ending them is what lets it know.
    #[must_use]
    pub fn resets_existing(&self) -> bool {
        match self.existing {
            Some(existing) => existing == Existing::Reset,
            None => self.fail_mode == FailMode::Closed,
        }
    }
}

/// See [`Setting::existing`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Existing {
    /// They stay; where `failMode` is `closed`, their packets are dropped.
    Keep,
    /// They are ended, at both ends.
    Reset,
}

/// See [`Setting::capture`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Capture {
    /// Steered to the proxy, where the destination says so too.
    Steer,
    /// Left alone.
    Pass,
}

/// See [`Setting::fail_mode`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum FailMode {
    /// They pass, unrecorded.
    Open,
    /// They are refused.
    Closed,
}
