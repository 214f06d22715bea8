//! What is attached to a cgroup's hooks: links made, looked at, ended; programs listed.

use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
};

use super::{bpf, bpf_mut, number};

// Commands and numbers of `include/uapi/linux/bpf.h`.
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_LINK_TYPE_CGROUP: u32 = 3;

/// Programs of one answer at first; the kernel says when they are more.
const EXPECTED: usize = 64;

/// A hook of a cgroup, by the kernel's number of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hook(pub(super) u32);

impl Hook {
    /// Packets that leave.
    pub const EGRESS: Self = Self(1);
    /// Sockets as they are made.
    pub const SOCK_CREATE: Self = Self(2);
    /// What happens to TCP sockets.
    pub const SOCK_OPS: Self = Self(3);
    /// bind(), IPv4.
    pub const BIND4: Self = Self(8);
    /// bind(), IPv6.
    pub const BIND6: Self = Self(9);
    /// connect(), IPv4.
    pub const CONNECT4: Self = Self(10);
    /// connect(), IPv6.
    pub const CONNECT6: Self = Self(11);
    /// sendmsg() without connect(), UDP over IPv4.
    pub const SENDMSG4: Self = Self(14);
    /// sendmsg() without connect(), UDP over IPv6.
    pub const SENDMSG6: Self = Self(15);
    /// getpeername(), IPv4.
    pub const GETPEERNAME4: Self = Self(29);
    /// getpeername(), IPv6.
    pub const GETPEERNAME6: Self = Self(30);
    /// getsockname(), IPv4.
    pub const GETSOCKNAME4: Self = Self(31);
    /// getsockname(), IPv6.
    pub const GETSOCKNAME6: Self = Self(32);
}

/// Arguments of `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Arguments of `BPF_PROG_ATTACH`.
#[repr(C)]
struct ProgramAttach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Arguments of `BPF_PROG_QUERY`, as far as they are used; the kernel writes `attach_flags` and `count`.
#[repr(C)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    program_attach_flags: u64,
}

/// Arguments of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// The kernel's `bpf_link_info` of a cgroup's link.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    cgroup: u64,
    attach_type: u32,
    rest: u32,
}

/// Arguments of the commands that walk ids: the id, and the next one as the kernel answers.
#[repr(C)]
struct Ids {
    id: u32,
    next: u32,
    flags: u32,
}

/// A link of a cgroup's hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its id.
    pub id: u32,
    /// Id of the program behind it.
    pub program: u32,
    /// Id of the cgroup; 0 once it is detached.
    pub cgroup: u64,
    /// Which hook.
    pub hook: Hook,
}

/// What is attached to one hook of one cgroup, those of its ancestors left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHook {
    /// Ids of the programs.
    pub programs: Vec<u32>,
    /// Whether others may be added.
    pub shared: bool,
}

/// Attaches a program to a cgroup's hook beside others, until the link is closed (from Linux 5.7).
///
/// # Errors
/// The system call's; `EPERM` also where what is attached there is not shared.
pub fn link_create(program: impl AsFd, cgroup: impl AsFd, hook: Hook) -> io::Result<OwnedFd> {
    let arguments =
        LinkCreate { program: number(&program), target: number(&cgroup), attach_type: hook.0, flags: 0 };
    // SAFETY: the arguments are this command's; they hold no pointers.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &arguments)? };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes a link's program off its hook by force, whoever holds the link (from Linux 5.9).
///
/// # Errors
/// The system call's.
pub fn link_detach(link: impl AsFd) -> io::Result<()> {
    let arguments = number(&link);
    // SAFETY: the arguments are this command's: the link's descriptor.
    unsafe { bpf(BPF_LINK_DETACH, &arguments) }.map(drop)
}

/// Attaches a program to a cgroup's hook without a link and without sharing it: nobody else can be added there
/// or below. It stays until the cgroup goes.
///
/// # Errors
/// The system call's; `EPERM` also where something else is attached.
pub fn program_attach_alone(program: impl AsFd, cgroup: impl AsFd, hook: Hook) -> io::Result<()> {
    let arguments =
        ProgramAttach { target: number(&cgroup), program: number(&program), attach_type: hook.0, flags: 0 };
    // SAFETY: the arguments are this command's; they hold no pointers.
    unsafe { bpf(BPF_PROG_ATTACH, &arguments) }.map(drop)
}

/// Takes off a hook what [`program_attach_alone`] put there.
///
/// # Errors
/// The system call's; `ENOENT` where nothing is attached.
pub fn program_detach_alone(cgroup: impl AsFd, hook: Hook) -> io::Result<()> {
    let arguments = ProgramAttach { target: number(&cgroup), program: 0, attach_type: hook.0, flags: 0 };
    // SAFETY: the arguments are this command's; they hold no pointers.
    unsafe { bpf(BPF_PROG_DETACH, &arguments) }.map(drop)
}

/// Ids of the programs that run for a cgroup's hook, its ancestors' among them, in their order.
///
/// # Errors
/// The system call's.
pub fn effective(cgroup: impl AsFd, hook: Hook) -> io::Result<Vec<u32>> {
    query(&cgroup, hook, BPF_F_QUERY_EFFECTIVE).map(|(programs, _)| programs)
}

/// What is attached to a cgroup's hook itself.
///
/// # Errors
/// The system call's.
pub fn on_hook(cgroup: impl AsFd, hook: Hook) -> io::Result<OnHook> {
    let (programs, flags) = query(&cgroup, hook, 0)?;
    Ok(OnHook { shared: programs.is_empty() || flags & BPF_F_ALLOW_MULTI != 0, programs })
}

fn query(cgroup: &impl AsFd, hook: Hook, query_flags: u32) -> io::Result<(Vec<u32>, u32)> {
    let mut programs = vec![0_u32; EXPECTED];
    loop {
        let mut arguments = Query {
            target: number(cgroup),
            attach_type: hook.0,
            query_flags,
            attach_flags: 0,
            program_ids: programs.as_mut_ptr() as u64,
            count: u32::try_from(programs.len()).unwrap_or(u32::MAX),
            padding: 0,
            program_attach_flags: 0,
        };
        // SAFETY: the arguments are this command's; the list has as many elements as they say.
        let answer = unsafe { bpf_mut(BPF_PROG_QUERY, &mut arguments) };
        let count = usize::try_from(arguments.count).unwrap_or(usize::MAX);
        match answer {
            Ok(_) => {
                programs.truncate(count);
                return Ok((programs, arguments.attach_flags));
            }
            // They are more, and the kernel has said how many.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && count > programs.len() => {
                programs.resize(count, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// What a link is; `None`: it is not one of a cgroup.
///
/// # Errors
/// The system call's.
pub fn link_info(link: impl AsFd) -> io::Result<Option<LinkInfo>> {
    let mut info = Info::default();
    let length = u32::try_from(size_of::<Info>()).unwrap_or(u32::MAX);
    let mut arguments = GetInfo { fd: number(&link), length, info: std::ptr::from_mut(&mut info) as u64 };
    // SAFETY: the arguments are this command's; the answer has the length that they say.
    unsafe { bpf_mut(BPF_OBJ_GET_INFO_BY_FD, &mut arguments)? };
    Ok((info.kind == BPF_LINK_TYPE_CGROUP).then_some(LinkInfo {
        id: info.id,
        program: info.program,
        cgroup: info.cgroup,
        hook: Hook(info.attach_type),
    }))
}

/// All links of cgroups on this machine, whoever made them. Those that end meanwhile are left out.
///
/// # Errors
/// The system call's: needs CAP_SYS_ADMIN.
pub fn links() -> io::Result<Vec<(LinkInfo, OwnedFd)>> {
    let mut found = Vec::new();
    let mut ids = Ids { id: 0, next: 0, flags: 0 };
    loop {
        // SAFETY: the arguments are this command's; they hold no pointers.
        match unsafe { bpf_mut(BPF_LINK_GET_NEXT_ID, &mut ids) } {
            Ok(_) => ids.id = ids.next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error),
        }
        let link = match open(ids.id) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        found.extend(link_info(&link)?.map(|info| (info, link)));
    }
}

fn open(id: u32) -> io::Result<OwnedFd> {
    let arguments = Ids { id, next: 0, flags: 0 };
    // SAFETY: the arguments are this command's; they hold no pointers.
    let fd = unsafe { bpf(BPF_LINK_GET_FD_BY_ID, &arguments)? };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_hooks_and_is_no_link() {
        let file = tempfile::tempfile().unwrap();
        assert!(effective(&file, Hook::CONNECT4).is_err());
        assert!(on_hook(&file, Hook::CONNECT4).is_err());
        assert!(link_create(&file, &file, Hook::CONNECT4).is_err());
        assert!(link_info(&file).is_err());
        assert!(link_detach(&file).is_err());
        assert!(program_attach_alone(&file, &file, Hook::CONNECT4).is_err());
        assert!(program_detach_alone(&file, Hook::CONNECT4).is_err());
    }
}
