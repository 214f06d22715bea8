//! What the proxy is given by those who steer, name, decide and watch.

use std::{
    fmt, io,
    net::SocketAddr,
    os::fd::{BorrowedFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use tokio::sync::oneshot;
use verbatim_api::v1;
use verbatim_wire::seam::Command;

mod evidence;
mod trust;

pub use evidence::{Evidence, NoEvidence, Proof, Remembered, Session, Whom};
pub use trust::{KnownVerifiers, NoVerifiers, Termination, Tls, Trust};

/// One steered TCP connection as the kernel saw its connect().
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where the workload dialled.
    pub destination: SocketAddr,
    /// cgroup v2 id of the caller of connect().
    pub cgroup_id: u64,
    /// Ids of its ancestors, nearest first.
    pub ancestor_cgroup_ids: Vec<u64>,
    /// Thread group id ("process id") in the root pid namespace.
    pub pid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Cookie of the workload's network namespace.
    pub client_netns: u64,
    /// Cookie of the listener's network namespace.
    pub listener_netns: u64,
    /// Socket cookie of the workload's socket.
    pub socket_cookie: u64,
    /// CLOCK_MONOTONIC of the connect(), nanoseconds.
    pub ktime_nanos: u64,
    /// Name of the calling thread.
    pub comm: String,
    /// The kernel's count that this connection is in; 0 where there was no room.
    pub connect_series: u64,
    /// Its number there, from 1.
    pub connect_number: u64,
}

/// Reads the flow that the kernel keeps with an accepted socket.
pub trait Flows: Send + Sync + 'static {
    /// `None`: the socket was not steered by us.
    fn flow(&self, accepted: BorrowedFd<'_>) -> Option<Flow>;
}

/// Makes upstream sockets in the workload's network namespace.
pub trait Dialer: Send + Sync + 'static {
    /// A non-blocking, unconnected TCP socket for the destination's family, made in the namespace.
    fn socket(&self, netns: u64, destination: SocketAddr) -> io::Result<OwnedFd>;
}

/// Who a workload is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// For the envelope; `cgroup_id` is filled in from the flow.
    pub workload: v1::Workload,
    /// `local:HOST/USER`, where the principal is local.
    pub local_user: Option<String>,
    /// cgroup path, where it is known.
    pub cgroup: Option<String>,
    /// What the cluster knows beyond its names.
    pub pod: Option<Arc<v1::Pod>>,
}

impl Identity {
    /// The name that a person reads: federated principal, or local user, or `unresolved`.
    #[must_use]
    pub fn display(&self) -> &str {
        match self.local_user.as_deref() {
            _ if !self.workload.principal.is_empty() => &self.workload.principal,
            Some(user) => user,
            None => "unresolved",
        }
    }
}

/// Names workloads.
pub trait Identities: Send + Sync + 'static {
    /// Never waits; an unknown workload is `PRINCIPAL_KIND_UNRESOLVED`.
    fn identify(&self, flow: &Flow) -> Arc<Identity>;

    /// Where more may be known soon: returns, within a bound of its own, when it is worth to ask. A connection
    /// awaits it before its first record; nothing else waits for that. `None`: there is nothing to wait for.
    fn settle<'a>(&'a self, _flow: &'a Flow) -> Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>> {
        None
    }
}

/// What a policy is asked about: all commands of one message.
#[derive(Debug)]
pub struct Question<'a> {
    /// Who.
    pub identity: &'a Identity,
    /// The connection.
    pub flow: &'a Flow,
    /// What.
    pub commands: &'a [Command],
    /// As in the record's target, e.g. `postgresql`, `bigquery`.
    pub service: &'a str,
    /// The name that the client asked for: TLS SNI, or the request's host; may be empty.
    pub host: &'a str,
    /// Database that the client named.
    pub database: &'a str,
    /// Database user that the client named.
    pub user: &'a str,
}

/// Why a verdict is what it is; goes into the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grounds {
    /// Names of the policies that matched.
    pub policies: Vec<String>,
    /// For the record and, where the command is refused, for the client: one line.
    pub reason: String,
}

/// What a policy says.
pub enum Verdict {
    /// Forward.
    Allow(Grounds),
    /// Forward, with these headers in the place of those of the same names. Their values are credentials: they
    /// are never recorded, only how many bytes they are. A protocol without headers takes it as `Allow`, and
    /// its record says so.
    Replace {
        /// Why.
        grounds: Grounds,
        /// Only the first verdict of a request can replace any: afterwards its head has gone on.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// Refuse.
    Deny(Grounds),
    /// Wait for a person.
    Hold {
        /// Why.
        grounds: Grounds,
        /// No answer within this time is a refusal.
        deadline: Duration,
        /// The answer; a dropped sender is a refusal.
        answer: oneshot::Receiver<HoldAnswer>,
    },
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(grounds) => f.debug_tuple("Allow").field(grounds).finish(),
            Self::Replace { grounds, headers } => {
                let names: Vec<_> = headers.iter().map(|(name, _)| name).collect();
                f.debug_struct("Replace").field("grounds", grounds).field("headers", &names).finish()
            }
            Self::Deny(grounds) => f.debug_tuple("Deny").field(grounds).finish(),
            Self::Hold { grounds, deadline, .. } => {
                f.debug_struct("Hold").field("grounds", grounds).field("deadline", deadline).finish()
            }
        }
    }
}

/// How a hold ended, when a person answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldAnswer {
    /// Forward it, or not.
    pub allowed: bool,
    /// Who answered.
    pub approver: String,
    /// Id of the approval.
    pub approval_id: String,
    /// One line.
    pub reason: String,
}

/// Decides about commands.
pub trait Policy: Send + Sync + 'static {
    /// Called on the shard's thread for each message: must not block.
    fn decide(&self, question: &Question<'_>) -> Verdict;
    /// Version that goes into every record.
    fn version(&self) -> &str;
    /// Whether verdicts are carried out.
    fn mode(&self) -> v1::PolicyMode;
}

/// The policy before there are policies: observes, allows everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObserveAll;

impl Policy for ObserveAll {
    fn decide(&self, _: &Question<'_>) -> Verdict {
        Verdict::Allow(Grounds::default())
    }
    fn version(&self) -> &str {
        ""
    }
    fn mode(&self) -> v1::PolicyMode {
        v1::PolicyMode::Observe
    }
}

/// One line of the live view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Wall clock of the start, nanoseconds since 1970.
    pub wall_nanos: u64,
    /// See [`Identity::display`].
    pub principal: String,
    /// e.g. `postgresql`.
    pub service: &'static str,
    /// What.
    pub operation: v1::Operation,
    /// The API's method, e.g. `bigquery.jobs.query`; empty for SQL.
    pub method: String,
    /// What it acts on, by its name in the API; may be empty.
    pub resource: String,
    /// Allowed?
    pub decision: v1::Decision,
    /// How it ended.
    pub status: v1::Status,
    /// HTTP status code of the answer.
    pub http_status: Option<u16>,
    /// gRPC status code of the answer.
    pub grpc_status: Option<u32>,
    /// From start to end.
    pub duration: Duration,
    /// The text as captured, or for an undecoded connection its destination and reason.
    pub statement: Vec<u8>,
    /// The server's error, in one line.
    pub error: Option<String>,
    /// Rows, as the server said.
    pub rows: Option<u64>,
    /// Whether what was presented is the workload's own.
    pub credential_match: v1::CredentialMatch,
    /// What is remarkable about it.
    pub findings: Vec<v1::CommandFinding>,
    /// On whose behalf, and how well that is known; who is proven best.
    pub on_behalf_of: Option<(v1::BehalfKind, String)>,
}

/// Watches commands end. Called on the shard's thread: must not block.
pub trait Observer: Send + Sync + 'static {
    /// Whether anybody watches: if not, no summary is built.
    fn enabled(&self) -> bool;
    /// A command has ended, or an undecoded connection.
    fn finished(&self, summary: Summary);
}
