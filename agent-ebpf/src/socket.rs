//! Reading a program's context and a socket's storage, in the ways that the verifier accepts.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
};
use verbatim_ebpf_common::Flow;

/// Reads one field of a context or socket. Only volatile reads stay single loads of the field's own
/// size; the compiler merges plain ones, and the verifier rejects those.
macro_rules! read {
    ($base:expr, $($field:tt)+) => {
        // SAFETY: a field of a context or socket that the kernel gave to this program.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!((*$base).$($field)+)) }
    };
}

/// Writes one field of a context; volatile for the same reason.
macro_rules! write {
    ($base:expr, $field:ident $([$index:literal])?, $value:expr) => {
        // SAFETY: a writable field of the context that the kernel gave to this program.
        unsafe { core::ptr::write_volatile(core::ptr::addr_of_mut!((*$base).$field $([$index])?), $value) }
    };
}

pub(crate) use {read, write};

#[inline(always)]
fn raw(map: &'static SkStorage<Flow>) -> *mut c_void {
    core::ptr::from_ref(map).cast_mut().cast()
}

/// The flow that is kept with a socket.
#[inline(always)]
pub fn flow(map: &'static SkStorage<Flow>, sk: *mut bpf_sock) -> Option<&'static mut Flow> {
    if sk.is_null() {
        return None;
    }
    // SAFETY: both are of the types that the helper wants; it answers null or a valid value.
    unsafe { bpf_sk_storage_get(raw(map), sk.cast(), core::ptr::null_mut(), 0).cast::<Flow>().as_mut() }
}

/// The flow that is kept with a socket; where there is none, one of zeros or a copy of `initial`.
/// `None` when the kernel has no memory.
#[inline(always)]
pub fn flow_or_new(
    map: &'static SkStorage<Flow>,
    sk: *mut bpf_sock,
    initial: *mut Flow,
) -> Option<&'static mut Flow> {
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as above; `initial` is null or points to a value of another map.
    unsafe { bpf_sk_storage_get(raw(map), sk.cast(), initial.cast(), create).cast::<Flow>().as_mut() }
}

/// Forgets what was kept with a socket.
#[inline(always)]
pub fn forget(map: &'static SkStorage<Flow>, sk: *mut bpf_sock) {
    // SAFETY: as above. An error means that nothing was kept.
    unsafe { bpf_sk_storage_delete(raw(map), sk.cast()) };
}
