//! One running `serve` with everything around it: a tree of cgroups, a collector, an echo server, metrics.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};

use libtest_mimic::Failed;
use prost::Message;
use verbatim_api::v1::{self, CoverageEvent, envelope::Detail};
use verbatim_sys::{
    bpf::{self, Hook},
    cgroup,
};

use super::serving::{Tree, configuration, ends, serve_as};
use crate::{
    Outcome,
    collector::{Collector, Manner, socket},
    postgres::echo_server,
    support::{Bench, Guard, ended, ensure, text, until},
    workload::{WORKLOAD, program},
};

/// Everything around one agent.
pub(super) struct World {
    pub(super) bench: Bench,
    pub(super) tree: Tree,
    pub(super) collector: Collector,
    pub(super) server: SocketAddr,
    pub(super) metrics: SocketAddr,
}

pub(super) const CLOSED: &str = "kubepods/pod1111-aaaa/c1";
pub(super) const OPEN: &str = "kubepods/pod2222-open";

impl World {
    pub(super) fn new() -> Result<Self, Failed> {
        let bench = Bench::new();
        let tree = Tree::new(&bench)?;
        std::fs::create_dir(tree.path(OPEN))?;
        let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
        let metrics = verbatim_missing::port::free()?;
        Ok(Self { server: echo_server()?, bench, tree, collector, metrics })
    }

    pub(super) fn configuration(&self) -> String {
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

    pub(super) fn serve(&self) -> Result<Guard, Failed> {
        serve_as(&self.bench, &self.tree, &self.configuration())
    }

    pub(super) fn bypass(&self, arguments: &[&str]) -> Result<(Option<i32>, String, String), Failed> {
        let config = self.bench.path("agent.yaml").display().to_string();
        ended(&mut self.bench.agent(&[&["bypass", "--config", &config], arguments].concat()))
    }

    /// The order is carried out; what was said.
    pub(super) fn ordered(&self, arguments: &[&str]) -> Result<String, Failed> {
        let (code, stdout, stderr) = self.bypass(arguments)?;
        ensure(code == Some(0), || format!("{arguments:?}: {code:?}: {stdout}{stderr}"))?;
        Ok(stdout)
    }

    /// Whether a workload reaches the server.
    pub(super) fn reaches(&self, below: &str) -> Result<bool, Failed> {
        let arguments = [WORKLOAD, "echo", &self.server.to_string()];
        Ok(ended(&mut self.tree.command(below, &program(), &arguments))?.0 == Some(0))
    }

    pub(super) fn must_reach(&self, below: &str) -> Outcome {
        ensure(self.reaches(below)?, || format!("{below} does not reach the server"))
    }

    pub(super) fn ask(&self, path: &str) -> Result<(u16, String), Failed> {
        asked(self.metrics, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    /// The value of a metric, by its name with its labels.
    pub(super) fn metric(&self, name: &str) -> Result<f64, Failed> {
        let (status, page) = self.ask("/metrics")?;
        ensure(status == 200, || page.clone())?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or_else(|| Failed::from(format!("no {name} in {page}")))?.parse()?)
    }

    pub(super) fn answers(&self, path: &str, status: u16, part: &str) -> Outcome {
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
    pub(super) fn covered(&self, event: CoverageEvent) -> Vec<(v1::Coverage, v1::Content)> {
        self.covered_by(event).into_iter().map(|(_, coverage, content)| (coverage, content)).collect()
    }

    /// The same with whose they are.
    pub(super) fn covered_by(&self, event: CoverageEvent) -> Vec<(v1::Workload, v1::Coverage, v1::Content)> {
        let decoded = |entry: v1::Entry| {
            let envelope = v1::Envelope::decode(entry.envelope).ok()?;
            let content = v1::Content::decode(entry.content).ok()?;
            match envelope.detail {
                Some(Detail::Coverage(coverage)) if coverage.event() == event => {
                    Some((envelope.workload.unwrap_or_default(), coverage, content))
                }
                _ => None,
            }
        };
        self.collector.contents().into_iter().filter_map(decoded).collect()
    }

    /// The one coverage record of this kind, which comes soon.
    pub(super) fn one(&self, event: CoverageEvent) -> Result<(v1::Coverage, v1::Content), Failed> {
        until(event.as_str_name(), || !self.covered(event).is_empty())?;
        let mut found = self.covered(event);
        ensure(found.len() == 1, || format!("{found:?}"))?;
        found.pop().ok_or_else(|| "none".into())
    }

    /// Where the node's listener stands over IPv4, as the agent says in its log.
    pub(super) fn listener(&self) -> Result<SocketAddr, Failed> {
        until("it says where it listens", || self.log().contains("listening"))?;
        let log = self.log();
        let line = log.lines().find(|line| line.contains("listening")).ok_or_else(|| log.clone())?;
        let digits: String = line
            .split_once("port")
            .map(|(_, rest)| rest.chars().skip_while(|c| !c.is_ascii_digit()))
            .into_iter()
            .flatten()
            .take_while(char::is_ascii_digit)
            .collect();
        Ok(SocketAddr::from(([127, 0, 0, 1], digits.parse()?)))
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.bench.path("errors")).unwrap_or_default()
    }

    pub(super) fn connections(&self) -> usize {
        ends(&self.collector).len()
    }

    pub(super) fn attach_root(&self) -> PathBuf {
        self.tree.path("")
    }

    /// Takes connect4 off its hook, whoever holds the link.
    pub(super) fn detach(&self) -> Result<usize, Failed> {
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
pub(super) fn family(pid: u32) -> Vec<u32> {
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
