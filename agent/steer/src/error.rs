//! Why steering does not work here, and at which step that showed.

use std::{borrow::Cow, error::Error as StdError, io, path::PathBuf};

use aya::programs::ProgramError;

use crate::features::{self, Feature};

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why steering does not work here. Its text names the step, the cause and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SteerError {
    /// The crate was compiled before the programs were.
    #[error("built without eBPF programs: run `cargo xtask ebpf`, then build again")]
    NoPrograms,
    /// Privileges are missing.
    #[error("{step}: {cause}: needs root, or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN")]
    NotPermitted {
        /// What was tried.
        step: Cow<'static, str>,
        /// What the kernel said.
        cause: String,
    },
    /// The kernel does not have something, or refuses the program.
    #[error(
        "{step}: {cause}: the kernel lacks this feature or refuses it; Linux 6.1 is the oldest that is tested"
    )]
    Unsupported {
        /// What was tried.
        step: Cow<'static, str>,
        /// What the kernel said; of a refused program the end of the verifier's log.
        cause: String,
    },
    /// The kernel was asked and lacks what nothing can stand in for.
    #[error(
        "looking at the kernel's features: Linux {release} lacks {}: take a kernel that has them; Linux 6.1 is the \
         oldest that is tested",
        features.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Lacks {
        /// All of them.
        features: Vec<Feature>,
        /// The kernel's name of itself.
        release: String,
    },
    /// The attach root is no cgroup v2 directory.
    #[error("attach root {}: {cause}: name a directory of a mounted cgroup v2 hierarchy", path.display())]
    AttachRoot {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Somebody's program leaves no room for others on a hook that we need.
    #[error(
        "attaching {program}: on its hook in cgroup {} another program is attached that admits no others: {}; have \
         whoever attached it share the hook (BPF_F_ALLOW_MULTI, or a link), or attach us elsewhere",
        cgroup.display(), others.join(", ")
    )]
    ExclusiveHook {
        /// Ours.
        program: &'static str,
        /// Where the other's is.
        cgroup: PathBuf,
        /// Ids and names of the others'.
        others: Vec<String>,
    },
    /// The pin directory cannot be used.
    #[error("pin directory {}: {cause}: name a directory of a mounted BPF file system", path.display())]
    PinDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A setting or rule has no meaning.
    #[error("{what}: {cause}")]
    Invalid {
        /// The setting.
        what: Cow<'static, str>,
        /// What is wrong with it.
        cause: String,
    },
    /// No port was free for a listener.
    #[error(
        "namespace {namespace}: no port for a listener is free, neither the preferred ones nor {tried} others"
    )]
    NoPort {
        /// Name of the network namespace.
        namespace: String,
        /// How many others were tried.
        tried: usize,
    },
    /// The namespace has a listener already.
    #[error("namespace {namespace} (cookie {cookie}) has its listener already: remove it first")]
    NamespaceKnown {
        /// Name of the network namespace.
        namespace: String,
        /// Its cookie.
        cookie: u64,
    },
    /// A successor decides now.
    #[error("{step}: a successor is taking over, which decides now")]
    HandedOver {
        /// What was to be done.
        step: Cow<'static, str>,
    },
    /// Something else failed.
    #[error("{step}: {source}")]
    Io {
        /// What was tried.
        step: Cow<'static, str>,
        /// Why it failed.
        source: io::Error,
    },
}

impl SteerError {
    /// The step at which it failed, for messages such as `SKIP ebpf: <error> at <step>`.
    #[must_use]
    pub fn step(&self) -> Cow<'_, str> {
        match self {
            Self::NoPrograms => Cow::Borrowed("embedding the programs"),
            Self::NotPermitted { step, .. }
            | Self::Unsupported { step, .. }
            | Self::HandedOver { step }
            | Self::Io { step, .. } => Cow::Borrowed(step),
            Self::Lacks { .. } => Cow::Borrowed(features::STEP),
            Self::AttachRoot { .. } => Cow::Borrowed("opening the attach root"),
            Self::ExclusiveHook { program, .. } => Cow::Owned(format!("attaching {program}")),
            Self::PinDirectory { .. } => Cow::Borrowed("preparing the pin directory"),
            Self::Invalid { what, .. } => Cow::Borrowed(what),
            Self::NoPort { .. } | Self::NamespaceKnown { .. } => Cow::Borrowed("making a listener"),
        }
    }

    /// The message without the step: what is wrong and what to do.
    #[must_use]
    pub fn cause(&self) -> String {
        let text = self.to_string();
        text.strip_prefix(&format!("{}: ", self.step())).map(str::to_owned).unwrap_or(text)
    }

    pub(crate) fn io(step: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        let step = step.into();
        match source.raw_os_error() {
            Some(EPERM) => Self::NotPermitted { step, cause: source.to_string() },
            Some(code) if UNSUPPORTED.contains(&code) => {
                Self::Unsupported { step, cause: source.to_string() }
            }
            _ => Self::Io { step, source },
        }
    }

    /// Sorts what aya said by what a person can do about it.
    pub(crate) fn kernel(step: impl Into<Cow<'static, str>>, error: impl Into<BoxError>) -> Self {
        let (step, error) = (step.into(), error.into());
        if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref() {
            let log = verifier_log.to_string();
            // The verifier's refusal carries EACCES too: its log tells the two apart.
            if !log.trim().is_empty() {
                return Self::Unsupported { step, cause: format!("{io_error}: {}", last_lines(&log)) };
            }
        }
        let cause = chain(&*error);
        match root_io(&*error).and_then(io::Error::raw_os_error) {
            Some(EPERM | EACCES) => Self::NotPermitted { step, cause },
            _ => Self::Unsupported { step, cause },
        }
    }
}

const EPERM: i32 = 1;
const EACCES: i32 = 13;
/// ENOSYS, ENOPROTOOPT, EOPNOTSUPP, EAFNOSUPPORT.
const UNSUPPORTED: [i32; 4] = [38, 92, 95, 97];

fn root_io<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    let mut found = None;
    while let Some(error) = next {
        found = error.downcast_ref::<io::Error>().or(found);
        next = error.source();
    }
    found
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.trim_end().lines().collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_privileges_are_told_from_missing_features() {
        let error = SteerError::io("entering namespace x", io::Error::from_raw_os_error(EPERM));
        assert!(matches!(error, SteerError::NotPermitted { .. }), "{error}");
        let error = SteerError::io("making a listener", io::Error::from_raw_os_error(92));
        assert!(matches!(error, SteerError::Unsupported { .. }), "{error}");
        let error = SteerError::io("making a listener", io::Error::from_raw_os_error(24));
        assert!(matches!(error, SteerError::Io { .. }), "{error}");
    }

    #[test]
    fn step_and_cause_make_up_the_message() {
        let error = SteerError::kernel("loading connect4", io::Error::from_raw_os_error(EPERM));
        assert_eq!(error.step(), "loading connect4");
        assert!(error.cause().starts_with("Operation not permitted"), "{}", error.cause());
        assert_eq!(error.to_string(), format!("{}: {}", error.step(), error.cause()));
    }
}
