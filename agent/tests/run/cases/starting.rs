//! Exit codes, and what is said when nothing can be captured.

use std::fs;

use super::cases;
use crate::{
    Outcome,
    support::{Bench, ended, ensure},
};

cases!(
    the_exit_code_is_the_commands_own,
    a_command_that_is_not_there_is_127_and_one_that_cannot_be_executed_is_126,
    a_collector_that_is_not_installed_is_named_with_what_to_do,
    a_collector_that_does_not_start_is_quoted,
    a_service_account_that_is_none_is_refused_before_anything_is_made,
    without_privileges_it_says_which_and_how,
    a_data_folder_that_others_can_write_is_refused,
    an_unknown_configuration_key_is_named_with_its_line_and_the_nearest_one,
);

fn the_exit_code_is_the_commands_own() -> Outcome {
    for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)] {
        let bench = Bench::new();
        let (code, _, stderr) = ended(&mut bench.script(&[], script))?;
        ensure(code == Some(expected), || format!("`{script}`: {code:?}, expected {expected}: {stderr}"))?;
        ensure(stderr.contains("nothing is kept"), || format!("it says that nothing is kept: {stderr}"))?;
        bench.assert_clean()?;
    }
    Ok(())
}

fn a_command_that_is_not_there_is_127_and_one_that_cannot_be_executed_is_126() -> Outcome {
    for (command, expected, says) in
        [("no-such-command", 127, "no-such-command: command not found"), ("/etc/passwd", 126, "/etc/passwd")]
    {
        let bench = Bench::new();
        let (code, _, stderr) = ended(&mut bench.agent(&["run", "--", command]))?;
        ensure(code == Some(expected), || format!("{command}: {code:?}: {stderr}"))?;
        ensure(stderr.contains(says), || format!("{command}: {stderr}"))?;
        ensure(fs::read_dir(bench.path("tmp"))?.count() == 0, || "temporary files are left".into())?;
    }
    Ok(())
}

fn a_collector_that_is_not_installed_is_named_with_what_to_do() -> Outcome {
    let bench = Bench::new();
    let (code, _, stderr) =
        ended(&mut bench.agent(&["run", "--collector-bin", "/nonexistent/collector", "--", "true"]))?;
    ensure(code == Some(125), || format!("{code:?}: {stderr}"))?;
    for part in ["/nonexistent/collector", "--collector-bin", "--collector"] {
        ensure(stderr.contains(part), || format!("`{part}` is missing in: {stderr}"))?;
    }
    Ok(())
}

fn a_collector_that_does_not_start_is_quoted() -> Outcome {
    let bench = Bench::new();
    let program = bench.path("collector");
    fs::write(&program, "#!/bin/sh\necho the disk is made of cheese >&2\nexit 3\n")?;
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let bin = program.display().to_string();
    let (code, _, stderr) = ended(&mut bench.agent(&["run", "--collector-bin", &bin, "--", "true"]))?;
    ensure(code == Some(125), || format!("{code:?}: {stderr}"))?;
    ensure(stderr.contains("the disk is made of cheese"), || stderr)?;
    ensure(fs::read_dir(bench.path("tmp"))?.count() == 0, || "temporary files are left".into())
}

fn a_service_account_that_is_none_is_refused_before_anything_is_made() -> Outcome {
    let bench = Bench::new();
    let options = ["run", "--as", "shop", "--project-number", "7", "--pool", "p.svc.id.goog", "--", "true"];
    let (code, _, stderr) = ended(&mut bench.agent(&options))?;
    ensure(code == Some(2), || format!("{code:?}: {stderr}"))?;
    ensure(stderr.contains("NAMESPACE/SERVICE_ACCOUNT"), || stderr)
}

fn without_privileges_it_says_which_and_how() -> Outcome {
    let bench = Bench::new();
    let program = bench.path("open").join("agent");
    fs::copy(env!("CARGO_BIN_EXE_verbatim-agent"), &program)?;
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program);
    let (code, _, stderr) = ended(command.args(["run", "--", "true"]))?;
    ensure(code == Some(125), || format!("{code:?}: {stderr}"))?;
    for part in ["CAP_BPF", "CAP_NET_ADMIN", "sudo verbatim-agent run"] {
        ensure(stderr.contains(part), || format!("`{part}` is missing in: {stderr}"))?;
    }
    Ok(())
}

fn a_data_folder_that_others_can_write_is_refused() -> Outcome {
    let bench = Bench::new();
    let data = bench.path("open").display().to_string();
    let (code, _, stderr) = ended(&mut bench.agent(&["run", "--data", &data, "--", "true"]))?;
    ensure(code == Some(125), || format!("{code:?}: {stderr}"))?;
    ensure(stderr.contains(&data) && stderr.contains("--data"), || stderr)
}

fn an_unknown_configuration_key_is_named_with_its_line_and_the_nearest_one() -> Outcome {
    let bench = Bench::new();
    let file = bench.path("agent.yaml");
    let with_typo = "apiVersion: verbatim.v1\nkind: NodeAgent\ndestinations:\n- {cidr: 10.0.0.0/8, action: steer}\n\
                     selectors:\n- set:\n    capture: steer\n    failMod: closed\n";
    fs::write(&file, with_typo)?;
    let path = file.display().to_string();
    let (code, _, stderr) = ended(&mut bench.agent(&["serve", "--config", &path]))?;
    ensure(code == Some(1), || format!("{code:?}: {stderr}"))?;
    let expected = format!("{path}:8: unknown key `failMod`; did you mean `failMode`?");
    ensure(stderr.contains(&expected), || format!("expected `{expected}` in: {stderr}"))
}
