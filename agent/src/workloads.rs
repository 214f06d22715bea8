//! Which cgroups there are: read from cgroupfs, named by the table, told to the kernel.
//!
//! A thread of its own walks the tree at start, upon inotify's word, upon a nudge (a connection came from
//! a cgroup that the last walk had not seen), and from time to time. cgroup id = inode number.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};
use verbatim_agent_config::Setting;
use verbatim_proxy::seam::Identity;
use verbatim_steer::{CgroupVerdict, SteerError, Steering};
use verbatim_sys::cgroup::{self, Cgroup};

use crate::{
    identity::{Known, Table, Workloads},
    serve::verdict,
};

/// Between walks that nothing asked for; seconds.
const WALK_AGAIN_SECONDS: i64 = 30;
/// Walks upon nudges are at least this far apart: a connection from an unknown cgroup costs one walk, a
/// flood of them no more.
const NUDGE_PAUSE: Duration = Duration::from_millis(20);

/// Asks for a walk, without waiting.
#[derive(Debug)]
pub(crate) struct Nudge(UnixStream);

impl Nudge {
    /// And the walker's end.
    pub(crate) fn new() -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        Ok((Self(ours), theirs))
    }

    pub(crate) fn nudge(&self) {
        // A full buffer means that a walk is due anyway.
        (&self.0).write_all(&[0]).ok();
    }
}

/// Walks.
pub(crate) struct Walker {
    mount: PathBuf,
    root: Cgroup,
    table: Arc<Table>,
    steering: Arc<Steering>,
    /// Called with the path of each cgroup that is gone.
    gone: Box<dyn Fn(&str) + Send>,
    /// Paths that the last walk saw.
    paths: HashSet<Arc<str>>,
    /// What the kernel was told.
    told: HashMap<u64, CgroupVerdict>,
    /// What the kernel was told may be another's doing.
    doubt: Arc<AtomicBool>,
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Walking {
    doubt: Arc<AtomicBool>,
    stop: UnixStream,
    thread: JoinHandle<()>,
}

impl Walking {
    /// Has the next walk ask the kernel for what it was told.
    pub(crate) fn doubt(&self) {
        self.doubt.store(true, Ordering::Release);
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the cgroups' thread panicked");
        }
    }
}

/// Walks once, then starts the thread.
pub(crate) fn start(mut walker: Walker, nudged: UnixStream) -> io::Result<Walking> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    walker.walk(&watch)?;
    let (stop, stopped) = UnixStream::pair()?;
    let doubt = Arc::clone(&walker.doubt);
    let thread = std::thread::Builder::new().name("cgroups".to_owned()).spawn(move || {
        while !wait(&watch, &nudged, &stopped) {
            if let Err(error) = walker.walk(&watch) {
                tracing::error!(%error, "cgroups cannot be read; the last ones stay");
            }
        }
    })?;
    Ok(Walking { doubt, stop, thread })
}

/// Waits for a reason to walk; `true` is one to end.
fn wait(watch: &rustix::fd::OwnedFd, nudged: &UnixStream, stopped: &UnixStream) -> bool {
    let mut fds = [
        PollFd::new(stopped, PollFlags::IN),
        PollFd::new(watch, PollFlags::IN),
        PollFd::new(nudged, PollFlags::IN),
    ];
    let patience = Timespec { tv_sec: WALK_AGAIN_SECONDS, tv_nsec: 0 };
    if let Err(error) = poll(&mut fds, Some(&patience))
        && error != rustix::io::Errno::INTR
    {
        tracing::error!(%error, "waiting for cgroups failed");
        std::thread::sleep(NUDGE_PAUSE);
    }
    if !fds[0].revents().is_empty() {
        return true;
    }
    if !fds[2].revents().is_empty() {
        std::thread::sleep(NUDGE_PAUSE);
    }
    // What they say does not matter: the walk sees it.
    let mut buffer = [0; 4096];
    while rustix::io::read(watch, &mut buffer).is_ok_and(|read| read > 0) {}
    let mut nudged = nudged;
    while nudged.read(&mut buffer).is_ok_and(|read| read > 0) {}
    false
}

impl Walker {
    pub(crate) fn new(
        mount: PathBuf,
        root: PathBuf,
        table: Arc<Table>,
        steering: Arc<Steering>,
        gone: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let (gone, paths, told) = (Box::new(gone), HashSet::new(), HashMap::new());
        // A predecessor may have told it something.
        let doubt = Arc::new(AtomicBool::new(true));
        Self { mount, root: Cgroup::at(root), table, steering, gone, paths, told, doubt }
    }

    fn walk(&mut self, watch: &rustix::fd::OwnedFd) -> io::Result<()> {
        let flags = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::ONLYDIR
            | inotify::WatchFlags::DONT_FOLLOW;
        let mut seen: HashMap<PathBuf, Seen> = HashMap::new();
        let mut workloads = Workloads::new();
        let mut verdicts: HashMap<u64, CgroupVerdict> = HashMap::new();
        let default = verdict(self.table.default_setting());
        // Parents come first. Each is watched before it is listed again by the next walk, so that nothing
        // made in between is missed for longer than until then.
        for folder in self.root.folders()? {
            if let Err(error) = inotify::add_watch(watch, &folder, flags)
                && error != rustix::io::Errno::NOENT
            {
                tracing::debug!(%error, folder = %folder.display(), "not watched: seen by the next walk only");
            }
            let Ok(id) = cgroup::id(&folder) else { continue };
            let path = folder.strip_prefix(&self.mount).unwrap_or(&folder).to_string_lossy().into_owned();
            let parent = folder.parent().and_then(|parent| seen.get(parent));
            let here = self.look(&path, parent, default);
            // Also where it is the parent's: the kernel finds one of its own at once, another only by walking up.
            verdicts.insert(id, here.verdict);
            let identity = here.identity.clone();
            workloads.insert(id, Known { path: path.into(), identity, setting: here.setting });
            seen.insert(folder, here);
        }
        let paths: HashSet<Arc<str>> = workloads.values().map(|known| Arc::clone(&known.path)).collect();
        self.table.replace(workloads);
        for path in self.paths.difference(&paths) {
            (self.gone)(path);
        }
        self.paths = paths;
        self.tell(verdicts);
        Ok(())
    }

    fn look(&self, path: &str, parent: Option<&Seen>, default: CgroupVerdict) -> Seen {
        let named = self.table.name(path).map(Arc::new);
        let identity = named.or_else(|| parent.and_then(|parent| parent.identity.clone()));
        let setting = self.table.setting(path, identity.as_deref());
        let verdict = if path.is_empty() { default } else { verdict(setting) };
        Seen { identity, setting, verdict }
    }

    /// What changed. A verdict that the kernel did not take is tried again at the next walk.
    fn tell(&mut self, verdicts: HashMap<u64, CgroupVerdict>) {
        if self.doubt.swap(false, Ordering::AcqRel) {
            match self.steering.cgroups() {
                Ok(told) => self.told = told,
                Err(error) => tracing::error!(%error, "verdicts cannot be read; old ones stay"),
            }
        }
        for (&id, &verdict) in &verdicts {
            if self.told.get(&id) == Some(&verdict) {
                continue;
            }
            match self.steering.set_cgroup(id, verdict) {
                Ok(()) => {
                    tracing::debug!(cgroup_id = id, ?verdict, "verdict");
                    self.told.insert(id, verdict);
                }
                Err(error @ SteerError::HandedOver { .. }) => tracing::debug!(%error, cgroup_id = id),
                Err(error) => tracing::error!(%error, cgroup_id = id, "verdict was not taken"),
            }
        }
        let gone: Vec<u64> = self.told.keys().filter(|id| !verdicts.contains_key(id)).copied().collect();
        for id in gone {
            match self.steering.remove_cgroup(id) {
                Ok(_) => {
                    self.told.remove(&id);
                }
                Err(error @ SteerError::HandedOver { .. }) => tracing::debug!(%error, cgroup_id = id),
                Err(error) => tracing::error!(%error, cgroup_id = id, "verdict was not taken back"),
            }
        }
    }
}

/// What a walk found out about one cgroup.
struct Seen {
    identity: Option<Arc<Identity>>,
    setting: Setting,
    verdict: CgroupVerdict,
}
