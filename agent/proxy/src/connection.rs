//! One connection from accept to its last record: the steps, in order.

use std::{
    future::poll_fn,
    net::SocketAddr,
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
};

use tokio::net::TcpStream;
use verbatim_api::v1;
use verbatim_spool::AppendError;

use crate::{
    Records,
    buffer::Buffer,
    cancel::Address,
    control::Control,
    dial::dial,
    guard::{CatchPanic, catch},
    journal::{Journal, Stall},
    legs::{End, Legs, Side, poll_write, prepare},
    protocols::Detected,
    record::{Facts, no_flow},
    relay::{Relay, Relayed},
    seam::{Flow, Identity},
    shard::Shard,
    sniff::{First, sniff},
    splicing::{self, Input},
    stats::add,
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
    let mut journal = opening(shard, flow, accepted.source);
    let mut legs = Legs { client: accepted.client, server: None };
    prepare(&legs.client, shard.config.keepalive);
    if !journal.opened(control).await {
        // It is not in the spool, and so it does not happen.
        return legs.close(&End::Killed);
    }
    let carried = CatchPanic::new(carry(shard, &mut legs, &mut journal, control, connection)).await;
    let end = carried.unwrap_or_else(|panicked| End::Panicked(panicked.0));
    if let End::Panicked(message) = &end {
        add(&shard.counters.panics, 1);
        tracing::error!(shard = shard.index, message, "connection reset after a panic");
    }
    legs.close(&end);
    journal.closed(end, control).await;
}

fn opening<R: Records>(shard: &Shard<R>, flow: Flow, source: SocketAddr) -> Journal<R> {
    let deps = &shard.deps;
    let identity = catch(|| deps.identities.identify(&flow)).unwrap_or_else(|panicked| {
        add(&shard.counters.panics, 1);
        tracing::error!(message = panicked.0, "identity source panicked: workload is unresolved");
        let principal_kind = v1::PrincipalKind::Unresolved.into();
        let workload = v1::Workload { principal_kind, ..v1::Workload::default() };
        Arc::new(Identity { workload, ..Identity::default() })
    });
    let client = shard.clients.describe(&flow, &identity, source);
    let facts = Facts::new(flow, identity, client, deps.policy.mode());
    Journal::new(
        facts,
        Rc::clone(&shard.spool),
        Arc::clone(&shard.counters),
        Arc::clone(&deps.policy),
        Arc::clone(&deps.observer),
    )
}

/// Dials, finds out what is spoken, and carries it until it ends.
async fn carry<R: Records>(
    shard: &Shard<R>,
    legs: &mut Legs,
    journal: &mut Journal<R>,
    control: &Control,
    connection: Address,
) -> End {
    match dial(shard, &journal.facts.flow, control).await {
        Ok(server) => legs.server = Some(server),
        Err(end) => return end,
    }
    let mut first = First::default();
    let detected = match sniff(legs, &mut first, &shard.pool, &*shard.protocols, control).await {
        Ok(detected) => detected,
        Err(end) => return end,
    };
    let inputs = match detected {
        Detected::Decode { protocol, service, decoder } => {
            journal.facts.detected(protocol, service, None);
            let relay = Relay::new(shard, control, connection, decoder, first);
            match Box::pin(relay.run(legs, journal)).await {
                Relayed::Ended(end) => return end,
                Relayed::Opaque(mut inputs) => {
                    if journal.agreed_on_tls()
                        && let Err(end) = name(shard, legs, journal, control, &mut inputs).await
                    {
                        return end;
                    }
                    inputs
                }
            }
        }
        Detected::Pass { protocol, reason, service, host } => {
            journal.facts.detected(protocol, service, host);
            if let Err(end) = undecoded(journal, control, reason).await {
                return end;
            }
            [Input { buffer: first.buffer, ended: first.ended }, Input::default()]
        }
        Detected::NeedMore => return End::Stuck("the protocol cannot be told"),
    };
    splicing::run(shard, legs, inputs, control, &mut journal.bytes).await
}

/// TLS was agreed on within another protocol: takes the name from the ClientHello that follows.
async fn name<R: Records>(
    shard: &Shard<R>,
    legs: &mut Legs,
    journal: &mut Journal<R>,
    control: &Control,
    inputs: &mut [Input; 2],
) -> Result<(), End> {
    let [from_client, to_client] = inputs;
    // The client waits for the server's consent before it says hello.
    journal.bytes[1] += flush(&mut legs.client, &mut to_client.buffer, control).await?;
    let mut first = First { buffer: std::mem::take(&mut from_client.buffer), ended: from_client.ended };
    let detected = sniff(legs, &mut first, &shard.pool, &*shard.protocols, control).await;
    *from_client = Input { buffer: first.buffer, ended: first.ended };
    if let Detected::Pass { host: Some(host), .. } = detected? {
        journal.facts.target.host = host;
    }
    Ok(())
}

/// Writes what was read already. How much that was.
async fn flush(to: &mut TcpStream, buffer: &mut Buffer, control: &Control) -> Result<u64, End> {
    let all = buffer.all().len() as u64;
    poll_fn(|cx| {
        while !buffer.is_empty() {
            if control.poll_killed(cx).is_ready() {
                return Poll::Ready(Err(End::Killed));
            }
            let Ok(n) = ready!(poll_write(to, buffer.all(), cx)) else {
                return Poll::Ready(Err(End::Reset(Side::Client)));
            };
            buffer.dispose(n);
        }
        Poll::Ready(Ok(all))
    })
    .await
}

async fn undecoded<R: Records>(
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
    Legs { client, server: None }.close(&End::Killed);
    add(&shard.counters.no_flow, 1);
    while let Err(AppendError::Full) = shard.spool.append(no_flow(source, note)) {
        if control.killed() {
            return add(&shard.counters.unwritten, 1);
        }
        let killed = poll_fn(|cx| control.poll_killed(cx));
        tokio::select! { () = shard.spool.room() => {} () = killed => {} }
    }
}
