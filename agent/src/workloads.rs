//! Which cgroups there are: read from cgroupfs, named by the table, told to the kernel.
//!
//! A thread of its own walks the tree at start, upon inotify's word, upon a nudge (a connection came from
//! a cgroup that the last walk had not seen), and from time to time. Upon another it looks at the pods again,
//! without reading the tree. cgroup id = inode number.

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
use verbatim_steer::{CgroupVerdict, SteerError, Steering};
use verbatim_sys::{
    cgroup::{self, Cgroup},
    clock,
};

use crate::{
    identity::{Change, Folder, Registry, Table},
    serve::verdict,
};

/// Between walks that nothing asked for; seconds.
const WALK_AGAIN_SECONDS: i64 = 30;
/// Walks upon nudges are at least this far apart: a connection from an unknown cgroup costs one walk, a
/// flood of them no more.
const NUDGE_PAUSE: Duration = Duration::from_millis(20);

/// Passes of one walk; where folders appear faster, the next walk sees the rest.
const PASSES: usize = 4;

/// What a nudge asks for.
const WALK: u8 = 0;
const RENEW: u8 = 1;

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
        (&self.0).write_all(&[WALK]).ok();
    }

    /// Asks for another look at the pods alone.
    pub(crate) fn renew(&self) {
        (&self.0).write_all(&[RENEW]).ok();
    }
}

/// Walks.
pub(crate) struct Walker {
    mount: PathBuf,
    root: Cgroup,
    registry: Registry,
    default: CgroupVerdict,
    /// Of the cgroup where cgroup v2 is mounted, where that is walked.
    root_id: Option<u64>,
    /// Ids of the folders that the last pass saw.
    watched: HashSet<u64>,
    steering: Arc<Steering>,
    /// Called with the path of each cgroup that is gone.
    gone: Box<dyn Fn(&str) + Send>,
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
        loop {
            match wait(&watch, &nudged, &stopped) {
                Reason::Walk => {
                    if let Err(error) = walker.walk(&watch) {
                        tracing::error!(%error, "cgroups cannot be read; the last ones stay");
                    }
                }
                Reason::Renew => walker.renew(),
                Reason::End => return,
            }
        }
    })?;
    Ok(Walking { doubt, stop, thread })
}

/// Why it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Walk,
    Renew,
    End,
}

/// Waits for a reason.
fn wait(watch: &rustix::fd::OwnedFd, nudged: &UnixStream, stopped: &UnixStream) -> Reason {
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
        return Reason::End;
    }
    if !fds[2].revents().is_empty() {
        std::thread::sleep(NUDGE_PAUSE);
    }
    // What inotify says does not matter: the walk sees it. Whether it says anything is asked here and not of the
    // poll, which knows nothing of what came during the pause.
    let (mut buffer, mut changed) = ([0; 4096], false);
    while rustix::io::read(watch, &mut buffer).is_ok_and(|read| read > 0) {
        changed = true;
    }
    let (mut nudged, mut asked, mut renew) = (nudged, false, false);
    while let Ok(read @ 1..) = nudged.read(&mut buffer) {
        let bytes = buffer.get(..read).unwrap_or_default();
        asked |= bytes.contains(&WALK);
        renew |= bytes.contains(&RENEW);
    }
    if renew && !asked && !changed { Reason::Renew } else { Reason::Walk }
}

impl Walker {
    pub(crate) fn new(
        mount: PathBuf,
        root: PathBuf,
        table: Arc<Table>,
        steering: Arc<Steering>,
        gone: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let (gone, told) = (Box::new(gone), HashMap::new());
        let default = verdict(table.default_setting());
        // A predecessor may have told it something.
        let doubt = Arc::new(AtomicBool::new(true));
        Self {
            mount,
            root: Cgroup::at(root),
            registry: Registry::new(table),
            default,
            root_id: None,
            watched: HashSet::new(),
            steering,
            gone,
            told,
            doubt,
        }
    }

    fn walk(&mut self, watch: &rustix::fd::OwnedFd) -> io::Result<()> {
        // What is made in a folder after it was listed and before it was watched makes no sound: as long as there
        // are new ones they are listed again.
        for _ in 0..PASSES {
            let began = clock::monotonic_nanos();
            let (folders, root) = self.list(watch)?;
            let known = std::mem::take(&mut self.watched);
            self.watched = folders.iter().map(|folder| folder.id).collect();
            let settled = self.watched.is_subset(&known);
            let change = self.registry.walked(folders, began, clock::monotonic_nanos());
            self.apply(&change, root);
            if settled {
                break;
            }
        }
        Ok(())
    }

    /// All folders, parents first, each watched from now on; and the id of the mount point's, where it is among
    /// them.
    fn list(&self, watch: &rustix::fd::OwnedFd) -> io::Result<(Vec<Folder>, Option<u64>)> {
        let flags = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::ONLYDIR
            | inotify::WatchFlags::DONT_FOLLOW;
        let mut folders = Vec::new();
        let mut root = None;
        for folder in self.root.folders()? {
            if let Err(error) = inotify::add_watch(watch, &folder, flags)
                && error != rustix::io::Errno::NOENT
            {
                tracing::debug!(%error, folder = %folder.display(), "not watched: seen by the next walk only");
            }
            let Ok(id) = cgroup::id(&folder) else { continue };
            let path = folder.strip_prefix(&self.mount).unwrap_or(&folder).to_string_lossy().into_owned();
            if path.is_empty() {
                root = Some(id);
            }
            folders.push(Folder { id, path });
        }
        Ok((folders, root))
    }

    fn renew(&mut self) {
        let change = self.registry.renew();
        self.apply(&change, None);
    }

    fn apply(&mut self, change: &Change, root: Option<u64>) {
        for path in &change.gone {
            (self.gone)(path);
        }
        // Also where it is the parent's: the kernel finds one of its own at once, another only by walking up.
        let verdicts = change.settings.iter().map(|(&id, &setting)| (id, verdict(setting)));
        let mut verdicts: HashMap<u64, CgroupVerdict> = verdicts.collect();
        self.root_id = root.or(self.root_id);
        if let Some(id) = self.root_id {
            verdicts.insert(id, self.default);
        }
        self.tell(verdicts);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What inotify says while a nudge's pause lasts is as good as what it said before.
    #[test]
    fn a_cgroup_that_appears_while_pods_are_looked_at_is_walked_to() {
        let place = tempfile::tempdir().expect("a folder");
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
        let watch = watch.expect("inotify");
        inotify::add_watch(&watch, place.path(), inotify::WatchFlags::CREATE).expect("a watch");
        let (nudge, nudged) = Nudge::new().expect("sockets");
        let (_stop, stopped) = UnixStream::pair().expect("sockets");
        nudge.renew();
        let appearing = place.path().join("container");
        let maker = std::thread::spawn(move || {
            std::thread::sleep(NUDGE_PAUSE / 2);
            std::fs::create_dir(appearing)
        });
        let first = wait(&watch, &nudged, &stopped);
        maker.join().expect("no panic").expect("a folder");
        // Made too late for the first, on a busy machine, it is there for the second.
        nudge.renew();
        let reasons = [first, wait(&watch, &nudged, &stopped)];
        assert!(reasons.contains(&Reason::Walk), "{reasons:?}");
    }
}
