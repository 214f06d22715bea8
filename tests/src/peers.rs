//! Servers that are not PostgreSQL, in the VPC: the scripts in `peers/`.

use std::path::Path;

use anyhow::Result;

use crate::{lab::Ground, parts, process::Process};

/// Starts one and waits until it listens.
pub fn start(ground: &Ground, what: &str, address: &str, port: u16, argument: &str) -> Result<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/peer.py");
    let place = ground.vpc(&format!("peer-{what}-{port}"))?;
    let mut command = place.command(parts::python());
    command.arg(script).args([what, address, &port.to_string()]).env("PYTHONDONTWRITEBYTECODE", "1");
    if !argument.is_empty() {
        command.arg(argument);
    }
    let mut process = Process::start(&format!("peer-{what}-{port}"), ground.folder.path(), command)?;
    process.wait_for_output("listening")?;
    Ok(process)
}
