//! Every developer habit behind one verb: `cargo xtask VERB`.
//!
//! Owns the command line and nothing else: one module per verb, and `setup` below them all. Nothing here is
//! part of the product; few dependencies, because everybody waits for this to build before anything else.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program talks to a person")]

mod archive;
mod bench;
mod binaries;
mod cases;
mod command;
mod daemon;
mod demo;
mod ebpf;
mod elf;
mod fuzz;
mod kernels;
mod lint;
mod place;
mod postgres;
mod proto;
mod say;
mod scratch;
mod setup;
mod soak;
mod tally;
mod test;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{place::Place, setup::Purpose};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Build, try out, test and measure Verbatim"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the other verbs need; says what, before it does
    Setup {
        #[arg(long = "for", value_enum, default_value_t = Purpose::Test)]
        purpose: Purpose,
    },
    /// See it work: real clients on a real PostgreSQL, captured, and what the trail says afterwards
    Demo(demo::Options),
    /// Build the eBPF programs and check what came out
    Ebpf,
    /// Build the eBPF programs and all binaries
    Build {
        /// As they are shipped
        #[arg(long)]
        release: bool,
    },
    /// Run every test: units, integration, eBPF, and the lab with real servers and clients
    Test(test::Options),
    /// Measure what capturing costs, beside peers that do less
    Bench(bench::Options),
    /// Steering on Debian's kernels, old and new, in qemu
    Kernels(kernels::Options),
    /// Formatting, clippy, licences and sources of dependencies, generated code
    Lint(lint::Options),
    /// Generate the code of the .proto files again
    Proto {
        /// Only compare, and fail when the committed code is stale
        #[arg(long)]
        check: bool,
    },
    /// Fuzz the decoders, all targets or one
    Fuzz {
        target: Option<String>,
        /// How long altogether, such as 30s, 10m or 2h
        #[arg(long = "for", value_parser = say::parse_duration, default_value = "2m")]
        duration: Duration,
    },
    /// Kill, fill, stall, cut and set clocks under load for hours, and judge every command
    Soak(soak::Options),
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\n{} {error:#}", say::red("error:"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let place = Place::find()?;
    match &cli.verb {
        Verb::Setup { purpose } => setup::ensure(&place, *purpose)?,
        Verb::Demo(options) => demo::run(&place, options)?,
        Verb::Ebpf => drop(ebpf::build(&place)?),
        Verb::Build { release } => drop(binaries::build(&place, *release)?),
        Verb::Test(options) => return test::run(&place, options),
        Verb::Bench(options) => bench::run(&place, options)?,
        Verb::Kernels(options) => return kernels::run(&place, options),
        Verb::Lint(options) => lint::run(&place, options)?,
        Verb::Proto { check } => proto::run(&place, *check)?,
        Verb::Fuzz { target, duration } => fuzz::run(&place, target.as_deref(), *duration)?,
        Verb::Soak(options) => return soak::run(&place, options),
    }
    Ok(ExitCode::SUCCESS)
}
