//! Namespaces that get an IPv6 route after they were looked at: until the kernel's program knows it, connections that
//! use it pass uncaptured.

use std::collections::HashSet;

use verbatim_steer::{Event, EventKind, Namespaces};

/// How often all namespaces without a route are looked at, in ticks of a second: the kernel does not tell of every
/// connection where there are many.
const LOOK: u32 = 60;

/// Looks for routes where a connection has shown that there is one, and now and then everywhere.
pub(super) struct Routes {
    namespaces: Namespaces,
    shown: HashSet<u64>,
    ticks: u32,
}

impl Routes {
    pub(super) fn new(namespaces: Namespaces) -> Self {
        Self { namespaces, shown: HashSet::new(), ticks: 0 }
    }

    /// An event of the kernel's.
    pub(super) fn see(&mut self, event: &Event) {
        if event.kind == EventKind::UnroutedConnected {
            self.shown.insert(event.netns);
        }
    }

    /// Once a second.
    pub(super) fn tick(&mut self) {
        self.ticks = (self.ticks + 1) % LOOK;
        if self.ticks == 0 {
            self.shown.extend(self.namespaces.without_v6_route());
        }
        for cookie in self.shown.drain() {
            match self.namespaces.refresh(cookie) {
                Ok(found) if found.has_v6_route => {
                    tracing::info!(cookie, "a namespace has an IPv6 route now: it is captured from here on");
                }
                Ok(_) => {}
                // It may be gone by now.
                Err(error) => tracing::debug!(cookie, %error, "a namespace's routes cannot be looked at"),
            }
        }
    }
}
