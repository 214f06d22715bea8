//! Whether our programs are what runs on their hooks, and bringing them back where they are not.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use aya::Ebpf;
use verbatim_sys::bpf::{self, Hook};

use crate::{
    SteerError,
    hooks::{self, Attached, Pins},
};

/// What was found on the hooks.
#[derive(Debug, Default)]
pub struct HookReport {
    /// Another agent has attached its programs in the place of ours: ours are not missed.
    pub superseded: bool,
    /// Programs that are effective, those that were brought back among them.
    pub effective: Vec<&'static str>,
    /// Programs that were not effective.
    pub lost: Vec<LostHook>,
}

impl HookReport {
    /// Whether all of our programs run, or those of a successor.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.superseded || self.lost.iter().all(|lost| lost.restored.is_ok())
    }
}

/// A program that was not effective.
#[derive(Debug)]
pub struct LostHook {
    /// Its name.
    pub program: &'static str,
    /// How it was lost.
    pub how: Loss,
    /// Whether it could be brought back.
    pub restored: Result<(), SteerError>,
}

/// How a program was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// Somebody took it off its hook.
    #[error("detached")]
    Detached,
    /// Somebody put another program in its place.
    #[error("replaced by program {id} ({name})")]
    Replaced {
        /// The other's id.
        id: u32,
        /// Its name; empty where it has none.
        name: String,
    },
    /// It is on its hook, and yet the kernel does not run it.
    #[error("attached, and not effective")]
    Ineffective,
}

/// Looks at all hooks, and brings back what is not effective.
pub(crate) fn check(
    ebpf: &mut Ebpf,
    root: &File,
    pins: Option<&Pins>,
    attached: &mut [Attached],
) -> Result<HookReport, SteerError> {
    let mut report = HookReport::default();
    for one in attached {
        if is_effective(root, one)? {
            report.effective.push(one.name);
            continue;
        }
        let how = how(one)?;
        let restored = restore(ebpf, root, pins, one).and_then(|()| {
            if is_effective(root, one)? {
                return Ok(());
            }
            let cause = io::Error::other("attached again, and still not effective");
            Err(SteerError::Io { step: format!("attaching {}", one.name).into(), source: cause })
        });
        if restored.is_ok() {
            report.effective.push(one.name);
        }
        report.lost.push(LostHook { program: one.name, how, restored });
    }
    Ok(report)
}

fn is_effective(root: &File, one: &Attached) -> Result<bool, SteerError> {
    let programs = bpf::effective(root, one.hook)
        .map_err(|error| SteerError::io(format!("looking at the hook of {}", one.name), error))?;
    Ok(programs.contains(&one.program))
}

fn how(one: &Attached) -> Result<Loss, SteerError> {
    let info = bpf::link_info(&one.link)
        .map_err(|error| SteerError::io(format!("looking at the link of {}", one.name), error))?;
    Ok(match info {
        Some(info) if info.cgroup != 0 && info.program != one.program => {
            Loss::Replaced { id: info.program, name: name(info.program) }
        }
        Some(info) if info.cgroup != 0 => Loss::Ineffective,
        _ => Loss::Detached,
    })
}

fn restore(ebpf: &mut Ebpf, root: &File, pins: Option<&Pins>, one: &mut Attached) -> Result<(), SteerError> {
    if !hooks::replace(ebpf, one.name, &one.link)? {
        one.link = hooks::create(ebpf, one.name, one.hook, root, pins)?;
    }
    Ok(())
}

/// Refuses where somebody's program on one of our hooks, at the root or above, leaves no room for others: the
/// kernel's own answer would be EPERM, which says something else.
pub(crate) fn exclusive(
    root: &Path,
    hooks: impl Iterator<Item = (&'static str, Hook)>,
) -> Result<(), SteerError> {
    let cgroups = ancestry(root).map_err(|error| SteerError::io("opening the cgroups above us", error))?;
    for (program, hook) in hooks {
        for (path, cgroup) in &cgroups {
            let found = bpf::on_hook(cgroup.as_fd(), hook)
                .map_err(|error| SteerError::io(format!("looking at the hook of {program}"), error))?;
            if !found.shared {
                return Err(SteerError::ExclusiveHook {
                    program,
                    cgroup: path.clone(),
                    others: found.programs.iter().map(|&id| format!("{id} ({})", name(id))).collect(),
                });
            }
        }
    }
    Ok(())
}

/// The root and the cgroups above it, as far as they are visible.
fn ancestry(root: &Path) -> io::Result<Vec<(PathBuf, File)>> {
    let mut found = Vec::new();
    let device = std::fs::metadata(root)?.dev();
    for path in root.ancestors() {
        // Above the mount point is another file system.
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.dev() != device) {
            break;
        }
        found.push((path.to_owned(), File::open(path)?));
    }
    Ok(found)
}

/// Empty where it has none, or is gone.
fn name(program: u32) -> String {
    let mut all = aya::programs::loaded_programs().flatten();
    let found = all.find(|info| info.id() == program);
    found.and_then(|info| info.name_as_str().map(str::to_owned)).unwrap_or_default()
}
