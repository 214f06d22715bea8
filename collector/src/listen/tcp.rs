//! TCP: connections as they come. Who they are is said by TLS, later.

use std::{io, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};

use super::counted::Counted;
use crate::descriptors::Failing;

/// Connections while there are places.
pub(super) fn accept(
    bound: TcpListener,
    places: Arc<Semaphore>,
) -> impl Stream<Item = io::Result<Counted<TcpStream>>> {
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
            if let Some(counted) = Counted::new(stream, &places)
                && sender.send(Ok(counted)).await.is_err()
            {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}
