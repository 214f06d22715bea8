//! What the programs report as it happens.

use std::net::{IpAddr, SocketAddr};

use verbatim_ebpf_common as common;
pub use verbatim_ebpf_common::EventKind;

/// Something that happened in the kernel and that somebody should know of. At most
/// [`common::RateWindow::EVENTS`] a second, CPU and kind are sent; the counters are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub ktime_nanos: u64,
    /// Cookie of the network namespace; 0 for a stray, whose namespace the kernel does not say.
    pub netns: u64,
    /// cgroup v2 id of the caller, of a stray that of its socket; `None`: a connection without a flow.
    pub cgroup_id: Option<u64>,
    /// Process id of the caller in the first pid namespace; `None` where nobody calls.
    pub pid: Option<u32>,
    /// What was dialled or bound; of a connection without a flow the client's end; of a socket that was
    /// denied no address, and its protocol number for a port.
    pub address: SocketAddr,
    /// Events of this kind that the same CPU kept back in the second before this one.
    pub suppressed: u32,
    /// IP protocol number of a stray; 0 of what says by its kind which protocol it is.
    pub protocol: u8,
}

impl Event {
    /// From the bytes of a ring buffer's element. `None`: not of this version.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if bytes.len() != size_of::<common::Event>() {
            return None;
        }
        let kind = EventKind::from_number(*bytes.get(KIND)?)?;
        // A packet and an accepted connection have no caller.
        let called = !matches!(kind, EventKind::NoFlow | EventKind::Stray | EventKind::StrayDropped);
        let address =
            common::Address([word(ADDRESS)?, word(ADDRESS + 4)?, word(ADDRESS + 8)?, word(ADDRESS + 12)?]);
        let port = u16::from_ne_bytes(bytes.get(PORT..PORT + 2)?.try_into().ok()?);
        Some(Self {
            kind,
            ktime_nanos: long(KTIME)?,
            netns: long(NETNS)?,
            cgroup_id: Some(long(CGROUP)?).filter(|_| kind != EventKind::NoFlow),
            pid: Some(word(PID)?).filter(|_| called),
            address: SocketAddr::new(IpAddr::from(address), port),
            suppressed: word(SUPPRESSED)?,
            protocol: *bytes.get(PROTOCOL)?,
        })
    }
}

const KTIME: usize = std::mem::offset_of!(common::Event, ktime_nanos);
const NETNS: usize = std::mem::offset_of!(common::Event, netns);
const CGROUP: usize = std::mem::offset_of!(common::Event, cgroup_id);
const ADDRESS: usize = std::mem::offset_of!(common::Event, address);
const PID: usize = std::mem::offset_of!(common::Event, pid);
const SUPPRESSED: usize = std::mem::offset_of!(common::Event, suppressed);
const PORT: usize = std::mem::offset_of!(common::Event, port);
const KIND: usize = std::mem::offset_of!(common::Event, kind);
const PROTOCOL: usize = std::mem::offset_of!(common::Event, protocol);

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<common::Event>()];
        bytes[KTIME..KTIME + 8].copy_from_slice(&7_u64.to_ne_bytes());
        bytes[NETNS..NETNS + 8].copy_from_slice(&8_u64.to_ne_bytes());
        bytes[CGROUP..CGROUP + 8].copy_from_slice(&9_u64.to_ne_bytes());
        let address = common::Address::from(std::net::Ipv4Addr::new(10, 1, 2, 3));
        for (at, word) in (ADDRESS..).step_by(4).zip(address.0) {
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[PID..PID + 4].copy_from_slice(&10_u32.to_ne_bytes());
        bytes[PORT..PORT + 2].copy_from_slice(&5432_u16.to_ne_bytes());
        bytes[KIND] = kind;
        bytes
    }

    #[test]
    fn an_event_is_read_back_field_by_field() {
        let event = Event::parse(&bytes(EventKind::Miss as u8)).unwrap();
        assert_eq!(event.kind, EventKind::Miss);
        assert_eq!((event.ktime_nanos, event.netns), (7, 8));
        assert_eq!((event.cgroup_id, event.pid), (Some(9), Some(10)));
        assert_eq!(event.address, "10.1.2.3:5432".parse().unwrap());
    }

    #[test]
    fn a_connection_without_a_flow_has_no_caller() {
        let event = Event::parse(&bytes(EventKind::NoFlow as u8)).unwrap();
        assert_eq!((event.cgroup_id, event.pid), (None, None));
    }

    #[test]
    fn bytes_of_another_version_are_no_event() {
        assert_eq!(Event::parse(&[]), None);
        assert_eq!(Event::parse(&bytes(0)), None);
        assert_eq!(Event::parse(&bytes(1)[1..]), None);
    }
}
