//! What a scenario leaves behind when nobody tidies up, and how each of it is undone.
//!
//! Used by destructors and by the reaper alike, so that both do the same. Every step is idempotent and
//! goes on after a failure; what could not be undone is returned.

use std::{fs, io, path::Path, thread, time::Duration};

use crate::shell;

/// One thing to undo. As a line for the reaper: kind, a blank, the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A network namespace by name, with its folder below /etc/netns.
    Namespace(String),
    /// A cgroup directory: its processes are killed, it and everything below it removed.
    Cgroup(String),
    /// A folder with everything in it.
    Folder(String),
    /// A mounted file system, perhaps one that stands still.
    Mount(String),
    /// What an agent has pinned in a directory of a BPF file system.
    Pins(String),
    /// A folder that something was mounted on; it goes if nothing is in it.
    MountPoint(String),
}

impl Leftover {
    /// As a line without its end.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Namespace(name) => format!("namespace {name}"),
            Self::Cgroup(path) => format!("cgroup {path}"),
            Self::Folder(path) => format!("folder {path}"),
            Self::Mount(path) => format!("mount {path}"),
            Self::Pins(path) => format!("pins {path}"),
            Self::MountPoint(path) => format!("mount-point {path}"),
        }
    }

    /// From a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (kind, value) = line.split_once(' ')?;
        match kind {
            "namespace" => Some(Self::Namespace(value.to_owned())),
            "cgroup" => Some(Self::Cgroup(value.to_owned())),
            "folder" => Some(Self::Folder(value.to_owned())),
            "mount" => Some(Self::Mount(value.to_owned())),
            "pins" => Some(Self::Pins(value.to_owned())),
            "mount-point" => Some(Self::MountPoint(value.to_owned())),
            _ => None,
        }
    }

    /// Ends its processes, where it has any and the kernel can do that at once.
    pub fn stop(&self) {
        if let Self::Cgroup(path) = self {
            // In a hierarchy of version 1 there is no such file, and what is gone needs none.
            drop(
                fs::OpenOptions::new()
                    .write(true)
                    .open(Path::new(path).join("cgroup.kill"))
                    .map(|mut kill| drop(io::Write::write_all(&mut kill, b"1"))),
            );
        }
    }

    /// Undoes it. What is not there any more is fine.
    pub fn undo(&self) -> io::Result<()> {
        match self {
            Self::Namespace(name) => remove_namespace(name),
            Self::Cgroup(path) => remove_cgroup(Path::new(path)),
            Self::Folder(path) => ignore_missing(fs::remove_dir_all(path)),
            Self::Mount(path) => unmount(path),
            Self::MountPoint(path) => remove_empty(path),
            Self::Pins(path) => verbatim_steer::unpin(Path::new(path)).map(drop).map_err(io::Error::other),
        }
    }

    /// Whether it is still there.
    #[must_use]
    pub fn exists(&self) -> bool {
        match self {
            Self::Namespace(name) => Path::new("/run/netns").join(name).exists(),
            Self::Cgroup(path) | Self::Folder(path) | Self::Pins(path) | Self::MountPoint(path) => {
                Path::new(path).exists()
            }
            Self::Mount(path) => is_mounted(path),
        }
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove_empty(path: &str) -> io::Result<()> {
    match fs::remove_dir(path) {
        // Somebody else's by now.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => ignore_missing(other),
    }
}

fn is_mounted(path: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

/// Whoever has files open there keeps them until they are closed.
fn unmount(path: &str) -> io::Result<()> {
    while is_mounted(path) {
        // Mostly it does not stand still, and that is said to be an error.
        drop(shell::run("fsfreeze", &["--unfreeze", path]));
        shell::run("umount", &["--lazy", path]).map_err(io::Error::other)?;
    }
    Ok(())
}

fn remove_namespace(name: &str) -> io::Result<()> {
    ignore_missing(fs::remove_dir_all(Path::new("/etc/netns").join(name)))?;
    // Only when no other namespace has files there.
    let _shared = fs::remove_dir("/etc/netns");
    if Path::new("/run/netns").join(name).exists() {
        shell::run("ip", &["netns", "del", name]).map_err(io::Error::other)?;
    }
    Ok(())
}

fn remove_cgroup(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    // A hierarchy of version 1 has no such file; what ran there has been ended as a process.
    let kill = path.join("cgroup.kill");
    if kill.exists() {
        ignore_missing(fs::write(kill, "1"))?;
    }
    let mut last = Ok(());
    // Killed processes leave their cgroup as they are reaped; 10 s is far beyond what that takes.
    for _ in 0..1000 {
        last = remove_tree(path);
        if last.is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    last
}

/// cgroupfs has files that cannot be unlinked: only its directories are removed, the deepest first.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    ignore_missing(fs::remove_dir(path))
}

#[cfg(test)]
mod tests {
    use super::Leftover;

    #[test]
    fn a_leftover_survives_its_line() {
        for leftover in [
            Leftover::Namespace("a-b".into()),
            Leftover::Cgroup("/sys/x y".into()),
            Leftover::Folder("/tmp/z".into()),
            Leftover::Mount("/tmp/z/disk".into()),
            Leftover::Pins("/sys/fs/bpf/z".into()),
            Leftover::MountPoint("/var/lib/z".into()),
        ] {
            assert_eq!(Leftover::parse(&leftover.line()), Some(leftover));
        }
        assert_eq!(Leftover::parse("nothing known"), None);
    }

    #[test]
    fn undoing_what_is_not_there_is_fine() {
        Leftover::Cgroup("/nonexistent/cgroup".into()).undo().unwrap();
        Leftover::Folder("/nonexistent/folder".into()).undo().unwrap();
        Leftover::Mount("/nonexistent/disk".into()).undo().unwrap();
    }
}
