//! One container: what is captured of it, and what stands in the way.

use serde::{Deserialize, Serialize};
use verbatim_agent_config::{Capture, Trust};
use verbatim_api::v1::Resolution;
use verbatim_kube::{ContainerTrust, NotInjected, RootId};
use verbatim_tls::Refused;

use super::AuthorityReport;
use crate::identity::{By, Known};

/// What is captured of a container.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Captured {
    /// Everything, TLS looked into.
    Everything,
    /// Everything but what the findings name.
    MostOfIt,
    /// Connections and plaintext; TLS is recorded as not decoded.
    WithoutTls,
    /// Nothing.
    Nothing,
}

/// What stands in the way.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "camelCase")]
pub(crate) enum Finding {
    /// The selector says `capture: pass`.
    PassedBySelector,
    /// The selector says `trust: none`.
    SparedBySelector,
    /// Nobody says whose it is.
    #[serde(rename_all = "camelCase")]
    Unresolved {
        /// The record's word for it.
        resolution: String,
    },
    /// It was not given our roots.
    NotInjected {
        /// Why not.
        why: NotInjected,
    },
    /// Some variables are its own.
    OwnVariables {
        /// Their names.
        names: Vec<String>,
    },
    /// It was started with roots that certificates no longer, or not yet, lead to.
    OtherRoots {
        /// Those that it lacks.
        lacks: Vec<RootId>,
        /// Whether it lacks all.
        all: bool,
    },
    /// There is nothing to end TLS with.
    NoAuthority,
    /// It has refused our certificate.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// For which service.
        service: String,
        /// By which alert.
        alert: String,
        /// When, seconds since 1970.
        since_unix_seconds: u64,
    },
}

impl Finding {
    /// Whether it is somebody's choice, and so nothing to be mended.
    fn is_chosen(&self) -> bool {
        use verbatim_inject::Skip;
        match self {
            Self::PassedBySelector | Self::SparedBySelector => true,
            Self::NotInjected { why: NotInjected::Skipped(skip) } => {
                matches!(skip, Skip::OptedOut | Skip::Windows)
            }
            _ => false,
        }
    }

    /// What it means, for a person.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::PassedBySelector => "a selector says `capture: pass`".to_owned(),
            Self::SparedBySelector => "a selector says `trust: none`".to_owned(),
            Self::Unresolved { resolution } => format!("nobody says whose it is ({resolution})"),
            Self::NotInjected { why } => format!("it was not given our roots: {why}"),
            Self::OwnVariables { names } => format!("variables of its own: {}", names.join(", ")),
            Self::OtherRoots { all: true, .. } => {
                "it was given other roots than certificates lead to now".to_owned()
            }
            Self::OtherRoots { lacks, .. } => {
                format!("it lacks {} of the roots that certificates lead to", lacks.len())
            }
            Self::NoAuthority => "there are no certificates to end TLS with".to_owned(),
            Self::Refused { service, alert, .. } => {
                format!("it refused our certificate for {service}: {alert}")
            }
        }
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::PassedBySelector | Self::SparedBySelector => "nothing, unless the selector is not meant so",
            Self::Unresolved { .. } => {
                "see that the agent reaches the API server and may list pods; a container that has just begun is named \
                 within seconds"
            }
            Self::NotInjected { why } => match why {
                NotInjected::Skipped(_) => "nothing, unless the pod is not meant so",
                NotInjected::NeverSeen => {
                    "label its namespace as the webhook's namespaceSelector says, see that the issuer is ready, then \
                     start the pod again"
                }
                NotInjected::Ephemeral => "nothing: a debugging container is recorded without its TLS",
                NotInjected::Unreadable
                | NotInjected::NotNamed
                | NotInjected::NotMounted
                | NotInjected::NoVariable => {
                    "see what changes the pod after the webhook (its reinvocationPolicy must be IfNeeded), then start \
                     it again"
                }
            },
            Self::OwnVariables { .. } => {
                "have these variables lead to a file with the cluster's roots, or leave them out; where all of its \
                 clients are known to trust us say `trust: injected` by a selector"
            }
            Self::OtherRoots { .. } => {
                "start the pod again: its processes read their roots once, before a rotation"
            }
            Self::NoAuthority => "see why the issuer gives nothing, above",
            Self::Refused { .. } => {
                "this client has roots of its own: give them the cluster's, or leave it at connections by a selector \
                 with `trust: none`; then start the pod again"
            }
        }
    }
}

/// A container.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Workload {
    /// Empty where nobody says.
    pub(crate) namespace: String,
    /// Empty where nobody says.
    pub(crate) pod: String,
    /// Empty where nobody says.
    pub(crate) container: String,
    /// Of the pod, as its cgroup bears it.
    pub(crate) pod_uid: String,
    /// Where it lives.
    pub(crate) cgroup: String,
    /// On the node's own network: its connections are those of the node.
    pub(crate) host_network: bool,
    /// How much.
    pub(crate) captured: Captured,
    /// Why not more.
    pub(crate) findings: Vec<Finding>,
}

impl Workload {
    /// Whether nothing is to be mended.
    pub(crate) fn is_well(&self) -> bool {
        self.findings.iter().all(Finding::is_chosen)
    }
}

/// Says how a container stands. `refused` are all refusals of the node.
pub(super) fn diagnose(
    known: &Known,
    host_network: bool,
    authority: Option<&AuthorityReport>,
    refused: &[(String, String, Refused)],
) -> Workload {
    let workload = &known.named.identity.workload;
    let key = known.container().unwrap_or_else(|| known.path.to_string());
    let (captured, findings) = match (known.setting.capture, authority) {
        (Capture::Pass, _) => (Captured::Nothing, vec![Finding::PassedBySelector]),
        (Capture::Steer, None) => (Captured::WithoutTls, Vec::new()),
        (Capture::Steer, Some(authority)) => {
            let refused = refused.iter().filter(|(owner, ..)| *owner == key).map(|(_, service, how)| {
                let (service, alert, since_unix_seconds) =
                    (service.clone(), how.alert.clone(), how.since_unix_seconds);
                Finding::Refused { service, alert, since_unix_seconds }
            });
            trusting(known.setting.trust, known.injection(), authority, refused.collect())
        }
    };
    let mut findings = findings;
    if known.named.by == By::Nobody {
        let resolution = workload.resolution().as_str_name().trim_start_matches("RESOLUTION_").to_lowercase();
        // What it was not given is then not known either.
        findings.retain(|finding| !matches!(finding, Finding::NotInjected { .. }));
        findings.insert(0, Finding::Unresolved { resolution });
    }
    debug_assert!(
        workload.resolution() != Resolution::Unspecified || known.named.by != By::Pod,
        "named by a pod"
    );
    Workload {
        namespace: workload.namespace.clone(),
        pod: workload.pod_name.clone(),
        container: workload.container.clone(),
        pod_uid: known.place.pod().map(|pod| pod.uid.clone()).unwrap_or_default(),
        cgroup: known.path.to_string(),
        host_network,
        captured,
        findings,
    }
}

fn trusting(
    trust: Option<Trust>,
    injection: Option<&ContainerTrust>,
    authority: &AuthorityReport,
    refused: Vec<Finding>,
) -> (Captured, Vec<Finding>) {
    let without = |finding| (Captured::WithoutTls, vec![finding]);
    let roots = match (trust, injection) {
        (Some(Trust::None), _) => return without(Finding::SparedBySelector),
        (Some(Trust::Injected), _) => None,
        (_, Some(ContainerTrust::Injected { roots })) => Some(roots),
        (_, Some(ContainerTrust::Partly { own, .. })) => {
            let names = own.iter().map(|own| own.name.clone()).collect();
            return without(Finding::OwnVariables { names });
        }
        (_, Some(ContainerTrust::NotInjected { why })) => {
            return without(Finding::NotInjected { why: why.clone() });
        }
        (_, None) => return without(Finding::NotInjected { why: NotInjected::NeverSeen }),
    };
    if !authority.ready {
        return without(Finding::NoAuthority);
    }
    let lacks = |root: &&RootId| roots.is_some_and(|roots| !roots.contains(*root));
    let lacks: Vec<_> = authority.roots.iter().filter(lacks).cloned().collect();
    let mut findings = Vec::new();
    let all = !lacks.is_empty() && lacks.len() == authority.roots.len();
    if !lacks.is_empty() {
        findings.push(Finding::OtherRoots { lacks, all });
    }
    findings.extend(refused);
    let captured = match () {
        () if all => Captured::WithoutTls,
        () if findings.is_empty() => Captured::Everything,
        () => Captured::MostOfIt,
    };
    (captured, findings)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use verbatim_inject::{Own, OwnCause, Skip};

    use super::*;

    fn root(byte: u8) -> RootId {
        RootId::of(&vec![byte; 4].into())
    }

    fn authority() -> AuthorityReport {
        AuthorityReport { ready: true, roots: vec![root(1), root(2)], until: None, failing: None }
    }

    fn given(roots: &[u8]) -> ContainerTrust {
        ContainerTrust::Injected { roots: roots.iter().map(|byte| root(*byte)).collect() }
    }

    #[test]
    fn each_reason_is_told_with_what_is_captured_all_the_same() {
        let refused = || Finding::Refused {
            service: "a:443".into(),
            alert: "unknown_ca".into(),
            since_unix_seconds: 1,
        };
        let own = ContainerTrust::Partly {
            roots: BTreeSet::new(),
            own: [Own { name: "SSL_CERT_FILE".into(), cause: OwnCause::Set }].into(),
        };
        let skipped = ContainerTrust::NotInjected { why: NotInjected::Skipped(Skip::OptedOut) };
        let unseen = Finding::NotInjected { why: NotInjected::NeverSeen };
        let lacking = |lacks: &[u8], all| Finding::OtherRoots {
            lacks: lacks.iter().map(|byte| root(*byte)).collect(),
            all,
        };
        let table = [
            (None, Some(given(&[1, 2, 9])), vec![], Captured::Everything, vec![]),
            (Some(Trust::Injected), None, vec![], Captured::Everything, vec![]),
            (None, Some(given(&[1, 2])), vec![refused()], Captured::MostOfIt, vec![refused()]),
            (None, Some(given(&[1])), vec![], Captured::MostOfIt, vec![lacking(&[2], false)]),
            (None, Some(given(&[8])), vec![], Captured::WithoutTls, vec![lacking(&[1, 2], true)]),
            (None, None, vec![], Captured::WithoutTls, vec![unseen]),
            (
                Some(Trust::None),
                Some(given(&[1, 2])),
                vec![],
                Captured::WithoutTls,
                vec![Finding::SparedBySelector],
            ),
            (
                Some(Trust::ByInjection),
                Some(own),
                vec![],
                Captured::WithoutTls,
                vec![Finding::OwnVariables { names: vec!["SSL_CERT_FILE".into()] }],
            ),
            (
                None,
                Some(skipped),
                vec![],
                Captured::WithoutTls,
                vec![Finding::NotInjected { why: NotInjected::Skipped(Skip::OptedOut) }],
            ),
        ];
        for (trust, injection, refused, captured, findings) in table {
            let found = trusting(trust, injection.as_ref(), &authority(), refused);
            assert_eq!(found, (captured, findings), "{trust:?} {injection:?}");
            assert!(found.1.iter().all(|finding| !finding.text().is_empty() && !finding.advice().is_empty()));
        }
        let waiting = AuthorityReport { ready: false, ..authority() };
        let found = trusting(None, Some(&given(&[1, 2])), &waiting, vec![]);
        assert_eq!(found, (Captured::WithoutTls, vec![Finding::NoAuthority]));
    }
}
