//! Notices network namespaces as they are mounted into a directory such as `/run/netns`, and as they go.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use verbatim_sys::netns;

/// Time between looks, should a mount not be noticed; nanoseconds.
const LOOK_AGAIN_NANOS: i64 = 500_000_000;

/// What has changed.
#[derive(Debug)]
pub enum NamespaceChange {
    /// A namespace is there.
    Appeared {
        /// File name in the directory.
        name: String,
        /// The namespace.
        namespace: OwnedFd,
    },
    /// A namespace is not there any more, or another one is under its name.
    Gone {
        /// File name in the directory.
        name: String,
    },
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct NamespaceWatcher {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl NamespaceWatcher {
    /// Watches a directory, which need not be there yet, for namespaces whose file name is wanted.
    ///
    /// Calls `changed` for all that are there before it returns, and from a thread of its own
    /// afterwards. A namespace that `changed` cannot use (`false`) is offered again at the next look.
    ///
    /// # Errors
    /// `/proc/self/mountinfo` cannot be watched, or no thread could be made.
    pub fn start(
        directory: &Path,
        wanted: impl Fn(&str) -> bool + Send + 'static,
        changed: impl FnMut(NamespaceChange) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let mounts = File::open("/proc/self/mountinfo")?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let mut scan = Scan {
            directory: directory.to_owned(),
            wanted: Box::new(wanted),
            changed: Box::new(changed),
            seen: HashMap::new(),
        };
        scan.look();
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("namespaces".to_owned()).spawn(move || {
            while !wait(&mounts, &stopped) {
                scan.look();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for NamespaceWatcher {
    fn drop(&mut self) {
        if let Err(error) = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()) {
            tracing::error!(%error, "namespaces' thread cannot be told to stop");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("namespaces' thread panicked");
        }
    }
}

/// Waits until something was mounted or unmounted, or for a while; says whether it is time to stop.
fn wait(mounts: &File, stop: &OwnedFd) -> bool {
    // The kernel marks the file as exceptional whenever the mounts have changed since the last poll.
    let mut fds = [PollFd::new(mounts, PollFlags::PRI), PollFd::new(stop, PollFlags::IN)];
    let patience = Timespec { tv_sec: 0, tv_nsec: LOOK_AGAIN_NANOS };
    match poll(&mut fds, Some(&patience)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => tracing::error!(%error, "waiting for mounts failed"),
    }
    !fds[1].revents().is_empty()
}

/// Which namespace a file is: its device and inode.
type Identity = (u64, u64);

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// `None` for what cannot be opened, or is no namespace: one that is just being made or undone.
fn open(path: &Path) -> Option<(Identity, OwnedFd)> {
    let file = File::open(path).ok()?;
    if !netns::is_namespace(&file).ok()? {
        return None;
    }
    Some((identity(&file.metadata().ok()?), file.into()))
}

struct Scan {
    directory: PathBuf,
    wanted: Box<dyn Fn(&str) -> bool + Send>,
    changed: Box<dyn FnMut(NamespaceChange) -> bool + Send>,
    seen: HashMap<String, Identity>,
}

impl Scan {
    fn look(&mut self) {
        // A directory that is not there holds no namespaces; it may come later.
        let names: HashSet<String> = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| (self.wanted)(name))
            .collect();
        let gone: Vec<String> = self.seen.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            self.forget(name);
        }
        // One after the other, so that one which has just appeared does not wait for the rest to be looked at.
        for name in names {
            self.look_at(name);
        }
    }

    fn look_at(&mut self, name: String) {
        let path = self.directory.join(&name);
        let known = self.seen.get(&name);
        if known.is_some() && fs::metadata(&path).ok().map(|found| identity(&found)).as_ref() == known {
            return;
        }
        let found = open(&path);
        if known.is_some() {
            self.forget(name.clone());
        }
        if let Some((identity, namespace)) = found
            && (self.changed)(NamespaceChange::Appeared { name: name.clone(), namespace })
        {
            self.seen.insert(name, identity);
        }
    }

    fn forget(&mut self, name: String) {
        self.seen.remove(&name);
        (self.changed)(NamespaceChange::Gone { name });
    }
}
