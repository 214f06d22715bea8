//! Many pods, events and connections at random against an oracle that knows whose each connection was: a name is
//! right or there is none.
//!
//! Names, addresses and cgroup ids are few and used again and again. Events come late, twice, in another order and
//! not at all; lists are older than events; connections are looked up long after they were opened. Some pods claim
//! to mirror files that are another's. What the model grants is what the kernel does: an id is given again only
//! after a walk could have missed its cgroup.

use std::{
    collections::{HashSet, VecDeque},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use verbatim_api::v1::{PrincipalKind, Resolution};
use verbatim_kube::{Book, Container, Kind, Pod, Run, Store};
use verbatim_proxy::seam::{Flow, Identities};

use super::{Federated, Folder, Pods, Registry, Table};

const SECOND: u64 = 1_000_000_000;
/// Steps of one case.
const STEPS: usize = 3000;
const NAMESPACES: [&str; 3] = ["shop", "billing", "kube-system"];
const NAMES: [&str; 4] = ["web-0", "web-1", "db-0", "job"];

/// xorshift64*: the same steps for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap_or_default() % bound.max(1)
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// A cgroup as it really is: whose, where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Truth {
    id: u64,
    path: String,
    /// Number of the pod, and the container; `None` for a service of the node.
    owner: Option<(usize, &'static str)>,
}

#[derive(Clone)]
enum Event {
    Apply(Box<Pod>, u64),
    Delete(String),
}

struct World {
    dice: Dice,
    step: u64,
    start: Instant,
    /// Every pod that ever was, as the API server has it now.
    pods: Vec<Pod>,
    living: Vec<usize>,
    version: u64,
    events: VecDeque<Event>,
    told: usize,
    cgroups: Vec<Truth>,
    /// Ids whose cgroups went since the last walk.
    resting: Vec<u64>,
    free: Vec<u64>,
    connections: Vec<(Flow, Truth)>,
    table: Arc<Table>,
    registry: Registry,
    book: Book,
    resolved: usize,
    unresolved: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let text = "apiVersion: verbatim.v1\nkind: NodeAgent\ndestinations: [{cidr: 10.0.0.0/8, action: steer}]\n\
                    spool: {directory: /s}\ncollector: {address: 'unix:/c'}\n\
                    selectors: [{set: {capture: steer, failMode: open}}]\n\
                    kubernetes: {projectNumber: 7, project: my-project, cluster: c, location: l}";
        let config = verbatim_agent_config::parse(text, Path::new("agent.yaml")).expect("configuration");
        let store = Store::new(|| {});
        let federated = Federated::new(config.kubernetes.as_ref().expect("there")).expect("pool");
        let pods = Pods { store: Arc::clone(&store), federated };
        let table = Arc::new(Table::new(&config, "node-1", Some(pods), |_| {}));
        Self {
            dice: Dice(seed | 1),
            step: 1,
            start: Instant::now(),
            pods: Vec::new(),
            living: Vec::new(),
            version: 1,
            events: VecDeque::new(),
            told: 0,
            cgroups: Vec::new(),
            resting: Vec::new(),
            free: (100..160).collect(),
            connections: Vec::new(),
            registry: Registry::new(Arc::clone(&table)),
            table,
            book: Book::new(store),
            resolved: 0,
            unresolved: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.step)
    }

    fn nanos(&self) -> u64 {
        self.step * SECOND
    }

    fn applied(&mut self, pod: usize) {
        self.version += 1;
        self.events.push_back(Event::Apply(Box::new(self.pods[pod].clone()), self.version));
    }

    fn create(&mut self) {
        let number = self.pods.len();
        let namespace = NAMESPACES[self.dice.below(NAMESPACES.len())];
        let name = NAMES[self.dice.below(NAMES.len())];
        let taken = |pod: &usize| (self.pods[*pod].namespace == namespace) && self.pods[*pod].name == name;
        if self.living.iter().any(taken) || self.living.len() > 8 {
            return;
        }
        let uid = format!("{number:08x}-0000-4000-8000-000000000000");
        let container =
            |name: &str, kind| Container { name: name.into(), kind, image: name.into(), runs: Vec::new() };
        let mut pod = Pod {
            cgroup_uid: uid.clone(),
            uid,
            namespace: namespace.into(),
            name: name.into(),
            service_account: format!("sa-{}", number % 7),
            containers: vec![container("app", Kind::Regular), container("side", Kind::Sidecar)],
            ..Pod::default()
        };
        match self.dice.below(10) {
            0 | 1 => {
                // The same file gives the same digest, whatever UID its mirror has.
                pod.static_pod = true;
                pod.service_account.clear();
                pod.cgroup_uid = format!(
                    "{:032x}",
                    (namespace.len() << 8) + name.len() + usize::from(name.ends_with('1'))
                );
            }
            2 => {
                // It poses as the mirror of somebody's file; the kubelet has no containers for it.
                pod.static_pod = true;
                pod.service_account.clear();
                pod.name = format!("posing-{number}");
                pod.cgroup_uid = format!("{:032x}", ("shop".len() << 8) + "web-0".len());
                pod.containers.clear();
            }
            _ => {}
        }
        self.pods.push(pod);
        self.living.push(number);
        self.applied(number);
    }

    /// A container starts: its cgroup is there long before its status is.
    fn start(&mut self) {
        let Some(&number) = self.living.get(self.dice.below(self.living.len())) else { return };
        let Some(id) = self.free.pop() else { return };
        let slot = self.dice.below(2);
        let name = ["app", "side"][slot];
        let container = format!("{:064x}", self.version * 1000 + id);
        let pod = &mut self.pods[number];
        if pod.containers.is_empty() {
            self.free.push(id);
            return;
        }
        let path = format!("kubepods/burstable/pod{}/{container}", pod.cgroup_uid);
        pod.containers[slot].runs.insert(0, Run { id: container, image_digest: String::new() });
        pod.containers[slot].runs.truncate(2);
        self.cgroups.push(Truth { id, path, owner: Some((number, name)) });
        self.applied(number);
    }

    fn serve(&mut self) {
        let Some(id) = self.free.pop() else { return };
        let path = format!("system.slice/unit-{}.service", self.step);
        self.cgroups.push(Truth { id, path, owner: None });
    }

    fn stop(&mut self) {
        if self.cgroups.is_empty() {
            return;
        }
        let gone = self.cgroups.swap_remove(self.dice.below(self.cgroups.len()));
        self.resting.push(gone.id);
    }

    /// With its cgroups, or without: then it was deleted by force.
    fn delete(&mut self) {
        if self.living.is_empty() {
            return;
        }
        let number = self.living.swap_remove(self.dice.below(self.living.len()));
        if self.dice.percent(80) {
            let (gone, stay) = std::mem::take(&mut self.cgroups)
                .into_iter()
                .partition(|truth| truth.owner.is_some_and(|(owner, _)| owner == number));
            self.cgroups = stay;
            self.resting.extend(Vec::<Truth>::into_iter(gone).map(|truth| truth.id));
        }
        self.version += 1;
        self.events.push_back(Event::Delete(self.pods[number].uid.clone()));
    }

    fn deliver(&mut self) {
        let at = self.dice.below(self.events.len().min(6));
        let Some(event) = self.events.get(at).cloned() else { return };
        // Otherwise it comes again.
        if self.dice.percent(80) {
            self.events.remove(at);
        }
        if self.dice.percent(5) {
            return;
        }
        self.told += 1;
        match event {
            Event::Apply(pod, version) => {
                let version = self.dice.percent(80).then_some(version);
                self.book.apply(*pod, version);
            }
            Event::Delete(uid) => self.book.delete(&uid, self.now()),
        }
        self.book.publish(self.now());
    }

    fn list(&mut self) {
        self.book.list_begins();
        for &number in &self.living {
            // An old list lacks what is new.
            if self.dice.percent(90) {
                self.told += 1;
                self.book.apply(self.pods[number].clone(), Some(self.version));
            }
        }
        self.book.list_ends(self.now());
        self.book.publish(self.now());
    }

    fn walk(&mut self) {
        let mut folders: Vec<Folder> = vec![Folder { id: 1, path: String::new() }];
        let mut pods = HashSet::new();
        for truth in &self.cgroups {
            let around = truth.path.rsplit_once('/').map_or("", |(around, _)| around).to_owned();
            if pods.insert(around.clone()) {
                let id = 10_000 + u64::try_from(folders.len()).unwrap_or_default();
                folders.push(Folder { id, path: around });
            }
            folders.push(Folder { id: truth.id, path: truth.path.clone() });
        }
        self.registry.walked(folders, self.nanos(), self.nanos());
        self.free.splice(0..0, self.resting.drain(..));
    }

    fn connect(&mut self) {
        let Some(truth) = self.cgroups.get(self.dice.below(self.cgroups.len())).cloned() else { return };
        let flow = Flow {
            destination: ([10, 0, 0, 1], 5432).into(),
            cgroup_id: truth.id,
            ancestor_cgroup_ids: vec![1],
            pid: 1,
            uid: 0,
            gid: 0,
            client_netns: 1,
            listener_netns: 1,
            socket_cookie: 1,
            ktime_nanos: self.nanos(),
            comm: String::new(),
            connect_series: 0,
            connect_number: 0,
        };
        self.connections.push((flow, truth));
    }

    fn look_up(&mut self) -> Result<(), TestCaseError> {
        if self.connections.is_empty() {
            return Ok(());
        }
        let at = self.dice.below(self.connections.len());
        let (flow, truth) = self.connections[at].clone();
        if self.dice.percent(70) {
            self.connections.swap_remove(at);
        }
        let workload = self.table.identify(&flow).workload.clone();
        let named = !workload.namespace.is_empty();
        let Some((number, container)) = truth.owner else {
            prop_assert!(!named && workload.pod_uid.is_empty(), "a service became {workload:?}");
            return Ok(());
        };
        let pod = &self.pods[number];
        if !named {
            self.unresolved += 1;
            prop_assert_eq!(workload.principal_kind(), PrincipalKind::Unresolved);
            prop_assert_eq!(&workload.principal, "");
            prop_assert_eq!(&workload.pod_name, "");
            prop_assert!(workload.pod_uid.is_empty() || workload.pod_uid == pod.cgroup_uid, "{workload:?}");
            prop_assert_ne!(workload.resolution(), Resolution::Pod);
            return Ok(());
        }
        self.resolved += 1;
        let names = [&workload.namespace, &workload.pod_name, &workload.service_account];
        prop_assert_eq!(names, [&pod.namespace, &pod.name, &pod.service_account]);
        if pod.static_pod {
            prop_assert_eq!(&workload.principal, "");
        } else {
            prop_assert_eq!(&workload.pod_uid, &pod.uid);
            let subject = format!("/subject/ns/{}/sa/{}", pod.namespace, pod.service_account);
            prop_assert!(workload.principal.ends_with(&subject), "{workload:?}");
        }
        prop_assert!(workload.container.is_empty() || workload.container == container, "{workload:?}");
        Ok(())
    }

    fn step(&mut self) -> Result<(), TestCaseError> {
        self.step += 1;
        match self.dice.below(100) {
            0..10 => self.create(),
            10..22 => self.start(),
            22..24 => self.serve(),
            24..28 => self.stop(),
            28..32 => self.delete(),
            32..62 => self.deliver(),
            62..63 => self.list(),
            63..70 => self.walk(),
            70..78 => drop(self.registry.renew()),
            78..89 => self.connect(),
            _ => return self.look_up(),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// 24 cases of some 900 events each.
    #[test]
    fn no_pod_is_ever_called_by_anothers_name(seed: u64) {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step()?;
        }
        prop_assert!(world.told > 600, "{} events", world.told);
        // Right by saying nothing is not enough, and nothing was made too easy.
        let (named, nobody) = (world.resolved, world.unresolved);
        prop_assert!(named > (named + nobody) / 5 && nobody > 0, "{named} named, {nobody} not");
    }
}
