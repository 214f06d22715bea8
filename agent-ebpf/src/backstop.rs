//! cgroup_skb/egress: sees what came past connect(): TCP and QUIC sockets that were connected before the
//! programs were attached or before their rule was made, or that something after us sent elsewhere.
//!
//! It can only count, report and drop. Ending such a socket is user space's affair: see `STRAYS`.

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, bpf_sock, bpf_sock_tuple},
    helpers::generated::{
        bpf_get_socket_cookie, bpf_sk_cgroup_id, bpf_sk_fullsock, bpf_sk_release, bpf_skb_cgroup_id,
        bpf_skb_load_bytes, bpf_skc_lookup_tcp,
    },
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use verbatim_ebpf_common::{
    AF_INET, Action, Address, Counter, EventKind, MarkState, Outcome, QUIC_PORT, Stray, TCP, UDP,
};

use crate::{
    coverage, lookup,
    maps::{CFG, SKC, STRAYS},
    marks,
    report::{Subject, count, event},
    socket::{flow, read},
};

const ALLOW: i32 = 1;
const DROP: i32 = 0;

/// The kernel's number of a listening TCP socket's state.
const TCP_LISTEN: u32 = 10;
/// The socket's own network namespace.
const CURRENT_NETNS: u64 = u64::MAX;
/// By the size of a tuple the kernel tells the families apart.
const SIZE_V4: u32 = 12;
const SIZE_V6: u32 = 36;
/// Of the flags in a TCP header.
const RST: u8 = 0x04;
/// Where they are in it.
const FLAGS_AT: u32 = 13;

#[cgroup_skb(egress)]
pub fn backstop(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let sk = read!(skb, __bindgen_anon_2.sk);
    if sk.is_null() {
        return ALLOW;
    }
    // SAFETY: the helper takes what the context gave; it answers null or a full socket.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        return ALLOW;
    }
    let protocol = read!(sk, protocol);
    if protocol != u32::from(TCP) {
        // Only one that is connected has a port: what others send has passed sendmsg4 or sendmsg6.
        let quic = protocol == u32::from(UDP) && u16::from_be(read!(sk, dst_port)) == QUIC_PORT;
        if !quic {
            return ALLOW;
        }
    } else if flow(&SKC, sk).is_some() {
        // Steered: nothing more for an ordinary packet.
        return ALLOW;
    }
    let mark = marks::mark(sk);
    if mark.as_ref().is_some_and(|mark| marks::is_settled(mark)) {
        return ALLOW;
    }
    let before = mark.map_or(MarkState::Unseen as u8, |mark| mark.state);
    examine(&ctx, skb, sk, before, protocol as u8)
}

/// A socket and its two ends; ports in host byte order.
struct Ends {
    family: u8,
    local: Address,
    local_port: u16,
    remote: Address,
    remote_port: u16,
}

impl Ends {
    /// Reads every field before any branch, for the same reason as in `hand_off`.
    #[inline(always)]
    fn read(sk: *mut bpf_sock) -> Self {
        let family = read!(sk, family);
        let (local_ip4, remote_ip4) = (read!(sk, src_ip4), read!(sk, dst_ip4));
        let local_ip6 = Address([
            read!(sk, src_ip6[0]),
            read!(sk, src_ip6[1]),
            read!(sk, src_ip6[2]),
            read!(sk, src_ip6[3]),
        ]);
        let remote_ip6 = Address([
            read!(sk, dst_ip6[0]),
            read!(sk, dst_ip6[1]),
            read!(sk, dst_ip6[2]),
            read!(sk, dst_ip6[3]),
        ]);
        let (local_port, remote_port) = (read!(sk, src_port), read!(sk, dst_port));
        let v4 = family == u32::from(AF_INET);
        Self {
            family: family as u8,
            local: if v4 { Address::from_v4_word(local_ip4) } else { local_ip6 },
            local_port: local_port as u16,
            remote: if v4 { Address::from_v4_word(remote_ip4) } else { remote_ip6 },
            remote_port: u16::from_be(remote_port),
        }
    }
}

/// Finds out about a socket of which nothing is settled.
#[inline(always)]
fn examine(ctx: &SkBuffContext, skb: *mut __sk_buff, sk: *mut bpf_sock, before: u8, protocol: u8) -> i32 {
    let Some(config) = CFG.get(0) else { return ALLOW };
    // SAFETY: the helper takes this context.
    let cgroup_id = unsafe { bpf_skb_cgroup_id(skb) };
    if lookup::is_own(cgroup_id) {
        return ALLOW;
    }
    let verdict = lookup::verdict_of_packet(config, cgroup_id, skb);
    if verdict.passes() || lookup::bypassed() {
        return ALLOW;
    }
    let state = read!(sk, state);
    let ends = Ends::read(sk);
    // The rules speak of TCP: what is captured there must not go by another transport.
    let rule = lookup::destination(TCP, ends.remote, ends.remote_port).unwrap_or(Action::Pass as u8);
    let tcp = protocol == TCP;
    // What it accepts inherits a listener's mark; what it had accepted before is found by its port.
    if rule == Action::Pass as u8
        || (tcp && (state == TCP_LISTEN || is_listened_to(ctx, &ends) || leads_to_a_proxy(ctx, &ends)))
    {
        marks::exempt(sk);
        return ALLOW;
    }
    let closed = verdict.fails_closed() && rule != Action::SteerOrPass as u8;
    let drops = rule == Action::Deny as u8 || verdict.denies() || closed;
    // A reset carries nothing, and lets the other end know.
    if drops && tcp && is_reset(skb, &ends) {
        return ALLOW;
    }
    found(ctx, sk, &ends, &Finding { cgroup_id, before, protocol, drops });
    if drops { DROP } else { ALLOW }
}

/// What was found out about a socket.
struct Finding {
    cgroup_id: u64,
    /// State of its mark until now.
    before: u8,
    protocol: u8,
    drops: bool,
}

/// Counts and reports a stray once, and keeps telling user space of one that is dropped until it is gone.
#[inline(always)]
fn found(ctx: &SkBuffContext, sk: *mut bpf_sock, ends: &Ends, finding: &Finding) {
    let Finding { cgroup_id, before, protocol, drops } = *finding;
    let state = if drops { MarkState::Dropped } else { MarkState::Reported };
    let first = before == MarkState::Unseen as u8 || before == MarkState::Exempt as u8;
    if let Some(mark) = marks::mark_or_new(sk) {
        marks::settle(mark, state);
    }
    // A datagram socket has no other end that would wait: nothing is to be ended.
    if protocol == TCP {
        tell(ctx, ends, cgroup_id, drops);
    }
    if !first {
        return;
    }
    count(Counter::Stray);
    if drops {
        count(Counter::StrayDropped);
    }
    let (kind, outcome) = if drops {
        (EventKind::StrayDropped, Outcome::StrayDropped)
    } else {
        (EventKind::Stray, Outcome::Stray)
    };
    coverage::count(cgroup_id, &ends.remote, ends.remote_port, protocol, outcome);
    // Whose process it is, and in which namespace, this hook is not told by older kernels.
    event(
        ctx,
        kind,
        &Subject { netns: 0, cgroup_id, pid: 0, address: ends.remote, port: ends.remote_port, protocol },
    );
}

/// Tells user space of a stray, which may end it.
#[inline(always)]
fn tell(ctx: &SkBuffContext, ends: &Ends, cgroup_id: u64, drops: bool) {
    let stray = Stray {
        cgroup_id,
        local: ends.local,
        remote: ends.remote,
        local_port: ends.local_port,
        remote_port: ends.remote_port,
        family: ends.family,
        dropped: u8::from(drops),
        reserved: [0; 2],
    };
    // SAFETY: the helper takes this kind of context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if STRAYS.insert(&cookie, &stray, 0).is_err() {
        count(Counter::StrayLost);
    }
}

/// Whether somebody listens where this socket is: then it was most likely accepted there.
#[inline(always)]
fn is_listened_to(ctx: &SkBuffContext, ends: &Ends) -> bool {
    // From port 0 nobody is connected, so that only a listener can be found.
    let found = socket_at(ctx, ends.remote, 0, ends.local, ends.local_port);
    if found.is_null() {
        return false;
    }
    // SAFETY: a reference that the helper gave, let go of once.
    unsafe { bpf_sk_release(found.cast()) };
    true
}

/// Whether the other end is a proxy of ours: somebody who aims at it, or a flow of a predecessor whose
/// maps had another layout.
#[inline(always)]
fn leads_to_a_proxy(ctx: &SkBuffContext, ends: &Ends) -> bool {
    if !ends.remote.connects_to_loopback() {
        return false;
    }
    let found = socket_at(ctx, ends.local, ends.local_port, ends.remote, ends.remote_port);
    if found.is_null() {
        return false;
    }
    // SAFETY: the helper takes what the other one gave.
    let cgroup_id = unsafe { bpf_sk_cgroup_id(found.cast()) };
    // SAFETY: a reference that the helper gave, let go of once.
    unsafe { bpf_sk_release(found.cast()) };
    lookup::is_own(cgroup_id)
}

/// The socket that a packet from there to here reaches; ports in host byte order. It must be released.
#[inline(always)]
fn socket_at(ctx: &SkBuffContext, from: Address, from_port: u16, to: Address, to_port: u16) -> *mut bpf_sock {
    // SAFETY: plain integers, of which every bit pattern is a value.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if to.is_v4_mapped() {
        tuple.__bindgen_anon_1.ipv4.saddr = from.v4_word();
        tuple.__bindgen_anon_1.ipv4.daddr = to.v4_word();
        tuple.__bindgen_anon_1.ipv4.sport = from_port.to_be();
        tuple.__bindgen_anon_1.ipv4.dport = to_port.to_be();
        SIZE_V4
    } else {
        tuple.__bindgen_anon_1.ipv6.saddr = from.0;
        tuple.__bindgen_anon_1.ipv6.daddr = to.0;
        tuple.__bindgen_anon_1.ipv6.sport = from_port.to_be();
        tuple.__bindgen_anon_1.ipv6.dport = to_port.to_be();
        SIZE_V6
    };
    // SAFETY: the helper takes this kind of context and reads `size` bytes of the tuple.
    unsafe { bpf_skc_lookup_tcp(ctx.as_ptr(), &raw mut tuple, size, CURRENT_NETNS, 0) }
}

/// Whether the packet is a reset.
#[inline(always)]
fn is_reset(skb: *mut __sk_buff, ends: &Ends) -> bool {
    let mut byte = 0_u8;
    let mut load = |at: u32| {
        // SAFETY: the helper takes this context and writes one byte.
        unsafe { bpf_skb_load_bytes(skb.cast(), at, (&raw mut byte).cast(), 1) };
        byte
    };
    // The packet begins with its IP header; an IPv4 header says in four-byte words how long it is.
    let header = if ends.remote.is_v4_mapped() { u32::from(load(0) & 0x0f) * 4 } else { 40 };
    load(header + FLAGS_AT) & RST != 0
}
