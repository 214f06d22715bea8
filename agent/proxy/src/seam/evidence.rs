//! Whose the credentials are that a workload presents, and on whose behalf it acts, as the proxy is told.

use std::sync::Arc;

use http::request;
use verbatim_api::v1;
use verbatim_wire::seam::{Command, Issued};
use zeroize::Zeroizing;

use super::{Flow, Identity};

/// What a command proves beyond its text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proof {
    /// What was presented; never a credential itself.
    pub credentials: Vec<v1::Credential>,
    /// What they come to.
    pub matches: v1::CredentialMatch,
    /// What is remarkable about all of it.
    pub findings: Vec<v1::CommandFinding>,
    /// Everyone who was named, the best proven first.
    pub on_behalf_of: Vec<v1::OnBehalfOf>,
    /// The best of them.
    pub behalf: v1::BehalfKind,
    /// Where the command belongs.
    pub trace: Option<v1::Trace>,
}

/// Who presents something.
#[derive(Clone, Copy, Debug)]
pub struct Whom<'a> {
    /// By name.
    pub identity: &'a Identity,
    /// The connection.
    pub flow: &'a Flow,
}

/// What the start of a database session told.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// Database user; empty where nobody was named.
    pub user: &'a str,
    /// What the client calls itself.
    pub application_name: &'a [u8],
    /// The server has let the client in.
    pub accepted: bool,
}

/// The credentials of a connection's last request, for clients that show the same ones again and again.
pub struct Remembered {
    /// They, as they stood in its head.
    pub shown: Zeroizing<Vec<u8>>,
    /// What was known of issued tokens then.
    pub generation: u64,
    /// What they prove.
    pub proof: Arc<Proof>,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").field("proof", &self.proof).finish_non_exhaustive()
    }
}

/// Knows whose a credential is. Called on the shard's thread for each request and command: must not block.
pub trait Evidence: Send + Sync + 'static {
    /// What a request's head proves. `host`: in lower case, without port. `last` is the connection's.
    fn of_request(
        &self,
        whom: Whom<'_>,
        head: &request::Parts,
        host: &str,
        last: &mut Option<Remembered>,
    ) -> Arc<Proof>;

    /// What a session's start proves.
    fn of_session(&self, whom: Whom<'_>, session: Session<'_>) -> Proof;

    /// What a command proves together with its request or session. `None`: it adds nothing to `base`.
    fn of_command(&self, whom: Whom<'_>, base: &Proof, command: &Command) -> Option<Proof>;

    /// Tokens were issued by the answer to the command of this STARTED record (`command_id`; empty where it was
    /// shed), which `findings` were about. Called before the client has them.
    fn issued(&self, whom: Whom<'_>, command_id: &[u8], findings: &[v1::CommandFinding], issued: &[Issued]);
}

/// Looks at nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvidence;

impl Evidence for NoEvidence {
    fn of_request(&self, _: Whom<'_>, _: &request::Parts, _: &str, _: &mut Option<Remembered>) -> Arc<Proof> {
        Arc::default()
    }
    fn of_session(&self, _: Whom<'_>, _: Session<'_>) -> Proof {
        Proof::default()
    }
    fn of_command(&self, _: Whom<'_>, _: &Proof, _: &Command) -> Option<Proof> {
        None
    }
    fn issued(&self, _: Whom<'_>, _: &[u8], _: &[v1::CommandFinding], _: &[Issued]) {}
}
