//! Requests a second over HTTP/2 with TLS on both legs: direct, through Envoy with its access log on, and captured
//! with a record for each request.

use std::{ffi::OsString, time::Duration};

use anyhow::Result;

use super::{
    Bench, Options,
    capture::Capture,
    certificates::Certificates,
    h2load::{self, Done, File, Server},
    pairs::Pairs,
    peers::{
        Peers,
        envoy::{self, Upstream},
    },
    report::Section,
};

/// What h2load does.
struct Load {
    name: &'static str,
    connections: u32,
    /// Requests under way on each connection.
    streams: u32,
    asked: File,
    posted: Option<File>,
}

const LOADS: [Load; 4] = [
    Load {
        name: "small POSTs, 8 connections × 10 streams",
        connections: 8,
        streams: 10,
        asked: File::Small,
        posted: Some(File::Query),
    },
    Load {
        name: "small POSTs, 64 connections × 1 stream",
        connections: 64,
        streams: 1,
        asked: File::Small,
        posted: Some(File::Query),
    },
    Load {
        name: "GET of 1 MB, 8 connections × 1 stream",
        connections: 8,
        streams: 1,
        asked: File::Large,
        posted: None,
    },
    Load {
        name: "POST of 100 KB, 8 connections × 1 stream",
        connections: 8,
        streams: 1,
        asked: File::Small,
        posted: Some(File::Upload),
    },
];

/// How long the connections have to be made before counting begins.
const WARM_UP: &str = "--warm-up-time=1s";

/// Somebody who runs h2load.
struct Contestant {
    name: String,
    port: u16,
    capture: Option<Capture>,
}

/// Runs all rounds; the answer is the report's section.
pub(super) fn run(bench: &Bench<'_>, options: &Options, certificates: &Certificates) -> Result<Section> {
    let server = Server::start(bench, certificates)?;
    let mut peers = Peers::default();
    peers.absent("mitmproxy", "it is not among the packages that set-up installs");
    peers.add("Envoy", || envoy::http(bench, server.port, certificates, Upstream::Shared));
    peers.add("Envoy, unshared", || envoy::http(bench, server.port, certificates, Upstream::OneForEach));

    let mut contestants = vec![Contestant { name: "direct".into(), port: server.port, capture: None }];
    contestants.extend(peers.here().map(|p| Contestant { name: p.name.into(), port: p.port, capture: None }));
    let yardsticks: Vec<usize> = (0..contestants.len()).collect();
    if !options.peers_only {
        let capture = Capture::process().trusting(&certificates.roots());
        contestants.push(Contestant {
            name: "Verbatim, `process`".into(),
            port: server.port,
            capture: Some(capture),
        });
    }

    let names = contestants.iter().map(|c| c.name.clone()).collect();
    let loads = LOADS.iter().map(|load| load.name.to_owned()).collect();
    let pairs = Pairs::run(options.rounds, names, loads, "requests/s", |load, contestant| {
        once(bench, &server, &contestants[contestant], &LOADS[load], options.each)
    })?;
    let text = format!("\n{}\n{}{}", h2load::described()?, pairs.tables(&yardsticks), peers.shown());
    Ok(Section { name: "http", text })
}

/// One run; requests a second, connecting not counted.
fn once(
    bench: &Bench<'_>,
    server: &Server,
    contestant: &Contestant,
    load: &Load,
    time: Duration,
) -> Result<f64> {
    let arguments: [OsString; 8] = [
        "-t".into(),
        "1".into(),
        "-c".into(),
        load.connections.to_string().into(),
        "-m".into(),
        load.streams.to_string().into(),
        format!("--duration={}s", time.as_secs()).into(),
        WARM_UP.into(),
    ];
    let posted = load.posted.map(|file| server.file(file));
    let mut h2load = h2load::command(arguments, contestant.port, load.asked, posted.as_deref());
    let output = match &contestant.capture {
        None => crate::command::output(&mut h2load)?,
        Some(capture) => capture.run(bench, &h2load, |output| Ok(Done::parse(output)?.requests))?,
    };
    Ok(Done::parse(&output)?.requests_per_second)
}
