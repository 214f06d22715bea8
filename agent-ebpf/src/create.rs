//! sock_create: denies steered workloads the sockets that carry connections past connect(), and keeps
//! with every other socket of theirs who made it.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_get_current_cgroup_id, generated::bpf_get_netns_cookie},
    macros::cgroup_sock,
    programs::SockContext,
};
use verbatim_ebpf_common::{Address, Counter, EventKind};

use crate::{
    lookup,
    maps::CFG,
    marks,
    report::{Subject, caller, count, event},
    socket::read,
};

const ALLOW: i32 = 1;
/// socket() answers EPERM.
const REFUSE: i32 = 0;

/// `include/linux/net.h`.
const SOCK_RAW: u32 = 3;
/// `include/uapi/linux/in.h`.
const IPPROTO_SCTP: u32 = 132;
/// `include/uapi/linux/in.h`: TCP by another name, which goes through shared memory where it can.
const IPPROTO_SMC: u32 = 256;

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    let sk: *mut bpf_sock = ctx.sock;
    let (kind, protocol) = (read!(sk, type_), read!(sk, protocol));
    // SAFETY: helper without arguments.
    let cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    let Some(config) = CFG.get(0) else { return ALLOW };
    if lookup::is_own(cgroup_id) {
        return ALLOW;
    }
    let verdict = lookup::verdict(config, cgroup_id);
    if verdict.passes() {
        return ALLOW;
    }
    let slips_past = kind == SOCK_RAW || protocol == IPPROTO_SCTP || protocol == IPPROTO_SMC;
    if slips_past && !lookup::bypassed() {
        count(Counter::SocketDenied);
        let subject = Subject {
            // SAFETY: the helper takes this kind of context.
            netns: unsafe { bpf_get_netns_cookie(sk.cast()) },
            cgroup_id,
            pid: caller(),
            address: Address::UNSPECIFIED,
            port: protocol as u16,
            protocol: 0,
        };
        event(&ctx, EventKind::SocketDenied, &subject);
        return REFUSE;
    }
    // Without memory for it the socket is judged by its caller alone.
    if let Some(mark) = marks::mark_or_new(sk) {
        mark.creator_cgroup = cgroup_id;
        mark.creator_verdict = verdict;
    }
    ALLOW
}
