//! Users, capabilities, the bounding set, mount namespaces.
//!
//! What a process may do, and how a child is made to be able to do less. Which capabilities matter, and
//! for whom, is the caller's business.

use std::{
    ffi::{CStr, CString, OsString},
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, StatxAttributes, StatxFlags},
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
    thread::{self, CapabilitySet, CapabilitySets, UnshareFlags},
};

/// A Linux capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in capabilities(7)")]
pub enum Capability {
    Bpf,
    NetAdmin,
    SysAdmin,
    SysPtrace,
    Perfmon,
    SysModule,
    SysRawio,
    SysChroot,
    SetUid,
    SetGid,
    SetPcap,
    DacOverride,
    Kill,
}

impl Capability {
    const fn flag(self) -> CapabilitySet {
        match self {
            Self::Bpf => CapabilitySet::BPF,
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::SysAdmin => CapabilitySet::SYS_ADMIN,
            Self::SysPtrace => CapabilitySet::SYS_PTRACE,
            Self::Perfmon => CapabilitySet::PERFMON,
            Self::SysModule => CapabilitySet::SYS_MODULE,
            Self::SysRawio => CapabilitySet::SYS_RAWIO,
            Self::SysChroot => CapabilitySet::SYS_CHROOT,
            Self::SetUid => CapabilitySet::SETUID,
            Self::SetGid => CapabilitySet::SETGID,
            Self::SetPcap => CapabilitySet::SETPCAP,
            Self::DacOverride => CapabilitySet::DAC_OVERRIDE,
            Self::Kill => CapabilitySet::KILL,
        }
    }

    /// Its name as in capabilities(7).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::Perfmon => "CAP_PERFMON",
            Self::SysModule => "CAP_SYS_MODULE",
            Self::SysRawio => "CAP_SYS_RAWIO",
            Self::SysChroot => "CAP_SYS_CHROOT",
            Self::SetUid => "CAP_SETUID",
            Self::SetGid => "CAP_SETGID",
            Self::SetPcap => "CAP_SETPCAP",
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::Kill => "CAP_KILL",
        }
    }
}

/// Which of these the calling thread does not have effective.
///
/// # Errors
/// The kernel does not say.
pub fn missing(wanted: &[Capability]) -> io::Result<Vec<Capability>> {
    let effective = thread::capabilities(None)?.effective;
    Ok(wanted.iter().copied().filter(|capability| !effective.contains(capability.flag())).collect())
}

/// The calling process's effective user.
#[must_use]
pub fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The calling process's real user and group.
#[must_use]
pub fn real_ids() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}

/// A user of this machine with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one among them.
    pub groups: Vec<u32>,
    /// Login name; the number where the user has none.
    pub name: String,
    /// Home folder, where the user is known.
    pub home: Option<PathBuf>,
    /// Login shell, where the user is known.
    pub shell: Option<PathBuf>,
}

impl Person {
    /// Looks a user up (passwd and group databases, as initgroups(3)); one that they don't know has its
    /// number for a name and no supplementary groups. `gid` overrides the passwd entry's group.
    ///
    /// # Errors
    /// A database cannot be read.
    pub fn lookup(uid: u32, gid: Option<u32>) -> io::Result<Self> {
        let Some(entry) = passwd(uid)? else {
            let gid = gid.unwrap_or(uid);
            let groups = vec![gid];
            return Ok(Self { uid, gid, groups, name: uid.to_string(), home: None, shell: None });
        };
        let gid = gid.unwrap_or(entry.gid);
        Ok(Self {
            uid,
            gid,
            groups: group_list(&entry.name, gid)?,
            name: entry.name.to_string_lossy().into_owned(),
            home: Some(entry.home),
            shell: Some(entry.shell),
        })
    }

    /// The calling process's user as it is, with the groups that it has.
    ///
    /// # Errors
    /// A database cannot be read.
    pub fn current() -> io::Result<Self> {
        let (uid, gid) = real_ids();
        let groups = rustix::process::getgroups()?.into_iter().map(|group| group.as_raw()).collect();
        Ok(Self { groups, ..Self::lookup(uid, Some(gid))? })
    }
}

struct Passwd {
    name: CString,
    gid: u32,
    home: PathBuf,
    shell: PathBuf,
}

/// Largest buffer tried for a passwd entry, bytes.
const PASSWD_LIMIT: usize = 1024 * 1024;

fn passwd(uid: u32) -> io::Result<Option<Passwd>> {
    let mut size = 4096;
    loop {
        let mut buffer = vec![0u8; size];
        let mut found = std::ptr::null_mut();
        let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
        // SAFETY: `entry`, `buffer` (with its true length) and `found` are valid for writes during the
        // call, and no pointer is kept by libc afterwards.
        let code = unsafe {
            libc::getpwuid_r(uid, entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), size, &raw mut found)
        };
        match code {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: on success with a non-null `found`, libc has filled `entry`, whose strings are
                // NUL-terminated and lie in `buffer`, which outlives their use here.
                let entry = unsafe { entry.assume_init() };
                // SAFETY: as above.
                let [name, home, shell] = unsafe {
                    [entry.pw_name, entry.pw_dir, entry.pw_shell].map(|text| CStr::from_ptr(text).to_owned())
                };
                let path = |text: CString| PathBuf::from(OsString::from_vec(text.into_bytes()));
                let gid = entry.pw_gid;
                return Ok(Some(Passwd { name, gid, home: path(home), shell: path(shell) }));
            }
            libc::ERANGE if size < PASSWD_LIMIT => size *= 2,
            libc::EINTR => {}
            // What getpwuid_r(3) lists for "not found" beside 0.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// NGROUPS_MAX of Linux.
const GROUPS_LIMIT: libc::c_int = 65536;

fn group_list(name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
    let mut capacity: libc::c_int = 64;
    loop {
        let mut groups: Vec<libc::gid_t> = vec![0; usize::try_from(capacity).unwrap_or(0)];
        let mut count = capacity;
        // SAFETY: `groups` has room for `count` ids, `name` is NUL-terminated, and `count` is valid for
        // writes.
        let code = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if code >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(groups);
        }
        if capacity >= GROUPS_LIMIT {
            return Err(io::Error::other("more groups than Linux allows"));
        }
        capacity = count.max(capacity.saturating_mul(2)).min(GROUPS_LIMIT);
    }
}

/// Takes these capabilities from the calling thread for good: out of the bounding, ambient, inheritable,
/// permitted and effective sets, so that no later exec gives them back. Allocates nothing.
///
/// # Errors
/// CAP_SETPCAP is missing.
pub fn give_up(capabilities: &[Capability]) -> io::Result<()> {
    thread::clear_ambient_capability_set()?;
    for capability in capabilities {
        thread::remove_capability_from_bounding_set(capability.flag())?;
    }
    let mut sets = thread::capabilities(None)?;
    for capability in capabilities {
        sets.effective.remove(capability.flag());
        sets.permitted.remove(capability.flag());
    }
    let CapabilitySets { effective, permitted, .. } = sets;
    thread::set_capabilities(
        None,
        CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() },
    )?;
    Ok(())
}

/// Makes the calling thread this user, with real, effective and saved ids. Allocates nothing.
///
/// # Errors
/// CAP_SETUID or CAP_SETGID is missing.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[rustix::process::Gid]) -> io::Result<()> {
    let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
    thread::set_thread_groups(groups)?;
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;

/// Gives the calling thread a mount namespace of its own in which these mount points are read-only, and what is mounted
/// at `without` is not there. Nothing that it mounts later is seen outside; where its root is no mount point, below
/// these points. Allocates nothing for paths below 256 bytes.
///
/// # Errors
/// CAP_SYS_ADMIN is missing, or the kernel is older than 5.12.
pub(crate) fn own_mounts(points: &[CString], without: Option<&CStr>) -> io::Result<()> {
    // SAFETY: only the mount namespace is unshared; no descriptor table is.
    unsafe { thread::unshare_unsafe(UnshareFlags::NEWNS)? };
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    let all = match mount_change(c"/", private) {
        // In a chroot, from which the mount that holds it cannot be named.
        Err(rustix::io::Errno::INVAL) => false,
        outcome => outcome.map(|()| true)?,
    };
    for point in points {
        if !all {
            mount_change(point.as_c_str(), private)?;
        }
        let attributes =
            MountAttributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
        // SAFETY: `point` is NUL-terminated, `attributes` is a struct mount_attr of the given size; both
        // are only read.
        let code = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                point.as_ptr(),
                0,
                &raw const attributes,
                size_of::<MountAttributes>(),
            )
        };
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    if let Some(place) = without {
        unmount(place, UnmountFlags::DETACH)?;
    }
    Ok(())
}

/// Whether the calling process lives in a chroot that is no mount point: a folder of a larger tree, of which it sees
/// neither the rest nor what is mounted there.
///
/// # Errors
/// The kernel does not say.
pub fn in_plain_chroot() -> io::Result<bool> {
    let root = rustix::fs::statx(rustix::fs::CWD, c"/", AtFlags::empty(), StatxFlags::TYPE)?;
    // Older kernels (before 5.8) don't say; what steers needs a younger one.
    let said = root.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    Ok(said && !root.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether a path is a folder that belongs to the calling process's user and that nobody else can write.
///
/// # Errors
/// It cannot be looked at.
pub fn is_private_folder(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path)?;
    Ok(metadata.is_dir() && metadata.uid() == effective_user() && metadata.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_machine_is_a_mount_point() {
        assert!(!in_plain_chroot().expect("statx"));
    }

    #[test]
    fn root_is_known_by_name_and_home() {
        let root = Person::lookup(0, None).expect("lookup");
        assert_eq!((root.uid, root.gid, root.name.as_str()), (0, 0, "root"));
        assert!(root.groups.contains(&0));
        assert!(root.home.is_some());
    }

    #[test]
    fn an_unknown_user_has_its_number_for_a_name_and_its_primary_group_only() {
        let nobody = Person::lookup(3_999_999_999, Some(7)).expect("lookup");
        assert_eq!((nobody.name.as_str(), nobody.gid, nobody.groups.as_slice()), ("3999999999", 7, &[7][..]));
        assert_eq!(nobody.home, None);
    }

    #[test]
    fn the_supplementary_groups_hold_the_given_primary_one() {
        let person = Person::lookup(0, Some(12)).expect("lookup");
        assert_eq!(person.gid, 12);
        assert!(person.groups.contains(&12));
    }
}
