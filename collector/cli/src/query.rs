//! The verbs: each asks the Audit service and writes what comes back.

use jiff::Timestamp;
use verbatim_api::v1;

use crate::{
    args::{FilterArgs, Output, Page, Records, Sessions, Tail},
    connect::Client,
    failure::Failure,
    filter, names,
    output::{Row, Writer},
    view::{BehalfView, CommandView, FindingView, SessionView, duration},
};

mod coverage;
mod events;
mod show;

pub(crate) use self::{coverage::coverage, events::events};

/// Commands asked for in one call.
const PAGE: u32 = 1000;

impl Row for CommandView {
    const TITLES: &'static [&'static str] = &[
        "TIME",
        "ID",
        "PRINCIPAL",
        "ON-BEHALF-OF",
        "CREDENTIAL",
        "SERVICE",
        "OPERATION",
        "DECISION",
        "STATUS",
        "ROWS",
        "DURATION",
        "STATEMENT",
    ];
    const WIDTHS: &'static [usize] = &[27, 36, 24, 24, 10, 10, 9, 8, 9, 6, 8, 0];

    fn cells(&self) -> Vec<String> {
        vec![
            self.time.clone(),
            self.id.clone(),
            principal(&self.principal),
            self.on_behalf_of.first().map(BehalfView::cell).unwrap_or_default(),
            self.own(),
            self.service.clone(),
            self.operation.clone(),
            self.decision.clone(),
            self.status.clone(),
            self.rows.map(|rows| rows.to_string()).unwrap_or_default(),
            duration(self.duration_nanos),
            self.what(),
        ]
    }
}

impl Row for SessionView {
    const TITLES: &'static [&'static str] = &[
        "OPENED",
        "ID",
        "PRINCIPAL",
        "PROCESS",
        "DESTINATION",
        "CAPTURE",
        "COMMANDS",
        "ERRORS",
        "DENIED",
        "SENT",
        "RECEIVED",
        "REASON",
    ];
    const WIDTHS: &'static [usize] = &[27, 36, 24, 16, 24, 8, 8, 6, 6, 8, 8, 0];

    fn cells(&self) -> Vec<String> {
        let name = if self.host.is_empty() { &self.address } else { &self.host };
        let database = if self.database.is_empty() { String::new() } else { format!("/{}", self.database) };
        vec![
            self.opened.clone(),
            self.id.clone(),
            principal(&self.principal),
            format!("{}[{}]", self.comm, self.pid),
            format!("{name}:{}{database}", self.port),
            self.capture.clone(),
            self.commands.to_string(),
            self.errors.to_string(),
            self.denied.to_string(),
            self.bytes_sent.to_string(),
            self.bytes_received.to_string(),
            self.opaque_reason.clone(),
        ]
    }
}

impl Row for FindingView {
    const TITLES: &'static [&'static str] = &["FOUND", "KIND", "CHAIN", "FIRST", "LAST", "DETAIL"];
    const WIDTHS: &'static [usize] = &[27, 18, 36, 8, 8, 0];

    fn cells(&self) -> Vec<String> {
        vec![
            self.found.clone(),
            self.kind.clone(),
            self.chain_id.clone(),
            self.first_sequence.to_string(),
            self.last_sequence.to_string(),
            self.detail.clone(),
        ]
    }
}

/// In a table the pool's long path says nothing that namespace and service account don't.
fn principal(full: &str) -> String {
    match full.rsplit_once("/subject/") {
        Some((_, subject)) => subject.to_owned(),
        None => full.to_owned(),
    }
}

pub(crate) async fn records(client: &mut Client, verb: &Records, output: Output) -> Result<(), Failure> {
    let filter = filter::build(&verb.filter, Timestamp::now())?;
    let mut writer = Writer::new(output);
    let mut pages = Pages::new(&verb.page);
    while let Some((page_size, cursor)) = pages.next() {
        let request = v1::SearchRequest {
            filter: Some(filter.clone()),
            page_size,
            cursor,
            oldest_first: verb.oldest_first,
            at_least_position: 0,
        };
        let answer = client.search(request).await?.into_inner();
        let rows: Vec<CommandView> = answer.commands.iter().map(CommandView::new).collect();
        writer.rows(&rows)?;
        pages.read(rows.len(), answer.next_cursor, (answer.indexed_position, answer.log_position));
    }
    pages.end();
    Ok(())
}

pub(crate) async fn sessions(client: &mut Client, verb: &Sessions, output: Output) -> Result<(), Failure> {
    let filter = filter::build(&verb.filter, Timestamp::now())?;
    let mut writer = Writer::new(output);
    let mut pages = Pages::new(&verb.page);
    while let Some((page_size, cursor)) = pages.next() {
        let request = v1::SessionsRequest { filter: Some(filter.clone()), page_size, cursor };
        let answer = client.sessions(request).await?.into_inner();
        writer.rows(&answer.sessions.iter().map(SessionView::new).collect::<Vec<_>>())?;
        let positions = (answer.indexed_position, answer.log_position);
        pages.read(answer.sessions.len(), answer.next_cursor, positions);
    }
    pages.end();
    Ok(())
}

pub(crate) async fn findings(client: &mut Client, page: &Page, output: Output) -> Result<(), Failure> {
    let mut writer = Writer::new(output);
    let mut pages = Pages::new(page);
    while let Some((page_size, cursor)) = pages.next() {
        let answer = client.findings(v1::FindingsRequest { page_size, cursor }).await?.into_inner();
        writer.rows(&answer.findings.iter().map(FindingView::new).collect::<Vec<_>>())?;
        let positions = (answer.indexed_position, answer.log_position);
        pages.read(answer.findings.len(), answer.next_cursor, positions);
    }
    pages.end();
    Ok(())
}

/// Goes on from page to page until there is no more, or as many rows as were asked for.
struct Pages {
    left: u32,
    cursor: String,
    begun: bool,
    behind: Behind,
}

impl Pages {
    fn new(page: &Page) -> Self {
        let cursor = page.cursor.clone().unwrap_or_default();
        Self { left: page.limit, cursor, begun: false, behind: Behind::default() }
    }

    /// All that there are, from the first on.
    fn all() -> Self {
        Self::new(&Page { limit: u32::MAX, cursor: None })
    }

    /// Size and cursor of the next page.
    fn next(&mut self) -> Option<(u32, String)> {
        let done = self.left == 0 || (self.begun && self.cursor.is_empty());
        self.begun = true;
        (!done).then(|| (self.left.min(PAGE), self.cursor.clone()))
    }

    /// Takes note of a page and of the positions (of the index, of the log) that it was answered at.
    fn read(&mut self, rows: usize, next_cursor: String, positions: (u64, u64)) {
        self.behind.note(positions);
        // A page without rows is the last, whatever it says of another.
        self.left =
            if rows == 0 { 0 } else { self.left.saturating_sub(u32::try_from(rows).unwrap_or(u32::MAX)) };
        self.cursor = next_cursor;
    }

    /// What the rows do not say. On standard error, so that it never mixes with them.
    #[expect(clippy::print_stderr, reason = "a hint for a person, apart from the rows")]
    fn end(&self) {
        if !self.cursor.is_empty() {
            eprintln!("verbatim: there is more: --cursor {}", self.cursor);
        }
        self.behind.tell();
    }
}

/// By how many positions the index was behind the log, at the worst of the answers.
///
/// An answer from an index that is still being made must not pass for the whole truth.
#[derive(Debug, Default, PartialEq)]
struct Behind(u64);

impl Behind {
    /// Positions of one answer: of the index, of the log.
    fn note(&mut self, (indexed, log): (u64, u64)) {
        self.0 = self.0.max(log.saturating_sub(indexed));
    }

    #[expect(clippy::print_stderr, reason = "a warning for a person, apart from the rows")]
    fn tell(&self) {
        if let Self(behind @ 1..) = self {
            eprintln!(
                "verbatim: the index is {behind} positions behind the log: ask again for what is missing"
            );
        }
    }
}

pub(crate) async fn tail(client: &mut Client, verb: &Tail, output: Output) -> Result<(), Failure> {
    let request = v1::TailRequest {
        // It begins now, so `--since` has nothing to say.
        filter: Some(filter::build(&FilterArgs { since: None, ..verb.filter.clone() }, Timestamp::now())?),
        include_started: verb.started,
        after_position: 0,
    };
    let mut stream = client.tail(request).await?.into_inner();
    let mut writer = Writer::new(output);
    loop {
        tokio::select! {
            command = stream.message() => match command? {
                Some(command) => writer.live(&CommandView::new(&command))?,
                None => return Ok(()),
            },
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

pub(crate) async fn show(client: &mut Client, id: &str, output: Output) -> Result<(), Failure> {
    let answer = match client.get(v1::GetRequest { id: names::parse_id(id)? }).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == tonic::Code::NotFound => {
            return Err(Failure::NotFound(id.to_owned()));
        }
        Err(status) => return Err(status.into()),
    };
    show::write(client, &answer, output).await
}

#[expect(clippy::print_stdout, reason = "this is the verb's output")]
pub(crate) async fn delete_content(
    client: &mut Client,
    ids: &[String],
    reason: String,
) -> Result<(), Failure> {
    let ids = ids.iter().map(|id| names::parse_id(id)).collect::<Result<Vec<_>, _>>()?;
    let answer = client.delete_content(v1::DeleteContentRequest { ids, reason }).await?.into_inner();
    println!("deleted the contents of {} records", answer.deleted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another_until_all_rows_asked_for_are_there() {
        let mut pages = Pages { left: PAGE + 5, ..Pages::all() };
        assert_eq!(pages.next(), Some((PAGE, String::new())));
        pages.read(PAGE as usize, "a".into(), (7, 7));
        assert_eq!(pages.next(), Some((5, "a".into())));
        pages.read(5, "b".into(), (7, 7));
        assert_eq!(pages.next(), None);
        assert_eq!((pages.cursor.as_str(), pages.behind), ("b", Behind(0)));
    }

    #[test]
    fn an_index_that_was_behind_at_one_page_is_told_of_whatever_came_later() {
        let mut pages = Pages::all();
        for positions in [(9, 9), (0, 9), (8, 10), (11, 10)] {
            pages.read(1, "a".into(), positions);
        }
        assert_eq!(pages.behind, Behind(9));
    }

    #[test]
    fn pages_end_where_there_is_no_more() {
        for (rows, cursor) in [(3, ""), (0, "a")] {
            let mut pages = Pages { left: 10, ..Pages::all() };
            assert!(pages.next().is_some());
            pages.read(rows, cursor.into(), (1, 1));
            assert_eq!(pages.next(), None);
        }
    }
}
