//! From the kernel's events to reports: added up for a second by kind, workload and destination, and named.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{Receiver as Events, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{Sender, error::TrySendError};
use verbatim_api::v1::{self, CoverageEvent};
use verbatim_proxy::seam::{Identities, Identity};
use verbatim_steer::{Event, EventKind, Steering};

use super::{
    coverage,
    report::{KeptBack, Report},
    routes::Routes,
};

/// Events of a kind, workload and destination within this time become one record.
const COLLECT: Duration = Duration::from_secs(1);
/// Reports that wait to be recorded; while they do, events go on being added up.
pub(super) const WAITING: usize = 16;
/// Kinds, workloads and destinations that are added up at once; events of more are counted without them.
const MOST: usize = 1024;
/// Times that a report waits to be named: a container's first packet may come before anybody has told of it.
const PATIENCE: u32 = 3;

/// IP protocol numbers.
const TCP: u32 = 6;
const UDP: u32 = 17;

/// Starts the thread that reads them; it ends with the programs.
pub(crate) fn start(
    steering: &Steering,
    reports: Sender<Report>,
    identities: Arc<dyn Identities>,
    kept_back: Arc<KeptBack>,
) -> io::Result<()> {
    let Some(events) = steering.events() else {
        return Err(io::Error::other("the events have a reader already"));
    };
    let sums = Sums { sums: HashMap::new(), reports, identities, kept_back };
    let routes = Routes::new(steering.namespaces());
    std::thread::Builder::new().name("events".to_owned()).spawn(move || sums.read(&events, Some(routes)))?;
    Ok(())
}

/// Kind, cgroup, address, protocol.
type Key = (EventKind, u64, SocketAddr, u8);

struct Sum {
    count: u64,
    last: Event,
    event: CoverageEvent,
    identity: Arc<Identity>,
    /// Times that it was looked at.
    looks: u32,
}

struct Sums {
    sums: HashMap<Key, Sum>,
    reports: Sender<Report>,
    identities: Arc<dyn Identities>,
    kept_back: Arc<KeptBack>,
}

impl Sums {
    fn read(mut self, events: &Events<Event>, mut routes: Option<Routes>) {
        let mut due = Instant::now() + COLLECT;
        loop {
            match events.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    if let Some(routes) = &mut routes {
                        routes.see(&event);
                    }
                    self.add(event);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.hand_over(true),
            }
            // Whether or not more of them wait.
            if due <= Instant::now() {
                if let Some(routes) = &mut routes {
                    routes.tick();
                }
                self.hand_over(false);
                due = Instant::now() + COLLECT;
            }
        }
    }

    fn add(&mut self, event: Event) {
        let Event { kind, address, cgroup_id, pid, netns, protocol, .. } = event;
        tracing::debug!(?kind, %address, ?cgroup_id, ?pid, netns, "kernel event");
        let Some((meaning, _)) = meaning(kind) else { return };
        let key = (kind, cgroup_id.unwrap_or_default(), address, protocol);
        if let Some(sum) = self.sums.get_mut(&key) {
            sum.count = sum.count.saturating_add(1);
            sum.last = event;
            return;
        }
        if self.sums.len() >= MOST {
            return self.kept_back.add(1);
        }
        let identity = self.identify(&event);
        self.sums.insert(key, Sum { count: 1, last: event, event: meaning, identity, looks: 0 });
    }

    fn identify(&self, event: &Event) -> Arc<Identity> {
        let cgroup = event.cgroup_id.unwrap_or_default();
        self.identities.identify(&coverage::of_cgroup(cgroup, event.address, event.ktime_nanos))
    }

    fn hand_over(&mut self, last: bool) {
        let keys: Vec<Key> = self.sums.keys().copied().collect();
        for key in keys {
            let Some(mut sum) = self.sums.remove(&key) else { continue };
            sum.looks = sum.looks.saturating_add(1);
            if !is_named(&sum.identity) {
                let identity = self.identify(&sum.last);
                if is_named(&identity) {
                    sum.identity = identity;
                } else if sum.looks < PATIENCE && !last {
                    self.sums.insert(key, sum);
                    continue;
                }
            }
            let report = report(&sum);
            if last {
                // The log is what is left where nobody records any more.
                say(&sum);
                self.reports.blocking_send(report).ok();
                continue;
            }
            match self.reports.try_send(report) {
                Ok(()) => say(&sum),
                Err(TrySendError::Full(_)) => {
                    self.sums.insert(key, sum);
                    return;
                }
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }
}

fn is_named(identity: &Identity) -> bool {
    identity.workload.principal_kind() != v1::PrincipalKind::Unresolved
}

fn say(sum: &Sum) {
    let Event { address, cgroup_id, pid, netns, kind, .. } = sum.last;
    let what = meaning(kind).map_or("", |(_, what)| what);
    let (count, who) = (sum.count, sum.identity.display());
    tracing::warn!(count, %address, who, ?cgroup_id, ?pid, netns, "connection {what}");
}

fn report(sum: &Sum) -> Report {
    let Event { kind, netns, cgroup_id, pid, address, protocol, .. } = sum.last;
    let what = meaning(kind).map_or("", |(_, what)| what);
    let (protocol, target) = match kind {
        EventKind::SocketDenied => (u32::from(address.port()), None),
        EventKind::QuicDenied | EventKind::QuicPassed => (UDP, Some(address)),
        EventKind::Stray | EventKind::StrayDropped if u32::from(protocol) == UDP => (UDP, Some(address)),
        EventKind::BindDenied => (0, Some(address)),
        _ => (TCP, Some(address)),
    };
    Report {
        event: sum.event,
        count: sum.count,
        cgroup_id: cgroup_id.unwrap_or_default(),
        identity: Arc::clone(&sum.identity),
        pid,
        target,
        protocol,
        note: match netns {
            0 => what.to_owned(),
            netns => format!("{what}; network namespace {netns}"),
        },
    }
}

/// The record's kind, and what it means for a person. `None`: the proxy records it by itself.
fn meaning(kind: EventKind) -> Option<(CoverageEvent, &'static str)> {
    use CoverageEvent as Record;
    Some(match kind {
        EventKind::Miss => (Record::Missed, "refused: no listener in the network namespace"),
        EventKind::Denied => (Record::Denied, "refused by a rule"),
        EventKind::StaleDenied => {
            (Record::StaleDenied, "refused: the proxy gave no sign of life, and the workload fails closed")
        }
        EventKind::StalePassed => {
            (Record::StalePassed, "not captured: the proxy gave no sign of life, and the workload fails open")
        }
        EventKind::BoundToDevice => (
            Record::BoundToDevice,
            "not steered: the socket is bound to a device, or the address is of one link",
        ),
        EventKind::UnroutedConnected => {
            (Record::UnroutedConnected, "not captured: connected by IPv6 where no route was known")
        }
        EventKind::BindDenied => (Record::BindDenied, "refused: binding our listener's port"),
        EventKind::NoMemory => (Record::NoMemory, "refused: the kernel had no memory for the flow"),
        EventKind::QuicDenied => (Record::QuicDenied, "refused: UDP to port 443 of a steered destination"),
        EventKind::QuicPassed => {
            (Record::QuicPassed, "not captured: UDP to port 443 while nothing is steered")
        }
        EventKind::SocketDenied => {
            (Record::SocketDenied, "refused: a raw, SCTP or SMC socket of a steered workload")
        }
        EventKind::Stray => (Record::Stray, "not captured: it was connected before it could be steered"),
        EventKind::StrayDropped => {
            (Record::StrayDropped, "cut off: it was connected before it could be steered")
        }
        EventKind::Diverted => {
            (Record::Diverted, "not captured: something that runs after us sent it elsewhere")
        }
        EventKind::NoFlow => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU16, Ordering},
        mpsc::channel,
    };

    use verbatim_proxy::seam::Flow;

    use super::*;

    /// Names cgroups above 100.
    struct Some100;

    impl Identities for Some100 {
        fn identify(&self, flow: &Flow) -> Arc<Identity> {
            let (principal, kind) = match flow.cgroup_id {
                100.. => (format!("p{}", flow.cgroup_id), v1::PrincipalKind::Federated),
                _ => (String::new(), v1::PrincipalKind::Unresolved),
            };
            let workload = v1::Workload { principal, principal_kind: kind.into(), ..v1::Workload::default() };
            Arc::new(Identity { workload, ..Identity::default() })
        }
    }

    fn event(kind: EventKind, cgroup: u64, address: &str) -> Event {
        Event {
            kind,
            ktime_nanos: 1,
            netns: 3,
            cgroup_id: Some(cgroup),
            pid: Some(9),
            address: address.parse().unwrap(),
            suppressed: 0,
            protocol: 0,
        }
    }

    /// What is reported of these, and how many are only counted.
    fn reported(all: impl IntoIterator<Item = Event>) -> Vec<Report> {
        let (reports, mut receiver) = tokio::sync::mpsc::channel(4096);
        let kept_back = Arc::new(KeptBack::default());
        let sums = Sums { sums: HashMap::new(), reports, identities: Arc::new(Some100), kept_back };
        let (sender, events) = channel();
        all.into_iter().for_each(|event| sender.send(event).unwrap());
        drop(sender);
        sums.read(&events, None);
        let mut found: Vec<Report> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
        found.sort_by_key(|one| (one.event as i32, one.cgroup_id, one.target));
        found
    }

    #[test]
    fn events_are_added_up_by_kind_workload_and_destination() {
        let found = reported([
            event(EventKind::QuicDenied, 100, "10.0.0.1:443"),
            event(EventKind::QuicDenied, 100, "10.0.0.1:443"),
            event(EventKind::QuicDenied, 100, "10.0.0.2:443"),
            event(EventKind::QuicDenied, 101, "10.0.0.1:443"),
            event(EventKind::Denied, 100, "10.0.0.1:443"),
            event(EventKind::NoFlow, 100, "10.0.0.1:443"),
        ]);
        let all: Vec<_> = found
            .iter()
            .map(|one| (one.event, one.identity.display().to_owned(), one.protocol, one.count))
            .collect();
        let expected = [
            (CoverageEvent::Denied, "p100".to_owned(), 6, 1),
            (CoverageEvent::QuicDenied, "p100".to_owned(), 17, 2),
            (CoverageEvent::QuicDenied, "p100".to_owned(), 17, 1),
            (CoverageEvent::QuicDenied, "p101".to_owned(), 17, 1),
        ];
        assert_eq!(all, expected);
    }

    /// Sends the next event whenever it is asked who one is, so that one always waits; until it has been asked so often.
    struct Chatter {
        events: Mutex<Option<std::sync::mpsc::Sender<Event>>>,
        asked: AtomicU16,
        reports: Mutex<tokio::sync::mpsc::Receiver<Report>>,
        reported: AtomicBool,
    }

    impl Identities for Chatter {
        fn identify(&self, flow: &Flow) -> Arc<Identity> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            let mut events = self.events.lock().unwrap();
            if let Some(sender) = &*events {
                sender.send(event(EventKind::Denied, 100, &format!("10.0.0.2:{asked}"))).unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
            if asked >= 250 {
                self.reported.store(self.reports.lock().unwrap().try_recv().is_ok(), Ordering::Relaxed);
                *events = None;
            }
            Some100.identify(flow)
        }
    }

    #[test]
    fn events_without_a_pause_are_handed_over_all_the_same() {
        let (reports, receiver) = tokio::sync::mpsc::channel(4096);
        let (sender, events) = channel();
        sender.send(event(EventKind::Denied, 100, "10.0.0.1:443")).unwrap();
        let chatter = Arc::new(Chatter {
            events: Mutex::new(Some(sender)),
            asked: AtomicU16::default(),
            reports: Mutex::new(receiver),
            reported: AtomicBool::default(),
        });
        let identities = Arc::clone(&chatter) as Arc<dyn Identities>;
        let sums = Sums { sums: HashMap::new(), reports, identities, kept_back: Arc::default() };
        sums.read(&events, None);
        assert!(chatter.reported.load(Ordering::Relaxed), "nothing for more than a second");
    }

    #[test]
    fn a_stray_has_the_protocol_that_it_is_of() {
        let stray = event(EventKind::Stray, 100, "10.0.0.1:443");
        let found = reported([stray, Event { protocol: 17, ..stray }, Event { protocol: 6, ..stray }]);
        let mut protocols: Vec<_> = found.iter().map(|one| one.protocol).collect();
        protocols.sort_unstable();
        assert_eq!(protocols, [6, 6, 17]);
    }

    #[test]
    fn a_socket_that_was_denied_has_a_protocol_and_no_destination() {
        let found = reported([event(EventKind::SocketDenied, 100, "0.0.0.0:132")]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].target, found[0].protocol, found[0].pid), (None, 132, Some(9)));
    }

    #[test]
    fn destinations_without_end_cost_bounded_memory_and_are_counted() {
        let kept_back = Arc::new(KeptBack::default());
        let (reports, _receiver) = tokio::sync::mpsc::channel(1);
        let mut sums = Sums {
            sums: HashMap::new(),
            reports,
            identities: Arc::new(Some100),
            kept_back: Arc::clone(&kept_back),
        };
        for port in 1..=3000_u16 {
            sums.add(event(EventKind::Denied, 100, &format!("10.0.0.1:{port}")));
        }
        assert_eq!(sums.sums.len(), MOST);
        assert_eq!(kept_back.pending(), 3000 - MOST as u64);
    }

    #[test]
    fn who_is_not_named_yet_is_waited_for_a_while() {
        let (reports, mut receiver) = tokio::sync::mpsc::channel(16);
        let kept_back = Arc::new(KeptBack::default());
        let mut sums = Sums { sums: HashMap::new(), reports, identities: Arc::new(Some100), kept_back };
        sums.add(event(EventKind::Denied, 7, "10.0.0.1:1"));
        for _ in 1..PATIENCE {
            sums.hand_over(false);
            assert!(receiver.try_recv().is_err());
        }
        sums.hand_over(false);
        assert_eq!(receiver.try_recv().map(|one| one.cgroup_id), Ok(7));
    }
}
