//! Who opened the socket: what the kernel saw, and what /proc says of that process as long as it is
//! still the same one.

use std::{cell::RefCell, collections::VecDeque, fs, net::SocketAddr, rc::Rc};

use verbatim_api::v1;
use verbatim_sys::{clock, process};

use crate::seam::Flow;

mod arguments;

/// Processes remembered per shard.
const REMEMBERED: usize = 128;

/// What /proc said of a process.
#[derive(Debug, Default, PartialEq, Eq)]
struct Process {
    pid: u32,
    start_ticks: u64,
    executable: String,
    arguments: Vec<String>,
}

/// The last processes that opened connections.
#[derive(Default)]
pub(crate) struct Clients(RefCell<VecDeque<Rc<Process>>>);

impl Clients {
    /// The client of a flow, without what an identity says. Reads /proc once for a process, its start time for each
    /// connection.
    pub(crate) fn describe(&self, flow: &Flow, source: SocketAddr) -> v1::Client {
        let mut client = v1::Client {
            pid: flow.pid,
            uid: flow.uid,
            gid: flow.gid,
            comm: flow.comm.clone(),
            socket_cookie: flow.socket_cookie,
            source_address: source.ip().to_string(),
            source_port: u32::from(source.port()),
            ..v1::Client::default()
        };
        if let Some(process) = self.process(flow) {
            client.executable.clone_from(&process.executable);
            client.arguments.clone_from(&process.arguments);
        }
        client
    }

    fn process(&self, flow: &Flow) -> Option<Rc<Process>> {
        let folder = format!("/proc/{}", flow.pid);
        let start_ticks = process::start_ticks(flow.pid).ok()?;
        if !started_before(start_ticks, flow.ktime_nanos) {
            return None;
        }
        let mut known = self.0.borrow_mut();
        if let Some(process) =
            known.iter().find(|process| process.pid == flow.pid && process.start_ticks == start_ticks)
        {
            return Some(Rc::clone(process));
        }
        let executable = fs::read_link(format!("{folder}/exe")).ok()?;
        let command_line = fs::read(format!("{folder}/cmdline")).unwrap_or_default();
        let process = Rc::new(Process {
            pid: flow.pid,
            start_ticks,
            executable: executable.to_string_lossy().into_owned(),
            arguments: arguments::redacted(&command_line),
        });
        // It may have died and been replaced between the two looks.
        if process::start_ticks(flow.pid).ok() != Some(start_ticks) {
            return None;
        }
        if known.len() >= REMEMBERED {
            known.pop_front();
        }
        known.push_back(Rc::clone(&process));
        Some(process)
    }
}

/// Whether a process that started then can have made a connection at this CLOCK_MONOTONIC time. Start
/// times are on the boot clock, which does not stop while the machine sleeps.
fn started_before(start_ticks: u64, connect_monotonic_nanos: u64) -> bool {
    let asleep = clock::boottime_nanos().saturating_sub(clock::monotonic_nanos());
    let tick_nanos = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    // Start times are rounded down to a tick, the two clocks are read one after the other.
    start_ticks.saturating_mul(tick_nanos) <= connect_monotonic_nanos.saturating_add(asleep + tick_nanos)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn flow() -> Flow {
        Flow {
            destination: SocketAddr::from((Ipv4Addr::LOCALHOST, 5432)),
            cgroup_id: 1,
            ancestor_cgroup_ids: Vec::new(),
            pid: std::process::id(),
            uid: 0,
            gid: 0,
            client_netns: 1,
            listener_netns: 1,
            socket_cookie: 1,
            ktime_nanos: clock::monotonic_nanos(),
            comm: "test".to_owned(),
            connect_series: 0,
            connect_number: 0,
        }
    }

    #[test]
    fn a_living_process_is_described_and_one_that_started_after_the_connect_is_not() {
        let clients = Clients::default();
        let source = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let own = clients.describe(&flow(), source);
        let executable = std::env::current_exe().expect("own executable");
        assert_eq!(own.executable, executable.to_string_lossy());
        assert!(!own.arguments.is_empty());

        let earlier = Flow { ktime_nanos: 0, ..flow() };
        let other = clients.describe(&earlier, source);
        assert_eq!((other.pid, other.executable.as_str()), (std::process::id(), ""));
        assert!(other.arguments.is_empty());
    }

    #[test]
    fn a_process_that_has_gone_is_known_only_as_the_kernel_saw_it() {
        let gone = Flow { pid: u32::MAX, ..flow() };
        let source = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let client = Clients::default().describe(&gone, source);
        assert_eq!((client.comm.as_str(), client.executable.as_str()), ("test", ""));
    }
}
