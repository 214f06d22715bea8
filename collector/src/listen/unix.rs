//! The Unix socket: who may connect is decided before a byte is read.
//!
//! The file's mode keeps other users out; the peer's credentials, which the kernel keeps, say it once more;
//! and processes of refused cgroups stay out whoever they are.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    net::{UnixStream, unix::UCred},
    sync::{Semaphore, mpsc},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};

use super::{Bound, counted::Counted};
use crate::descriptors::Failing;

/// Makes the socket, mode 0600. One that a dead process left behind is taken away; a live one is not.
pub(super) fn bind(path: &Path) -> io::Result<Bound> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
            Err(_dead) => fs::remove_file(path)?,
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let bound = Bound::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(bound)
}

/// Takes the socket's file away at the end.
pub(super) fn remove(path: &Path) {
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), error = %e, "socket not removed");
    }
}

/// Connections of those who may.
pub(super) fn accept(
    bound: Bound,
    refused: Vec<PathBuf>,
    places: Arc<Semaphore>,
) -> impl Stream<Item = io::Result<Counted<UnixStream>>> {
    let refused: Vec<PathBuf> = refused.iter().map(|r| within_hierarchy(r)).collect();
    let (sender, receiver) = mpsc::channel(16);
    let mut failing = Failing::default();
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                () = sender.closed() => return,
                accepted = bound.accept() => match accepted {
                    Ok((stream, _)) => {
                        failing.succeeded();
                        stream
                    }
                    Err(e) => {
                        failing.failed(&e).await;
                        continue;
                    }
                },
            };
            match stream.peer_cred().map_err(|e| e.to_string()).and_then(|peer| may_enter(&peer, &refused)) {
                Ok(()) => {
                    if let Some(counted) = Counted::new(stream, &places)
                        && sender.send(Ok(counted)).await.is_err()
                    {
                        return;
                    }
                }
                Err(reason) => tracing::warn!(reason, "connection refused"),
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// Root and our own user may, unless their process is in a refused cgroup or cannot be placed.
fn may_enter(peer: &UCred, refused: &[PathBuf]) -> Result<(), String> {
    let own = fs::metadata("/proc/self").map(|m| m.uid()).map_err(|e| format!("own user unknown: {e}"))?;
    if peer.uid() != 0 && peer.uid() != own {
        return Err(format!("user {} is neither root nor the collector's", peer.uid()));
    }
    if refused.is_empty() {
        return Ok(());
    }
    // A process that has ended, or that is in a pid namespace beside ours, cannot be placed.
    let pid = peer.pid().filter(|p| *p > 0).ok_or("the peer's process is not visible here")?;
    let file = format!("/proc/{pid}/cgroup");
    let cgroups = fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
    match refused.iter().find(|r| is_in(&cgroups, r)) {
        Some(cgroup) => Err(format!("process {pid} is in the refused cgroup {}", cgroup.display())),
        None => Ok(()),
    }
}

/// Whether `/proc/PID/cgroup` names the cgroup or one below it, in the unified hierarchy.
fn is_in(proc_cgroup: &str, refused: &Path) -> bool {
    let own = proc_cgroup.lines().find_map(|l| l.strip_prefix("0::"));
    own.is_some_and(|own| Path::new(own.trim_end_matches(" (deleted)")).starts_with(refused))
}

/// A refused cgroup as `/proc/PID/cgroup` names it, whether it was given so or as a folder where the unified
/// hierarchy is mounted.
fn within_hierarchy(refused: &Path) -> PathBuf {
    let mounts = match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mountinfo) => unified_mounts(&mountinfo),
        Err(e) => {
            tracing::warn!(error = %e, "mounts unknown: refused cgroups are taken as paths in the hierarchy");
            Vec::new()
        }
    };
    let within = strip_mount(refused, &mounts);
    let known = |mount: &PathBuf| mount.join(within.strip_prefix("/").unwrap_or(&within)).is_dir();
    if !mounts.iter().any(known) {
        tracing::warn!(cgroup = %refused.display(), "refused cgroup does not exist (yet)");
    }
    within
}

/// Where the unified hierarchy is mounted.
fn unified_mounts(mountinfo: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let is_unified = after.split(' ').next() == Some("cgroup2");
        is_unified.then(|| before.split(' ').nth(4).map(PathBuf::from)).flatten()
    };
    mountinfo.lines().filter_map(mount).collect()
}

fn strip_mount(refused: &Path, mounts: &[PathBuf]) -> PathBuf {
    let inside =
        mounts.iter().filter_map(|m| refused.strip_prefix(m).ok()).min_by_key(|p| p.as_os_str().len());
    let inside = inside.unwrap_or(refused);
    Path::new("/").join(inside.strip_prefix("/").unwrap_or(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_cgroup_covers_what_is_below_it_and_nothing_beside_it() {
        for (proc_cgroup, refused, inside) in [
            ("0::/verbatim/run-1\n", "/verbatim/run-1", true),
            ("0::/verbatim/run-1/deeper\n", "/verbatim/run-1", true),
            ("0::/verbatim/run-1 (deleted)\n", "/verbatim/run-1", true),
            ("0::/verbatim/run-10\n", "/verbatim/run-1", false),
            ("12:cpu:/verbatim/run-1\n0::/user.slice\n", "/verbatim/run-1", false),
        ] {
            assert_eq!(is_in(proc_cgroup, Path::new(refused)), inside, "{proc_cgroup} {refused}");
        }
    }

    #[test]
    fn refused_cgroup_may_be_given_as_a_folder_wherever_the_hierarchy_is_mounted() {
        let hybrid = "30 24 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      32 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw\n";
        let mounts = unified_mounts(hybrid);
        assert_eq!(mounts, [PathBuf::from("/sys/fs/cgroup/unified")]);
        for given in ["/sys/fs/cgroup/unified/verbatim/run-1", "/verbatim/run-1", "verbatim/run-1"] {
            assert_eq!(strip_mount(Path::new(given), &mounts), Path::new("/verbatim/run-1"), "{given}");
        }
    }
}
