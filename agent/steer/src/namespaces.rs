//! The network namespaces in which a listener stands: making listeners there, telling the kernel,
//! and making sockets to dial from there.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock},
};

use aya::maps::{HashMap as BpfHashMap, MapData};
use verbatim_ebpf_common::{Address, Target};
use verbatim_sys::netns;

use crate::{
    Addresses, SteerError,
    listener::{self, OTHER_TRIES, ShardListeners},
    locking::{lock, read, write},
    vault::{Handed, HandedOver, Vault, by_namespace},
};

/// Listeners that stand in one network namespace.
#[derive(Debug)]
pub struct NamespaceListeners {
    /// The caller's name for the namespace.
    pub name: String,
    /// Its cookie, as in [`crate::Flow`]'s `listener_netns`.
    pub cookie: u64,
    /// The port of all its listeners.
    pub port: u16,
    /// Its addresses, as far as it has them yet: see [`Namespaces::refresh`].
    pub addresses: Addresses,
    /// One element for each shard; more where a predecessor had more.
    pub shards: Vec<ShardListeners>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceCount {
    /// Namespaces in which listeners stand.
    pub namespaces: usize,
    /// Listening sockets.
    pub listeners: usize,
}

/// All network namespaces that have a listener. A handle: clones are the same set.
#[derive(Clone, Debug)]
pub struct Namespaces {
    inner: Arc<Inner>,
}

struct Inner {
    home: OwnedFd,
    home_cookie: u64,
    shards: usize,
    ports: Vec<u16>,
    targets: Mutex<BpfHashMap<MapData, u64, Target>>,
    known: RwLock<HashMap<u64, Arc<Known>>>,
    vault: OnceLock<Arc<dyn Vault>>,
    /// A predecessor's listeners, until their namespace is added.
    handed: Mutex<HandedOver>,
    /// A successor decides about namespaces.
    frozen: RwLock<bool>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("home_cookie", &self.home_cookie).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Known {
    name: String,
    /// `None`: the process's own.
    namespace: Option<OwnedFd>,
    port: u16,
    has_v6_listener: bool,
    addresses: Mutex<Addresses>,
}

impl Known {
    fn addresses(&self) -> Addresses {
        *lock(&self.addresses)
    }
}

impl Namespaces {
    /// The calling thread's namespace is taken for the process's own.
    pub(crate) fn new(
        targets: BpfHashMap<MapData, u64, Target>,
        shards: usize,
        ports: Vec<u16>,
    ) -> Result<Self, SteerError> {
        let step = "finding our own network namespace";
        let home = netns::current().map_err(|error| SteerError::io(step, error))?;
        let home_cookie = netns::cookie_here().map_err(|error| SteerError::io(step, error))?;
        let (targets, known) = (Mutex::new(targets), RwLock::default());
        let (vault, handed, frozen) = (OnceLock::new(), Mutex::default(), RwLock::new(false));
        let inner = Inner { home, home_cookie, shards, ports, targets, known, vault, handed, frozen };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Has listeners kept beyond this process's life, and goes on with those of a predecessor: a namespace
    /// that is added gets them instead of new ones. To be called once, before any is added.
    pub fn keep_in(&self, vault: Arc<dyn Vault>, handed: Vec<Handed>) {
        if self.inner.vault.set(vault).is_err() {
            tracing::error!("listeners are kept in one vault only: the second is not used");
        }
        *self.handed() = by_namespace(handed);
    }

    /// Leaves namespaces to a successor: none is added, and the kernel is told nothing more about any, until
    /// [`Self::thaw`]. When it returns, nothing of ours is under way.
    pub fn freeze(&self) {
        *write(&self.inner.frozen) = true;
    }

    /// Decides again about namespaces, and tells the kernel about all of them anew.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn thaw(&self) -> Result<(), SteerError> {
        *write(&self.inner.frozen) = false;
        let known: Vec<_> = {
            let known = read(&self.inner.known);
            known.iter().map(|(cookie, known)| (*cookie, Arc::clone(known))).collect()
        };
        known.iter().try_for_each(|(cookie, known)| self.tell(*cookie, known))
    }

    /// Makes listeners in a namespace and has its workloads steered to them. Connections wait in the
    /// backlog until somebody accepts them.
    ///
    /// The calling thread enters the namespace for a moment, so it must be in the process's own.
    ///
    /// # Errors
    /// The namespace cannot be entered, has no free port or its listeners already.
    pub fn add(&self, name: &str, namespace: OwnedFd) -> Result<NamespaceListeners, SteerError> {
        let frozen = read(&self.inner.frozen);
        if *frozen {
            return Err(SteerError::HandedOver { step: format!("adding namespace {name}").into() });
        }
        let made = netns::within(self.inner.home.as_fd(), namespace.as_fd(), || self.make(name))
            .map_err(|error| SteerError::io(format!("entering namespace {name}"), error))??;
        // A handle on our own namespace under another name: sockets need no entering.
        let namespace = (made.cookie != self.inner.home_cookie).then_some(namespace);
        self.enlist(made, namespace)
    }

    /// The same in the process's own network namespace, without entering any.
    ///
    /// # Errors
    /// As for [`Self::add`].
    pub fn add_current(&self, name: &str) -> Result<NamespaceListeners, SteerError> {
        let frozen = read(&self.inner.frozen);
        if *frozen {
            return Err(SteerError::HandedOver { step: format!("adding namespace {name}").into() });
        }
        let made = self.make(name)?;
        self.enlist(made, None)
    }

    /// Cookie of the process's own network namespace.
    #[must_use]
    pub fn own_cookie(&self) -> u64 {
        self.inner.home_cookie
    }

    /// How many namespaces there are, and how many listening sockets in them.
    #[must_use]
    pub fn count(&self) -> NamespaceCount {
        let known = read(&self.inner.known);
        let sockets = known.values().map(|known| 1 + usize::from(known.has_v6_listener));
        NamespaceCount { namespaces: known.len(), listeners: sockets.sum::<usize>() * self.inner.shards }
    }

    /// Reads a namespace's addresses again and tells the kernel: a pod gets its own some time after
    /// its namespace is there.
    ///
    /// # Errors
    /// The namespace is unknown or cannot be entered.
    pub fn refresh(&self, cookie: u64) -> Result<Addresses, SteerError> {
        let step = "reading a namespace's addresses";
        let known = self.known(cookie).map_err(|error| SteerError::io(step, error))?;
        let addresses = match &known.namespace {
            Some(namespace) => netns::within(self.inner.home.as_fd(), namespace.as_fd(), Addresses::here)
                .and_then(|addresses| addresses),
            None => Addresses::here(),
        }
        .map_err(|error| SteerError::io(step, error))?;
        *lock(&known.addresses) = addresses;
        let frozen = read(&self.inner.frozen);
        if !*frozen {
            self.tell(cookie, &known)?;
        }
        Ok(addresses)
    }

    /// Those that had no IPv6 route when they were looked at. One that comes later shows as
    /// [`crate::EventKind::UnroutedConnected`], where few connect: then, or now and then, [`Self::refresh`] them.
    #[must_use]
    pub fn without_v6_route(&self) -> Vec<u64> {
        let known = read(&self.inner.known);
        let unrouted = known.iter().filter(|(_, known)| !known.addresses().has_v6_route);
        unrouted.map(|(cookie, _)| *cookie).collect()
    }

    /// Reads again the addresses of the namespaces that had none at the last look, and says how many
    /// still have none. Cheap when all have one: to be called now and then.
    ///
    /// # Errors
    /// A namespace cannot be entered, or the kernel could not be told.
    pub fn refresh_incomplete(&self) -> Result<usize, SteerError> {
        let incomplete: Vec<u64> = read(&self.inner.known)
            .iter()
            .filter(|(_, known)| known.addresses().is_empty())
            .map(|(cookie, _)| *cookie)
            .collect();
        let mut left = 0;
        for cookie in incomplete {
            left += usize::from(self.refresh(cookie)?.is_empty());
        }
        Ok(left)
    }

    /// Takes a namespace off the list and lets go of it. Its workloads' connects are refused from
    /// now on, where they are to be steered; connections that stand are not touched. `false`: it was
    /// not on the list.
    ///
    /// # Errors
    /// The kernel could not be told.
    pub fn remove(&self, cookie: u64) -> Result<bool, SteerError> {
        let known = write(&self.inner.known).remove(&cookie);
        let Some(known) = known else { return Ok(false) };
        if let Some(vault) = self.inner.vault.get() {
            vault.forget(cookie);
        }
        let frozen = read(&self.inner.frozen);
        if *frozen {
            return Ok(true);
        }
        self.targets()
            .remove(&cookie)
            .map_err(|error| SteerError::kernel(format!("removing namespace {}", known.name), error))?;
        Ok(true)
    }

    /// Removes what a predecessor told the kernel about namespaces that are not on our list, lets go of its
    /// listeners there, and says how many they were. For pinned maps, after the first scan.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn sweep(&self) -> Result<usize, SteerError> {
        let failed = |error| SteerError::kernel("sweeping stale namespaces", error);
        let unclaimed = std::mem::take(&mut *self.handed());
        for cookie in unclaimed.keys().copied() {
            if let Some(vault) = self.inner.vault.get() {
                vault.forget(cookie);
            }
        }
        let mut targets = self.targets();
        let cookies: Vec<u64> = targets.keys().collect::<Result<_, _>>().map_err(failed)?;
        let mut swept = 0;
        for cookie in cookies {
            if self.known(cookie).is_err() {
                targets.remove(&cookie).map_err(failed)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// A non-blocking, unconnected TCP socket for the destination's family, made in a namespace on
    /// the list, so that what it dials goes the workload's way and under the workload's address.
    ///
    /// The calling thread enters the namespace for a moment, so it must be in the process's own; it
    /// does not when the namespace is that.
    ///
    /// # Errors
    /// The namespace is not on the list (`NotFound`), or the system calls': no descriptors left.
    pub fn dial_socket(&self, cookie: u64, destination: SocketAddr) -> io::Result<OwnedFd> {
        let known = self.known(cookie)?;
        let make = || netns::tcp_socket(destination.is_ipv6());
        match &known.namespace {
            Some(namespace) => netns::within(self.inner.home.as_fd(), namespace.as_fd(), make)?,
            None => make(),
        }
    }

    /// Does `look` in one namespace after the other, until it has found what it looks for. The process's own is among
    /// them only where it is on the list.
    pub(crate) fn find(&self, look: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
        let known: Vec<Arc<Known>> = {
            let known = read(&self.inner.known);
            known.values().cloned().collect()
        };
        for known in known {
            let found = match &known.namespace {
                Some(namespace) => netns::within(self.inner.home.as_fd(), namespace.as_fd(), &look)?,
                None => look(),
            };
            if found? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn make(&self, name: &str) -> Result<NamespaceListeners, SteerError> {
        let failed = |error| SteerError::io(format!("making a listener in namespace {name}"), error);
        let cookie = netns::cookie_here().map_err(failed)?;
        if self.known(cookie).is_ok() {
            return Err(SteerError::NamespaceKnown { namespace: name.to_owned(), cookie });
        }
        let (port, shards) = match self.predecessors(cookie).map_err(failed)? {
            Some(handed) => handed,
            None => listener::open(self.inner.shards, &self.inner.ports)
                .map_err(failed)?
                .ok_or_else(|| SteerError::NoPort { namespace: name.to_owned(), tried: OTHER_TRIES })?,
        };
        let addresses = Addresses::here().map_err(failed)?;
        Ok(NamespaceListeners { name: name.to_owned(), cookie, port, addresses, shards })
    }

    /// A predecessor's listeners in the namespace that the calling thread is in, at least one for each shard.
    fn predecessors(&self, cookie: u64) -> io::Result<Option<(u16, Vec<ShardListeners>)>> {
        let Some((port, mut shards)) = self.handed().remove(&cookie) else { return Ok(None) };
        shards.extend(listener::more(port, self.inner.shards.saturating_sub(shards.len()))?);
        Ok(Some((port, shards)))
    }

    fn enlist(
        &self,
        made: NamespaceListeners,
        namespace: Option<OwnedFd>,
    ) -> Result<NamespaceListeners, SteerError> {
        if let Some(vault) = self.inner.vault.get() {
            vault.keep(&made).map_err(|error| {
                SteerError::io(format!("having the listeners of namespace {} kept", made.name), error)
            })?;
        }
        let known = Arc::new(Known {
            name: made.name.clone(),
            namespace,
            port: made.port,
            has_v6_listener: made.shards.iter().all(|shard| shard.v6.is_some()),
            addresses: Mutex::new(made.addresses),
        });
        // Before the kernel sends anything there, dialling must work.
        write(&self.inner.known).insert(made.cookie, Arc::clone(&known));
        self.tell(made.cookie, &known)?;
        Ok(made)
    }

    fn tell(&self, cookie: u64, known: &Known) -> Result<(), SteerError> {
        let mut target = Target {
            listen_v4: Address::LOCALHOST_V4,
            listen_v6: if known.has_v6_listener { Address::LOCALHOST_V6 } else { Address::UNSPECIFIED },
            port: known.port,
            ..Target::default()
        };
        known.addresses().fill(&mut target);
        self.targets()
            .insert(cookie, target, 0)
            .map_err(|error| SteerError::kernel(format!("steering namespace {}", known.name), error))
    }

    fn known(&self, cookie: u64) -> io::Result<Arc<Known>> {
        read(&self.inner.known).get(&cookie).cloned().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("the network namespace with cookie {cookie} is not known, or gone"),
            )
        })
    }

    fn handed(&self) -> MutexGuard<'_, HandedOver> {
        lock(&self.inner.handed)
    }

    fn targets(&self) -> MutexGuard<'_, BpfHashMap<MapData, u64, Target>> {
        lock(&self.inner.targets)
    }
}
