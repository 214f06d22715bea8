//! A mount namespace of the process's own, and folders that are held there whatever becomes of their names.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, open},
    mount::{
        MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount,
        open_tree, unmount,
    },
    process::{chroot, fchdir},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

/// Gives the process a mount namespace of its own: what it mounts is seen nowhere else, what others mount and
/// unmount is seen here as before (`MS_SLAVE`, mount_namespaces(7)). To be called before the first thread is
/// started: a namespace is a thread's.
///
/// # Errors
/// There are threads already, or CAP_SYS_ADMIN is missing; in a chroot that is no mount point, CAP_SYS_CHROOT.
pub fn separate() -> io::Result<()> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a mount namespace of our own: threads were started already"));
    }
    // SAFETY: only the mount namespace is unshared; no descriptor table is.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    match mount_change(c"/", slave) {
        Err(rustix::io::Errno::INVAL) => {}
        outcome => return Ok(outcome?),
    }
    // In a chroot that is no mount point, the mount that holds it is named from the namespace's own root, where
    // entering a namespace (setns(2)) leads.
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (root, here) = (open(c"/", folder, Mode::empty())?, open(c".", folder, Mode::empty())?);
    let namespace = open(c"/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let outcome = mount_change(c"/", slave);
    fchdir(&root)?;
    chroot(c".")?;
    fchdir(&here)?;
    Ok(outcome?)
}

/// Opens a folder, by a path whose last part is no symbolic link, only to say which one it is.
///
/// # Errors
/// There is none, or it is something else.
pub fn folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

/// Has `place`, an empty folder, lead to this folder and to what is mounted below it, until [`unbind`].
///
/// # Errors
/// CAP_SYS_ADMIN is missing, or the folder was opened in another mount namespace.
pub fn bind(folder: impl AsFd, place: &Path) -> io::Result<()> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(folder, c"", clone | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE)?;
    Ok(move_mount(tree, c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Ends what [`bind`] has begun, also where something below it is still open.
///
/// # Errors
/// Nothing is mounted there, or CAP_SYS_ADMIN is missing.
pub fn unbind(place: &Path) -> io::Result<()> {
    Ok(unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}
