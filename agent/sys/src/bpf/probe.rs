//! What this kernel knows of BPF, found by asking it: version numbers say little of a distribution's kernel.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use super::{BPF_LINK_UPDATE, BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, Hook, LinkUpdate, Load, bpf};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_PROG_TYPE_CGROUP_SKB: u32 = 8;
const BPF_PROG_TYPE_CGROUP_SOCK: u32 = 9;
const BPF_PROG_TYPE_SOCK_OPS: u32 = 13;
/// `r0 = 1; exit`.
static ALLOW_ALL: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
/// What verifiers say of a helper that they do not lend; the last one from 6.8 on.
const REFUSALS: [&str; 3] = ["unknown func ", "invalid func ", "cannot use helper"];

/// A helper function, by its number in `include/uapi/linux/bpf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Helper(u8);

impl Helper {
    /// `bpf_get_current_pid_tgid`.
    pub const CURRENT_PID_TGID: Self = Self(14);
    /// `bpf_get_current_uid_gid`.
    pub const CURRENT_UID_GID: Self = Self(15);
    /// `bpf_get_current_comm`.
    pub const CURRENT_COMM: Self = Self(16);
    /// `bpf_get_socket_cookie`.
    pub const SOCKET_COOKIE: Self = Self(46);
    /// `bpf_get_current_cgroup_id`.
    pub const CURRENT_CGROUP_ID: Self = Self(80);
    /// `bpf_sk_storage_get`.
    pub const SK_STORAGE_GET: Self = Self(107);
    /// `bpf_get_netns_cookie`.
    pub const NETNS_COOKIE: Self = Self(122);
    /// `bpf_get_current_ancestor_cgroup_id`.
    pub const CURRENT_ANCESTOR_CGROUP_ID: Self = Self(123);
    /// `bpf_ringbuf_reserve`.
    pub const RINGBUF_RESERVE: Self = Self(131);
}

/// Arguments of `BPF_MAP_CREATE`, as far as they are used.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

fn kind_of(hook: Hook) -> u32 {
    match hook {
        Hook::SOCK_OPS => BPF_PROG_TYPE_SOCK_OPS,
        Hook::EGRESS => BPF_PROG_TYPE_CGROUP_SKB,
        Hook::SOCK_CREATE => BPF_PROG_TYPE_CGROUP_SOCK,
        _ => BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
    }
}

fn load(hook: Hook, code: &[[u8; 8]], log: &mut [u8]) -> io::Result<OwnedFd> {
    let wants_log = !log.is_empty();
    let arguments = Load {
        program_type: kind_of(hook),
        instructions: u32::try_from(code.len()).unwrap_or(u32::MAX),
        code: code.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_level: u32::from(wants_log),
        log_size: u32::try_from(log.len()).unwrap_or(u32::MAX),
        log: if wants_log { log.as_mut_ptr() as u64 } else { 0 },
        kernel_version: 0,
        flags: 0,
        name: *b"verbatim_probe\0\0",
        interface: 0,
        attach_type: hook.0,
    };
    // SAFETY: the arguments are this command's; code, licence and log outlive the call.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &arguments)? };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel has this hook for programs of cgroups.
///
/// # Errors
/// The system call's: `EPERM` without CAP_BPF and CAP_NET_ADMIN, `ENOSYS` without BPF.
pub fn knows_hook(hook: Hook) -> io::Result<bool> {
    match load(hook, &ALLOW_ALL, &mut []) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel lends a helper to programs on this hook.
///
/// # Errors
/// The system call's, when the kernel did not come to look at the program.
pub fn knows_helper(hook: Hook, helper: Helper) -> io::Result<bool> {
    let code = [[0x85, 0, 0, 0, helper.0, 0, 0, 0], ALLOW_ALL[1]];
    let mut log = [0_u8; 16_384];
    let Err(error) = load(hook, &code, &mut log) else { return Ok(true) };
    let length = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    let said = String::from_utf8_lossy(&log[..length]);
    if said.trim().is_empty() {
        return Err(error);
    }
    // Whatever else it finds wrong, with the arguments or the answer, it knows the helper.
    Ok(!REFUSALS.iter().any(|refusal| said.contains(refusal)))
}

/// Whether the kernel has ring buffers.
///
/// # Errors
/// The system call's: no memory.
pub fn knows_ring_buffers() -> io::Result<bool> {
    // A page is 64 KiB at most.
    let arguments =
        MapCreate { kind: BPF_MAP_TYPE_RINGBUF, key_size: 0, value_size: 0, max_entries: 65_536, flags: 0 };
    // SAFETY: the arguments are this command's; they hold no pointers.
    match unsafe { bpf(BPF_MAP_CREATE, &arguments) } {
        Ok(fd) => {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(true)
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        // What may be locked in memory is used up, by which kernels before 5.11 go: they know the kind.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether the program behind a link can be replaced.
#[must_use]
pub fn knows_link_updates() -> bool {
    let arguments = LinkUpdate { link: u32::MAX, program: u32::MAX, flags: 0, old_program: 0 };
    // SAFETY: the arguments are this command's; they hold no pointers. No descriptor has this number.
    let answer = unsafe { bpf(BPF_LINK_UPDATE, &arguments) };
    // EBADF of a kernel that looked for the link, EINVAL of one that does not know the command.
    !matches!(answer, Err(error) if error.raw_os_error() == Some(libc::EINVAL))
}
