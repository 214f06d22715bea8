//! Processes: pidfds, their death, their start time; confined and detached children.
//!
//! Whatever runs between fork and exec allocates nothing and takes no lock: the parent has threads.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Child, Command},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    pipe::{PipeFlags, pipe_with},
    process::{Gid, Pid, PidfdFlags, Resource, Signal, WaitOptions},
};

use crate::{
    privilege::{Capability, Person, become_user, give_up, own_mounts},
    signal,
};

/// A process that cannot be mistaken for another, even after its death. Becomes readable when it ends.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// # Errors
    /// It does not exist (any more).
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Self(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Of the calling process.
    ///
    /// # Errors
    /// The kernel is older than 5.3.
    pub fn own() -> io::Result<Self> {
        Self::open(std::process::id())
    }

    /// Another handle of the same process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// # Errors
    /// It has ended, or it is not permitted.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(rustix::process::pidfd_send_signal(&self.0, signal)?)
    }

    /// Waits for its end; says whether that came in time (`None`: for ever). Does not reap it.
    ///
    /// # Errors
    /// poll(2) fails.
    pub fn wait_dead(&self, limit: Option<Duration>) -> io::Result<bool> {
        wait_readable(self.0.as_fd(), limit)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until a descriptor can be read or has been hung up; `None` waits for ever.
///
/// # Errors
/// poll(2) fails.
pub fn wait_readable(fd: BorrowedFd<'_>, limit: Option<Duration>) -> io::Result<bool> {
    let end = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| left.try_into().ok());
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits, for ever, until one of two descriptors can be read; the first is looked at first.
///
/// # Errors
/// poll(2) fails.
pub fn wait_either(first: BorrowedFd<'_>, second: BorrowedFd<'_>) -> io::Result<Either> {
    let mut fds = [first, second].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    loop {
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => return Ok(Either::First),
            Ok(_) => return Ok(Either::Second),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// See [`wait_either`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the arguments, in their order")]
pub enum Either {
    First,
    Second,
}

/// When a process started, in clock ticks since boot (proc_pid_stat(5), field 22).
///
/// # Errors
/// It does not exist (any more).
pub fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything, spaces and parentheses too.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().nth(19).and_then(|field| field.parse().ok());
    ticks.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time"))
    })
}

/// Name of this machine, as uname(2) says.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What a child is taken, between fork and exec, in this order: it moves into a cgroup, gets a mount
/// namespace with some mounts read-only and one taken away, loses capabilities for good, becomes a user.
#[derive(Debug)]
pub struct Confinement {
    /// `cgroup.procs` of its cgroup, open for writing.
    pub door: OwnedFd,
    /// Mount points that become read-only for it.
    pub read_only: Vec<CString>,
    /// A mount point whose mount it does not have.
    pub without: Option<CString>,
    /// See [`give_up`].
    pub give_up: Vec<Capability>,
    /// Whose rights it gets.
    pub person: Person,
}

/// Which step of a confined start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The child could not be made.
    Fork,
    /// Entering its cgroup.
    Cgroup,
    /// Its mount namespace.
    Mounts,
    /// Giving up capabilities.
    Capabilities,
    /// Becoming the user.
    User,
    /// The program could not be executed: not found, or not executable.
    Exec,
}

impl Step {
    const IN_CHILD: [Self; 4] = [Self::Cgroup, Self::Mounts, Self::Capabilities, Self::User];
}

/// Starts a confined child. It stays in the caller's session and process group, with no signal blocked.
///
/// # Errors
/// With the step that failed; nothing is left running then.
pub fn spawn_confined(command: &mut Command, confinement: Confinement) -> Result<Child, (Step, io::Error)> {
    use std::os::unix::process::CommandExt;
    // exec's failure comes to us as an errno; which step failed comes by this pipe.
    let (steps, report) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| (Step::Fork, error.into()))?;
    let Confinement { door, read_only, without, give_up: lost, person } = confinement;
    let groups: Vec<Gid> = person.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let confine = move || {
        let run = |step: Step| match step {
            Step::Cgroup => Ok(rustix::io::write(&door, b"0").map(drop)?),
            Step::Mounts => own_mounts(&read_only, without.as_deref()),
            Step::Capabilities => give_up(&lost),
            _ => become_user(person.uid, person.gid, &groups),
        };
        signal::unblock_all()?;
        for (number, step) in (0u8..).zip(Step::IN_CHILD) {
            if let Err(error) = run(step) {
                // Nobody to tell when this fails too: the parent then takes it for exec's failure.
                rustix::io::write(&report, &[number]).ok();
                return Err(error);
            }
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls on values that were made before the fork; it neither
    // allocates nor takes a lock.
    unsafe { command.pre_exec(confine) };
    command.spawn().map_err(|error| {
        let mut number = [u8::MAX];
        // The closure, and with it our writing end, lives in `command`: don't wait for an end of file.
        let told = wait_readable(steps.as_fd(), Some(Duration::ZERO)).unwrap_or(false);
        if told {
            rustix::io::read(&steps, &mut number).ok();
        }
        let step = Step::IN_CHILD.get(usize::from(number[0])).copied().unwrap_or(Step::Exec);
        (step, error)
    })
}

/// Has a child started by `command` run in a session of its own, get SIGTERM when the calling thread
/// ends, and inherit no descriptor but its standard ones and `keep`.
pub fn detach(command: &mut Command, keep: Option<BorrowedFd<'_>>) {
    in_session(command, keep, Signal::TERM);
}

/// The same for a child that must not outlive the calling thread for a moment: it is killed with it.
pub fn tie(command: &mut Command) {
    in_session(command, None, Signal::KILL);
}

/// Has the calling process killed when the thread that started it ends: said again after an exec, for one
/// that brings capabilities forgets it.
///
/// # Errors
/// The parent is not this one any more.
pub fn die_with(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let found = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    if found == parent { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
}

/// Lets this process and its children open as many descriptors as it may allow itself; says how many.
///
/// # Errors
/// The system call's.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(Resource::Nofile, limit)?;
    Ok(limit.current.unwrap_or(u64::MAX))
}

fn in_session(command: &mut Command, keep: Option<BorrowedFd<'_>>, death: Signal) {
    use std::os::unix::process::CommandExt;
    let keep = keep.map(|fd| fd.as_raw_fd());
    let parent = rustix::process::getpid();
    let prepare = move || {
        signal::unblock_all()?;
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(death))?;
        if rustix::process::getppid() != Some(parent) {
            // The parent died before the death signal was set.
            return Err(rustix::io::Errno::SRCH.into());
        }
        // SAFETY: close_range(2) with CLOEXEC closes nothing before exec, so that std's own pipe works.
        let code = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
        if let Some(fd) = keep {
            // SAFETY: F_SETFD on a number; if it is no descriptor, the call fails.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls on copied numbers; it neither allocates nor locks.
    unsafe { command.pre_exec(prepare) };
}

/// A child made by [`fork`].
#[derive(Debug)]
pub struct Forked(Pid);

impl Forked {
    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// It was reaped before.
    pub fn wait(self) -> io::Result<()> {
        loop {
            match rustix::process::waitpid(Some(self.0), WaitOptions::empty()) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Makes a copy of this process that runs `body` in a session of its own and ends with its result.
/// To be called before the first thread is started.
///
/// # Errors
/// There are threads already, or no process can be made.
pub fn fork(body: impl FnOnce() -> u8) -> io::Result<Forked> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("fork: threads were started already"));
    }
    // SAFETY: there is one thread (checked above), so no lock can be held by another in the copy.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        rustix::process::setsid().ok();
        let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
        // SAFETY: ends the copy at once; the original's exit handlers are not to run twice.
        unsafe { libc::_exit(i32::from(code)) };
    }
    Pid::from_raw(pid).map(Forked).ok_or_else(io::Error::last_os_error)
}

/// Ends this process's standard input and output: they become `/dev/null`.
///
/// # Errors
/// `/dev/null` cannot be opened.
pub fn close_standard_streams() -> io::Result<()> {
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: replaces a descriptor that std treats as always open, by one that is open.
        if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Columns of the terminal behind a descriptor; `None` where it is none.
#[must_use]
pub fn terminal_columns(fd: BorrowedFd<'_>) -> Option<u16> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a struct winsize, which `size` is.
    let code = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (code == 0 && size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::SIGKILL;

    #[test]
    fn a_process_start_time_is_read_past_its_name() {
        let own = start_ticks(std::process::id()).expect("own stat");
        assert!(own > 0);
        assert!(start_ticks(u32::MAX).is_err());
    }

    #[test]
    fn a_pidfd_tells_of_death_and_survives_it() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let pidfd = PidFd::open(child.id()).expect("pidfd");
        assert!(!pidfd.wait_dead(Some(Duration::ZERO)).expect("poll"));
        pidfd.signal(SIGKILL).expect("signal");
        assert!(pidfd.wait_dead(Some(Duration::from_secs(10))).expect("poll"));
        child.wait().expect("reap");
        assert!(pidfd.signal(SIGKILL).is_err());
    }

    #[test]
    fn a_tied_child_is_killed_with_the_thread_that_started_it() {
        let child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            tie(command.arg("60"));
            command.spawn().expect("sleep")
        });
        let mut child = child.join().expect("thread");
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().expect("reap").signal(), Some(SIGKILL));
    }

    #[test]
    fn the_limit_of_descriptors_is_raised_to_what_is_allowed() {
        let limit = raise_descriptor_limit().expect("setrlimit");
        assert_eq!(rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), limit);
    }

    #[test]
    fn a_detached_child_leads_its_own_session_and_inherits_only_what_is_kept() {
        let (leaking, _other) = pipe_with(PipeFlags::empty()).expect("pipe");
        let (reading, writing) = pipe_with(PipeFlags::empty()).expect("pipe");
        let script = format!("ls -l /proc/self/fd; ps -o sid=,pid= -p $$ >&{}", writing.as_raw_fd());
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        detach(&mut command, Some(writing.as_fd()));
        let output = command.output().expect("sh");
        let listed = String::from_utf8(output.stdout).expect("text");
        let inode = |fd: &OwnedFd| format!("pipe:[{}]", rustix::fs::fstat(fd).expect("fstat").st_ino);
        assert!(listed.contains(&inode(&writing)), "{listed}");
        assert!(!listed.contains(&inode(&leaking)), "{listed}");
        let mut session = [0; 32];
        let length = rustix::io::read(&reading, &mut session).expect("read");
        let session = String::from_utf8_lossy(&session[..length]).into_owned();
        // The session's leader is the child itself; the test's own may lie outside of this pid namespace.
        let [sid, pid] = session.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{session:?}") };
        assert_eq!(sid, pid);
    }
}
