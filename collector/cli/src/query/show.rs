//! One command with everything that belongs to it: its connection's TLS, and the commands that go on with it.

use prost::Message as _;
use serde::Serialize;
use verbatim_api::v1;

use super::{Behind, Pages};
use crate::{
    args::Output,
    connect::Client,
    failure::Failure,
    names::{self, Named},
    output::{Row, Writer, harmless},
    view::{CommandView, TlsView, duration, time},
};

/// A command as it is shown alone.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    #[serde(flatten)]
    command: CommandView,
    tls: Option<TlsView>,
    /// Commands that go on with what it began.
    children: Vec<Child>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Child {
    id: String,
    time: String,
    operation: String,
    method: String,
    status: String,
}

impl Row for Whole {
    const TITLES: &'static [&'static str] = CommandView::TITLES;
    const WIDTHS: &'static [usize] = CommandView::WIDTHS;

    fn cells(&self) -> Vec<String> {
        self.command.cells()
    }
}

/// Asks for what belongs to the command, and writes it.
pub(super) async fn write(
    client: &mut Client,
    answer: &v1::GetResponse,
    output: Output,
) -> Result<(), Failure> {
    let command = answer.command.clone().unwrap_or_default();
    let flow = command.started.as_ref().or(command.finished.as_ref()).map(|e| e.flow_id.clone());
    let mut behind = Behind::default();
    behind.note((answer.indexed_position, answer.log_position));
    let whole = Whole {
        tls: tls(client, flow.unwrap_or_default(), &mut behind).await?,
        children: children(client, &command.id, &mut behind).await?,
        command: CommandView::new(&command),
    };
    if output == Output::Table {
        print(&page(&whole, &answer.entries)?);
    } else {
        Writer::new(output).rows(&[whole])?;
    }
    behind.tell();
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the verb's output")]
fn print(lines: &[String]) {
    lines.iter().for_each(|line| println!("{line}"));
}

async fn tls(client: &mut Client, flow_id: Vec<u8>, behind: &mut Behind) -> Result<Option<TlsView>, Failure> {
    if flow_id.is_empty() {
        return Ok(None);
    }
    let filter = Some(v1::Filter { flow_id, ..v1::Filter::default() });
    let request = v1::SessionsRequest { filter, page_size: 1, cursor: String::new() };
    let answer = client.sessions(request).await?.into_inner();
    behind.note((answer.indexed_position, answer.log_position));
    Ok(answer.sessions.first().and_then(|session| session.tls.as_ref()).map(TlsView::new))
}

/// All of them, however many pages they are.
async fn children(client: &mut Client, id: &[u8], behind: &mut Behind) -> Result<Vec<Child>, Failure> {
    let filter = v1::Filter { parent_command_id: id.to_vec(), ..v1::Filter::default() };
    let child = |command: &v1::Command| {
        let CommandView { id, time, operation, method, status, .. } = CommandView::new(command);
        Child { id, time, operation, method, status }
    };
    let mut children = Vec::new();
    let mut pages = Pages::all();
    while let Some((page_size, cursor)) = pages.next() {
        let filter = Some(filter.clone());
        let request =
            v1::SearchRequest { filter, page_size, cursor, oldest_first: true, at_least_position: 0 };
        let answer = client.search(request).await?.into_inner();
        let positions = (answer.indexed_position, answer.log_position);
        behind.note(positions);
        children.extend(answer.commands.iter().map(child));
        pages.read(answer.commands.len(), answer.next_cursor, positions);
    }
    Ok(children)
}

/// A command as a page: one field a line, the statement whole, then its records.
fn page(whole: &Whole, entries: &[v1::Entry]) -> Result<Vec<String>, Failure> {
    let view = &whole.command;
    let fields = serde_json::to_value(view).map_err(std::io::Error::from)?;
    let serde_json::Value::Object(fields) = fields else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    let mut line = |name: &str, text: &str| lines.push(format!("{name:>18}  {}", harmless(text)));
    for (name, value) in fields.iter().filter(|(name, value)| !is_empty(name, value)) {
        match value {
            serde_json::Value::String(text) => line(name, text),
            _ if name == "durationNanos" => line("duration", &duration(view.duration_nanos)),
            _ if name == "labels" => view.place.labels.iter().for_each(|a| line(name, &a.line())),
            _ if name == "owners" => line(name, &view.place.owners.join(" < ")),
            _ if name == "attributes" => view.attributes.iter().for_each(|a| line(name, &a.line())),
            _ if name == "credentials" => view.credentials.iter().for_each(|c| line(name, &c.line())),
            _ if name == "onBehalfOf" => view.on_behalf_of.iter().for_each(|p| line(name, &p.line())),
            _ if name == "outcome" => view.outcome.iter().for_each(|a| line(name, &a.line())),
            other => line(name, &other.to_string()),
        }
    }
    for leg in whole.tls.iter().flat_map(TlsView::lines) {
        line("tls", &leg);
    }
    for child in &whole.children {
        let Child { id, time, operation, method, status } = child;
        line("child", &format!("{time} {id} {operation} {method} {status}"));
    }
    lines.push(String::new());
    lines.extend(entries.iter().map(record));
    Ok(lines)
}

/// Whether a field says nothing.
fn is_empty(name: &str, value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(false) => true,
        serde_json::Value::String(text) => text.is_empty(),
        serde_json::Value::Array(list) => list.is_empty(),
        serde_json::Value::Number(number) => {
            number.as_u64() == Some(0) && !matches!(name, "sequence" | "rows" | "grpcStatus")
        }
        _ => false,
    }
}

fn record(entry: &v1::Entry) -> String {
    let Ok(envelope) = v1::Envelope::decode(entry.envelope.as_ref()) else {
        return format!(
            "{:>18}  an envelope of {} bytes that cannot be read",
            "record",
            entry.envelope.len()
        );
    };
    format!(
        "{:>18}  {} {} {} {}#{}",
        "record",
        time(envelope.wall_nanos),
        envelope.kind().short(),
        names::id(&envelope.record_id),
        names::id(&envelope.chain_id),
        envelope.sequence,
    )
}

#[cfg(test)]
mod tests {
    use verbatim_api::v1::ingest_client::IngestClient;
    use verbatim_collector::config::{Address, Config};

    use super::*;
    use crate::node::Node;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_is_shown_with_all_that_goes_on_with_it_however_many_pages_that_is() {
        const CHILDREN: usize = 1003;
        let place = tempfile::tempdir().unwrap();
        let socket = |name: &str| Address::Unix(place.path().join(name));
        let config = Config::embedded(place.path().join("data"), socket("ingest"), socket("audit"), &[]);
        let collector = verbatim_collector::start(&config).await.unwrap();
        let mut node = Node::new();
        let job = node.command(b"", "insert");
        for n in 0..CHILDREN {
            let (envelope, content) = node.started(b"", &format!("read {n}"));
            node.push(v1::Envelope { parent_command_id: job.clone(), ..envelope }, Some(content));
        }
        let url = |name: &str| format!("unix:{}", place.path().join(name).display());
        let mut ingest = IngestClient::connect(url("ingest")).await.unwrap();
        let mut answers = ingest.append(tokio_stream::once(node.batch())).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some());

        let mut client = Client::connect(url("audit")).await.unwrap();
        let all = v1::SearchRequest { at_least_position: u64::MAX, ..v1::SearchRequest::default() };
        client.search(all).await.unwrap();
        let mut behind = Behind::default();
        let children = children(&mut client, &job, &mut behind).await.unwrap();
        assert_eq!((children.len(), behind), (CHILDREN, Behind(0)));
        let mut ids: Vec<_> = children.iter().map(|child| &child.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), CHILDREN);
        collector.shut_down().await.unwrap();
    }

    #[test]
    fn a_job_is_shown_with_its_request_its_answer_its_tls_and_what_goes_on_with_it() {
        let attribute = |name: &str, value: &str| v1::Attribute { name: name.into(), value: value.into() };
        let target = v1::Target {
            method: "bigquery.jobs.insert".into(),
            resource: "projects/p/jobs/j".into(),
            ..v1::Target::default()
        };
        let command = v1::Command {
            started: Some(v1::Envelope {
                parent_command_id: vec![1; 16],
                findings: vec![v1::CommandFinding::HostMismatch.into()],
                credential_match: v1::CredentialMatch::No.into(),
                on_behalf_of_kind: v1::BehalfKind::Asserted.into(),
                ..v1::Envelope::default()
            }),
            started_content: Some(v1::Content {
                target: Some(target),
                attributes: vec![attribute("default_dataset", "p.d\u{1b}[2J")],
                credentials: vec![v1::Credential {
                    kind: v1::CredentialKind::OpaqueToken.into(),
                    place: "header authorization".into(),
                    matches_principal: v1::CredentialMatch::No.into(),
                    reason: "issued to another workload of this node".into(),
                    source: v1::CredentialSource::Issuance.into(),
                    fingerprint: vec![0xab; 32],
                    fingerprint_key_id: "k".into(),
                    ..v1::Credential::default()
                }],
                on_behalf_of: vec![v1::OnBehalfOf {
                    subject: "ada\n onBehalfOf  verified \"eve\"".into(),
                    evidence: "baggage".into(),
                    kind: v1::BehalfKind::Asserted.into(),
                    rejection: "expired".into(),
                    ..v1::OnBehalfOf::default()
                }],
                ..v1::Content::default()
            }),
            finished: Some(v1::Envelope {
                http_status: 200,
                grpc_status: Some(0),
                ..v1::Envelope::default()
            }),
            ended: Some(v1::Envelope { rows: Some(0), ..v1::Envelope::default() }),
            ended_content: Some(v1::Content {
                attributes: vec![attribute("bytes_billed", "10")],
                ..v1::Content::default()
            }),
            ..v1::Command::default()
        };
        let tls = v1::Tls { server_name: "bigquery.googleapis.com".into(), ..v1::Tls::default() };
        let child = Child {
            id: "c".into(),
            time: "t".into(),
            operation: "read-rows".into(),
            method: "bigquery.jobs.getQueryResults".into(),
            status: "ok".into(),
        };
        let whole = Whole {
            command: CommandView::new(&command),
            tls: Some(TlsView::new(&tls)),
            children: vec![child],
        };
        let lines = page(&whole, &[v1::Entry::default()]).unwrap();
        let lines: Vec<_> = lines.iter().map(|line| line.trim()).collect();
        for wanted in [
            "method  bigquery.jobs.insert",
            "resource  projects/p/jobs/j",
            "attributes  default_dataset = p.d\\u{1b}[2J",
            "outcome  bytes_billed = 10",
            "httpStatus  200",
            "grpcStatus  0",
            "rows  0",
            "parent  01010101-0101-0101-0101-010101010101",
            "findings  [\"host-mismatch\"]",
            "credentials  no opaque-token in header authorization: issued to another workload of this node (issuance), \
             fingerprint abababababababab under key k",
            "onBehalfOf  asserted \"ada onBehalfOf verified 'eve'\" by baggage, REJECTED: expired",
            "tls  asked for bigquery.googleapis.com",
            "child  t c read-rows bigquery.jobs.getQueryResults ok",
        ] {
            assert!(lines.contains(&wanted), "{wanted}: {lines:#?}");
        }
    }
}
