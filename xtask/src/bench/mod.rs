//! `bench`: what capturing costs, beside peers that do less, in one run and under the same conditions.
//!
//! Numbers mean something only as ratios within one run: machines differ, and so does one machine from hour
//! to hour. A peer that is not there is named as absent, never filled in.

mod builds;
mod memory;
mod parts;
mod peers;
mod report;
mod rounds;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;

use crate::{binaries, ebpf, place::Place, postgres::Postgres, say, scratch::Scratch, setup, setup::Purpose};

#[derive(Args)]
pub(crate) struct Options {
    /// Paired rounds; every contestant runs once in each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long one contestant runs in one round
    #[arg(long, value_parser = say::parse_duration, default_value = "6s")]
    each: Duration,
    /// Also what the clean and the incremental build take
    #[arg(long)]
    builds: bool,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Write the tables into docs/performance.md
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Transactions a second, captured, beside peers
    Throughput,
    /// The agent's memory, at rest and with a client that stops reading
    Memory,
    /// Steering, spool and collector alone
    Parts,
    /// The builds alone; takes long, and so is left out unless asked for
    Builds,
}

/// What every part works with.
struct Bench<'a> {
    place: &'a Place,
    /// Release builds of the product.
    binaries: PathBuf,
    postgres: &'a Postgres,
    scratch: &'a Scratch,
}

pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    setup::ensure(place, Purpose::Bench)?;
    ebpf::build(place)?;
    let binaries = binaries::product(place, true)?;
    let scratch = Scratch::create()?;
    say::heading("A PostgreSQL for all contestants");
    let postgres = Postgres::start(scratch.path(), &["shared_buffers=256MB", "max_connections=100"])?;
    postgres.admin("postgres", "CREATE DATABASE bench")?;
    rounds::fill(&postgres)?;
    let bench = Bench { place, binaries, postgres: &postgres, scratch: &scratch };

    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut sections = vec![report::conditions(&bench, options)?];
    if wanted(Part::Throughput) {
        sections.push(rounds::run(&bench, options)?);
    }
    if wanted(Part::Memory) {
        sections.push(memory::run(&bench)?);
    }
    if wanted(Part::Parts) {
        sections.push(parts::run(&bench)?);
    }
    drop(postgres);
    if options.builds || options.only.contains(&Part::Builds) {
        sections.push(builds::run(place)?);
    }
    report::publish(place, &sections, options.write)
}
