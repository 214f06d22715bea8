//! The parts alone, by the programs that lie beside them: steering's cost at connect, the spool's at append,
//! the collector's at taking in and at answering. Their own words are the report.

use anyhow::{Context, Result};

use super::{Bench, report::Section};
use crate::{binaries, command, say};

/// Records that spool and collector are measured with.
const RECORDS: &str = "1000000";

pub(super) fn run(bench: &Bench<'_>) -> Result<Section> {
    let mut text = String::new();
    let mut add = |name: &str, output: String| {
        say::line(&format!("{name}:\n{output}"));
        text.push_str(&format!("\n{name}:\n\n```text\n{}\n```\n", output.trim_end()));
    };
    say::heading("The parts alone");
    let steering = binaries::test_program_of(bench.place, "verbatim-steer", "steering")?;
    let mut measure = command::as_root(steering)?;
    measure.args(["measure_connect", "--exact", "--ignored", "--nocapture"]);
    let output = command::output(&mut measure)?;
    // The harness's own lines say nothing here.
    let said = output
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("running ") && !line.starts_with("test "));
    add("Steering, at connect", said.collect::<Vec<_>>().join("\n"));
    for (name, package, example) in
        [("Spool, at append", "verbatim-spool", "append"), ("Collector", "verbatim-collector", "measure")]
    {
        let mut cargo = bench.place.cargo();
        cargo.args([
            "run",
            "--quiet",
            "--locked",
            "--release",
            "--package",
            package,
            "--example",
            example,
            "--",
            RECORDS,
        ]);
        add(name, command::output(&mut cargo).with_context(|| format!("measuring: {name}"))?);
    }
    Ok(Section { name: "parts", text })
}
