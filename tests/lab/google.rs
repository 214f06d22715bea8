//! Google's side of the lab itself: that clients work on it without us, and that its log is a witness.

use anyhow::{Result, ensure};
use verbatim_tests::{
    clients::Clients,
    did,
    front::Request,
    google::{Google, Options, names::MIRROR},
    lab::Ground,
    network::Pod,
    parts::Part,
    process::Place,
    trust::Trust,
    wait,
};

use crate::scenario::{Scenario, alone};

const NEEDS: &[Part] = &[Part::Root, Part::Sandbox, Part::Binaries, Part::PythonGoogle, Part::Curl];
const EMULATED: &[Part] = &[Part::Root, Part::Sandbox, Part::Binaries, Part::PythonGoogle, Part::Emulator];
const WITH_NODE: &[Part] =
    &[Part::Root, Part::Sandbox, Part::Binaries, Part::PythonGoogle, Part::Emulator, Part::NodeGoogle];
const WITH_BQ: &[Part] =
    &[Part::Root, Part::Sandbox, Part::Binaries, Part::PythonGoogle, Part::Emulator, Part::Bq];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        alone!(what_python_says_of_bigquery_agrees_with_the_front_without_us, EMULATED),
        alone!(what_node_says_of_bigquery_agrees_with_the_front_without_us, WITH_NODE),
        alone!(what_bq_says_agrees_with_the_front_without_us, WITH_BQ),
        alone!(http_and_grpc_clients_reach_their_servers_without_us, NEEDS),
    ]
}

struct Direct {
    google: Google,
    clients: Clients,
    _ground: Ground,
}

fn direct(name: &str, options: Options) -> Result<Direct> {
    let ground = Ground::create(name)?;
    let google = Google::start(&ground, options)?;
    let cgroup = ground.tree.make("pod-a")?;
    let place = Place::within(cgroup, ground.network.pod(Pod::A), ground.folder.path());
    let trust = Trust::without_us(ground.folder.path(), &google.root().certificate())?;
    let clients =
        Clients::new(place).with("VLAB_PREFIX", "a-").trusting(&trust).for_google(&ground.path("home-a"))?;
    Ok(Direct { google, clients, _ground: ground })
}

/// What a script claims and what the front saw must agree here already, or a scenario's failure would say
/// nothing about the product.
fn agrees(direct: &Direct, output: &str) -> Result<()> {
    let claimed = did::read(output, "nobody")?;
    ensure!(!claimed.is_empty(), "the client did nothing");
    wait::until("the front's log to be complete", || {
        let requests = direct.google.requests()?;
        for one in &claimed {
            let times = requests.iter().filter(|request| request.ids.contains(&one.id)).count();
            ensure!(times == 1, "{}: the front has it {times} time(s)", one.id);
        }
        for call in did::calls(output)? {
            let method = |one: &Request| verbatim_tests::google::method(&one.method, &one.path);
            ensure!(
                requests.iter().any(|one| method(one) == Some(&call.call)),
                "{call:?} is not among {:?}",
                requests.iter().map(|one| (&one.method, &one.path)).collect::<Vec<_>>()
            );
        }
        let odd: Vec<_> = requests.iter().filter(|one| !one.authorized || one.status >= 500).collect();
        ensure!(odd.is_empty(), "{odd:?}");
        Ok(Some(()))
    })
}

fn emulated() -> Options {
    Options { emulator: true, ..Options::default() }
}

fn what_python_says_of_bigquery_agrees_with_the_front_without_us(name: &str) -> Result<()> {
    let direct = direct(name, emulated())?;
    let ended = direct.clients.python("bigquery", "bigquery_commands.py", &[])?.finish()?;
    agrees(&direct, &ended.text())
}

fn what_node_says_of_bigquery_agrees_with_the_front_without_us(name: &str) -> Result<()> {
    let direct = direct(name, emulated())?;
    let ended = direct.clients.node("bigquery", "bigquery_node.mjs", &[])?.finish()?;
    agrees(&direct, &ended.text())
}

fn what_bq_says_agrees_with_the_front_without_us(name: &str) -> Result<()> {
    let direct = direct(name, emulated())?;
    let ended = direct.clients.python("bq", "bq_commands.py", &[])?.finish()?;
    agrees(&direct, &ended.text())
}

fn http_and_grpc_clients_reach_their_servers_without_us(name: &str) -> Result<()> {
    let direct = direct(name, Options { grpc: true, odd: true, ..Options::default() })?;
    let clients = &direct.clients;
    for (version, alpn) in [("--http1.1", "http/1.1"), ("--http2", "h2")] {
        let url = format!("https://{MIRROR}/echo/id:a-curl");
        let ended =
            clients.start(&format!("curl{version}"), "curl", &["-sS", "--fail", version, &url])?.finish()?;
        ensure!(ended.text().contains(&format!("\"alpn\":\"{alpn}\"")), "{}", ended.text());
    }
    clients.python("httpx", "httpx_requests.py", &["all"])?.finish()?;
    clients.python("grpc", "grpc_calls.py", &["all"])?.finish()?;
    clients.start("odd", "curl", &["-sS", "--fail", "https://odd.googleapis.com/plain"])?.finish()?;
    let requests = direct.google.requests()?;
    ensure!(requests.iter().filter(|one| one.ids == ["a-curl"]).count() == 2, "{requests:?}");
    ensure!(direct.google.output("grpc").contains("\"Unary\""), "{}", direct.google.output("grpc"));
    Ok(())
}
