//! What naming a connection costs from the snapshot of a node with 250 pods: nanoseconds, for what a shard asks of
//! each connection (is there anything to wait for, and who is it), in the container's own cgroup and in one that is
//! nested in it.
//!
//! `cargo run --release -p verbatim-agent --example identify [CONNECTIONS]`

#![allow(clippy::print_stdout, reason = "an example prints what it found")]

use std::{error::Error, hint::black_box, path::Path, sync::Arc, time::Instant};

use verbatim_agent::identity::{Federated, Folder, Pods, Registry, Table};
use verbatim_kube::{Account, Book, Container, Kind, Owners, Pod, Run, Store};
use verbatim_proxy::seam::{Flow, Identities};

const PODS: u64 = 250;
/// Of each pod, beside its own.
const CGROUPS: u64 = 4;

const CONFIGURATION: &str = "\
apiVersion: verbatim.v1
kind: NodeAgent
destinations: [{cidr: 10.0.0.0/8, action: steer}]
selectors:
- {match: {namespace: kube-system}, set: {capture: pass, failMode: open}}
- {match: {podLabels: {app: spared}}, set: {capture: pass, failMode: open}}
- {set: {capture: steer, failMode: open}}
kubernetes: {projectNumber: 7, project: my-project, cluster: c, location: l}
spool: {directory: /s}
collector: {address: 'unix:/c'}
";

fn main() -> Result<(), Box<dyn Error>> {
    let connections: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |n| n.parse())?;
    let config = verbatim_agent_config::parse(CONFIGURATION, Path::new("agent.yaml"))?;
    let kubernetes = config.kubernetes.as_ref().ok_or("no kubernetes")?;
    let store = Store::new(|| {});
    let pods = Pods { store: Arc::clone(&store), federated: Federated::new(kubernetes)? };
    let table = Arc::new(Table::new(&config, "node-1", Some(pods), |_| {}));
    let mut registry = Registry::new(Arc::clone(&table));
    let mut book = Book::new(store);
    let mut folders = vec![Folder { id: 1, path: "kubepods".to_owned() }];
    for pod in 0..PODS {
        folders.extend(appear(&mut book, pod));
    }
    let before = Instant::now();
    book.publish(before);
    registry.walked(folders.clone(), 1, 2);
    let first = before.elapsed();
    let before = Instant::now();
    registry.walked(folders, 3, 4);
    let again = before.elapsed();
    let before = Instant::now();
    registry.renew();
    let renewed = before.elapsed();
    for (what, cgroup) in [("a container's cgroup", 1), ("a nested one", 3)] {
        let flows: Vec<Flow> = (0..PODS).map(|pod| flow(id(pod, cgroup))).collect();
        let before = Instant::now();
        for flow in flows.iter().cycle().take(usize::try_from(connections)?) {
            if table.settle(black_box(flow)).is_some() {
                return Err("a known pod is waited for".into());
            }
            black_box(table.identify(black_box(flow)));
        }
        let each = before.elapsed().as_nanos() / u128::from(connections.max(1));
        println!("{what}: {each} ns a connection");
    }
    println!(
        "{} cgroups named for the first time: {first:?}; again: {again:?}; pods alone: {renewed:?}",
        PODS * 5
    );
    Ok(())
}

fn id(pod: u64, cgroup: u64) -> u64 {
    100 + pod * 10 + cgroup
}

/// A pod with two containers, one of them with a nested cgroup, and a sandbox.
fn appear(book: &mut Book, pod: u64) -> Vec<Folder> {
    let uid = format!("{pod:08x}-0000-4000-8000-000000000000");
    let container = |name: &str, number: u64| Container {
        name: name.to_owned(),
        kind: Kind::Regular,
        image: "registry.example/checkout:7".to_owned(),
        runs: vec![Run { id: format!("{:064x}", id(pod, number)), image_digest: String::new() }],
    };
    book.apply(
        Pod {
            uid: uid.clone(),
            cgroup_uid: uid.clone(),
            namespace: "shop".to_owned(),
            name: format!("checkout-{pod}"),
            service_account: "checkout".to_owned(),
            containers: vec![container("app", 1), container("side", 2)],
            ..Pod::default()
        },
        Some(1),
    );
    book.learn(&uid, Some(Account::None), Some(Owners::Known([].into())));
    let around = format!("kubepods/burstable/pod{uid}");
    let path = |number: u64| format!("{around}/{:064x}", id(pod, number));
    let below = [(1, path(1)), (2, path(2)), (3, format!("{}/nested", path(1))), (CGROUPS, path(CGROUPS))];
    let below = below.into_iter().map(|(number, path)| Folder { id: id(pod, number), path });
    std::iter::once(Folder { id: id(pod, 0), path: around.clone() }).chain(below).collect()
}

fn flow(cgroup_id: u64) -> Flow {
    Flow {
        destination: ([10, 0, 0, 1], 5432).into(),
        cgroup_id,
        ancestor_cgroup_ids: vec![1],
        pid: 1,
        uid: 0,
        gid: 0,
        client_netns: 1,
        listener_netns: 1,
        socket_cookie: 1,
        ktime_nanos: 5,
        comm: String::new(),
        connect_series: 0,
        connect_number: 0,
    }
}
