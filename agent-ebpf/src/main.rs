//! The eBPF programs: steer connect() to the proxy's listener, hide that from the workload, hand over
//! to the accepted socket what connect() saw, and deny or report what goes another way.
//!
//! They decide by maps alone; what the maps mean for pods, names or policies is user space's affair.
#![no_std]
#![no_main]
// Inline assembly of this target, for the one atomic operation that there is no function for.
#![feature(asm_experimental_arch)]

mod backstop;
mod bind;
mod connect;
mod coverage;
mod create;
mod datagram;
mod hand_off;
mod judge;
mod lookup;
mod maps;
mod marks;
mod names;
mod report;
mod socket;

/// Never called: nothing here can panic, and the verifier would refuse a program that could.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lends some helpers only to programs that are licensed like this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
