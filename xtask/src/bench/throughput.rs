//! Transactions a second over plaintext: direct, through peers that record nothing, and captured.

use anyhow::Result;

use super::{
    Bench, Options,
    capture::Capture,
    pairs::Pairs,
    peers::{self, Peers},
    pgbench::{self, Contestant, MODES},
    report::Section,
};

/// Runs all rounds; the answer is the report's section.
pub(super) fn run(bench: &Bench<'_>, options: &Options) -> Result<Section> {
    let mut peers = Peers::default();
    peers.absent("hoop-inspect", "it is not among the packages that set-up can install");
    let server = bench.postgres.port();
    peers.add("pgbouncer", || peers::pgbouncer::start(bench, server, None));
    peers.add("Envoy", || peers::envoy::tcp(bench, server));

    let address = |port| pgbench::address(port, "sslmode=disable");
    let mut contestants = vec![Contestant { name: "direct".into(), address: address(server), capture: None }];
    contestants.extend(peers.here().map(|p| Contestant {
        name: p.name.into(),
        address: address(p.port),
        capture: None,
    }));
    let yardsticks: Vec<usize> = (0..contestants.len()).collect();
    if !options.peers_only {
        for (name, capture) in
            [("Verbatim, `process`", Capture::process()), ("Verbatim, `group`", Capture::group())]
        {
            contestants.push(Contestant {
                name: name.into(),
                address: address(server),
                capture: Some(capture),
            });
        }
    }

    let names = contestants.iter().map(|c| c.name.clone()).collect();
    let loads = MODES.iter().map(|mode| pgbench::load(mode)).collect();
    let pairs = Pairs::run(options.rounds, names, loads, "tps", |load, contestant| {
        pgbench::run(bench, &contestants[contestant], MODES[load], options.each)
    })?;
    Ok(Section { name: "throughput", text: pairs.tables(&yardsticks) + &peers.shown() })
}
