//! What people and machines ask of a running `serve`: orders, health, metrics; and what the watchdog finds.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
};

use libtest_mimic::Failed;
use prost::Message;
use verbatim_api::v1::{self, CoverageEvent, envelope::Detail};
use verbatim_steer::{Action, Bypasses, CgroupVerdict, DestinationRule, FailMode, SteerConfig, Steering};
use verbatim_sys::{
    bpf::{self, Hook},
    cgroup,
};

use super::{
    cases,
    serving::{Tree, configuration, ends, serve_as, stop},
};
use crate::{
    Outcome,
    collector::{Collector, Manner, socket},
    postgres::echo_server,
    support::{Bench, Guard, ended, ensure, signal, text, until},
    workload::{WORKLOAD, program},
};

cases!(
    a_bypass_begins_at_once_ends_by_itself_and_is_recorded,
    a_bypass_is_ended_early_and_recorded_so,
    a_bypass_needs_root_a_reason_and_no_more_than_the_configured_time,
    a_stopped_agent_fails_closed_or_open_as_its_selectors_say,
    programs_that_somebody_detaches_are_attached_again_and_that_is_recorded,
    an_agent_whose_programs_cannot_run_lives_and_is_not_ready,
    an_agent_that_drains_lives_and_is_not_ready,
    an_exclusive_program_on_a_hook_is_named_at_the_start,
    the_address_of_metrics_is_no_proxy,
    with_no_agent_alive_an_order_goes_into_the_pinned_maps,
);

/// Everything around one agent.
struct World {
    bench: Bench,
    tree: Tree,
    collector: Collector,
    server: SocketAddr,
    metrics: SocketAddr,
}

const CLOSED: &str = "kubepods/pod1111-aaaa/c1";
const OPEN: &str = "kubepods/pod2222-open";

impl World {
    fn new() -> Result<Self, Failed> {
        let bench = Bench::new();
        let tree = Tree::new(&bench)?;
        std::fs::create_dir(tree.path(OPEN))?;
        let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
        let metrics = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        Ok(Self { server: echo_server()?, bench, tree, collector, metrics })
    }

    fn configuration(&self) -> String {
        let open = format!(
            "selectors:\n- {{match: {{cgroup: '{}/{OPEN}'}}, set: {{capture: steer, failMode: open}}}}",
            self.tree.name()
        );
        let usual = configuration(&self.bench, &self.tree, None).replace("selectors:", &open);
        format!(
            "{usual}metrics: {{listen: '{}'}}\nbypass: {{maximum: 10m}}\n{}",
            self.metrics,
            // Each agent of a machine needs its own.
            match usual.contains("runDirectory") {
                true => String::new(),
                false => format!("runDirectory: {}\n", self.bench.path("run").display()),
            }
        )
    }

    fn serve(&self) -> Result<Guard, Failed> {
        serve_as(&self.bench, &self.tree, &self.configuration())
    }

    fn bypass(&self, arguments: &[&str]) -> Result<(Option<i32>, String, String), Failed> {
        let config = self.bench.path("agent.yaml").display().to_string();
        ended(&mut self.bench.agent(&[&["bypass", "--config", &config], arguments].concat()))
    }

    /// The order is carried out; what was said.
    fn ordered(&self, arguments: &[&str]) -> Result<String, Failed> {
        let (code, stdout, stderr) = self.bypass(arguments)?;
        ensure(code == Some(0), || format!("{arguments:?}: {code:?}: {stdout}{stderr}"))?;
        Ok(stdout)
    }

    /// Whether a workload reaches the server.
    fn reaches(&self, below: &str) -> Result<bool, Failed> {
        let arguments = [WORKLOAD, "echo", &self.server.to_string()];
        Ok(ended(&mut self.tree.command(below, &program(), &arguments))?.0 == Some(0))
    }

    fn must_reach(&self, below: &str) -> Outcome {
        ensure(self.reaches(below)?, || format!("{below} does not reach the server"))
    }

    fn ask(&self, path: &str) -> Result<(u16, String), Failed> {
        asked(self.metrics, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    /// The value of a metric, by its name with its labels.
    fn metric(&self, name: &str) -> Result<f64, Failed> {
        let (status, page) = self.ask("/metrics")?;
        ensure(status == 200, || page.clone())?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or_else(|| Failed::from(format!("no {name} in {page}")))?.parse()?)
    }

    fn answers(&self, path: &str, status: u16, part: &str) -> Outcome {
        until(&format!("{path} to be {status} with {part:?}"), || {
            self.ask(path).is_ok_and(|(found, text)| found == status && text.contains(part))
        })
        .map_err(|failed| match self.ask(path) {
            Ok((found, text)) => {
                format!("{} but {found}: {text}", failed.message().unwrap_or_default()).into()
            }
            Err(_) => failed,
        })
    }

    /// Coverage records of this kind, with their contents.
    fn covered(&self, event: CoverageEvent) -> Vec<(v1::Coverage, v1::Content)> {
        let decoded = |entry: v1::Entry| {
            let envelope = v1::Envelope::decode(entry.envelope).ok()?;
            let content = v1::Content::decode(entry.content).ok()?;
            match envelope.detail {
                Some(Detail::Coverage(coverage)) if coverage.event() == event => Some((coverage, content)),
                _ => None,
            }
        };
        self.collector.contents().into_iter().filter_map(decoded).collect()
    }

    /// The one coverage record of this kind, which comes soon.
    fn one(&self, event: CoverageEvent) -> Result<(v1::Coverage, v1::Content), Failed> {
        until(event.as_str_name(), || !self.covered(event).is_empty())?;
        let mut found = self.covered(event);
        ensure(found.len() == 1, || format!("{found:?}"))?;
        found.pop().ok_or_else(|| "none".into())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.bench.path("errors")).unwrap_or_default()
    }

    fn connections(&self) -> usize {
        ends(&self.collector).len()
    }

    fn attach_root(&self) -> PathBuf {
        self.tree.path("")
    }

    /// Takes connect4 off its hook, whoever holds the link.
    fn detach(&self) -> Result<usize, Failed> {
        let id = cgroup::Cgroup::at(self.attach_root()).id()?;
        let links = bpf::links()?.into_iter();
        let ours = links.filter(|(info, _)| info.cgroup == id && info.hook == Hook::CONNECT4);
        let mut detached = 0;
        for (_, link) in ours {
            bpf::link_detach(link)?;
            detached += 1;
        }
        Ok(detached)
    }
}

/// A process and those that stem from it.
fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
    std::iter::once(pid).chain(children.flat_map(family)).collect()
}

/// Status and body.
pub(super) fn asked(address: SocketAddr, request: &str) -> Result<(u16, String), Failed> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let answer = text(&bytes);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status.ok_or_else(|| Failed::from(format!("no status in {answer:?}")))?, body))
}

fn a_bypass_begins_at_once_ends_by_itself_and_is_recorded() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    world.must_reach(CLOSED)?;
    until("a record", || world.connections() == 1)?;
    ensure(world.ordered(&["--status"])?.contains("are steered"), || "bypassed".into())?;

    let said = world.ordered(&["--for", "10m", "--reason", "the proxy is in the way"])?;
    ensure(said.contains("bypassed") && said.contains("the proxy is in the way"), || said.clone())?;
    ensure(world.metric("verbatim_bypass_active")? > 0.0, || "no metric says so".into())?;
    for _ in 0..3 {
        world.must_reach(CLOSED)?;
    }
    let (coverage, content) = world.one(CoverageEvent::BypassBegan)?;
    let bypass = content.bypass.ok_or("who and why is not recorded")?;
    ensure(bypass.reason == "the proxy is in the way", || format!("{bypass:?}"))?;
    ensure(bypass.uid == 0 && bypass.user == "root", || format!("{bypass:?}"))?;
    let ahead = coverage.until_wall_nanos.saturating_sub(verbatim_sys::clock::wall_nanos());
    ensure(ahead > 0 && ahead <= 600_000_000_000, || format!("until {ahead} ns from now"))?;
    ensure(world.log().contains("alert=\"bypass\""), || world.log())?;

    // A second order takes the place of the first; it ends by itself.
    world.ordered(&["--for", "500ms", "--reason", "nearly done"])?;
    until("its end", || world.ordered(&["--status"]).is_ok_and(|said| said.contains("are steered")))?;
    world.must_reach(CLOSED)?;
    until("a record again", || world.connections() == 2)?;
    until("both ends", || world.covered(CoverageEvent::BypassEnded).len() == 2)?;
    let ends = world.covered(CoverageEvent::BypassEnded);
    let how: Vec<_> = ends
        .iter()
        .map(|(coverage, content)| (coverage.count, content.bypass.clone().unwrap_or_default().end))
        .collect();
    let expected = [(3, "another took its place".to_owned()), (0, "by itself".to_owned())];
    ensure(how == expected, || format!("{how:?}"))?;
    let kernel = world.metric("verbatim_kernel_bypassed_total")?;
    ensure(kernel == 3.0, || format!("the kernel counted {kernel}"))?;
    stop(&world.bench, agent)
}

fn a_bypass_is_ended_early_and_recorded_so() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    world.ordered(&["--for", "5m", "--reason", "trying"])?;
    world.must_reach(CLOSED)?;
    let said = world.ordered(&["--end"])?;
    ensure(said.contains("are steered"), || said.clone())?;
    world.must_reach(CLOSED)?;
    let (coverage, content) = world.one(CoverageEvent::BypassEnded)?;
    let end = content.bypass.unwrap_or_default().end;
    ensure(coverage.count == 1 && end.contains("root (uid 0)"), || format!("{coverage:?}, {end}"))?;
    until("a record", || world.connections() == 1)?;
    stop(&world.bench, agent)
}

fn a_bypass_needs_root_a_reason_and_no_more_than_the_configured_time() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    for (arguments, part) in [
        (&["--for", "11m", "--reason", "why"][..], "10m at most"),
        (&["--for", "1m", "--reason", "  "], "needs a reason"),
        (&["--for", "0s", "--reason", "why"], "no time"),
    ] {
        let (code, _, stderr) = world.bypass(arguments)?;
        ensure(code == Some(1) && stderr.contains(part), || format!("{arguments:?}: {code:?}: {stderr}"))?;
    }
    // The folder keeps others out; where somebody has opened it, the agent itself does.
    let run = world.bench.path("run");
    let order = |options: &[&str]| {
        let agent = env!("CARGO_BIN_EXE_verbatim-agent");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", agent, "bypass"]);
        ended(command.args(options).arg("--run-directory").arg(&run))
    };
    let bypass = ["--for", "1m", "--reason", "mine"];
    let (code, _, stderr) = order(&bypass)?;
    ensure(code == Some(1) && stderr.contains("Permission denied"), || format!("{code:?}: {stderr}"))?;
    for (path, mode) in [(run.clone(), "755"), (run.join("control.sock"), "666")] {
        ensure(Command::new("chmod").arg(mode).arg(path).status()?.success(), || "chmod".into())?;
    }
    let (code, _, stderr) = order(&bypass)?;
    ensure(code == Some(1) && stderr.contains("only root"), || format!("{code:?}: {stderr}"))?;
    ensure(world.ordered(&["--status"])?.contains("are steered"), || "bypassed".into())?;
    world.must_reach(CLOSED)?;
    until("a record", || world.connections() == 1)?;
    ensure(world.covered(CoverageEvent::BypassBegan).is_empty(), || "a bypass was recorded".into())?;
    stop(&world.bench, agent)
}

fn a_stopped_agent_fails_closed_or_open_as_its_selectors_say() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    world.must_reach(CLOSED)?;
    world.must_reach(OPEN)?;
    until("records", || world.connections() == 2)?;
    let whole = family(agent.0.id());
    whole.iter().for_each(|pid| signal(*pid, "STOP"));
    // Until the heartbeat is too old, connects wait for a proxy that does not accept: they are not tried.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let (closed, open) = (world.reaches(CLOSED), world.reaches(OPEN));
    whole.iter().for_each(|pid| signal(*pid, "CONT"));
    ensure(!closed?, || "it fails closed, and passed".into())?;
    ensure(open?, || "it fails open, and was refused".into())?;
    until("it is steered again", || world.reaches(CLOSED).unwrap_or(false))?;
    let notes = || -> String {
        world.covered(CoverageEvent::Missed).into_iter().map(|(_, content)| content.note + "\n").collect()
    };
    until("both are recorded", || notes().contains("fails open") && notes().contains("fails closed"))?;
    world.answers("/livez", 200, "heartbeat: ok")?;
    stop(&world.bench, agent)
}

fn programs_that_somebody_detaches_are_attached_again_and_that_is_recorded() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    world.answers("/readyz", 200, "programs: ok")?;
    ensure(world.detach()? == 1, || "connect4 is not attached once".into())?;
    let (lost, content) = world.one(CoverageEvent::ProgramsLost)?;
    ensure(lost.count == 1 && content.note == "connect4: detached", || format!("{lost:?} {content:?}"))?;
    let (restored, content) = world.one(CoverageEvent::ProgramsRestored)?;
    ensure(restored.count == 1 && content.note == "connect4", || format!("{restored:?} {content:?}"))?;
    ensure(world.log().contains("alert=\"programs\""), || world.log())?;
    ensure(world.metric("verbatim_programs_lost_total")? == 1.0, || "not counted".into())?;
    world.answers("/readyz", 200, "programs: ok")?;
    let before = world.connections();
    world.must_reach(CLOSED)?;
    until("it is steered", || world.connections() == before + 1)?;
    stop(&world.bench, agent)
}

fn an_agent_whose_programs_cannot_run_lives_and_is_not_ready() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    world.answers("/readyz", 200, "programs: ok")?;
    // Somebody takes the hook for itself alone; the watchdog may come between, so it is tried again.
    let root = File::open(world.attach_root())?;
    let idle = bpf::idle_program()?;
    until("the hook is somebody else's", || {
        world.detach().is_ok() && bpf::program_attach_alone(&idle, &root, Hook::CONNECT4).is_ok()
    })?;
    world.answers("/readyz", 503, "programs: not running: connect4")?;
    world.answers("/livez", 200, "shards: ok")?;
    ensure(world.metric("verbatim_program_effective{program=\"connect4\"}")? == 0.0, || "effective".into())?;
    bpf::program_detach_alone(&root, Hook::CONNECT4)?;
    world.answers("/readyz", 200, "programs: ok")?;
    stop(&world.bench, agent)
}

fn an_agent_that_drains_lives_and_is_not_ready() -> Outcome {
    let world = World::new()?;
    let configuration = world.configuration().replace("drainDeadline: 1s", "drainDeadline: 60s");
    let agent = serve_as(&world.bench, &world.tree, &configuration)?;
    world.answers("/livez", 200, "heartbeat: ok")?;
    // A connection that is open keeps it draining.
    let mut open = world.tree.command(CLOSED, &program(), &[WORKLOAD, "hold", &world.server.to_string()]);
    let open = Guard(open.spawn()?);
    until("it is open", || world.metric("verbatim_connections_open").is_ok_and(|open| open == 1.0))?;
    signal(agent.0.id(), "TERM");
    world.answers("/readyz", 503, "serving: draining")?;
    world.answers("/livez", 200, "shards: ok")?;
    drop(open);
    let status = agent.output()?.status;
    ensure(status.success(), || format!("{status}: {}", world.log()))
}

fn an_exclusive_program_on_a_hook_is_named_at_the_start() -> Outcome {
    let world = World::new()?;
    bpf::program_attach_alone(bpf::idle_program()?, File::open(world.attach_root())?, Hook::CONNECT4)?;
    let file = world.bench.path("agent.yaml");
    std::fs::write(&file, world.configuration())?;
    let agent = env!("CARGO_BIN_EXE_verbatim-agent");
    let arguments = ["serve", "--config", &file.display().to_string()];
    let (code, _, stderr) = ended(&mut world.tree.command("node", agent, &arguments))?;
    ensure(code == Some(1), || format!("{code:?}: {stderr}"))?;
    ensure(stderr.contains("admits no others") && stderr.contains("verbatim_probe"), || stderr.clone())
}

/// What is pinned goes with it.
struct Pinned(PathBuf);

impl Drop for Pinned {
    fn drop(&mut self) {
        verbatim_steer::unpin(&self.0).ok();
    }
}

fn with_no_agent_alive_an_order_goes_into_the_pinned_maps() -> Outcome {
    let world = World::new()?;
    let pins = PathBuf::from("/sys/fs/bpf").join(world.tree.name());
    let _pinned = Pinned(pins.clone());
    let text = world.configuration();
    let attach = format!("attach: {{cgroup: {}", world.tree.name());
    let text = match text.contains("pins: ") {
        true => text,
        false => text.replace(&attach, &format!("{attach}, pins: {}", pins.display())),
    };
    std::fs::write(world.bench.path("agent.yaml"), text)?;
    // Nothing is pinned, and nobody lives.
    let (code, _, stderr) = world.bypass(&["--status"])?;
    ensure(code == Some(1) && stderr.contains("no agent answers"), || format!("{code:?}: {stderr}"))?;

    // As an agent leaves it that dies.
    let mut steer = SteerConfig::new(world.attach_root());
    steer.pin_directory = Some(pins.clone());
    steer.heartbeat_timeout = std::time::Duration::from_millis(200);
    let steering = Steering::load(&steer)?;
    let closed = CgroupVerdict { action: Action::Steer, fail_mode: FailMode::Closed };
    steering.set_cgroup(cgroup::Cgroup::at(world.tree.path(CLOSED)).id()?, closed)?;
    steering.set_destinations(&DestinationRule::steer_everything())?;
    steering.attach()?;
    drop(steering);
    until("the heartbeat to be too old", || world.reaches(CLOSED).is_ok_and(|reaches| !reaches))?;

    let said = world.ordered(&["--for", "5m", "--reason", "nobody is there"])?;
    ensure(said.contains("bypassed") && said.contains("the next one records it"), || said.clone())?;
    world.must_reach(CLOSED)?;
    let said = world.ordered(&["--status"])?;
    ensure(said.contains("nobody is there") && said.contains("passed: 1"), || said.clone())?;
    let (code, _, stderr) = world.bypass(&["--for", "1m", "--reason", "again"])?;
    ensure(code == Some(1) && stderr.contains("end it first"), || format!("{code:?}: {stderr}"))?;
    let (code, _, stderr) = world.bypass(&["--for", "11m", "--reason", "long"])?;
    ensure(code == Some(1), || format!("{code:?}: {stderr}"))?;
    ensure(world.ordered(&["--end"])?.contains("are steered"), || "still bypassed".into())?;
    ensure(!world.reaches(CLOSED)?, || "it fails closed, and passed".into())?;
    // Until it is recorded, the next agent finds who and why.
    let order = Bypasses::pinned(&pins)?.bypasses.read()?.ok_or("forgotten")?;
    ensure(order.reason == "nobody is there" && !order.recorded, || format!("{order:?}"))
}

fn the_address_of_metrics_is_no_proxy() -> Outcome {
    let world = World::new()?;
    let agent = world.serve()?;
    let server = world.server;
    let ask = |request: &str| asked(world.metrics, &format!("{request}Connection: close\r\n\r\n"));
    for (request, expected) in [
        (format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n"), 400),
        (format!("GET http://{server}/ HTTP/1.1\r\nHost: {server}\r\n"), 400),
        (format!("GET http://{server}/metrics HTTP/1.1\r\nHost: {server}\r\n"), 400),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n".to_owned(), 405),
        ("GET /secrets HTTP/1.1\r\nHost: x\r\n".to_owned(), 404),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n".to_owned(), 200),
    ] {
        let (status, body) = ask(&request)?;
        ensure(status == expected, || format!("{request}: {status}: {body}"))?;
    }
    stop(&world.bench, agent)
}
