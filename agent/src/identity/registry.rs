//! Which cgroups there are and were, with who lives in each.
//!
//! Owns the ids: a cgroup's is its inode number. The kernel counts a generation in it (`kernfs`, since 5.5) and so
//! gives none twice in a machine's life; whatever it does, a connection is its cgroup's only where the cgroup had
//! that id when the connection was opened. Reads no file system: a walk brings what it saw.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::AtomicBool},
};

use verbatim_agent_config::Setting;
use verbatim_api::v1::Resolution;
use verbatim_kube::ContainerTrust;

use super::{cgroup::Place, naming::Named, table::Table};

/// How long a cgroup that is gone is remembered, nanoseconds: connections are accepted after their processes ended.
const REMEMBERED: u64 = 600 * 1_000_000_000;
/// Cgroups that are gone and remembered.
const REMEMBERED_CGROUPS: usize = 8192;

/// What a walk saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Inode number.
    pub id: u64,
    /// Relative to the mount point.
    pub path: String,
}

/// What is known of one cgroup. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Debug)]
pub struct Known {
    /// Relative to the mount point.
    pub path: Arc<str>,
    /// What it says.
    pub place: Place,
    /// Who lives there.
    pub named: Named,
    /// What the first matching selector sets.
    pub setting: Setting,
    /// The beginning of the last walk that did not see it: it had no id yet. 0 where there was none.
    pub absent: u64,
    /// Where it is gone.
    pub gone: Option<Gone>,
    /// The one that had this id before.
    pub before: Option<Arc<Self>>,
    /// Its name was waited for in vain, once: nobody waits again.
    pub(super) waited: Arc<AtomicBool>,
}

impl Known {
    /// Names the container of a pod, wherever in it the process lives, for as long as the pod is there: a container
    /// that is started again is the same. `None` where it is no container of a known pod; its path then names it.
    #[must_use]
    pub fn container(&self) -> Option<String> {
        let workload = &self.named.identity.workload;
        let uid = &self.place.pod()?.uid;
        (workload.resolution() == Resolution::Pod).then(|| format!("{uid}/{}", workload.container))
    }

    /// What its container was given so that it trusts us; `None` where it is no container of a known pod.
    #[must_use]
    pub fn injection(&self) -> Option<&ContainerTrust> {
        let workload = &self.named.identity.workload;
        let pod = self.named.pod.as_ref().filter(|_| workload.resolution() == Resolution::Pod)?;
        pod.pod.trust.get(&workload.container)
    }
}

/// When a cgroup went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The beginning of the last walk that saw it.
    pub last_seen: u64,
    /// The end of the next one.
    pub missed: u64,
}

/// What is known of all cgroups at one moment, by id.
pub type Cgroups = HashMap<u64, Arc<Known>>;

/// What a walk, or another look at the pods, has changed.
#[derive(Debug, Default)]
pub struct Change {
    /// Of each cgroup that is there.
    pub settings: HashMap<u64, Setting>,
    /// Paths of those that went.
    pub gone: Vec<Arc<str>>,
}

/// Makes the table's snapshots.
pub struct Registry {
    table: Arc<Table>,
    /// Parents first.
    folders: Vec<Folder>,
    /// The beginning of the last walk.
    walked: u64,
    cgroups: Cgroups,
}

impl Registry {
    /// Without any cgroup yet.
    #[must_use]
    pub fn new(table: Arc<Table>) -> Self {
        Self { table, folders: Vec::new(), walked: 0, cgroups: Cgroups::new() }
    }

    /// Takes what a walk saw that took from `began` to `now`, parents first.
    pub fn walked(&mut self, folders: Vec<Folder>, began: u64, now: u64) -> Change {
        let last_walk = std::mem::replace(&mut self.walked, began);
        let gone = Gone { last_seen: last_walk, missed: now };
        let mut cgroups = Cgroups::with_capacity(self.cgroups.len());
        let mut paths: HashMap<&str, u64> = HashMap::with_capacity(folders.len());
        let look = self.table.look();
        for folder in &folders {
            let parent = parent(&folder.path).and_then(|path| paths.get(path)).and_then(|id| cgroups.get(id));
            let parent = parent.map(|known| known.named.clone());
            let before = self.cgroups.get(&folder.id);
            let same = before.filter(|known| known.gone.is_none() && *known.path == *folder.path);
            let known = match same {
                Some(same) => self.table.again(same, parent.as_ref(), &look),
                None => {
                    let before = before.map(|known| {
                        let gone = Some(known.gone.unwrap_or(gone));
                        Arc::new(Known { gone, before: None, ..Known::clone(known) })
                    });
                    Arc::new(self.table.meet(&folder.path, parent.as_ref(), &look, last_walk, before))
                }
            };
            cgroups.insert(folder.id, known);
            paths.insert(&folder.path, folder.id);
        }
        for (&id, known) in
            self.cgroups.iter().filter(|(id, _)| !cgroups.contains_key(id)).collect::<Vec<_>>()
        {
            let gone = known.gone.unwrap_or(gone);
            if now.saturating_sub(gone.missed) < REMEMBERED {
                cgroups.insert(id, Arc::new(Known { gone: Some(gone), ..Known::clone(known) }));
            }
        }
        bound(&mut cgroups);
        let present: HashSet<&str> = paths.into_keys().collect();
        let living = self.cgroups.values().filter(|known| known.gone.is_none());
        let gone = living.filter(|known| !present.contains(&*known.path));
        let gone = gone.map(|known| Arc::clone(&known.path)).collect();
        self.folders = folders;
        self.take(cgroups, gone)
    }

    /// Looks at the pods again.
    pub fn renew(&mut self) -> Change {
        let look = self.table.look();
        let mut cgroups = self.cgroups.clone();
        let mut paths: HashMap<&str, u64> = HashMap::with_capacity(self.folders.len());
        for folder in &self.folders {
            let Some(known) = self.cgroups.get(&folder.id) else { continue };
            let parent = parent(&folder.path).and_then(|path| paths.get(path)).and_then(|id| cgroups.get(id));
            let parent = parent.map(|known| known.named.clone());
            cgroups.insert(folder.id, self.table.again(known, parent.as_ref(), &look));
            paths.insert(&folder.path, folder.id);
        }
        for (&id, known) in self.cgroups.iter().filter(|(_, known)| known.gone.is_some()) {
            cgroups.insert(id, self.table.again(known, None, &look));
        }
        self.take(cgroups, Vec::new())
    }

    fn take(&mut self, cgroups: Cgroups, gone: Vec<Arc<str>>) -> Change {
        let living = cgroups.iter().filter(|(_, known)| known.gone.is_none());
        let settings = living.map(|(&id, known)| (id, known.setting)).collect();
        self.cgroups.clone_from(&cgroups);
        self.table.replace(cgroups);
        Change { settings, gone }
    }
}

fn parent(path: &str) -> Option<&str> {
    if path.is_empty() { None } else { Some(path.rsplit_once('/').map_or("", |(parent, _)| parent)) }
}

fn bound(cgroups: &mut Cgroups) {
    let mut gone: Vec<(u64, u64)> =
        cgroups.iter().filter_map(|(&id, known)| Some((known.gone?.missed, id))).collect();
    if gone.len() > REMEMBERED_CGROUPS {
        gone.sort_unstable();
        let surplus = gone.len() - REMEMBERED_CGROUPS;
        for (_, id) in gone.drain(..surplus) {
            cgroups.remove(&id);
        }
    }
}
