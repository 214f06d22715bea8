//! From the kernel's events to the log, and to coverage records for connections that went uncaptured or
//! were refused for our sake.

use std::{
    collections::BTreeMap,
    io,
    sync::mpsc::{Receiver as Events, RecvTimeoutError},
    time::Duration,
};

use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};
use verbatim_steer::{Event, EventKind, Steering};

/// Events of a kind within this time become one record.
const COLLECT: Duration = Duration::from_secs(1);
/// Reports that wait to be recorded; while they do, events go on being added up.
const WAITING: usize = 16;

/// Some events of one kind.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) count: u64,
    pub(crate) note: String,
}

/// Starts the thread that reads them; it ends with the programs.
pub(crate) fn start(steering: &Steering) -> io::Result<Receiver<Report>> {
    let (reports, receiver) = mpsc::channel(WAITING);
    let Some(events) = steering.events() else {
        return Err(io::Error::other("the events have a reader already"));
    };
    std::thread::Builder::new().name("events".to_owned()).spawn(move || read(&events, &reports))?;
    Ok(receiver)
}

/// Number of events, and the last one.
type Sums = BTreeMap<&'static str, (u64, Event)>;

fn read(events: &Events<Event>, reports: &Sender<Report>) {
    let mut sums = Sums::new();
    loop {
        match events.recv_timeout(COLLECT) {
            Ok(event) => add(&mut sums, event),
            Err(RecvTimeoutError::Timeout) => hand_over(&mut sums, reports, false),
            Err(RecvTimeoutError::Disconnected) => return hand_over(&mut sums, reports, true),
        }
    }
}

/// What an event means, and whether a connection went uncaptured or was refused because of us.
fn meaning(kind: EventKind) -> Option<&'static str> {
    match kind {
        EventKind::Miss => Some("refused: no listener in the network namespace"),
        EventKind::StaleDenied => {
            Some("refused: the proxy gave no sign of life, and the workload fails closed")
        }
        EventKind::StalePassed => {
            Some("not captured: the proxy gave no sign of life, and the workload fails open")
        }
        EventKind::BoundToDevice => Some("not steered: the socket is bound to a device"),
        EventKind::UnroutedConnected => Some("not captured: connected by IPv6 where no route was known"),
        EventKind::NoMemory => Some("refused: the kernel had no memory for the flow"),
        EventKind::QuicDenied => Some("denied: UDP to port 443 of a steered destination"),
        EventKind::QuicPassed => Some("not captured: UDP to port 443 while nothing is steered"),
        EventKind::SocketDenied => Some("denied: a raw, SCTP or SMC socket of a steered workload"),
        EventKind::Stray => Some("not captured: it was connected before it could be steered"),
        EventKind::StrayDropped => Some("cut off: it was connected before it could be steered"),
        EventKind::Diverted => Some("not captured: something that runs after us sent it elsewhere"),
        // A rule's own doing; an attempt on our port; and what the proxy records by itself.
        EventKind::Denied | EventKind::BindDenied | EventKind::NoFlow => None,
    }
}

fn add(sums: &mut Sums, event: Event) {
    let Event { kind, address, cgroup_id, pid, netns, .. } = event;
    tracing::debug!(?kind, %address, ?cgroup_id, ?pid, netns, "kernel event");
    let count = u64::from(event.suppressed).saturating_add(1);
    let Some(meaning) = meaning(kind) else { return };
    let (sum, last) = sums.entry(meaning).or_insert((0, event));
    *sum = sum.saturating_add(count);
    *last = event;
}

fn hand_over(sums: &mut Sums, reports: &Sender<Report>, last: bool) {
    while let Some((meaning, (count, event))) = sums.pop_first() {
        let Event { address, cgroup_id, pid, netns, .. } = event;
        tracing::warn!(count, %address, ?cgroup_id, ?pid, netns, "connection {meaning}");
        let note = format!(
            "{meaning}; last: to {address} from process {} in cgroup {}, network namespace {netns}",
            pid.unwrap_or(0),
            cgroup_id.unwrap_or(0),
        );
        let report = Report { count, note };
        if last {
            reports.blocking_send(report).ok();
            continue;
        }
        if let Err(TrySendError::Full(_)) = reports.try_send(report) {
            sums.insert(meaning, (count, event));
            return;
        }
    }
}
