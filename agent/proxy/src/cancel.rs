//! Which connection a cancel request means, across shards.
//!
//! Keys are credentials: they live here and nowhere else, and are never recorded or logged.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::{seam::Flow, shard::Message};

/// What a server gave a client so that another connection can cancel this one's commands.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct CancelKey {
    server: SocketAddr,
    /// Loopback means another server in each namespace.
    namespace: u64,
    process_id: u32,
    secret: Vec<u8>,
}

impl CancelKey {
    pub(crate) fn new(flow: &Flow, process_id: u32, secret: Vec<u8>) -> Self {
        let namespace = if flow.destination.ip().is_loopback() { flow.client_netns } else { 0 };
        Self { server: flow.destination, namespace, process_id, secret }
    }
}

/// A connection, by its shard and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) shard: usize,
    pub(crate) connection: u64,
}

/// All keys that connections of this process were given. The lock is held for one look-up.
pub(crate) struct Registry {
    keys: Mutex<HashMap<CancelKey, Address>>,
    shards: Vec<mpsc::WeakSender<Message>>,
}

impl Registry {
    pub(crate) fn new(shards: Vec<mpsc::WeakSender<Message>>) -> Arc<Self> {
        Arc::new(Self { keys: Mutex::new(HashMap::new()), shards })
    }

    pub(crate) fn register(&self, key: CancelKey, connection: Address) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key, connection);
    }

    /// Forgets a key, unless another connection was given the same one since.
    pub(crate) fn forget(&self, key: &CancelKey, connection: Address) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.get(key) == Some(&connection) {
            keys.remove(key);
        }
    }

    fn find(&self, key: &CancelKey) -> Option<Address> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Asks the connection that the key means to abandon what it holds. `false`: it holds nothing, is
    /// not ours, or did not answer in time; then the request belongs to the server.
    pub(crate) async fn abandon(self: Arc<Self>, key: CancelKey, patience: Duration) -> bool {
        let Some(target) = self.find(&key) else { return false };
        let Some(shard) = self.shards.get(target.shard).and_then(mpsc::WeakSender::upgrade) else {
            return false;
        };
        let (answer, answered) = oneshot::channel();
        let ask = async move {
            shard.send(Message::Cancel { connection: target.connection, answer }).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(patience, ask).await.ok().flatten().unwrap_or(false)
    }
}

/// The key under which one connection is registered; forgotten when it ends, however it ends.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    connection: Address,
    key: Option<CancelKey>,
}

impl Registration {
    pub(crate) fn new(registry: Arc<Registry>, connection: Address) -> Self {
        Self { registry, connection, key: None }
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The server gave a key. A server gives one: another takes the place of the one before.
    pub(crate) fn given(&mut self, key: CancelKey) {
        self.forget();
        self.registry.register(key.clone(), self.connection);
        self.key = Some(key);
    }

    fn forget(&mut self) {
        if let Some(key) = self.key.take() {
            self.registry.forget(&key, self.connection);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(process_id: u32) -> CancelKey {
        let server = SocketAddr::from(([192, 0, 2, 1], 5432));
        CancelKey { server, namespace: 0, process_id, secret: vec![1; 4] }
    }

    #[test]
    fn a_connection_has_one_key_however_many_its_server_gives() {
        let registry = Registry::new(Vec::new());
        let address = |connection| Address { shard: 0, connection };
        let known = || registry.keys.lock().unwrap_or_else(PoisonError::into_inner).len();
        let mut other = Registration::new(Arc::clone(&registry), address(2));
        other.given(key(u32::MAX));
        let mut flooded = Registration::new(Arc::clone(&registry), address(1));
        for number in (0..1000).chain([999]) {
            flooded.given(key(number));
        }
        assert_eq!(known(), 2);
        assert_eq!(registry.find(&key(999)), Some(address(1)));
        assert_eq!(registry.find(&key(998)), None);
        drop(flooded);
        assert_eq!((known(), registry.find(&key(u32::MAX))), (1, Some(address(2))));
        drop(other);
        assert_eq!(known(), 0);
    }
}
