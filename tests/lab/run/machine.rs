//! A machine on which `run` is tried.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use verbatim_tests::{
    binaries,
    google::{self, Google},
    lab::Ground,
    network::{DATABASE, DATABASE_NAME, Pod},
    pglog::Logged,
    postgres::{self, Server},
    process::{Ended, Place, Process},
};

/// A machine on which `run` is tried: a namespace with a way to the database.
pub(super) struct Machine {
    pub(super) server: Server,
    pub(super) google: Option<Google>,
    pub(super) ground: Ground,
}

impl Machine {
    pub(super) fn create(name: &str) -> Result<Self> {
        let ground = Ground::create(name)?;
        let server = ground.postgres("postgres", DATABASE, postgres::Options::default())?;
        Ok(Self { server, google: None, ground })
    }

    /// The same with Google's side, BigQuery's `emulator` too where it is wanted, and with TLS in front of the database.
    pub(super) fn with_google(name: &str, emulator: bool) -> Result<Self> {
        let ground = Ground::create(name)?;
        let google = Google::start(&ground, google::Options { emulator, ..Default::default() })?;
        let shown = google.root().issue("database", &[DATABASE_NAME, DATABASE])?;
        let with = postgres::Options { shown: Some(&shown), ..Default::default() };
        let server = ground.postgres("postgres", DATABASE, with)?;
        Ok(Self { server, google: Some(google), ground })
    }

    pub(super) fn place(&self) -> Result<Place> {
        let cgroup = self.ground.tree.make("shell")?;
        let place = Place::within(cgroup, self.ground.network.pod(Pod::A), self.ground.folder.path());
        Ok(place.without_hosts())
    }

    /// Starts `verbatim-agent run` for the person `nobody`, as sudo would. The command first says where it
    /// is, so that what is left of this run can be told from another's.
    pub(super) fn start(&self, name: &str, options: &[&str], command: &[&str]) -> Result<Process> {
        let temporary = self.temporary();
        fs::create_dir_all(&temporary)?;
        let mut run = self.place()?.command(binaries::find("verbatim-agent")?);
        run.arg("run").args(options).args(["--", "sh", "-c", SAYS_WHERE, "sh"]).args(command);
        run.env("TMPDIR", temporary).envs([
            ("SUDO_UID", "65534"),
            ("SUDO_GID", "65534"),
            ("SUDO_USER", "nobody"),
            ("PGHOST", DATABASE),
            ("PGUSER", postgres::USER),
            ("PGDATABASE", postgres::DATABASE_DB),
            ("PGSSLMODE", "disable"),
            ("PGGSSENCMODE", "disable"),
        ]);
        Process::start(name, self.ground.folder.path(), run)
    }

    /// Runs it to its end. What it was in, and its temporary files, must be gone then.
    pub(super) fn run(&self, name: &str, options: &[&str], command: &[&str]) -> Result<Ended> {
        let mut ended = self.start(name, options, command)?.wait()?;
        let cgroup = own_cgroup(&ended.text()).with_context(|| ended.complaints())?;
        let left = self.left(&cgroup)?;
        ensure!(left.is_empty(), "left: {left:?}");
        let first = ended.stdout.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        ended.stdout.drain(..first);
        Ok(ended)
    }

    /// Folder for the agent's temporary files.
    pub(super) fn temporary(&self) -> PathBuf {
        self.ground.path("tmp")
    }

    /// What is left of a run: its cgroup, temporary files, processes in the shell that it was started from.
    pub(super) fn left(&self, cgroup: &Path) -> Result<Vec<String>> {
        let mut left = Vec::new();
        if cgroup.exists() {
            left.push(cgroup.display().to_string());
        }
        for entry in fs::read_dir(self.temporary())? {
            left.push(entry?.path().display().to_string());
        }
        let shell = verbatim_tests::cgroup::processes(&self.ground.tree.root().join("shell"))?;
        left.extend(shell.iter().map(|id| format!("process {id}")));
        Ok(left)
    }

    pub(super) fn data(&self) -> String {
        self.ground.path("data").display().to_string()
    }

    pub(super) fn psql(&self) -> Result<String> {
        let folder = postgres::binaries().context("PostgreSQL is not installed")?;
        Ok(folder.join("psql").display().to_string())
    }

    pub(super) fn logged(&self) -> Result<Vec<Logged>> {
        self.server.complete_log()
    }
}

/// Says in which cgroup (v2) the command runs, then becomes it.
const SAYS_WHERE: &str = "grep ^0:: /proc/self/cgroup && exec \"$@\"";

/// The cgroup of a run, from what its command said: the topmost of ours.
pub(super) fn own_cgroup(output: &str) -> Result<PathBuf> {
    let path = output.lines().next().and_then(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let mut root = verbatim_tests::cgroup::mount_point()?;
    for part in path.split('/') {
        root.push(part);
        if part.starts_with("verbatim-run-") {
            return Ok(root);
        }
    }
    bail!("the command runs in no cgroup of a run: {output:?}")
}
