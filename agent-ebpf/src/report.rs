//! Counting, and telling user space what happened, at a limited rate.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
};
use aya_log_ebpf::warn;
use verbatim_ebpf_common::{Address, Counter, Event, EventKind, RateWindow};

use crate::maps::{CNT, EVENTS, RATE};

/// Adds one on this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = CNT.get_ptr_mut(counter as u32) {
        // SAFETY: the element is this CPU's own, and programs of its kind do not migrate.
        unsafe { *value += 1 }
    }
}

/// What an event is about.
pub struct Subject {
    pub netns: u64,
    pub cgroup_id: u64,
    pub address: Address,
    pub port: u16,
    /// Thread group id of who caused it; 0 where nobody is known.
    pub pid: u32,
    /// IP protocol number, where it does not follow from the kind; else 0.
    pub protocol: u8,
}

/// Thread group id of the caller. Not for sock_ops and packets: they run for whoever is on the CPU, and kernels
/// before 6.10 do not lend them the helper.
#[inline(always)]
pub fn caller() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Sends an event and logs it, unless this CPU has sent enough of its kind in this second.
#[inline(always)]
pub fn event(ctx: &impl EbpfContext, kind: EventKind, subject: &Subject) {
    // SAFETY: helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(window) = RATE.get_ptr_mut(kind as u32) else { return };
    // SAFETY: as above.
    let window = unsafe { &mut *window };
    let mut suppressed = 0;
    if now.wrapping_sub(window.since_nanos) >= RateWindow::NANOS {
        suppressed = window.suppressed;
        *window = RateWindow { since_nanos: now, sent: 0, suppressed: 0 };
    }
    if window.sent >= RateWindow::EVENTS {
        window.suppressed += 1;
        count(Counter::EventsSuppressed);
        return;
    }
    window.sent += 1;
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(Event {
                ktime_nanos: now,
                netns: subject.netns,
                cgroup_id: subject.cgroup_id,
                address: subject.address,
                pid: subject.pid,
                suppressed,
                port: subject.port,
                kind: kind as u8,
                protocol: subject.protocol,
                reserved: [0; 4],
            });
            entry.submit(0);
        }
        None => count(Counter::EventsLost),
    }
    log(ctx, kind, subject);
}

/// One message per kind, as literals: a text that is chosen at run time has a length that the
/// verifier follows byte by byte, at fifteen times the cost.
#[inline(always)]
fn log(ctx: &impl EbpfContext, kind: EventKind, subject: &Subject) {
    let Subject { netns, cgroup_id, port, .. } = *subject;
    macro_rules! say {
        ($what:literal) => {
            warn!(ctx, $what, netns, cgroup_id, port)
        };
    }
    match kind {
        EventKind::Miss => say!("connect refused: no listener in namespace {}, cgroup {}, port {}"),
        EventKind::Denied => say!("connect denied by rule: namespace {}, cgroup {}, port {}"),
        EventKind::StaleDenied => say!("connect denied, proxy is dead: namespace {}, cgroup {}, port {}"),
        EventKind::StalePassed => {
            say!("connect not captured, proxy is dead: namespace {}, cgroup {}, port {}")
        }
        EventKind::BoundToDevice => {
            say!("connect bound to a device or a link: namespace {}, cgroup {}, port {}")
        }
        EventKind::UnroutedConnected => {
            say!("connect not captured, ipv6 route was unknown: namespace {}, cgroup {}, port {}")
        }
        EventKind::BindDenied => say!("bind to our port denied: namespace {}, cgroup {}, port {}"),
        EventKind::NoMemory => {
            say!("connect denied, no memory for its flow: namespace {}, cgroup {}, port {}")
        }
        EventKind::NoFlow => say!("connection without a flow: namespace {}, cgroup {}, client port {}"),
        EventKind::QuicDenied => say!("quic denied: namespace {}, cgroup {}, port {}"),
        EventKind::QuicPassed => say!("quic not captured: namespace {}, cgroup {}, port {}"),
        EventKind::SocketDenied => say!("socket denied: namespace {}, cgroup {}, protocol {}"),
        EventKind::Stray => say!("connection that was not steered: namespace {}, cgroup {}, port {}"),
        EventKind::StrayDropped => {
            say!("connection that was not steered is cut off: namespace {}, cgroup {}, port {}")
        }
        EventKind::Diverted => say!("connect sent elsewhere after us: namespace {}, cgroup {}, port {}"),
    }
}
