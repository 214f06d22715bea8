//! Running pgbench, captured or not, and reading what it says.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result};

use super::{Bench, capture::Capture};
use crate::{command, postgres::Postgres};

/// pgbench's scale: 10 × 100,000 rows, which fit the server's memory, so that the way is measured, not a disk.
const SCALE: &str = "10";

/// The database in which the rows are.
pub(super) const DATABASE: &str = "bench";

/// How pgbench sends its statements.
pub(super) const MODES: [&str; 2] = ["simple", "prepared"];

/// What the report says above a mode's table.
pub(super) fn load(mode: &str) -> String {
    format!("`pgbench -S -c 8 -j 2 -M {mode}`")
}

/// Somebody who runs pgbench.
pub(super) struct Contestant {
    pub(super) name: String,
    /// Where it goes, as libpq's connection string.
    pub(super) address: String,
    pub(super) capture: Option<Capture>,
}

/// Makes the database and fills it.
pub(super) fn fill(postgres: &Postgres) -> Result<()> {
    postgres.admin("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
    let mut pgbench = Command::new(postgres.program("pgbench"));
    command::quiet(pgbench.args(["-i", "-q", "-s", SCALE]).arg(address(postgres.port(), "")))
}

/// The database through this port, with more options of libpq's.
pub(super) fn address(port: u16, options: &str) -> String {
    format!("host=127.0.0.1 port={port} user=postgres dbname={DATABASE} {options}")
}

/// One run; transactions a second, connecting not counted.
pub(super) fn run(bench: &Bench<'_>, contestant: &Contestant, mode: &str, time: Duration) -> Result<f64> {
    let mut pgbench = Command::new(bench.postgres.program("pgbench"));
    pgbench.args(["-n", "-S", "-c", "8", "-j", "2", "-M", mode, "-T", &time.as_secs().to_string()]);
    pgbench.arg(&contestant.address);
    let output = match &contestant.capture {
        None => command::output(&mut pgbench)?,
        Some(capture) => capture
            .run(bench, &pgbench, |output| number(output, "number of transactions actually processed: "))?,
    };
    number(&output, "tps = ")
}

/// A number behind these words in pgbench's report.
fn number(output: &str, words: &str) -> Result<f64> {
    output
        .lines()
        .find_map(|line| line.trim().strip_prefix(words)?.split([' ', '/']).next()?.parse().ok())
        .with_context(|| format!("pgbench did not say `{words}`:\n{output}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_pgbench_prints() {
        let output = "number of transactions actually processed: 1200\nlatency average = 0.1 ms\n\
                      tps = 24816.903142 (without initial connection time)\n";
        assert_eq!(number(output, "tps = ").unwrap(), 24816.903142);
        assert_eq!(number(output, "number of transactions actually processed: ").unwrap(), 1200.0);
        assert!(number("", "tps = ").is_err());
    }
}
