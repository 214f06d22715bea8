//! What is remembered of a socket beside its flow: who made it, and what the backstop knows of it.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type, bpf_sock},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use verbatim_ebpf_common::{Mark, MarkState};

use crate::maps::EPOCH;

/// Socket storage that an accepted socket inherits from its listener. aya has none with that flag.
#[repr(C)]
pub struct InheritedStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: only describes the map to the loader; its pointers are never followed.
unsafe impl<T> Sync for InheritedStorage<T> {}

/// Marks of the steered workloads' sockets; others have none.
#[btf_map]
pub static SKM: InheritedStorage<Mark> = InheritedStorage {
    r#type: ptr::null(),
    key: ptr::null(),
    value: ptr::null(),
    max_entries: ptr::null(),
    map_flags: ptr::null(),
};

#[inline(always)]
fn get(sk: *mut c_void, flags: u64) -> Option<&'static mut Mark> {
    let map = ptr::from_ref(&SKM).cast_mut().cast();
    // SAFETY: both are of the types that the helper wants; it answers null or a valid value.
    unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), flags).cast::<Mark>().as_mut() }
}

/// The mark of a socket.
#[inline(always)]
pub fn mark(sk: *mut bpf_sock) -> Option<&'static mut Mark> {
    get(sk.cast(), 0)
}

/// The mark of a socket; where there is none, an empty one. `None`: no memory.
#[inline(always)]
pub fn mark_or_new(sk: *mut bpf_sock) -> Option<&'static mut Mark> {
    get(sk.cast(), u64::from(BPF_SK_STORAGE_GET_F_CREATE))
}

/// Which rules hold now, as a number that changes with them.
#[inline(always)]
pub fn epoch() -> u32 {
    EPOCH.get(0).copied().unwrap_or(0)
}

/// Whether what is known about the socket is settled: nothing to do, under the rules of now.
#[inline(always)]
pub fn is_settled(mark: &Mark) -> bool {
    (mark.state == MarkState::Exempt as u8 || mark.state == MarkState::Reported as u8)
        && mark.epoch == epoch()
}

/// Keeps what was found out.
#[inline(always)]
pub fn settle(mark: &mut Mark, state: MarkState) {
    mark.epoch = epoch();
    mark.state = state as u8;
}

/// Spares the backstop a socket that is counted already.
#[inline(always)]
pub fn exempt(sk: *mut bpf_sock) {
    if let Some(mark) = mark_or_new(sk) {
        settle(mark, MarkState::Exempt);
    }
}
