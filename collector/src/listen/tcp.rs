//! TCP: connections that have said by TLS who they are.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};

use super::{counted::Counted, tls::Current};
use crate::descriptors::Failing;

/// A TLS handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);

type Secured = TlsStream<Counted<TcpStream>>;

/// Connections while there are places, each with what is current as it comes.
pub(super) fn accept(
    bound: TcpListener,
    current: Current,
    places: Arc<Semaphore>,
) -> impl Stream<Item = io::Result<Secured>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut failing = Failing::default();
        loop {
            let stream = tokio::select! {
                () = sender.closed() => return,
                accepted = bound.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        failing.failed(&e).await;
                        continue;
                    }
                },
            };
            failing.succeeded();
            if let Err(e) = stream.set_nodelay(true) {
                tracing::debug!(error = %e, "no TCP_NODELAY");
            }
            if let Some(counted) = Counted::new(stream, &places) {
                let acceptor = TlsAcceptor::from(Arc::clone(&current.borrow()));
                // Apart from each other: one that says nothing keeps nobody waiting.
                tokio::spawn(shake(acceptor, counted, sender.clone()));
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn shake(acceptor: TlsAcceptor, stream: Counted<TcpStream>, sender: mpsc::Sender<io::Result<Secured>>) {
    let shaken = tokio::select! {
        () = sender.closed() => return,
        shaken = timeout(HANDSHAKE, acceptor.accept(stream)) => shaken,
    };
    match shaken {
        // Nobody takes any more: it is closed.
        Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
        Ok(Err(e)) => tracing::debug!(error = %e, "no TLS handshake"),
        Err(_elapsed) => tracing::debug!("a TLS handshake took too long"),
    }
}
