//! Transactions a second with TLS on both legs: direct, through pgbouncer doing the same TLS, and captured.

use anyhow::{Context, Result};

use super::{
    Bench, Options,
    capture::Capture,
    certificates::Certificates,
    pairs::Pairs,
    peers::{self, Peers},
    pgbench::{self, Contestant, MODES},
    report::Section,
};
use crate::{postgres::Postgres, say};

/// What libpq is told: TLS or nothing, and what `run` tells it by PGCHANNELBINDING.
const OPTIONS: &str = "sslmode=require channel_binding=disable";

/// Runs all rounds; the answer is the report's section.
pub(super) fn run(bench: &Bench<'_>, options: &Options, certificates: &Certificates) -> Result<Section> {
    say::heading("A PostgreSQL that speaks TLS");
    let folder = bench.scratch.path().join("tls");
    std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut settings: Vec<String> = super::POSTGRES_SETTINGS.map(str::to_owned).into();
    settings.extend([
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificates.server().display()),
        format!("ssl_key_file={}", certificates.server_key().display()),
    ]);
    let server = Postgres::start(&folder, &settings.iter().map(String::as_str).collect::<Vec<_>>())?;
    pgbench::fill(&server)?;

    let mut peers = Peers::default();
    peers.add("pgbouncer", || peers::pgbouncer::start(bench, server.port(), Some(certificates)));
    let address = |port| pgbench::address(port, OPTIONS);
    let direct = address(server.port());
    let mut contestants = vec![Contestant { name: "direct".into(), address: direct.clone(), capture: None }];
    contestants.extend(peers.here().map(|p| Contestant {
        name: p.name.into(),
        address: address(p.port),
        capture: None,
    }));
    let yardsticks: Vec<usize> = (0..contestants.len()).collect();
    if !options.peers_only {
        let capture = Capture::process().trusting(&certificates.roots());
        contestants.push(Contestant {
            name: "Verbatim, `process`".into(),
            address: direct,
            capture: Some(capture),
        });
    }

    let names = contestants.iter().map(|c| c.name.clone()).collect();
    let loads = MODES.iter().map(|mode| format!("{}, TLS on both legs", pgbench::load(mode))).collect();
    let pairs = Pairs::run(options.rounds, names, loads, "tps", |load, contestant| {
        pgbench::run(bench, &contestants[contestant], MODES[load], options.each)
    })?;
    Ok(Section { name: "tls", text: pairs.tables(&yardsticks) + &peers.shown() })
}
