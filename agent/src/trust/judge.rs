//! What the proxy asks: facts put together for the decision, and what was learned kept.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use verbatim_agent_config::Misdirected;
use verbatim_api::v1::OpaqueReason;
use verbatim_proxy::seam::{Flow, Identity, Termination, Trust};
use verbatim_tls::{Authority, LeafName, Refusals, RootId};

use super::decision::{Evidence, Facts, Standing, decide, undecoded};

/// Names that are told at the end, or warned about once; beyond, they are only in the records.
const NAMES: usize = 1024;

/// Knows how workloads stand.
pub(crate) trait Standings: Send + Sync + 'static {
    /// Never waits.
    fn standing(&self, identity: &Identity, flow: &Flow) -> Standing;
}

/// Names of servers, each once.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<BTreeSet<String>>);

impl Names {
    /// Whether it is new, and there was room.
    fn add(&self, name: String) -> bool {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.len() < NAMES && names.insert(name)
    }

    /// In order.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Answers the proxy.
pub(crate) struct Judge {
    authority: Arc<Authority>,
    standings: Arc<dyn Standings>,
    refusals: Arc<Refusals>,
    /// Names that the authority may not vouch for, as they were asked for.
    outside: Arc<Names>,
    /// Servers that could not be verified.
    strangers: Names,
}

impl Judge {
    /// `refusals` are what is known already.
    pub(crate) fn new(
        authority: Arc<Authority>,
        standings: Arc<dyn Standings>,
        refusals: Arc<Refusals>,
        outside: Arc<Names>,
    ) -> Self {
        Self { authority, standings, refusals, outside, strangers: Names::default() }
    }

    /// The root that a certificate for the service would lead to.
    fn root(&self, flow: &Flow, server_name: Option<&str>) -> Option<RootId> {
        let name = server_name.map_or_else(|| Ok(flow.destination.ip().into()), LeafName::parse);
        self.authority.root_for(&name.ok()?)
    }
}

/// What a refusal is about: the name that was asked for, else the address, and the port.
fn service(flow: &Flow, server_name: Option<&str>) -> String {
    let destination = flow.destination;
    server_name.map_or_else(|| destination.to_string(), |name| format!("{name}:{}", destination.port()))
}

/// A name for a server that is no other's. Loopback is another machine for each workload.
fn insistent(flow: &Flow, server_name: Option<&str>, workload: &str) -> String {
    let name = server_name.unwrap_or_default();
    if flow.destination.ip().is_loopback() { format!("{name} of {workload}") } else { name.to_owned() }
}

impl Trust for Judge {
    fn judge(&self, identity: &Identity, flow: &Flow, server_name: Option<&str>) -> Termination {
        let Standing { workload, evidence, untrusted, .. } = self.standings.standing(identity, flow);
        let ready = self.authority.is_ready();
        if !ready || !matches!(evidence, Evidence::Injected | Evidence::InjectedWith(_)) {
            let certificate_bound = false;
            return decide(Facts {
                evidence,
                ready,
                root: None,
                untrusted,
                refused: None,
                insists: false,
                certificate_bound,
            });
        }
        // Asked before the name is known, too: then any root may be the one.
        let root = match &evidence {
            Evidence::InjectedWith(_) => self.root(flow, server_name),
            _ => None,
        };
        let refused = self.refusals.refused(&workload, &service(flow, server_name));
        let insists = self.refusals.insists(flow.destination, &insistent(flow, server_name, &workload))
            || self.refusals.shows_certificate(&workload, &service(flow, server_name));
        decide(Facts {
            evidence,
            ready,
            root,
            untrusted,
            refused: refused.as_ref().map(|refused| &*refused.alert),
            insists,
            certificate_bound: server_name.is_some_and(|name| name.ends_with(".mtls.googleapis.com")),
        })
    }

    fn refused(&self, identity: &Identity, flow: &Flow, server_name: Option<&str>, alert: &str) {
        let Standing { workload, untrusted, .. } = self.standings.standing(identity, flow);
        let service = service(flow, server_name);
        self.refusals.remember(&workload, &service, alert);
        tracing::warn!(
            workload,
            service,
            alert,
            from_now_on = ?untrusted,
            "the client refused our certificate: its TLS to there is not looked into any more"
        );
    }

    fn wants_client_certificate(&self, identity: &Identity, flow: &Flow, server_name: Option<&str>) {
        let Standing { workload, .. } = self.standings.standing(identity, flow);
        self.refusals.remember_insistence(flow.destination, &insistent(flow, server_name, &workload));
        tracing::warn!(
            service = service(flow, server_name),
            "the server insists on a client's certificate: TLS to there is not looked into any more"
        );
    }

    fn shows_certificate(&self, identity: &Identity, flow: &Flow, server_name: Option<&str>) {
        let Standing { workload, .. } = self.standings.standing(identity, flow);
        let service = service(flow, server_name);
        self.refusals.remember_certificate(&workload, &service);
        tracing::warn!(
            workload,
            service,
            "the client has a certificate that the server asks for: its TLS to there is not looked into any more"
        );
    }

    /// What would work without us goes on to work: the client verifies the server by itself.
    fn cannot(
        &self,
        identity: &Identity,
        flow: &Flow,
        server_name: Option<&str>,
        reason: OpaqueReason,
        why: &str,
    ) -> Termination {
        let Standing { untrusted, .. } = self.standings.standing(identity, flow);
        let service = service(flow, server_name);
        match reason {
            OpaqueReason::NameOutsideConstraints => {
                let address = || flow.destination.ip().to_string();
                let name = server_name.map_or_else(address, ToOwned::to_owned);
                if self.outside.add(name) {
                    tracing::info!(service, why, "TLS to a name outside is not looked into");
                }
            }
            OpaqueReason::ServerNotTrusted => {
                if self.strangers.add(service.clone()) {
                    tracing::warn!(
                        service,
                        why,
                        "the server's certificate was not accepted: its TLS is not looked into"
                    );
                }
            }
            _ => tracing::info!(service, ?reason, why, "TLS is not looked into"),
        }
        undecoded(untrusted, reason, why.to_owned())
    }

    fn refuses_misdirected(&self, identity: &Identity, flow: &Flow) -> bool {
        self.standings.standing(identity, flow).misdirected == Misdirected::Deny
    }
}

/// The one workload of `run`: it was given our roots, and nobody else was.
#[derive(Debug)]
pub(crate) struct OneCgroup {
    /// Its id.
    pub(crate) id: u64,
    /// How it stands.
    pub(crate) standing: Standing,
}

impl Standings for OneCgroup {
    fn standing(&self, _: &Identity, flow: &Flow) -> Standing {
        let within = flow.cgroup_id == self.id || flow.ancestor_cgroup_ids.contains(&self.id);
        let standing = self.standing.clone();
        if within { standing } else { Standing { evidence: Evidence::Missing, ..standing } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verbatim_agent_config::Untrusted;

    fn flow(cgroup_id: u64, destination: &str) -> Flow {
        Flow {
            destination: destination.parse().expect("address"),
            cgroup_id,
            ancestor_cgroup_ids: vec![2, 1],
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

    fn authority() -> Arc<Authority> {
        Arc::new(Authority::for_run(&[]).expect("authority"))
    }

    fn judge(id: u64, untrusted: Untrusted, refusals: &Arc<Refusals>) -> Judge {
        let standing = Standing {
            workload: "w".into(),
            evidence: Evidence::Injected,
            untrusted,
            misdirected: Misdirected::Pass,
        };
        Judge::new(authority(), Arc::new(OneCgroup { id, standing }), Arc::clone(refusals), Arc::default())
    }

    const SERVER: &str = "10.0.0.1:443";

    #[test]
    fn only_what_is_in_the_runs_cgroup_was_given_our_roots() {
        let judge = judge(2, Untrusted::Splice, &Arc::default());
        let who = Identity::default();
        assert_eq!(judge.judge(&who, &flow(2, SERVER), None), Termination::Terminate);
        assert_eq!(judge.judge(&who, &flow(9, SERVER), None), Termination::Terminate);
        let elsewhere = Flow { ancestor_cgroup_ids: vec![1], ..flow(9, SERVER) };
        let expected = Termination::Splice(OpaqueReason::TrustNotInjected);
        assert_eq!(judge.judge(&who, &elsewhere, None), expected);
    }

    #[test]
    fn a_refusal_is_remembered_for_that_service_of_that_workload_alone() {
        let refusals = Arc::default();
        let judge = judge(2, Untrusted::Splice, &refusals);
        let who = Identity::default();
        judge.refused(&who, &flow(2, SERVER), Some("a.example"), "unknown_ca");
        let expected = Termination::Splice(OpaqueReason::ClientDoesNotTrustUs);
        assert_eq!(judge.judge(&who, &flow(2, "10.0.0.9:443"), Some("a.example")), expected);
        let elsewhere = flow(2, "10.0.0.9:5432");
        assert_eq!(judge.judge(&who, &elsewhere, Some("a.example")), Termination::Terminate);
        for other in [Some("b.example"), None] {
            assert_eq!(judge.judge(&who, &flow(2, SERVER), other), Termination::Terminate, "{other:?}");
        }
        judge.refused(&who, &flow(2, SERVER), None, "eof");
        assert_eq!(judge.judge(&who, &flow(2, SERVER), None), expected);
        assert_eq!(judge.judge(&who, &flow(2, "10.0.0.1:5432"), None), Termination::Terminate);
        // Another judge with the same memory, as after a restart.
        let denying = self::judge(2, Untrusted::Deny, &refusals);
        let Termination::Deny { reason, why } = denying.judge(&who, &flow(2, SERVER), Some("a.example"))
        else {
            panic!("not denied");
        };
        assert_eq!(reason, OpaqueReason::ClientDoesNotTrustUs);
        assert!(why.ends_with("unknown_ca"), "{why}");
    }

    #[test]
    fn a_server_that_insists_is_remembered_and_on_loopback_for_one_workload() {
        let refusals = Arc::default();
        let judge = judge(2, Untrusted::Splice, &refusals);
        let who = Identity::default();
        let expected = Termination::Splice(OpaqueReason::ClientCertificateRequired);
        for destination in [SERVER, "127.0.0.1:443"] {
            judge.wants_client_certificate(&who, &flow(2, destination), None);
            assert_eq!(judge.judge(&who, &flow(2, destination), None), expected);
        }
        let standing = Standing {
            workload: "other".into(),
            evidence: Evidence::Injected,
            untrusted: Untrusted::Splice,
            misdirected: Misdirected::Pass,
        };
        let standings = Arc::new(OneCgroup { id: 2, standing });
        let other = Judge::new(authority(), standings, refusals, Arc::default());
        assert_eq!(other.judge(&who, &flow(2, SERVER), None), expected);
        assert_eq!(other.judge(&who, &flow(2, "127.0.0.1:443"), None), Termination::Terminate);
    }

    #[test]
    fn a_client_with_a_certificate_of_its_own_is_left_alone_for_that_service_and_nobody_else_is() {
        let refusals = Arc::default();
        let judge = judge(2, Untrusted::Splice, &refusals);
        let who = Identity::default();
        judge.shows_certificate(&who, &flow(2, SERVER), Some("a.example"));
        let expected = Termination::Splice(OpaqueReason::ClientCertificateRequired);
        assert_eq!(judge.judge(&who, &flow(2, SERVER), Some("a.example")), expected);
        assert_eq!(judge.judge(&who, &flow(2, SERVER), Some("b.example")), Termination::Terminate);
        let standing = Standing {
            workload: "other".into(),
            evidence: Evidence::Injected,
            untrusted: Untrusted::Splice,
            misdirected: Misdirected::Pass,
        };
        let other = Judge::new(
            authority(),
            Arc::new(OneCgroup { id: 2, standing }),
            Arc::clone(&refusals),
            Arc::default(),
        );
        assert_eq!(other.judge(&who, &flow(2, SERVER), Some("a.example")), Termination::Terminate);
        let denying = self::judge(2, Untrusted::Deny, &refusals);
        let judged = denying.judge(&who, &flow(2, SERVER), Some("a.example"));
        assert!(matches!(judged, Termination::Deny { .. }), "{judged:?}");
    }

    #[test]
    fn what_cannot_end_here_passes_or_is_denied_and_names_outside_are_told() {
        let outside = Arc::<Names>::default();
        for untrusted in [Untrusted::Splice, Untrusted::Deny] {
            let standing = Standing {
                workload: "w".into(),
                evidence: Evidence::Injected,
                untrusted,
                misdirected: Misdirected::Pass,
            };
            let standings = Arc::new(OneCgroup { id: 2, standing });
            let judge = Judge::new(authority(), standings, Arc::default(), Arc::clone(&outside));
            for reason in [
                OpaqueReason::ServerNotTrusted,
                OpaqueReason::NameOutsideConstraints,
                OpaqueReason::ClientCertificateRequired,
            ] {
                let flow = flow(2, SERVER);
                let judged = judge.cannot(&Identity::default(), &flow, Some("a.example"), reason, "so");
                let expected = match untrusted {
                    Untrusted::Splice => Termination::Splice(reason),
                    Untrusted::Deny => Termination::Deny { reason, why: "so".into() },
                };
                assert_eq!(judged, expected);
                let judged = judge.cannot(&Identity::default(), &flow, None, reason, "so");
                assert_eq!(judged, expected);
            }
        }
        assert_eq!(outside.all(), ["10.0.0.1", "a.example"]);
    }

    #[test]
    fn a_workload_that_was_given_another_root_is_not_looked_into_for_its_names() {
        let authority = authority();
        let root = |name: &str| authority.root_for(&LeafName::parse(name).expect("name")).expect("root");
        let evidence = Evidence::InjectedWith(Arc::new([root("bigquery.googleapis.com")].into()));
        let standing = Standing {
            workload: "w".into(),
            evidence,
            untrusted: Untrusted::Splice,
            misdirected: Misdirected::Pass,
        };
        let standings = Arc::new(OneCgroup { id: 2, standing });
        let judge = Judge::new(Arc::clone(&authority), standings, Arc::default(), Arc::default());
        let who = Identity::default();
        let judged = |name| judge.judge(&who, &flow(2, SERVER), name);
        assert_eq!(judged(Some("bigquery.googleapis.com")), Termination::Terminate);
        // Databases' root is another, which it does not have: by address as well as by name.
        assert_eq!(judged(None), Termination::Splice(OpaqueReason::OtherRoots));
        assert_eq!(judged(Some("localhost")), Termination::Splice(OpaqueReason::OtherRoots));
    }

    #[test]
    fn only_where_the_selector_says_so_misdirected_requests_are_refused() {
        for (misdirected, refused) in [(Misdirected::Pass, false), (Misdirected::Deny, true)] {
            let standing = Standing {
                workload: "w".into(),
                evidence: Evidence::Injected,
                untrusted: Untrusted::Splice,
                misdirected,
            };
            let standings = Arc::new(OneCgroup { id: 7, standing });
            let judge = Judge::new(authority(), standings, Arc::default(), Arc::default());
            assert_eq!(judge.refuses_misdirected(&Identity::default(), &flow(7, SERVER)), refused);
        }
    }

    #[test]
    fn while_nothing_was_issued_everything_is_spliced_and_nothing_is_blamed_on_the_workload() {
        let standing = Standing {
            workload: "w".into(),
            evidence: Evidence::Injected,
            untrusted: Untrusted::Splice,
            misdirected: Misdirected::Pass,
        };
        let waiting = Arc::new(Authority::waiting().expect("authority"));
        let standings = Arc::new(OneCgroup { id: 2, standing });
        let judge = Judge::new(waiting, standings, Arc::default(), Arc::default());
        let judged = judge.judge(&Identity::default(), &flow(2, SERVER), None);
        assert_eq!(judged, Termination::Splice(OpaqueReason::NoAuthority));
    }
}
