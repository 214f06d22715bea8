//! `--data` in a folder of the person that the command runs as: what is kept, and who can exchange it.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::{chown, symlink},
    path::PathBuf,
    process::{Command, Stdio},
};

use libtest_mimic::Failed;

use super::cases;
use crate::{
    Outcome,
    support::{Bench, Guard, ended, ensure, signal, text, until},
};

cases!(
    a_trail_in_the_commands_own_folder_is_kept_and_its_exit_code_is_the_commands,
    a_command_that_exchanges_the_folder_of_the_trail_gets_none_of_it_and_is_found_out,
    a_killed_agents_trail_stays_where_it_is_also_under_another_name,
    the_command_has_no_way_by_which_the_trail_is_reached,
    a_data_folder_that_is_a_symbolic_link_is_refused,
    a_folder_for_temporary_files_that_others_can_exchange_is_refused,
);

/// `nobody`, who owns the folder `home` of the bench.
const PERSON: u32 = 65534;

fn home(bench: &Bench) -> Result<PathBuf, Failed> {
    let home = bench.path("home");
    fs::create_dir(&home)?;
    chown(&home, Some(PERSON), Some(PERSON))?;
    Ok(home)
}

/// `run --data trail` as sudo does it for the person, in the person's folder.
fn by_the_person(bench: &Bench, home: &PathBuf, script: &str) -> Command {
    let mut command = bench.script(&["--data", "trail", "--no-tls"], script);
    let person = PERSON.to_string();
    command.env("SUDO_UID", &person).env("SUDO_GID", &person).env("SUDO_USER", "nobody").current_dir(home);
    command
}

/// A connection that is recorded before it is answered, by a shell.
fn connecting() -> Result<String, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.read(&mut [0; 16]).and_then(|_| stream.write_all(b"well")).ok();
        }
    });
    let words = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; read -n 1 -t 30 line <&3");
    Ok(format!("bash -c '{words}'"))
}

fn a_trail_in_the_commands_own_folder_is_kept_and_its_exit_code_is_the_commands() -> Outcome {
    let bench = Bench::new();
    let home = home(&bench)?;
    let script = format!("{}; exit 7", connecting()?);
    // Twice: the second finds the folder that the first has made.
    for connections in 1..=2 {
        let (code, _, stderr) = ended(&mut by_the_person(&bench, &home, &script))?;
        ensure(code == Some(7), || format!("{code:?}: {stderr}"))?;
        let trail = home.join("trail");
        let said = format!("--data {} records", trail.display());
        ensure(stderr.contains(&said) && !stderr.contains("WARNING"), || stderr.clone())?;
        let records = bench.records(&trail)?;
        ensure(records.len() == connections, || format!("recorded: {records:?}"))?;
    }
    bench.assert_clean()
}

fn a_command_that_exchanges_the_folder_of_the_trail_gets_none_of_it_and_is_found_out() -> Outcome {
    for (what, meanwhile) in [
        ("another folder", "mv trail .t; mkdir -p trail/spool trail/collector"),
        ("a link to it", "mv trail .t; ln -s .t trail"),
        ("nothing", "mv trail .t"),
    ] {
        let bench = Bench::new();
        let home = home(&bench)?;
        let script = format!("{meanwhile}; {}; exit 7", connecting()?);
        let (code, _, stderr) = ended(&mut by_the_person(&bench, &home, &script))?;
        ensure(code == Some(125), || format!("{what}: {code:?}: {stderr}"))?;
        let (asked, moved) = (home.join("trail"), home.join(".t"));
        let warned = format!("WARNING: {} is not the folder any more", asked.display());
        ensure(stderr.contains(&warned), || format!("{what}: {stderr}"))?;
        ensure(stderr.contains(&format!("this run are in {}", moved.display())), || stderr.clone())?;
        let records = bench.records(&moved)?;
        ensure(records.len() == 1, || format!("{what}: recorded: {records:?}"))?;
        if what == "another folder" {
            let found = Command::new("find").arg(&asked).args(["-mindepth", "2"]).output()?;
            ensure(found.stdout.is_empty(), || format!("written to: {}", text(&found.stdout)))?;
        }
        bench.assert_clean()?;
    }
    Ok(())
}

fn a_killed_agents_trail_stays_where_it_is_also_under_another_name() -> Outcome {
    for (meanwhile, name) in [("true", "trail"), ("mv trail .t && mkdir trail", ".t")] {
        let bench = Bench::new();
        let home = home(&bench)?;
        let up = bench.path("open").join("up");
        // A connection that failed is no reason to go on.
        let script = format!("{} && {meanwhile} && touch '{}'; sleep 1000", connecting()?, up.display());
        let mut command = by_the_person(&bench, &home, &script);
        let agent = Guard(command.stderr(Stdio::piped()).spawn()?);
        until("the command has connected", || up.exists())?;
        signal(agent.0.id(), "KILL");
        // The watcher holds standard error until it is done.
        let said = text(&agent.output()?.stderr);
        ensure(said.contains("nothing is left behind"), || format!("the watcher said: {said}"))?;
        bench.assert_clean()?;
        // Taken in by the next that is given the folder.
        let kept = home.join(name).display().to_string();
        let (code, _, stderr) = ended(&mut bench.script(&["--data", &kept, "--no-tls"], "true"))?;
        ensure(code == Some(0), || format!("{code:?}: {stderr}"))?;
        let records = bench.records(&home.join(name))?;
        ensure(records.len() == 1, || format!("{name} has {records:?}, after {said} and {stderr}"))?;
    }
    Ok(())
}

fn the_command_has_no_way_by_which_the_trail_is_reached() -> Outcome {
    let bench = Bench::new();
    let data = bench.path("data").display().to_string();
    // As root, who could use one.
    let script = "cat /proc/self/mountinfo; ls -dA /run/verbatim-*-data/*; true";
    let (code, stdout, stderr) = ended(&mut bench.script(&["--data", &data], script))?;
    ensure(code == Some(0) && stdout.contains(" / / "), || format!("{code:?}: {stdout}{stderr}"))?;
    ensure(!stdout.contains(&data) && !stdout.contains("-data"), || format!("it sees: {stdout}"))?;
    // Nor has anybody else: the mount is the agent's own.
    let held = bench.path("open").join("held");
    let script = format!("touch '{0}'; while [ -e '{0}' ]; do sleep 0.05; done", held.display());
    let agent = Guard(bench.script(&["--data", &data], &script).stderr(Stdio::null()).spawn()?);
    until("the command runs", || held.exists())?;
    let (ours, agents) = (fs::read_to_string("/proc/self/mountinfo")?, agent.0.id());
    let agents = fs::read_to_string(format!("/proc/{agents}/mountinfo"))?;
    fs::remove_file(&held)?;
    ensure(agents.contains(&data), || format!("the agent holds no folder: {agents}"))?;
    ensure(!ours.contains(&data), || format!("seen outside: {ours}"))?;
    agent.output()?;
    bench.assert_clean()
}

fn a_data_folder_that_is_a_symbolic_link_is_refused() -> Outcome {
    let bench = Bench::new();
    let home = home(&bench)?;
    fs::create_dir(bench.path("other"))?;
    symlink(bench.path("other"), home.join("trail"))?;
    let (code, _, stderr) = ended(&mut by_the_person(&bench, &home, "true"))?;
    ensure(code == Some(125) && stderr.contains("give --data a folder"), || format!("{code:?}: {stderr}"))?;
    ensure(fs::read_dir(bench.path("other"))?.next().is_none(), || "something was made in it".into())
}

fn a_folder_for_temporary_files_that_others_can_exchange_is_refused() -> Outcome {
    let bench = Bench::new();
    let below = home(&bench)?.join("tmp");
    fs::create_dir(&below)?;
    let (code, _, stderr) = ended(bench.agent(&["run", "--", "true"]).env("TMPDIR", &below))?;
    ensure(code == Some(125) && stderr.contains("TMPDIR"), || format!("{code:?}: {stderr}"))
}
