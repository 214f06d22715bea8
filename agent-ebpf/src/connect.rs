//! connect4, connect6: what the caller wants, and what it gets instead.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use verbatim_ebpf_common::{AF_INET, AF_INET6, Address, TCP, UDP};

use crate::{
    datagram,
    judge::{Attempt, Decision, decide},
    socket::{read, write},
};

const ALLOW: i32 = 1;
/// connect() answers EPERM.
const REFUSE: i32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    let sk = read!(addr, __bindgen_anon_1.sk);
    let protocol = read!(addr, protocol);
    let destination = Address::from_v4_word(read!(addr, user_ip4));
    let port = u16::from_be(read!(addr, user_port) as u16);
    if protocol == u32::from(UDP) {
        return if datagram::permits(&ctx, sk, destination, port) { ALLOW } else { REFUSE };
    }
    if protocol != u32::from(TCP) || sk.is_null() {
        return ALLOW;
    }
    let attempt = Attempt {
        sk,
        destination,
        port,
        family: AF_INET,
        device: read!(sk, bound_dev_if),
        unbound: read!(sk, src_ip4) == 0,
    };
    match decide(&ctx, &attempt) {
        Decision::Pass => ALLOW,
        Decision::Deny => REFUSE,
        Decision::Send { to, port } => {
            write!(addr, user_ip4, to.v4_word());
            write!(addr, user_port, u32::from(port.to_be()));
            ALLOW
        }
    }
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    let sk = read!(addr, __bindgen_anon_1.sk);
    let protocol = read!(addr, protocol);
    let destination = Address([
        read!(addr, user_ip6[0]),
        read!(addr, user_ip6[1]),
        read!(addr, user_ip6[2]),
        read!(addr, user_ip6[3]),
    ]);
    let port = u16::from_be(read!(addr, user_port) as u16);
    if protocol == u32::from(UDP) {
        return if datagram::permits(&ctx, sk, destination, port) { ALLOW } else { REFUSE };
    }
    if protocol != u32::from(TCP) || sk.is_null() {
        return ALLOW;
    }
    let attempt = Attempt {
        sk,
        destination,
        port,
        family: AF_INET6,
        device: read!(sk, bound_dev_if),
        // Word 2 is left out: it is set in `::ffff:0.0.0.0`, which is unbound too.
        unbound: read!(sk, src_ip6[0]) == 0 && read!(sk, src_ip6[1]) == 0 && read!(sk, src_ip6[3]) == 0,
    };
    match decide(&ctx, &attempt) {
        Decision::Pass => ALLOW,
        Decision::Deny => REFUSE,
        Decision::Send { to, port } => {
            // A v4-mapped destination stays v4-mapped: its other words are right already.
            if !attempt.is_v4() {
                write!(addr, user_ip6[0], to.0[0]);
                write!(addr, user_ip6[1], to.0[1]);
                write!(addr, user_ip6[2], to.0[2]);
            }
            write!(addr, user_ip6[3], to.0[3]);
            write!(addr, user_port, u32::from(port.to_be()));
            ALLOW
        }
    }
}
