//! Running other programs: cargo, as root, loud or quiet. Every failure names the command and what it said.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{place, say};

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo told this program about its own crate is not for the crates it builds next.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// A program as root: as it is when we are, else through sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    as_root_with::<_, &str>(program, [])
}

/// A program as root, with these variables set for it, which sudo takes none of by itself.
pub(crate) fn as_root_with<I, V>(program: impl AsRef<OsStr>, variables: I) -> Result<Command>
where
    I: IntoIterator<Item = (&'static str, V)>,
    V: AsRef<OsStr>,
{
    if place::is_root() {
        let mut command = Command::new(program);
        command.envs(variables);
        return Ok(command);
    }
    if place::program("sudo").is_none() {
        bail!(
            "`{}` must run as root, and there is no sudo here: run this command as root, or install sudo",
            program.as_ref().display()
        );
    }
    let mut command = Command::new("sudo");
    let mut variables = variables.into_iter().peekable();
    if variables.peek().is_some() {
        command.arg("env");
    }
    for (name, value) in variables {
        let mut pair = OsString::from(name);
        pair.push("=");
        pair.push(value);
        command.arg(pair);
    }
    command.arg(program);
    Ok(command)
}

/// Shows the command, then runs it with its output for everybody to see.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    say::command(&shown(command));
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("starting `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command without showing anything, unless it fails.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    finished(command).map(drop)
}

/// What a command prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = finished(command)?;
    String::from_utf8(output.stdout).with_context(|| format!("output of `{}`", shown(command)))
}

/// Whether a command ends well; one that cannot be started does not.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
}

fn finished(command: &mut Command) -> Result<Output> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting `{}`", shown(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` failed: {}\n{}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// The command for a message: its program by name alone.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    words(program.file_name().unwrap_or(program.as_os_str()), command)
}

/// The command as it could be typed in this folder.
pub(crate) fn typed_in(folder: &Path, command: &Command) -> String {
    let prefix = format!("{}/", folder.display());
    words(command.get_program(), command).replace(&prefix, "")
}

fn words(program: &OsStr, command: &Command) -> String {
    std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .map(|word| {
            if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "'\"$&|;<>()*?".contains(c)) {
                format!("'{}'", word.replace('\'', r"'\''"))
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("/usr/bin/psql");
        command.args(["-c", "SELECT 'a'", "shop"]);
        assert_eq!(shown(&command), r"psql -c 'SELECT '\''a'\''' shop");
    }

    #[test]
    fn a_failed_command_is_named_with_what_it_said() {
        let error = quiet(Command::new("sh").args(["-c", "echo no such luck >&2; exit 3"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no such luck") && text.contains("exit status: 3"), "{text}");
    }
}
