//! The keys of the configuration that say whose TLS ends here, under which authority, and who is believed.

use std::path::PathBuf;

use serde::Deserialize;

/// How TLS is looked into.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Termination {
    /// Who vouches for servers toward the workloads.
    pub authority: Authority,
    /// Who is believed to vouch for servers.
    #[serde(default)]
    pub upstream_roots: UpstreamRoots,
    /// Who has refused our certificates, kept across restarts.
    pub state_file: PathBuf,
    /// What PostgreSQL servers keep of their roles' passwords; its owner's alone, read again when it changes.
    pub verifier_file: Option<PathBuf>,
}

/// Certificates that were issued elsewhere, ones that are made at start, or ones that the cluster's issuer gives.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authority {
    /// Files with the roots that workloads were given, PEM.
    #[serde(default)]
    pub roots: Vec<PathBuf>,
    /// What signs: of this node, constrained as the roots are.
    #[serde(default)]
    pub intermediates: Vec<Intermediate>,
    /// Instead of both: made at each start.
    pub ephemeral: Option<Ephemeral>,
    /// Instead of all that: given by the cluster's issuer, and again before they expire.
    pub issuer: Option<ClusterIssuer>,
}

/// The cluster's issuer, as this node's agent reaches it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterIssuer {
    /// `HOST:PORT`.
    pub address: String,
    /// Name in its certificate, where it is not the address's host.
    pub server_name: Option<String>,
    /// Roots that its certificate must lead to, PEM; read at each request.
    pub ca: PathBuf,
    /// The agent's projected token, bound to its pod, for the issuer as audience; read at each request.
    pub token_file: PathBuf,
}

/// One of this node's certificates that sign.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intermediate {
    /// PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// An authority for a machine that nobody issues one for: a laboratory, a single host. Its roots are others
/// after each start, so what trusts them must be started afterwards.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ephemeral {
    /// Where `bundle.pem` and `truststore.p12` are written for the workloads; must not exist, or be the agent's
    /// own.
    pub directory: PathBuf,
    /// Names and address ranges that it may vouch for, beside API names and private ranges.
    #[serde(default)]
    pub names: Vec<String>,
}

/// Who is believed to vouch for servers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamRoots {
    /// The roots of this machine.
    #[serde(default = "super::default_true")]
    pub system: bool,
    /// Files with further roots, PEM.
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

impl Default for UpstreamRoots {
    fn default() -> Self {
        Self { system: true, files: Vec::new() }
    }
}

/// Whether a workload trusts the authority of `tls`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Trust {
    /// It was given the roots: its TLS is looked into.
    Injected,
    /// It was not, or is to be spared: its TLS passes as it is.
    None,
    /// Its pod says so, container by container, and by which roots: for pods that the cluster's webhook gives them.
    ByInjection,
}

/// What becomes of a request that names another host than the TLS around it was made for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Misdirected {
    /// It goes on, recorded with a finding.
    #[default]
    Pass,
    /// It is answered 421, recorded as denied.
    Deny,
}

/// What becomes of TLS that cannot be looked into.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Untrusted {
    /// It passes as it is, recorded with the reason.
    #[default]
    Splice,
    /// It is refused, recorded with the reason.
    Deny,
}
