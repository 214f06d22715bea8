//! Not steering for a while, because a person asked for it.
//!
//! Owns the order as the kernel has it: it ends by itself there, whatever becomes of this process. Knows
//! nothing of who may ask, and records nothing.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use aya::maps::{Array, Map, MapData, PerCpuArray};
use verbatim_ebpf_common::{Bypass as Value, Counter, SCHEMA_VERSION};
use verbatim_sys::clock;

use crate::{SteerError, counters, locking::lock};

/// An order not to steer for a while, as the kernel keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// When it was asked for, nanoseconds of CLOCK_MONOTONIC.
    pub since_nanos: u64,
    /// When it ends by itself, or has ended, nanoseconds of CLOCK_MONOTONIC.
    pub until_nanos: u64,
    /// Connections that had passed under earlier ones.
    pub counted_before: u64,
    /// User id of the process that asked.
    pub uid: u32,
    /// Login user id of that process, where it has one.
    pub login: Option<u32>,
    /// Why.
    pub reason: String,
    /// Whether its begin is recorded.
    pub recorded: bool,
}

impl Bypass {
    /// The longest reason, bytes.
    pub const REASON_BYTES: usize = Value::REASON_BYTES;

    /// How much longer it holds; zero: it has ended.
    #[must_use]
    pub fn left(&self) -> Duration {
        Duration::from_nanos(self.until_nanos.saturating_sub(clock::monotonic_nanos()))
    }

    fn from_value(value: &Value) -> Option<Self> {
        if value.since_nanos == 0 {
            return None;
        }
        let length = usize::try_from(value.reason_bytes).unwrap_or(usize::MAX).min(value.reason.len());
        let (reason, _) = value.reason.split_at(length);
        Some(Self {
            since_nanos: value.since_nanos,
            until_nanos: value.until_nanos,
            counted_before: value.counted_before,
            uid: value.uid,
            login: (value.login != Value::NO_LOGIN).then_some(value.login),
            reason: String::from_utf8_lossy(reason).into_owned(),
            recorded: value.recorded != 0,
        })
    }

    fn to_value(&self) -> Result<Value, SteerError> {
        let mut reason = [0; Value::REASON_BYTES];
        let Some(place) = reason.get_mut(..self.reason.len()) else {
            return Err(SteerError::Invalid {
                what: "reason of a bypass".into(),
                cause: format!("longer than {} bytes", Value::REASON_BYTES),
            });
        };
        place.copy_from_slice(self.reason.as_bytes());
        Ok(Value {
            until_nanos: self.until_nanos,
            since_nanos: self.since_nanos,
            counted_before: self.counted_before,
            uid: self.uid,
            login: self.login.unwrap_or(Value::NO_LOGIN),
            reason_bytes: u32::try_from(self.reason.len()).unwrap_or(0),
            recorded: self.recorded.into(),
            reason,
        })
    }
}

/// Name of the counter of connections that have passed.
pub const BYPASSED: &str = Counter::Bypassed.name();

/// What programs go by that outlive their agent.
pub struct Pinned {
    /// Their order.
    pub bypasses: Bypasses,
    /// Connections that have passed under all orders.
    pub passed: u64,
}

/// Begins and ends it. A handle: clones are the same order.
#[derive(Clone)]
pub struct Bypasses {
    order: Arc<Mutex<Array<MapData, Value>>>,
}

impl Bypasses {
    pub(crate) fn new(order: Array<MapData, Value>) -> Self {
        Self { order: Arc::new(Mutex::new(order)) }
    }

    /// The order that programs go by which outlive their agent, without one: pinned in this directory.
    ///
    /// # Errors
    /// Nothing is pinned there, or may not be opened.
    pub fn pinned(parent: &Path) -> Result<Pinned, SteerError> {
        let directory = parent.join(format!("v{SCHEMA_VERSION}"));
        let open = |name: &str| {
            let path = directory.join(name);
            let failed = |error| SteerError::kernel(format!("opening {}", path.display()), error);
            MapData::from_pin(&path).map_err(failed).map(Map::from_map_data)
        };
        let failed = |error| SteerError::kernel("reading a pinned map", error);
        let order = Array::try_from(open("BYP")?.map_err(failed)?).map_err(failed)?;
        let counts = PerCpuArray::try_from(open("CNT")?.map_err(failed)?).map_err(failed)?;
        let passed = counters::read(&counts)?.into_iter().find(|(name, _)| *name == BYPASSED);
        Ok(Pinned { bypasses: Self::new(order), passed: passed.map_or(0, |(_, passed)| passed) })
    }

    /// The order that holds now, or one whose end was not [`forget`](Self::forget)-ten yet.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn read(&self) -> Result<Option<Bypass>, SteerError> {
        let value =
            lock(&self.order).get(&0, 0).map_err(|error| SteerError::kernel("reading the bypass", error))?;
        Ok(Bypass::from_value(&value))
    }

    /// From now on the kernel goes by this order, in the place of any other.
    ///
    /// # Errors
    /// The reason is too long, or the map cannot be written.
    pub fn set(&self, bypass: &Bypass) -> Result<(), SteerError> {
        self.write(bypass.to_value()?)
    }

    /// No order any more.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn forget(&self) -> Result<(), SteerError> {
        self.write(Value::NONE)
    }

    fn write(&self, value: Value) -> Result<(), SteerError> {
        lock(&self.order).set(0, value, 0).map_err(|error| SteerError::kernel("writing the bypass", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(reason: &str) -> Bypass {
        Bypass {
            since_nanos: 1,
            until_nanos: 2,
            counted_before: 3,
            uid: 0,
            login: Some(1000),
            reason: reason.to_owned(),
            recorded: true,
        }
    }

    #[test]
    fn an_order_is_read_as_it_was_written() {
        for order in [order("the database is down"), Bypass { login: None, recorded: false, ..order("") }] {
            assert_eq!(Bypass::from_value(&order.to_value().unwrap()), Some(order));
        }
        assert_eq!(Bypass::from_value(&Value::NONE), None);
    }

    #[test]
    fn a_reason_that_does_not_fit_is_refused() {
        assert!(order(&"x".repeat(Bypass::REASON_BYTES)).to_value().is_ok());
        assert!(order(&"x".repeat(Bypass::REASON_BYTES + 1)).to_value().is_err());
    }
}
