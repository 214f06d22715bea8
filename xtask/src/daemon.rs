//! Servers that run beside the work: started with their output in a file, ended when the value goes, and
//! ended by the kernel when this program dies first.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{command, place, say};

/// How long a server may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub(crate) struct Daemon {
    child: Child,
    signal: &'static str,
    log: PathBuf,
}

/// A command that gets `signal` when this program dies, as `user` where we are root and one is named: some
/// servers refuse to run as root.
pub(crate) fn tied(program: impl AsRef<OsStr>, signal: &str, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--pdeathsig={signal}"));
    if let Some(user) = user
        && place::is_root()
    {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

impl Daemon {
    /// Starts it, with all it prints in `log`. `signal` is what ends it in good order.
    pub(crate) fn start(command: &mut Command, signal: &'static str, log: &Path) -> Result<Self> {
        let file = fs::File::create(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child =
            command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { child, signal, log: log.to_owned() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` says so. A server that ends instead is an error with all that it printed.
    pub(crate) fn wait_until(&mut self, what: &str, ready: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{what} ended at once: {status}\n{}", self.printed());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{what} was not ready after {} s\n{}", PATIENCE.as_secs(), self.printed());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("{}: {error}", self.log.display()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // First in good order, then harder; what cannot be ended at all is named.
        for signal in [self.signal, "KILL"] {
            let begun = Instant::now();
            if matches!(self.child.try_wait(), Ok(None)) {
                self.signal(signal);
            }
            while begun.elapsed() < PATIENCE {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        say::note(&format!("process {} still runs; end it by hand", self.child.id()));
    }
}

impl Daemon {
    /// By the shell's own kill, for a bare machine has no other; as root where the process is root's.
    fn signal(&self, signal: &str) {
        let kill = ["-c", "kill -s \"$0\" \"$1\"", signal, &self.child.id().to_string()];
        let sent =
            Command::new("sh").args(kill).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !sent && let Ok(mut sh) = command::as_root("sh") {
            drop(sh.args(kill).stderr(Stdio::null()).status());
        }
    }
}

/// A port on the loopback address that nobody uses now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Whether something listens there.
pub(crate) fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}
