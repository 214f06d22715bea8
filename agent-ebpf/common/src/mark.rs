//! What is remembered of a socket beside its flow, and of those that slipped past.

use crate::{Address, Verdict};

/// What the backstop has found out about a socket. Kept in maps as its number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkState {
    /// Nothing yet.
    Unseen = 0,
    /// Nothing to do: it goes nowhere that is steered, was accepted here, or is counted already.
    Exempt = 1,
    /// It is a stray that was reported; its packets pass.
    Reported = 2,
    /// It is a stray that was reported; its packets are dropped.
    Dropped = 3,
}

/// What is remembered of a socket of a steered workload: value of `SKM`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// cgroup v2 id of the socket's creator, where its workload was steered then; else 0.
    pub creator_cgroup: u64,
    /// Value of `EPOCH` for which `state` holds: rules may have changed since.
    pub epoch: u32,
    /// What held for the creator when it made the socket.
    pub creator_verdict: Verdict,
    /// A [`MarkState`] as its number.
    pub state: u8,
    /// Zero.
    pub reserved: u8,
}

/// A connected socket of a steered workload to a steered destination that came past its connect():
/// value of `STRAYS`, by the socket's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stray {
    /// cgroup v2 id of the socket: its creator's.
    pub cgroup_id: u64,
    /// Its own address.
    pub local: Address,
    /// Where it is connected to.
    pub remote: Address,
    /// Its own port.
    pub local_port: u16,
    /// The other port.
    pub remote_port: u16,
    /// Family of the socket: [`crate::AF_INET`] or [`crate::AF_INET6`].
    pub family: u8,
    /// 1 where its packets are dropped.
    pub dropped: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
