//! The node agent: `serve` for the workloads of a node, `run` for one command.
//!
//! Owns the command line, identity, trust, and the order in which the parts start and end. Steering,
//! relaying and recording are crates of their own, which know nothing of one another but what is handed
//! over here.

mod adapters;
mod cli;
mod control;
mod doctor;
mod evidence;
mod handover;
pub mod identity;
mod issued;
mod live;
mod logging;
mod run;
mod serve;
mod supervisor;
mod trust;
mod uninstall;
mod verifiers;
mod waiting;
mod worker;
mod workloads;

use std::{io::Write, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use verbatim_proxy::seam::Policy;

use cli::{Cli, Subcommands};

/// Between two signed heads of a chain while there are new records.
const HEAD_INTERVAL: Duration = Duration::from_millis(100);

/// The whole agent, with a policy that decides: what `main` of the product calls with one that observes.
/// Starts no thread before it has forked what must be forked.
pub fn main_with(policy: Arc<dyn Policy>) -> ExitCode {
    // The one provider, by name: what asks the process for one gets no other.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let code = match Cli::parse().command {
        Subcommands::Run(args) => run::run(&args, policy),
        Subcommands::Bypass(args) => control::bypass(&args),
        Subcommands::Doctor(args) => control::doctor(&args),
        Subcommands::Serve(args) => serve::serve(&args),
        Subcommands::ServeWorker(args) => serve::work(&args, policy),
        Subcommands::Uninstall(args) => uninstall::uninstall(&args),
    };
    ExitCode::from(code)
}

/// A line for the person who called us. Not a log: it is part of what a command line says.
fn say(text: &str) {
    // Where there is nobody to read it, there is nobody to tell.
    writeln!(std::io::stderr(), "verbatim-agent: {text}").ok();
}

/// Threads that relay: as configured, or the machine's cores, 4 at most.
fn shards(configured: Option<u16>) -> usize {
    configured.map_or_else(
        || std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
        usize::from,
    )
}

/// A name that no other run has.
fn short_id() -> String {
    let id = uuid::Uuid::now_v7().simple().to_string();
    // Its end is random, its beginning time.
    id.get(id.len() - 12..).unwrap_or(&id).to_owned()
}
