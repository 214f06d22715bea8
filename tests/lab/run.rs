//! `verbatim-agent run`: captures one command, and leaves the machine as it was.

mod behind_tls;
mod machine;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use verbatim_tests::{
    agent::{POOL, PROJECT_NUMBER, principal},
    cli,
    did::ids,
    parts::USUAL,
    process::Process,
    shell, wait,
};

use self::machine::{Machine, own_cgroup};
use crate::scenario::{Scenario, alone};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        alone!(run_records_a_command_and_ends_with_its_exit_code, USUAL),
        alone!(run_as_a_service_account_records_a_federated_principal, USUAL),
        alone!(run_takes_privileges_away_from_the_command, USUAL),
        alone!(run_holds_its_collector_back_while_the_command_runs, USUAL),
        alone!(run_ends_what_the_command_leaves_behind, USUAL),
        alone!(run_that_is_interrupted_tidies_up, USUAL),
        alone!(run_that_is_killed_tidies_up, USUAL),
        alone!(run_without_data_keeps_nothing, USUAL),
    ]
    .into_iter()
    .chain(behind_tls::scenarios())
    .collect()
}

fn field(line: &serde_json::Value, name: &str) -> String {
    line.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

fn run_records_a_command_and_ends_with_its_exit_code(name: &str) -> Result<()> {
    let machine = Machine::create(name)?;
    let (psql, data) = (machine.psql()?, machine.data());
    let good = "SELECT 1 /* id:run-good */";
    let bad = "SELECT 1/0 /* id:run-bad */";
    let ended = machine.run("run", &["--data", &data], &[&psql, "-XAtc", good, "-c", bad])?;
    // psql ends with 1 upon a failure of -c.
    ensure!(ended.status.code() == Some(1), "{}: {}", ended.status, ended.complaints());
    ensure!(ended.text().trim() == "1", "psql said {}", ended.text());
    // The live view: a line for each, beside the command's own standard error.
    for text in [good, bad] {
        ensure!(
            ended.complaints().lines().any(|line| line.contains(text) && line.contains("local:")),
            "no line for {text}: {}",
            ended.complaints()
        );
    }
    let lines = cli::records(cli::Source::Data(Path::new(&data)))?;
    let of = |id: &str| lines.iter().filter(|line| ids(field(line, "statement").as_bytes()) == [id]).count();
    ensure!(
        lines.len() == 2 && of("run-good") == 1 && of("run-bad") == 1,
        "{lines:?}: {}",
        ended.complaints()
    );
    let host = shell::run("uname", &["-n"])?;
    for line in &lines {
        ensure!(field(line, "principal") == format!("local:{}/nobody", host.trim()), "{line}");
        ensure!(field(line, "principalKind") == "local", "{line}");
        ensure!(field(line, "serviceAccount").is_empty(), "{line}");
    }
    let logged: Vec<String> = machine.logged()?.into_iter().map(|one| one.text).collect();
    ensure!(logged == [good, bad], "the server's log has {logged:?}");
    Ok(())
}

fn run_as_a_service_account_records_a_federated_principal(name: &str) -> Result<()> {
    let machine = Machine::create(name)?;
    let (psql, data, number) = (machine.psql()?, machine.data(), PROJECT_NUMBER.to_string());
    let text = "SELECT 1 /* id:run-as */";
    let options = [
        "--data",
        &data,
        "--as",
        "team-r/runner",
        "--project-number",
        &number,
        "--pool",
        POOL,
        "--live",
        "off",
    ];
    let ended = machine.run("run", &options, &[&psql, "-XAtc", text])?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.complaints());
    let lines = cli::records(cli::Source::Data(Path::new(&data)))?;
    ensure!(lines.len() == 1, "{lines:?}");
    for line in &lines {
        ensure!(field(line, "principal") == principal("team-r", "runner"), "{line}");
        ensure!(field(line, "statement") == text && field(line, "status") == "ok", "{line}");
    }
    Ok(())
}

/// Looks for the collector of this folder until its session gives way to all others (sched(7), "The autogroup feature");
/// says what it saw last.
const WEIGHT: &str = r#"
    [ -e /proc/self/autogroup ] || { echo none; exit; }
    for try in $(seq 100); do
        for process in /proc/[0-9]*; do
            tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -q "verbatim-collector serve.*$0" || continue
            seen=$(cat "$process/autogroup")
            case "$seen" in *"nice 19") break 2 ;; esac
        done
        sleep 0.1
    done
    echo "$seen""#;

fn run_holds_its_collector_back_while_the_command_runs(name: &str) -> Result<()> {
    let machine = Machine::create(name)?;
    let folder = machine.temporary().display().to_string();
    let ended = machine.run("weight", &["--live", "off"], &["sh", "-c", WEIGHT, &folder])?;
    let seen = ended.text();
    let held = ended.status.success() && (seen.trim() == "none" || seen.trim().ends_with("nice 19"));
    ensure!(held, "{}: the collector had {seen:?}: {}", ended.status, ended.complaints());
    Ok(())
}

fn run_takes_privileges_away_from_the_command(name: &str) -> Result<()> {
    let machine = Machine::create(name)?;
    let ended = machine.run("status", &["--live", "off"], &["cat", "/proc/self/status"])?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.complaints());
    let text = ended.text();
    let line = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned()
    };
    ensure!(line("Uid:").split_whitespace().all(|uid| uid == "65534"), "{text}");
    let capabilities = |name: &str| u64::from_str_radix(&line(name), 16);
    // linux/capability.h: NET_ADMIN 12, SYS_PTRACE 19, SYS_ADMIN 21, BPF 39.
    for name in ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:", "CapAmb:"] {
        let set = capabilities(name).with_context(|| format!("no {name} in {text}"))?;
        for bit in [12, 19, 21, 39] {
            ensure!(set & (1 << bit) == 0, "capability {bit} is in {name} {set:x}");
        }
    }
    // cgroupfs is read-only, so that it cannot leave its cgroup.
    let ended = machine.run("mounts", &["--live", "off"], &["cat", "/proc/self/mounts"])?;
    let text = ended.text();
    let mounts: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let cgroups: Vec<_> = mounts.iter().filter(|mount| mount.get(2) == Some(&"cgroup2")).collect();
    ensure!(!cgroups.is_empty(), "no cgroup2 is mounted: {text}");
    let read_only =
        |mount: &&Vec<&str>| mount.get(3).is_some_and(|options| options.split(',').any(|one| one == "ro"));
    ensure!(cgroups.iter().copied().all(|mount| read_only(&mount)), "{cgroups:?}");
    Ok(())
}

fn run_ends_what_the_command_leaves_behind(name: &str) -> Result<()> {
    let machine = Machine::create(name)?;
    let mark = format!("{}9", 77_000 + std::process::id() % 1000);
    let command = format!(
        "setsid sleep {mark} >/dev/null 2>&1 & \
         until [ \"$(cat /proc/$!/comm)\" = sleep ]; do sleep 0.05; done; echo left"
    );
    let ended = machine.run("straggler", &["--live", "off"], &["sh", "-c", &command])?;
    ensure!(ended.status.success() && ended.text().contains("left"), "{}", ended.complaints());
    ensure!(ended.complaints().contains("sleep"), "it is not named: {}", ended.complaints());
    ensure!(sleepers(&mark)? == 0, "it still runs");
    Ok(())
}

fn sleepers(mark: &str) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let words = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        if words == format!("sleep\0{mark}\0").as_bytes() {
            count += 1;
        }
    }
    Ok(count)
}

/// Starts a command that works until it is ended, and waits until it is under way; with its cgroup.
fn under_way(machine: &Machine, data: &str) -> Result<(Process, PathBuf)> {
    let psql = machine.psql()?;
    let text = "SELECT pg_sleep(600) /* id:run-sleeps */";
    let run = machine.start("sleeps", &["--data", data, "--live", "off"], &[&psql, "-XAtc", text])?;
    wait::until("the command to be under way", || {
        Ok(machine.logged()?.iter().any(|one| one.text == text).then_some(()))
    })?;
    let cgroup = own_cgroup(&run.output())?;
    ensure!(cgroup.exists(), "{} is not there", cgroup.display());
    Ok((run, cgroup))
}

fn gone(machine: &Machine, cgroup: &Path) -> Result<()> {
    wait::until("everything to be tidied up", || {
        let left = machine.left(cgroup)?;
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(Some(()))
    })
}

fn run_that_is_interrupted_tidies_up(name: &str) -> Result<()> {
    let machine = Machine::create(name)?;
    let data = machine.data();
    let (run, cgroup) = under_way(&machine, &data)?;
    run.signal("INT")?;
    let ended = run.wait()?;
    ensure!(!ended.status.success(), "an interrupted command succeeded");
    gone(&machine, &cgroup)?;
    let lines = cli::records(cli::Source::Data(Path::new(&data)))?;
    ensure!(lines.len() == 1 || lines.len() == 2, "{lines:?}");
    ensure!(lines.iter().any(|line| field(line, "statement").contains("id:run-sleeps")), "{lines:?}");
    Ok(())
}

fn run_that_is_killed_tidies_up(name: &str) -> Result<()> {
    let machine = Machine::create(name)?;
    let data = machine.data();
    let (mut run, cgroup) = under_way(&machine, &data)?;
    run.kill();
    gone(&machine, &cgroup)?;
    // The record was there before the command went.
    let started = verbatim_tests::find::files_with(Path::new(&data), b"id:run-sleeps")?;
    ensure!(!started.is_empty(), "the command is not on the disk");
    Ok(())
}

fn run_without_data_keeps_nothing(name: &str) -> Result<()> {
    let machine = Machine::create(name)?;
    let psql = machine.psql()?;
    let mark = format!("nothing-{}", std::process::id());
    let text = format!("SELECT '{mark}'");
    let ended = machine.run("nothing", &[], &[&psql, "-XAtc", &text])?;
    ensure!(ended.status.success() && ended.text().trim() == mark, "{}", ended.complaints());
    ensure!(ended.complaints().contains(&mark), "no live line: {}", ended.complaints());
    Ok(())
}
