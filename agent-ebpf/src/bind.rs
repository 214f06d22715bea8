//! bind4, bind6: keep others off our listener's port, where they could wait for its connections.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_cgroup_id, generated::bpf_get_netns_cookie},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use verbatim_ebpf_common::{Address, Counter, EventKind, TCP};

use crate::{
    lookup,
    maps::TGT,
    report::{Subject, caller, count, event},
    socket::read,
};

const ALLOW: i32 = 1;
/// bind() answers EPERM.
const REFUSE: i32 = 0;

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    guard(&ctx, Address::from_v4_word(read!(ctx.sock_addr, user_ip4)))
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    let address = Address([
        read!(ctx.sock_addr, user_ip6[0]),
        read!(ctx.sock_addr, user_ip6[1]),
        read!(ctx.sock_addr, user_ip6[2]),
        read!(ctx.sock_addr, user_ip6[3]),
    ]);
    guard(&ctx, address)
}

#[inline(always)]
fn guard(ctx: &SockAddrContext, address: Address) -> i32 {
    let port = u16::from_be(read!(ctx.sock_addr, user_port) as u16);
    if port == 0 || read!(ctx.sock_addr, protocol) != u32::from(TCP) {
        return ALLOW;
    }
    // SAFETY: the helper takes this kind of context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: values of TGT are replaced whole, never changed in place.
    let Some(target) = (unsafe { TGT.get(netns) }) else {
        return ALLOW;
    };
    if target.port != port {
        return ALLOW;
    }
    // SAFETY: helper without arguments.
    let cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    if lookup::is_own(cgroup_id) {
        return ALLOW;
    }
    count(Counter::BindDenied);
    event(
        ctx,
        EventKind::BindDenied,
        &Subject { netns, cgroup_id, address, port, pid: caller(), protocol: 0 },
    );
    REFUSE
}
