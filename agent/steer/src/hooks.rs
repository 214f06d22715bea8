//! The hooks that the programs are attached to, and what is pinned so that they outlive us.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};
use verbatim_sys::bpf::{self, Hook};

use crate::SteerError;

/// Programs and their hooks, in the order in which they are attached: what shows and carries flows before what
/// makes them, so that no connect is steered whose flow would get lost.
const PROGRAMS: [(&str, Hook); 13] = [
    ("tcp_events", Hook::SOCK_OPS),
    ("getpeername4", Hook::GETPEERNAME4),
    ("getpeername6", Hook::GETPEERNAME6),
    ("getsockname4", Hook::GETSOCKNAME4),
    ("getsockname6", Hook::GETSOCKNAME6),
    ("bind4", Hook::BIND4),
    ("bind6", Hook::BIND6),
    ("sock_create", Hook::SOCK_CREATE),
    ("connect4", Hook::CONNECT4),
    ("connect6", Hook::CONNECT6),
    ("sendmsg4", Hook::SENDMSG4),
    ("sendmsg6", Hook::SENDMSG6),
    ("backstop", Hook::EGRESS),
];

/// Those that send connects to us, and before them the one that takes other connections for strays.
const CONNECTS: [&str; 3] = ["backstop", "connect4", "connect6"];

/// Maps that a successor goes on with.
const PINNED_MAPS: [&str; 17] = [
    "CFG", "OWN", "HB", "BYP", "OWNER", "DSTS", "CGS", "TGT", "SKC", "SKA", "SKM", "FLOWT", "EPOCH",
    "STRAYS", "EVENTS", "CNT", "CONNS",
];

/// Gives all programs to the kernel, which verifies them.
pub(crate) fn load(ebpf: &mut Ebpf) -> Result<(), SteerError> {
    for (name, _) in PROGRAMS {
        let program = program(ebpf, name)?;
        let mut loaded = load_one(name, program)?;
        // The verifier gives up when a signal arrives, however well the program is.
        for _ in 0..INTERRUPTIONS {
            if !loaded.as_ref().is_err_and(was_interrupted) {
                break;
            }
            loaded = load_one(name, program)?;
        }
        loaded.map_err(|error| SteerError::kernel(format!("loading {name}"), error))?;
    }
    Ok(())
}

/// How often a program's loading may be interrupted.
const INTERRUPTIONS: usize = 20;

fn load_one(name: &str, program: &mut Program) -> Result<Result<(), ProgramError>, SteerError> {
    Ok(match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        other => return Err(unexpected(name, other)),
    })
}

fn was_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == io::ErrorKind::WouldBlock)
}

/// Our programs and the hooks that they need.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Hook)> {
    PROGRAMS.into_iter()
}

/// One of our programs on its hook.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) name: &'static str,
    pub(crate) hook: Hook,
    /// The kernel's id of the program.
    pub(crate) program: u32,
    /// Closing it detaches the program, where it is not pinned.
    pub(crate) link: OwnedFd,
}

/// Attaches all programs, one link per hook. Without pins they are attached for as long as the links are kept;
/// with pins, links that a predecessor left behind get our programs.
pub(crate) fn attach(ebpf: &mut Ebpf, root: &File, pins: Option<&Pins>) -> Result<Vec<Attached>, SteerError> {
    PROGRAMS
        .into_iter()
        .map(|(name, hook)| {
            let existing = pins.map(|pins| pins.link(name)).transpose()?.flatten();
            let program = program_id(ebpf, name)?;
            if let Some(link) = existing {
                if leads_to(&link, root)? && replace(ebpf, name, &link)? {
                    return Ok(Attached { name, hook, program, link });
                }
                tracing::warn!(
                    name,
                    "the link that a predecessor left behind is detached, or on another cgroup"
                );
            }
            Ok(Attached { name, hook, program, link: create(ebpf, name, hook, root, pins)? })
        })
        .collect()
}

/// Whether a link attaches to this cgroup, and not to one that is gone or was configured before.
fn leads_to(link: &OwnedFd, root: &File) -> Result<bool, SteerError> {
    let failed = |error| SteerError::io("looking at a pinned link", error);
    let wanted = root.metadata().map_err(failed)?.ino();
    Ok(bpf::link_info(link).map_err(failed)?.is_some_and(|info| info.cgroup == wanted))
}

/// Puts our program behind a link that there is. `false`: it is attached to nothing any more.
pub(crate) fn replace(ebpf: &mut Ebpf, name: &str, link: &OwnedFd) -> Result<bool, SteerError> {
    let step = || format!("attaching {name}");
    let fd = program(ebpf, name)?.fd().map_err(|error| SteerError::kernel(step(), error))?;
    match bpf::link_update(link, fd.as_fd()) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(ENOLINK) => Ok(false),
        Err(error) => Err(SteerError::io(step(), error)),
    }
}

/// Makes a link, and pins it in the place of one that is of no use any more.
pub(crate) fn create(
    ebpf: &mut Ebpf,
    name: &str,
    hook: Hook,
    root: &File,
    pins: Option<&Pins>,
) -> Result<OwnedFd, SteerError> {
    let step = || format!("attaching {name}");
    let fd = program(ebpf, name)?.fd().map_err(|error| SteerError::kernel(step(), error))?;
    let link = bpf::link_create(fd.as_fd(), root, hook).map_err(|error| SteerError::io(step(), error))?;
    if let Some(pins) = pins {
        pins.keep(name, &link)?;
    }
    Ok(link)
}

fn program_id(ebpf: &mut Ebpf, name: &str) -> Result<u32, SteerError> {
    let info = program(ebpf, name)?.info();
    Ok(info.map_err(|error| SteerError::kernel(format!("looking at {name}"), error))?.id())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, SteerError> {
    ebpf.program_mut(name).ok_or_else(|| SteerError::Invalid {
        what: "embedded eBPF programs".into(),
        cause: format!("no program {name}: run `cargo xtask ebpf`, then build again"),
    })
}

fn unexpected(name: &str, program: &Program) -> SteerError {
    SteerError::Invalid {
        what: "embedded eBPF programs".into(),
        cause: format!("{name} is a {:?}: run `cargo xtask ebpf`, then build again", program.prog_type()),
    }
}

/// The pin directory of this schema version.
#[derive(Debug)]
pub(crate) struct Pins {
    directory: PathBuf,
}

impl Attached {
    /// Whether it is one of those by which connects come to us.
    pub(crate) fn leads_connects(&self) -> bool {
        CONNECTS.contains(&self.name)
    }
}

impl Pins {
    pub(crate) fn prepare(parent: &Path, schema: u32) -> Result<Self, SteerError> {
        let directory = parent.join(format!("v{schema}"));
        let failed = |cause: String| SteerError::PinDirectory { path: directory.clone(), cause };
        fs::create_dir_all(&directory).map_err(|error| failed(error.to_string()))?;
        let kind = rustix::fs::statfs(&directory).map_err(|error| failed(error.to_string()))?.f_type;
        if u64::try_from(kind).is_ok_and(|kind| kind == BPF_FS_MAGIC) {
            return Ok(Self { directory });
        }
        if let Err(error) = fs::remove_dir(&directory) {
            tracing::warn!(%error, directory = %directory.display(), "cannot remove the pin directory");
        }
        Err(failed("is on no BPF file system".to_owned()))
    }

    /// Names and paths of the maps to pin.
    pub(crate) fn maps(&self) -> impl Iterator<Item = (&'static str, PathBuf)> + '_ {
        PINNED_MAPS.into_iter().map(|name| (name, self.map_path(name)))
    }

    fn link_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("link_{name}"))
    }

    fn link(&self, name: &str) -> Result<Option<OwnedFd>, SteerError> {
        match bpf::object_get(&self.link_path(name)) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SteerError::io(format!("opening the pinned link of {name}"), error)),
        }
    }

    /// Pins a link in the place of what was pinned there, which goes only then.
    fn keep(&self, name: &str, link: &OwnedFd) -> Result<(), SteerError> {
        let (path, beside) = (self.link_path(name), self.directory.join(format!("new_{name}")));
        discard(&beside)?;
        bpf::object_pin(link, &beside)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|error| SteerError::io(format!("pinning the link of {name}"), error))
    }

    /// Where a map is pinned.
    pub(crate) fn map_path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Unpins the links by which connects come to us; those that stand keep what carries and shows them.
    pub(crate) fn remove_connects(&self) -> Result<(), SteerError> {
        CONNECTS.into_iter().try_for_each(|name| discard(&self.link_path(name)))
    }

    /// Unpins everything: links first, so that nothing is steered any more.
    pub(crate) fn remove(&self) -> Result<(), SteerError> {
        let links = PROGRAMS.into_iter().rev().map(|(name, _)| self.link_path(name));
        for path in links.chain(self.maps().map(|(_, path)| path)) {
            discard(&path)?;
        }
        fs::remove_dir(&self.directory)
            .map_err(|error| SteerError::io(format!("removing {}", self.directory.display()), error))
    }
}

/// What the kernel says of a link whose program was taken off its hook.
const ENOLINK: i32 = 67;

/// Unpins whatever any version has pinned below a directory, and says how much that was: links first, so that
/// nothing is steered any more. A directory that is not there holds nothing.
///
/// # Errors
/// Something could not be unpinned.
pub fn unpin(parent: &Path) -> Result<usize, SteerError> {
    let mut removed = 0;
    for version in entries(parent)? {
        let name = version.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_version =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !name.strip_prefix('v').is_some_and(is_version) {
            continue;
        }
        let mut pinned = entries(&version)?;
        // The backstop comes before `connect…`, and those before what carries flows.
        pinned.sort_by_key(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let connects = CONNECTS.iter().any(|program| name.strip_prefix("link_") == Some(program));
            (!connects, !name.starts_with("link_"), name)
        });
        for path in pinned {
            discard(&path)?;
            removed += 1;
        }
        fs::remove_dir(&version)
            .map_err(|error| SteerError::io(format!("removing {}", version.display()), error))?;
    }
    match fs::remove_dir(parent) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            // The mount point itself, where that was named.
            tracing::debug!(%error, directory = %parent.display(), "the pin directory stays");
        }
        _ => {}
    }
    Ok(removed)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, SteerError> {
    let failed = |error| SteerError::io(format!("listing {}", directory.display()), error);
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(failed),
    }
}

/// Unpins one thing; what is not there is fine.
fn discard(path: &Path) -> Result<(), SteerError> {
    // The last one to let go detaches: by a descriptor at once, by a name whenever the kernel gets to it.
    let _held = bpf::object_get(path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SteerError::io(format!("unpinning {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
