//! One command with everything that belongs to it: its connection's TLS, and the commands that go on with it.

use prost::Message as _;
use serde::Serialize;
use verbatim_api::v1;

use crate::{
    args::Output,
    connect::Client,
    failure::Failure,
    names::{self, Named},
    output::{Row, Writer, harmless},
    view::{CommandView, TlsView, duration, time},
};

/// Commands shown that go on with it.
const CHILDREN: u32 = 100;

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
    let whole = Whole {
        tls: tls(client, flow.unwrap_or_default()).await?,
        children: children(client, &command.id).await?,
        command: CommandView::new(&command),
    };
    if output != Output::Table {
        return Writer::new(output).rows(&[whole]);
    }
    page(&whole, &answer.entries)
}

async fn tls(client: &mut Client, flow_id: Vec<u8>) -> Result<Option<TlsView>, Failure> {
    if flow_id.is_empty() {
        return Ok(None);
    }
    let filter = Some(v1::Filter { flow_id, ..v1::Filter::default() });
    let request = v1::SessionsRequest { filter, page_size: 1, cursor: String::new() };
    let answer = client.sessions(request).await?.into_inner();
    Ok(answer.sessions.first().and_then(|session| session.tls.as_ref()).map(TlsView::new))
}

async fn children(client: &mut Client, id: &[u8]) -> Result<Vec<Child>, Failure> {
    let filter = Some(v1::Filter { parent_command_id: id.to_vec(), ..v1::Filter::default() });
    let request =
        v1::SearchRequest { filter, page_size: CHILDREN, oldest_first: true, ..v1::SearchRequest::default() };
    let answer = client.search(request).await?.into_inner();
    let child = |command: &v1::Command| {
        let CommandView { id, time, operation, method, status, .. } = CommandView::new(command);
        Child { id, time, operation, method, status }
    };
    Ok(answer.commands.iter().map(child).collect())
}

/// A command as a page: one field a line, the statement whole, then its records.
#[expect(clippy::print_stdout, reason = "this is the verb's output")]
fn page(whole: &Whole, entries: &[v1::Entry]) -> Result<(), Failure> {
    let view = &whole.command;
    let fields = serde_json::to_value(view).map_err(std::io::Error::from)?;
    let serde_json::Value::Object(fields) = fields else { return Ok(()) };
    for (name, value) in &fields {
        let empty = match value {
            serde_json::Value::Null | serde_json::Value::Bool(false) => true,
            serde_json::Value::String(text) => text.is_empty(),
            serde_json::Value::Array(list) => list.is_empty(),
            serde_json::Value::Number(number) => {
                number.as_u64() == Some(0) && !matches!(name.as_str(), "sequence" | "rows" | "grpcStatus")
            }
            _ => false,
        };
        if empty {
            continue;
        }
        match value {
            serde_json::Value::String(text) => println!("{name:>18}  {}", harmless(text)),
            _ if name == "durationNanos" => println!("{:>18}  {}", "duration", duration(view.duration_nanos)),
            _ if name == "attributes" || name == "outcome" => {
                let attributes = if name == "outcome" { &view.outcome } else { &view.attributes };
                for attribute in attributes {
                    let value = attribute.text.as_deref().or(attribute.base64.as_deref()).unwrap_or_default();
                    println!("{name:>18}  {}", harmless(&format!("{} = {value}", attribute.name)));
                }
            }
            other => println!("{name:>18}  {}", harmless(&other.to_string())),
        }
    }
    for line in whole.tls.iter().flat_map(TlsView::lines) {
        println!("{:>18}  {}", "tls", harmless(&line));
    }
    for child in &whole.children {
        let Child { id, time, operation, method, status } = child;
        println!("{:>18}  {}", "child", harmless(&format!("{time} {id} {operation} {method} {status}")));
    }
    println!();
    for entry in entries {
        let Ok(envelope) = v1::Envelope::decode(entry.envelope.as_ref()) else {
            println!("{:>18}  an envelope of {} bytes that cannot be read", "record", entry.envelope.len());
            continue;
        };
        println!(
            "{:>18}  {} {} {} {}#{}",
            "record",
            time(envelope.wall_nanos),
            envelope.kind().short(),
            names::id(&envelope.record_id),
            names::id(&envelope.chain_id),
            envelope.sequence,
        );
    }
    Ok(())
}
