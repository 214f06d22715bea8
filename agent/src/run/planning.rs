//! From the command line to what the parts of a run are given: where records go, whose they are, how it steers.

use std::{path::PathBuf, time::Duration};

use verbatim_agent_config::{Issuer, Jwks};
use verbatim_proxy::{ProxyConfig, seam::Identity};
use verbatim_ship::{Target, TlsFiles};
use verbatim_spool::{SpoolConfig, SyncMode, WhenFull};
use verbatim_steer::{Action, CgroupVerdict, DestinationRule, FailMode, SteerConfig};
use verbatim_sys::{cgroup::Cgroup, process};

use super::{RunError, Surroundings, cgroups::Cgroups, collector, system};
use crate::{
    cli::RunArgs,
    identity::{federated, local},
    worker::Plan,
};

/// Without a beat for this long, the command's new connections fail.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of all spools together.
const SPOOL_LIMIT_BYTES: u64 = 1024 * 1024 * 1024;
/// Of one segment.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Where the records go.
pub(super) enum Destination {
    /// To a collector of our own, by this program.
    Own(PathBuf),
    /// To one that runs already.
    Other(Box<Target>),
}

impl Destination {
    pub(super) fn of(args: &RunArgs) -> Result<Self, RunError> {
        let Some(address) = &args.collector else {
            return Ok(Self::Own(collector::program(args.collector_bin.as_deref())?));
        };
        let files = [&args.collector_ca, &args.collector_certificate, &args.collector_key];
        let tls = match files {
            [Some(ca), Some(certificate), Some(key)] => Some(TlsFiles {
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
                server_name: None,
            }),
            _ => None,
        };
        Ok(Self::Other(Box::new(Target::parse(address, tls.as_ref())?)))
    }

    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

pub(super) fn identity(args: &RunArgs, around: &Surroundings, workload: &Cgroup) -> Identity {
    let node = process::host_name();
    let cgroup = workload.path().strip_prefix(&around.mount).unwrap_or(workload.path());
    let cgroup = cgroup.to_string_lossy();
    match (&args.service_account, args.project_number, &args.pool) {
        (Some(account), Some(number), Some(pool)) => federated(account, number, pool, &node, &cgroup),
        _ => local(&around.person, &node, &cgroup),
    }
}

/// Whose signed tokens are believed.
pub(super) fn believed(args: &RunArgs) -> Vec<Issuer> {
    let (Some(issuer), Some(audience), Some(file)) =
        (&args.on_behalf_of_issuer, &args.on_behalf_of_audience, &args.on_behalf_of_jwks)
    else {
        return Vec::new();
    };
    vec![Issuer {
        issuer: issuer.clone(),
        audiences: vec![audience.clone()],
        jwks: Jwks { file: Some(file.clone()), url: None },
        workload_claim: "workload".to_owned(),
    }]
}

/// Threads that relay: half of the cores, for what is captured runs on the same ones; 4 at most.
fn shards() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4))
}

pub(super) fn cgroup_id(cgroup: &Cgroup) -> Result<u64, RunError> {
    cgroup.id().map_err(system("read a cgroup's id"))
}

pub(super) fn plan(
    args: &RunArgs,
    around: &Surroundings,
    cgroups: &Cgroups,
    target: Target,
) -> Result<Plan, RunError> {
    let shards = args.shards.map_or_else(shards, usize::from);
    let steer = SteerConfig {
        own_cgroups: vec![cgroup_id(&cgroups.agent)?],
        heartbeat_timeout: HEARTBEAT_TIMEOUT,
        shards,
        ..SteerConfig::new(cgroups.root.path())
    };
    let verdict = CgroupVerdict { action: Action::Steer, fail_mode: FailMode::Closed };
    Ok(Plan {
        steer,
        destinations: DestinationRule::steer_everything().to_vec(),
        cgroups: vec![(cgroup_id(&cgroups.workload)?, verdict)],
        proxy: ProxyConfig::default(),
        spool: SpoolConfig {
            directory: around.folders.spool(),
            sync: if args.sync { SyncMode::Group } else { SyncMode::Process },
            segment_bytes: SEGMENT_BYTES,
            limit_bytes: SPOOL_LIMIT_BYTES,
            when_full: WhenFull::Stop,
            head_interval: crate::HEAD_INTERVAL,
            node: process::host_name(),
        },
        target,
    })
}
