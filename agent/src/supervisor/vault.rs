//! Duplicates of all listening sockets, so that what waits in their backlogs outlives a worker.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
};

use verbatim_sys::packets::Packets;

use crate::handover::{self, Message};

/// By network namespace, then by shard.
#[derive(Debug, Default)]
pub(crate) struct Vault(BTreeMap<u64, Namespace>);

#[derive(Debug)]
struct Namespace {
    name: String,
    port: u16,
    shards: BTreeMap<usize, Vec<OwnedFd>>,
}

impl Vault {
    /// Keeps one shard's listeners, in the place of those that it had. On another port than the namespace's
    /// they are the beginning of a new set.
    pub(crate) fn put(
        &mut self,
        cookie: u64,
        name: String,
        port: u16,
        shard: usize,
        listeners: Vec<OwnedFd>,
    ) {
        let shards = BTreeMap::new();
        let namespace =
            self.0.entry(cookie).or_insert_with(|| Namespace { name: name.clone(), port, shards });
        if namespace.port != port {
            namespace.port = port;
            namespace.shards.clear();
        }
        namespace.name = name;
        namespace.shards.insert(shard, listeners);
    }

    pub(crate) fn forget(&mut self, cookie: u64) {
        self.0.remove(&cookie);
    }

    /// Of no use for whoever has maps of another layout.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Hands out duplicates of all.
    pub(crate) fn hand_to(&self, peer: &Packets) -> io::Result<()> {
        for (cookie, namespace) in &self.0 {
            for (shard, listeners) in &namespace.shards {
                let (name, port) = (namespace.name.clone(), namespace.port);
                let message = Message::Listener { name, cookie: *cookie, port, shard: *shard };
                let descriptors: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
                handover::send(peer, &message, &descriptors)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn listener() -> Vec<OwnedFd> {
        vec![TcpListener::bind("127.0.0.1:0").expect("listener").into()]
    }

    fn handed(vault: &Vault) -> Vec<(u64, u16, usize, usize)> {
        let (one, two) = Packets::pair().expect("pair");
        vault.hand_to(&one).expect("handed");
        drop(one);
        let mut handed = Vec::new();
        while let Some((message, descriptors)) = handover::receive(&two).expect("receive") {
            let Message::Listener { cookie, port, shard, .. } = message else { panic!("{message:?}") };
            handed.push((cookie, port, shard, descriptors.len()));
        }
        handed
    }

    #[test]
    fn listeners_are_kept_by_namespace_and_shard_until_they_are_forgotten() {
        let mut vault = Vault::default();
        for (cookie, shard) in [(7, 0), (7, 1), (8, 0), (7, 0)] {
            vault.put(cookie, "pod".to_owned(), 61_973, shard, listener());
        }
        assert_eq!(handed(&vault), [(7, 61_973, 0, 1), (7, 61_973, 1, 1), (8, 61_973, 0, 1)]);
        vault.forget(8);
        vault.put(7, "pod".to_owned(), 62_973, 0, listener());
        assert_eq!(handed(&vault), [(7, 62_973, 0, 1)]);
        vault.clear();
        assert!(handed(&vault).is_empty());
    }
}
