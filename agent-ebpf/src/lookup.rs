//! What the rules say: about a destination, about the calling workload, about the proxy's life.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id},
    },
    maps::lpm_trie::Key,
};
use verbatim_ebpf_common::{Address, Config, Destination, LEVELS, Verdict};

use crate::{
    maps::{BYP, CGS, DSTS, HB, OWN},
    marks,
};

/// Whether this cgroup is the proxy's own.
#[inline(always)]
pub fn is_own(cgroup_id: u64) -> bool {
    // SAFETY: the value is not read.
    unsafe { OWN.get(cgroup_id) }.is_some()
}

/// What the destination's rule says: exact port first, then any port. `None`: no rule names it.
#[inline(always)]
pub fn destination(protocol: u8, address: Address, port: u16) -> Option<u8> {
    let mut key = Key::new(Destination::BITS, Destination::new(protocol, port, address));
    if let Some(&action) = DSTS.get(&key) {
        return Some(action);
    }
    key.data.port = [0; 2];
    DSTS.get(&key).copied()
}

/// The verdict of the calling workload: of its own cgroup, else of its nearest ancestor that has
/// one, else the default.
#[inline(always)]
pub fn verdict(config: &Config, cgroup_id: u64) -> Verdict {
    nearest(config, cgroup_id, ancestor)
}

/// The same for the socket that a packet comes from.
#[inline(always)]
pub fn verdict_of_packet(config: &Config, cgroup_id: u64, skb: *mut __sk_buff) -> Verdict {
    // SAFETY: the helper takes this context and any number.
    nearest(config, cgroup_id, |level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) })
}

/// The verdict of the caller, or, where that passes, of the workload that made the socket; and whose
/// it is.
#[inline(always)]
pub fn verdict_by_both(config: &Config, caller: u64, sk: *mut bpf_sock) -> (Verdict, u64) {
    let verdict = verdict(config, caller);
    if !verdict.passes() {
        return (verdict, caller);
    }
    let Some(mark) = marks::mark(sk) else { return (verdict, caller) };
    let creator = mark.creator_cgroup;
    if creator == 0 || creator == caller {
        return (verdict, caller);
    }
    // What holds for it now, where it has a verdict of its own; else what held for it then.
    // SAFETY: values of CGS are replaced whole, and a verdict is two bytes.
    (unsafe { CGS.get(creator) }.copied().unwrap_or(mark.creator_verdict), creator)
}

#[inline(always)]
fn nearest(config: &Config, cgroup_id: u64, ancestor: impl Fn(i32) -> u64) -> Verdict {
    // SAFETY: values of CGS are replaced whole, and a verdict is two bytes.
    if let Some(&verdict) = unsafe { CGS.get(cgroup_id) } {
        return verdict;
    }
    for level in (1..=LEVELS as i32).rev() {
        let id = ancestor(level);
        if id == 0 || id == cgroup_id {
            continue;
        }
        // SAFETY: as above.
        if let Some(&verdict) = unsafe { CGS.get(id) } {
            return verdict;
        }
    }
    config.default_verdict
}

/// Id of the caller's cgroup at this absolute level; 0 below its own.
#[inline(always)]
pub fn ancestor(level: i32) -> u64 {
    // SAFETY: a helper that takes any number.
    unsafe { bpf_get_current_ancestor_cgroup_id(level) }
}

/// Whether a person has asked not to steer now.
#[inline(always)]
pub fn bypassed() -> bool {
    let Some(bypass) = BYP.get(0) else { return false };
    // The clock is only asked where there is something to compare it with.
    // SAFETY: helper without arguments.
    bypass.until_nanos != 0 && bypass.holds_at(unsafe { bpf_ktime_get_ns() })
}

/// Now, where the proxy is alive; `None` where its last heartbeat is too old.
#[inline(always)]
pub fn alive_at(config: &Config) -> Option<u64> {
    // SAFETY: helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let beat = HB.get(0).copied().unwrap_or(0);
    // A beat may be younger than `now`: user space beats while this runs.
    (now.saturating_sub(beat) <= config.heartbeat_timeout_nanos).then_some(now)
}
