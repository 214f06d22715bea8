//! A PostgreSQL server of a test's own, and its clients, where they are installed.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A running server.
pub(crate) struct Database {
    directory: tempfile::TempDir,
    binaries: PathBuf,
    pub(crate) port: u16,
}

/// TLS of a server: PEM texts.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Database {
    /// Trusts everybody, without TLS. `None`, and the test skipped, where PostgreSQL is not installed or
    /// cannot be started.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(None, "host all all all trust\n")
    }

    /// With these lines of `pg_hba.conf`. The superuser `postgres` and the user `ada` have the password
    /// `geheim`.
    pub(crate) fn start_with(identity: Option<&Identity>, hba: &str) -> Option<Self> {
        let installed = fs::read_dir("/usr/lib/postgresql").ok().and_then(|versions| {
            versions
                .flatten()
                .map(|version| version.path().join("bin"))
                .find(|bin| bin.join("initdb").exists())
        });
        let may_switch_user =
            fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("\nUid:\t0\t"));
        let (Some(binaries), true) = (installed, may_switch_user) else {
            verbatim_missing::skip("PostgreSQL is not installed, or this is not root");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let port = verbatim_missing::port::free().unwrap().port();
        let database = Self { directory, binaries, port };
        run(Command::new("chown").arg("postgres").arg(database.path()));
        database.run("initdb", &["--auth=trust", "--username=postgres", "--no-sync"]);
        database.write("pg_hba.conf", &format!("local all all trust\n{hba}"));
        let mut options = format!(
            "-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off",
            database.path().display()
        );
        if let Some(identity) = identity {
            database.write("server.crt", &identity.certificate);
            database.write("server.key", &identity.key);
            options.push_str(" -c ssl=on");
        }
        database.run("pg_ctl", &["-w", "-l", "/dev/null", "-o", &options, "start"]);
        let users = "create role ada login password 'geheim'; alter role postgres password 'geheim'";
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-U", "postgres", "-p", &port.to_string(), "-c", users, "-h"]);
        run(psql.arg(database.path()));
        Some(database)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Whether a session is in `pg_sleep`, as the server says.
    pub(crate) fn sleeps(&self) -> bool {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-A", "-t", "-U", "postgres", "-p", &self.port.to_string(), "-h"]).arg(self.path());
        psql.args(["-c", "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"]);
        out(&psql.output().unwrap()).0.trim() == "1"
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        run(Command::new("chown").arg("postgres").arg(&path));
        run(Command::new("chmod").arg("600").arg(&path));
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(self.binaries.join(program)).arg("-D").arg(self.path());
        command.args(arguments).current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        run(&mut self.command(program, arguments));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(error) = self.command("pg_ctl", &["-m", "immediate", "stop"]).status() {
            println!("PostgreSQL may still run: {error}");
        }
    }
}

pub(crate) fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// psql as the superuser, in plaintext unless told otherwise.
pub(crate) fn psql_command(proxy: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", &proxy.port().to_string(), "-U", "postgres"]);
    command.env("PGSSLMODE", "disable").env("PGGSSENCMODE", "disable").args(arguments);
    command
}

pub(crate) fn psql(proxy: SocketAddr, arguments: &[&str]) -> Output {
    psql_command(proxy, arguments).output().unwrap()
}

/// What a client printed: output and errors.
pub(crate) fn out(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
