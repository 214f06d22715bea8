//! What a round does to agent, collector and what they stand on, and how it is undone.

use std::{os::unix::process::ExitStatusExt as _, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use verbatim_api::v1::FindingKind;

use super::seed::Seed;
use crate::{
    disk::{Filled, Stalled},
    lab::Lab,
    link::Cut,
    network::{Closed, OTHER, Pod},
    peers,
    process::{self, Process},
};

/// Seconds by which clocks jump: less than what leaves of ours are dated back by, beyond which clients with a
/// right clock refuse them.
const JUMP_SECONDS: u64 = 3000;
/// Descriptors that a process has left.
const FEW: usize = 8;
/// Memory that the agent may take beyond what it has.
const LITTLE: u64 = 8 << 20;
/// Connections that say nothing.
const SILENT: &str = "400";

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disturbance {
    /// Nothing: what is wrong now is wrong without us.
    Nothing,
    /// Another node agent takes over, and the one before drains.
    TakeOver,
    /// Another one tries to while there is no room for its spool, and again once there is.
    TakeOverFull,
    /// `kill -9` of the node agent, all of it.
    KillAgent,
    /// `kill -9` of the collector.
    KillCollector,
    /// No room for the spool.
    FillSpool,
    /// No room for the collector's log and index.
    FillLog,
    /// The spool's disk stands still.
    StallSpool,
    /// The collector's disk stands still.
    StallLog,
    /// What agent and collector send each other goes nowhere.
    CutLink,
    /// Both wall clocks jump, each its own way, and jump back.
    SetClocks,
    /// The agent can open few files more.
    FewDescriptors,
    /// The collector can open few files more.
    FewForCollector,
    /// Connections that say nothing.
    Silent,
    /// The agent's memory is all used.
    LittleMemory,
}

/// All of them with the names that a command line has for them. Those that end a process come first: they are
/// undone last.
pub const ALL: [(Disturbance, &str); 15] = [
    (Disturbance::Nothing, "nothing"),
    (Disturbance::TakeOver, "take-over"),
    (Disturbance::TakeOverFull, "take-over-full"),
    (Disturbance::KillAgent, "kill-agent"),
    (Disturbance::KillCollector, "kill-collector"),
    (Disturbance::FillSpool, "fill-spool"),
    (Disturbance::FillLog, "fill-log"),
    (Disturbance::StallSpool, "stall-spool"),
    (Disturbance::StallLog, "stall-log"),
    (Disturbance::CutLink, "cut-link"),
    (Disturbance::SetClocks, "set-clocks"),
    (Disturbance::FewDescriptors, "few-descriptors"),
    (Disturbance::FewForCollector, "few-for-collector"),
    (Disturbance::Silent, "silent"),
    (Disturbance::LittleMemory, "little-memory"),
];

/// Something that is to be undone.
#[derive(Debug)]
pub(super) enum Begun {
    Nothing,
    /// The one that drains.
    TakenOver(Process),
    Tried {
        /// The one that drains, where the other one came to steer.
        old: Option<Process>,
        filled: Filled,
    },
    Agent {
        closed: Option<Closed>,
    },
    Collector,
    Full(Filled),
    Stalled {
        _disk: Stalled,
    },
    Cut {
        _link: Cut,
    },
    Clocks,
    Descriptors(Vec<u32>),
    Silent {
        client: Process,
        _server: Process,
    },
    Memory,
}

impl Disturbance {
    /// As a command line names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(one, _)| *one == self).map_or("", |(_, name)| *name)
    }

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, other)| *other == name).map(|(one, _)| *one)
    }

    /// Whether both may be done in one round. An agent that is refused for want of room needs one that goes on, and
    /// one that is started again needs room.
    #[must_use]
    pub fn goes_with(self, other: Self) -> bool {
        let elsewhere = |one| {
            matches!(
                one,
                Self::KillCollector | Self::FillLog | Self::StallLog | Self::CutLink | Self::FewForCollector
            )
        };
        match (self, other) {
            (one, other) if one == other => false,
            (Self::TakeOverFull, other) | (other, Self::TakeOverFull) => elsewhere(other),
            _ => true,
        }
    }

    /// What makes writing to the same disk wait. While it does, the disk stays as full as it is, and who presses
    /// more into it waits as well.
    #[must_use]
    pub fn stood_still_by(self) -> Option<Self> {
        match self {
            Self::FillSpool => Some(Self::StallSpool),
            Self::FillLog => Some(Self::StallLog),
            _ => None,
        }
    }

    /// What the collector may find after it; everything else is wrong.
    #[must_use]
    pub fn explains(self, finding: FindingKind) -> bool {
        self == Self::SetClocks && finding == FindingKind::ClockSet
    }

    /// Does it.
    pub(super) fn begin(self, lab: &mut Lab, seed: &mut Seed) -> Result<Begun> {
        Ok(match self {
            Self::Nothing => Begun::Nothing,
            Self::TakeOver => Begun::TakenOver(lab.agent.succeed()?),
            Self::TakeOverFull => {
                let filled = disks(lab)?.0.fill()?;
                let old = match lab.agent.succeed() {
                    Ok(old) => Some(old),
                    // No spool, no record: then the one before goes on.
                    Err(refused) if format!("{refused:#}").contains("No space left") => None,
                    Err(other) => return Err(other),
                };
                Begun::Tried { old, filled }
            }
            Self::KillAgent => {
                // Programs that are not pinned go with the agent, and what connects then passes by: the pods'
                // network has to be closed in their place.
                let closed = (!lab.agent.is_pinned()).then(|| lab.ground.network.close()).transpose()?;
                lab.agent.kill();
                Begun::Agent { closed }
            }
            Self::KillCollector => {
                lab.collector.kill();
                Begun::Collector
            }
            Self::FillSpool => Begun::Full(disks(lab)?.0.fill()?),
            Self::FillLog => Begun::Full(disks(lab)?.1.fill()?),
            Self::StallSpool => Begun::Stalled { _disk: disks(lab)?.0.stall()? },
            Self::StallLog => Begun::Stalled { _disk: disks(lab)?.1.stall()? },
            Self::CutLink => {
                let link = lab.below.link.as_ref().context("this lab's collector has no link")?;
                Begun::Cut { _link: link.cut()? }
            }
            Self::SetClocks => {
                let (agent, collector) = clocks(lab)?;
                for clock in [agent, collector] {
                    let jump = i64::try_from(seed.below(2 * JUMP_SECONDS))? - i64::try_from(JUMP_SECONDS)?;
                    clock.set(jump)?;
                }
                Begun::Clocks
            }
            // One that is killed at the same time has none to spare anyway.
            Self::FewDescriptors if !lab.agent.running() => Begun::Nothing,
            Self::FewDescriptors => few(lab.agent.processes()?)?,
            Self::FewForCollector => lab.collector.id().map_or(Ok(Begun::Nothing), |id| few(vec![id]))?,
            Self::Silent => {
                let server = peers::start(&lab.ground, "mute", OTHER, 5432, "")?;
                let client = lab.pod(Pod::B).with("PGHOST", OTHER);
                let mut client = client.python("silent", "raw.py", &["silent_many", SILENT])?;
                client.wait_for_output("connected")?;
                Begun::Silent { client, _server: server }
            }
            Self::LittleMemory => {
                let memory = lab.below.memory.as_ref().context("this lab's agent has no limit of memory")?;
                memory.set(memory.used()? + LITTLE)?;
                Begun::Memory
            }
        })
    }
}

impl Begun {
    /// Keeps it for so long.
    pub(super) fn hold(&mut self, time: Duration) -> Result<()> {
        match self {
            Self::Full(filled) | Self::Tried { filled, .. } => filled.hold(time),
            _ => {
                thread::sleep(time);
                Ok(())
            }
        }
    }

    /// Undoes it.
    pub(super) fn end(self, lab: &mut Lab) -> Result<()> {
        match self {
            // Dropping them is what undoes them.
            Self::Nothing | Self::Full(_) | Self::Stalled { .. } | Self::Cut { .. } => Ok(()),
            Self::TakenOver(old) => drained(old),
            Self::Tried { old, filled } => {
                drop(filled);
                drained(old.map_or_else(|| lab.agent.succeed(), Ok)?)
            }
            Self::Agent { closed } => {
                lab.agent.restart()?;
                drop(closed);
                Ok(())
            }
            Self::Collector => lab.collector.restart(),
            Self::Clocks => {
                let (agent, collector) = clocks(lab)?;
                agent.set(0)?;
                collector.set(0)
            }
            // Those that something else has killed meanwhile are gone, with their limits.
            Self::Descriptors(processes) => processes
                .into_iter()
                .filter(|id| Path::new(&format!("/proc/{id}")).exists())
                .try_for_each(|id| process::limit_descriptors(id, MANY)),
            Self::Silent { mut client, .. } => {
                drop(client.stdin());
                client.finish().map(drop)
            }
            Self::Memory => {
                lab.below.memory.as_ref().context("no limit of memory")?.lift()?;
                // The kernel may have killed it, which is its right.
                if lab.agent.running() { Ok(()) } else { lab.agent.restart() }
            }
        }
    }
}

fn drained(old: Process) -> Result<()> {
    let old = old.wait()?;
    // What kills the agent may have met this one.
    let killed = old.status.signal() == Some(9);
    ensure!(killed || old.status.success(), "it ended with {}: {}", old.status, old.complaints());
    Ok(())
}

/// What processes may open otherwise: more than any of them needs here, less than any machine refuses.
const MANY: usize = 4000;

fn few(processes: Vec<u32>) -> Result<Begun> {
    for id in &processes {
        process::limit_descriptors(*id, process::descriptors(*id)? + FEW)?;
    }
    Ok(Begun::Descriptors(processes))
}

fn disks(lab: &Lab) -> Result<&(crate::disk::Disk, crate::disk::Disk)> {
    lab.below.disks.as_ref().context("this lab has no disks of its own")
}

fn clocks(lab: &Lab) -> Result<&(crate::clock::Clock, crate::clock::Clock)> {
    lab.below.clocks.as_ref().context("this lab has no clocks of its own")
}

/// By their names, as a command line lists them.
pub fn named(list: &str) -> Result<Vec<Disturbance>> {
    let mut named = Vec::new();
    for name in list.split(',') {
        let Some(one) = Disturbance::named(name) else {
            let all: Vec<&str> = ALL.iter().map(|(_, name)| *name).collect();
            bail!("there is no disturbance {name:?}; there are: {}", all.join(", "));
        };
        named.push(one);
    }
    Ok(named)
}
