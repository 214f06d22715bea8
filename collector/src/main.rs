//! The collector's binary: reads flags, serves until it is told to end.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use verbatim_collector::{
    config::{self, Address, Config},
    descriptors, priority, start,
};

/// Takes in records of data access, keeps them and answers questions about them.
#[derive(Debug, Parser)]
#[command(name = "verbatim-collector", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, with a configuration file or with the flags of an embedded collector.
    Serve(Serve),
}

#[derive(Debug, Args)]
struct Serve {
    /// Configuration file (YAML, kind: Collector).
    #[arg(long, conflicts_with_all = ["data", "ingest", "audit", "refuse_cgroup"])]
    config: Option<PathBuf>,
    /// Directory for log and index.
    #[arg(long, requires_all = ["ingest", "audit"])]
    data: Option<PathBuf>,
    /// Address for node agents, unix:PATH.
    #[arg(long, requires = "data")]
    ingest: Option<Address>,
    /// Address for those who ask, unix:PATH.
    #[arg(long, requires = "data")]
    audit: Option<Address>,
    /// Refuse processes of this cgroup, and of those below it; may be given more than once.
    #[arg(long)]
    refuse_cgroup: Vec<PathBuf>,
    /// Write one line to this file as soon as both addresses take connections.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// The same, to a descriptor that was inherited, e.g. a pipe's end.
    #[arg(long)]
    ready_fd: Option<u32>,
    /// Give way to other work on this machine: for a collector beside the workload that is captured.
    #[arg(long)]
    background: bool,
}

fn main() -> ExitCode {
    let Command::Serve(arguments) = Arguments::parse().command;
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Nobody to tell where standard error is closed.
            writeln!(io::stderr(), "verbatim-collector: {e:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Serve) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("VERBATIM_LOG")
                .unwrap_or_else(|_unset| "info".into()),
        )
        .with_writer(io::stderr)
        .init();
    if arguments.background {
        priority::give_way_as_a_session(priority::BACKGROUND);
    }
    descriptors::raise_limit();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        bail!("a crypto provider is installed already");
    }
    let config = match (&arguments.config, &arguments.data, &arguments.ingest, &arguments.audit) {
        (Some(file), ..) => config::load(file)?,
        (None, Some(data), Some(ingest), Some(audit)) => {
            Config::embedded(data.clone(), ingest.clone(), audit.clone(), &arguments.refuse_cgroup)
        }
        _ => bail!("name a configuration with --config, or --data, --ingest and --audit"),
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(&config, arguments))
}

async fn serve(config: &Config, arguments: &Serve) -> Result<()> {
    // Before anything else: a signal that comes while we start ends us in order, too.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut collector = start(config).await?;
    let line = format!("ready ingest={} audit={}", collector.ingest, collector.audit);
    if let Some(file) = &arguments.ready_file {
        // Whole or not at all: whoever waits for the file may read it at once.
        let made = file.with_extension("part");
        fs::write(&made, format!("{line}\n"))
            .and_then(|()| fs::rename(&made, file))
            .with_context(|| file.display().to_string())?;
    }
    if let Some(fd) = arguments.ready_fd {
        let end = format!("/proc/self/fd/{fd}");
        let mut pipe = OpenOptions::new().write(true).open(&end).with_context(|| end.clone())?;
        writeln!(pipe, "{line}").with_context(|| end.clone())?;
    }
    writeln!(io::stdout(), "{line}")?;
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failed = collector.failed() => Some(failed),
    };
    tracing::info!("draining");
    collector.shut_down().await?;
    match failed {
        Some(failed) => Err(failed.into()),
        None => Ok(()),
    }
}
