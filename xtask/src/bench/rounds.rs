//! Paired rounds: in each, every contestant runs the same pgbench against the same server, in an order that
//! turns from round to round. Compared is within a round; what is reported is the median of those ratios.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Bench, Options, peers, report};
use crate::{command, postgres::Postgres, say};

/// pgbench's scale: 10 × 100,000 rows, which fit the server's memory, so that the way is measured, not a disk.
const SCALE: &str = "10";

const MODES: [&str; 2] = ["simple", "prepared"];

/// Somebody who runs pgbench.
struct Contestant {
    name: String,
    port: u16,
    capture: Option<Sync>,
}

/// The spool's two ways.
#[derive(Clone, Copy, PartialEq)]
enum Sync {
    Process,
    Group,
}

/// Transactions a second, by round.
type Measured = Vec<f64>;

/// Fills the database.
pub(super) fn fill(postgres: &Postgres) -> Result<()> {
    let port = postgres.port().to_string();
    command::quiet(Command::new(postgres.program("pgbench")).args([
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        "postgres",
        "-i",
        "-q",
        "-s",
        SCALE,
        "bench",
    ]))
}

/// Runs all rounds; the answer is the report's section.
pub(super) fn run(bench: &Bench<'_>, options: &Options) -> Result<report::Section> {
    let (peers, absent) = peers::start(bench)?;
    let direct = bench.postgres.port();
    let mut contestants = vec![Contestant { name: "direct".into(), port: direct, capture: None }];
    contestants.extend(peers.iter().map(|p| Contestant { name: p.name.into(), port: p.port, capture: None }));
    for (name, sync) in [("Verbatim, `process`", Sync::Process), ("Verbatim, `group`", Sync::Group)] {
        contestants.push(Contestant { name: name.into(), port: direct, capture: Some(sync) });
    }
    for absent in &absent {
        say::note(&format!("{} is absent: {}", absent.name, absent.reason));
    }

    let mut measured = vec![vec![Measured::new(); contestants.len()]; MODES.len()];
    for round in 0..options.rounds {
        say::heading(&format!("Round {} of {}", round + 1, options.rounds));
        for (mode, measured) in MODES.iter().zip(&mut measured) {
            for turn in 0..contestants.len() {
                let index = (turn + round) % contestants.len();
                let tps = pgbench(bench, &contestants[index], mode, options.each)?;
                say::line(&format!("{mode:9} {:22} {tps:9.0} tps", contestants[index].name));
                measured[index].push(tps);
            }
        }
    }
    Ok(section(&contestants, &measured, &peers, &absent))
}

/// One run; transactions a second, connecting not counted.
fn pgbench(bench: &Bench<'_>, contestant: &Contestant, mode: &str, time: Duration) -> Result<f64> {
    let mut pgbench = Command::new(bench.postgres.program("pgbench"));
    pgbench.args(["-h", "127.0.0.1", "-p", &contestant.port.to_string(), "-U", "postgres"]);
    pgbench.args(["-n", "-S", "-c", "8", "-j", "2", "-M", mode, "-T", &time.as_secs().to_string(), "bench"]);
    let Some(sync) = contestant.capture else {
        return transactions(&command::output(&mut pgbench)?, "tps = ");
    };
    let trail = bench.scratch.path().join("trail");
    let mut agent = command::as_root(bench.binaries.join("verbatim-agent"))?;
    agent.args(["run", "--live", "off", "--data"]).arg(&trail);
    if sync == Sync::Group {
        agent.arg("--sync");
    }
    agent.arg("--").arg(pgbench.get_program()).args(pgbench.get_args());
    let output = command::output(&mut agent)?;
    let done = transactions(&output, "number of transactions actually processed: ")?;
    recorded(bench, &trail, done).with_context(|| format!("{}, {mode}", contestant.name))?;
    command::quiet(command::as_root("rm")?.arg("-rf").arg(&trail))?;
    transactions(&output, "tps = ")
}

/// A number behind these words in pgbench's report.
fn transactions(output: &str, words: &str) -> Result<f64> {
    output
        .lines()
        .find_map(|line| line.trim().strip_prefix(words)?.split([' ', '/']).next()?.parse().ok())
        .with_context(|| format!("pgbench did not say `{words}`:\n{output}"))
}

/// A capture that did not record what was done is no contestant.
fn recorded(bench: &Bench<'_>, trail: &std::path::Path, done: f64) -> Result<()> {
    let mut verbatim = command::as_root(bench.binaries.join("verbatim"))?;
    verbatim.arg("--data").arg(trail).args(["sessions", "--limit", "1000", "--output", "json"]);
    let answer = command::output(&mut verbatim)?;
    let mut commands = 0.0;
    for line in answer.lines() {
        let session: Value = serde_json::from_str(line).context("a session as JSON")?;
        commands += session["commands"].as_f64().context("a session says how many commands it had")?;
    }
    if commands < done {
        bail!("pgbench did {done} transactions and only {commands} commands are in the trail");
    }
    Ok(())
}

fn section(
    contestants: &[Contestant],
    measured: &[Vec<Measured>],
    peers: &[peers::Peer],
    absent: &[peers::Absent],
) -> report::Section {
    let mut text = String::new();
    let yardsticks: Vec<usize> =
        (0..contestants.len()).filter(|index| contestants[*index].capture.is_none()).collect();
    for (mode, measured) in MODES.iter().zip(measured) {
        text.push_str(&format!("\n`pgbench -S -c 8 -j 2 -M {mode}`:\n\n| | tps |"));
        yardsticks.iter().for_each(|y| text.push_str(&format!(" × {} |", contestants[*y].name)));
        text.push_str(&format!("\n|---|--:|{}\n", "--:|".repeat(yardsticks.len())));
        for (contestant, own) in contestants.iter().zip(measured) {
            text.push_str(&format!("| {} | {:.0} |", contestant.name, report::median(own)));
            for yardstick in &yardsticks {
                let ratios: Measured = own.iter().zip(&measured[*yardstick]).map(|(a, b)| a / b).collect();
                text.push_str(&format!(" {:.2} |", report::median(&ratios)));
            }
            text.push('\n');
        }
    }
    for absent in absent {
        text.push_str(&format!("\n{} is absent: {}.\n", absent.name, absent.reason));
    }
    for peer in peers {
        text.push_str(&format!("\n{}: {}\n", peer.name, peer.configuration));
    }
    report::Section { name: "throughput", text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_pgbench_prints() {
        let output = "number of transactions actually processed: 1200\nlatency average = 0.1 ms\n\
                      tps = 24816.903142 (without initial connection time)\n";
        assert_eq!(transactions(output, "tps = ").unwrap(), 24816.903142);
        assert_eq!(transactions(output, "number of transactions actually processed: ").unwrap(), 1200.0);
        assert!(transactions("", "tps = ").is_err());
    }
}
