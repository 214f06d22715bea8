//! This binary as the captured command: `ATTEMPT`s that no ordinary client makes.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::ExitCode,
};

use verbatim_sys::{bpf, cgroup};

/// First argument of a workload.
pub(crate) const WORKLOAD: &str = "verbatim-test-workload";

/// `None` where this is not the workload but the harness.
pub(crate) fn run() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != WORKLOAD {
        return None;
    }
    let what = arguments.next()?;
    let rest: Vec<String> = arguments.collect();
    let done = match what.as_str() {
        "escape" => escape(),
        "bpf" => bpf::probe_socket_address_program().map_err(|error| error.to_string()),
        "echo" => echo(rest.first()?),
        "echo-here" => echo_here(),
        "hold" => hold(rest.first()?),
        "knock" => knock(rest.first()?),
        _ => Err(format!("no such workload: {what}")),
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    })
}

/// Tries to leave its cgroup through every cgroup mount that it sees. Fails with what it was told.
fn escape() -> Result<(), String> {
    let mut told = Vec::new();
    for mount in cgroup::mounts().map_err(|error| error.to_string())? {
        if mount.kind.starts_with("cgroup") {
            match std::fs::write(mount.point.join("cgroup.procs"), "0") {
                Ok(()) => return Ok(()),
                Err(error) => told.push(format!("{}: {:?}", mount.point.display(), error.kind())),
            }
        }
    }
    Err(told.join("\n"))
}

/// Sends a line that is no protocol's and reads it back.
fn echo(address: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    println!("peer {}", stream.peer_addr().map_err(failed)?);
    stream.write_all(b"\x01\x02 no protocol's\n").map_err(failed)?;
    stream.shutdown(std::net::Shutdown::Write).map_err(failed)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back).map_err(failed)?;
    if back == b"\x01\x02 no protocol's\n" { Ok(()) } else { Err(format!("echoed {back:?}")) }
}

/// Keeps a connection open until it is killed, or the connection is.
fn hold(address: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.write_all(b"\x01\x02 no protocol's\n").map_err(failed)?;
    stream.read(&mut [0]).map(drop).map_err(failed)
}

/// Says something and is gone.
fn knock(address: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    TcpStream::connect(address).map_err(failed)?.write_all(b"\x01\x02 no protocol's\n").map_err(failed)
}

/// The same as echo with a server of its own, in the network namespace that it is in.
fn echo_here() -> Result<(), String> {
    let address = crate::postgres::echo_server().map_err(|error| format!("{error:?}"))?;
    echo(&address.to_string())
}

/// This binary.
pub(crate) fn program() -> String {
    std::env::current_exe().unwrap_or_else(|_unknown| Path::new("").to_owned()).display().to_string()
}
