//! Signals, deaths and what is left running: the machine is as it was.

use std::{
    fs,
    process::{Command, Stdio},
};

use super::cases;
use crate::{
    Outcome,
    collector::{Collector, Manner, socket},
    support::{Bench, Guard, ended, ensure, lives, signal, text, until},
    workload,
};
use verbatim_api::v1;

cases!(
    sigterm_ends_the_command_and_leaves_nothing,
    a_command_that_ignores_sigterm_is_killed_by_the_second,
    ctrl_c_reaches_the_command_once_and_the_agent_waits_for_it,
    a_killed_agent_leaves_nothing_and_its_data_are_taken_up_by_the_next,
    a_child_that_daemonises_is_named_killed_and_recorded,
    two_runs_at_once_leave_each_other_alone,
    a_connection_from_another_network_namespace_is_refused_and_recorded_as_missed,
    a_killed_agent_keeps_what_no_collector_has,
);

/// The script writes its process id there.
fn pid(bench: &Bench, name: &str) -> Option<u32> {
    fs::read_to_string(bench.path("open").join(name)).ok()?.trim().parse().ok()
}

/// A script that says that it runs, and waits.
fn waiting(bench: &Bench) -> String {
    let file = bench.path("open").join("pid");
    format!("sleep 1000 & echo $! > '{}'; wait", file.display())
}

fn sigterm_ends_the_command_and_leaves_nothing() -> Outcome {
    let bench = Bench::new();
    // sh dies of SIGTERM; what it had started is a straggler.
    let agent = Guard(bench.script(&[], &waiting(&bench)).stderr(Stdio::piped()).spawn()?);
    until("the command runs", || pid(&bench, "pid").is_some())?;
    signal(agent.0.id(), "TERM");
    let output = agent.output()?;
    ensure(output.status.code() == Some(143), || format!("{}: {}", output.status, text(&output.stderr)))?;
    until("its child has ended", || !pid(&bench, "pid").is_some_and(lives))?;
    bench.assert_clean()
}

fn a_command_that_ignores_sigterm_is_killed_by_the_second() -> Outcome {
    let bench = Bench::new();
    let script = format!("trap '' TERM; {}; wait", waiting(&bench));
    let agent = Guard(bench.script(&[], &script).stderr(Stdio::piped()).spawn()?);
    until("the command runs", || pid(&bench, "pid").is_some())?;
    signal(agent.0.id(), "TERM");
    std::thread::sleep(std::time::Duration::from_millis(200));
    ensure(pid(&bench, "pid").is_some_and(lives), || "it did not ignore the first".into())?;
    signal(agent.0.id(), "TERM");
    let output = agent.output()?;
    ensure(output.status.code() == Some(137), || format!("{}: {}", output.status, text(&output.stderr)))?;
    bench.assert_clean()
}

/// Runs its arguments on a terminal of their own, types Ctrl-C when they say `ready`, prints what they say
/// and ends with their code.
const TERMINAL: &str = r"
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    # Whoever runs the tests in the background has them ignored, and a shell cannot trap what is.
    for number in [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT]:
        signal.signal(number, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])
said, typed = b'', False
while True:
    try:
        more = os.read(terminal, 4096)
    except OSError:
        break
    if not more:
        break
    said += more
    if b'ready' in said and not typed:
        typed = True
        os.write(terminal, b'\x03')
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

fn ctrl_c_reaches_the_command_once_and_the_agent_waits_for_it() -> Outcome {
    let bench = Bench::new();
    // Ends of itself a while after the first Ctrl-C; counts them meanwhile.
    let script = "n=0; trap 'n=$((n+1))' INT; echo ready; \
                  while [ $n = 0 ]; do sleep 0.05; done; sleep 0.5; echo count $n; exit 5";
    let agent = bench.script(&[], script);
    let mut terminal = Command::new("python3");
    terminal.args(["-c", TERMINAL]).arg(agent.get_program()).args(agent.get_args());
    terminal.env("TMPDIR", bench.path("tmp")).env_remove("SUDO_UID").stdin(Stdio::null());
    let (code, stdout, stderr) = ended(&mut terminal)?;
    ensure(code == Some(5), || format!("{code:?}: {stdout}{stderr}"))?;
    ensure(stdout.contains("count 1\r\n"), || stdout.clone())?;
    ensure(stdout.contains("nothing is kept"), || format!("the agent did not end in order: {stdout}"))?;
    bench.assert_clean()
}

fn a_killed_agent_leaves_nothing_and_its_data_are_taken_up_by_the_next() -> Outcome {
    let bench = Bench::new();
    let data = bench.path("data").display().to_string();
    let mut command = bench.script(&["--data", &data], &waiting(&bench));
    let agent = Guard(command.stderr(Stdio::piped()).spawn()?);
    until("the command runs", || pid(&bench, "pid").is_some())?;
    let cgroup = bench.cgroup()?;
    let members: Vec<u32> = verbatim_sys::cgroup::Cgroup::at(&cgroup)
        .members()?
        .into_iter()
        .map(|member| member.pid)
        .filter(|pid| *pid != agent.0.id())
        .collect();
    ensure(members.len() >= 3, || format!("shell, sleep and collector were expected: {members:?}"))?;
    signal(agent.0.id(), "KILL");
    // The watcher holds standard error until it is done.
    let output = agent.output()?;
    let said = text(&output.stderr);
    ensure(said.contains("nothing is left behind"), || format!("the watcher said: {said}"))?;
    ensure(!members.iter().any(|pid| lives(*pid)), || format!("some of {members:?} live"))?;
    bench.assert_clean()?;

    let (code, _, stderr) = ended(&mut bench.script(&["--data", &data], "true"))?;
    ensure(code == Some(0), || format!("{code:?}: {stderr}"))?;
    ensure(stderr.contains("an earlier agent had died on this spool"), || stderr.clone())?;
    ensure(stderr.contains("read them with"), || format!("not everything was shipped: {stderr}"))?;
    bench.assert_clean()
}

fn a_child_that_daemonises_is_named_killed_and_recorded() -> Outcome {
    let bench = Bench::new();
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let address = format!("unix:{}", socket(&bench.path("tmp")).display());
    let file = bench.path("open").join("pid");
    // It is named after what it has become.
    let script = format!(
        "setsid sh -c 'echo $$ > {file}; exec sleep 1000' & \
         until [ \"$(cat /proc/$(cat {file})/comm)\" = sleep ]; do sleep 0.05; done 2>/dev/null",
        file = file.display()
    );
    let (code, _, stderr) = ended(&mut bench.script(&["--collector", &address], &script))?;
    ensure(code == Some(0), || format!("{code:?}: {stderr}"))?;
    let daemon = pid(&bench, "pid").ok_or("the daemon did not start")?;
    ensure(stderr.contains(&format!("{daemon} (sleep)")), || format!("{daemon} is not named: {stderr}"))?;
    ensure(!lives(daemon), || "the daemon lives".into())?;
    let events = coverage(&collector);
    let killed = (v1::CoverageEvent::StragglersKilled, 1);
    ensure(events.contains(&killed), || format!("recorded: {events:?}"))?;
    for event in [v1::CoverageEvent::Attached, v1::CoverageEvent::Detached] {
        ensure(events.contains(&(event, 1)), || format!("recorded: {events:?}"))?;
    }
    fs::remove_file(socket(&bench.path("tmp")))?;
    bench.assert_clean()
}

/// Coverage records that a collector got.
fn coverage(collector: &Collector) -> Vec<(v1::CoverageEvent, u64)> {
    let envelopes = collector.kept().into_values().flat_map(std::collections::BTreeMap::into_values);
    envelopes
        .filter_map(|bytes| <v1::Envelope as prost::Message>::decode(bytes.as_slice()).ok())
        .filter_map(|envelope| match envelope.detail {
            Some(v1::envelope::Detail::Coverage(coverage)) => Some((coverage.event(), coverage.count)),
            _ => None,
        })
        .collect()
}

fn two_runs_at_once_leave_each_other_alone() -> Outcome {
    let (first, second) = (Bench::new(), Bench::new());
    let agent = Guard(first.script(&[], &waiting(&first)).stderr(Stdio::piped()).spawn()?);
    until("the first command runs", || pid(&first, "pid").is_some())?;
    let (code, _, stderr) = ended(&mut second.script(&[], "exit 3"))?;
    ensure(code == Some(3), || format!("{code:?}: {stderr}"))?;
    second.assert_clean()?;
    ensure(pid(&first, "pid").is_some_and(lives), || "the second run ended the first's command".into())?;
    ensure(first.cgroup()?.exists(), || "the second run removed the first's cgroup".into())?;
    signal(agent.0.id(), "TERM");
    agent.output()?;
    first.assert_clean()
}

fn a_connection_from_another_network_namespace_is_refused_and_recorded_as_missed() -> Outcome {
    let bench = Bench::new();
    let path = socket(&bench.path("tmp"));
    let collector = Collector::start(&path, Manner::Good, None);
    let address = format!("unix:{}", path.display());
    let echo = format!("{} {} echo 127.0.0.1:5432", workload::program(), workload::WORKLOAD);
    let inside = format!("ip link set lo up && exec {echo}");
    let script = format!("unshare --user --map-root-user --net sh -c '{inside}'");
    let (code, stdout, stderr) = ended(&mut bench.script(&["--collector", &address], &script))?;
    ensure(code == Some(1) && stdout.contains("refused"), || format!("{code:?}: {stdout}{stderr}"))?;
    let events = coverage(&collector);
    ensure(events.contains(&(v1::CoverageEvent::Missed, 1)), || format!("recorded: {events:?}"))?;
    fs::remove_file(path)?;
    bench.assert_clean()
}

fn a_killed_agent_keeps_what_no_collector_has() -> Outcome {
    let bench = Bench::new();
    let nobody = format!("unix:{}", bench.path("open").join("nobody.sock").display());
    let mut command = bench.script(&["--collector", &nobody], &waiting(&bench));
    let agent = Guard(command.stderr(Stdio::piped()).spawn()?);
    until("the command runs", || pid(&bench, "pid").is_some())?;
    let spool = bench.private()?.join("data/spool");
    signal(agent.0.id(), "KILL");
    let said = text(&agent.output()?.stderr);
    ensure(spool.is_dir() && said.contains("records that may not have been sent"), || said)?;
    ensure(!bench.cgroup()?.exists(), || "its cgroup is left behind".into())
}
