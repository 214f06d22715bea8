//! This binary as the captured command: `ATTEMPT`s that no ordinary client makes.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
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
        "knock-often" => knock_often(rest.first()?, rest.get(1)?),
        "talk" => talk(rest.first()?),
        "datagram" => datagram(rest.first()?),
        "flood" => flood(rest.first()?),
        "bind" => TcpListener::bind(rest.first()?).map(drop).map_err(|error| error.to_string()),
        "raw" => raw(),
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

/// Connects so many times, and waits each time until the connection is closed.
fn knock_often(address: &str, times: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    for _ in 0..times.parse::<u32>().map_err(|error| error.to_string())? {
        let mut stream = TcpStream::connect(address).map_err(failed)?;
        // It is reset, or closed.
        stream.read_to_end(&mut Vec::new()).ok();
    }
    Ok(())
}

/// Sends a byte again and again, until that is not possible any more.
fn talk(address: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    loop {
        stream.write_all(b"x").map_err(failed)?;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Sends a datagram through a socket that is not connected.
fn datagram(address: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    socket.send_to(b"initial", address).map(drop).map_err(failed)
}

/// Sends so many datagrams, each to another address, all of which must be refused.
fn flood(times: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    for number in 0..times.parse::<u32>().map_err(|error| error.to_string())? {
        let address = (std::net::Ipv4Addr::from(0x7f01_0000 + number), 443);
        if let Ok(sent) = socket.send_to(b"initial", address) {
            return Err(format!("{sent} bytes went to {address:?}"));
        }
    }
    Ok(())
}

/// Makes a raw socket for ICMP.
fn raw() -> Result<(), String> {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))
        .map(drop)
        .map_err(|error| error.to_string())
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
