//! sock_ops: carries a flow from the client's socket over the handshake to the accepted socket.
//!
//! The proxy reads it there by the accepted socket's descriptor: no tuple is looked up after the
//! handshake, so neither port reuse nor a proxy that lags can mix flows up.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock, bpf_sock_ops},
    helpers::generated::bpf_get_netns_cookie,
    macros::sock_ops,
    programs::SockOpsContext,
};
use verbatim_ebpf_common::{AF_INET, Address, Counter, EventKind, Flow, FlowKey, Outcome, Route};

use crate::{
    coverage,
    maps::{CFG, FLOWT, SKA, SKC, TGT},
    report::{Subject, count, event},
    socket::{flow, flow_or_new, forget, read},
};

/// What sock_ops programs answer where nothing is asked.
const DONE: u32 = 1;

#[sock_ops]
pub fn tcp_events(ctx: SockOpsContext) -> u32 {
    let op = read!(ctx.ops, op);
    if op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        return DONE;
    }
    let ends = Ends::read(ctx.ops);
    if ends.sk.is_null() {
        return DONE;
    }
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        begin(&ctx, &ends);
    } else {
        finish(&ctx, &ends);
    }
    DONE
}

/// A socket and its two ends; ports in host byte order.
struct Ends {
    sk: *mut bpf_sock,
    local: Address,
    local_port: u16,
    remote: Address,
    remote_port: u16,
}

impl Ends {
    /// Reads every field before any branch: reads of different fields in two branches become one read
    /// through a computed pointer, which the verifier refuses.
    #[inline(always)]
    fn read(ops: *mut bpf_sock_ops) -> Self {
        let family = read!(ops, family);
        let (local_ip4, remote_ip4) = (read!(ops, local_ip4), read!(ops, remote_ip4));
        let local_ip6 = Address([
            read!(ops, local_ip6[0]),
            read!(ops, local_ip6[1]),
            read!(ops, local_ip6[2]),
            read!(ops, local_ip6[3]),
        ]);
        let remote_ip6 = Address([
            read!(ops, remote_ip6[0]),
            read!(ops, remote_ip6[1]),
            read!(ops, remote_ip6[2]),
            read!(ops, remote_ip6[3]),
        ]);
        let (local_port, remote_port) = (read!(ops, local_port), read!(ops, remote_port));
        let sk = read!(ops, __bindgen_anon_2.sk);
        let v4 = family == u32::from(AF_INET);
        Self {
            sk,
            local: if v4 { Address::from_v4_word(local_ip4) } else { local_ip6 },
            local_port: local_port as u16,
            remote: if v4 { Address::from_v4_word(remote_ip4) } else { remote_ip6 },
            // The kernel keeps this one in the upper half of the word, in network byte order.
            remote_port: u32::from_be(remote_port) as u16,
        }
    }
}

/// The client is about to send its SYN: source address and port are known now.
#[inline(always)]
fn begin(ctx: &SockOpsContext, ends: &Ends) {
    let mut key = FlowKey {
        client: ends.local,
        listener_netns: 0,
        client_port: ends.local_port,
        listener_port: ends.remote_port,
        reserved: [0; 4],
    };
    let Some(flow) = flow(&SKC, ends.sk) else {
        // A client that aims at a listener by itself must not find the flow of a handshake that
        // never ended.
        if ends.remote.connects_to_loopback() {
            key.listener_netns = netns(ctx);
            let _ = FLOWT.remove(&key);
        }
        return;
    };
    if flow.route == Route::Unrouted as u8 {
        count(Counter::UnroutedConnected);
        coverage::connected(flow, Outcome::Unrouted);
        event(ctx, EventKind::UnroutedConnected, &subject_of(flow));
        return;
    }
    if !is_listener(flow.listener_netns, ends.remote_port) {
        // What something after us made of it is for the backstop to judge.
        count(Counter::Diverted);
        event(ctx, EventKind::Diverted, &subject_of(flow));
        forget(&SKC, ends.sk);
        return;
    }
    key.listener_netns = flow.listener_netns;
    count(if FLOWT.insert(&key, &*flow, 0).is_ok() {
        Counter::HandshakesBegun
    } else {
        Counter::HandshakesLost
    });
}

/// A socket is about to be accepted.
#[inline(always)]
fn finish(ctx: &SockOpsContext, ends: &Ends) {
    let netns = netns(ctx);
    if !is_listener(netns, ends.local_port) {
        return;
    }
    let key = FlowKey {
        client: ends.remote,
        listener_netns: netns,
        client_port: ends.remote_port,
        listener_port: ends.local_port,
        reserved: [0; 4],
    };
    let Some(flow) = FLOWT.get_ptr_mut(&key) else {
        count(Counter::WithoutFlow);
        let subject =
            Subject { netns, cgroup_id: 0, address: key.client, port: key.client_port, pid: 0, protocol: 0 };
        event(ctx, EventKind::NoFlow, &subject);
        return;
    };
    let Some(kept) = flow_or_new(&SKA, ends.sk, flow) else {
        count(Counter::NoMemory);
        let _ = FLOWT.remove(&key);
        return;
    };
    if FLOWT.get_ptr_mut(&key) == Some(flow) {
        count(Counter::HandedOff);
        if let Some((series, number)) = coverage::connected(kept, Outcome::Steered) {
            kept.series = series;
            kept.number = number;
        }
    } else {
        // Evicted while it was copied: what was copied may be another's.
        forget(&SKA, ends.sk);
        count(Counter::HandshakesLost);
    }
    let _ = FLOWT.remove(&key);
}

/// Whether one of our listeners has this port in this namespace.
#[inline(always)]
fn is_listener(netns: u64, port: u16) -> bool {
    // SAFETY: values of TGT are replaced whole, never changed in place.
    if let Some(target) = unsafe { TGT.get(netns) }
        && target.port == port
    {
        return true;
    }
    CFG.get(0).is_some_and(|config| {
        config.has_host_listener() && config.host_netns == netns && config.host_port == port
    })
}

#[inline(always)]
fn netns(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes this kind of context.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn subject_of(flow: &Flow) -> Subject {
    Subject {
        netns: flow.client_netns,
        cgroup_id: flow.cgroup_id,
        address: flow.destination,
        port: flow.port,
        pid: flow.pid,
        protocol: 0,
    }
}
