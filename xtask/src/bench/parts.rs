//! The parts alone, by the programs that lie beside them: steering's cost at connect, identity's, the spool's at append,
//! the collector's at taking in and at answering. Their own words are the report.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Bench, report::Section};
use crate::{binaries, command, say};

/// Connections that are handed over, under FIN and RST alike, from two namespaces at once.
const HAND_OFFS: &str = "200000";

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
    add("Steering, at connect", measured(&steering, "measure_connect")?);
    add("Steering, of whom is let pass", measured(&steering, "measure_unsteered")?);
    add("Steering, hand-off", hand_offs(&steering)?);
    add("Steering, memory", namespaces(&steering)?);
    for (name, package, example) in [
        ("Identity, of a connection", "verbatim-agent", "identify"),
        ("Spool, at append", "verbatim-spool", "append"),
        ("Collector", "verbatim-collector", "measure"),
    ] {
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

/// What a test prints that only measures.
fn measured(steering: &Path, test: &str) -> Result<String> {
    let mut measure = command::as_root(steering)?;
    measure.args([test, "--exact", "--ignored", "--nocapture"]);
    let output = command::output(&mut measure)?;
    // The harness's own lines say nothing here.
    let said: Vec<&str> = output
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("running ") && !line.starts_with("test "))
        .collect();
    ensure!(!said.is_empty(), "{test} says nothing");
    Ok(said.join("\n"))
}

/// The test of hand-offs with ten times as many: it fails when a single one is wrong.
fn hand_offs(steering: &Path) -> Result<String> {
    let mut test =
        command::as_root_with(steering, [("REQUIRE_BPF", "1"), ("VERBATIM_HAND_OFFS", HAND_OFFS)])?;
    test.args(["--exact", "twenty_thousand_connections_from_two_namespaces_keep_their_flows"]);
    command::output(&mut test)?;
    Ok(format!("{HAND_OFFS} of {HAND_OFFS} right"))
}

/// What listeners in 250 namespaces take.
fn namespaces(steering: &Path) -> Result<String> {
    let mut test = command::as_root_with(steering, [("REQUIRE_BPF", "1")])?;
    test.args(["--exact", "two_hundred_and_fifty_namespaces_cost_less_than_ten_mebibytes"]);
    let output = command::output(&mut test)?;
    let line = output.lines().find(|line| line.starts_with("250 namespaces"));
    Ok(line.context("the test of namespaces says nothing")?.to_owned())
}
