//! `soak`: hours of clients at work while agent, collector, disks, network and clocks fail under them. What
//! is done and how it is judged is the lab's (`tests/src/soak`); here it is built and started.

use std::{
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{binaries, command, ebpf, place::Place, say, setup, setup::Purpose};

#[derive(Args)]
pub(crate) struct Options {
    /// How long, such as 15m or 8h; at least one round is run
    #[arg(long = "for", visible_alias = "duration", value_parser = say::parse_duration, default_value = "1h")]
    duration: Duration,
    /// Makes the same choices as the run that printed it
    #[arg(long)]
    seed: Option<u64>,
    /// Only these disturbances, separated by commas, such as kill-agent,fill-spool; `nothing` is one, too
    #[arg(long)]
    only: Option<String>,
    /// Where the folder of a lab is kept in which something was wrong
    #[arg(long)]
    keep: Option<PathBuf>,
}

pub(crate) fn run(place: &Place, options: &Options) -> Result<ExitCode> {
    setup::ensure(place, Purpose::Test)?;
    ebpf::build(place)?;
    let folder = binaries::everything(place)?.folder;
    let seed = options.seed.map_or_else(of_now, Ok)?;
    let kept = options.keep.clone().unwrap_or_else(|| place.target.join("soak"));
    say::heading(&format!("Soak for {}, seed {seed}", say::duration(options.duration)));
    let variables = [
        ("VERBATIM_BIN_DIR", folder.as_os_str().to_owned()),
        ("VERBATIM_EBPF", place.ebpf().into_os_string()),
        ("VERBATIM_CACHE", place.cache.clone().into_os_string()),
    ];
    let mut soak = command::as_root_with(folder.join("lab-soak"), variables)?;
    soak.arg(options.duration.as_secs().to_string()).arg(seed.to_string()).arg(kept).args(&options.only);
    let status = soak.stdin(Stdio::null()).status().context("starting lab-soak")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One that a person can type again.
fn of_now() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(now.as_secs() % 1_000_000)
}
