//! What the programs have counted by cgroup, destination and outcome.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use aya::maps::{HashMap, MapData, MapError};
pub use verbatim_ebpf_common::Outcome;
use verbatim_ebpf_common::{ConnectCount, ConnectKey};
use verbatim_sys::clock;

use crate::{SteerError, locking::lock};

/// Elements that the map holds.
const MOST: usize = 65_536;

/// One element: connects of one cgroup to one destination with one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connects {
    /// cgroup v2 id of the callers; 0 of what had no room.
    pub cgroup_id: u64,
    /// What was dialled; a v4-mapped address comes as IPv4.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// What became of them.
    pub outcome: Outcome,
    /// Tells this element from an earlier one of the same cgroup, destination and outcome.
    pub series: u64,
    /// Calls of connect() since the element is there.
    pub connects: u64,
    /// Of these, how many became a connection.
    pub connected: u64,
}

impl Connects {
    /// `None`: of an outcome that this version does not know.
    fn new(key: &ConnectKey, count: &ConnectCount) -> Option<Self> {
        Some(Self {
            cgroup_id: key.cgroup_id,
            destination: SocketAddr::new(IpAddr::from(key.address), key.port),
            protocol: key.protocol,
            outcome: Outcome::from_number(key.outcome)?,
            series: count.series,
            connects: count.connects,
            connected: count.connected,
        })
    }

    fn key(&self) -> ConnectKey {
        ConnectKey {
            cgroup_id: self.cgroup_id,
            address: self.destination.ip().into(),
            port: self.destination.port(),
            protocol: self.protocol,
            outcome: self.outcome as u8,
            reserved: [0; 4],
        }
    }
}

/// Reads the map. Outlives the programs' attachment: what was counted last can be read when they are gone.
#[derive(Clone)]
pub struct ConnectReader {
    counts: Arc<Mutex<HashMap<MapData, ConnectKey, ConnectCount>>>,
}

impl ConnectReader {
    /// Sees to the element that counts what has no room: made once, kept by successors.
    pub(crate) fn new(counts: HashMap<MapData, ConnectKey, ConnectCount>) -> Result<Self, SteerError> {
        let reader = Self { counts: Arc::new(Mutex::new(counts)) };
        let series = ConnectCount::series_at(clock::monotonic_nanos(), 0);
        let first = ConnectCount { series, ..ConnectCount::default() };
        let mut counts = lock(&reader.counts);
        if let Err(MapError::KeyNotFound) = counts.get(&ConnectKey::UNCOUNTED, 0) {
            counts
                .insert(ConnectKey::UNCOUNTED, first, 0)
                .map_err(|error| SteerError::kernel("preparing the count of connects", error))?;
        }
        drop(counts);
        Ok(reader)
    }

    /// Everything that is counted now.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn read(&self) -> Result<Vec<Connects>, SteerError> {
        let counts = lock(&self.counts);
        let mut found = Vec::new();
        // What is removed while this reads can make the kernel begin again: more than all is no more.
        for element in counts.iter().take(2 * MOST) {
            let (key, count) =
                element.map_err(|error| SteerError::kernel("reading the count of connects", error))?;
            found.extend(Connects::new(&key, &count));
        }
        drop(counts);
        found.sort_by_key(|one| (one.cgroup_id, one.series, one.outcome as u8));
        found.dedup_by_key(|one| one.key());
        Ok(found)
    }

    /// How full the map is, in percent, with so many elements.
    #[must_use]
    pub fn percent_full(elements: usize) -> usize {
        elements.saturating_mul(100) / MOST
    }

    /// Makes room of an element that has not changed since it was read. `false`: it has, and stays.
    ///
    /// A connect at this very moment may go uncounted: its record then has a number that the kernel's count
    /// never reached.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn forget(&self, read: &Connects) -> Result<bool, SteerError> {
        if read.outcome == Outcome::Uncounted {
            return Ok(false);
        }
        let key = read.key();
        let mut counts = lock(&self.counts);
        let same = match counts.get(&key, 0) {
            Ok(now) => {
                (now.series, now.connects, now.connected) == (read.series, read.connects, read.connected)
            }
            Err(MapError::KeyNotFound) => false,
            Err(error) => return Err(SteerError::kernel("reading the count of connects", error)),
        };
        if same {
            counts
                .remove(&key)
                .map_err(|error| SteerError::kernel("making room in the count of connects", error))?;
        }
        drop(counts);
        Ok(same)
    }
}

#[cfg(test)]
mod tests {
    use verbatim_ebpf_common::Address;

    use super::*;

    #[test]
    fn an_element_leads_back_to_its_key() {
        for (address, outcome) in [("10.1.2.3", Outcome::Steered), ("fd00::1", Outcome::Denied)] {
            let ip: IpAddr = address.parse().unwrap();
            let key = ConnectKey {
                cgroup_id: 7,
                address: Address::from(ip),
                port: 5432,
                protocol: 6,
                outcome: outcome as u8,
                reserved: [0; 4],
            };
            let one = Connects::new(&key, &ConnectCount::default()).unwrap();
            assert_eq!((one.key(), one.destination), (key, SocketAddr::new(ip, 5432)));
        }
        let unknown = ConnectKey { outcome: 99, ..ConnectKey::default() };
        assert_eq!(Connects::new(&unknown, &ConnectCount::default()), None);
    }
}
