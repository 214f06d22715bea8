//! The command line.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, fmt};
use verbatim_config::ConfigError;
use verbatim_tls::now;

use crate::{
    bundle::Others,
    config::{self, Config, LogFormat},
    kept::{Class, Kept},
    run::{self, StartError, rules},
    store::{Store, StoreError},
};

/// Holds the cluster's roots, gives nodes their intermediates, and has pods trust them.
#[derive(Debug, Parser)]
#[command(name = "verbatim-issuer", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve nodes and the API server until SIGTERM.
    Serve {
        /// The configuration, YAML (kind: Issuer).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Only say whether the configuration can be used.
        #[arg(long)]
        check: bool,
    },
    /// Say how the authorities stand: which sign, which are only published yet, and since when.
    Status {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Begin a rotation: a new authority is published now, and signs once every pod that runs now has ended.
    Rotate {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Which.
        #[arg(long, value_enum)]
        class: Class,
        /// Have it sign at once, and the old one believed no more: for a key that was lost. Pods that run now are not
        /// looked into until they are started again.
        #[arg(long)]
        now: bool,
    },
}

#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("bundle: {0}")]
    Roots(#[from] verbatim_tls::RootsError),
    #[error("log level `{0}` is none")]
    Level(String),
    #[error("cannot {0}: {1}")]
    System(&'static str, io::Error),
    #[error("no cluster: {0}")]
    Cluster(#[from] kube::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The whole binary.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "verbatim-issuer: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), CliError> {
    // What is used by name elsewhere, the Kubernetes client takes from the process.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (Command::Serve { config: path, .. }
    | Command::Status { config: path }
    | Command::Rotate { config: path, .. }) = command;
    let config = config::load(path)?;
    if let Command::Serve { check: true, .. } = command {
        Others::read(&config.bundle)?;
        return say(&format!("{} can be used", path.display()));
    }
    log(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::System("make a runtime", error))?;
    runtime.block_on(async {
        let client = Client::try_default().await?;
        match command {
            Command::Serve { .. } => serve(client, &config, path).await,
            Command::Status { .. } => {
                let kept = store(client, &config).look().await?;
                say(&status(&kept))
            }
            Command::Rotate { class, now: at_once, .. } => {
                let change = |kept: &mut Kept, rules: &crate::kept::Rules| {
                    kept.begin(*class, rules, now())?;
                    if *at_once {
                        kept.hasten(*class, now());
                    }
                    Ok(())
                };
                let kept = store(client, &config).change(change).await?;
                say(&status(&kept))
            }
        }
    })
}

fn store(client: Client, config: &Config) -> Store {
    let namespace = config.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    Store::new(client, &namespace, &config.secret, rules(config))
}

async fn serve(client: Client, config: &Config, path: &Path) -> Result<(), CliError> {
    let signals = |kind| signal(kind).map_err(|error| CliError::System("take signals", error));
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let running = run::start(client, config).await?;
    tracing::debug!(config = %path.display(), "started");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    running.stop().await;
    Ok(())
}

/// A line for each generation.
fn status(kept: &Kept) -> String {
    let mut lines =
        vec![format!("{:<10} {:<10} {:>12} {:>12}  {}", "CLASS", "PHASE", "SINCE", "UNTIL", "NAMES")];
    for class in Class::ALL {
        for one in kept.generations(class) {
            let phase = format!("{:?}", one.phase).to_lowercase();
            let names = one.names.join(" ");
            lines.push(format!("{class:<10} {phase:<10} {:>12} {:>12}  {names}", one.since, one.not_after));
        }
    }
    lines.push("times are seconds since 1970".to_owned());
    lines.join("\n")
}

fn say(text: &str) -> Result<(), CliError> {
    writeln!(io::stdout(), "{text}").map_err(|error| CliError::System("write", error))
}

fn log(config: &Config) -> Result<(), CliError> {
    let level = config.log.level.as_deref().unwrap_or("info");
    let filter = EnvFilter::try_new(level).map_err(|_unreadable| CliError::Level(level.to_owned()))?;
    let logger = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    match config.log.format {
        LogFormat::Text => logger.init(),
        LogFormat::Json => logger.json().flatten_event(true).init(),
    }
    Ok(())
}
