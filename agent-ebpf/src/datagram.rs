//! UDP to where QUIC is spoken: denied where TCP would be steered, so that clients fall back to TCP.
//!
//! connect() of a datagram socket comes from `connect`; sendmsg4 and sendmsg6 see what unconnected ones
//! send.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock,
    helpers::{bpf_get_current_cgroup_id, generated::bpf_get_netns_cookie},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use verbatim_ebpf_common::{Action, Address, Counter, EventKind, Outcome, QUIC_PORT, TCP, UDP};

use crate::{
    coverage, lookup,
    maps::CFG,
    marks,
    report::{Subject, caller, count, event},
    socket::read,
};

const ALLOW: i32 = 1;
/// sendmsg() answers EPERM.
const REFUSE: i32 = 0;

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    let port = u16::from_be(read!(addr, user_port) as u16);
    if port != QUIC_PORT {
        return ALLOW;
    }
    let destination = Address::from_v4_word(read!(addr, user_ip4));
    if permits(&ctx, read!(addr, __bindgen_anon_1.sk), destination, port) { ALLOW } else { REFUSE }
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    let port = u16::from_be(read!(addr, user_port) as u16);
    if port != QUIC_PORT {
        return ALLOW;
    }
    let destination = Address([
        read!(addr, user_ip6[0]),
        read!(addr, user_ip6[1]),
        read!(addr, user_ip6[2]),
        read!(addr, user_ip6[3]),
    ]);
    if permits(&ctx, read!(addr, __bindgen_anon_1.sk), destination, port) { ALLOW } else { REFUSE }
}

/// Whether a datagram may go there, or a datagram socket may connect there.
#[inline(always)]
pub fn permits(ctx: &SockAddrContext, sk: *mut bpf_sock, destination: Address, port: u16) -> bool {
    let Some(config) = CFG.get(0) else { return true };
    if port != QUIC_PORT || sk.is_null() {
        return true;
    }
    // SAFETY: helper without arguments.
    let calling = unsafe { bpf_get_current_cgroup_id() };
    if lookup::is_own(calling) {
        return true;
    }
    // The rules speak of TCP: what is captured there must not go by another transport.
    let Some(rule) = lookup::destination(TCP, destination, port) else { return true };
    if rule == Action::Pass as u8 {
        return true;
    }
    let (verdict, cgroup_id) = lookup::verdict_by_both(config, calling, sk);
    if verdict.passes() {
        return true;
    }
    let denied = rule == Action::Deny as u8
        || verdict.denies()
        || (!lookup::bypassed() && (verdict.fails_closed() || lookup::alive_at(config).is_some()));
    let (counter, kind, outcome) = if denied {
        (Counter::QuicDenied, EventKind::QuicDenied, Outcome::QuicDenied)
    } else {
        (Counter::QuicPassed, EventKind::QuicPassed, Outcome::QuicPassed)
    };
    count(counter);
    coverage::count(cgroup_id, &destination, port, UDP, outcome);
    let subject = Subject {
        // SAFETY: the helper takes this kind of context.
        netns: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
        cgroup_id,
        pid: caller(),
        protocol: 0,
        address: destination,
        port,
    };
    event(ctx, kind, &subject);
    if !denied {
        // Counted as what it is: the backstop must not find it again.
        marks::exempt(sk);
    }
    !denied
}
