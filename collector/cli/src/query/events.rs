//! `events`: what agents tell of themselves.

use jiff::Timestamp;
use verbatim_api::v1;

use super::{Pages, principal};
use crate::{
    args::{Events, Output},
    connect::Client,
    failure::Failure,
    filter,
    output::{Row, Writer},
    view::event::EventView,
};

impl Row for EventView {
    const TITLES: &'static [&'static str] =
        &["TIME", "NODE", "EVENT", "COUNT", "WORKLOAD", "PROTOCOL", "DESTINATION", "DETAIL"];
    const WIDTHS: &'static [usize] = &[27, 16, 18, 6, 24, 8, 22, 0];

    fn cells(&self) -> Vec<String> {
        vec![
            self.time.clone(),
            self.node.clone(),
            self.event.clone(),
            self.count.to_string(),
            match self.cgroup_id {
                Some(id) => format!("cgroup {id}"),
                None => principal(&self.principal),
            },
            self.protocol_name(),
            self.destination(),
            self.detail(),
        ]
    }
}

pub(crate) async fn events(client: &mut Client, verb: &Events, output: Output) -> Result<(), Failure> {
    let now = Timestamp::now();
    let time = |text: &Option<String>| text.as_deref().map_or(Ok(0), |text| filter::time(text, now));
    let question = v1::EventsRequest {
        events: filter::values::<v1::CoverageEvent>(&verb.event)?,
        node: verb.node.clone().unwrap_or_default(),
        workload: verb.workload.clone().unwrap_or_default(),
        from_wall_nanos: time(&verb.since)?,
        to_wall_nanos: time(&verb.until)?,
        oldest_first: verb.oldest_first,
        ..v1::EventsRequest::default()
    };
    let mut writer = Writer::new(output);
    let mut pages = Pages::new(&verb.page);
    while let Some((page_size, cursor)) = pages.next() {
        let answer =
            client.events(v1::EventsRequest { page_size, cursor, ..question.clone() }).await?.into_inner();
        writer.rows(&answer.events.iter().map(EventView::new).collect::<Vec<_>>())?;
        let positions = (answer.indexed_position, answer.log_position);
        pages.read(answer.events.len(), answer.next_cursor, positions);
    }
    pages.end();
    Ok(())
}
