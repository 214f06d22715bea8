//! Raw BPF commands that aya does not offer: links, what is attached, object pinning, a probe.

mod attached;
mod probe;

use std::{
    ffi::CString,
    io,
    mem::size_of_val,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

pub use attached::{
    Hook, LinkInfo, OnHook, effective, link_create, link_detach, link_info, links, on_hook,
    program_attach_alone, program_detach_alone,
};
pub use probe::{Helper, knows_helper, knows_hook, knows_link_updates, knows_ring_buffers};

// Commands and numbers of `include/uapi/linux/bpf.h`.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;
/// `r0 = 1; exit`, as the kernel's eight-byte instructions.
static ALLOW_ALL: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// Arguments of `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Arguments of `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Arguments of `BPF_PROG_LOAD`, as far as they are used.
#[repr(C)]
struct Load {
    program_type: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// # Safety
/// `arguments` are the command's, and whatever they point to lives through the call.
unsafe fn bpf<T>(command: libc::c_int, arguments: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads that many bytes of `arguments`; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(arguments), size_of_val(arguments))
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_error| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

/// For commands by which the kernel answers in their arguments.
///
/// # Safety
/// As for [`bpf`].
unsafe fn bpf_mut<T>(command: libc::c_int, arguments: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes that many bytes of `arguments`; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(arguments), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_error| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

/// Opens a pinned map, program or link.
///
/// # Errors
/// The system call's: nothing there (`NotFound`), no BPF file system, no privilege.
pub fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let arguments = Object { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the arguments are this command's, and the path outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &arguments)? };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins a map, program or link under a path of a BPF file system, where nothing may be yet.
///
/// # Errors
/// The system call's: something there, no BPF file system, no privilege.
pub fn object_pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let arguments = Object { path: path.as_ptr() as u64, fd: number(&object), flags: 0 };
    // SAFETY: the arguments are this command's, and the path outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &arguments) }.map(drop)
}

/// Puts another program behind a link, without a moment in which neither runs (from Linux 5.7).
///
/// # Errors
/// The system call's: a program of another kind, a link whose cgroup is gone, no privilege.
pub fn link_update(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let arguments = LinkUpdate { link: number(&link), program: number(&program), flags: 0, old_program: 0 };
    // SAFETY: the arguments are this command's; they hold no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &arguments) }.map(drop)
}

/// Loads the smallest program of the kind that steers and drops it again: is that permitted here?
///
/// # Errors
/// The system call's: `EPERM` without CAP_BPF and CAP_NET_ADMIN, `ENOSYS` without BPF, `EINVAL`
/// where the kernel does not know the kind.
pub fn probe_socket_address_program() -> io::Result<()> {
    idle_program().map(drop)
}

/// The smallest program for [`Hook::CONNECT4`]: it lets everything be.
///
/// # Errors
/// As for [`probe_socket_address_program`].
pub fn idle_program() -> io::Result<OwnedFd> {
    connect4_program(&ALLOW_ALL)
}

/// A program for [`Hook::CONNECT4`] from the kernel's eight-byte instructions.
///
/// # Errors
/// As for [`probe_socket_address_program`]; `EACCES` or `EINVAL` where the verifier refuses it.
pub fn connect4_program(code: &[[u8; 8]]) -> io::Result<OwnedFd> {
    let arguments = Load {
        program_type: BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        instructions: u32::try_from(code.len()).map_err(io::Error::other)?,
        code: code.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"verbatim_probe\0\0",
        interface: 0,
        attach_type: BPF_CGROUP_INET4_CONNECT,
    };
    // SAFETY: the arguments are this command's; code and licence outlive the call.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &arguments)? };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_what_is_not_pinned_is_an_error_that_says_so() {
        let error = object_get(Path::new("/nonexistent/verbatim")).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied), "{error}");
        assert_eq!(object_get(Path::new("a\0b")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_file_is_neither_pinned_nor_a_link() {
        let file = tempfile::tempfile().unwrap();
        assert!(object_pin(&file, Path::new("/nonexistent/verbatim")).is_err());
        assert!(link_update(&file, &file).is_err());
    }
}
