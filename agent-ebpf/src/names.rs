//! getpeername and getsockname: the workload sees the addresses that it would see without us.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use verbatim_ebpf_common::{Address, Counter, Flow, Route};

use crate::{
    maps::SKC,
    report::count,
    socket::{flow, read, write},
};

/// These programs change an answer, never whether there is one.
const ALLOW: i32 = 1;
/// The kernel's number of a listening TCP socket's state.
const TCP_LISTEN: u32 = 10;

/// The flow of a socket that was steered.
#[inline(always)]
fn steered(ctx: &SockAddrContext) -> Option<&'static Flow> {
    let flow = flow(&SKC, read!(ctx.sock_addr, __bindgen_anon_1.sk))?;
    (flow.route != Route::Unrouted as u8).then_some(&*flow)
}

/// What to show instead of this local address. Only loopback, which steering brought in, is
/// replaced, and not for a socket that listens: after connect(AF_UNSPEC) the flow is still there
/// while the socket begins another life.
#[inline(always)]
fn shown_source(ctx: &SockAddrContext, local: Address) -> Option<Address> {
    let flow = steered(ctx)?;
    if flow.shown_source.is_unspecified() || local.v4_word() == 0 || !local.connects_to_loopback() {
        return None;
    }
    let sk = read!(ctx.sock_addr, __bindgen_anon_1.sk);
    if read!(sk, state) == TCP_LISTEN {
        return None;
    }
    Some(flow.shown_source)
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    if let Some(flow) = steered(&ctx) {
        count(Counter::PeerShown);
        write!(ctx.sock_addr, user_ip4, flow.destination.v4_word());
        write!(ctx.sock_addr, user_port, u32::from(flow.port.to_be()));
    }
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(flow) = steered(&ctx) {
        count(Counter::PeerShown);
        write!(ctx.sock_addr, user_ip6[0], flow.destination.0[0]);
        write!(ctx.sock_addr, user_ip6[1], flow.destination.0[1]);
        write!(ctx.sock_addr, user_ip6[2], flow.destination.0[2]);
        write!(ctx.sock_addr, user_ip6[3], flow.destination.0[3]);
        write!(ctx.sock_addr, user_port, u32::from(flow.port.to_be()));
    }
    ALLOW
}

#[cgroup_sock_addr(getsockname4)]
pub fn getsockname4(ctx: SockAddrContext) -> i32 {
    let local = Address::from_v4_word(read!(ctx.sock_addr, user_ip4));
    if let Some(shown) = shown_source(&ctx, local) {
        write!(ctx.sock_addr, user_ip4, shown.v4_word());
    }
    ALLOW
}

#[cgroup_sock_addr(getsockname6)]
pub fn getsockname6(ctx: SockAddrContext) -> i32 {
    let local = Address([
        read!(ctx.sock_addr, user_ip6[0]),
        read!(ctx.sock_addr, user_ip6[1]),
        read!(ctx.sock_addr, user_ip6[2]),
        read!(ctx.sock_addr, user_ip6[3]),
    ]);
    if let Some(shown) = shown_source(&ctx, local) {
        write!(ctx.sock_addr, user_ip6[0], shown.0[0]);
        write!(ctx.sock_addr, user_ip6[1], shown.0[1]);
        write!(ctx.sock_addr, user_ip6[2], shown.0[2]);
        write!(ctx.sock_addr, user_ip6[3], shown.0[3]);
    }
    ALLOW
}
