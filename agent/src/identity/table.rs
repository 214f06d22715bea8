//! The identities of `serve`: a snapshot of which cgroup is whose, from static rules.
//!
//! Owns how a path becomes an identity, a setting and a standing. Who reads cgroupfs, and tells the kernel,
//! is `workloads`.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use verbatim_agent_config::{
    Capture, FailMode, IdentityRule, NodeAgent, Pattern, Selector, Setting, Template, Trust, Untrusted,
};
use verbatim_api::v1;
use verbatim_proxy::seam::{Flow, Identities, Identity};

use verbatim_kube::names::{is_label, is_subdomain};

use super::names::{Pool, principal};
use crate::trust::{Evidence, Standing, Standings};

/// What is known of one cgroup.
#[derive(Clone, Debug)]
pub struct Known {
    /// Relative to the mount point.
    pub path: Arc<str>,
    /// Who lives there; `None` where no rule says.
    pub identity: Option<Arc<Identity>>,
    /// What the first matching selector sets.
    pub setting: Setting,
}

/// What is known of the cgroups at one moment, by id.
pub type Workloads = HashMap<u64, Known>;

/// What holds where no selector matches.
const NO_SELECTOR: Setting = Setting {
    capture: Capture::Pass,
    fail_mode: FailMode::Open,
    existing: None,
    trust: None,
    untrusted: Untrusted::Splice,
};

/// Called with the id of a cgroup that the snapshot does not hold.
type Unknown = Box<dyn Fn(u64) + Send + Sync>;

/// Rules and the snapshot made by them.
pub struct Table {
    node: String,
    identities: Vec<IdentityRule>,
    selectors: Vec<Selector>,
    snapshot: ArcSwap<Workloads>,
    unresolved: Arc<Identity>,
    unknown: Unknown,
}

impl Table {
    /// Without any cgroup yet. `unknown` is called, and must not block, where a connection comes from a
    /// cgroup that the snapshot does not hold.
    #[must_use]
    pub fn new(config: &NodeAgent, node: &str, unknown: impl Fn(u64) + Send + Sync + 'static) -> Self {
        let workload = v1::Workload {
            principal_kind: v1::PrincipalKind::Unresolved.into(),
            node: node.to_owned(),
            ..v1::Workload::default()
        };
        Self {
            node: node.to_owned(),
            identities: config.identities.clone(),
            selectors: config.selectors.clone(),
            snapshot: ArcSwap::default(),
            unresolved: Arc::new(Identity { workload, ..Identity::default() }),
            unknown: Box::new(unknown),
        }
    }

    /// Takes another snapshot.
    pub fn replace(&self, workloads: Workloads) {
        self.snapshot.store(Arc::new(workloads));
    }

    /// Who lives in a cgroup, by its path relative to the mount point; `None` where no rule says.
    #[must_use]
    pub fn name(&self, path: &str) -> Option<Identity> {
        self.identities.iter().find_map(|rule| self.apply(rule, path))
    }

    fn apply(&self, rule: &IdentityRule, path: &str) -> Option<Identity> {
        let captures = rule.cgroup.matches(path)?;
        let fill = |template: Option<&Template>| {
            template.map(|template| template.fill(&captures)).unwrap_or_default()
        };
        let namespace = fill(Some(&rule.namespace));
        let service_account = fill(Some(&rule.service_account));
        let pool: Pool = rule.pool.parse().ok()?;
        // A captured text that is no name must not shape a principal.
        if !is_label(&namespace) || !is_subdomain(&service_account) {
            return None;
        }
        let workload = v1::Workload {
            principal_kind: v1::PrincipalKind::Federated.into(),
            principal: principal(rule.project_number, &pool, &namespace, &service_account),
            namespace,
            service_account,
            pod_name: fill(rule.pod.name.as_ref()),
            pod_uid: fill(rule.pod.uid.as_ref()).replace('_', "-"),
            container: fill(rule.container.as_ref()),
            node: self.node.clone(),
            cgroup_id: 0,
            resolution: v1::Resolution::Rule.into(),
            ..v1::Workload::default()
        };
        Some(Identity { workload, local_user: None, cgroup: Some(path.to_owned()) })
    }

    /// What the first matching selector sets for a workload. A selector's cgroup pattern holds for the
    /// cgroup itself and for all below it.
    #[must_use]
    pub fn setting(&self, path: &str, identity: Option<&Identity>) -> Setting {
        let workload = identity.map(|identity| &identity.workload);
        let matches = |selector: &&Selector| {
            let wanted = &selector.matching;
            let same = |wanted: &Option<String>, actual: Option<&String>| {
                wanted.as_ref().is_none_or(|wanted| actual == Some(wanted))
            };
            wanted.cgroup.as_ref().is_none_or(|pattern| holds_for(pattern, path))
                && same(&wanted.namespace, workload.map(|workload| &workload.namespace))
                && same(&wanted.service_account, workload.map(|workload| &workload.service_account))
        };
        self.selectors.iter().find(matches).map_or(NO_SELECTOR, |selector| selector.set)
    }

    /// Whether connections of a cgroup that were there before it was steered are ended.
    #[must_use]
    pub fn resets(&self, cgroup_id: u64) -> bool {
        let snapshot = self.snapshot.load();
        let known = snapshot.get(&cgroup_id).map(|known| known.setting);
        known.unwrap_or_else(|| self.default_setting()).resets_existing()
    }

    /// What holds for a cgroup that nobody has looked at yet.
    #[must_use]
    pub fn default_setting(&self) -> Setting {
        self.setting("", None)
    }
}

fn holds_for(pattern: &Pattern, path: &str) -> bool {
    let mut path = path;
    loop {
        if pattern.matches(path).is_some() {
            return true;
        }
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
            None => return false,
        }
    }
}

impl Identities for Table {
    fn identify(&self, flow: &Flow) -> Arc<Identity> {
        let snapshot = self.snapshot.load();
        let known = nearest(&snapshot, flow).filter(|known| known.identity.is_some());
        known.and_then(|known| known.identity.clone()).unwrap_or_else(|| {
            (self.unknown)(flow.cgroup_id);
            Arc::clone(&self.unresolved)
        })
    }
}

/// A container's cgroup may be newer than the snapshot, its pod's is seldom.
fn nearest<'a>(snapshot: &'a Workloads, flow: &Flow) -> Option<&'a Known> {
    std::iter::once(&flow.cgroup_id).chain(&flow.ancestor_cgroup_ids).find_map(|id| snapshot.get(id))
}

impl Standings for Table {
    fn standing(&self, identity: &Identity, flow: &Flow) -> Standing {
        let snapshot = self.snapshot.load();
        let known = nearest(&snapshot, flow);
        let setting = known.map_or_else(|| self.default_setting(), |known| known.setting);
        // Who refuses is the container, wherever in it the process lives. A cgroup's path names it for good.
        let path = identity.cgroup.as_deref().or_else(|| known.map(|known| &*known.path));
        Standing {
            workload: path.map_or_else(|| format!("cgroup {}", flow.cgroup_id), ToOwned::to_owned),
            evidence: match setting.trust {
                Some(Trust::Injected) => Evidence::Injected,
                Some(Trust::None) => Evidence::Spared,
                None => Evidence::Missing,
            },
            untrusted: setting.untrusted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use verbatim_agent_config::parse;

    fn table(rules: &str) -> Table {
        let text = format!(
            "apiVersion: verbatim.v1\nkind: NodeAgent\ndestinations: [{{cidr: 10.0.0.0/8, action: steer}}]\n\
             spool: {{directory: /s}}\ncollector: {{address: 'unix:/c'}}\n{rules}"
        );
        let config = parse(&text, Path::new("agent.yaml")).expect("configuration");
        Table::new(&config, "node-1", |_| {})
    }

    const STEER: Setting = Setting {
        capture: Capture::Steer,
        fail_mode: FailMode::Closed,
        existing: None,
        trust: None,
        untrusted: Untrusted::Splice,
    };

    const RULES: &str = "\
selectors:
- {match: {namespace: kube-system}, set: {capture: pass, failMode: open}}
- {match: {cgroup: 'kubepods/**'}, set: {capture: steer, failMode: closed}}
identities:
- {cgroup: 'kubepods/**/pod{uid}/**', projectNumber: 7, pool: p.svc.id.goog, namespace: '{uid}', serviceAccount: sa,
   pod: {uid: '{uid}'}}
";

    fn flow(cgroup_id: u64, ancestors: &[u64]) -> Flow {
        Flow {
            destination: ([10, 0, 0, 1], 5432).into(),
            cgroup_id,
            ancestor_cgroup_ids: ancestors.to_vec(),
            pid: 1,
            uid: 0,
            gid: 0,
            client_netns: 1,
            listener_netns: 1,
            socket_cookie: 1,
            ktime_nanos: 1,
            comm: String::new(),
            connect_series: 0,
            connect_number: 0,
        }
    }

    #[test]
    fn the_first_selector_that_matches_decides() {
        let table = table(RULES);
        let path = "kubepods/besteffort/podkube-system/c";
        let identity = table.name(path).expect("named");
        assert_eq!(table.setting(path, Some(&identity)).capture, Capture::Pass);
        let path = "kubepods/besteffort/podshop/c";
        let identity = table.name(path).expect("named");
        assert_eq!(table.setting(path, Some(&identity)), STEER);
        assert_eq!(table.setting("system.slice", None), NO_SELECTOR);
    }

    #[test]
    fn a_selector_holds_for_what_is_below_its_cgroup() {
        let table =
            table("selectors: [{match: {cgroup: 'kubepods/pod*'}, set: {capture: steer, failMode: closed}}]");
        assert_eq!(table.setting("kubepods/pod1", None), STEER);
        assert_eq!(table.setting("kubepods/pod1/c/d", None), STEER);
        assert_eq!(table.setting("kubepods", None), NO_SELECTOR);
        assert_eq!(table.default_setting(), NO_SELECTOR);
    }

    #[test]
    fn a_capture_that_is_no_kubernetes_name_names_nobody() {
        let table = table(RULES);
        assert_eq!(table.name("kubepods/podA:B/c"), None);
    }

    #[test]
    fn a_nested_cgroup_is_its_nearest_known_ancestor() {
        let table = table(RULES);
        let pod = Arc::new(table.name("kubepods/podshop").expect("named"));
        let known = |path: &str, identity| Known { path: path.into(), identity, setting: STEER };
        table.replace(Workloads::from([
            (5, known("kubepods/podshop", Some(Arc::clone(&pod)))),
            (1, known("", None)),
        ]));
        assert_eq!(table.identify(&flow(9, &[5, 1])), pod);
        let stranger = table.identify(&flow(9, &[1]));
        assert_eq!(stranger.workload.principal_kind(), v1::PrincipalKind::Unresolved);
        assert_eq!(stranger.workload.node, "node-1");
    }

    #[test]
    fn trust_is_what_the_selector_says_and_a_refusal_is_the_containers() {
        let table = table(RULES);
        let pod = Arc::new(table.name("kubepods/podshop/c").expect("named"));
        let known = |path: &str, identity, trust| {
            let setting = Setting { trust, untrusted: Untrusted::Deny, ..STEER };
            Known { path: path.into(), identity, setting }
        };
        table.replace(Workloads::from([
            (5, known("kubepods/podshop/c/nested", Some(pod), Some(Trust::Injected))),
            (6, known("system.slice/a.service", None, Some(Trust::None))),
        ]));
        let standing = |flow: &Flow| {
            let standing = table.standing(&table.identify(flow), flow);
            (standing.workload, standing.evidence, standing.untrusted)
        };
        let pod = ("kubepods/podshop/c".to_owned(), Evidence::Injected, Untrusted::Deny);
        assert_eq!(standing(&flow(5, &[])), pod);
        let service = ("system.slice/a.service".to_owned(), Evidence::Spared, Untrusted::Deny);
        assert_eq!(standing(&flow(7, &[6])), service);
        assert_eq!(standing(&flow(8, &[])), ("cgroup 8".to_owned(), Evidence::Missing, Untrusted::Splice));
    }
}
