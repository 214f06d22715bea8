//! The maps. Their keys and values are `verbatim-ebpf-common`'s.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use verbatim_ebpf_common::{
    Bypass, Config, ConnectCount, ConnectKey, Counter, Destination, EventKind, Flow, FlowKey, RateWindow,
    Stray, Target, Verdict,
};

/// What user space says once.
#[map]
pub static CFG: Array<Config> = Array::with_max_entries(1, 0);

/// cgroups that are never steered: the proxy's own, old and new.
#[map]
pub static OWN: HashMap<u64, u8> = HashMap::with_max_entries(64, 0);

/// CLOCK_MONOTONIC of the proxy's last heartbeat, nanoseconds.
#[map]
pub static HB: Array<u64> = Array::with_max_entries(1, 0);

/// A person's order not to steer for a while.
#[map]
pub static BYP: Array<Bypass> = Array::with_max_entries(1, 0);

/// Which agent's programs belong on the hooks. Read by user space only.
#[map]
pub static OWNER: Array<u64> = Array::with_max_entries(1, 0);

/// Destinations that are steered, denied or let pass.
#[map]
pub static DSTS: LpmTrie<Destination, u8> = LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Verdicts by cgroup id.
#[map]
pub static CGS: HashMap<u64, Verdict> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Listeners by the cookie of their network namespace.
#[map]
pub static TGT: HashMap<u64, Target> = HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// Flow of a client's socket, from connect() on.
#[btf_map]
pub static SKC: SkStorage<Flow> = SkStorage::new();

/// Flow of an accepted socket: what the proxy reads.
#[btf_map]
pub static SKA: SkStorage<Flow> = SkStorage::new();

/// A number that changes with the rules: what was found out about a socket holds until then.
#[map]
pub static EPOCH: Array<u32> = Array::with_max_entries(1, 0);

/// Sockets that came past connect(), for user space to end where it is to; by cookie.
#[map]
pub static STRAYS: HashMap<u64, Stray> = HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// Flows during their handshake.
#[map]
pub static FLOWT: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(65_536, 0);

/// What happened, for user space to read.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// This CPU's share of the events' rate limit, by kind.
#[map]
pub static RATE: PerCpuArray<RateWindow> = PerCpuArray::with_max_entries(EventKind::END, 0);

/// Counters.
#[map]
pub static CNT: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Connects by cgroup, destination and outcome. What has no room is counted in one element that is always
/// there.
#[map]
pub static CONNS: HashMap<ConnectKey, ConnectCount> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
