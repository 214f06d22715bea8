//! A PostgreSQL server of one's own: a new cluster in a scratch folder, on a free port of the loopback
//! address, everybody trusted, gone with the value. Debian's own clusters are left alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    command,
    daemon::{self, Daemon},
    place,
};

/// The user that Debian's packages make for the server, which refuses to run as root.
const USER: &str = "postgres";

/// A running server.
pub(crate) struct Postgres {
    programs: PathBuf,
    port: u16,
    _server: Daemon,
}

impl Postgres {
    /// Makes a cluster below `scratch` and starts a server on it.
    pub(crate) fn start(scratch: &Path, settings: &[&str]) -> Result<Self> {
        let programs =
            place::postgres_programs().context("PostgreSQL is not installed: run `cargo xtask setup`")?;
        let folder = scratch.join("postgres");
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        if place::is_root() {
            command::quiet(Command::new("chown").arg(USER).arg(&folder))?;
        }
        let data = folder.join("data");
        let mut initdb = daemon::tied(programs.join("initdb"), "KILL", Some(USER));
        initdb.current_dir("/").args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
        ]);
        command::quiet(initdb.args(["--no-sync", "--pgdata"]).arg(&data))?;
        let port = daemon::free_port()?;
        let mut postgres = daemon::tied(programs.join("postgres"), "INT", Some(USER));
        postgres
            .current_dir("/")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1"])
            .arg("-k");
        postgres.arg(&folder);
        for setting in settings {
            postgres.args(["-c", setting]);
        }
        let mut server = Daemon::start(&mut postgres, "INT", &scratch.join("postgres.log"))?;
        let is_ready = || {
            command::succeeds(Command::new(programs.join("pg_isready")).args([
                "-q",
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
            ]))
        };
        server.wait_until("PostgreSQL", is_ready)?;
        Ok(Self { programs, port, _server: server })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// One of PostgreSQL's programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Runs statements as the superuser; the answer is what psql prints.
    pub(crate) fn admin(&self, database: &str, sql: &str) -> Result<String> {
        let port = self.port.to_string();
        command::output(Command::new(self.program("psql")).args([
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-d",
            database,
            "-c",
            sql,
        ]))
    }
}
