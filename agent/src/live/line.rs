//! One line of the live view: what a person reads at a glance, harmless to a terminal, never wrapped.

use std::fmt::Write as _;

use verbatim_api::v1;
use verbatim_proxy::seam::Summary;
use verbatim_terminal::escape;

/// Time, principal, service, operation, method, decision (and status, where it is not OK), HTTP and gRPC
/// status, duration, statement (where there is none, what the command acts on).
/// Ends with a newline.
pub(crate) fn format(summary: &Summary, columns: usize) -> String {
    let mut line = String::with_capacity(columns + 8);
    let clock = clock(summary.wall_nanos);
    let (operation, outcome) = (operation(summary.operation), outcome(summary));
    let duration = duration(summary);
    let service = summary.service;
    // Writing to a String cannot fail.
    write!(line, "{clock} ").ok();
    escape(short(&summary.principal).as_bytes(), &mut line);
    write!(line, " {service} {operation} ").ok();
    // A request that no decoder knows more about is its own statement: `GET /path`.
    if !summary.method.is_empty() && !summary.statement.starts_with(summary.method.as_bytes()) {
        escape(summary.method.as_bytes(), &mut line);
        line.push(' ');
    }
    line.push_str(&outcome);
    if let Some(status) = summary.http_status {
        write!(line, " {status}").ok();
    }
    if let Some(status) = summary.grpc_status {
        write!(line, " grpc:{status}").ok();
    }
    write!(line, " {duration}").ok();
    if let Some(rows) = summary.rows {
        write!(line, " {rows} {}", if rows == 1 { "row" } else { "rows" }).ok();
    }
    proof(summary, &mut line);
    line.push_str("  ");
    // Every byte makes a column at least, but for those that continue a character: 4 a column is enough.
    let most = columns.saturating_mul(4);
    let what = match &summary.statement[..] {
        [] => summary.resource.as_bytes(),
        statement => statement,
    };
    escape(what.get(..most).unwrap_or(what), &mut line);
    if let Some(error) = &summary.error {
        line.push_str("  ← ");
        escape(error.as_bytes(), &mut line);
    }
    let mut line = cut(&line, columns);
    line.push('\n');
    line
}

/// What speaks for or against the command. Whom a workload names is in quotes, behind a word of ours that says how
/// well that is known: no name can pass for that word.
fn proof(summary: &Summary, line: &mut String) {
    if summary.credential_match == v1::CredentialMatch::No {
        line.push_str(" CREDENTIAL-NOT-ITS-OWN");
    }
    let (kind, subject) = match &summary.on_behalf_of {
        Some((v1::BehalfKind::Verified | v1::BehalfKind::Delegated, subject)) => ("verified", subject),
        Some((_, subject)) => ("asserted", subject),
        None => return,
    };
    let mut name = String::new();
    escape(subject.replace('"', "'").as_bytes(), &mut name);
    write!(line, " behalf-{kind}=\"{name}\"").ok();
}

/// A federated principal's own part: project and pool are the same in every line.
fn short(principal: &str) -> &str {
    principal.split_once("/subject/").map_or(principal, |(_, subject)| subject)
}

/// UTC: a record's time is compared across machines.
fn clock(wall_nanos: u64) -> String {
    let millis = wall_nanos / 1_000_000;
    let (seconds, millis) = (millis / 1000 % 86_400, millis % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn operation(operation: v1::Operation) -> &'static str {
    match operation {
        v1::Operation::Query => "query",
        v1::Operation::Execute => "execute",
        v1::Operation::Fetch => "fetch",
        v1::Operation::FunctionCall => "function",
        v1::Operation::Cancel => "cancel",
        v1::Operation::Connect => "connect",
        v1::Operation::HttpRequest => "request",
        v1::Operation::GrpcCall => "call",
        v1::Operation::Load => "load",
        v1::Operation::Extract => "extract",
        v1::Operation::Copy => "copy",
        v1::Operation::ReadRows => "read-rows",
        v1::Operation::InsertRows => "insert-rows",
        v1::Operation::Get => "get",
        v1::Operation::List => "list",
        v1::Operation::Create => "create",
        v1::Operation::Update => "update",
        v1::Operation::Delete => "delete",
        v1::Operation::Upload => "upload",
        v1::Operation::Unspecified => "-",
    }
}

fn outcome(summary: &Summary) -> String {
    let decision = match summary.decision {
        v1::Decision::Allowed => "allowed",
        v1::Decision::Denied => "DENIED",
        v1::Decision::Held => "held",
        v1::Decision::Expired => "EXPIRED",
        v1::Decision::Abandoned => "ABANDONED",
        v1::Decision::Unspecified => "-",
    };
    let status = match summary.status {
        v1::Status::Error => "/error",
        v1::Status::NotExecuted => "/not-executed",
        v1::Status::OutcomeUnknown => "/outcome-unknown",
        v1::Status::Suspended => "/suspended",
        v1::Status::Accepted => "/accepted",
        // What was not forwarded is said by the decision.
        v1::Status::NotForwarded | v1::Status::Ok | v1::Status::Pending | v1::Status::Unspecified => "",
    };
    format!("{decision}{status}")
}

fn duration(summary: &Summary) -> String {
    let micros = summary.duration.as_micros();
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..1_000_000 => format!("{}.{}ms", micros / 1000, micros / 100 % 10),
        _ => format!("{}.{:02}s", micros / 1_000_000, micros / 10_000 % 100),
    }
}

/// Cuts to so many columns. A character beyond the scripts of one column each counts as two: rather a
/// line too short than one that wraps.
fn cut(line: &str, columns: usize) -> String {
    let width = |char: char| if u32::from(char) >= 0x1100 && !matches!(char, '…' | '←') { 2 } else { 1 };
    if line.chars().map(width).sum::<usize>() <= columns {
        return line.to_owned();
    }
    let room = columns.saturating_sub(1);
    let mut used = 0;
    let kept = line.chars().take_while(|char| {
        used += width(*char);
        used <= room
    });
    kept.chain(['…']).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn summary() -> Summary {
        Summary {
            wall_nanos: 1_764_000_000_123_456_789,
            principal: "local:host/alice".into(),
            service: "postgresql",
            operation: v1::Operation::Query,
            decision: v1::Decision::Allowed,
            status: v1::Status::Ok,
            duration: Duration::from_micros(1234),
            statement: b"select 1".to_vec(),
            rows: Some(1),
            ..Summary::default()
        }
    }

    #[test]
    fn who_is_verified_cannot_be_taken_for_who_is_asserted() {
        let by =
            |kind, subject: &str| Summary { on_behalf_of: Some((kind, subject.to_owned())), ..summary() };
        let verified = format(&by(v1::BehalfKind::Verified, "ada"), 200);
        assert!(verified.contains(" 1 row behalf-verified=\"ada\"  select 1"), "{verified}");
        let lying = format(&by(v1::BehalfKind::Asserted, "x\" behalf-verified=\"ada"), 200);
        assert!(lying.contains(" 1 row behalf-asserted=\"x' behalf-verified='ada\"  select 1"), "{lying}");
        let stolen = Summary { credential_match: v1::CredentialMatch::No, ..summary() };
        assert!(format(&stolen, 200).contains(" CREDENTIAL-NOT-ITS-OWN  select 1"));
    }

    #[test]
    fn a_request_shows_its_method_its_status_and_what_it_acts_on() {
        let request = Summary {
            service: "bigquery",
            operation: v1::Operation::Get,
            method: "bigquery.tables.get".into(),
            resource: "projects/p/datasets/d/tables/t".into(),
            status: v1::Status::Error,
            http_status: Some(404),
            statement: Vec::new(),
            rows: None,
            ..summary()
        };
        assert_eq!(
            format(&request, 200),
            "16:00:00.123Z local:host/alice bigquery get bigquery.tables.get allowed/error 404 1.2ms  projects/p/datasets/d/tables/t\n"
        );
        let plain = Summary { method: "GET".into(), statement: b"GET /x".to_vec(), ..request.clone() };
        assert!(format(&plain, 200).ends_with(" bigquery get allowed/error 404 1.2ms  GET /x\n"));
        let call = Summary { http_status: Some(200), grpc_status: Some(7), ..request };
        assert!(format(&call, 200).contains(" allowed/error 200 grpc:7 1.2ms "));
    }

    #[test]
    fn a_command_is_one_line_with_everything_in_it() {
        assert_eq!(
            format(&summary(), 200),
            "16:00:00.123Z local:host/alice postgresql query allowed 1.2ms 1 row  select 1\n"
        );
    }

    #[test]
    fn an_error_and_a_refusal_are_seen() {
        let failed = Summary { status: v1::Status::Error, error: Some("no such\ntable".into()), ..summary() };
        let line = format(&failed, 200);
        assert!(line.contains(" allowed/error ") && line.ends_with("  ← no such table\n"), "{line}");
        let denied =
            Summary { decision: v1::Decision::Denied, status: v1::Status::NotForwarded, ..summary() };
        assert!(format(&denied, 200).contains(" DENIED "));
    }

    #[test]
    fn nothing_in_a_statement_can_drive_the_terminal() {
        let statement =
            "select '\x1b[2J\u{9b}31m\u{202e}' \n\t -- \x07".bytes().chain([0xff, 0xc3]).collect();
        let line = format(&Summary { statement, ..summary() }, 200);
        let expected = "  select '\\u{1b}[2J\\u{9b}31m\\u{202e}' -- \\u{7}\\xff\\xc3\n";
        assert!(line.ends_with(expected), "{line}");
        let named = format(&Summary { principal: "local:h/\x1bx".into(), ..summary() }, 200);
        assert!(!named.contains('\x1b'));
    }

    #[test]
    fn a_line_never_wraps() {
        let long = Summary { statement: b"x".repeat(100_000), ..summary() };
        for columns in [1, 2, 40, 80, 200] {
            let line = format(&long, columns);
            assert_eq!(line.trim_end_matches('\n').chars().count(), columns);
            assert!(line.ends_with("…\n"));
        }
        let wide = format(&Summary { statement: "表".repeat(100).into_bytes(), ..summary() }, 100);
        assert!(wide.chars().filter(|char| *char == '表').count() <= 20, "{wide}");
    }

    #[test]
    fn a_federated_principal_is_shown_by_its_subject() {
        let principal = "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/subject/ns/a/sa/b";
        assert!(format(&Summary { principal: principal.into(), ..summary() }, 200).contains(" ns/a/sa/b "));
    }
}
