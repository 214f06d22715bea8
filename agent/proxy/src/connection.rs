//! One connection from accept to its last record: the steps, in order.

use std::{future::poll_fn, net::SocketAddr, os::fd::AsFd, rc::Rc, sync::Arc};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};
use verbatim_api::v1;
use verbatim_spool::AppendError;

use crate::{
    Records,
    cancel::Address,
    control::Control,
    guard::{CatchPanic, catch},
    journal::{Journal, Stall},
    legs::{End, Leg, Legs, prepare},
    record::{Facts, no_flow},
    seam::{Flow, Identity},
    shard::Shard,
    speak::speak,
    stats::add,
    strangers::Told,
};

/// An accepted socket.
pub(crate) struct Accepted {
    pub(crate) client: TcpStream,
    pub(crate) source: SocketAddr,
    /// Its number in the shard.
    pub(crate) number: u64,
}

/// Serves a connection until it has ended and all of its records are in the spool.
pub(crate) async fn serve<R: Records>(shard: &Rc<Shard<R>>, accepted: Accepted, control: &Control) {
    let flow = match catch(|| shard.deps.flows.flow(accepted.client.as_fd())) {
        Ok(Some(flow)) => flow,
        Ok(None) => return refuse(shard, accepted, control, "not steered by us").await,
        Err(panicked) => {
            add(&shard.counters.panics, 1);
            return refuse(shard, accepted, control, &panicked.0).await;
        }
    };
    let connection = Address { shard: shard.index, connection: accepted.number };
    let mut journal = opening(shard, flow, accepted.source, control).await;
    prepare(&accepted.client, shard.config.keepalive);
    let mut legs = Legs { client: Some(Leg::Plain(accepted.client)), server: None };
    if !journal.opened(control).await {
        // It is not in the spool, and so it does not happen.
        return legs.close(&End::Killed);
    }
    let carried = CatchPanic::new(speak(shard, &mut legs, &mut journal, control, connection)).await;
    let end = carried.unwrap_or_else(|panicked| End::Panicked(panicked.0));
    if let End::Panicked(message) = &end {
        add(&shard.counters.panics, 1);
        tracing::error!(shard = shard.index, message, "connection reset after a panic");
    }
    legs.close(&end);
    journal.closed(end, control).await;
}

async fn opening<R: Records>(
    shard: &Shard<R>,
    flow: Flow,
    source: SocketAddr,
    control: &Control,
) -> Journal<R> {
    let deps = &shard.deps;
    // Before anything is waited for: its process may be gone afterwards.
    let mut client = shard.clients.describe(&flow, source);
    let panicked = |message: &str| {
        add(&shard.counters.panics, 1);
        tracing::error!(message, "identity source panicked: workload is unresolved");
    };
    match catch(|| deps.identities.settle(&flow)) {
        Ok(None) => {}
        Ok(Some(settled)) => {
            let killed = poll_fn(|cx| control.poll_killed(cx));
            tokio::select! {
                settled = CatchPanic::new(settled) => {
                    if let Err(message) = settled {
                        panicked(&message.0);
                    }
                }
                // It has its record all the same, by what is known now.
                () = killed => {}
            }
        }
        Err(message) => panicked(&message.0),
    }
    let identity = catch(|| deps.identities.identify(&flow)).unwrap_or_else(|message| {
        panicked(&message.0);
        let principal_kind = v1::PrincipalKind::Unresolved.into();
        let workload = v1::Workload { principal_kind, ..v1::Workload::default() };
        Arc::new(Identity { workload, ..Identity::default() })
    });
    client.local_user = identity.local_user.clone().unwrap_or_default();
    client.cgroup = identity.cgroup.clone().unwrap_or_default();
    let facts = Facts::new(flow, identity, client, deps.policy.mode());
    Journal::new(
        facts,
        Rc::clone(&shard.spool),
        Arc::clone(&shard.counters),
        Arc::clone(&deps.policy),
        Arc::clone(&deps.evidence),
        Arc::clone(&deps.observer),
    )
}

/// From here on it passes undecoded: recorded, at the cost of waiting for room.
pub(crate) async fn undecoded<R: Records>(
    journal: &mut Journal<R>,
    control: &Control,
    reason: v1::OpaqueReason,
) -> Result<(), End> {
    loop {
        match journal.undecoded(reason) {
            Ok(()) => return Ok(()),
            Err(Stall::Refused(why)) => return Err(End::Unrecordable(why)),
            Err(Stall::Full) if control.killed() => return Err(End::Killed),
            Err(Stall::Full) => journal.room(control).await,
        }
    }
}

/// Closes a socket that came with no flow, unread: the listener is no open proxy.
async fn refuse<R: Records>(shard: &Shard<R>, accepted: Accepted, control: &Control, note: &str) {
    let Accepted { client, source, .. } = accepted;
    Legs { client: Some(Leg::Plain(client)), server: None }.close(&End::Killed);
    add(&shard.counters.no_flow, 1);
    let (source, count, note) = match shard.strangers.admit(Instant::now()) {
        Told::Alone => (Some(source), 1, note),
        Told::Counted => return,
        Told::At(when) => {
            let killed = poll_fn(|cx| control.poll_killed(cx));
            tokio::select! { () = sleep_until(when) => {} () = killed => {} }
            (None, shard.strangers.take(), "so many more at once")
        }
    };
    while let Err(AppendError::Full) = shard.spool.append(no_flow(source, count, note)) {
        if control.killed() {
            return add(&shard.counters.unwritten, 1);
        }
        let killed = poll_fn(|cx| control.poll_killed(cx));
        tokio::select! { () = shard.spool.room() => {} () = killed => {} }
    }
}
