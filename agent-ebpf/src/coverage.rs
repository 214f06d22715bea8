//! Counting connects by cgroup, destination and outcome, and numbering those that become connections, so
//! that each has to be found in a record.

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
};
use verbatim_ebpf_common::{Address, ConnectCount, ConnectKey, Flow, Outcome};

use crate::maps::CONNS;

/// Counts a connect(). Where there is no room, the one element for that is counted up.
#[inline(never)]
pub fn count(cgroup_id: u64, address: &Address, port: u16, protocol: u8, outcome: Outcome) {
    let key =
        ConnectKey { cgroup_id, address: *address, port, protocol, outcome: outcome as u8, reserved: [0; 4] };
    if let Some(value) = CONNS.get_ptr_mut(&key) {
        // SAFETY: a field of a value of the map.
        unsafe { fetch_add_one(&raw mut (*value).connects) };
        return;
    }
    // SAFETY: helpers without arguments.
    let (now, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    let first = ConnectCount { series: ConnectCount::series_at(now, cpu), connects: 1, connected: 0 };
    if CONNS.insert(&key, &first, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    // Another CPU was first, or there is no room.
    if let Some(value) = CONNS.get_ptr_mut(&key).or_else(|| CONNS.get_ptr_mut(&ConnectKey::UNCOUNTED)) {
        // SAFETY: as above.
        unsafe { fetch_add_one(&raw mut (*value).connects) };
    }
}

/// Adds one for all CPUs to see, and answers what was there before. The compiler has no atomic operations
/// for this target; the kernel has (since 5.12).
///
/// # Safety
/// `place` lies in a map's value.
#[inline(always)]
unsafe fn fetch_add_one(place: *mut u64) -> u64 {
    let mut number: u64 = 1;
    // SAFETY: one instruction on the place that the caller vouches for.
    unsafe {
        asm!("{number} = atomic_fetch_add((u64 *)({place} + 0), {number})",
            place = in(reg) place, number = inout(reg) number, options(nostack));
    }
    number
}

/// A connect() that was counted has become a connection: the series and its number there, from 1.
#[inline(always)]
pub fn connected(flow: &Flow, outcome: Outcome) -> Option<(u64, u64)> {
    let key = ConnectKey {
        cgroup_id: flow.cgroup_id,
        address: flow.destination,
        port: flow.port,
        protocol: flow.protocol,
        outcome: outcome as u8,
        reserved: [0; 4],
    };
    let value = CONNS.get_ptr_mut(&key)?;
    // SAFETY: as above; the series never changes.
    let (series, before) = unsafe { ((*value).series, fetch_add_one(&raw mut (*value).connected)) };
    Some((series, before + 1))
}
