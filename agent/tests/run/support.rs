//! Starting the agent with folders of the test's own, and looking at what it leaves.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use tempfile::TempDir;
use verbatim_sys::cgroup;

/// Longer than anything here takes; what needs it has failed.
const LONG: Duration = Duration::from_secs(60);

/// A test's folders. Every run in it has its temporary files here.
pub(crate) struct Bench {
    folder: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = TempDir::with_prefix("verbatim-agent-test-").expect("folder");
        // What a command of another user may reach and write.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let bench = Self { folder };
        for (name, mode) in [("tmp", 0o700), ("open", 0o777)] {
            fs::create_dir(bench.path(name)).expect("folder");
            fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).expect("permissions");
        }
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The agent's command line, with temporary files in the bench and no person behind it but root.
    pub(crate) fn agent(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verbatim-agent"));
        command
            .args(arguments)
            .env("TMPDIR", self.path("tmp"))
            .env_remove("SUDO_UID")
            .env_remove("SUDO_GID")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    /// `run` with these options, of a shell script that first tells us its cgroup.
    pub(crate) fn script(&self, options: &[&str], script: &str) -> Command {
        let told = self.told().display().to_string();
        let script = format!("grep ^0:: /proc/self/cgroup > '{told}'; {script}");
        let mut arguments = vec!["run"];
        arguments.extend(options);
        arguments.extend(["--", "sh", "-c", &script]);
        self.agent(&arguments)
    }

    fn told(&self) -> PathBuf {
        self.path("open").join("cgroup")
    }

    /// The run's cgroup, which the script has told.
    pub(crate) fn cgroup(&self) -> Result<PathBuf, Failed> {
        let text = fs::read_to_string(self.told()).unwrap_or_default();
        let path = text.trim().strip_prefix("0::/").and_then(|path| path.strip_suffix("/workload"));
        let path =
            path.ok_or_else(|| Failed::from(format!("the command was in no cgroup of ours: {text:?}")))?;
        Ok(cgroup::mount_point()?.join(path))
    }

    /// That the machine is as it was: no cgroup (and with it nothing attached to it), no temporary file.
    pub(crate) fn assert_clean(&self) -> Result<(), Failed> {
        let cgroup = self.cgroup()?;
        ensure(!cgroup.exists(), || format!("{} is left behind", cgroup.display()))?;
        let left: Vec<_> = fs::read_dir(self.path("tmp"))?.flatten().map(|entry| entry.path()).collect();
        ensure(left.is_empty(), || format!("left behind: {left:?}"))?;
        // What the command was to trust, and the way to the data, are named as its cgroup is.
        let name = cgroup.file_name().unwrap_or_default().to_string_lossy().replace("-run-", "-");
        for part in ["trust", "data"] {
            let place = Path::new("/run").join(format!("{name}-{part}"));
            ensure(!place.exists(), || format!("{} is left behind", place.display()))?;
        }
        Ok(())
    }

    /// The one private folder of the run that goes on.
    pub(crate) fn private(&self) -> Result<PathBuf, Failed> {
        let found = fs::read_dir(self.path("tmp"))?.flatten().map(|entry| entry.path()).next();
        found.ok_or_else(|| "the run has no private folder".into())
    }

    /// All commands in a data folder, oldest first, as `verbatim` has them.
    pub(crate) fn records(&self, data: &Path) -> Result<Vec<serde_json::Value>, Failed> {
        let output = Command::new(beside("verbatim")?)
            .arg("--data")
            .arg(data)
            .args(["records", "--output", "json", "--oldest-first", "-n", "1000"])
            .output()?;
        ensure(output.status.success(), || format!("verbatim: {}", text(&output.stderr)))?;
        let lines = text(&output.stdout);
        Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}

/// Another binary of the project, which `cargo xtask test` builds first.
pub(crate) fn beside(name: &str) -> Result<PathBuf, Failed> {
    let path = Path::new(env!("CARGO_BIN_EXE_verbatim-agent")).with_file_name(name);
    ensure(path.exists(), || format!("{} is missing: `cargo build -p {name}` first", path.display()))?;
    Ok(path)
}

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Exit code, standard output and standard error, of an agent that ends by itself.
pub(crate) fn ended(command: &mut Command) -> Result<(Option<i32>, String, String), Failed> {
    let child = Guard(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    let output = child.output()?;
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

/// A child that a failing test does not leave behind.
pub(crate) struct Guard(pub(crate) Child);

impl Guard {
    /// Waits for its end.
    pub(crate) fn output(mut self) -> Result<Output, Failed> {
        let pid = self.0.id();
        let (done, alarm) = std::sync::mpsc::channel::<()>();
        let alarm = std::thread::spawn(move || {
            if alarm.recv_timeout(LONG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                signal(pid, "KILL");
            }
        });
        let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.map(|mut stream| stream.read_to_end(&mut bytes));
                bytes
            })
        };
        let stdout = read(self.0.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = read(self.0.stderr.take().map(|pipe| Box::new(pipe) as _));
        let status = self.0.wait()?;
        let output = Output {
            status,
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        };
        drop(done);
        alarm.join().ok();
        Ok(output)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// `kill -SIGNAL PID`.
pub(crate) fn signal(pid: u32, name: &str) {
    Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().ok();
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Failed> {
    let end = Instant::now() + LONG;
    while !holds() {
        ensure(Instant::now() < end, || format!("{what}: did not come true"))?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether a process lives; a zombie does not.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
