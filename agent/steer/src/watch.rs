//! Notices network namespaces as they are mounted into a directory such as `/run/netns`, and as they go.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use verbatim_sys::netns;

use crate::locking::lock;

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

/// Why not every namespace that is wanted is in use. Shared with whoever watches.
#[derive(Clone, Debug, Default)]
pub struct NamespaceTroubles(Arc<Mutex<Vec<String>>>);

impl NamespaceTroubles {
    /// One sentence for each; none while all is well.
    #[must_use]
    pub fn now(&self) -> Vec<String> {
        lock(&self.0).clone()
    }

    /// Takes the place of what was before, and says so in the log.
    fn are(&self, troubles: Vec<String>) {
        let mut before = lock(&self.0);
        if *before == troubles {
            return;
        }
        match troubles.as_slice() {
            [] => tracing::info!("every network namespace is in use again"),
            all => {
                tracing::error!(troubles = all.join("; "), "connects from there are refused or uncaptured")
            }
        }
        *before = troubles;
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct NamespaceWatcher {
    stop: Arc<OwnedFd>,
    troubles: NamespaceTroubles,
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
            failing: HashMap::new(),
            troubles: NamespaceTroubles::default(),
        };
        let troubles = scan.troubles.clone();
        scan.look();
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("namespaces".to_owned()).spawn(move || {
            while !wait(&mounts, &stopped) {
                scan.look();
            }
        })?;
        Ok(Self { stop, troubles, thread: Some(thread) })
    }

    /// What keeps it from using every namespace.
    #[must_use]
    pub fn troubles(&self) -> NamespaceTroubles {
        self.troubles.clone()
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

/// `None` for what is no namespace, or is gone: one that is just being made or undone.
fn open(path: &Path) -> io::Result<Option<(Identity, OwnedFd)>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !netns::is_namespace(&file)? {
        return Ok(None);
    }
    Ok(Some((identity(&file.metadata()?), file.into())))
}

/// So long a namespace may be in the making before that is a trouble.
const PATIENCE: Duration = Duration::from_secs(2);

struct Scan {
    directory: PathBuf,
    wanted: Box<dyn Fn(&str) -> bool + Send>,
    changed: Box<dyn FnMut(NamespaceChange) -> bool + Send>,
    seen: HashMap<String, Identity>,
    /// Namespaces that are there and cannot be used, since when, and why where that is known here.
    failing: HashMap<String, (Instant, String)>,
    troubles: NamespaceTroubles,
}

impl Scan {
    fn names(&self) -> io::Result<HashSet<String>> {
        let mut names = HashSet::new();
        for entry in fs::read_dir(&self.directory)? {
            names.extend(entry?.file_name().into_string().ok().filter(|name| (self.wanted)(name)));
        }
        Ok(names)
    }

    fn look(&mut self) {
        let names = match self.names() {
            Ok(names) => names,
            // A directory that is not there holds no namespaces; it may come later.
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashSet::new(),
            // What it holds is not known: those that are known stay.
            Err(error) => {
                return self
                    .troubles
                    .are(vec![format!("{} cannot be read: {error}", self.directory.display())]);
            }
        };
        self.failing.retain(|name, _| names.contains(name));
        let gone: Vec<String> = self.seen.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            self.forget(name);
        }
        // One after the other, so that one which has just appeared does not wait for the rest to be looked at.
        for name in names {
            self.look_at(name);
        }
        self.tell();
    }

    fn tell(&mut self) {
        let mut troubles: Vec<String> = self
            .failing
            .iter()
            .filter(|(_, (since, _))| since.elapsed() >= PATIENCE)
            .map(|(name, (_, why))| format!("{name}: {why}"))
            .collect();
        troubles.sort();
        self.troubles.are(troubles);
    }

    fn fails(&mut self, name: String, why: String) {
        let (_, said) = self.failing.entry(name).or_insert_with(|| (Instant::now(), String::new()));
        *said = why;
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
        let (identity, namespace) = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.failing.remove(&name);
                return;
            }
            Err(error) => return self.fails(name, format!("cannot be opened: {error}")),
        };
        if (self.changed)(NamespaceChange::Appeared { name: name.clone(), namespace }) {
            self.failing.remove(&name);
            self.seen.insert(name, identity);
        } else {
            self.fails(name, "no listener".to_owned());
        }
    }

    fn forget(&mut self, name: String) {
        self.seen.remove(&name);
        (self.changed)(NamespaceChange::Gone { name });
    }
}
