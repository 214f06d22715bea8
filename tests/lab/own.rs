//! The lab itself: that it is what scenarios take it for, and that it leaves nothing behind.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use verbatim_tests::{
    binaries,
    cgroup::mount_point,
    clients::Clients,
    did,
    lab::Ground,
    network::{DATABASE, DATABASE_V6, Pod},
    parts::Part,
    postgres::{self, SETUP},
    process::{Place, Process},
    undo::Leftover,
    wait,
};

use crate::scenario::{Scenario, alone};

const NEEDS: &[Part] = &[Part::Root, Part::Sandbox, Part::Postgres, Part::Python];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        alone!(a_harness_that_is_killed_leaves_nothing_behind, NEEDS),
        alone!(a_lab_that_ends_leaves_nothing_behind, NEEDS),
        alone!(pods_reach_the_database_by_name_and_by_both_address_families, NEEDS),
        alone!(what_clients_say_agrees_with_the_servers_log_without_us, NEEDS),
    ]
}

fn leftovers(name: &str) -> Result<Vec<Leftover>> {
    let folder = std::env::temp_dir().join(name).display().to_string();
    let cgroup = mount_point()?.join(name).display().to_string();
    let mut all = vec![Leftover::Folder(folder), Leftover::Cgroup(cgroup)];
    for end in ["pod-a", "pod-b", "vpc"] {
        all.push(Leftover::Namespace(format!("{name}-{end}")));
        all.push(Leftover::Folder(format!("/etc/netns/{name}-{end}")));
    }
    Ok(all)
}

fn still_there(name: &str) -> Result<Vec<Leftover>> {
    Ok(leftovers(name)?.into_iter().filter(Leftover::exists).collect())
}

fn a_harness_that_is_killed_leaves_nothing_behind(name: &str) -> Result<()> {
    let own = tempfile::tempdir()?;
    let mut command = Command::new(binaries::find("lab-helper")?);
    command.args(["ground", name]).stdin(Stdio::null());
    let mut harness = Process::start("harness", own.path(), command)?;
    harness.wait_for_output("made ")?;
    let output = harness.output();
    let made = output.trim().strip_prefix("made ").context("no name")?.to_owned();
    let before = still_there(&made)?.len();
    ensure!(before == leftovers(&made)?.len(), "only {before} of the lab's parts are there");
    let servers = postgres_of(&made)?;
    ensure!(!servers.is_empty(), "no database runs");
    harness.kill();
    wait::until("everything to be gone", || {
        let left = still_there(&made)?;
        ensure!(left.is_empty(), "still there: {left:?}");
        Ok(Some(()))
    })?;
    let servers = postgres_of(&made)?;
    ensure!(servers.is_empty(), "database processes {servers:?} outlived it");
    Ok(())
}

/// Processes whose command line names the scenario.
fn postgres_of(name: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains(&format!("{name}/postgres")) {
            found.push(id);
        }
    }
    Ok(found)
}

fn a_lab_that_ends_leaves_nothing_behind(name: &str) -> Result<()> {
    let ground = Ground::create(name)?;
    let server = ground.postgres("postgres", DATABASE, postgres::Options::default())?;
    let made = ground.name.clone();
    ensure!(still_there(&made)?.len() == leftovers(&made)?.len(), "not all of the lab's parts are there");
    drop((server, ground));
    let left = still_there(&made)?;
    ensure!(left.is_empty(), "still there: {left:?}");
    Ok(())
}

fn clients(ground: &Ground, pod: Pod) -> Result<Clients> {
    let cgroup = ground.tree.make(format!("pod-{}", pod.letter()))?;
    let place = Place::within(cgroup, ground.network.pod(pod), ground.folder.path());
    Ok(Clients::new(place).with("VLAB_PREFIX", format!("{}-", pod.letter())))
}

fn pods_reach_the_database_by_name_and_by_both_address_families(name: &str) -> Result<()> {
    let ground = Ground::create(name)?;
    let _server = ground.postgres("postgres", DATABASE, postgres::Options::default())?;
    for pod in Pod::ALL {
        for (index, host) in ["db.vpc.internal", DATABASE, DATABASE_V6].into_iter().enumerate() {
            let client = clients(&ground, pod)?.with("PGHOST", host).with("PGAPPNAME", SETUP);
            let what = format!("psql-{}-{index}", pod.letter());
            let ended = client.psql(&what, &["-Atc", "SELECT inet_client_addr()"])?.finish()?;
            let expected = if host == DATABASE_V6 { "fd61:" } else { pod.address() };
            ensure!(ended.text().starts_with(expected), "{host} saw {}", ended.text());
        }
    }
    Ok(())
}

/// Runs the clients straight against the server. What they claim and what the server logged must agree
/// here already, or a scenario's failure would say nothing about the product.
fn what_clients_say_agrees_with_the_servers_log_without_us(name: &str) -> Result<()> {
    let ground = Ground::create(name)?;
    let server = ground.postgres("postgres", DATABASE, postgres::Options::default())?;
    let client = clients(&ground, Pod::A)?;
    let mut claimed = Vec::new();
    for script in ["psycopg_simple", "psycopg_extended", "psycopg_copy", "psycopg_cancel", "asyncpg_commands"]
    {
        let ended = client.python(script, &format!("{script}.py"), &[])?.finish()?;
        claimed.extend(did::read(&ended.text(), "nobody")?);
    }
    wait::until("the log to be complete", || {
        let logged = server.log()?;
        let mut counts: std::collections::BTreeMap<String, (i64, i64)> = Default::default();
        for one in &claimed {
            if one.server == did::ServerSaw::It {
                counts.entry(one.id.clone()).or_default().0 += 1;
            }
        }
        for id in logged.iter().flat_map(|one| did::ids(one.text.as_bytes())) {
            counts.entry(id).or_default().1 += 1;
        }
        counts.retain(|_, (claimed, logged)| claimed != logged);
        ensure!(counts.is_empty(), "claimed and logged differ: {counts:?}");
        Ok(Some(()))
    })
}
