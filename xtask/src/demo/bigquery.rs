//! A BigQuery of the demo's own: the emulator, TLS before it, under the real name for whoever is started with
//! the demo's hosts file. Nobody else on the machine sees any of it.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    command,
    daemon::{self, Daemon},
    place::Place,
};

/// Where the name leads: loopback too, and hardly anybody's.
const ADDRESS: &str = "127.61.0.1";
const NAME: &str = "bigquery.googleapis.com";

/// It vouches for itself and for nothing else.
const CERTIFICATE: &str = "\
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = BigQuery of the demo
[extensions]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:bigquery.googleapis.com
";

/// It runs.
pub(super) struct BigQuery {
    root: PathBuf,
    hosts: PathBuf,
    _front: Daemon,
    _emulator: Daemon,
}

impl BigQuery {
    /// Starts it; `None` where set-up could not install the emulator.
    pub(super) fn start(place: &Place, scratch: &Path) -> Result<Option<Self>> {
        let emulator = place.cache.join("lab/emulator");
        let python = emulator.join("venv/bin/python");
        if !python.is_file() {
            return Ok(None);
        }
        let (certificate, key) = (scratch.join("bigquery.pem"), scratch.join("bigquery.key"));
        let settings = scratch.join("bigquery.cnf");
        fs::write(&settings, CERTIFICATE).with_context(|| settings.display().to_string())?;
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-config"]).arg(&settings);
        command::quiet(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?;

        let port = daemon::free_port()?;
        let mut start = daemon::tied(&python, "KILL", None);
        start.args(["-m", "bqemulator", "start", "--ephemeral", "--no-admin", "--log-level", "error"]);
        start.args(["--rest-host", "127.0.0.1", "--rest-port", &port.to_string(), "--grpc-port", "0"]);
        // Its extensions are below its home; it fetches none.
        start.env("HOME", emulator.join("home")).env("BQEMU_ENABLE_FORMAT_EXTENSIONS", "false");
        let mut running = Daemon::start(&mut start, "TERM", &scratch.join("bigquery.log"))?;
        running.wait_until("BigQuery's emulator", || daemon::listens(port))?;

        let script = scratch.join("front.py");
        fs::write(&script, include_str!("front.py")).with_context(|| script.display().to_string())?;
        // As root, for the port is below 1024.
        let mut start = command::as_root("setpriv")?;
        start.args(["--pdeathsig=KILL", "--"]).arg(place.python()).arg(&script).args([ADDRESS, "443"]);
        start.arg(&certificate).arg(&key).arg(port.to_string());
        let mut front = Daemon::start(&mut start, "TERM", &scratch.join("front.log"))?;
        front.wait_until("TLS before the emulator", || TcpStream::connect((ADDRESS, 443)).is_ok())?;

        let hosts = scratch.join("hosts");
        let all = fs::read_to_string("/etc/hosts").unwrap_or_default();
        fs::write(&hosts, format!("{ADDRESS} {NAME}\n{all}")).with_context(|| hosts.display().to_string())?;
        Ok(Some(Self { root: certificate, hosts, _front: front, _emulator: running }))
    }

    /// What vouches for it.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The command where the name leads here: in a mount namespace with a hosts file of its own.
    pub(super) fn within(&self, inner: &Command) -> Result<Command> {
        let mut outer = command::as_root("unshare")?;
        outer.args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc/hosts && exec "$@""#]);
        outer.arg(&self.hosts).arg(inner.get_program()).args(inner.get_args());
        Ok(outer)
    }
}
