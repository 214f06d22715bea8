//! The upstream leg: made in the workload's namespace, within a bounded time.

use std::{io, net::TcpStream as StdStream};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    Records,
    control::Control,
    descriptors::{self, exhausted},
    legs::{End, prepare},
    seam::Flow,
    shard::Shard,
    stats::add,
};

/// Connects to where the workload wanted to go.
pub(crate) async fn dial<R: Records>(
    shard: &Shard<R>,
    flow: &Flow,
    control: &Control,
) -> Result<TcpStream, End> {
    let connect = async {
        let socket = loop {
            match shard.deps.dialer.socket(flow.client_netns, flow.destination) {
                Err(error) if exhausted(&error) => {
                    shard.descriptors.run_out();
                    sleep(descriptors::PAUSE).await;
                }
                made => break made?,
            }
        };
        let socket = TcpSocket::from_std_stream(StdStream::from(socket));
        if flow.destination.ip().to_canonical().is_loopback()
            && let Err(error) = verbatim_sys::socket::without_pacing(&socket)
        {
            tracing::debug!(%error, "dialling with the machine's congestion control");
        }
        socket.connect(flow.destination).await
    };
    let killed = std::future::poll_fn(|cx| control.poll_killed(cx));
    let patience = shard.config.dial_timeout;
    let dialled = tokio::select! {
        dialled = timeout(patience, connect) => dialled,
        () = killed => return Err(End::Killed),
    };
    match dialled {
        Ok(Ok(server)) => {
            add(&shard.counters.dialled, 1);
            prepare(&server, shard.config.keepalive);
            Ok(server)
        }
        Ok(Err(error)) => Err(failed(shard, flow, &error)),
        Err(_elapsed) => {
            let error = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}"));
            Err(failed(shard, flow, &error))
        }
    }
}

fn failed<R: Records>(shard: &Shard<R>, flow: &Flow, error: &io::Error) -> End {
    add(&shard.counters.dial_failed, 1);
    End::DialFailed(format!("cannot connect to {}: {error}", flow.destination))
}
