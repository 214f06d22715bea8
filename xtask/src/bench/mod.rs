//! `bench`: what capturing costs, beside peers that do less, in one run and under the same conditions.
//!
//! Numbers mean something only as ratios within one run: machines differ, and so does one machine from hour
//! to hour. A peer that is not there is named as absent, never filled in.

mod builds;
mod capture;
mod certificates;
mod connections;
mod h2load;
mod http;
mod memory;
mod pairs;
mod parts;
mod passing;
mod peers;
mod pgbench;
mod phases;
mod processes;
mod report;
mod throughput;
mod tls;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;

use self::certificates::Certificates;
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
    /// Threads that relay while Verbatim captures; its own choice where this is absent
    #[arg(long)]
    shards: Option<u16>,
    /// Only the peers, without building or running Verbatim
    #[arg(long, conflicts_with = "write")]
    peers_only: bool,
    /// Write the tables into docs/performance.md
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Transactions a second, captured, beside peers
    Throughput,
    /// Requests a second over HTTP/2 and TLS, captured, beside peers
    Http,
    /// Transactions a second over TLS, captured, beside a peer
    Tls,
    /// What TLS connections cost: idle, stalled, new
    Connections,
    /// Bytes a second that nobody decodes, beside a peer
    Passing,
    /// The agent's memory, at rest and with a client that stops reading
    Memory,
    /// Steering, spool and collector alone
    Parts,
    /// The builds alone; takes long, and so is left out unless asked for
    Builds,
}

/// How PostgreSQL is started for whoever measures: everything in memory.
const POSTGRES_SETTINGS: [&str; 2] = ["shared_buffers=256MB", "max_connections=100"];

/// What every part works with.
struct Bench<'a> {
    place: &'a Place,
    /// Release builds of the product.
    binaries: PathBuf,
    postgres: &'a Postgres,
    scratch: &'a Scratch,
    /// Threads that relay, where it is not left to Verbatim.
    shards: Option<u16>,
}

pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    setup::ensure(place, Purpose::Bench)?;
    let binaries = if options.peers_only { PathBuf::new() } else { product(place)? };
    let scratch = Scratch::create()?;
    say::heading("A PostgreSQL for all contestants");
    let postgres = Postgres::start(scratch.path(), &POSTGRES_SETTINGS)?;
    pgbench::fill(&postgres)?;
    let bench = Bench { place, binaries, postgres: &postgres, scratch: &scratch, shards: options.shards };

    let certificates = Certificates::make(scratch.path())?;

    let captures = !options.peers_only;
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut sections = vec![report::conditions(&bench, options)?];
    if wanted(Part::Throughput) {
        sections.push(throughput::run(&bench, options)?);
    }
    if wanted(Part::Http) {
        sections.push(http::run(&bench, options, &certificates)?);
    }
    if wanted(Part::Tls) {
        sections.push(tls::run(&bench, options, &certificates)?);
    }
    if wanted(Part::Passing) {
        sections.push(passing::run(&bench, options)?);
    }
    if wanted(Part::Connections) && captures {
        sections.push(connections::run(&bench, &certificates)?);
    }
    if wanted(Part::Memory) && captures {
        sections.push(memory::run(&bench)?);
    }
    if wanted(Part::Parts) && captures {
        sections.push(parts::run(&bench)?);
    }
    drop(postgres);
    if options.builds || options.only.contains(&Part::Builds) {
        sections.push(builds::run(place)?);
    }
    report::publish(place, &sections, options.write)
}

/// The product, built to be measured.
fn product(place: &Place) -> Result<PathBuf> {
    ebpf::build(place)?;
    binaries::product(place, true)
}
