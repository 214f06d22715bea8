//! The decision, from facts alone.

use verbatim_api::v1::OpaqueReason;
use verbatim_proxy::seam::Termination;

use verbatim_agent_config::Untrusted;

/// What says that a workload trusts our authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It was given our roots.
    Injected,
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
}

/// What is known before a handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) evidence: Evidence,
    pub(crate) untrusted: Untrusted,
    /// The alert by which the workload has refused our certificate for this service.
    pub(crate) refused: Option<&'a str>,
    /// The server insists on a client's certificate.
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
            "this server insists on a certificate that only the client has".to_owned(),
        ),
        Facts { evidence: Evidence::Injected, refused: None, insists: false, certificate_bound: false, .. } => {
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
        use Evidence::{Injected, Missing, Spared};
        use OpaqueReason as Why;
        let ca = Some("unknown_ca");
        let table = [
            (Injected, None, false, None),
            (Injected, ca, false, Some(Why::ClientDoesNotTrustUs)),
            (Injected, None, true, Some(Why::ClientCertificateRequired)),
            (Injected, ca, true, Some(Why::ClientDoesNotTrustUs)),
            (Missing, None, false, Some(Why::TrustNotInjected)),
            (Missing, ca, true, Some(Why::TrustNotInjected)),
            (Spared, None, false, Some(Why::BySelector)),
            (Spared, ca, true, Some(Why::BySelector)),
        ];
        for (evidence, refused, insists, expected) in table {
            let facts = |untrusted| Facts { evidence, untrusted, refused, insists, certificate_bound: false };
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
}
