//! What becomes of a TCP connect(): it passes, is denied, or is sent to a listener with its flow kept.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_comm, bpf_get_netns_cookie, bpf_get_socket_cookie},
    },
    programs::SockAddrContext,
};
use verbatim_ebpf_common::{
    Action, Address, Config, Counter, EventKind, Outcome, Route, TCP, Target, Verdict,
};

use crate::{
    coverage, lookup,
    maps::{CFG, SKC, TGT},
    marks,
    report::{self, Subject, count, event},
    socket::{flow_or_new, forget},
};

/// Interface index of the loopback device in every network namespace.
const LOOPBACK_DEVICE: u32 = 1;
/// Nobody can listen on port 0: connecting to it on loopback is ECONNREFUSED.
const CLOSED_PORT: u16 = 0;

/// A connect() as the caller wants it.
pub struct Attempt {
    pub sk: *mut bpf_sock,
    pub destination: Address,
    /// Host byte order.
    pub port: u16,
    /// Of the socket.
    pub family: u8,
    /// Interface that the socket is bound to; 0 for none.
    pub device: u32,
    /// Whether the socket has no address yet.
    pub unbound: bool,
}

impl Attempt {
    /// IPv4 on the wire, whatever the socket's family.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        self.destination.is_v4_mapped()
    }
}

pub enum Decision {
    Pass,
    Deny,
    /// Goes there instead; `port` in host byte order.
    Send {
        to: Address,
        port: u16,
    },
}

/// Who asks, as far as the decision needs it.
struct Caller {
    cgroup_id: u64,
    netns: u64,
}

/// By whom a connect() was judged, where not by its caller: the workload that made the socket; else 0.
type Creator = u64;

/// Where a connect() goes when it is steered.
struct Way {
    to: Address,
    port: u16,
    listener_netns: u64,
    shown_source: Address,
    route: Route,
}

/// What was found to be right, and what is counted and reported about it.
struct Judgement {
    ruling: Ruling,
    counter: Counter,
    event: Option<EventKind>,
    creator: Creator,
}

enum Ruling {
    Pass,
    Deny,
    /// No listener: ECONNREFUSED, which clients know how to retry.
    Refuse,
    /// Send it this way; the time is now.
    Steer(Way, u64),
}

impl Judgement {
    #[inline(always)]
    fn quiet(ruling: Ruling, counter: Counter) -> Self {
        Self { ruling, counter, event: None, creator: 0 }
    }

    #[inline(always)]
    fn loud(ruling: Ruling, counter: Counter, kind: EventKind) -> Self {
        Self { ruling, counter, event: Some(kind), creator: 0 }
    }
}

/// Decides, and sees to it that a socket which is not steered keeps no flow of an earlier connect():
/// connect(AF_UNSPEC), which ends the earlier one, is seen by no program.
#[inline(always)]
pub fn decide(ctx: &SockAddrContext, attempt: &Attempt) -> Decision {
    let caller = Caller {
        // SAFETY: helper without arguments.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        // SAFETY: the helper takes this kind of context.
        netns: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
    };
    let Judgement { mut ruling, mut counter, event: mut kind, creator } = judge(attempt, &caller);
    if let Ruling::Steer(way, now) = &ruling
        && !keep_flow(ctx, attempt, &caller, creator, way, *now)
    {
        ruling = Ruling::Deny;
        counter = Counter::NoMemory;
        kind = Some(EventKind::NoMemory);
    }
    count(counter);
    if creator != 0 {
        count(Counter::JudgedByCreator);
    }
    let judged = if creator == 0 { caller.cgroup_id } else { creator };
    if let Some(outcome) = Outcome::of(counter) {
        coverage::count(judged, &attempt.destination, attempt.port, TCP, outcome);
    }
    // The one place that reports: each would be verified along every path to it.
    if let Some(kind) = kind {
        let subject = Subject {
            netns: caller.netns,
            cgroup_id: judged,
            address: attempt.destination,
            port: attempt.port,
            pid: report::caller(),
            protocol: 0,
        };
        event(ctx, kind, &subject);
    }
    match ruling {
        Ruling::Steer(Way { route: Route::Unrouted, .. }, _) => Decision::Pass,
        Ruling::Steer(way, _) => Decision::Send { to: way.to, port: way.port },
        Ruling::Pass => {
            forget(&SKC, attempt.sk);
            // Counted as what it is: the backstop must not find it again.
            if matches!(counter, Counter::StalePassed | Counter::DevicePassed | Counter::Bypassed) {
                marks::exempt(attempt.sk);
            }
            Decision::Pass
        }
        Ruling::Deny => {
            forget(&SKC, attempt.sk);
            Decision::Deny
        }
        Ruling::Refuse => {
            forget(&SKC, attempt.sk);
            let to = if attempt.is_v4() { Address::LOCALHOST_V4 } else { Address::LOCALHOST_V6 };
            Decision::Send { to, port: CLOSED_PORT }
        }
    }
}

/// The rules, in order: ourselves, the destination, the workload, a bypass, the proxy's life, the way there.
#[inline(always)]
fn judge(attempt: &Attempt, caller: &Caller) -> Judgement {
    let Some(config) = CFG.get(0) else {
        return Judgement::quiet(Ruling::Pass, Counter::UnmatchedDestination);
    };
    if lookup::is_own(caller.cgroup_id) {
        return Judgement::quiet(Ruling::Pass, Counter::Own);
    }
    let Some(rule) = lookup::destination(TCP, attempt.destination, attempt.port) else {
        return Judgement::quiet(Ruling::Pass, Counter::UnmatchedDestination);
    };
    if rule == Action::Pass as u8 {
        return Judgement::quiet(Ruling::Pass, Counter::PassedDestination);
    }
    let (verdict, judged) = lookup::verdict_by_both(config, caller.cgroup_id, attempt.sk);
    if verdict.passes() {
        return Judgement::quiet(Ruling::Pass, Counter::PassedCgroup);
    }
    let creator = if judged == caller.cgroup_id { 0 } else { judged };
    Judgement { creator, ..judge_workload(attempt, caller, config, rule, verdict) }
}

/// For a workload that does not pass, and a destination that does not.
#[inline(always)]
fn judge_workload(
    attempt: &Attempt,
    caller: &Caller,
    config: &Config,
    rule: u8,
    verdict: Verdict,
) -> Judgement {
    if rule == Action::Deny as u8 || verdict.denies() {
        return Judgement::loud(Ruling::Deny, Counter::Denied, EventKind::Denied);
    }
    if lookup::bypassed() {
        return Judgement::quiet(Ruling::Pass, Counter::Bypassed);
    }
    let closed = verdict.fails_closed() && rule != Action::SteerOrPass as u8;
    let Some(now) = lookup::alive_at(config) else {
        return if closed {
            Judgement::loud(Ruling::Deny, Counter::StaleDenied, EventKind::StaleDenied)
        } else {
            Judgement::loud(Ruling::Pass, Counter::StalePassed, EventKind::StalePassed)
        };
    };
    // SAFETY: values of TGT are replaced whole, never changed in place.
    let Some(target) = (unsafe { TGT.get(caller.netns) }) else {
        if rule == Action::SteerOrPass as u8 {
            return Judgement::loud(Ruling::Pass, Counter::StalePassed, EventKind::StalePassed);
        }
        return Judgement::loud(Ruling::Refuse, Counter::Missed, EventKind::Miss);
    };
    if attempt.port == target.port && attempt.destination.connects_to_loopback() {
        return Judgement::quiet(Ruling::Pass, Counter::SelfAimed);
    }
    // Which link is meant is not seen here (sin6_scope_id), so that nobody else could dial it.
    let of_a_link = attempt.destination.is_link_local_v6();
    if attempt.device <= LOOPBACK_DEVICE && !of_a_link {
        let way = way_in_pod(target, attempt, caller);
        let counter = if way.route == Route::Unrouted { Counter::Unrouted } else { Counter::SteeredInPod };
        return Judgement::quiet(Ruling::Steer(way, now), counter);
    }
    // A socket that is bound to another device does not reach loopback.
    if config.has_host_listener() && !of_a_link {
        return Judgement::quiet(Ruling::Steer(way_to_host(config, attempt), now), Counter::SteeredHost);
    }
    if closed {
        Judgement::loud(Ruling::Deny, Counter::DeviceDenied, EventKind::BoundToDevice)
    } else {
        Judgement::loud(Ruling::Pass, Counter::DevicePassed, EventKind::BoundToDevice)
    }
}

#[inline(always)]
fn way_to_host(config: &Config, attempt: &Attempt) -> Way {
    Way {
        to: if attempt.is_v4() { config.host_v4 } else { config.host_v6 },
        port: config.host_port,
        listener_netns: config.host_netns,
        // The client has its own address already.
        shown_source: Address::UNSPECIFIED,
        route: Route::Host,
    }
}

#[inline(always)]
fn way_in_pod(target: &Target, attempt: &Attempt, caller: &Caller) -> Way {
    let loopback = attempt.destination.connects_to_loopback();
    let v4 = attempt.is_v4();
    // Rewriting comes before routing: without a route the workload must see its connect() fail, or
    // it would believe in IPv6 and never fall back to IPv4.
    let routed = v4 || loopback || target.has_v6_route != 0;
    let (to, shown) =
        if v4 { (target.listen_v4, target.shown_v4) } else { (target.listen_v6, target.shown_v6) };
    Way {
        to,
        port: target.port,
        listener_netns: caller.netns,
        shown_source: if attempt.unbound && !loopback { shown } else { Address::UNSPECIFIED },
        route: if routed { Route::InPod } else { Route::Unrouted },
    }
}

/// Keeps the flow with the client's socket. `false`: no memory.
#[inline(always)]
fn keep_flow(
    ctx: &SockAddrContext,
    attempt: &Attempt,
    caller: &Caller,
    creator: Creator,
    way: &Way,
    now: u64,
) -> bool {
    let Some(flow) = flow_or_new(&SKC, attempt.sk, core::ptr::null_mut()) else {
        return false;
    };
    // Filled in place: the stack is too small for a flow.
    flow.destination = attempt.destination;
    flow.shown_source = way.shown_source;
    flow.cgroup_id = if creator == 0 { caller.cgroup_id } else { creator };
    for (index, id) in flow.cgroups_by_level.iter_mut().enumerate() {
        // Of a creator no more than its id is known.
        *id = if creator == 0 { lookup::ancestor(index as i32 + 1) } else { 0 };
    }
    flow.client_netns = caller.netns;
    flow.listener_netns = way.listener_netns;
    // SAFETY: the helper takes this kind of context.
    flow.socket_cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    flow.ktime_nanos = now;
    // SAFETY: the buffer has the length that is said.
    unsafe { bpf_get_current_comm(flow.comm.as_mut_ptr().cast(), flow.comm.len() as u32) };
    let pid_tgid = bpf_get_current_pid_tgid();
    flow.pid = (pid_tgid >> 32) as u32;
    flow.tid = pid_tgid as u32;
    let uid_gid = bpf_get_current_uid_gid();
    flow.uid = uid_gid as u32;
    flow.gid = (uid_gid >> 32) as u32;
    flow.port = attempt.port;
    flow.family = attempt.family;
    flow.protocol = TCP;
    flow.route = way.route as u8;
    true
}
