//! `verbatim-agent doctor`: pod by pod, what is captured, what is not, why, and what to do.
//!
//! Owns the findings and their advice. Asks the running agent over its control socket; changes nothing.

mod diagnosis;
mod show;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use verbatim_tls::{Authority, Refusals};

use crate::{
    control::Conditions,
    identity::Table,
    issued::{self, Known},
};

pub(crate) use diagnosis::Workload;
pub(crate) use show::shown;

/// All of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// What is wrong with the agent itself, e.g. `spool: full`.
    pub(crate) agent: Vec<String>,
    /// What this kernel has not, and what follows.
    #[serde(default)]
    pub(crate) kernel: Vec<String>,
    /// What TLS is ended with; absent where none is.
    pub(crate) authority: Option<AuthorityReport>,
    /// Containers of pods, by namespace, pod and name.
    pub(crate) workloads: Vec<Workload>,
}

/// See [`Report::authority`].
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuthorityReport {
    /// Whether there is anything to vouch with.
    pub(crate) ready: bool,
    /// The roots that certificates lead to.
    pub(crate) roots: Vec<verbatim_tls::RootId>,
    /// Until when what the issuer gave is good, seconds since 1970.
    pub(crate) until: Option<i64>,
    /// Why the issuer gave nothing when it was asked last.
    pub(crate) failing: Option<String>,
}

impl Report {
    /// Whether everything that is to be captured is.
    pub(crate) fn is_well(&self) -> bool {
        let authority =
            self.authority.as_ref().is_none_or(|authority| authority.ready && authority.failing.is_none());
        self.agent.is_empty() && authority && self.workloads.iter().all(Workload::is_well)
    }
}

/// What is looked at.
pub(crate) struct Doctor {
    pub(crate) table: Arc<Table>,
    /// Where TLS is looked into.
    pub(crate) tls: Option<(Arc<Authority>, Arc<Refusals>)>,
    /// Where an issuer gives it.
    pub(crate) issuer: Option<Known>,
}

impl Doctor {
    /// As it is now; `conditions` are the agent's own, `kernel` what it can do without.
    pub(crate) fn examine(&self, conditions: &Conditions, kernel: Vec<String>) -> Report {
        let agent =
            conditions.iter().filter_map(|(name, state)| Some(format!("{name}: {}", state.as_ref().err()?)));
        let issued::Standing { until, failing, .. } =
            self.issuer.as_ref().map(Known::now).unwrap_or_default();
        let authority = self.tls.as_ref().map(|(authority, _)| AuthorityReport {
            ready: authority.is_ready(),
            roots: authority.leads_to(),
            until,
            failing,
        });
        let refused = self.tls.as_ref().map(|(_, refusals)| refusals.all()).unwrap_or_default();
        let containers = self.table.containers();
        let mut workloads: Vec<_> = containers
            .iter()
            .map(|(known, host_network)| {
                diagnosis::diagnose(known, *host_network, authority.as_ref(), &refused)
            })
            .collect();
        let key = |one: &Workload| {
            (one.namespace.clone(), one.pod.clone(), one.container.clone(), one.cgroup.clone())
        };
        workloads.sort_by_key(key);
        Report { agent: agent.collect(), kernel, authority, workloads }
    }
}
