//! `coverage`: what the kernel counted beside what is recorded.

use jiff::Timestamp;
use verbatim_api::v1;

use crate::{
    args::{Coverage, Output},
    connect::Client,
    failure::Failure,
    filter,
    output::{Row, Writer},
    view::coverage::{CoverageView, counts, verdict},
};

impl Row for CoverageView {
    const TITLES: &'static [&'static str] = &[
        "NODE",
        "WORKLOAD",
        "DESTINATION",
        "CONNECTS",
        "DECODED",
        "UNDECODED",
        "OPEN",
        "CUT OFF",
        "DENIED",
        "MISSED",
        "PASSED",
        "FAILED",
        "PENDING",
        "UNCOUNTED",
        "INVENTED",
        "MISSING",
    ];
    const WIDTHS: &'static [usize] = &[16, 24, 22, 8, 8, 12, 6, 7, 6, 12, 12, 6, 7, 9, 8, 0];

    fn cells(&self) -> Vec<String> {
        let missing = match self.missing_numbers.as_slice() {
            [] => self.missing.to_string(),
            numbers => format!("{} {numbers:?}", self.missing),
        };
        let number = |number: u64| number.to_string();
        vec![
            self.node.clone(),
            self.workload(),
            self.destination(),
            number(self.connects),
            number(self.decoded),
            counts(&self.undecoded),
            number(self.open),
            number(self.cut_off),
            number(self.denied),
            counts(&self.missed),
            counts(&self.passed),
            number(self.failed),
            number(self.pending),
            number(self.uncounted),
            number(self.invented),
            missing,
        ]
    }
}

pub(crate) async fn coverage(client: &mut Client, verb: &Coverage, output: Output) -> Result<(), Failure> {
    let now = Timestamp::now();
    let request = v1::CoverageRequest {
        from_wall_nanos: verb.since.as_deref().map_or(Ok(0), |text| filter::time(text, now))?,
        node: verb.node.clone().unwrap_or_default(),
        workload: verb.workload.clone().unwrap_or_default(),
        // An answer from a part of the log would not add up.
        at_least_position: u64::MAX,
    };
    let answer = client.coverage(request).await?.into_inner();
    let rows: Vec<CoverageView> = answer.rows.iter().map(CoverageView::new).collect();
    Writer::new(if verb.json { Output::Json } else { output }).rows(&rows)?;
    match verdict(&rows) {
        Ok(line) => {
            say(&line);
            Ok(())
        }
        Err(line) => Err(Failure::Disagree(line)),
    }
}

/// On standard error, so that it never mixes with rows.
#[expect(clippy::print_stderr, reason = "a line for a person, apart from the rows")]
fn say(line: &str) {
    eprintln!("verbatim: {line}");
}
