//! The programs in the kernel, and everything that is said to them.

use std::{
    collections::{HashMap as Rules, HashSet},
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::Receiver,
    },
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, SkStorage, lpm_trie::Key},
};
use aya_log::EbpfLogger;
use verbatim_ebpf_common::{self as common, Destination, Target, Verdict};
use verbatim_sys::{bpf, clock};

use crate::{
    Bypasses, CgroupVerdict, ConnectReader, DestinationRule, Event, FlowReader, Heartbeat, HookReport,
    Lacking, Namespaces, SteerConfig, SteerError, Stray, counters, effective, features,
    hooks::{self, Pins},
    kernel_log::KernelLog,
    locking::lock,
    object,
    pump::Pump,
    strays,
};

/// The loaded programs. Dropping it detaches them, unless they are pinned.
pub struct Steering {
    attached: Mutex<Attached>,
    root: File,
    root_path: PathBuf,
    /// Tells our programs from those of another agent on the same hooks.
    instance: u64,
    owner: Mutex<Array<MapData, u64>>,
    bypasses: Bypasses,
    pins: Option<Pins>,
    config: Mutex<Array<MapData, common::Config>>,
    own: Mutex<HashMap<MapData, u64, u8>>,
    cgroups: Mutex<HashMap<MapData, u64, Verdict>>,
    destinations: Mutex<LpmTrie<MapData, Destination, u8>>,
    epoch: Mutex<Array<MapData, u32>>,
    strays: Mutex<HashMap<MapData, u64, common::Stray>>,
    strays_ended: AtomicU64,
    counts: PerCpuArray<MapData, u64>,
    connects: ConnectReader,
    heartbeat: Heartbeat,
    flows: FlowReader,
    namespaces: Namespaces,
    events: Mutex<Option<Receiver<Event>>>,
    pump: Pump,
    /// A successor decides.
    frozen: AtomicBool,
    lacking: Vec<Lacking>,
}

struct Attached {
    ebpf: Ebpf,
    /// Dropped with `self`: without pins that detaches.
    hooks: Vec<hooks::Attached>,
    done: bool,
}

impl Steering {
    /// Whether BPF is permitted here, and the kernel has what the programs need. Cheap: loads programs of two
    /// instructions.
    ///
    /// # Errors
    /// It is not, the kernel lacks something, or the programs are missing from this build.
    pub fn probe() -> Result<(), SteerError> {
        object::programs()?;
        Self::look(&[]).map(drop)
    }

    fn look(absent: &[String]) -> Result<Vec<Lacking>, SteerError> {
        bpf::probe_socket_address_program()
            .map_err(|error| SteerError::kernel("loading a probe program", error))?;
        features::check(absent)
    }

    /// What this kernel has not, and we can do without.
    #[must_use]
    pub fn lacking(&self) -> &[Lacking] {
        &self.lacking
    }

    /// Whether [`Self::end_stray`] can do anything.
    #[must_use]
    pub fn can_end_strays(&self) -> bool {
        self.lacking.iter().all(|one| one.feature.name != features::ENDING_SOCKETS)
    }

    /// Loads the programs and fills the maps with what `config` says; nothing is attached yet. The
    /// heartbeat begins now: beat, or [`Heartbeat::keep`] beating, before its time-out.
    ///
    /// Call it from a thread that is in the process's own network namespace.
    ///
    /// # Errors
    /// Which step failed and what to do: no privileges, a kernel without a feature, a directory that
    /// is none.
    pub fn load(config: &SteerConfig) -> Result<Self, SteerError> {
        config.check()?;
        let object = object::programs()?;
        let root = open_root(&config.attach_root)?;
        let lacking = Self::look(&config.treat_as_absent)?;
        for one in &lacking {
            tracing::warn!(alert = "kernel", "{one}");
        }
        let pins = config.pin_directory.as_deref();
        let pins = pins.map(|parent| Pins::prepare(parent, config.schema)).transpose()?;
        let before = pins.as_ref().filter(|_| config.waited_for).map(|pins| pins.map_path("HB"));
        let before = before.and_then(|path| Heartbeat::pinned(&path));
        let _beating = before.map(|heartbeat| heartbeat.keep(|| true)).transpose();
        let mut loader = EbpfLoader::new();
        for (name, path) in pins.iter().flat_map(Pins::maps) {
            loader.map_pin_path(name, path);
        }
        let mut ebpf = loader.load(object).map_err(|error| SteerError::kernel("creating the maps", error))?;
        hooks::load(&mut ebpf)?;

        let kernel_config: Array<_, common::Config> = map(&mut ebpf, "CFG")?;
        let heartbeat = Heartbeat::new(map(&mut ebpf, "HB")?);
        heartbeat.beat()?;
        let targets: HashMap<_, u64, Target> = map(&mut ebpf, "TGT")?;
        let flows: SkStorage<_, common::Flow> = map(&mut ebpf, "SKA")?;
        let logs = EbpfLogger::init_with_logger(&mut ebpf, KernelLog)
            .inspect_err(|error| tracing::warn!(%error, "what the programs log is not shown"))
            .ok();
        let pinned = pins.as_ref().map(|pins| pins.map_path("EVENTS"));
        let (pump, events) = Pump::start(map::<RingBuf<_>>(&mut ebpf, "EVENTS")?, logs, pinned)?;
        let steering = Self {
            root,
            root_path: config.attach_root.clone(),
            instance: clock::monotonic_nanos(),
            owner: Mutex::new(map(&mut ebpf, "OWNER")?),
            bypasses: Bypasses::new(map(&mut ebpf, "BYP")?),
            pins,
            config: Mutex::new(kernel_config),
            own: Mutex::new(map(&mut ebpf, "OWN")?),
            cgroups: Mutex::new(map(&mut ebpf, "CGS")?),
            destinations: Mutex::new(map(&mut ebpf, "DSTS")?),
            epoch: Mutex::new(map(&mut ebpf, "EPOCH")?),
            strays: Mutex::new(map(&mut ebpf, "STRAYS")?),
            strays_ended: AtomicU64::new(0),
            counts: map(&mut ebpf, "CNT")?,
            connects: ConnectReader::new(map(&mut ebpf, "CONNS")?)?,
            heartbeat,
            flows: FlowReader::new(flows),
            namespaces: Namespaces::new(targets, config.shards, config.ports.clone())?,
            events: Mutex::new(Some(events)),
            pump,
            frozen: AtomicBool::new(false),
            lacking,
            attached: Mutex::new(Attached { ebpf, hooks: Vec::new(), done: false }),
        };
        steering.configure(config)?;
        Ok(steering)
    }

    fn configure(&self, config: &SteerConfig) -> Result<(), SteerError> {
        lock(&self.config)
            .set(0, config.kernel_config(), 0)
            .map_err(|error| SteerError::kernel("writing the configuration", error))?;
        self.set_own(&config.own_cgroups)
    }

    /// Leaves every decision to a successor that goes on with the pinned maps, until [`Self::thaw`]: verdicts,
    /// rules, namespaces and events are its own. Connections that stand are served on. When it returns, the
    /// successor may begin.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
        // Whoever had looked before is done once these were ours.
        drop((lock(&self.cgroups), lock(&self.destinations)));
        self.namespaces.freeze();
        if self.pins.is_some() {
            self.pump.pause();
        }
    }

    /// Decides again, since the successor is gone: what it may have changed in the pinned maps is as `config`
    /// says, and our programs are behind the links. Say again which destinations and cgroups are steered.
    ///
    /// # Errors
    /// A map cannot be written, or a link not be updated.
    pub fn thaw(&self, config: &SteerConfig) -> Result<(), SteerError> {
        self.frozen.store(false, Ordering::Release);
        if self.pins.is_some() {
            self.pump.go_on();
        }
        self.configure(config)?;
        self.namespaces.thaw()?;
        lock(&self.attached).done = false;
        self.attach()
    }

    /// With a successor whose maps have another layout, and which has attached programs of its own: takes no
    /// more connects. What carries and shows the connections that stand stays until [`Self::detach`].
    ///
    /// # Errors
    /// The pin that could not be removed.
    pub fn release_connects(&self) -> Result<(), SteerError> {
        // Pins first: a link is off its hook when its last descriptor is closed, but some time after its last pin
        // was removed.
        let unpinned = self.pins.as_ref().map_or(Ok(()), Pins::remove_connects);
        let mut attached = lock(&self.attached);
        while let Some(last) = attached.hooks.iter().rposition(hooks::Attached::leads_connects) {
            attached.hooks.remove(last);
        }
        drop(attached);
        unpinned
    }

    /// Whether every decision is left to a successor.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    fn decides(&self, step: &'static str) -> Result<(), SteerError> {
        if self.frozen.load(Ordering::Acquire) {
            return Err(SteerError::HandedOver { step: step.into() });
        }
        Ok(())
    }

    /// Attaches the programs: from now on connects are steered. Say before what is steered, and add
    /// the listeners, or workloads are refused. A second call does nothing.
    ///
    /// # Errors
    /// The hook that could not be attached; those before it are detached when `self` is dropped.
    pub fn attach(&self) -> Result<(), SteerError> {
        let mut attached = lock(&self.attached);
        if !attached.done {
            effective::exclusive(&self.root_path, hooks::all())?;
            // First: a predecessor that sees its programs replaced must know by whom.
            lock(&self.owner)
                .set(0, self.instance, 0)
                .map_err(|error| SteerError::kernel("taking over the hooks", error))?;
            attached.hooks = hooks::attach(&mut attached.ebpf, &self.root, self.pins.as_ref())?;
            attached.done = true;
        }
        drop(attached);
        Ok(())
    }

    /// Looks whether our programs are what runs on the hooks, and brings back those that are not, unless another
    /// agent has taken the hooks over. Before [`Self::attach`] there is nothing to look at.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn check_hooks(&self) -> Result<HookReport, SteerError> {
        let mut attached = lock(&self.attached);
        let owner = lock(&self.owner).get(&0, 0);
        let owner = owner.map_err(|error| SteerError::kernel("asking whose the hooks are", error))?;
        if attached.done && (owner != self.instance || self.frozen.load(Ordering::Acquire)) {
            return Ok(HookReport { superseded: true, ..HookReport::default() });
        }
        let Attached { ebpf, hooks, .. } = &mut *attached;
        effective::check(ebpf, &self.root, self.pins.as_ref(), hooks)
    }

    /// Whether the programs have been attached.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        lock(&self.attached).done
    }

    /// A person's order not to steer for a while.
    #[must_use]
    pub fn bypasses(&self) -> Bypasses {
        self.bypasses.clone()
    }

    /// Detaches the programs and removes all pins.
    ///
    /// # Errors
    /// The pin that could not be removed.
    pub fn detach(self) -> Result<(), SteerError> {
        self.pins.as_ref().map_or(Ok(()), Pins::remove)
    }

    /// Replaces the set of cgroups that are never steered: the proxy's own. Those below them count
    /// as others.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_own(&self, cgroups: &[u64]) -> Result<(), SteerError> {
        let failed = |error| SteerError::kernel("naming our own cgroups", error);
        let mut own = lock(&self.own);
        let old: HashSet<u64> = own.keys().collect::<Result<_, _>>().map_err(failed)?;
        for id in cgroups {
            own.insert(id, 1, 0).map_err(failed)?;
        }
        for id in old.iter().filter(|id| !cgroups.contains(id)) {
            own.remove(id).map_err(failed)?;
        }
        drop(own);
        Ok(())
    }

    /// Says what holds for a cgroup and those below it that have no verdict of their own.
    ///
    /// # Errors
    /// The map cannot be written, or is full (65,536 cgroups).
    pub fn set_cgroup(&self, id: u64, verdict: CgroupVerdict) -> Result<(), SteerError> {
        let mut cgroups = lock(&self.cgroups);
        self.decides("setting a cgroup's verdict")?;
        cgroups
            .insert(id, Verdict::from(verdict), 0)
            .map_err(|error| SteerError::kernel(format!("setting the verdict of cgroup {id}"), error))
    }

    /// Takes a cgroup's verdict back. `false`: it had none.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn remove_cgroup(&self, id: u64) -> Result<bool, SteerError> {
        let mut cgroups = lock(&self.cgroups);
        self.decides("removing a cgroup's verdict")?;
        absent_is_fine(cgroups.remove(&id))
            .map_err(|error| SteerError::kernel(format!("removing the verdict of cgroup {id}"), error))
    }

    /// The verdicts that hold, those of a predecessor among them.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn cgroups(&self) -> Result<Rules<u64, CgroupVerdict>, SteerError> {
        let cgroups = lock(&self.cgroups);
        let pairs = cgroups.iter().collect::<Result<Vec<_>, _>>();
        let pairs = pairs.map_err(|error| SteerError::kernel("reading the verdicts of cgroups", error))?;
        Ok(pairs.into_iter().filter_map(|(id, verdict)| Some((id, CgroupVerdict::of(verdict)?))).collect())
    }

    /// Replaces all rules about destinations. New rules hold before old ones go, so that nothing
    /// slips through in between.
    ///
    /// # Errors
    /// Two rules that contradict each other, or a map that cannot be written or is full (65,536
    /// rules).
    pub fn set_destinations(&self, rules: &[DestinationRule]) -> Result<(), SteerError> {
        let mut wanted: Rules<(u32, Destination), u8> = Rules::new();
        for rule in rules {
            let key = rule.key();
            let action = rule.action as u8;
            if wanted.insert((key.prefix_len(), key.data()), action).is_some_and(|other| other != action) {
                return Err(SteerError::Invalid {
                    what: "destination rules".into(),
                    cause: format!("two rules of different action name the same destination: {rule:?}"),
                });
            }
        }
        let failed = |error| SteerError::kernel("replacing the destination rules", error);
        let mut trie = lock(&self.destinations);
        self.decides("replacing the destination rules")?;
        let old: Vec<Key<Destination>> = trie.keys().collect::<Result<_, _>>().map_err(failed)?;
        for (&(length, data), &action) in &wanted {
            trie.insert(&Key::new(length, data), action, 0).map_err(failed)?;
        }
        for key in old.iter().filter(|key| !wanted.contains_key(&(key.prefix_len(), key.data()))) {
            trie.remove(key).map_err(failed)?;
        }
        drop(trie);
        self.begin_epoch()
    }

    /// Makes the backstop look again at connections that went to where nothing was steered.
    fn begin_epoch(&self) -> Result<(), SteerError> {
        let failed = |error| SteerError::kernel("beginning an epoch of the rules", error);
        let mut epoch = lock(&self.epoch);
        let last = epoch.get(&0, 0).map_err(failed)?;
        epoch.set(0, last.wrapping_add(1), 0).map_err(failed)
    }

    /// Connections of steered workloads that came past connect(), found since the last call. One that is dropped
    /// comes again as long as it sends.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn take_strays(&self) -> Result<Vec<Stray>, SteerError> {
        let mut found = lock(&self.strays);
        self.decides("reading what came past connect()")?;
        strays::take(&mut found)
    }

    /// Ends such a connection: its owner gets ECONNABORTED, the other end a reset. `false`: it is gone, or in no
    /// namespace that we know.
    ///
    /// The calling thread enters namespaces for a moment, so it must be in the process's own.
    ///
    /// # Errors
    /// The system calls': a kernel that cannot end sockets (`EOPNOTSUPP`).
    pub fn end_stray(&self, stray: &Stray) -> io::Result<bool> {
        let ended = strays::end(stray, &self.namespaces)?;
        self.strays_ended.fetch_add(u64::from(ended), Ordering::Relaxed);
        Ok(ended)
    }

    /// Gives signs of life.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Reads flows of accepted sockets.
    #[must_use]
    pub fn flows(&self) -> FlowReader {
        self.flows.clone()
    }

    /// The namespaces in which listeners stand.
    #[must_use]
    pub fn namespaces(&self) -> Namespaces {
        self.namespaces.clone()
    }

    /// What the kernel reports, for one reader: `None` for every further one. Holds 1,024 events.
    #[must_use]
    pub fn events(&self) -> Option<Receiver<Event>> {
        lock(&self.events).take()
    }

    /// Reads what the programs have counted by cgroup, destination and outcome.
    #[must_use]
    pub fn connects(&self) -> ConnectReader {
        self.connects.clone()
    }

    /// What the programs have counted; the last two are counted here: events that nobody
    /// read in time, and connections from before that were ended.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, SteerError> {
        let mut counts = counters::read(&self.counts)?;
        counts.push(("events_unread", self.pump.unread()));
        counts.push(("strays_ended", self.strays_ended.load(Ordering::Relaxed)));
        Ok(counts)
    }
}

fn open_root(path: &Path) -> Result<File, SteerError> {
    let failed = |cause: String| SteerError::AttachRoot { path: path.to_owned(), cause };
    let root = File::open(path).map_err(|error| failed(error.to_string()))?;
    let kind = rustix::fs::fstatfs(&root).map_err(|error| failed(error.to_string()))?.f_type;
    if u64::try_from(kind).is_ok_and(|kind| kind == CGROUP2_MAGIC) {
        return Ok(root);
    }
    Err(failed("is no cgroup v2 directory".to_owned()))
}

/// `include/uapi/linux/magic.h`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Takes a map out of the loaded object, in the type that the caller wants.
fn map<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, SteerError> {
    let broken = |cause: String| SteerError::Invalid { what: "embedded eBPF programs".into(), cause };
    ebpf.take_map(name)
        .ok_or_else(|| broken(format!("no map {name}: run `cargo xtask ebpf`, then build again")))?
        .try_into()
        .map_err(|error: MapError| {
            broken(format!("map {name}: {error}: run `cargo xtask ebpf`, then build again"))
        })
}

fn absent_is_fine(removed: Result<(), MapError>) -> Result<bool, MapError> {
    match removed {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
