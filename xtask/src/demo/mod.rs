//! `demo`: real clients at work on a real PostgreSQL, captured from outside, and the trail that is left.
//! Everything is done with the commands that a person would type, and shown as such.

mod bigquery;
mod cluster;
mod delegation;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use bigquery::BigQuery;
use delegation::Delegation;

use crate::{
    binaries, command, ebpf, place, place::Place, postgres::Postgres, say, scratch::Scratch, setup,
    setup::Purpose,
};

const SHOP: &str = include_str!("shop.sql");

/// Who the demo's workloads are; on a cluster this comes from the pod.
const FEDERATION: [&str; 4] = ["--project-number", "123456789012", "--pool", "demo-project.svc.id.goog"];

#[derive(Args)]
pub(crate) struct Options {
    /// Keep what was recorded in this folder; otherwise it is kept until the next demo
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// On a real Kubernetes node, which is started for it and taken away afterwards
    #[arg(long, conflicts_with = "keep")]
    cluster: bool,
}

pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    if options.cluster {
        return cluster::run(place);
    }
    setup::ensure(place, Purpose::Demo)?;
    ebpf::build(place)?;
    let binaries = binaries::product(place, false)?;
    let trail = trail(place, options)?;
    let scratch = Scratch::create()?;

    say::heading("A PostgreSQL of its own, with a small shop in it");
    let postgres = Postgres::start(scratch.path(), &[])?;
    postgres.admin("postgres", "CREATE DATABASE shop")?;
    postgres.admin("shop", SHOP)?;
    say::line(&format!("on 127.0.0.1:{}; gone when the demo ends", postgres.port()));

    let demo = Demo { place, binaries: &binaries, trail: &trail, postgres: &postgres };
    demo.capture_report()?;
    demo.capture_agent(scratch.path())?;
    demo.capture_analyst(scratch.path())?;
    demo.ask()?;
    demo.how_to_go_on();
    Ok(())
}

/// Where the trail goes. The demo's own folder is emptied; a folder that was named is never.
fn trail(place: &Place, options: &Options) -> Result<PathBuf> {
    let Some(kept) = &options.keep else {
        let own = place.target.join("demo/trail");
        if own.exists() {
            command::quiet(command::as_root("rm")?.arg("-rf").arg(&own))?;
        }
        fs::create_dir_all(place.target.join("demo"))?;
        return Ok(own);
    };
    if kept.exists() && fs::read_dir(kept).map_or(true, |mut entries| entries.next().is_some()) {
        bail!("{} is there already and not empty: name a new folder for --keep", kept.display());
    }
    std::path::absolute(kept).with_context(|| kept.display().to_string())
}

struct Demo<'a> {
    place: &'a Place,
    binaries: &'a Path,
    trail: &'a Path,
    postgres: &'a Postgres,
}

impl Demo<'_> {
    fn capture_report(&self) -> Result<()> {
        say::heading("A nightly report, captured: psql, as it is");
        say::line(
            "A line that begins with a time is Verbatim's. Its record was safe before the command went on.",
        );
        let mut psql = Command::new(self.postgres.program("psql"));
        psql.arg("-X").arg(self.address("chidi%40demo.example")).args([
            "-c",
            "SELECT city, count(*) AS purchases, sum(amount) FROM purchase JOIN customer ON customer.id = customer \
             GROUP BY city ORDER BY 3 DESC",
        ]);
        self.capture("reporting/nightly-report", &psql)
    }

    fn capture_agent(&self, scratch: &Path) -> Result<()> {
        say::heading("An AI agent with a database tool, captured: Python and psycopg, as they are");
        let script = scratch.join("agent.py");
        fs::write(&script, include_str!("agent.py")).with_context(|| script.display().to_string())?;
        say::line(
            "Somebody asked it to act, and its framework was given a signed token that says so. It sends that",
        );
        say::line(
            "along in a comment (sqlcommenter); Verbatim checks it against the issuer's keys, and cuts its",
        );
        say::line("signature out of what it keeps.");
        let delegation = Delegation::issue(scratch, "ada@demo.example", "support/ai-agent")?;
        let mut python = Command::new(self.place.python());
        python.arg(&script).arg(self.address("agent")).arg(&delegation.token);
        let believed = [
            Path::new("--on-behalf-of-issuer"),
            Path::new(delegation::ISSUER),
            Path::new("--on-behalf-of-audience"),
            Path::new(delegation::AUDIENCE),
            Path::new("--on-behalf-of-jwks"),
            &delegation.keys,
        ];
        self.capture_with("support/ai-agent", &believed, &python)
    }

    /// Runs a workload under capture. It ends with the workload's own exit code.
    fn capture(&self, service_account: &str, workload: &Command) -> Result<()> {
        self.capture_with(service_account, &[], workload)
    }

    fn capture_with(&self, service_account: &str, options: &[&Path], workload: &Command) -> Result<()> {
        let agent = self.agent(service_account, options, workload)?;
        say::command(&command::typed_in(&self.place.root, &agent));
        ended_well(agent)
    }

    fn agent(&self, service_account: &str, options: &[&Path], workload: &Command) -> Result<Command> {
        let mut agent = command::as_root(self.binaries.join("verbatim-agent"))?;
        agent.arg("run").arg("--data").arg(self.trail).args(["--as", service_account]).args(FEDERATION);
        agent.args(options).arg("--").arg(workload.get_program()).args(workload.get_args());
        Ok(agent)
    }

    fn capture_analyst(&self, scratch: &Path) -> Result<()> {
        say::heading("An AI agent with BigQuery, captured behind TLS: Google's Python client, as it is");
        let Some(bigquery) = BigQuery::start(self.place, scratch)? else {
            say::line("skipped: BigQuery's emulator needs Python 3.11 or later, and is not here");
            return Ok(());
        };
        say::line("BigQuery is an emulator behind TLS here; for this command its real name leads to it.");
        say::line(
            "The command is given roots that trust Verbatim, by variables; it does not know about them.",
        );
        let script = scratch.join("analyst.py");
        fs::write(&script, include_str!("analyst.py")).with_context(|| script.display().to_string())?;
        let mut python = Command::new(self.place.python());
        python.arg(&script);
        let options = [Path::new("--upstream-ca"), bigquery.root()];
        let agent = self.agent("analytics/ai-analyst", &options, &python)?;
        say::command(&command::typed_in(&self.place.root, &agent));
        ended_well(bigquery.within(&agent)?)
    }

    fn ask(&self) -> Result<()> {
        say::heading("What the trail says: every command of all three, newest first");
        self.verbatim(&["records"])?;
        say::heading("What did the agent get wrong, and what was it refused?");
        self.verbatim(&["records", "--service-account", "ai-agent", "--status", "error"])?;
        say::heading("What was done on whose behalf, verified?");
        self.verbatim(&["records", "--behalf", "verified"])?;
        say::heading("Who used credentials that are not its own? The report logs in as a person");
        self.verbatim(&["records", "--credential-match", "no"])?;
        say::heading("All that is known of one of them");
        let mut json = self
            .verbatim_command(&["records", "--text", "DELETE", "--behalf", "verified", "--output", "json"])?;
        let answer = command::output(&mut json)?;
        let first: Value = answer.lines().next().map(serde_json::from_str).transpose()?.unwrap_or_default();
        let Some(id) = first["id"].as_str() else {
            bail!("the agent's DELETE is not in the trail, which holds: {answer}");
        };
        self.verbatim(&["show", id])?;
        say::heading("Their connections");
        self.verbatim(&["sessions"])
    }

    fn verbatim(&self, arguments: &[&str]) -> Result<()> {
        let mut verbatim = self.verbatim_command(arguments)?;
        say::command(&command::typed_in(&self.place.root, &verbatim));
        let status = verbatim.stdin(Stdio::null()).status().context("starting verbatim")?;
        if !status.success() {
            bail!("`verbatim {}` ended with {status}", arguments.join(" "));
        }
        Ok(())
    }

    fn verbatim_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut verbatim = command::as_root(self.binaries.join("verbatim"))?;
        verbatim.arg("--data").arg(self.trail).args(arguments);
        Ok(verbatim)
    }

    fn address(&self, user: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/shop", self.postgres.port())
    }

    fn how_to_go_on(&self) {
        let short = |path: &Path| self.place.short(path);
        let sudo = if place::is_root() { "" } else { "sudo " };
        let verbatim =
            format!("{sudo}{} --data {}", short(&self.binaries.join("verbatim")), short(self.trail));
        say::heading("How to go on");
        say::line(&format!("The trail is in {}, root's as all evidence is. Ask it more:", short(self.trail)));
        say::command(&format!("{verbatim} records --text Lyon --output json"));
        say::command(&format!("{verbatim} findings"));
        say::line("Capture a command of your own, on PostgreSQL or BigQuery, with or without TLS:");
        say::command(&format!(
            "{sudo}{} run --data ./trail -- COMMAND",
            short(&self.binaries.join("verbatim-agent"))
        ));
        say::line("Nothing of the demo is running any more.");
    }
}

fn ended_well(mut agent: Command) -> Result<()> {
    let status = agent.stdin(Stdio::null()).status().context("starting verbatim-agent")?;
    if !status.success() {
        bail!("the capture ended with {status}; what it says above tells why");
    }
    Ok(())
}
