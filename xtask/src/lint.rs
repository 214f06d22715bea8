//! `lint`: what is checked without running anything. All checks run, also when an early one fails.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{command, place::Place, proto, say, setup, setup::Purpose, setup::Tool};

#[derive(Args)]
pub(crate) struct Options {
    /// Let formatting be put right instead of only checking it
    #[arg(long)]
    fix: bool,
}

pub(crate) fn run(place: &Place, options: &Options) -> Result<()> {
    setup::ensure(place, Purpose::Lint)?;
    let mut failed = Vec::new();
    let mut check = |name: &'static str, run: &dyn Fn() -> Result<()>| {
        let begun = Instant::now();
        say::heading(name);
        match run() {
            Ok(()) => say::line(&format!("{} ({})", say::green("ok"), say::took(begun))),
            Err(error) => {
                say::line(&format!("{} {error:#}", say::red("failed:")));
                failed.push(name);
            }
        }
    };
    check("Formatting", &|| formatting(place, options.fix));
    check("Generated code", &|| proto::run(place, true));
    check("Clippy", &|| clippy(place));
    check("Dependencies: licences, bans, sources", &|| {
        for manifest in SHIPPED {
            command::run(&mut deny(place, manifest, &["licenses", "bans", "sources"]))?;
        }
        Ok(())
    });
    check("Dependencies: advisories", &|| advisories(place));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join("; "));
    }
    Ok(())
}

fn formatting(place: &Place, fix: bool) -> Result<()> {
    for folder in ["", "agent-ebpf"] {
        let mut cargo = place.cargo();
        cargo.current_dir(place.root.join(folder)).args(["fmt", "--all"]);
        if !fix {
            cargo.arg("--check");
        }
        command::run(&mut cargo)?;
    }
    Ok(())
}

fn clippy(place: &Place) -> Result<()> {
    command::run(place.cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))
}

/// What is shipped: the workspace, and the eBPF programs with a lock file of their own.
const SHIPPED: [&str; 2] = ["Cargo.toml", "agent-ebpf/Cargo.toml"];

fn deny(place: &Place, manifest: &str, what: &[&str]) -> Command {
    let mut deny = Command::new(Tool::CargoDeny.path(place));
    deny.current_dir(&place.root).args(["--locked", "--config", "deny.toml", "--manifest-path", manifest]);
    // A licence that one of the two does not meet is not worth a word.
    deny.args(["check", "--hide-inclusion-graph", "--allow", "license-not-encountered"]).args(what);
    deny
}

/// The advisories' database lies outside of every registry: where it cannot be reached the check is skipped,
/// by name. What it says when it can be reached counts.
fn advisories(place: &Place) -> Result<()> {
    for manifest in SHIPPED {
        let mut deny = deny(place, manifest, &["advisories"]);
        say::command(&command::shown(&deny));
        let output = deny.output().context("starting cargo-deny")?;
        let text = String::from_utf8_lossy(&output.stderr);
        if text.contains("failed to fetch advisory database") {
            say::note("SKIPPED advisories: their database cannot be reached from here");
            return Ok(());
        }
        if !output.status.success() {
            bail!("{text}");
        }
    }
    Ok(())
}
