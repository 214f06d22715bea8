//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use verbatim_agent_config::{LogFormat, Misdirected, Span, Untrusted};

use crate::{
    control::Order,
    identity::{Pool, ServiceAccount},
};

/// Records what workloads do on data services: outside of them, before it happens.
#[derive(Debug, Parser)]
#[command(name = "verbatim-agent", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Subcommands,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Subcommands {
    /// Capture one command: run it, and record every TCP connection that it and its children make.
    ///
    /// The command runs as whoever invoked this, in a cgroup of its own; what it leaves running is ended
    /// with it. Not captured: what it has others run for it (systemd-run, a container engine's socket).
    /// Exit code: the command's own, 128 and the signal that ended it, 127 not found, 126 not executable,
    /// 125 the agent itself failed.
    Run(Box<RunArgs>),
    /// Capture the workloads of this node, as the configuration says, until SIGTERM.
    Serve(ServeArgs),
    /// Stop steering for a time, in need: all workloads' new connections pass, unrecorded. Connections that are
    /// open go on as they are. Ends by itself; begin and end are recorded with who asked and why. Needs root.
    Bypass(BypassArgs),
    /// Say pod by pod, container by container, what is captured, what is not, why, and what to do. Needs root, and an
    /// agent that serves. Exit code: 0 all is well, 2 something is not, 1 it cannot be told.
    Doctor(DoctorArgs),
    /// The part of `serve` that does everything; started by it, and again when it dies.
    #[command(hide = true)]
    ServeWorker(ServeArgs),
    /// Remove from the kernel whatever an agent has left there: nothing is steered or refused any more. For a
    /// node whose agent is gone; needs root.
    Uninstall(UninstallArgs),
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Keep what is recorded in this folder (made if absent); `verbatim --data DIR records` reads it.
    /// Without it, everything recorded here is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Record as this Kubernetes service account instead of as the local user.
    #[arg(
        long = "as",
        value_name = "NAMESPACE/SERVICE_ACCOUNT",
        requires = "project_number",
        requires = "pool"
    )]
    pub(crate) service_account: Option<ServiceAccount>,

    /// Google Cloud project number of the workload identity pool; for --as.
    #[arg(long, value_name = "NUMBER", requires = "service_account", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) project_number: Option<u64>,

    /// Workload identity pool, e.g. my-project.svc.id.goog; for --as.
    #[arg(long, value_name = "POOL", requires = "service_account")]
    pub(crate) pool: Option<Pool>,

    /// Ship to this collector, `unix:/PATH` or `https://HOST:PORT`, instead of starting one.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) collector: Option<String>,

    /// Roots that the collector's certificate must lead to (PEM); for https.
    #[arg(long, value_name = "FILE", requires = "collector")]
    pub(crate) collector_ca: Option<PathBuf>,

    /// Client certificate for the collector, with its chain (PEM); for https.
    #[arg(long, value_name = "FILE", requires = "collector")]
    pub(crate) collector_certificate: Option<PathBuf>,

    /// Key of the client certificate (PEM); for https.
    #[arg(long, value_name = "FILE", requires = "collector")]
    pub(crate) collector_key: Option<PathBuf>,

    /// The collector's program; otherwise `verbatim-collector` beside this one.
    #[arg(long, value_name = "FILE", conflicts_with = "collector")]
    pub(crate) collector_bin: Option<PathBuf>,

    /// Write a line per command of the workload to this file instead of standard error; `off` writes none.
    #[arg(long, value_name = "FILE")]
    pub(crate) live: Option<PathBuf>,

    /// Look into TLS to this name and what is below it, or to this address or range (ADDRESS/LENGTH), beside
    /// Google's APIs and private addresses. May be given several times.
    #[arg(long = "name", value_name = "NAME", conflicts_with = "no_tls")]
    pub(crate) names: Vec<String>,

    /// Roots that servers' certificates may lead to, beside the system's (PEM). May be given several times.
    #[arg(long, value_name = "FILE", conflicts_with = "no_tls")]
    pub(crate) upstream_ca: Vec<PathBuf>,

    /// Believe signed tokens of this issuer (their `iss`) about on whose behalf the command acts.
    #[arg(long, value_name = "ISSUER", requires_all = ["on_behalf_of_audience", "on_behalf_of_jwks"])]
    pub(crate) on_behalf_of_issuer: Option<String>,

    /// For whom those tokens must be (their `aud`).
    #[arg(long, value_name = "AUDIENCE", requires = "on_behalf_of_issuer")]
    pub(crate) on_behalf_of_audience: Option<String>,

    /// The issuer's public keys, a JSON Web Key Set.
    #[arg(long, value_name = "FILE", requires = "on_behalf_of_issuer")]
    pub(crate) on_behalf_of_jwks: Option<PathBuf>,

    /// What becomes of TLS that cannot be looked into: a client that does not trust us, a server that cannot be
    /// verified, a name outside. It is recorded in either case.
    #[arg(long, value_enum, default_value = "splice", conflicts_with = "no_tls")]
    pub(crate) untrusted: Untrusted,

    /// What becomes of a request that names another host than the TLS around it was made for: it is recorded with a
    /// finding, and passes or is answered 421.
    #[arg(long, value_enum, default_value = "pass", conflicts_with = "no_tls")]
    pub(crate) misdirected: Misdirected,

    /// What PostgreSQL servers keep of their roles' passwords (lines `"user" "SCRAM-SHA-256$..."`), for clients that
    /// bind their authentication to TLS. Readable by its owner alone.
    #[arg(long, value_name = "FILE", conflicts_with = "no_tls")]
    pub(crate) verifier_file: Option<PathBuf>,

    /// Look into no TLS: connections that use it pass as they are, and are recorded so. The command's
    /// environment stays as it is.
    #[arg(long)]
    pub(crate) no_tls: bool,

    /// Wait for the disk before a command goes on: also a loss of power then loses no record.
    #[arg(long)]
    pub(crate) sync: bool,

    /// Threads that relay; half of the machine's cores, 4 at most, where it is absent.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: Option<u16>,

    /// What is logged to standard error: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub(crate) log: String,

    /// One line of text or of JSON.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The configuration, YAML.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Only say whether the configuration can be used.
    #[arg(long)]
    pub(crate) check: bool,

    /// What is logged to standard error; goes before the configuration.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,

    /// One line of text or of JSON; goes before the configuration.
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("order").required(true))]
pub(crate) struct BypassArgs {
    /// For how long, e.g. 15m; `bypass.maximum` of the configuration at most.
    #[arg(long = "for", value_name = "TIME", group = "order", requires = "reason")]
    pub(crate) time: Option<Span>,

    /// Why; goes into the records.
    #[arg(long, value_name = "TEXT", requires = "time")]
    pub(crate) reason: Option<String>,

    /// Steer again now.
    #[arg(long, group = "order")]
    pub(crate) end: bool,

    /// Only say how it stands.
    #[arg(long, group = "order")]
    pub(crate) status: bool,

    /// The agent's configuration: says where it is found, and where the kernel's maps are if it does not live.
    #[arg(long, value_name = "FILE", conflicts_with = "run_directory")]
    pub(crate) config: Option<PathBuf>,

    /// Where the agent is found, as `runDirectory` of its configuration; otherwise /run/verbatim.
    #[arg(long, value_name = "DIR")]
    pub(crate) run_directory: Option<PathBuf>,
}

impl BypassArgs {
    pub(crate) fn order(&self) -> Order {
        match &self.time {
            Some(time) => Order::Bypass {
                millis: u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX),
                reason: self.reason.clone().unwrap_or_default(),
            },
            None if self.end => Order::End,
            None => Order::Status,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// The agent's configuration: says where it is found.
    #[arg(long, value_name = "FILE", conflicts_with = "run_directory")]
    pub(crate) config: Option<PathBuf>,

    /// Where the agent is found, as `runDirectory` of its configuration; otherwise /run/verbatim.
    #[arg(long, value_name = "DIR")]
    pub(crate) run_directory: Option<PathBuf>,

    /// For people, or for machines.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) output: DoctorOutput,
}

/// See [`DoctorArgs::output`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DoctorOutput {
    /// Lines and columns.
    Table,
    /// JSON.
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct UninstallArgs {
    /// The agent's configuration: says where programs and maps are pinned.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(arguments: &[&str]) -> Result<RunArgs, clap::Error> {
        let cli = Cli::try_parse_from(["verbatim-agent", "run"].iter().chain(arguments))?;
        match cli.command {
            Subcommands::Run(run) => Ok(*run),
            _ => unreachable!("`run` was given"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_keeps_its_own_options() {
        let parsed = run(&["--log", "info", "--", "psql", "--data", "x"]).expect("parse");
        assert_eq!(parsed.command, ["psql", "--data", "x"]);
        assert_eq!(parsed.data, None);
    }

    #[test]
    fn a_bypass_is_begun_with_a_reason_or_ended_or_asked_about() {
        let order = |arguments: &[&str]| {
            let cli = Cli::try_parse_from(["verbatim-agent", "bypass"].iter().chain(arguments)).ok()?;
            match cli.command {
                Subcommands::Bypass(bypass) => Some(bypass.order()),
                _ => None,
            }
        };
        let begun = Order::Bypass { millis: 900_000, reason: "why".to_owned() };
        assert_eq!(order(&["--for", "15m", "--reason", "why"]), Some(begun));
        assert_eq!(order(&["--end"]), Some(Order::End));
        assert_eq!(order(&["--status", "--run-directory", "/run/x"]), Some(Order::Status));
        for bad in [
            &["--for", "15m"][..],
            &["--reason", "why"],
            &["--for", "15", "--reason", "why"],
            &["--end", "--status"],
            &["--for", "15m", "--reason", "why", "--end"],
            &["--status", "--config", "f", "--run-directory", "d"],
            &[],
        ] {
            assert_eq!(order(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_federated_name_needs_project_and_pool() {
        assert!(run(&["--as", "shop/checkout", "--", "true"]).is_err());
        assert!(run(&["--as", "shop/checkout", "--project-number", "7", "--", "true"]).is_err());
        assert!(run(&["--pool", "p.svc.id.goog", "--", "true"]).is_err());
        let full =
            ["--as", "shop/checkout", "--project-number", "7", "--pool", "p.svc.id.goog", "--", "true"];
        assert!(run(&full).is_ok());
    }

    #[test]
    fn what_is_said_about_tls_needs_tls() {
        let parsed = run(&["--name", "a.example", "--name", "10.9.0.0/16", "--", "true"]).expect("parse");
        assert_eq!(parsed.names, ["a.example", "10.9.0.0/16"]);
        assert_eq!(parsed.untrusted, Untrusted::Splice);
        assert!(run(&["--no-tls", "--", "true"]).expect("parse").no_tls);
        for options in [
            ["--name", "a.example"],
            ["--upstream-ca", "f"],
            ["--untrusted", "deny"],
            ["--verifier-file", "f"],
            ["--misdirected", "deny"],
        ] {
            assert!(run(&[&options[..], &["--no-tls", "--", "true"]].concat()).is_err(), "{options:?}");
        }
    }

    #[test]
    fn a_service_account_is_two_names_of_kubernetes() {
        for bad in ["shop", "shop/", "/checkout", "Shop/checkout", "shop/check_out", "a/b/c", "-a/b"] {
            let arguments = ["--as", bad, "--project-number", "7", "--pool", "p.svc.id.goog", "--", "true"];
            let error = run(&arguments).expect_err(bad).to_string();
            assert!(error.contains("NAMESPACE/SERVICE_ACCOUNT"), "{bad}: {error}");
        }
    }
}
