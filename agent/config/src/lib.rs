//! The node agent's configuration file: its shape, and what its values may be.
//!
//! Owns the YAML's keys (camelCase, unknown ones denied) and the checks of one file. Knows nothing of what
//! is done with it, and so depends on no part of the agent.

mod check;
mod evidence;
mod kubernetes;
mod pattern;
mod selecting;
mod tls;
mod values;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

pub use evidence::{Credentials, FingerprintKey, Issuer, Jwks, OnBehalfOf, Tokeninfo};
pub use kubernetes::Kubernetes;
pub use pattern::{Captures, Pattern, PatternError};
pub use selecting::{Action, Capture, Destination, Existing, FailMode, Match, Selector, Setting};
pub use tls::{
    Authority, ClusterIssuer, Ephemeral, Intermediate, Misdirected, Termination, Trust, Untrusted,
    UpstreamRoots,
};
pub use values::{Cidr, Template, ValueError};
pub use verbatim_config::{ByteSize, ConfigError, Span};

/// Reads and checks a file.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(path: &Path) -> Result<NodeAgent, ConfigError> {
    checked(verbatim_config::load(path)?, path)
}

/// Reads and checks a text; `path` is for errors.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse(text: &str, path: &Path) -> Result<NodeAgent, ConfigError> {
    checked(verbatim_config::parse(text, path)?, path)
}

fn checked(config: NodeAgent, path: &Path) -> Result<NodeAgent, ConfigError> {
    match check::check(&config) {
        Ok(()) => Ok(config),
        Err(problem) => Err(ConfigError::Contradiction { path: path.to_owned(), problem }),
    }
}

/// A whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeAgent {
    /// Version of this format.
    pub api_version: ApiVersion,
    /// What the file configures.
    pub kind: Kind,
    /// Name of this node in records; the machine's host name where it is absent.
    pub node: Option<String>,
    /// Where the programs are attached.
    #[serde(default)]
    pub attach: Attach,
    /// Where the workloads' network namespaces are found.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// Which connections are steered; the longest prefix decides, the exact port before any port.
    pub destinations: Vec<Destination>,
    /// What to do with which workload; the first that matches decides.
    pub selectors: Vec<Selector>,
    /// Where pods are named by the API server; where it is absent, only `identities` name anybody.
    pub kubernetes: Option<Kubernetes>,
    /// Who a workload is, whatever the API server says; the first that matches decides.
    #[serde(default)]
    pub identities: Vec<IdentityRule>,
    /// Where records wait for the collector.
    pub spool: Spool,
    /// Where records go.
    pub collector: Collector,
    /// How TLS is looked into; where it is absent, TLS passes as it is.
    pub tls: Option<Termination>,
    /// Threads that relay, 1 to 64; the machine's cores, 4 at most, where it is absent.
    pub shards: Option<u16>,
    /// Limits of what is kept of one command or connection.
    #[serde(default)]
    pub limits: Limits,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
    /// After SIGTERM or a take-over: how long open connections may go on.
    #[serde(default = "default_drain")]
    pub drain_deadline: Span,
    /// What becomes of steering when the agent is told to end and nobody takes over.
    #[serde(default)]
    pub when_stopped: WhenStopped,
    /// What the agent does that was taken over and has drained.
    #[serde(default)]
    pub when_succeeded: WhenSucceeded,
    /// Folder of this node's agent, root's alone: where a successor, and who gives orders, finds it.
    #[serde(default = "default_run_directory")]
    pub run_directory: PathBuf,
    /// Whether a person may have steering stopped for a time.
    #[serde(default)]
    pub bypass: Bypass,
    /// Where metrics and health are; nowhere where it is absent.
    pub metrics: Option<Metrics>,
    /// How credentials are looked at.
    #[serde(default)]
    pub credentials: Credentials,
    /// Whose word counts about on whose behalf a workload acts.
    #[serde(default)]
    pub on_behalf_of: OnBehalfOf,
}

/// Where an agent is found that says nothing else.
#[must_use]
pub fn default_run_directory() -> PathBuf {
    "/run/verbatim".into()
}

/// Whether a person may have steering stopped for a time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bypass {
    /// At all.
    #[serde(default = "default_true")]
    pub enabled: bool,
    /// At most for so long at once.
    #[serde(default = "default_bypass")]
    pub maximum: Span,
}

impl Default for Bypass {
    fn default() -> Self {
        Self { enabled: true, maximum: default_bypass() }
    }
}

fn default_bypass() -> Span {
    Span(Duration::from_secs(3600))
}

/// Metrics and health.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metrics {
    /// Address and port, of the node's own network namespace.
    pub listen: SocketAddr,
}

/// See [`NodeAgent::when_stopped`].
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum WhenStopped {
    /// Nothing is steered any more.
    #[default]
    Detach,
    /// The programs stay, and each selector's `failMode` decides until an agent comes back or
    /// `verbatim-agent uninstall` removes them.
    FailMode,
}

/// See [`NodeAgent::when_succeeded`].
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum WhenSucceeded {
    /// It ends, with 0.
    #[default]
    End,
    /// It waits until it is told to end. For whoever is started again when it ends, as a container of a DaemonSet is:
    /// it would take over from its own successor.
    Wait,
}

fn default_drain() -> Span {
    Span(Duration::from_secs(30))
}

/// The one version that there is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum ApiVersion {
    /// `verbatim.v1`.
    #[serde(rename = "verbatim.v1")]
    V1,
}

/// The one kind that there is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Kind {
    /// `NodeAgent`.
    NodeAgent,
}

/// Where the programs are attached.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attach {
    /// A cgroup, relative to where cgroup v2 is mounted: what lives outside is never steered. Absent: all.
    pub cgroup: Option<PathBuf>,
    /// Folder of a BPF file system in which programs and maps outlive the agent.
    #[serde(default = "default_pins")]
    pub pins: PathBuf,
}

impl Default for Attach {
    fn default() -> Self {
        Self { cgroup: None, pins: default_pins() }
    }
}

fn default_pins() -> PathBuf {
    "/sys/fs/bpf/verbatim".into()
}

/// Where the workloads' network namespaces are found.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespaces {
    /// Folder that holds them, as `ip netns` and container runtimes make it.
    #[serde(default = "default_namespaces")]
    pub directory: PathBuf,
    /// Which of them, e.g. `cni-*`.
    #[serde(default = "default_namespace_pattern")]
    pub pattern: Pattern,
    /// Whether workloads in the node's own namespace are steered too.
    #[serde(default = "default_true")]
    pub host: bool,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self { directory: default_namespaces(), pattern: default_namespace_pattern(), host: true }
    }
}

fn default_namespaces() -> PathBuf {
    "/run/netns".into()
}

fn default_namespace_pattern() -> Pattern {
    Pattern::any()
}

fn default_true() -> bool {
    true
}

/// Who the workloads of some cgroups are. Values may hold captures of the pattern, as `{name}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentityRule {
    /// Which.
    pub cgroup: Pattern,
    /// Google Cloud project number that the workload identity pool belongs to.
    pub project_number: u64,
    /// Workload identity pool, e.g. `my-project.svc.id.goog`.
    pub pool: String,
    /// Kubernetes namespace.
    pub namespace: Template,
    /// Kubernetes service account.
    pub service_account: Template,
    /// Pod, where it is known.
    #[serde(default)]
    pub pod: Pod,
    /// Container, where it is known.
    pub container: Option<Template>,
}

/// A pod's names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    /// `metadata.name`.
    pub name: Option<Template>,
    /// `metadata.uid`; underscores of a systemd slice are read as the dashes that they stand for.
    pub uid: Option<Template>,
}

/// Where records wait for the collector.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spool {
    /// A folder of its own, on a disk that survives a restart.
    pub directory: PathBuf,
    /// When a record counts as safe.
    #[serde(default)]
    pub sync: Sync,
    /// Size of a segment file.
    #[serde(default = "default_segment")]
    pub segment_size: ByteSize,
    /// Of all segments together.
    #[serde(default = "default_limit")]
    pub limit: ByteSize,
    /// At the limit.
    #[serde(default)]
    pub when_full: WhenFull,
}

fn default_segment() -> ByteSize {
    ByteSize(8 * 1024 * 1024)
}

fn default_limit() -> ByteSize {
    ByteSize(1024 * 1024 * 1024)
}

/// See [`Spool::sync`].
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Sync {
    /// Survives the agent's death, not a loss of power.
    #[default]
    Process,
    /// Survives a loss of power; a command waits for its group's sync.
    Group,
}

/// See [`Spool::when_full`].
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum WhenFull {
    /// Nothing is forwarded until there is room.
    #[default]
    Stop,
    /// Forwarded unrecorded, and a gap record says how many.
    Shed,
}

/// Where records go.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Collector {
    /// `unix:/path`, or `https://host:port` with `tls`.
    pub address: String,
    /// Certificates for `https`.
    pub tls: Option<Tls>,
}

/// Files of the mutual TLS between node and collector.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// Roots that the collector's certificate must lead to, PEM.
    pub ca: PathBuf,
    /// This node's certificate with its chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// Whether the certificate is the one that `tls.authority.issuer` gives, instead of these two files.
    #[serde(default)]
    pub issuer: bool,
    /// Name in the collector's certificate, where it is not the address's host.
    pub server_name: Option<String>,
}

/// Limits of what is kept.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Of one statement, and of all parameters of a command together.
    pub capture: Option<ByteSize>,
    /// Connections of one shard; at this many it accepts no more until one ends.
    pub connections_per_shard: Option<u32>,
    /// How long a dial to a server may take.
    pub dial_timeout: Option<Span>,
}

/// What is logged.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Log {
    /// e.g. `info`, or `warn,verbatim_proxy=debug`.
    pub level: Option<String>,
    /// One line of text or of JSON.
    #[serde(default)]
    pub format: LogFormat,
}

/// See [`Log::format`].
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}
