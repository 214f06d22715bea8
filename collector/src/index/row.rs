//! The rows, and how records of the log are joined into one.
//!
//! Joining is here, once, for all indexes; storing and finding are theirs.

use verbatim_api::v1::{Decision, Operation, Status};

use super::Id;
use crate::log::Location;

/// What rows are found by. Those marked content-borne go when the content is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Federated principal, `local:HOST/USER` (content-borne) or `unresolved`.
    pub principal: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
    /// Pod's name.
    pub pod_name: String,
    /// Pod's UID.
    pub pod_uid: String,
    /// e.g. `postgresql`; content-borne.
    pub service: String,
    /// Content-borne.
    pub database: String,
    /// `projects/PROJECT/locations/LOCATION/clusters/CLUSTER`.
    pub cluster: String,
    /// `KIND/NAME` of the last owner in the pod's chain; content-borne.
    pub owner: String,
}

impl Names {
    /// Takes over what is empty here.
    fn complete(&mut self, other: &Self) {
        let pairs = [
            (&mut self.principal, &other.principal),
            (&mut self.namespace, &other.namespace),
            (&mut self.service_account, &other.service_account),
            (&mut self.pod_name, &other.pod_name),
            (&mut self.pod_uid, &other.pod_uid),
            (&mut self.service, &other.service),
            (&mut self.database, &other.database),
            (&mut self.cluster, &other.cluster),
            (&mut self.owner, &other.owner),
        ];
        for (mine, theirs) in pairs {
            if mine.is_empty() {
                mine.clone_from(theirs);
            }
        }
    }
}

/// What a record is to its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// STARTED, or a connection's opening.
    Started,
    /// DECIDED.
    Decided,
    /// FINISHED, or a connection's end.
    Finished,
    /// PROGRESS that says how what the command began has ended.
    Ended,
}

/// One record of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The command's.
    pub id: Id,
    /// What it is to the command.
    pub role: Role,
    /// Where it is.
    pub location: Location,
    /// The connection's id; empty where unknown.
    pub flow: Vec<u8>,
    /// Names it carries.
    pub names: Names,
    /// `Operation`.
    pub operation: i32,
    /// `Capture`.
    pub capture: i32,
    /// `Decision`; 0 where it says nothing.
    pub decision: i32,
    /// `Status`; 0 where it says nothing.
    pub status: i32,
    /// Wall clock of the start, as far as this record tells, nanoseconds.
    pub wall: u64,
    /// Nanoseconds, at the end.
    pub duration: u64,
    /// The API's method, at the start; content-borne.
    pub method: String,
    /// What it acts on, at the start; content-borne.
    pub resource: String,
    /// Id of the command that began what this one goes on with; empty where there is none.
    pub parent: Vec<u8>,
    /// HTTP status of the answer; 0 where there was none.
    pub http_status: u32,
    /// gRPC status of the answer.
    pub grpc_status: Option<u32>,
    /// Bits, numbered as `CommandFinding`.
    pub findings: i64,
    /// `Resolution` of the workload; 0 where it says nothing.
    pub resolution: i32,
    /// `CredentialMatch`.
    pub credential_match: i32,
    /// `BehalfKind` of who is proven best.
    pub behalf: i32,
    /// Who is proven best of all on whose behalf it was; content-borne.
    pub on_behalf_of: String,
    /// What to be found by: the statement, else the resource.
    pub text: Option<String>,
    /// It had a content that is deleted.
    pub content_gone: bool,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandRow {
    /// Orders by time: the start's wall clock, made unique by adding nanoseconds.
    pub key: i64,
    /// Id of the STARTED record.
    pub id: Id,
    /// See [`Part::flow`].
    pub flow: Vec<u8>,
    /// Names of both records.
    pub names: Names,
    /// `Operation`.
    pub operation: i32,
    /// `Capture`: the worse of both.
    pub capture: i32,
    /// `Decision` that held in the end.
    pub decision: i32,
    /// `Status`: where it began something that goes on, how that ended.
    pub status: i32,
    /// See [`Part::method`].
    pub method: String,
    /// See [`Part::resource`].
    pub resource: String,
    /// See [`Part::parent`].
    pub parent: Vec<u8>,
    /// See [`Part::http_status`].
    pub http_status: u32,
    /// See [`Part::grpc_status`].
    pub grpc_status: Option<u32>,
    /// See [`Part::findings`].
    pub findings: i64,
    /// See [`Part::resolution`].
    pub resolution: i32,
    /// See [`Part::credential_match`].
    pub credential_match: i32,
    /// See [`Part::behalf`].
    pub behalf: i32,
    /// See [`Part::on_behalf_of`].
    pub on_behalf_of: String,
    /// Wall clock of the start, nanoseconds.
    pub wall: u64,
    /// Nanoseconds; 0 while it runs.
    pub duration: u64,
    /// Position of the last change.
    pub position: u64,
    /// A content of it is deleted.
    pub content_gone: bool,
    /// Where the start is.
    pub started: Option<Location>,
    /// Where the end is.
    pub finished: Option<Location>,
    /// Where the end of what it began is.
    pub ended: Option<Location>,
}

impl CommandRow {
    /// A row of which nothing is known but its id; the key is set when it is stored.
    #[must_use]
    pub fn new(id: Id) -> Self {
        Self { id, status: Status::Pending.into(), ..Self::default() }
    }

    /// Takes a record in. Returns false where it brings nothing to the row and is an extra: the first record
    /// of a role stands, a second one (after a fork) is kept beside it.
    pub fn merge(&mut self, part: &Part) -> bool {
        let place = match part.role {
            Role::Started => Some(&mut self.started),
            Role::Finished => Some(&mut self.finished),
            Role::Ended => Some(&mut self.ended),
            Role::Decided => None,
        };
        if let Some(place) = place {
            if place.is_some_and(|known| known != part.location) {
                return false;
            }
            *place = Some(part.location);
        }
        // The end of a job is seen on whichever connection asks for it.
        if part.role != Role::Ended {
            if self.flow.is_empty() {
                self.flow.clone_from(&part.flow);
            }
            self.names.complete(&part.names);
        }
        if part.role == Role::Started {
            self.method.clone_from(&part.method);
            self.resource.clone_from(&part.resource);
            self.parent.clone_from(&part.parent);
            self.findings = part.findings;
            self.resolution = part.resolution;
            self.credential_match = part.credential_match;
            self.behalf = part.behalf;
            self.on_behalf_of.clone_from(&part.on_behalf_of);
        }
        if self.operation == 0 || (part.role == Role::Started && part.operation != 0) {
            self.operation = part.operation;
        }
        self.capture = self.capture.max(part.capture);
        // A decision that comes later holds; "held" never replaces what a hold led to.
        if part.decision != 0 && (self.decision == 0 || part.decision != i32::from(Decision::Held)) {
            self.decision = part.decision;
        }
        if part.role == Role::Finished {
            self.http_status = part.http_status;
            self.grpc_status = part.grpc_status;
        }
        if part.role == Role::Ended || (part.role == Role::Finished && self.ended.is_none()) {
            self.status = part.status;
            self.duration = part.duration;
        }
        if self.wall == 0 || part.role == Role::Started {
            self.wall = part.wall;
        }
        self.position = self.position.max(part.location.position);
        self.content_gone |= part.content_gone;
        // A DECIDED record has no place of its own in the row: it is listed beside it.
        part.role != Role::Decided
    }

    /// Whether this is an undecoded connection.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        self.operation == i32::from(Operation::Connect)
    }
}

/// One record of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPart {
    /// The connection's id.
    pub flow: Id,
    /// It is the connection's end.
    pub end: bool,
    /// Where it is.
    pub location: Location,
    /// Names it carries.
    pub names: Names,
    /// Wall clock, nanoseconds.
    pub wall: u64,
    /// `Protocol`.
    pub protocol: i32,
    /// `Capture`.
    pub capture: i32,
    /// `OpaqueReason`; 0 where it says none.
    pub reason: i32,
    /// Name of the node.
    pub node: String,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// The kernel's count that it is in; 0 where it is in none.
    pub series: u64,
    /// Its number there.
    pub number: u64,
    /// Boot clock, nanoseconds.
    pub boottime: u64,
    /// Bytes from the workload.
    pub bytes_sent: u64,
    /// Bytes to the workload.
    pub bytes_received: u64,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRow {
    /// Orders by time, as [`CommandRow::key`].
    pub key: i64,
    /// Its id.
    pub flow: Id,
    /// Names of its records.
    pub names: Names,
    /// Wall clock of the opening, nanoseconds.
    pub opened_wall: u64,
    /// Wall clock of the end, nanoseconds; 0 while open.
    pub closed_wall: u64,
    /// `Protocol`.
    pub protocol: i32,
    /// `Capture`.
    pub capture: i32,
    /// `OpaqueReason`.
    pub reason: i32,
    /// Name of the node.
    pub node: String,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// See [`SessionPart::series`].
    pub series: u64,
    /// See [`SessionPart::number`].
    pub number: u64,
    /// Boot clock of the opening, nanoseconds.
    pub opened_boottime: u64,
    /// Bytes from the workload, at the end.
    pub bytes_sent: u64,
    /// Bytes to the workload, at the end.
    pub bytes_received: u64,
    /// Where the opening is.
    pub opened: Option<Location>,
    /// Where the end is.
    pub closed: Option<Location>,
}

impl SessionRow {
    /// Takes a record in. Returns false where the record is an extra.
    pub fn merge(&mut self, part: &SessionPart) -> bool {
        let place = if part.end { &mut self.closed } else { &mut self.opened };
        let first = place.is_none_or(|known| known == part.location);
        if first {
            *place = Some(part.location);
        }
        self.names.complete(&part.names);
        self.protocol = if part.protocol == 0 { self.protocol } else { part.protocol };
        self.capture = self.capture.max(part.capture);
        self.reason = if part.reason == 0 { self.reason } else { part.reason };
        if self.series == 0 && (part.series != 0 || self.node.is_empty()) {
            self.node.clone_from(&part.node);
            (self.cgroup, self.series, self.number) = (part.cgroup, part.series, part.number);
        }
        if self.opened_boottime == 0 || !part.end {
            self.opened_boottime = part.boottime;
        }
        if part.end && first {
            self.closed_wall = part.wall;
            self.bytes_sent = part.bytes_sent;
            self.bytes_received = part.bytes_received;
        }
        if self.opened_wall == 0 || (!part.end && first) {
            self.opened_wall = part.wall;
        }
        first
    }
}

/// Where a row with this wall clock begins to look for a free key.
#[must_use]
pub(super) fn wanted_key(wall: u64) -> i64 {
    // Room above for making it unique; a node's clock can say anything.
    i64::try_from(wall).unwrap_or(i64::MAX).clamp(1, i64::MAX - (1 << 32))
}

/// As [`Part::findings`], of what is looked for.
#[must_use]
pub(super) fn finding_bits(findings: &[i32]) -> i64 {
    findings.iter().filter(|f| (1..63).contains(*f)).fold(0, |bits, f| bits | 1 << f)
}
