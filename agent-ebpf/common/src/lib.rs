//! Map keys and values that the eBPF programs and user space share.
//!
//! Plain `#[repr(C)]` data without implicit padding; knows neither helpers nor system calls.
//! Addresses are four words in network byte order, IPv4 in its v4-mapped form; ports are in host
//! byte order unless a field says otherwise.
#![no_std]

mod address;
mod bypass;
mod config;
mod connects;
mod counter;
mod event;
mod flow;
#[cfg(test)]
mod layout;
mod mark;
mod rules;
mod target;

pub use address::Address;
pub use bypass::Bypass;
pub use config::Config;
pub use connects::{ConnectCount, ConnectKey, Outcome};
pub use counter::Counter;
pub use event::{Event, EventKind, RateWindow};
pub use flow::{Flow, FlowKey, LEVELS, Route};
pub use mark::{Mark, MarkState, Stray};
pub use rules::{Action, Destination, FailMode, Verdict};
pub use target::Target;

/// Names the pin directory: raised whenever a map's or struct's layout changes.
pub const SCHEMA_VERSION: u32 = 2;

/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;
/// Where QUIC is spoken: UDP to this port of a steered destination is denied.
pub const QUIC_PORT: u16 = 443;
/// The kernel's number of the IPv4 family on Linux.
pub const AF_INET: u8 = 2;
/// The kernel's number of the IPv6 family on Linux.
pub const AF_INET6: u8 = 10;

/// Plain data may be copied between kernel and user space byte by byte.
#[cfg(feature = "user")]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($name:ty),+ $(,)?) => {
            $(
                // SAFETY: `repr(C)` or transparent, Copy, no references, no implicit padding (see
                // `layout`), and every bit pattern is a value: closed sets are kept as integers.
                unsafe impl aya::Pod for $name {}
            )+
        };
    }

    pod!(
        Address,
        Bypass,
        Config,
        ConnectCount,
        ConnectKey,
        Destination,
        Event,
        Flow,
        FlowKey,
        Mark,
        RateWindow,
        Stray,
        Target,
        Verdict
    );
}
