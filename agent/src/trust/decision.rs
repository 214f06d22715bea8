//! The decision, from facts alone.

use std::{collections::BTreeSet, sync::Arc};

use verbatim_api::v1::OpaqueReason;
use verbatim_proxy::seam::Termination;
use verbatim_tls::RootId;

use verbatim_agent_config::{Misdirected, Untrusted};

/// What says that a workload trusts our authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It was given our roots.
    Injected,
    /// It was given these, as its pod says.
    InjectedWith(Arc<BTreeSet<RootId>>),
    /// Nothing.
    Missing,
    /// It is not to be looked into.
    Spared,
}

/// How a workload stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Names it for as long as it lives, also across restarts of the agent.
    pub(crate) workload: String,
    pub(crate) evidence: Evidence,
    pub(crate) untrusted: Untrusted,
    pub(crate) misdirected: Misdirected,
}

/// What is known before a handshake.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) evidence: Evidence,
    /// Whether there is anything to end TLS with.
    pub(crate) ready: bool,
    /// The root that our certificate for this service would lead to, where it may have one.
    pub(crate) root: Option<RootId>,
    pub(crate) untrusted: Untrusted,
    /// The alert by which the workload has refused our certificate for this service.
    pub(crate) refused: Option<&'a str>,
    /// The server insists on a client's certificate, or asks for one and this client has one.
    pub(crate) insists: bool,
    /// The name is for clients that prove themselves by a certificate, as those do whose tokens are bound to one.
    pub(crate) certificate_bound: bool,
}

/// What is to become of a connection.
pub(crate) fn decide(facts: Facts<'_>) -> Termination {
    let (reason, why) = match facts {
        Facts { evidence: Evidence::Spared, .. } => (
            OpaqueReason::BySelector,
            "the selector says that this workload's TLS is not looked into".to_owned(),
        ),
        Facts { evidence: Evidence::Missing, .. } => (
            OpaqueReason::TrustNotInjected,
            "nothing says that this workload trusts our authority".to_owned(),
        ),
        Facts { ready: false, .. } => (
            OpaqueReason::NoAuthority,
            "there is no certificate to end it with: the issuer has given none, or not in time".to_owned(),
        ),
        Facts { evidence: Evidence::InjectedWith(roots), root: Some(root), .. } if !roots.contains(&root) => {
            (
                OpaqueReason::OtherRoots,
                "this workload was given other roots than the one that our certificate leads to".to_owned(),
            )
        }
        Facts { refused: Some(alert), .. } => (
            OpaqueReason::ClientDoesNotTrustUs,
            format!("this workload has refused our certificate for this service: {alert}"),
        ),
        Facts { certificate_bound: true, .. } => (
            OpaqueReason::CertificateBound,
            "this name is for clients that prove themselves by a certificate, with tokens that are bound to it; \
             GOOGLE_API_ENABLE_RUNTIME_BOUND_TOKEN=false makes Google's libraries ask for others"
                .to_owned(),
        ),
        Facts { insists: true, .. } => (
            OpaqueReason::ClientCertificateRequired,
            "this server wants a certificate that only the client has".to_owned(),
        ),
        Facts {
            evidence: Evidence::Injected | Evidence::InjectedWith(_),
            refused: None,
            insists: false,
            certificate_bound: false,
            ..
        } => {
            return Termination::Terminate;
        }
    };
    undecoded(facts.untrusted, reason, why)
}

/// What becomes of TLS that cannot be looked into.
pub(crate) fn undecoded(untrusted: Untrusted, reason: OpaqueReason, why: String) -> Termination {
    match untrusted {
        Untrusted::Splice => Termination::Splice(reason),
        Untrusted::Deny => Termination::Deny { reason, why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_certificate_bound_tokens_is_left_to_the_workload() {
        let facts = |evidence, untrusted| Facts {
            evidence,
            ready: true,
            root: None,
            untrusted,
            refused: None,
            insists: false,
            certificate_bound: true,
        };
        let spliced = decide(facts(Evidence::Injected, Untrusted::Splice));
        assert_eq!(spliced, Termination::Splice(OpaqueReason::CertificateBound));
        let Termination::Deny { reason, why } = decide(facts(Evidence::Injected, Untrusted::Deny)) else {
            panic!("not denied");
        };
        assert_eq!(reason, OpaqueReason::CertificateBound);
        assert!(why.contains("GOOGLE_API_ENABLE_RUNTIME_BOUND_TOKEN=false"), "{why}");
        let without = decide(facts(Evidence::Missing, Untrusted::Splice));
        assert_eq!(without, Termination::Splice(OpaqueReason::TrustNotInjected));
    }

    #[test]
    fn tls_ends_here_only_where_trust_is_evidenced_and_nobody_objected() {
        use Evidence::{Injected, InjectedWith, Missing, Spared};
        use OpaqueReason as Why;
        let ca = Some("unknown_ca");
        let root = |certificate: u8| RootId::of(&vec![certificate; 4].into());
        let with = InjectedWith(Arc::new(BTreeSet::from([root(1), root(2)])));
        let (ours, newer) = (Some(root(1)), Some(root(3)));
        let table = [
            (Injected, &ours, None, false, None),
            (Injected, &newer, ca, false, Some(Why::ClientDoesNotTrustUs)),
            (Injected, &newer, None, true, Some(Why::ClientCertificateRequired)),
            (Injected, &None, ca, true, Some(Why::ClientDoesNotTrustUs)),
            (with.clone(), &ours, None, false, None),
            // A name that we may not vouch for has a reason of its own, later.
            (with.clone(), &None, None, false, None),
            (with.clone(), &ours, ca, false, Some(Why::ClientDoesNotTrustUs)),
            (with, &newer, None, false, Some(Why::OtherRoots)),
            (Missing, &ours, None, false, Some(Why::TrustNotInjected)),
            (Missing, &ours, ca, true, Some(Why::TrustNotInjected)),
            (Spared, &ours, None, false, Some(Why::BySelector)),
            (Spared, &ours, ca, true, Some(Why::BySelector)),
        ];
        for (evidence, root, refused, insists, expected) in table {
            let facts = |untrusted| Facts {
                evidence: evidence.clone(),
                ready: true,
                root: root.clone(),
                untrusted,
                refused,
                insists,
                certificate_bound: false,
            };
            let spliced = decide(facts(Untrusted::Splice));
            assert_eq!(spliced, expected.map_or(Termination::Terminate, Termination::Splice), "{evidence:?}");
            match (decide(facts(Untrusted::Deny)), expected) {
                (Termination::Terminate, None) => {}
                (Termination::Deny { reason, why }, Some(expected)) => {
                    assert_eq!(reason, expected);
                    assert!(
                        refused.is_none()
                            || reason != Why::ClientDoesNotTrustUs
                            || why.contains("unknown_ca")
                    );
                }
                other => panic!("{evidence:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn without_an_authority_what_trusts_us_is_spliced_and_recorded_so() {
        let decided = |evidence| {
            let untrusted = Untrusted::Splice;
            decide(Facts {
                evidence,
                ready: false,
                root: None,
                untrusted,
                refused: None,
                insists: false,
                certificate_bound: false,
            })
        };
        let reason = Termination::Splice(OpaqueReason::NoAuthority);
        assert_eq!(decided(Evidence::Injected), reason);
        assert_eq!(decided(Evidence::InjectedWith(Arc::default())), reason);
        assert_eq!(decided(Evidence::Missing), Termination::Splice(OpaqueReason::TrustNotInjected));
    }
}
