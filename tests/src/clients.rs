//! Unmodified clients, started in a pod.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    google::names::PROJECT,
    network::DATABASE_NAME,
    parts, postgres,
    process::{Place, Process},
    trust::Trust,
};

/// Folder with the scripts that clients run.
#[must_use]
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Where clients run and what they are told about the database. Nothing says that anybody listens.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Their pod.
    pub place: Place,
    /// Host, port, user and database, as libpq's environment has it.
    pub environment: Vec<(String, String)>,
}

impl Clients {
    /// In a place, for the lab's database.
    #[must_use]
    pub fn new(place: Place) -> Self {
        let environment = [
            ("PGHOST", DATABASE_NAME),
            ("PGPORT", "5432"),
            ("PGUSER", postgres::USER),
            ("PGDATABASE", postgres::DATABASE_DB),
            ("PGSSLMODE", "disable"),
            ("PGGSSENCMODE", "disable"),
            ("HOME", "/nonexistent"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONUNBUFFERED", "1"),
        ];
        Self { place, environment: environment.map(|(name, value)| (name.into(), value.into())).into() }
    }

    /// The same with an environment variable set.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The same with the variables of injected trust.
    #[must_use]
    pub fn trusting(self, trust: &Trust) -> Self {
        trust.variables().into_iter().fold(self, |clients, (name, value)| clients.with(name, value))
    }

    /// The same for Google's clients, whose state is kept in a folder of the pod's.
    pub fn for_google(self, state: &Path) -> Result<Self> {
        std::fs::create_dir_all(state).with_context(|| format!("cannot make {}", state.display()))?;
        let state = state.display().to_string();
        Ok(self
            .with("HOME", state.clone())
            .with("CLOUDSDK_CONFIG", state + "/gcloud")
            .with("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "1")
            .with("CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK", "1")
            .with("GOOGLE_CLOUD_PROJECT", PROJECT))
    }

    /// Starts any program.
    pub fn start(
        &self,
        name: &str,
        program: impl AsRef<std::ffi::OsStr>,
        arguments: &[&str],
    ) -> Result<Process> {
        let mut command = self.place.command(program);
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::start(name, &self.place.folder, command)
    }

    /// Starts psql (the program itself: Debian's /usr/bin/psql is a wrapper in Perl).
    pub fn psql(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let psql = postgres::binaries().context("PostgreSQL is not installed")?.join("psql");
        self.start(name, psql, &[&["-X"], arguments].concat())
    }

    /// Starts pgbench.
    pub fn pgbench(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let pgbench = postgres::binaries().context("PostgreSQL is not installed")?.join("pgbench");
        self.start(name, pgbench, arguments)
    }

    /// Starts the same psql with another libpq: that of a PostgreSQL in a folder.
    pub fn psql_with(&self, newer: &Path, name: &str, arguments: &[&str]) -> Result<Process> {
        let libraries = newer.join("lib").display().to_string();
        self.clone().with("LD_LIBRARY_PATH", libraries).psql(name, arguments)
    }

    /// Starts the lab's program with pgx.
    pub fn pgx(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        self.start(name, parts::pgx(), arguments)
    }

    /// Starts the lab's program with the JDBC driver.
    pub fn jdbc(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let jars = parts::cache().join("jdbc/usr/share/java/*").display().to_string();
        let source = scripts().join("Jdbc.java").display().to_string();
        self.start(name, "java", &[&["-cp", &jars, &source], arguments].concat())
    }

    /// Starts one of the lab's Python scripts.
    pub fn python(&self, name: &str, script: &str, arguments: &[&str]) -> Result<Process> {
        let script = scripts().join(script).display().to_string();
        self.start(name, parts::python(), &[&[script.as_str()], arguments].concat())
    }

    /// Starts one of the lab's scripts for Node.js, with the packages of the cache.
    pub fn node(&self, name: &str, script: &str, arguments: &[&str]) -> Result<Process> {
        let script = scripts().join(script).display().to_string();
        let modules = parts::cache().join("node/").display().to_string();
        self.clone().with("VLAB_NODE", modules).start(name, "node", &[&[script.as_str()], arguments].concat())
    }
}
