//! A PostgreSQL of the test's own, and an echo server.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
};

use libtest_mimic::Failed;

use crate::support::{Bench, Guard, ensure, text, until};

/// Runs until it is dropped.
pub(crate) struct Postgres {
    pub(crate) port: u16,
    _server: Guard,
}

impl Postgres {
    pub(crate) fn start(bench: &Bench) -> Result<Self, Failed> {
        let folder = bench.path("open").join("postgres");
        let data = folder.join("data");
        // It refuses to run as root.
        let prepared = as_nobody("mkdir").arg(&folder).status()?;
        ensure(prepared.success(), || "no folder for PostgreSQL".into())?;
        let output = as_nobody(&binary("initdb")?)
            .args(["-A", "trust", "-U", "tester", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(&folder)
            .output()?;
        ensure(output.status.success(), || format!("initdb: {}", text(&output.stderr)))?;
        let port = verbatim_missing::port::free()?.port();
        let server = as_nobody(&binary("postgres")?)
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&folder)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self { port, _server: Guard(server) };
        until("PostgreSQL takes connections", || {
            let ready = Command::new("psql").args(server.arguments("select 1")).output();
            ready.is_ok_and(|output| output.status.success())
        })?;
        Ok(server)
    }

    /// psql's arguments for one statement.
    pub(crate) fn arguments(&self, statement: &str) -> Vec<String> {
        let port = self.port.to_string();
        ["-XAt", "-h", "127.0.0.1", "-p", &port, "-U", "tester", "-d", "postgres", "-c", statement]
            .map(ToOwned::to_owned)
            .to_vec()
    }
}

/// `setpriv` rather than a uid of `Command`, which would need the path to be readable for us only.
fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=KILL", "--", program]);
    command
}

/// Debian keeps the server's programs out of PATH, a folder per version.
fn binary(name: &str) -> Result<String, Failed> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found: Option<PathBuf> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    let found = found.ok_or_else(|| Failed::from(format!("{name} is missing: install `postgresql`")))?;
    Ok(found.display().to_string())
}

/// Sends back what it gets, each connection once, until the process ends.
pub(crate) fn echo_server() -> Result<SocketAddr, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).and_then(|_| stream.write_all(&bytes)).ok();
            });
        }
    });
    Ok(address)
}
