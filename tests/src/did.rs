//! What a client says that it did: the first of the three sets.
//!
//! Client scripts print one JSON object a line; Rust scenarios build the same.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use verbatim_api::v1::{Capture, Decision, Operation, Status};

/// One command that a client sent, and what must be recorded of it. `None` in a field of the outcome
/// means that the client could not know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Did {
    /// Id within the statement, `id:…`.
    pub id: String,
    /// Who.
    pub principal: String,
    /// By which message.
    pub operation: Operation,
    /// The exact bytes.
    pub statement: Option<Vec<u8>>,
    /// How it ended.
    pub status: Status,
    /// Rows, where the answer said so.
    pub rows: Option<u64>,
    /// SQLSTATE, where it failed.
    pub sqlstate: Option<String>,
    /// Bound parameters as a person would write them.
    pub parameters: Option<Vec<Option<String>>>,
    /// What was decided.
    pub decision: Decision,
    /// How much of it was understood.
    pub capture: Capture,
    /// Whether the server saw it.
    pub server: ServerSaw,
    /// The API's method.
    pub method: Option<String>,
}

/// What the server's own log must say of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerSaw {
    /// It is there.
    It,
    /// It is not: it never reached the server, or the server skipped it unread.
    Nothing,
    /// The text is there or not, depending on where the server stopped.
    Perhaps,
}

impl Did {
    /// A simple query that succeeded.
    #[must_use]
    pub fn query(principal: &str, id: &str, statement: impl Into<Vec<u8>>) -> Self {
        Self {
            id: id.to_owned(),
            principal: principal.to_owned(),
            operation: Operation::Query,
            statement: Some(statement.into()),
            status: Status::Ok,
            rows: None,
            sqlstate: None,
            parameters: None,
            decision: Decision::Allowed,
            capture: Capture::Decoded,
            server: ServerSaw::It,
            method: None,
        }
    }

    /// With a number of rows.
    #[must_use]
    pub fn rows(mut self, rows: u64) -> Self {
        self.rows = Some(rows);
        self
    }

    /// By another message.
    #[must_use]
    pub fn operation(mut self, operation: Operation) -> Self {
        self.operation = operation;
        self
    }

    /// Failed in the server.
    #[must_use]
    pub fn failed(mut self, sqlstate: &str) -> Self {
        self.status = Status::Error;
        self.sqlstate = Some(sqlstate.to_owned());
        self
    }

    /// Never forwarded, for this reason.
    #[must_use]
    pub fn refused(mut self, decision: Decision) -> Self {
        self.status = Status::NotForwarded;
        self.decision = decision;
        self.server = ServerSaw::Nothing;
        self
    }

    /// Ended in another way.
    #[must_use]
    pub fn ended(mut self, status: Status, server: ServerSaw) -> Self {
        self.status = status;
        self.server = server;
        self
    }
}

/// A line of a client script.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    #[serde(default)]
    op: Option<String>,
    #[serde(default)]
    statement: Option<String>,
    /// Hexadecimal, for statements that are no UTF-8.
    #[serde(default)]
    statement_hex: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    rows: Option<u64>,
    #[serde(default)]
    sqlstate: Option<String>,
    #[serde(default)]
    parameters: Option<Vec<Option<String>>>,
    #[serde(default)]
    decision: Option<String>,
    #[serde(default)]
    capture: Option<String>,
    /// `it`, `nothing`, `perhaps`; by default what follows from the status.
    #[serde(default)]
    server: Option<String>,
    /// How many times the same thing was done.
    #[serde(default)]
    times: Option<usize>,
    #[serde(default)]
    method: Option<String>,
}

/// A call of an API that could carry no id. What of it is not said is not compared.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The method.
    pub call: String,
    /// What it does, as records name it, in lower case.
    #[serde(default)]
    pub op: Option<String>,
    /// How it ended, as records name it, in lower case.
    #[serde(default)]
    pub status: Option<String>,
    /// Status of the answer.
    #[serde(default)]
    pub http_status: Option<u16>,
}

/// Reads the calls that a client script printed.
pub fn calls(output: &str) -> Result<Vec<Call>> {
    output
        .lines()
        .filter(|line| line.starts_with("{\"call\""))
        .map(|line| serde_json::from_str(line).with_context(|| format!("client said {line}")))
        .collect()
}

/// Reads what a client script printed. Lines that do not begin with `{` are for people.
pub fn read(output: &str, principal: &str) -> Result<Vec<Did>> {
    let mut all = Vec::new();
    let mine = |line: &&str| line.starts_with('{') && !line.starts_with("{\"call\"");
    for line in output.lines().filter(mine) {
        let parsed: Line = serde_json::from_str(line).with_context(|| format!("client said {line}"))?;
        let times = parsed.times.unwrap_or(1);
        let one = from_line(parsed, principal).with_context(|| format!("client said {line}"))?;
        all.extend(std::iter::repeat_n(one, times));
    }
    Ok(all)
}

fn from_line(line: Line, principal: &str) -> Result<Did> {
    let named = |kind: &str, value: &str| format!("{kind}_{}", value.to_ascii_uppercase());
    let operation = line.op.as_deref().unwrap_or("query");
    let status = line.status.as_deref().unwrap_or("ok");
    let decision = line.decision.as_deref().unwrap_or("allowed");
    let capture = line.capture.as_deref().unwrap_or("decoded");
    let operation = Operation::from_str_name(&named("OPERATION", operation)).context("no such operation")?;
    let status = Status::from_str_name(&named("STATUS", status)).context("no such status")?;
    let server = match line.server.as_deref() {
        Some("it") => ServerSaw::It,
        Some("nothing") => ServerSaw::Nothing,
        Some("perhaps") => ServerSaw::Perhaps,
        Some(other) => bail!("server cannot be {other:?}"),
        None => match (status, operation) {
            (Status::NotForwarded, _) => ServerSaw::Nothing,
            // The text of a message is logged whole, although its later statements never ran.
            (Status::NotExecuted, Operation::Query) => ServerSaw::It,
            (Status::NotExecuted, _) => ServerSaw::Nothing,
            _ => ServerSaw::It,
        },
    };
    Ok(Did {
        id: line.id,
        principal: principal.to_owned(),
        operation,
        statement: match (line.statement, line.statement_hex) {
            (Some(text), _) => Some(text.into_bytes()),
            (None, Some(hex)) => Some(from_hex(&hex)?),
            (None, None) => None,
        },
        status,
        rows: line.rows,
        sqlstate: line.sqlstate,
        parameters: line.parameters,
        decision: Decision::from_str_name(&named("DECISION", decision)).context("no such decision")?,
        capture: Capture::from_str_name(&named("CAPTURE", capture)).context("no such capture")?,
        server,
        method: line.method,
    })
}

fn from_hex(hex: &str) -> Result<Vec<u8>> {
    (0..hex.len())
        .step_by(2)
        .map(|at| {
            let digits = hex.get(at..at + 2).context("odd number of hexadecimal digits")?;
            u8::from_str_radix(digits, 16).with_context(|| format!("{digits:?} is not hexadecimal"))
        })
        .collect()
}

/// All ids in the first 512 KiB of a text, in order: `id:…`, or `vlab=…` for pgbench, to which a word
/// behind a colon is a variable.
#[must_use]
pub fn ids(text: &[u8]) -> Vec<String> {
    const MARKS: [&[u8]; 2] = [b"id:", b"vlab="];
    let text = text.get(..512 * 1024).unwrap_or(text);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(mark)) else {
            at += 1;
            continue;
        };
        let tail = rest.get(mark.len()..).unwrap_or_default();
        let end = tail.iter().position(|byte| !is_id(*byte)).unwrap_or(tail.len());
        if end > 0 {
            found.push(String::from_utf8_lossy(tail.get(..end).unwrap_or_default()).into_owned());
        }
        at += mark.len() + end;
    }
    found
}

fn is_id(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use super::{ServerSaw, Status, ids, read};

    #[test]
    fn ids_are_found_wherever_they_stand() {
        assert_eq!(ids(b"SELECT 1 /* id:a-1 */; SELECT 2 /* id:b.2*/"), ["a-1", "b.2"]);
        assert_eq!(ids(b"\xff\xfe id:x vlab=y"), ["x", "y"]);
        assert!(ids(b"SELECT 'id: none'").is_empty());
    }

    #[test]
    fn a_clients_lines_become_what_it_did() {
        let output = "for people\n\
            {\"id\":\"a\",\"statement\":\"SELECT 1\",\"rows\":1,\"times\":2}\n\
            {\"id\":\"b\",\"op\":\"execute\",\"status\":\"not_executed\",\"parameters\":[\"1\",null]}\n";
        let did = read(output, "p").unwrap();
        assert_eq!(did.len(), 3);
        assert_eq!(did[0], did[1]);
        assert_eq!((did[0].rows, did[0].server), (Some(1), ServerSaw::It));
        assert_eq!((did[2].status, did[2].server), (Status::NotExecuted, ServerSaw::Nothing));
        assert!(read("{\"id\":\"a\",\"satus\":\"ok\"}", "p").is_err());
        assert!(read("{\"id\":\"a\",\"status\":\"fine\"}", "p").is_err());
    }
}
