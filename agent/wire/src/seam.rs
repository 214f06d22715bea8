//! The seam between a relay and a byte protocol.
//!
//! A decoder sees both directions of one connection as an observer. It never forwards anything: it tells
//! the [`Sink`] what it saw ([`Event`]) and what is to become of the bytes ([`Edit`]). The edits of a
//! direction are applied in order to that direction's input: a relay keeps every byte it has fed until
//! an edit forwards or drops it, and so bytes without an edit are *held*. A relay knows no protocol.
//!
//! Positions never leave the decoder: "insert after the n-th reply" is resolved inside it, which sees the
//! replies pass, so that the relay only has to execute a linear script.

use core::fmt;
use std::sync::Arc;

use crate::{postgres::Verifier, secret::Secret};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the workload to the server.
    ToServer,
    /// From the server to the workload.
    ToClient,
}

/// What is to become of the next bytes of a direction's input, or what to add to its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Pass the next `n` input bytes on unchanged.
    Forward(u64),
    /// Take the next `n` input bytes out.
    Drop(u64),
    /// Put these bytes into the output here. They are ours and are recorded as injected.
    Insert(Vec<u8>),
    /// Close the leg toward the server: a command already under way is not to be completed.
    Close,
}

/// What is decided about at once: all statements of one message. Unique within its decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitId(pub u64);

/// One auditable operation. Unique within its decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// What a command does to the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// An HTTP request that no decoder knows more about.
    #[default]
    HttpRequest,
    /// A gRPC call that no decoder knows more about.
    GrpcCall,
    /// A job that loads data into a table (BigQuery).
    Load,
    /// A job that writes a table's data elsewhere (BigQuery).
    Extract,
    /// A job that copies tables (BigQuery).
    Copy,
    /// Rows are read, of a table or of a result.
    ReadRows,
    /// Rows are inserted without a statement.
    InsertRows,
    /// One resource is looked at.
    Get,
    /// Resources are listed.
    List,
    /// A resource is made.
    Create,
    /// A resource is changed.
    Update,
    /// A resource is deleted.
    Delete,
    /// A part of an upload that an earlier command began.
    Upload,
    /// PostgreSQL simple query; a query job (BigQuery).
    Query,
    /// PostgreSQL Execute of a portal.
    Execute,
    /// PostgreSQL Execute that goes on with a suspended portal.
    Fetch,
    /// PostgreSQL FunctionCall; the statement is empty, the function's OID is an attribute.
    FunctionCall,
    /// PostgreSQL CancelRequest; a job is cancelled (BigQuery).
    Cancel,
}

/// A text or value, cut at the capture limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The bytes up to the limit, redacted.
    pub bytes: Vec<u8>,
    /// Length of the whole in bytes, after redaction.
    pub full_length: u64,
    /// SHA-256 of the whole after redaction; only where `bytes` is cut and the end was seen.
    pub full_sha256: Option<[u8; 32]>,
    /// Signed tokens whose signatures were taken out of a statement's text, for those who can check them; the first
    /// few. Never recorded.
    pub tokens: Vec<Token>,
}

/// A signed token in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Offset of the mark that stands for its signature in the captured bytes.
    pub mark: u64,
    /// All of it.
    pub secret: Secret,
}

impl Captured {
    /// Signed tokens that are kept of one text.
    pub(crate) const TOKENS: usize = 4;
}

/// Why a span was redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedactionReason {
    /// `PASSWORD '…'`, `IDENTIFIED BY '…'`.
    Password,
    /// A connection string that holds a password.
    ConnectionString,
    /// A token or key that whoever holds it may use, e.g. `access_token=`, `upload_id=`.
    Token,
    /// The signature of a signed URL.
    Signature,
}

/// A span of the captured text that stands for a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// Offset of the mark in the captured bytes.
    pub offset: u64,
    /// Length of the mark, bytes.
    pub length: u64,
    /// Why.
    pub reason: RedactionReason,
}

/// How a parameter was encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParameterFormat {
    /// PostgreSQL format code 0; JSON.
    #[default]
    Text,
    /// PostgreSQL format code 1.
    Binary,
}

/// A bound parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameter {
    /// PostgreSQL type OID, 0 where unknown.
    pub type_oid: u32,
    /// Encoding of the value.
    pub format: ParameterFormat,
    /// The value as sent; `None` is NULL.
    pub value: Option<Captured>,
    /// The value as a person would write it, where type and encoding are known.
    pub rendered: Option<String>,
    /// Its name, where it is named; else it is known by its position.
    pub name: String,
    /// Its type by name, as the client gave it, e.g. `ARRAY<INT64>`; empty where a number says it or nobody.
    pub type_name: String,
}

/// What goes on beyond one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// A BigQuery job; `PROJECT:LOCATION.JOB`, the location in lower case and empty where it is not known.
    BigQueryJob,
    /// A resumable upload; host, then the upload's id.
    Upload,
}

/// Names something that one command begins and later ones, on whichever connection of the same workload, go
/// on with. An upload's id is a credential: it is a key in a registry and never recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChainKey {
    /// What it is.
    pub kind: ChainKind,
    /// Unique among those of its kind.
    pub id: Vec<u8>,
}

/// Something about a command that a security team wants to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// The request's host is not the name that TLS was made for.
    HostMismatch,
}

/// A command that was read whole (or, in [`Event::Prefix`], as far as the capture limit).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Its id.
    pub id: CommandId,
    /// What it does.
    pub operation: Operation,
    /// Its text, verbatim but for redactions; not necessarily UTF-8.
    pub statement: Captured,
    /// Spans of `statement` that stand for credentials.
    pub redactions: Vec<Redaction>,
    /// Position in a message with several statements, from 0.
    pub statement_index: u32,
    /// Name of the prepared statement; empty for the unnamed one and for simple queries.
    pub statement_name: Vec<u8>,
    /// Name of the portal; empty for the unnamed one.
    pub portal_name: Vec<u8>,
    /// Bound parameters.
    pub parameters: Vec<Parameter>,
    /// Names and values that the protocol carried with the command, e.g. a function's OID.
    ///
    /// `alternative_statement`: a text that may run instead of `statement`, since the client used a name
    /// before the server had settled what it stands for. A policy must look at it as well. There are a few at
    /// most; where there may be more, `partly` is [`OpaqueReason::Limit`].
    pub attributes: Vec<(&'static str, Vec<u8>)>,
    /// Where something could not be read, e.g. a portal bound before we were there.
    pub partly: Option<OpaqueReason>,
    /// The API's method, e.g. `bigquery.jobs.query`, `google.spanner.v1.Spanner/Commit`; empty for SQL.
    pub method: String,
    /// What it acts on, by its name in the API, e.g. `projects/P/datasets/D/tables/T`; may be empty.
    pub resource: String,
    /// What an earlier command began and this one goes on with.
    pub continues: Option<ChainKey>,
    /// What is remarkable about it.
    pub findings: Vec<Finding>,
    /// Credentials that stand in its body, for those who must know whose they are. Never recorded.
    pub presented: Vec<PresentedSecret>,
}

/// A credential in a request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedSecret {
    /// Where, e.g. `form subject_token`.
    pub place: &'static str,
    /// It.
    pub secret: Secret,
}

/// Who issues tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenIssuer {
    /// Of Compute Engine, or of GKE.
    MetadataServer,
    /// Security Token Service.
    Sts,
    /// IAM Service Account Credentials.
    IamCredentials,
    /// Google's OAuth 2.0 server.
    Oauth2,
}

/// A token that an answer issues. Only ever of an answer that nobody but its issuer can have given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// By whom.
    pub issuer: TokenIssuer,
    /// It. Never recorded.
    pub secret: Secret,
    /// The account that it is for, as the request names it; may be empty.
    pub account: String,
    /// How long it lives, where that is said.
    pub lifetime_seconds: Option<u64>,
    /// It is bound to a certificate of the client's.
    pub bound: bool,
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// In one word.
    pub status: Status,
    /// Rows returned or changed, as the server said.
    pub rows: Option<u64>,
    /// Bytes toward the server that belong to the command (COPY data included).
    pub bytes_sent: u64,
    /// Bytes toward the workload.
    pub bytes_received: u64,
    /// PostgreSQL command tag.
    pub command_tag: Vec<u8>,
    /// The error, where there was one.
    pub error: Option<ServerMessage>,
    /// Notices while it ran; bounded.
    pub notices: Vec<ServerMessage>,
    /// As the server reported it at the end of the command's message or pipeline, where that is known.
    pub transaction: Option<TransactionState>,
    /// HTTP status code.
    pub http_status: Option<u16>,
    /// gRPC status code.
    pub grpc_status: Option<u32>,
    /// Names and values that the answer carried, e.g. `bytes_processed`.
    pub attributes: Vec<(&'static str, Vec<u8>)>,
    /// Tokens that the answer issues. Never recorded.
    pub issued: Vec<Issued>,
}

/// How a command ended, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// The service took it and goes on by itself: a job. How that ends is an [`Event::ChainEnded`].
    Accepted,
    /// The server completed it.
    Ok,
    /// The server answered with an error.
    Error,
    /// Sent, but an earlier statement of its message or pipeline failed.
    NotExecuted,
    /// Never sent: denied, expired or abandoned, or the server was gone before.
    NotForwarded,
    /// The connection ended before the answer came.
    #[default]
    OutcomeUnknown,
    /// A portal returned its row limit and can go on.
    Suspended,
}

/// The server's transaction state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// No transaction.
    Idle,
    /// In a transaction.
    InTransaction,
    /// In a transaction that failed.
    Failed,
}

/// An error or notice of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerMessage {
    /// `ERROR`, `FATAL`, `WARNING`, … (not localised, where the server sends that).
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    /// Primary text.
    pub message: Vec<u8>,
    /// Detail.
    pub detail: Vec<u8>,
    /// Hint.
    pub hint: Vec<u8>,
}

/// Why bytes pass undecoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpaqueReason {
    /// TLS was agreed on.
    Tls,
    /// GSSAPI encryption was agreed on.
    GssEncryption,
    /// A replication connection.
    Replication,
    /// A message broke the protocol's rules.
    Malformed,
    /// The decoder lost its place.
    Desynchronised,
    /// A protocol version that the decoder does not know.
    UnsupportedVersion,
    /// More statements, portals or commands in flight than the decoder keeps.
    Limit,
}

/// What became known about the connection. Credentials never appear here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionFact {
    /// Database user that the client presented.
    User(Vec<u8>),
    /// Database.
    Database(Vec<u8>),
    /// Another start-up parameter or one that the server reported later, e.g. `application_name`.
    Parameter(Vec<u8>, Vec<u8>),
    /// Key by which another connection can cancel this one's commands. For the relay's registry only:
    /// it is a credential and is never recorded.
    CancelKey {
        /// The server process.
        process_id: u32,
        /// 4 bytes; up to 256 from protocol 3.2 on.
        secret: Vec<u8>,
    },
    /// This connection is nothing but a request to cancel another one's command.
    CancelRequest {
        /// The server process.
        process_id: u32,
        /// As in [`SessionFact::CancelKey`].
        secret: Vec<u8>,
    },
    /// The client binds its authentication to the TLS that it sees, which is ours and not the server's: from
    /// the next connection on [`Encryption::ask_password`] spares it the first try.
    BindsChannel,
}

/// How the legs of a connection are encrypted, and what is to be done about it.
#[derive(Clone, Debug, Default)]
pub struct Encryption {
    /// The client's leg is TLS that ends with us.
    pub client: bool,
    /// Our certificate, DER, as the client saw it in the handshake; empty where there was none.
    pub certificate: Vec<u8>,
    /// The server's leg is TLS of ours.
    pub server: Option<ServerTls>,
    /// Where client and server agree on TLS, it may end with us: [`Event::Upgrade`] instead of
    /// [`Event::Opaque`].
    pub ends_here: bool,
    /// An encryption that cannot end with us (GSSAPI) is declined in the server's place.
    pub declines_others: bool,
    /// The server's leg must be TLS before a session starts on it: [`Event::Upgrade`] where it is not.
    pub server_required: bool,
    /// Ask the client for its password at once, where authentication cannot be passed on.
    pub ask_password: bool,
    /// What is known of the passwords of this server's roles.
    pub verifiers: Option<Verifiers>,
    /// Random bytes for the nonces of an authentication in the client's place: never used twice.
    pub nonce: [u8; 18],
}

/// Finds what is known of the password of a role, by its name, on the server of one connection.
#[derive(Clone)]
pub struct Verifiers(pub Arc<FindVerifier>);

/// See [`Verifiers`].
pub type FindVerifier = dyn Fn(&[u8]) -> Option<Arc<Verifier>> + Send + Sync;

impl Verifiers {
    /// Of this role.
    #[must_use]
    pub fn of(&self, user: &[u8]) -> Option<Arc<Verifier>> {
        (self.0)(user)
    }
}

impl fmt::Debug for Verifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifiers").finish_non_exhaustive()
    }
}

/// TLS of ours toward the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// The server's certificate, DER, as it was shown in the handshake.
    pub certificate: Vec<u8>,
}

/// Which legs are to become TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Client and server have agreed on it; their next bytes are TLS.
    Both,
    /// Only the server's, and nobody has asked it yet: [`Decoder::start_tls`] says how. What the client has
    /// sent so far and is not forwarded is for the decoder that comes next.
    Server,
}

/// How a client of this protocol begins TLS.
#[derive(Clone, Copy, Debug)]
pub struct StartTls {
    /// What it sends.
    pub request: &'static [u8],
    /// The byte with which the server agrees; TLS follows. Any other byte is a refusal.
    pub agreed: u8,
    /// Words, for the client, that its session cannot start; takes one line of text.
    pub refusal: fn(&str) -> Vec<u8>,
}

/// What a decoder saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The commands of a unit are longer than the capture limit; this much was read. The relay decides by
    /// it and calls [`Decoder::decide`]; if that allows, all but the last byte passes and
    /// [`Event::Started`] follows for the same unit.
    Prefix {
        /// The unit.
        unit: UnitId,
        /// Its commands, so far.
        commands: Vec<Command>,
    },
    /// A unit was read whole. The relay records each command, decides and calls [`Decoder::decide`];
    /// until then its last byte is held.
    ///
    /// One kind of unit holds nothing: what the server rejected before it became a command (a PostgreSQL
    /// Parse that fails). Its command has the attribute `rejected`, its [`Event::Finished`] follows in
    /// the same call, and a decision about it changes nothing. It never comes while another unit waits.
    Started {
        /// The unit.
        unit: UnitId,
        /// Its commands, in order.
        commands: Vec<Command>,
    },
    /// A command ended: exactly once for each command of a [`Event::Started`] or [`Event::Prefix`].
    Finished {
        /// Which one.
        command: CommandId,
        /// How.
        outcome: Outcome,
    },
    /// The command's answer says that it began something that goes on, or its request names what it may have
    /// begun and no answer came. Comes before the command's [`Event::Finished`]. Where that has another status
    /// than [`Status::Accepted`] or, without an answer, [`Status::OutcomeUnknown`], what was begun is over
    /// already: later commands name it, and an [`Event::ChainEnded`] of it says nothing new.
    ChainBegun {
        /// The command.
        command: CommandId,
        /// What it began.
        chain: ChainKey,
    },
    /// What an earlier command began has ended, as this exchange's answer says.
    ChainEnded {
        /// What.
        chain: ChainKey,
        /// How.
        outcome: Outcome,
    },
    /// Something about the connection.
    Session(SessionFact),
    /// From here on the connection passes undecoded; every command in flight has been finished as
    /// [`Status::OutcomeUnknown`] before. The decoder emits `Forward(u64::MAX)` for both directions.
    Opaque(OpaqueReason),
    /// The decoder's last word: legs become TLS when the edits so far are carried out, and another decoder
    /// begins. What it is fed from here on it does not consume; what is held belongs to the next one.
    Upgrade(Upgrade),
}

/// What was decided about a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Forward it.
    Allow,
    /// Never forward it; answer in the protocol's own form.
    Refuse(Refusal),
}

/// Why a command is refused; the decoder words it in its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which kind.
    pub kind: RefusalKind,
    /// For the client to read: one line.
    pub message: String,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// A policy says no. PostgreSQL: SQLSTATE 42501.
    Denied,
    /// Nobody decided in time. PostgreSQL: SQLSTATE 57014.
    Expired,
    /// It is for another host than TLS was made for: HTTP only.
    Misdirected,
    /// The client cancelled while it was held. PostgreSQL: SQLSTATE 57014.
    Cancelled,
}

/// Where a decoder's events and edits go, in the order in which they arise.
pub trait Sink {
    /// Something was seen.
    fn event(&mut self, event: Event);
    /// The next part of a direction's edit script.
    fn edit(&mut self, direction: Direction, edit: Edit);
}

/// A decoder of one connection of a byte protocol.
///
/// Never fails: malformed input is an [`Event::Opaque`], after which everything is forwarded.
pub trait Decoder: Send {
    /// Takes the next input bytes of a direction, in order and without a hole, and returns how many it
    /// consumed. Fewer than given only while a unit of that direction waits for [`Decoder::decide`], or
    /// the client for an answer that is [`Decoder::outstanding`]: feed the rest after it. Consumed bytes are still the relay's to keep until an edit disposes of
    /// them.
    fn feed(&mut self, direction: Direction, bytes: &[u8], sink: &mut dyn Sink) -> usize;

    /// Says what was decided about the unit that waits. Answers to [`Event::Prefix`] and to
    /// [`Event::Started`] alike; ignored for any other unit.
    fn decide(&mut self, unit: UnitId, decision: &Decision, sink: &mut dyn Sink);

    /// The direction's input has ended. When both have, every command in flight is finished.
    fn finish(&mut self, direction: Direction, sink: &mut dyn Sink);

    /// Whether the server owes an answer to something that was forwarded.
    fn outstanding(&self) -> bool;

    /// Whether nothing will be decoded any more: the relay may splice.
    fn opaque(&self) -> bool;

    /// Told before the first byte, if at all.
    fn encryption(&mut self, encryption: Encryption) {
        drop(encryption);
    }

    /// How its protocol begins TLS, where it has a way of its own.
    fn start_tls(&self) -> Option<StartTls> {
        None
    }
}

/// Hard limits of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes kept of one statement, and of all parameters of one command together.
    pub capture_bytes: usize,
    /// Prepared statements and portals kept per connection, each.
    pub named_objects: usize,
    /// Bytes of all prepared statements' texts kept per connection.
    pub statement_cache_bytes: usize,
    /// Commands in flight per connection.
    pub commands_in_flight: usize,
    /// Notices kept per command.
    pub notices: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            capture_bytes: 256 * 1024,
            named_objects: 10_000,
            statement_cache_bytes: 16 * 1024 * 1024,
            commands_in_flight: 100_000,
            notices: 16,
        }
    }
}
