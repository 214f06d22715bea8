//! What PostgreSQL's own log says it saw, from its JSON lines (PostgreSQL manual, 20.8.6).

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::postgres::SETUP;

/// One statement that reached the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Which connection it came on.
    pub session: String,
    /// How it came.
    pub how: How,
    /// Its text, as the server had it after conversion to its own encoding.
    pub text: String,
}

/// By which message a statement came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Simple query.
    Query,
    /// Execute of a portal.
    Execute,
    /// Execute that goes on with a suspended portal.
    Fetch,
    /// FunctionCall; the text is the function's OID.
    FunctionCall,
    /// An HTTP request, by another server's log; the text is its ids.
    Request,
    /// Only known from the error that it caused: it failed before `log_statement` could log it.
    Failed,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    session_id: String,
    #[serde(default)]
    application_name: String,
    error_severity: String,
    message: String,
    #[serde(default)]
    statement: Option<String>,
    #[serde(default)]
    backend_type: String,
}

/// Reads a log. What the lab itself did is left out.
pub fn read(log: &str) -> Result<Vec<Logged>> {
    let mut logged: Vec<Logged> = Vec::new();
    let mut latest: HashMap<String, usize> = HashMap::new();
    // A last line without its end is still being written.
    let complete = log.rfind('\n').map_or("", |end| log.get(..end).unwrap_or_default());
    for line in complete.lines() {
        let line: Line = serde_json::from_str(line).with_context(|| format!("no line of jsonlog: {line}"))?;
        if line.application_name == SETUP
            || !matches!(line.backend_type.as_str(), "client backend" | "walsender")
        {
            continue;
        }
        let Some((how, text)) = classify(&line) else { continue };
        // An error comes after the line of its own statement, if that was logged at all.
        let repeats = latest
            .get(&line.session_id)
            .and_then(|at| logged.get(*at))
            .is_some_and(|last| how == How::Failed && (last.text == text || last.how == How::FunctionCall));
        if repeats {
            continue;
        }
        latest.insert(line.session_id.clone(), logged.len());
        logged.push(Logged { session: line.session_id, how, text });
    }
    Ok(logged)
}

fn classify(line: &Line) -> Option<(How, String)> {
    if line.error_severity == "LOG" {
        let message = &line.message;
        if let Some(text) = message.strip_prefix("statement: ") {
            return Some((How::Query, text.to_owned()));
        }
        if let Some(rest) = message.strip_prefix("fastpath function call: ") {
            let oid = rest.rsplit_once("(OID ")?.1.trim_end_matches(')');
            return Some((How::FunctionCall, oid.to_owned()));
        }
        // `execute <name>: text`, with `/portal` behind the name where the portal has one. A name with
        // ": " in it would be misread: no scenario uses one.
        if let Some(rest) = message.strip_prefix("execute fetch from ") {
            return Some((How::Fetch, rest.split_once(": ")?.1.to_owned()));
        }
        if let Some(rest) = message.strip_prefix("execute ") {
            return Some((How::Execute, rest.split_once(": ")?.1.to_owned()));
        }
        return None;
    }
    if !matches!(line.error_severity.as_str(), "ERROR" | "FATAL" | "PANIC") {
        return None;
    }
    line.statement.as_ref().map(|text| (How::Failed, text.clone()))
}

#[cfg(test)]
mod tests {
    use super::{How, read};

    fn line(session: &str, severity: &str, message: &str, statement: Option<&str>) -> String {
        serde_json::json!({
            "session_id": session, "error_severity": severity, "message": message, "statement": statement,
            "backend_type": "client backend", "application_name": "x",
        })
        .to_string()
            + "\n"
    }

    #[test]
    fn each_way_in_which_a_statement_comes_is_told_apart() {
        let log = line("1", "LOG", "statement: SELECT 1; SELECT ': '", None)
            + &line("1", "LOG", "execute <unnamed>: SELECT 2", None)
            + &line("1", "LOG", "execute s/p: SELECT 3", None)
            + &line("1", "LOG", "execute fetch from s/p: SELECT 3", None)
            + &line("1", "LOG", "fastpath function call: \"lo_creat\" (OID 957)", None)
            + &line("1", "WARNING", "nothing to see", Some("SELECT 4"));
        let seen: Vec<_> = read(&log).unwrap().into_iter().map(|one| (one.how, one.text)).collect();
        assert_eq!(
            seen,
            [
                (How::Query, "SELECT 1; SELECT ': '".to_owned()),
                (How::Execute, "SELECT 2".into()),
                (How::Execute, "SELECT 3".into()),
                (How::Fetch, "SELECT 3".into()),
                (How::FunctionCall, "957".into()),
            ]
        );
    }

    #[test]
    fn an_error_counts_once_with_its_statement_and_alone_where_that_was_not_logged() {
        let log = line("1", "LOG", "statement: SELECT 1/0", None)
            + &line("2", "LOG", "statement: SELECT 7", None)
            + &line("1", "ERROR", "division by zero", Some("SELECT 1/0"))
            + &line("1", "ERROR", "syntax error", Some("SELEKT"));
        let seen: Vec<_> = read(&log).unwrap().into_iter().map(|one| (one.how, one.text)).collect();
        assert_eq!(
            seen,
            [
                (How::Query, "SELECT 1/0".to_owned()),
                (How::Query, "SELECT 7".into()),
                (How::Failed, "SELEKT".into()),
            ]
        );
    }

    #[test]
    fn a_line_that_is_still_being_written_is_left_for_later() {
        let log = line("1", "LOG", "statement: SELECT 1", None) + "{\"half\":";
        assert_eq!(read(&log).unwrap().len(), 1);
    }
}
