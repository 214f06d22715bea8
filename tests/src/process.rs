//! One process of a scenario: started in its cgroup, its namespace and as its user, ended with it.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{netns::Namespace, wait};

/// Where a process is to run.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// Name of its network namespace; `None` is the harness's own.
    pub namespace: Option<String>,
    /// User to run as; `None` is root.
    pub user: Option<String>,
    /// Whether the namespace's own hosts file holds, as in a pod. /sys is then that namespace's too, and
    /// no cgroup is to be seen.
    pub hosts: bool,
    /// Where its output goes.
    pub folder: PathBuf,
    /// Words that stand before the program: a clock of its own, a limit.
    pub before: Vec<OsString>,
}

impl Place {
    /// In the harness's own network namespace, as root.
    #[must_use]
    pub fn node(cgroup: PathBuf, folder: &Path) -> Self {
        Self {
            cgroup,
            namespace: None,
            user: None,
            hosts: false,
            folder: folder.to_owned(),
            before: Vec::new(),
        }
    }

    /// In a namespace, as root.
    #[must_use]
    pub fn within(cgroup: PathBuf, namespace: &Namespace, folder: &Path) -> Self {
        Self {
            cgroup,
            namespace: Some(namespace.name().to_owned()),
            user: None,
            hosts: true,
            folder: folder.to_owned(),
            before: Vec::new(),
        }
    }

    /// The same place but for files: what is on this machine is what the process sees.
    #[must_use]
    pub fn without_hosts(mut self) -> Self {
        self.hosts = false;
        self
    }

    /// The same place as another user.
    #[must_use]
    pub fn as_user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// A command that will run there. The shell joins the cgroup before it becomes the program, so that
    /// no system call of the program is made elsewhere.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(namespace) = &self.namespace {
            if self.hosts {
                words.extend(["ip", "netns", "exec", namespace].map(Into::into));
            } else {
                words.extend(["nsenter".into(), format!("--net=/run/netns/{namespace}").into(), "--".into()]);
            }
        }
        if let Some(user) = &self.user {
            words.extend(["setpriv", "--reuid", user, "--regid", user, "--clear-groups"].map(Into::into));
        }
        words.extend(self.before.iter().cloned());
        words.push(program.as_ref().to_owned());
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"echo 0 >"$0/cgroup.procs" && exec "$@""#])
            .arg(&self.cgroup)
            .args(words)
            .env_remove("PGHOST")
            .env_remove("PGUSER")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("RUST_BACKTRACE")
            .current_dir("/");
        command
    }
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a process that ended left.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Ended {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn complaints(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl Process {
    /// Starts a command whose output goes to files named after it. Standard input is a pipe.
    pub fn start(name: &str, folder: &Path, mut command: Command) -> Result<Self> {
        // One that is started again gets files of its own: what its predecessor said is not its word.
        let (stdout, stderr) = (1..)
            .map(|number| {
                (folder.join(format!("{name}.{number}.out")), folder.join(format!("{name}.{number}.err")))
            })
            .find(|(stdout, _)| !stdout.exists())
            .context("no free name")?;
        let open =
            |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        let child = command
            .stdin(Stdio::piped())
            .stdout(open(&stdout)?)
            .stderr(open(&stderr)?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, stdout, stderr })
    }

    /// Its process id. `/bin/sh`, `ip netns exec` and `setpriv` become the program, so it is the program's.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, once.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn complaints(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Waits until standard output holds the text; fails when the process ends before.
    pub fn wait_for_output(&mut self, text: &str) -> Result<()> {
        let what = format!("{} to say {text:?}", self.name);
        wait::until(&what, || {
            if self.output().contains(text) {
                return Ok(Some(true));
            }
            Ok(self.child.try_wait()?.is_some().then_some(false))
        })?
        .then_some(())
        .with_context(|| format!("{} ended before it said {text:?}: {}", self.name, self.complaints()))
    }

    /// Whether it runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self) -> Result<Ended> {
        drop(self.child.stdin.take());
        let what = format!("{} to end", self.name);
        let status = wait::until(&what, || Ok(self.child.try_wait()?))
            .with_context(|| format!("output: {}\nerrors: {}", self.output(), self.complaints()))?;
        Ok(Ended {
            status,
            stdout: fs::read(&self.stdout).unwrap_or_default(),
            stderr: fs::read(&self.stderr).unwrap_or_default(),
        })
    }

    /// Waits until it has ended by itself, and without a failure.
    pub fn finish(self) -> Result<Ended> {
        let name = self.name.clone();
        let ended = self.wait()?;
        if !ended.status.success() {
            bail!("{name} ended with {}\n{}\n{}", ended.status, ended.text(), ended.complaints());
        }
        Ok(ended)
    }

    /// Sends a signal by name, e.g. `INT`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        crate::shell::run("/bin/kill", &["-s", signal, &self.id().to_string()]).map(drop)
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Its resident memory in KiB, without pages of files and of shared memory (`RssAnon`).
    pub fn anonymous_kib(&self) -> Result<u64> {
        anonymous_kib(self.id())
    }
}

/// Resident anonymous memory of a process in KiB, from /proc/PID/status (proc(5)).
pub fn anonymous_kib(process: u32) -> Result<u64> {
    status_kib(process, "RssAnon:")
}

/// The most memory that a process ever had resident, in KiB; pages of files count too.
pub fn peak_kib(process: u32) -> Result<u64> {
    status_kib(process, "VmHWM:")
}

/// How many descriptors a process has open.
pub fn descriptors(process: u32) -> Result<usize> {
    let path = format!("/proc/{process}/fd");
    Ok(fs::read_dir(&path).with_context(|| format!("cannot list {path}"))?.count())
}

/// Sets how many descriptors a running process may have open, up to what it may set itself.
pub fn limit_descriptors(process: u32, most: usize) -> Result<()> {
    let limit = format!("--nofile={most}:");
    crate::shell::run("prlimit", &["--pid", &process.to_string(), &limit]).map(drop)
}

fn status_kib(process: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        .with_context(|| format!("{path} has no {field}"))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
