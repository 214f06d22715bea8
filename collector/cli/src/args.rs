//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Ask what workloads did on data services: who, what, and whether it was allowed.
#[derive(Debug, Parser)]
#[command(
    name = "verbatim",
    version,
    after_help = "Exit codes: 0 answered, 1 failed, 2 wrong usage, 3 collector not reached or refused, 4 no such record, \
                  5 the sums of coverage disagree."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) source: Source,
    /// How answers are written.
    #[arg(long, short, value_enum, default_value_t = Output::Table, global = true)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Where records are.
#[derive(Debug, ClapArgs)]
pub(crate) struct Source {
    /// Folder that `verbatim-agent run --data DIR` left; no collector needs to run.
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "collector")]
    pub(crate) data: Option<PathBuf>,
    /// Audit listener of a collector: unix:PATH or https://HOST:PORT.
    #[arg(long, value_name = "ADDRESS", env = "VERBATIM_COLLECTOR", global = true)]
    pub(crate) collector: Option<String>,
    /// Certificates of the authority that signed the collector's certificate (PEM).
    #[arg(long, value_name = "FILE", env = "VERBATIM_TLS_CA", global = true)]
    pub(crate) tls_ca: Option<PathBuf>,
    /// This client's certificate (PEM).
    #[arg(long, value_name = "FILE", env = "VERBATIM_TLS_CERTIFICATE", global = true)]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// This client's private key (PEM).
    #[arg(long, value_name = "FILE", env = "VERBATIM_TLS_KEY", global = true)]
    pub(crate) tls_key: Option<PathBuf>,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns for a person; cut to the terminal's width.
    Table,
    /// One JSON object a line, nothing cut; what could steer a terminal stands as `\uXXXX`.
    Json,
    /// RFC 4180 with a header, nothing cut or changed, but on a terminal made harmless for it; what a workload wrote
    /// may be a formula to a spreadsheet, so import it as text.
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Commands, newest first.
    Records(Records),
    /// One command with every record that belongs to it.
    Show {
        /// Record id, as `records` shows it.
        id: String,
    },
    /// Commands as they end, until interrupted.
    Tail(Tail),
    /// Connections and how much was done on them.
    Sessions(Sessions),
    /// What is wrong with the chains of records.
    Findings(Page),
    /// What the kernel counted beside what is recorded, and whether the sums agree.
    Coverage(Coverage),
    /// What agents did not capture or refused, as it happened, and what they tell of themselves.
    Events(Events),
    /// Delete the contents of commands for privacy; envelopes and proofs stay.
    DeleteContent {
        /// Record ids, as `records` shows them.
        #[arg(required = true)]
        ids: Vec<String>,
        /// Kept beside the deletion.
        #[arg(long)]
        reason: String,
    },
    /// Completion script for a shell, on standard output.
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Records {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) page: Page,
    /// Oldest first.
    #[arg(long)]
    pub(crate) oldest_first: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Tail {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Show commands when they start, too.
    #[arg(long)]
    pub(crate) started: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Sessions {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Coverage {
    /// Counted from this time on: 2026-11-24T10:00:00Z, or so long ago: 90m, 2h, 7d.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// On this node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Principal, NAMESPACE/SERVICE-ACCOUNT, pod's name or UID, or cgroup id.
    #[arg(long, value_name = "NAME")]
    pub(crate) workload: Option<String>,
    /// As --output json.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Events {
    /// attached, detached, missed, no-flow, stragglers-killed, bypass-began, bypass-ended, programs-lost,
    /// programs-restored, denied, stale-denied, stale-passed, bound-to-device, unrouted-connected, no-memory,
    /// bind-denied, quic-denied, quic-passed, socket-denied, stray, stray-dropped, stray-ended, diverted,
    /// events-suppressed.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) event: Vec<String>,
    /// On this node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Principal, NAMESPACE/SERVICE-ACCOUNT, pod's name or UID, or cgroup id.
    #[arg(long, value_name = "NAME")]
    pub(crate) workload: Option<String>,
    /// From this time on: 2026-11-24T10:00:00Z, or so long ago: 90m, 2h, 7d.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Before this time; same forms.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Oldest first.
    #[arg(long)]
    pub(crate) oldest_first: bool,
    #[command(flatten)]
    pub(crate) page: Page,
}

/// How much of an answer.
#[derive(Debug, ClapArgs)]
pub(crate) struct Page {
    /// At most so many rows.
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) limit: u32,
    /// Go on where an earlier answer stopped.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
}

/// What is asked for; all conditions must hold.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct FilterArgs {
    /// Federated principal or local:HOST/USER.
    #[arg(long, value_name = "NAME")]
    pub(crate) principal: Option<String>,
    /// Kubernetes namespace.
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Kubernetes service account.
    #[arg(long, value_name = "NAME")]
    pub(crate) service_account: Option<String>,
    /// Pod name or UID.
    #[arg(long, value_name = "NAME")]
    pub(crate) pod: Option<String>,
    /// Cluster: projects/PROJECT/locations/LOCATION/clusters/CLUSTER.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// What the pod belongs to in the end: Deployment/NAME, CronJob/NAME, DaemonSet/NAME, ...
    #[arg(long, value_name = "KIND/NAME")]
    pub(crate) owner: Option<String>,
    /// How the workload was named: given, rule, pod, container-unknown; or why it was not: not-a-container,
    /// pod-unknown, no-api-server, cgroup-gone.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) resolution: Vec<String>,
    /// Data service, e.g. postgresql, bigquery.
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Database.
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// The API's method, e.g. bigquery.jobs.query.
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,
    /// What the command acts on, as the API names it, e.g. projects/P/datasets/D/tables/T.
    #[arg(long, value_name = "NAME")]
    pub(crate) resource: Option<String>,
    /// HTTP status of the answer, e.g. 403.
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(100..=999))]
    pub(crate) http_status: Vec<u32>,
    /// host-mismatch, credential-of-another, shared-key, credential-of-a-person, on-behalf-of-rejected.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) finding: Vec<String>,
    /// Whether what the client presented is the workload's own: yes, no, unknown.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) credential_match: Vec<String>,
    /// On this one's behalf, whoever says so: see --behalf.
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) on_behalf_of: Option<String>,
    /// How well it is known on whose behalf: verified, asserted, delegated.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) behalf: Vec<String>,
    /// Commands that go on with what this one began (a job, an upload), by its id.
    #[arg(long, value_name = "ID")]
    pub(crate) parent: Option<String>,
    /// query, execute, fetch, function-call, cancel, connect, http-request, grpc-call, load, extract, copy,
    /// read-rows, insert-rows, get, list, create, update, delete, upload.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) operation: Vec<String>,
    /// allowed, denied, held, expired, abandoned.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) decision: Vec<String>,
    /// pending, ok, error, not-forwarded, not-executed, outcome-unknown, suspended, accepted.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) status: Vec<String>,
    /// decoded, partly, seen-not-decoded.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) capture: Vec<String>,
    /// From this time on: 2026-11-24T10:00:00Z, or so long ago: 90m, 2h, 7d.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Before this time; same forms.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Words that the statement holds.
    #[arg(long, value_name = "WORDS")]
    pub(crate) text: Option<String>,
    /// Commands of this connection, by its id as `sessions` shows it.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
}
