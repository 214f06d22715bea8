//! The captured command: who it runs as, what is taken from it, how it ended.

use std::{
    ffi::{CString, OsString},
    io,
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus},
};

use verbatim_sys::{
    cgroup::{self, Cgroup},
    privilege::{self, Capability, Person, effective_user},
    process::{Confinement, Step, spawn_confined},
};
use verbatim_tls::Change;

/// What could undo the capture, or look into the agent. Out of the bounding set, they stay away from what
/// the command executes with set-user-id too; so `no_new_privs` is not needed, and sudo in it works.
const GIVEN_UP: [Capability; 7] = [
    Capability::Bpf,
    Capability::NetAdmin,
    Capability::SysAdmin,
    Capability::SysPtrace,
    Capability::Perfmon,
    Capability::SysModule,
    Capability::SysRawio,
];

/// The invoking person's environment as sudo has changed it.
const SUDO_VARIABLES: [&str; 4] = ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"];

/// Why it did not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// There is none of that name.
    #[error("{command}: command not found")]
    NotFound {
        /// As given.
        command: String,
    },
    /// It is none, or not for this person.
    #[error("{command}: cannot be executed as {person}: {source}")]
    NotExecutable {
        /// As given.
        command: String,
        /// Who.
        person: String,
        /// Why.
        source: io::Error,
    },
    /// It could not be confined.
    #[error("{command}: {step:?} failed before it was started: {source}; nothing was run")]
    Confine {
        /// As given.
        command: String,
        /// Where.
        step: Step,
        /// Why.
        source: io::Error,
    },
    /// `SUDO_UID` or `SUDO_GID` is no number.
    #[error("{0} is set, but is no number: unset it, or run by sudo")]
    Sudo(&'static str),
    /// A user database.
    #[error("cannot find out who runs this: {0}")]
    Person(io::Error),
    /// cgroupfs.
    #[error("cannot prepare the command's surroundings: {0}")]
    Prepare(io::Error),
}

impl CommandError {
    /// As a shell has it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => super::FAILED,
        }
    }
}

/// Who invoked the agent: the person behind sudo, else the current user.
pub(crate) fn invoker() -> Result<Person, CommandError> {
    let number = |name: &'static str| match std::env::var(name) {
        Err(_absent) => Ok(None),
        Ok(text) => text.parse::<u32>().map(Some).map_err(|_invalid| CommandError::Sudo(name)),
    };
    // Only root's environment says who is behind it; anybody can set a variable.
    let sudo = if effective_user() == 0 { number("SUDO_UID")? } else { None };
    match sudo {
        Some(uid) => Person::lookup(uid, number("SUDO_GID")?),
        None => Person::current(),
    }
    .map_err(CommandError::Person)
}

/// Starts it, in its cgroup, as the person, with these variables beside what is set, without what is mounted at
/// `hidden`.
pub(crate) fn start(
    command: &[OsString],
    person: &Person,
    workload: &Cgroup,
    variables: &[Change],
    hidden: Option<&Path>,
) -> Result<Child, CommandError> {
    let (program, arguments) =
        command.split_first().ok_or(CommandError::NotFound { command: String::new() })?;
    let shown = program.to_string_lossy().into_owned();
    let mounts = cgroup::mounts().map_err(CommandError::Prepare)?;
    let read_only = mounts
        .iter()
        .filter(|mount| mount.kind == "cgroup" || mount.kind == "cgroup2")
        .filter_map(|mount| CString::new(mount.point.as_os_str().as_bytes()).ok())
        .collect();
    let mut give_up = GIVEN_UP.to_vec();
    if privilege::in_plain_chroot().map_err(CommandError::Prepare)? {
        // The way out of it leads to cgroups that can be written.
        give_up.push(Capability::SysChroot);
    }
    let confinement = Confinement {
        door: workload.door().map_err(CommandError::Prepare)?,
        read_only,
        without: hidden.and_then(|place| CString::new(place.as_os_str().as_bytes()).ok()),
        give_up,
        person: person.clone(),
    };
    let mut child = Command::new(program);
    child.args(arguments);
    if std::env::var_os("SUDO_UID").is_some() {
        restore_environment(&mut child, person);
    }
    child.envs(variables.iter().map(|change| (change.name, &change.value)));
    spawn_confined(&mut child, confinement).map_err(|(step, source)| match (step, source.kind()) {
        (Step::Exec, io::ErrorKind::NotFound) => CommandError::NotFound { command: shown },
        (Step::Exec, _) => {
            CommandError::NotExecutable { command: shown, person: person.name.clone(), source }
        }
        (step, _) => CommandError::Confine { command: shown, step, source },
    })
}

/// sudo sets these to root's.
fn restore_environment(command: &mut Command, person: &Person) {
    for name in SUDO_VARIABLES {
        command.env_remove(name);
    }
    command.env("USER", &person.name).env("LOGNAME", &person.name);
    if let Some(home) = &person.home {
        command.env("HOME", home);
    }
    if let Some(shell) = &person.shell {
        command.env("SHELL", shell);
    }
}

/// As a shell says how a command ended: its code, or 128 and the signal.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(super::FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_the_commands_own_or_its_signal() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
