//! Whose TLS is ended here, as the proxy is told.

use std::{net::SocketAddr, sync::Arc};

use verbatim_api::v1;
use verbatim_tls::{Authority, Downstream, Upstream};
use verbatim_wire::postgres::Verifier;

use super::{Flow, Identity};

/// What TLS is ended with. Without it all TLS passes as it is.
pub struct Tls {
    /// Vouches for names toward the workload.
    pub authority: Arc<Authority>,
    /// The leg toward the server.
    pub upstream: Arc<Upstream>,
    /// The leg toward the workload.
    pub downstream: Arc<Downstream>,
    /// Says whose TLS is ended, and is told who does not trust us.
    pub trust: Arc<dyn Trust>,
    /// What is known of the passwords of PostgreSQL's roles.
    pub verifiers: Arc<dyn KnownVerifiers>,
}

/// Knows what servers keep of their roles' passwords.
pub trait KnownVerifiers: Send + Sync + 'static {
    /// Of a role (its name as the client gives it) on a server: where the workload dialled, and the server name
    /// indication of its TLS (RFC 6066 section 3), where it sent one. Called on the shard's thread: must not block.
    fn find(&self, destination: SocketAddr, server_name: Option<&str>, user: &[u8]) -> Option<Arc<Verifier>>;
}

/// Knows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoVerifiers;

impl KnownVerifiers for NoVerifiers {
    fn find(&self, _: SocketAddr, _: Option<&str>, _: &[u8]) -> Option<Arc<Verifier>> {
        None
    }
}

/// What is to become of a connection that asks for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Termination {
    /// End it here, on both legs.
    Terminate,
    /// Pass it on as it is, recorded with the reason.
    Splice(v1::OpaqueReason),
    /// Refuse it by an alert, recorded with the reason.
    Deny {
        /// Why it cannot be, or is not to be, ended here.
        reason: v1::OpaqueReason,
        /// For the record: one line.
        why: String,
    },
}

/// Knows which workloads trust us, and for which names.
///
/// `server_name` is the server name indication of the client (RFC 6066 section 3) in lower case; `None` where it
/// sent none, and the name is the destination's address. Called on the shard's thread: must not block.
pub trait Trust: Send + Sync + 'static {
    /// Asked for each connection whose client wants TLS, when its ClientHello was read whole; for protocols
    /// that ask for TLS in their own way also before, with no name, to know whether that is of interest.
    fn judge(&self, identity: &Identity, flow: &Flow, server_name: Option<&str>) -> Termination;

    /// A client refused our certificate: by this alert (RFC 8446 section 6.2, e.g. `unknown_ca`), or `eof`. From
    /// then on [`Trust::judge`] is expected to splice or deny, as the selector says.
    fn refused(&self, identity: &Identity, flow: &Flow, server_name: Option<&str>, alert: &str);

    /// The server insists on a client's certificate, which we do not have. From then on [`Trust::judge`] is
    /// expected to splice or deny, as the selector says, with `CLIENT_CERTIFICATE_REQUIRED`.
    fn wants_client_certificate(&self, identity: &Identity, flow: &Flow, server_name: Option<&str>);

    /// The server asked for a client's certificate, and this client has one. We cannot show it upstream, so whatever the
    /// server makes of it is lost: from then on [`Trust::judge`] is expected to splice or deny, as the selector says,
    /// this workload's connections to this service, with `CLIENT_CERTIFICATE_REQUIRED`.
    fn shows_certificate(&self, identity: &Identity, flow: &Flow, server_name: Option<&str>);

    /// The connection cannot be ended here for this reason, and nothing was answered yet: splice it after all,
    /// or deny it? By default a server whose certificate was not accepted is denied to the client, and
    /// everything else is spliced: it would work without us.
    fn cannot(
        &self,
        identity: &Identity,
        flow: &Flow,
        server_name: Option<&str>,
        reason: v1::OpaqueReason,
        why: &str,
    ) -> Termination {
        let _unused = (identity, flow, server_name);
        match reason {
            v1::OpaqueReason::ServerNotTrusted => Termination::Deny { reason, why: why.to_owned() },
            reason => Termination::Splice(reason),
        }
    }

    /// Whether a request within TLS that names another host than TLS was made for (RFC 9110 section 7.4) is refused with
    /// 421 instead of going on with a finding.
    fn refuses_misdirected(&self, identity: &Identity, flow: &Flow) -> bool {
        let _unused = (identity, flow);
        false
    }

    /// Whether a connection that its client begins without TLS must have TLS toward the server all the same.
    /// Where an earlier connection of the same workload to the same destination had it, it must have it in any
    /// case.
    fn upstream_tls_required(&self, identity: &Identity, flow: &Flow) -> bool {
        let _unused = (identity, flow);
        false
    }
}
