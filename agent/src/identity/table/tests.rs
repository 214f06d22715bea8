use std::{collections::BTreeSet, path::Path};

use verbatim_agent_config::{Capture, FailMode, Untrusted, parse};
use verbatim_kube::{Book, Container, ContainerTrust, Kind, NotInjected, Pod, RootId, Run, Store};

use super::{super::selecting::NO_SELECTOR, *};
use crate::identity::{Change, Federated, Folder, Registry};

fn config(rules: &str) -> NodeAgent {
    let text = format!(
        "apiVersion: verbatim.v1\nkind: NodeAgent\ndestinations: [{{cidr: 10.0.0.0/8, action: steer}}]\n\
         spool: {{directory: /s}}\ncollector: {{address: 'unix:/c'}}\n{rules}"
    );
    parse(&text, Path::new("agent.yaml")).expect("configuration")
}

const STEER: Setting = Setting { capture: Capture::Steer, fail_mode: FailMode::Closed, ..NO_SELECTOR };

const RULES: &str = "\
selectors:
- {match: {namespace: kube-system}, set: {capture: pass, failMode: open}}
- {match: {cgroup: 'kubepods/**'}, set: {capture: steer, failMode: closed}}
identities:
- {cgroup: 'kubepods/**/pod{uid}/**', projectNumber: 7, pool: p.svc.id.goog, namespace: '{uid}', serviceAccount: sa,
   pod: {uid: '{uid}'}}
";

const PODS: &str = "\
selectors:
- {match: {podLabels: {app: spared}}, set: {capture: pass, failMode: open}}
- {match: {namespace: shop}, set: {capture: steer, failMode: closed}}
kubernetes: {projectNumber: 7, project: my-project, cluster: c, location: l, labels: [app], resolveTimeout: 5s}
";

fn flow(cgroup_id: u64, ancestors: &[u64], opened: u64) -> Flow {
    Flow {
        destination: ([10, 0, 0, 1], 5432).into(),
        cgroup_id,
        ancestor_cgroup_ids: ancestors.to_vec(),
        pid: 1,
        uid: 0,
        gid: 0,
        client_netns: 1,
        listener_netns: 1,
        socket_cookie: 1,
        ktime_nanos: opened,
        comm: String::new(),
        connect_series: 0,
        connect_number: 0,
    }
}

/// A table with what makes its snapshots.
struct Node {
    table: Arc<Table>,
    registry: Registry,
    book: Book,
}

impl Node {
    fn new(rules: &str) -> Self {
        let config = config(rules);
        let store = Store::new(|| {});
        let pods = config.kubernetes.as_ref().map(|kubernetes| Pods {
            store: Arc::clone(&store),
            federated: Federated::new(kubernetes).expect("pool"),
        });
        let table = Arc::new(Table::new(&config, "node-1", pods, |_| {}));
        Self { registry: Registry::new(Arc::clone(&table)), book: Book::new(store), table }
    }

    fn walk(&mut self, folders: &[(u64, &str)], at: u64) -> Change {
        let folders = folders.iter().map(|&(id, path)| Folder { id, path: path.to_owned() }).collect();
        self.registry.walked(folders, at, at)
    }

    fn tell(&mut self, pod: Pod) -> Change {
        self.book.apply(pod, None);
        self.book.publish(std::time::Instant::now());
        self.registry.renew()
    }

    fn workload(&self, flow: &Flow) -> v1::Workload {
        self.table.identify(flow).workload.clone()
    }
}

const UID: &str = "0f6e7c1a-2b3c-4d5e-8f90-a1b2c3d4e5f6";
const ID: &str = "5f2c9d0e4b6a8170f3e2d1c0b9a897867564534231201f0e0d0c0b0a09080706";

fn path() -> String {
    format!("kubepods/burstable/pod{UID}/{ID}")
}

fn pod(namespace: &str) -> Pod {
    let run = Run { id: ID.into(), image_digest: format!("sha256:{}", "d".repeat(64)) };
    Pod {
        uid: UID.into(),
        cgroup_uid: UID.into(),
        namespace: namespace.into(),
        name: "checkout-0".into(),
        service_account: "checkout".into(),
        labels: [("app".to_owned(), "checkout".to_owned())].into(),
        containers: vec![Container {
            name: "app".into(),
            kind: Kind::Init,
            image: "app:1".into(),
            runs: vec![run],
        }],
        ..Pod::default()
    }
}

#[test]
fn the_first_selector_that_matches_decides() {
    let mut node = Node::new(RULES);
    let change = node.walk(
        &[
            (1, ""),
            (2, "kubepods/besteffort/podkube-system/c"),
            (3, "kubepods/besteffort/podshop/c"),
            (4, "system.slice"),
        ],
        1,
    );
    assert_eq!(change.settings[&2].capture, Capture::Pass);
    assert_eq!(change.settings[&3], STEER);
    assert_eq!(change.settings[&4], NO_SELECTOR);
    assert_eq!(node.table.default_setting(), NO_SELECTOR);
}

#[test]
fn a_capture_that_is_no_kubernetes_name_names_nobody() {
    let mut node = Node::new(RULES);
    node.walk(&[(2, "kubepods/podA:B/c")], 1);
    let workload = node.workload(&flow(2, &[], 2));
    assert_eq!(workload.principal_kind(), v1::PrincipalKind::Unresolved);
}

#[test]
fn a_nested_cgroup_of_a_rule_is_its_nearest_known_ancestor() {
    let mut node = Node::new(RULES);
    node.walk(&[(1, ""), (5, "kubepods/podshop")], 1);
    let workload = node.workload(&flow(9, &[5, 1], 2));
    assert_eq!((workload.namespace.as_str(), workload.resolution()), ("shop", Resolution::Rule));
    let stranger = node.workload(&flow(9, &[1], 2));
    assert_eq!(stranger.principal_kind(), v1::PrincipalKind::Unresolved);
    assert_eq!(stranger.node, "node-1");
}

#[test]
fn trust_is_what_the_selector_says_and_a_refusal_is_the_containers() {
    let mut node = Node::new(
        &RULES
            .replace(
                "set: {capture: steer, failMode: closed}",
                "set: {capture: steer, failMode: closed, trust: injected, untrusted: deny}",
            )
            .replace(
                "identities:",
                "- {match: {cgroup: system.slice}, set: {capture: steer, failMode: closed, trust: none}}\n\
         tls: {stateFile: /s, authority: {ephemeral: {directory: d}}}\nidentities:",
            ),
    );
    node.walk(
        &[
            (1, ""),
            (4, "kubepods/podshop/c"),
            (5, "kubepods/podshop/c/nested"),
            (6, "system.slice/a.service"),
        ],
        1,
    );
    let standing = |flow: &Flow| {
        let standing = node.table.standing(&node.table.identify(flow), flow);
        (standing.workload, standing.evidence, standing.untrusted)
    };
    let (workload, ..) = standing(&flow(4, &[], 2));
    assert_eq!(workload, "kubepods/podshop/c");
    let service = ("system.slice/a.service".to_owned(), Evidence::Spared, Untrusted::Splice);
    assert_eq!(standing(&flow(7, &[6], 2)), service);
    let (workload, evidence, untrusted) = standing(&flow(5, &[], 2));
    assert_eq!((evidence, untrusted), (Evidence::Injected, Untrusted::Deny));
    assert!(workload.starts_with("kubepods/podshop/c"));
    assert_eq!(standing(&flow(8, &[], 2)), ("cgroup 8".to_owned(), Evidence::Missing, Untrusted::Splice));
}

#[test]
fn a_containers_trust_is_what_its_stored_pod_shows_unless_a_selector_knows_better() {
    let root = RootId::of(&vec![1; 4].into());
    let injected = ContainerTrust::Injected { roots: [root.clone()].into() };
    let partly = ContainerTrust::Partly { roots: [root.clone()].into(), own: BTreeSet::default() };
    let not = ContainerTrust::NotInjected { why: NotInjected::NeverSeen };
    let with = Evidence::InjectedWith(Arc::new([root].into()));
    let tls = "tls: {stateFile: /s, authority: {ephemeral: {directory: d}}}\n";
    for (set, given, expected) in [
        ("", Some(&injected), with.clone()),
        (", trust: byInjection", Some(&injected), with),
        ("", Some(&partly), Evidence::Missing),
        ("", Some(&not), Evidence::Missing),
        ("", None, Evidence::Missing),
        (", trust: injected", Some(&not), Evidence::Injected),
        (", trust: none", Some(&injected), Evidence::Spared),
    ] {
        let rules = PODS.replace(
            "{capture: steer, failMode: closed}",
            &format!("{{capture: steer, failMode: closed{set}}}"),
        );
        let mut node = Node::new(&format!("{rules}{tls}"));
        let trust = given.map(|given| ("app".to_owned(), given.clone())).into_iter().collect();
        node.tell(Pod { trust, ..pod("shop") });
        node.walk(&[(1, ""), (5, &path()), (6, &format!("{}/nested", path()))], 1);
        for id in [5, 6] {
            let flow = flow(id, &[1], 2);
            let standing = node.table.standing(&node.table.identify(&flow), &flow);
            assert_eq!(standing.evidence, expected, "{set} {given:?}");
            // The same when the container is started again, and gone with its pod.
            assert_eq!(standing.workload, format!("{UID}/app"));
        }
        // A neighbour in the same pod, or whoever is not known, has none of it.
        let stranger = flow(7, &[1], 2);
        let standing = node.table.standing(&node.table.identify(&stranger), &stranger);
        assert_ne!(standing.evidence, Evidence::InjectedWith(Arc::default()));
        assert_eq!(standing.workload, "cgroup 7");
    }
    let node = Node::new(PODS);
    assert_eq!(node.table.pod_at(&format!("kubepods/burstable/pod{UID}")).as_deref(), Some(UID));
    assert_eq!(node.table.pod_at(&path()), None);
}

#[test]
fn a_workload_is_its_pod_with_all_that_is_known_of_it() {
    let mut node = Node::new(PODS);
    node.tell(pod("shop"));
    node.walk(&[(1, ""), (5, &path()), (6, &format!("{}/nested", path()))], 1);
    for id in [5, 6] {
        let identity = node.table.identify(&flow(id, &[1], 2));
        let expected = v1::Workload {
            principal_kind: v1::PrincipalKind::Federated.into(),
            principal: "principal://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/\
                        my-project.svc.id.goog/subject/ns/shop/sa/checkout"
                .into(),
            namespace: "shop".into(),
            service_account: "checkout".into(),
            pod_name: "checkout-0".into(),
            pod_uid: UID.into(),
            container: "app".into(),
            node: "node-1".into(),
            cluster: "projects/my-project/locations/l/clusters/c".into(),
            container_kind: v1::ContainerKind::Init.into(),
            resolution: Resolution::Pod.into(),
            container_id: ID.into(),
            ..v1::Workload::default()
        };
        assert_eq!(identity.workload, expected);
        assert_eq!(identity.cgroup.as_deref(), Some(path().as_str()));
        let pod = identity.pod.as_ref().expect("a pod");
        assert_eq!((pod.image.as_str(), pod.labels.len()), ("app:1", 1));
        assert!(pod.image_digest.starts_with("sha256:d"));
    }
}

#[test]
fn what_cannot_be_named_says_why_and_keeps_what_is_there_to_go_by() {
    let mut node = Node::new(PODS);
    let monitor = format!("kubepods/burstable/pod{UID}/crio-conmon-{ID}");
    node.walk(&[(1, ""), (2, "kubepods"), (5, &path()), (6, &monitor), (7, "system.slice")], 1);
    let said = |node: &Node, id| {
        let workload = node.workload(&flow(id, &[2, 1], 2));
        assert_eq!(workload.principal_kind(), v1::PrincipalKind::Unresolved);
        (workload.resolution(), workload.pod_uid, workload.container_id)
    };
    let evidence = || (UID.to_owned(), ID.to_owned());
    assert_eq!(said(&node, 5), (Resolution::NoApiServer, evidence().0, evidence().1));
    assert_eq!(said(&node, 6), (Resolution::NotAContainer, UID.into(), String::new()));
    assert_eq!(said(&node, 7), (Resolution::NotAContainer, String::new(), String::new()));
    assert_eq!(said(&node, 99), (Resolution::CgroupGone, String::new(), String::new()));
    let other = Pod { containers: Vec::new(), ..pod("shop") };
    node.tell(other);
    let workload = node.workload(&flow(5, &[], 2));
    assert_eq!(workload.resolution(), Resolution::ContainerUnknown);
    assert_eq!((workload.namespace.as_str(), workload.container.as_str()), ("shop", ""));
    assert_eq!(workload.container_id, ID);
    assert_eq!(said(&node, 6).0, Resolution::NotAContainer, "a runtime's monitor is not the pod");
}

#[test]
fn verdicts_follow_as_pods_become_known_and_rules_win() {
    let mut node = Node::new(PODS);
    let around = format!("kubepods/burstable/pod{UID}");
    let folders = [(1, ""), (2, "kubepods"), (3, around.as_str()), (5, &path())];
    let undecided = Setting { fail_mode: FailMode::Open, ..STEER };
    let change = node.walk(&folders, 1);
    assert_eq!([2, 3, 5].map(|id| change.settings[&id]), [undecided; 3]);
    assert_eq!(change.settings[&1], NO_SELECTOR);
    let change = node.tell(pod("shop"));
    assert_eq!([2, 3, 5].map(|id| change.settings[&id]), [undecided, STEER, STEER]);
    let spared = Pod { labels: [("app".to_owned(), "spared".to_owned())].into(), ..pod("shop") };
    let change = node.tell(spared);
    assert_eq!([3, 5].map(|id| change.settings[&id]), [NO_SELECTOR; 2]);

    let rule = "identities: [{cgroup: 'kubepods/**/pod{uid}/**', projectNumber: 9, pool: p.svc.id.goog, \
                namespace: given, serviceAccount: sa}]\n";
    let mut node = Node::new(&format!("{PODS}{rule}"));
    node.tell(pod("shop"));
    node.walk(&folders, 1);
    let workload = node.workload(&flow(5, &[], 2));
    assert_eq!((workload.namespace.as_str(), workload.resolution()), ("given", Resolution::Rule));
}

#[test]
fn a_pod_that_claims_the_labels_and_the_name_of_another_stays_itself() {
    let mut node = Node::new(PODS);
    let uid = UID.replace("0f6e", "aaaa");
    let id = ID.replace("5f2c", "bbbb");
    let run = Run { id: id.clone(), image_digest: String::new() };
    let mut posing = Pod { uid: uid.clone(), cgroup_uid: uid.clone(), ..pod("evil") };
    posing.containers[0].runs = vec![run];
    node.tell(pod("shop"));
    node.tell(posing);
    node.walk(&[(5, &path()), (6, &format!("kubepods/burstable/pod{uid}/{id}"))], 1);
    assert_eq!(node.workload(&flow(5, &[], 2)).namespace, "shop");
    let posing = node.workload(&flow(6, &[], 2));
    assert_eq!((posing.namespace.as_str(), posing.pod_uid), ("evil", uid));
    assert!(posing.principal.ends_with("/subject/ns/evil/sa/checkout"));
}

#[test]
fn an_id_that_was_given_again_belongs_to_whoever_had_it_when_the_connection_was_opened() {
    let mut node = Node::new(PODS);
    let uid = UID.replace("0f6e", "aaaa");
    let second = format!("kubepods/burstable/pod{uid}/{ID}");
    node.tell(pod("shop"));
    node.tell(Pod { uid: uid.clone(), cgroup_uid: uid, ..pod("later") });
    node.walk(&[(5, &path())], 10);
    node.walk(&[(5, &path())], 20);
    let namespace = |node: &Node, opened| node.workload(&flow(5, &[], opened)).namespace;
    assert_eq!(namespace(&node, 25), "shop");
    node.walk(&[], 30);
    assert_eq!(namespace(&node, 25), "shop", "its connections may be read late");
    assert_eq!(namespace(&node, 35), "", "somebody has the id that was not seen yet");
    node.walk(&[(5, &second)], 40);
    assert_eq!([15, 25, 35, 45].map(|opened| namespace(&node, opened)), ["shop", "", "later", "later"]);
    node.walk(&[(5, &second), (9, &path())], 50);
    let late = node.workload(&flow(9, &[], 35));
    assert_eq!(late.resolution(), Resolution::CgroupGone, "the walk at 40 has not seen this cgroup");
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("runtime").block_on(future)
}

#[test]
fn a_pod_that_is_not_known_is_waited_for_once_and_within_the_bound() {
    block_on(async {
        let mut node = Node::new(PODS);
        node.walk(&[(5, &path())], 1);
        let table = Arc::clone(&node.table);
        let waiting = tokio::spawn(async move {
            let flow = flow(5, &[], 2);
            table.settle(&flow).expect("waits").await;
            table.identify(&flow).workload.namespace.clone()
        });
        tokio::task::yield_now().await;
        let uid = UID.replace("0f6e", "aaaa");
        node.tell(Pod { uid: uid.clone(), cgroup_uid: uid, ..pod("other") });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "another pod is not the one");
        node.tell(pod("shop"));
        let account = Some(verbatim_kube::Account::None);
        node.book.learn(UID, account, Some(verbatim_kube::Owners::Known([].into())));
        node.book.publish(std::time::Instant::now());
        node.registry.renew();
        assert_eq!(waiting.await.expect("ends"), "shop");
        let known = flow(5, &[], 2);
        assert!(node.table.settle(&known).is_none(), "nothing more is to come");
    });
    block_on(async {
        let mut node = Node::new(PODS);
        node.walk(&[(5, &path())], 1);
        let unknown = flow(5, &[], 2);
        let began = tokio::time::Instant::now();
        node.table.settle(&unknown).expect("waits").await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        assert!(node.table.settle(&unknown).is_none(), "nobody waits again");
    });
}

#[test]
fn nobody_waits_where_nobody_tells_of_pods() {
    let mut node = Node::new(RULES);
    node.walk(&[(1, "")], 1);
    assert!(node.table.settle(&flow(9, &[1], 2)).is_none());
}
