//! pgbouncer in session mode, over plaintext or with TLS on both legs.

use anyhow::{Context, Result};

use super::{Peer, shown, write};
use crate::{
    bench::{Bench, certificates::Certificates},
    daemon::{self, Daemon},
    place,
};

/// Starts one before PostgreSQL at this port. With certificates both legs must be TLS.
pub(in crate::bench) fn start(
    bench: &Bench<'_>,
    server: u16,
    certificates: Option<&Certificates>,
) -> Result<Peer> {
    let program = place::program("pgbouncer").context("pgbouncer is not installed")?;
    let port = daemon::free_port()?;
    let tls = certificates.map_or_else(String::new, |certificates| {
        format!(
            "client_tls_sslmode = require\n\
             client_tls_cert_file = {}\n\
             client_tls_key_file = {}\n\
             server_tls_sslmode = verify-ca\n\
             server_tls_ca_file = {}\n",
            certificates.server().display(),
            certificates.server_key().display(),
            certificates.roots().display()
        )
    });
    let configuration = format!(
        "[databases]\n\
         bench = host=127.0.0.1 port={server} dbname=bench user=postgres\n\
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
         ignore_startup_parameters = extra_float_digits\n\
         {tls}"
    );
    let folder = bench.scratch.path();
    let path = folder.join(format!("pgbouncer-{port}.ini"));
    write(&path, &configuration)?;
    let mut command = daemon::tied(program, "INT", Some("postgres"));
    command.arg(&path);
    let mut server = Daemon::start(&mut command, "INT", &path.with_extension("log"))?;
    server.wait_until("pgbouncer", || daemon::listens(port))?;
    let configuration = shown("session mode:", "ini", &configuration, folder);
    Ok(Peer { name: "pgbouncer", port, configuration, server })
}
