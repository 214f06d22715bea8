//! What an answer of BigQuery says: read as it comes, rows counted and not kept.
//!
//! Owns which fields become attributes. Knows no request but by its method.

use ::http::{StatusCode, response};

use super::names::Job;
use crate::{
    message::{
        coding::Coding,
        failure,
        headers::{self, Attributes},
        http,
        json::{Kept, Tree, TreeBuilder, Value},
    },
    seam::{Outcome, ServerMessage, Status},
};

/// Bytes kept of an answer, its parts together.
const MAX_BYTES: usize = 64 * 1024;
/// Bytes kept of one attribute.
const MAX_ATTRIBUTE: usize = 4096;
/// Warnings kept.
const MAX_NOTICES: usize = 16;
/// Rows of `insertErrors` whose errors are kept.
const MAX_FAILED_ROWS: usize = 32;

/// The body of an answer, while it comes.
pub(super) struct AnswerReader {
    status: StatusCode,
    body: Option<(Coding, TreeBuilder)>,
    /// Whether there was a body that is not read.
    unread: bool,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    tree: Option<Tree>,
    /// Why it is not known, or not all of it.
    undecoded: Option<&'static str>,
}

impl AnswerReader {
    pub(super) fn new(head: &response::Parts) -> Self {
        let body = headers::is_json(&head.headers)
            .then(|| (Coding::of(&head.headers), TreeBuilder::new(keep, MAX_BYTES)));
        Self { status: head.status, body, unread: false }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        match &mut self.body {
            Some((coding, tree)) => coding.push(bytes, &mut |bytes| tree.push(bytes)),
            None => self.unread |= !bytes.is_empty(),
        }
    }

    pub(super) fn finish(self) -> Answer {
        let Some((mut coding, mut tree)) = self.body else {
            let undecoded = self.unread.then_some("no JSON");
            return Answer { status: self.status, tree: None, undecoded };
        };
        coding.finish(&mut |bytes| tree.push(bytes));
        let tree = tree.finish();
        let undecoded = match (coding.failure(), tree.fault, tree.cut) {
            (Some(_), ..) => Some("content-coding"),
            (None, Some(_), _) => Some("malformed"),
            (None, None, true) => Some("long"),
            (None, None, false) => None,
        };
        Answer { status: self.status, tree: Some(tree), undecoded }
    }
}

/// What of an answer is kept as a tree.
fn keep(path: &[&str]) -> Kept {
    let path = match path {
        // The answer to a cancellation has the job in it.
        ["job", rest @ ..] if !rest.is_empty() => rest,
        path => path,
    };
    match path {
        [] | ["job" | "statistics" | "configuration"] => Kept::Value,
        ["statistics", "query" | "load" | "extract" | "copy"] | ["configuration", "query"] => Kept::Value,
        [
            "rows" | "jobs" | "tables" | "datasets" | "models" | "routines" | "projects"
            | "rowaccesspolicies",
        ] => Kept::Count,
        [
            "cachehit"
            | "dmlstats"
            | "email"
            | "error"
            | "errors"
            | "inserterrors"
            | "jobcomplete"
            | "jobcreationreason"
            | "jobreference"
            | "location"
            | "nextpagetoken"
            | "numdmlaffectedrows"
            | "pagetoken"
            | "principalsubject"
            | "queryid"
            | "sessioninfo"
            | "status"
            | "totalbytesbilled"
            | "totalbytesprocessed"
            | "totalitems"
            | "totalrows"
            | "totalslotms"
            | "useremail",
        ] => Kept::All,
        ["configuration", "jobtype" | "dryrun"] | ["configuration", "query", "destinationtable"] => Kept::All,
        [
            "statistics",
            "totalbytesprocessed"
            | "totalslotms"
            | "numchildjobs"
            | "parentjobid"
            | "sessioninfo"
            | "transactioninfo"
            | "reservationid",
        ] => Kept::All,
        [
            "statistics",
            "query" | "load" | "extract" | "copy",
            "badrecords"
            | "billingtier"
            | "cachehit"
            | "copiedrows"
            | "ddldestinationtable"
            | "ddloperationperformed"
            | "ddltargetdataset"
            | "ddltargetroutine"
            | "ddltargettable"
            | "ddltargetrowaccesspolicy"
            | "destinationurifilecounts"
            | "dmlstats"
            | "inputbytes"
            | "inputfilebytes"
            | "inputfiles"
            | "numdmlaffectedrows"
            | "outputbytes"
            | "outputrows"
            | "referencedroutines"
            | "referencedtables"
            | "statementtype"
            | "totalbytesbilled"
            | "totalbytesprocessed"
            | "totalslotms",
        ] => Kept::All,
        _ => Kept::Skip,
    }
}

/// Attribute, and where its value may stand.
const ATTRIBUTES: &[(&str, &[&[&str]])] = &[
    ("job_id", &[&["jobReference", "jobId"]]),
    ("location", &[&["jobReference", "location"], &["location"]]),
    ("query_id", &[&["queryId"]]),
    ("state", &[&["status", "state"]]),
    ("job_complete", &[&["jobComplete"]]),
    ("job_creation_reason", &[&["jobCreationReason", "code"]]),
    ("statement_type", &[&["statistics", "query", "statementType"]]),
    ("total_rows", &[&["totalRows"]]),
    ("bytes_processed", &[&["totalBytesProcessed"], &["statistics", "totalBytesProcessed"]]),
    ("bytes_billed", &[&["totalBytesBilled"], &["statistics", "query", "totalBytesBilled"]]),
    ("slot_ms", &[&["totalSlotMs"], &["statistics", "totalSlotMs"]]),
    ("cache_hit", &[&["cacheHit"], &["statistics", "query", "cacheHit"]]),
    (
        "rows_inserted",
        &[&["dmlStats", "insertedRowCount"], &["statistics", "query", "dmlStats", "insertedRowCount"]],
    ),
    (
        "rows_updated",
        &[&["dmlStats", "updatedRowCount"], &["statistics", "query", "dmlStats", "updatedRowCount"]],
    ),
    (
        "rows_deleted",
        &[&["dmlStats", "deletedRowCount"], &["statistics", "query", "dmlStats", "deletedRowCount"]],
    ),
    ("ddl_operation", &[&["statistics", "query", "ddlOperationPerformed"]]),
    ("output_rows", &[&["statistics", "load", "outputRows"]]),
    ("output_bytes", &[&["statistics", "load", "outputBytes"]]),
    ("input_files", &[&["statistics", "load", "inputFiles"]]),
    ("input_bytes", &[&["statistics", "load", "inputFileBytes"], &["statistics", "extract", "inputBytes"]]),
    ("bad_records", &[&["statistics", "load", "badRecords"]]),
    ("copied_rows", &[&["statistics", "copy", "copiedRows"]]),
    ("child_jobs", &[&["statistics", "numChildJobs"]]),
    ("parent_job_id", &[&["statistics", "parentJobId"]]),
    ("session_id", &[&["sessionInfo", "sessionId"], &["statistics", "sessionInfo", "sessionId"]]),
    ("transaction_id", &[&["statistics", "transactionInfo", "transactionId"]]),
    ("job_type", &[&["configuration", "jobType"]]),
    ("user_email", &[&["user_email"]]),
    ("principal_subject", &[&["principal_subject"]]),
    ("service_account", &[&["email"]]),
];

fn at<'a>(root: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(root, |value, name| value.get(name))
}

impl Answer {
    fn root(&self) -> &Value {
        static NOTHING: Value = Value::Absent;
        let root = self.tree.as_ref().map_or(&NOTHING, Tree::root);
        let job = root.get("job");
        if job.is_absent() { root } else { job }
    }

    /// The job that the answer is about.
    pub(super) fn job(&self, project: &str) -> Option<Job> {
        Job::of(self.root().get("jobReference"), project)
    }

    /// Whether the job has ended; `None`: the answer does not say.
    pub(super) fn complete(&self) -> Option<bool> {
        let root = self.root();
        let state = root.get("status").get("state").text();
        root.get("jobComplete").flag().or_else(|| state.map(|state| state == "DONE"))
    }

    pub(super) fn failed(&self) -> bool {
        self.status.is_client_error() || self.status.is_server_error()
    }

    /// What went wrong with the request itself.
    pub(super) fn failure(&self) -> Option<ServerMessage> {
        self.failed().then(|| failure::message(self.status, self.tree.as_ref()))
    }

    /// Elements of a list that was asked for.
    pub(super) fn listed(&self) -> Option<u64> {
        let root = self.root();
        let lists =
            ["rows", "jobs", "tables", "datasets", "models", "routines", "projects", "rowAccessPolicies"];
        lists.iter().find_map(|name| root.get(name).count())
    }

    /// How the request ended, without what its method makes of it.
    pub(super) fn outcome(&self) -> Outcome {
        let mut outcome = http::outcome(Some(self.status));
        outcome.error = self.failure();
        outcome.attributes = self.attributes();
        outcome
    }

    /// How the job ended.
    pub(super) fn job_outcome(&self) -> Outcome {
        let root = self.root();
        let error = root.get("status").get("errorResult");
        let failed = !error.is_absent();
        let mut outcome = self.outcome();
        outcome.status = if failed { Status::Error } else { Status::Ok };
        outcome.error = failed.then(|| proto(error, "ERROR"));
        outcome.rows = self.job_rows();
        outcome.notices = self.notices();
        outcome
    }

    /// Rows that the job changed, or else returned.
    fn job_rows(&self) -> Option<u64> {
        let places: &[&[&str]] = &[
            &["numDmlAffectedRows"],
            &["statistics", "query", "numDmlAffectedRows"],
            &["statistics", "load", "outputRows"],
            &["statistics", "copy", "copiedRows"],
            &["totalRows"],
        ];
        places.iter().find_map(|path| at(self.root(), path).number())
    }

    /// Errors that did not end the job, and warnings.
    fn notices(&self) -> Vec<ServerMessage> {
        let root = self.root();
        let lists = root.get("errors").items().iter().chain(root.get("status").get("errors").items());
        lists.take(MAX_NOTICES).map(|error| proto(error, "WARNING")).collect()
    }

    /// `insertErrors` of an answer with status 200: which rows were not inserted, and why.
    pub(super) fn insert_errors(&self) -> Option<ServerMessage> {
        let failed = self.root().get("insertErrors");
        let count = failed.count().filter(|count| *count > 0)?;
        let mut lines: Vec<String> = Vec::new();
        for row in failed.items().iter().take(MAX_FAILED_ROWS) {
            let index = row.get("index").text().unwrap_or_else(|| "0".to_owned());
            for error in row.get("errors").items().iter().take(4) {
                let part = |name| error.get(name).text().unwrap_or_default();
                lines.push(format!(
                    "row {index}: {}: {} {}",
                    part("reason"),
                    part("message"),
                    part("location")
                ));
            }
        }
        let detail = lines.join("\n").into_bytes();
        Some(ServerMessage {
            severity: "ERROR".to_owned(),
            code: "insertErrors".to_owned(),
            message: format!("{count} rows were not inserted").into_bytes(),
            detail: headers::cut(&detail, 4 * MAX_ATTRIBUTE),
            ..ServerMessage::default()
        })
    }

    fn attributes(&self) -> Attributes {
        let root = self.root();
        let mut attributes: Attributes = Vec::new();
        for (name, places) in ATTRIBUTES {
            if let Some(value) = places.iter().find_map(|path| at(root, path).bytes()) {
                attributes.push((name, headers::cut(&value, MAX_ATTRIBUTE)));
            }
        }
        let named = |value: &Value| super::names::resource(value, "").map(String::into_bytes);
        for (name, path) in [
            ("destination_table", ["configuration", "query", "destinationTable"]),
            ("ddl_target", ["statistics", "query", "ddlTargetTable"]),
            ("ddl_target", ["statistics", "query", "ddlTargetRoutine"]),
            ("ddl_target", ["statistics", "query", "ddlTargetDataset"]),
            ("ddl_target", ["statistics", "query", "ddlTargetRowAccessPolicy"]),
        ] {
            attributes
                .extend(named(at(root, &path)).map(|value| (name, headers::cut(&value, MAX_ATTRIBUTE))));
        }
        let tables = at(root, &["statistics", "query", "referencedTables"]).items();
        let tables: Vec<Vec<u8>> = tables.iter().filter_map(named).collect();
        if !tables.is_empty() {
            attributes.push(("referenced_tables", headers::cut(&tables.join(&b'\n'), MAX_ATTRIBUTE)));
        }
        if let Some(failed) = root.get("insertErrors").count() {
            attributes.push(("rows_failed", failed.to_string().into_bytes()));
        }
        if let Some(why) = self.undecoded {
            attributes.push(("answer_undecoded", why.as_bytes().to_vec()));
        }
        attributes
    }
}

/// An `ErrorProto`.
fn proto(error: &Value, severity: &str) -> ServerMessage {
    ServerMessage {
        severity: severity.to_owned(),
        code: error.get("reason").text().unwrap_or_default(),
        message: error.get("message").bytes().unwrap_or_default(),
        detail: error.get("location").bytes().unwrap_or_default(),
        ..ServerMessage::default()
    }
}
