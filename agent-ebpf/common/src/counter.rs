//! What the programs count, per CPU, in `CNT`.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Index of a counter.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Counter {
            $($(#[$doc])* $variant,)+
        }

        impl Counter {
            /// All of them, in the order of their index.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Name for metrics and records.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

counters! {
    /// Connects sent to an in-pod listener.
    SteeredInPod = "steered_in_pod",
    /// Connects sent to the host listener.
    SteeredHost = "steered_host",
    /// Connects of our own cgroups.
    Own = "own",
    /// Connects to destinations that no rule names.
    UnmatchedDestination = "unmatched_destination",
    /// Connects to destinations that a rule lets pass.
    PassedDestination = "passed_destination",
    /// Connects of workloads whose verdict is to pass.
    PassedCgroup = "passed_cgroup",
    /// Connects that a rule denied.
    Denied = "denied",
    /// Connects refused because the proxy is dead.
    StaleDenied = "stale_denied",
    /// Connects passed uncaptured because the proxy is dead.
    StalePassed = "stale_passed",
    /// Connects refused for want of a listener in their namespace.
    Missed = "missed",
    /// Connects bound to a device, without a host listener, that were denied.
    DeviceDenied = "device_denied",
    /// Connects bound to a device, without a host listener, that passed uncaptured.
    DevicePassed = "device_passed",
    /// Connects aimed at our own listener.
    SelfAimed = "self_aimed",
    /// IPv6 connects left to fail by themselves for want of a route.
    Unrouted = "unrouted",
    /// Such connects that found a route after all.
    UnroutedConnected = "unrouted_connected",
    /// Connects refused because the kernel had no memory for their flow.
    NoMemory = "no_memory",
    /// Handshakes begun with a flow.
    HandshakesBegun = "handshakes_begun",
    /// Flows that could not be kept for the time of the handshake.
    HandshakesLost = "handshakes_lost",
    /// Accepted sockets that got their flow.
    HandedOff = "handed_off",
    /// Connections that reached a listener without a flow.
    WithoutFlow = "without_flow",
    /// Binds to our listener's port that were denied.
    BindDenied = "bind_denied",
    /// getpeername() answers that name the original destination.
    PeerShown = "peer_shown",
    /// Events that did not fit into the ring buffer.
    EventsLost = "events_lost",
    /// Events kept back by the rate limit.
    EventsSuppressed = "events_suppressed",
    /// Connects passed uncaptured because a person had asked not to steer for a while.
    Bypassed = "bypassed",
    /// UDP connects and datagrams to port 443 of steered destinations that were denied.
    QuicDenied = "quic_denied",
    /// The same, passed uncaptured because the proxy is dead or a person had asked not to steer.
    QuicPassed = "quic_passed",
    /// Raw, SCTP and SMC sockets that were denied.
    SocketDenied = "socket_denied",
    /// Connects that were judged by the socket's creator, because their caller is not steered.
    JudgedByCreator = "judged_by_creator",
    /// Connected sockets that were not steered when they connected.
    Stray = "stray",
    /// Those of them whose packets are dropped.
    StrayDropped = "stray_dropped",
    /// Strays that user space was not told of in full.
    StrayLost = "stray_lost",
    /// Steered connects that something after us sent elsewhere.
    Diverted = "diverted",
}

impl Counter {
    /// How many there are.
    pub const COUNT: u32 = Self::ALL.len() as u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_sits_at_its_own_index_under_a_name_of_its_own() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
            assert!(Counter::ALL.iter().filter(|other| other.name() == counter.name()).count() == 1);
        }
    }
}
