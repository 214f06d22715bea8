//! cgroup v2: where it is mounted, ids, members, killing.
//!
//! Owns the reading of `/proc/self/mountinfo` and the files of a cgroup folder. Knows nothing of what a
//! cgroup is made for.

use std::{
    cmp::Reverse,
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStringExt,
            fs::{DirBuilderExt, MetadataExt},
        },
    },
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, poll};

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Which folder of the file system is mounted there.
    pub root: PathBuf,
    /// e.g. `cgroup2`.
    pub kind: String,
}

/// Parses `/proc/PID/mountinfo` (proc(5)); lines that are not understood are left out.
#[must_use]
pub fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (fixed, kind) = line.split_once(" - ")?;
    let mut fields = fixed.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    Some(Mount { point: unescape(point), root: unescape(root), kind: kind.split(' ').next()?.to_owned() })
}

/// The kernel writes space, tab, newline and backslash of a path as `\ooo`.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut path = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                path.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                path.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(path).into()
}

/// All mounts of this process's mount namespace.
///
/// # Errors
/// `/proc` is not mounted.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside cgroup v1 (systemd's "hybrid"
/// layout).
///
/// # Errors
/// `NotFound` where it is not mounted, with what to do.
pub fn mount_point() -> io::Result<PathBuf> {
    choose(mounts()?).map(|mount| mount.point)
}

/// Several may be mounted in a container: its own cgroup, and the node's whole tree, which is to be taken. From
/// within a cgroup namespace of its own, what lies above shows as `/..` (cgroup_namespaces(7)).
fn choose(mounts: Vec<Mount>) -> io::Result<Mount> {
    let old = mounts.iter().any(|mount| mount.kind == "cgroup");
    let height = |mount: &Mount| {
        let above = mount.root.components().filter(|one| *one == Component::ParentDir).count();
        let below = mount.root.components().filter(|one| matches!(one, Component::Normal(_))).count();
        (Reverse(above), below)
    };
    // The first of those that are equal.
    let highest = mounts.into_iter().filter(|mount| mount.kind == "cgroup2").min_by_key(height);
    highest.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            if old {
                "only cgroup v1 is mounted, which cannot say whose a connection is: mount cgroup v2 beside it with \
                 `mount -t cgroup2 none /sys/fs/cgroup/unified` (container runtimes use it from the next container \
                 on), or boot with systemd.unified_cgroup_hierarchy=1"
            } else {
                "no cgroup v2 is mounted: mount it with `mount -t cgroup2 none /sys/fs/cgroup`, or boot with \
                 systemd.unified_cgroup_hierarchy=1"
            },
        )
    })
}

/// The folder of this process's cgroup v2 below [`mount_point`], also where `/proc` does not say it: within a cgroup
/// namespace of its own a process is always at `/`.
///
/// # Errors
/// The process has none there.
pub fn own() -> io::Result<PathBuf> {
    let mount = choose(mounts()?)?;
    let path = Path::new("/").join(own_path()?);
    if !mount.root.components().any(|one| one == Component::ParentDir) {
        // Of the file system, of which a part may be mounted.
        return match path.strip_prefix(&mount.root) {
            Ok(below) => Ok(mount.point.join(below)),
            Err(_outside) => Err(nowhere(&mount.point)),
        };
    }
    let own = std::process::id().to_string();
    let lives = |folder: &PathBuf| {
        let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        members.lines().any(|pid| pid == own)
    };
    Cgroup::at(&mount.point).folders()?.into_iter().find(lives).ok_or_else(|| nowhere(&mount.point))
}

fn nowhere(mount: &Path) -> io::Error {
    let problem =
        format!("this process is in no cgroup below {}: mount the node's whole tree", mount.display());
    io::Error::new(io::ErrorKind::NotFound, problem)
}

/// The cgroup v2 of this process as `/proc` says it; without a leading slash. See [`own`].
///
/// # Errors
/// The process has none.
pub fn own_path() -> io::Result<PathBuf> {
    path_of("self")
}

/// The cgroup v2 of a process, as [`own_path`].
///
/// # Errors
/// The process is gone, or has none.
pub fn path_of_process(pid: u32) -> io::Result<PathBuf> {
    path_of(&pid.to_string())
}

fn path_of(process: &str) -> io::Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    path.map(PathBuf::from).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("process {process} is in no cgroup v2"))
    })
}

/// The id that the kernel gives a cgroup: the inode number of its folder.
///
/// # Errors
/// The folder is gone.
pub fn id(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

/// A process found in a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id in our pid namespace; 0 for one of another.
    pub pid: u32,
    /// Its name, empty where it has gone meanwhile.
    pub comm: String,
}

/// A cgroup v2 folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// One that exists, or may have gone.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes a new one.
    ///
    /// # Errors
    /// It exists, or may not be made.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        DirBuilder::new().mode(0o755).create(&path)?;
        Ok(Self { path })
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// See [`id`].
    ///
    /// # Errors
    /// It is gone.
    pub fn id(&self) -> io::Result<u64> {
        id(&self.path)
    }

    /// Moves this process with all its threads into it.
    ///
    /// # Errors
    /// Not permitted, or it is gone.
    pub fn enter(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), "0")
    }

    /// `cgroup.procs`, open for a child that is to put itself there by writing `0`.
    ///
    /// # Errors
    /// Not permitted, or it is gone.
    pub fn door(&self) -> io::Result<OwnedFd> {
        Ok(File::options().write(true).open(self.path.join("cgroup.procs"))?.into())
    }

    /// Whether processes live in it or below; zombies don't count. `false` where it is gone.
    ///
    /// # Errors
    /// `cgroup.events` cannot be read.
    pub fn populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until nothing lives in it or below; says whether that was reached in time.
    ///
    /// # Errors
    /// `cgroup.events` cannot be read.
    pub fn wait_empty(&self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        let mut events = match File::open(self.path.join("cgroup.events")) {
            Ok(file) => file,
            Err(error) if gone(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        loop {
            // The kernel arms the notification when the file is read through this descriptor.
            let mut text = String::new();
            match events.read_to_string(&mut text) {
                Ok(_) if text.lines().any(|line| line == "populated 1") => {}
                Ok(_) => return Ok(true),
                Err(error) if gone(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // A limit per round, should a notification be lost.
            let round = left.min(Duration::from_millis(200)).try_into().ok();
            match poll(&mut [PollFd::new(&events.as_fd(), PollFlags::PRI)], round.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            match io::Seek::rewind(&mut events) {
                // Newer kernels say here already that it is gone.
                Err(error) if gone(&error) => return Ok(true),
                outcome => outcome?,
            }
        }
    }

    /// Kills everything in it and below by SIGKILL, also what forks meanwhile (Linux 5.14).
    ///
    /// # Errors
    /// The kernel has no `cgroup.kill`, or it is not permitted.
    pub fn kill(&self) -> io::Result<()> {
        match File::options().write(true).open(self.path.join("cgroup.kill")) {
            Ok(mut file) => match file.write_all(b"1") {
                Err(error) if !gone(&error) => Err(error),
                _ => Ok(()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.exists() => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "no cgroup.kill: Linux 5.14 is needed"))
            }
            Err(error) if gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel can kill it as a whole.
    #[must_use]
    pub fn can_kill(&self) -> bool {
        self.path.join("cgroup.kill").exists()
    }

    /// The processes in it and below, as far as they are still there.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn members(&self) -> io::Result<Vec<Member>> {
        let mut members = Vec::new();
        for folder in self.folders()? {
            let text = match fs::read_to_string(folder.join("cgroup.procs")) {
                Ok(text) => text,
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(error),
            };
            for pid in text.lines().filter_map(|line| line.parse().ok()) {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                members.push(Member { pid, comm: comm.trim_end_matches('\n').to_owned() });
            }
        }
        Ok(members)
    }

    /// Its folder and all below, parents first.
    ///
    /// # Errors
    /// A folder cannot be read; one that goes meanwhile is left out.
    pub fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = vec![self.path.clone()];
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            next += 1;
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(error),
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
        }
        Ok(folders)
    }

    /// Removes it and what is below. Nothing may live in it any more; one that is gone is no error.
    ///
    /// # Errors
    /// Something lives in it.
    pub fn remove(&self) -> io::Result<()> {
        for folder in self.folders()?.iter().rev() {
            remove_folder(folder)?;
        }
        Ok(())
    }
}

/// A folder stays busy for a moment after its last process went.
fn remove_folder(folder: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if gone(&error) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < 50 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
}

/// A removed cgroup answers ENOENT by its path and ENODEV through an open file.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_escapes_and_optional_fields() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                    41 31 0:38 /a\\040b /sys/fs/my\\134cg rw shared:7 master:1 - cgroup2 none rw\n\
                    broken line\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].kind, "tmpfs");
        assert_eq!(
            mounts[1],
            Mount { point: "/sys/fs/my\\cg".into(), root: "/a b".into(), kind: "cgroup2".into() }
        );
    }

    #[test]
    fn the_nodes_whole_tree_is_taken_where_a_container_sees_its_own_too() {
        let mount = |point: &str, root: &str, kind: &str| Mount {
            point: point.into(),
            root: root.into(),
            kind: kind.into(),
        };
        let chosen = |mounts: &[Mount]| choose(mounts.to_vec()).map(|mount| mount.point);
        for (mounts, expected) in [
            (vec![mount("/sys/fs/cgroup", "/", "cgroup2")], "/sys/fs/cgroup"),
            // Hybrid.
            (
                vec![
                    mount("/sys/fs/cgroup/cpu", "/", "cgroup"),
                    mount("/sys/fs/cgroup/unified", "/", "cgroup2"),
                ],
                "/sys/fs/cgroup/unified",
            ),
            // A container with the node's tree as a hostPath: in the node's cgroup namespace, and in its own.
            (
                vec![
                    mount("/sys/fs/cgroup", "/kubepods/pod1/c", "cgroup2"),
                    mount("/host/cgroup", "/", "cgroup2"),
                ],
                "/host/cgroup",
            ),
            (
                vec![mount("/sys/fs/cgroup", "/", "cgroup2"), mount("/host/cgroup", "/../../..", "cgroup2")],
                "/host/cgroup",
            ),
        ] {
            assert_eq!(chosen(&mounts).expect("chosen"), Path::new(expected));
        }
    }

    #[test]
    fn cgroup_v1_alone_is_refused_with_what_to_do() {
        let old = Mount { point: "/sys/fs/cgroup/cpu".into(), root: "/".into(), kind: "cgroup".into() };
        let said = choose(vec![old]).expect_err("refused").to_string();
        assert!(said.contains("only cgroup v1") && said.contains("/sys/fs/cgroup/unified"), "{said}");
        let said = choose(Vec::new()).expect_err("refused").to_string();
        assert!(said.contains("no cgroup v2 is mounted"), "{said}");
    }

    #[test]
    fn this_process_is_found_where_proc_says_it_is() {
        let own = own().expect("cgroup v2");
        let members = fs::read_to_string(own.join("cgroup.procs")).expect("readable");
        let pid = std::process::id().to_string();
        assert!(members.lines().any(|member| member == pid), "{}", own.display());
    }

    #[test]
    fn a_cgroup_that_is_gone_is_empty_and_already_removed() {
        let gone = Cgroup::at("/proc/self/no-such-folder");
        assert!(!gone.populated().expect("gone is no error"));
        assert!(gone.wait_empty(Duration::ZERO).expect("gone is no error"));
        assert_eq!(gone.members().expect("gone is no error"), []);
        gone.remove().expect("gone is no error");
        gone.kill().expect("gone is no error");
    }
}
