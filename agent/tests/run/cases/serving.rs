//! `serve` on cgroups laid out as kubelet lays them out.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use libtest_mimic::Failed;
use verbatim_api::v1;
use verbatim_sys::cgroup::{self, Cgroup};

use super::cases;
use crate::{
    Outcome,
    collector::{Collector, Manner, socket},
    postgres::echo_server,
    support::{Bench, Guard, ended, ensure, signal, text, until},
    workload::{WORKLOAD, program},
};

cases!(
    a_pods_connection_is_recorded_under_its_service_account_and_an_unselected_one_is_not,
    a_pod_that_appears_later_is_steered_and_named,
    a_pods_network_namespace_gets_its_listener_when_it_appears,
    an_agent_outside_of_its_attach_root_says_so,
);

/// A tree of the test's own, killed and removed at the end.
pub(super) struct Tree(Cgroup);

impl Tree {
    pub(super) fn new(bench: &Bench) -> Result<Self, Failed> {
        let unique =
            bench.path("").file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let tree = Self(Cgroup::create(cgroup::mount_point()?.join(unique))?);
        for folder in ["node", "kubepods", "kubepods/pod1111-aaaa", "kubepods/pod1111-aaaa/c1", "system"] {
            fs::create_dir(tree.path(folder))?;
        }
        Ok(tree)
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// Relative to the mount point, as configured.
    pub(super) fn name(&self) -> String {
        self.0.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// A command line that is run in one of its cgroups.
    pub(super) fn command(&self, below: &str, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        let door = self.path(below).join("cgroup.procs").display().to_string();
        command.args(["-c", "echo $$ > \"$0\"; exec \"$@\"", &door, program]).args(arguments);
        command.stdin(Stdio::null()).env_remove("RUST_LOG");
        command
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait_empty(std::time::Duration::from_secs(10)).ok();
        verbatim_steer::unpin(&PathBuf::from("/sys/fs/bpf").join(self.name())).ok();
        self.0.remove().ok();
    }
}

/// What a node's file says; for the node's own network namespace, or those of this name.
pub(super) fn configuration(bench: &Bench, tree: &Tree, namespace: Option<&str>) -> String {
    let (name, spool, collector) = (tree.name(), bench.path("spool"), socket(&bench.path("tmp")));
    let namespaces = match namespace {
        Some(namespace) => format!("{{directory: /run/netns, pattern: {namespace}, host: false}}"),
        None => "{directory: /nonexistent}".to_owned(),
    };
    format!(
        "apiVersion: verbatim.v1\nkind: NodeAgent\nnode: node-1\n\
         attach: {{cgroup: {name}, pins: /sys/fs/bpf/{name}}}\nrunDirectory: {}\n\
         namespaces: {namespaces}\n\
         destinations:\n- {{cidr: 127.0.0.0/8, action: steer}}\n\
         selectors:\n- {{match: {{cgroup: '{name}/kubepods/**'}}, set: {{capture: steer, failMode: closed}}}}\n\
         identities:\n- {{cgroup: '{name}/kubepods/pod{{uid}}/{{c}}', projectNumber: 7, pool: p.svc.id.goog,\n   \
         namespace: shop, serviceAccount: 'sa-{{c}}', pod: {{uid: '{{uid}}'}}, container: '{{c}}'}}\n\
         spool: {{directory: {}, limit: 64MiB, segmentSize: 1MiB}}\n\
         collector: {{address: 'unix:{}'}}\ndrainDeadline: 1s\n",
        bench.path("run").display(),
        spool.display(),
        collector.display(),
    )
}

fn write(bench: &Bench, configuration: &str) -> Result<String, Failed> {
    let file = bench.path("agent.yaml");
    fs::write(&file, configuration)?;
    Ok(file.display().to_string())
}

/// Starts one and waits until it steers.
fn serve(bench: &Bench, tree: &Tree, namespace: Option<&str>) -> Result<Guard, Failed> {
    serve_as(bench, tree, &configuration(bench, tree, namespace))
}

/// The same with a configuration of the test's own.
pub(super) fn serve_as(bench: &Bench, tree: &Tree, configuration: &str) -> Result<Guard, Failed> {
    serve_with(bench, tree, configuration, &[])
}

/// The same with variables of the environment.
pub(super) fn serve_with(
    bench: &Bench,
    tree: &Tree,
    configuration: &str,
    variables: &[(&str, &str)],
) -> Result<Guard, Failed> {
    let configuration = write(bench, configuration)?;
    let errors = fs::File::create(bench.path("errors"))?;
    let agent = env!("CARGO_BIN_EXE_verbatim-agent");
    let mut command = tree.command("node", agent, &["serve", "--config", &configuration, "--log", "debug"]);
    command.envs(variables.iter().copied());
    let mut agent = Guard(command.stdout(Stdio::piped()).stderr(errors).spawn()?);
    let mut line = String::new();
    let stdout = agent.0.stdout.take().ok_or("no standard output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    let said = || fs::read_to_string(bench.path("errors")).unwrap_or_default();
    ensure(line == "ready\n", || format!("it said {line:?}: {}", said()))?;
    Ok(agent)
}

/// Ends it in order.
pub(super) fn stop(bench: &Bench, agent: Guard) -> Outcome {
    signal(agent.0.id(), "TERM");
    let status = agent.output()?.status;
    ensure(status.success(), || {
        format!("{status}: {}", fs::read_to_string(bench.path("errors")).unwrap_or_default())
    })
}

/// Workloads of connections that a collector got.
fn connections(collector: &Collector) -> Vec<v1::Workload> {
    ends(collector).into_iter().map(|envelope| envelope.workload.unwrap_or_default()).collect()
}

/// Ends of connections that a collector got.
pub(super) fn ends(collector: &Collector) -> Vec<v1::Envelope> {
    let envelopes = collector.kept().into_values().flat_map(std::collections::BTreeMap::into_values);
    envelopes
        .filter_map(|bytes| <v1::Envelope as prost::Message>::decode(bytes.as_slice()).ok())
        .filter(|envelope| {
            envelope.kind() == v1::RecordKind::Connection && envelope.status() != v1::Status::Pending
        })
        .collect()
}

fn echo(tree: &Tree, below: &str, address: &str) -> Outcome {
    let (code, stdout, stderr) = ended(&mut tree.command(below, &program(), &[WORKLOAD, "echo", address]))?;
    ensure(code == Some(0), || format!("in {below}: {code:?}: {stdout}{stderr}"))
}

fn a_pods_connection_is_recorded_under_its_service_account_and_an_unselected_one_is_not() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let address = echo_server()?.to_string();
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let agent = serve(&bench, &tree, None)?;
    echo(&tree, "kubepods/pod1111-aaaa/c1", &address)?;
    echo(&tree, "system", &address)?;
    stop(&bench, agent)?;
    let seen = connections(&collector);
    ensure(seen.len() == 1, || format!("recorded: {seen:?}"))?;
    let principal = "principal://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/p.svc.id.goog\
                     /subject/ns/shop/sa/sa-c1";
    ensure(seen[0].principal == principal, || format!("recorded: {seen:?}"))?;
    ensure(seen[0].pod_uid == "1111-aaaa" && seen[0].node == "node-1", || format!("recorded: {seen:?}"))?;
    let kept = collector.kept();
    let closed = kept.values().all(|chain| {
        let last = chain.values().last().and_then(|bytes| prost::Message::decode(bytes.as_slice()).ok());
        last.is_some_and(|last: v1::Envelope| last.kind() == v1::RecordKind::ChainClosed)
    });
    ensure(closed, || "a chain was not closed".into())?;
    // Nothing is attached any more: the pod reaches the server, and nobody records it.
    echo(&tree, "kubepods/pod1111-aaaa/c1", &address)
}

fn a_pod_that_appears_later_is_steered_and_named() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let address = echo_server()?.to_string();
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let agent = serve(&bench, &tree, None)?;
    fs::create_dir(tree.path("kubepods/pod2222-bbbb"))?;
    fs::create_dir(tree.path("kubepods/pod2222-bbbb/c2"))?;
    // Steered at once, by its ancestor's verdict; named as soon as somebody has looked.
    echo(&tree, "kubepods/pod2222-bbbb/c2", &address)?;
    until("the first arrives", || connections(&collector).len() == 1)?;
    let named = |workload: &v1::Workload| workload.service_account == "sa-c2";
    until("a connection is named", || {
        let before = connections(&collector).len();
        let done = echo(&tree, "kubepods/pod2222-bbbb/c2", &address).is_ok()
            && until("it arrives", || connections(&collector).len() > before).is_ok();
        done && connections(&collector).last().is_some_and(named) || connections(&collector).iter().any(named)
    })?;
    let seen = connections(&collector);
    let unresolved = |workload: &v1::Workload| workload.principal_kind() == v1::PrincipalKind::Unresolved;
    ensure(seen.iter().all(|workload| named(workload) || unresolved(workload)), || {
        format!("recorded: {seen:?}")
    })?;
    stop(&bench, agent)
}

/// Removed at the end.
struct NetworkNamespace(String);

impl NetworkNamespace {
    fn new(name: &str) -> Result<Self, Failed> {
        let made = Self(name.to_owned());
        ensure(Command::new("ip").args(["netns", "add", name]).status()?.success(), || {
            "no namespace".into()
        })?;
        let up = Command::new("ip").args(["-n", name, "link", "set", "lo", "up"]).status()?;
        ensure(up.success(), || "loopback stays down".into())?;
        Ok(made)
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.0]).status().ok();
    }
}

fn a_pods_network_namespace_gets_its_listener_when_it_appears() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let name = tree.name();
    let agent = serve(&bench, &tree, Some(&name))?;
    let namespace = NetworkNamespace::new(&name)?;
    // Refused, as it fails closed, until the listener stands; then through the proxy, which dials from
    // inside, to a server that only that namespace has.
    let arguments = ["netns", "exec", &name, &program(), WORKLOAD, "echo-here"];
    until("the pod reaches its server", || {
        let attempt = ended(&mut tree.command("kubepods/pod1111-aaaa/c1", "ip", &arguments));
        attempt.is_ok_and(|(code, ..)| code == Some(0))
    })?;
    // Its listeners go with it.
    drop(namespace);
    stop(&bench, agent)?;
    let seen = connections(&collector);
    ensure(seen.len() == 1 && seen[0].service_account == "sa-c1", || format!("recorded: {seen:?}"))
}

fn an_agent_outside_of_its_attach_root_says_so() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let configuration = write(&bench, &configuration(&bench, &tree, None))?;
    let output = bench.agent(&["serve", "--config", &configuration]).output()?;
    let said = text(&output.stderr);
    ensure(output.status.code() == Some(1), || format!("{}: {said}", output.status))?;
    ensure(said.contains("outside of attach.cgroup") && said.contains(&tree.name()), || said)
}
