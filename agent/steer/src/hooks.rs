//! The hooks that the programs are attached to, and what is pinned so that they outlive us.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, Program, ProgramError,
        links::{FdLink, PinnedLink},
    },
};
use verbatim_ebpf_common::SCHEMA_VERSION;
use verbatim_sys::bpf;

use crate::SteerError;

/// Programs in the order in which they are attached: what shows and carries flows before what makes
/// them, so that no connect is steered whose flow would get lost.
const PROGRAMS: [&str; 9] = [
    "tcp_events",
    "getpeername4",
    "getpeername6",
    "getsockname4",
    "getsockname6",
    "bind4",
    "bind6",
    "connect4",
    "connect6",
];

/// Maps that a successor goes on with.
const PINNED_MAPS: [&str; 11] =
    ["CFG", "OWN", "HB", "DSTS", "CGS", "TGT", "SKC", "SKA", "FLOWT", "EVENTS", "CNT"];

/// Gives all programs to the kernel, which verifies them.
pub(crate) fn load(ebpf: &mut Ebpf) -> Result<(), SteerError> {
    for name in PROGRAMS {
        let loaded = match program(ebpf, name)? {
            Program::CgroupSockAddr(program) => program.load(),
            Program::SockOps(program) => program.load(),
            other => return Err(unexpected(name, other)),
        };
        loaded.map_err(|error| SteerError::kernel(format!("loading {name}"), error))?;
    }
    Ok(())
}

/// Attaches all programs, one link per hook. Without pins the links belong to `ebpf` and go with it;
/// with pins, links that a predecessor left behind get our programs.
pub(crate) fn attach(ebpf: &mut Ebpf, root: &File, pins: Option<&Pins>) -> Result<Vec<Link>, SteerError> {
    let mut links = Vec::new();
    for name in PROGRAMS {
        let step = || format!("attaching {name}");
        let existing = pins.map(|pins| pins.link(name)).transpose()?.flatten();
        if let Some(link) = existing {
            let fd = match program(ebpf, name)? {
                Program::CgroupSockAddr(program) => program.fd().and_then(|fd| Ok(fd.try_clone()?)),
                Program::SockOps(program) => program.fd().and_then(|fd| Ok(fd.try_clone()?)),
                other => return Err(unexpected(name, other)),
            }
            .map_err(|error| SteerError::kernel(step(), error))?;
            bpf::link_update(&link, &fd).map_err(|error| SteerError::io(step(), error))?;
            links.push(Link::Taken(link));
            continue;
        }
        let link = attach_one(program(ebpf, name)?, name, root, pins.is_some())
            .map_err(|error| SteerError::kernel(step(), error))?;
        if let (Some(link), Some(pins)) = (link, pins) {
            let pinned = link.pin(pins.link_path(name)).map_err(|error| SteerError::kernel(step(), error))?;
            links.push(Link::Pinned(pinned));
        }
    }
    Ok(links)
}

/// `take`: the link is wanted, else it stays with the program.
fn attach_one(
    program: &mut Program,
    name: &str,
    root: &File,
    take: bool,
) -> Result<Option<FdLink>, Box<dyn std::error::Error + Send + Sync>> {
    // A link is shared with others' programs whatever its mode says; the kernel refuses the flags.
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(root, mode)?;
            if take { Ok(Some(program.take_link(id)?.try_into()?)) } else { Ok(None) }
        }
        Program::SockOps(program) => {
            let id = program.attach(root, mode)?;
            if take { Ok(Some(program.take_link(id)?.try_into()?)) } else { Ok(None) }
        }
        _ => Err(ProgramError::InvalidName { name: name.to_owned() }.into()),
    }
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

/// A link that outlives us.
#[derive(Debug)]
pub(crate) enum Link {
    /// We pinned it.
    Pinned(#[expect(dead_code, reason = "held for its descriptor")] PinnedLink),
    /// A predecessor had pinned it.
    Taken(#[expect(dead_code, reason = "held for its descriptor")] OwnedFd),
}

/// The pin directory of this schema version.
#[derive(Debug)]
pub(crate) struct Pins {
    directory: PathBuf,
}

impl Pins {
    pub(crate) fn prepare(parent: &Path) -> Result<Self, SteerError> {
        let directory = parent.join(format!("v{SCHEMA_VERSION}"));
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
        PINNED_MAPS.into_iter().map(|name| (name, self.directory.join(name)))
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

    /// Unpins everything: links first, so that nothing is steered any more.
    pub(crate) fn remove(&self) -> Result<(), SteerError> {
        let links = PROGRAMS.into_iter().rev().map(|name| self.link_path(name));
        for path in links.chain(self.maps().map(|(_, path)| path)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(SteerError::io(format!("unpinning {}", path.display()), error));
                }
                _ => {}
            }
        }
        fs::remove_dir(&self.directory)
            .map_err(|error| SteerError::io(format!("removing {}", self.directory.display()), error))
    }
}

/// `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
