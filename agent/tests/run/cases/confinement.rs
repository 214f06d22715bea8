//! What the command is, and what it cannot do.

use std::{path::Path, process::Command};

use super::cases;
use crate::{
    Outcome,
    support::{Bench, Guard, beside, ended, ensure, until},
    workload::{WORKLOAD, program},
};

cases!(
    the_command_is_the_person_behind_sudo_with_no_capability,
    roots_command_is_root_without_what_could_undo_the_capture,
    no_cgroup_file_can_be_written_not_even_by_root,
    a_command_in_a_plain_chroot_is_confined_as_anywhere,
    roots_command_loads_no_program,
    roots_command_cannot_talk_to_the_collector_but_root_outside_can,
    the_command_blocks_no_signal_and_inherits_no_descriptor_of_ours,
);

/// BPF, NET_ADMIN, SYS_ADMIN, SYS_PTRACE, PERFMON, SYS_MODULE, SYS_RAWIO by their numbers in
/// `linux/capability.h`.
const GIVEN_UP: [u32; 7] = [39, 12, 21, 19, 38, 16, 17];
/// The same of SYS_CHROOT.
const SYS_CHROOT: u32 = 18;

/// A capability set of `/proc/self/status`.
fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX)
}

fn the_command_is_the_person_behind_sudo_with_no_capability() -> Outcome {
    let bench = Bench::new();
    // Debian's `postgres` is in a second group, ssl-cert: supplementary groups come from the database.
    let id = |flag: &str| {
        Command::new("id")
            .args([flag, "postgres"])
            .output()
            .map(|output| crate::support::text(&output.stdout))
    };
    let (uid, gid, groups) = (id("-u")?, id("-g")?, id("-G")?);
    let script = "id -u; id -g; id -G; echo $HOME; echo $USER; env | grep -c ^SUDO_; cat /proc/self/status";
    let mut command = bench.script(&[], script);
    command.env("SUDO_UID", uid.trim()).env("SUDO_GID", gid.trim()).env("HOME", "/root").env("USER", "root");
    let (code, stdout, stderr) = ended(&mut command)?;
    ensure(code == Some(0), || format!("{code:?}: {stderr}"))?;
    let expected = format!("{uid}{gid}{groups}/var/lib/postgresql\npostgres\n0\n");
    ensure(stdout.starts_with(&expected), || format!("expected {expected:?}, got {stdout:?}"))?;
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        ensure(set(&stdout, name) == 0, || format!("{name} is not empty: {stdout}"))?;
    }
    assert_given_up(&stdout, "CapBnd:")?;
    bench.assert_clean()
}

fn assert_given_up(status: &str, name: &str) -> Outcome {
    let set = set(status, name);
    let left: Vec<u32> = GIVEN_UP.into_iter().filter(|bit| set & (1 << bit) != 0).collect();
    ensure(left.is_empty(), || format!("{name} still has {left:?}: {status}"))
}

fn roots_command_is_root_without_what_could_undo_the_capture() -> Outcome {
    let bench = Bench::new();
    let (code, stdout, stderr) = ended(&mut bench.script(&[], "id -u; cat /proc/self/status"))?;
    ensure(code == Some(0) && stdout.starts_with("0\n"), || format!("{code:?}: {stdout}{stderr}"))?;
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_given_up(&stdout, name)?;
    }
    Ok(())
}

fn no_cgroup_file_can_be_written_not_even_by_root() -> Outcome {
    let bench = Bench::new();
    let (code, stdout, stderr) = ended(&mut bench.agent(&["run", "--", &program(), WORKLOAD, "escape"]))?;
    ensure(code == Some(1) && !stdout.is_empty(), || format!("it got out: {stdout}{stderr}"))?;
    let all_read_only = stdout.lines().all(|line| line.ends_with("ReadOnlyFilesystem"));
    ensure(all_read_only, || format!("refused for another reason: {stdout}"))?;
    // And it cannot make them writable again.
    let mount = verbatim_sys::cgroup::mount_point()?.display().to_string();
    let script = format!("mount -o remount,rw,bind {mount} 2>&1; umount {mount} 2>&1; unshare -m true 2>&1");
    let (code, stdout, _) = ended(&mut bench.script(&[], &script))?;
    ensure(code != Some(0), || format!("it may mount: {stdout}"))
}

/// In a mount namespace of its own makes `$1` a root of bind mounts, in a folder that is no mount point, and runs the
/// rest there.
const IN_A_CHROOT: &str = r#"root=$1; shift; mkdir "$root" && cd "$root" &&
    while [ "$1" != -- ]; do
        if [ -L "$1" ]; then cp -d "$1" ".$1"; else mkdir -p ".$1" && mount --rbind "$1" ".$1"; fi || exit 99; shift
    done; shift; exec chroot "$root" "$@""#;

fn a_command_in_a_plain_chroot_is_confined_as_anywhere() -> Outcome {
    let bench = Bench::new();
    let build = Path::new(&program()).parent().and_then(Path::parent).ok_or("no build folder")?.to_owned();
    let inside = |root: &str, words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", IN_A_CHROOT, "sh"]);
        command.arg(bench.path(root));
        command.args(["/bin", "/lib", "/lib64", "/usr", "/etc", "/dev", "/proc", "/sys", "/run", "/var"]);
        // Where the bench and what is tested lie, which may be the same.
        command.arg(bench.path("open")).arg(bench.path("tmp")).arg(&build);
        let agent = bench.agent(words);
        command.arg("--").arg(agent.get_program()).args(agent.get_args());
        for (name, value) in agent.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    };
    let (code, stdout, stderr) = ended(&mut inside("one", &["run", "--", &program(), WORKLOAD, "escape"]))?;
    ensure(code == Some(1) && !stdout.is_empty(), || format!("{code:?}: {stdout}{stderr}"))?;
    let all_read_only = stdout.lines().all(|line| line.ends_with("ReadOnlyFilesystem"));
    ensure(all_read_only, || format!("refused for another reason: {stdout}{stderr}"))?;
    let (code, stdout, stderr) = ended(&mut inside("two", &["run", "--", "cat", "/proc/self/status"]))?;
    ensure(code == Some(0), || format!("{code:?}: {stdout}{stderr}"))?;
    for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_given_up(&stdout, name)?;
        ensure(set(&stdout, name) & (1 << SYS_CHROOT) == 0, || format!("it may leave: {stdout}"))?;
    }
    let data = bench.path("tmp").join("trail").display().to_string();
    let (code, stdout, stderr) =
        ended(&mut inside("three", &["run", "--data", &data, "--", "ls", "-A", "/run", "/"]))?;
    ensure(code == Some(0) && stderr.contains(&data), || format!("{code:?}: {stdout}{stderr}"))?;
    let kept = bench.path("tmp").join("trail/collector").is_dir();
    ensure(kept && !stderr.contains("WARNING"), || format!("nothing is kept: {stderr}"))
}

fn roots_command_loads_no_program() -> Outcome {
    let bench = Bench::new();
    let (code, stdout, stderr) = ended(&mut bench.agent(&["run", "--", &program(), WORKLOAD, "bpf"]))?;
    ensure(code == Some(1) && stdout.contains("not permitted"), || format!("{code:?}: {stdout}{stderr}"))
}

fn roots_command_cannot_talk_to_the_collector_but_root_outside_can() -> Outcome {
    let bench = Bench::new();
    let verbatim = beside("verbatim")?.display().to_string();
    let out = bench.path("open").join("out").display().to_string();
    let tmp = bench.path("tmp").display().to_string();
    // Waits at the end, so that the same can be done from outside at the same time.
    let script = format!(
        "{verbatim} --collector unix:$(echo {tmp}/verbatim-*/audit.sock) records > '{out}' 2>&1; echo $? > '{out}.code'; \
         while [ ! -e '{out}.go' ]; do sleep 0.05; done"
    );
    let agent = Guard(bench.script(&[], &script).stderr(std::process::Stdio::null()).spawn()?);
    until("the command has tried", || Path::new(&format!("{out}.code")).exists())?;
    let socket = format!("unix:{}", bench.private()?.join("audit.sock").display());
    let outside = Command::new(&verbatim).args(["--collector", &socket, "records"]).output()?;
    std::fs::write(format!("{out}.go"), "")?;
    let ended = agent.output()?;
    let inside = std::fs::read_to_string(format!("{out}.code"))?;
    let said = std::fs::read_to_string(&out)?;
    // The connection is closed before anything is answered.
    ensure(inside.trim() != "0", || format!("from inside: {said}"))?;
    ensure(outside.status.success(), || format!("from outside: {}", crate::support::text(&outside.stderr)))?;
    ensure(ended.status.success(), || format!("the run: {}", ended.status))?;
    bench.assert_clean()
}

fn the_command_blocks_no_signal_and_inherits_no_descriptor_of_ours() -> Outcome {
    let bench = Bench::new();
    let script = "grep SigBlk /proc/self/status; exec ls /proc/self/fd";
    let (code, captured, stderr) = ended(&mut bench.script(&[], script))?;
    ensure(code == Some(0), || format!("{code:?}: {stderr}"))?;
    ensure(captured.starts_with("SigBlk:\t0000000000000000\n"), || captured.clone())?;
    // What our own caller has left open for its children is the command's to inherit.
    let script = format!("true > '{}'; {script}", bench.path("open").join("cgroup").display());
    let (_, alone, _) = ended(Command::new("sh").args(["-c", &script]).stdin(std::process::Stdio::null()))?;
    ensure(captured == alone, || format!("descriptors: {captured}, without the agent: {alone}"))
}
