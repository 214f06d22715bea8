//! What others do to our hooks, and that it is noticed.

use std::path::Path;

use verbatim_steer::{Loss, SteerConfig, SteerError, Steering};
use verbatim_sys::bpf::{self, Hook};

use crate::{
    Outcome,
    cases::cases,
    lab::{Bpffs, Cgroup, Lab, Netns, base, equal, id},
};

cases![
    a_program_that_is_detached_by_force_is_brought_back,
    a_pinned_program_that_is_detached_by_force_is_brought_back,
    a_program_that_is_replaced_is_brought_back,
    a_successor_on_the_same_hooks_is_left_alone,
    an_exclusive_attachment_is_named,
    an_exclusive_attachment_above_the_root_is_named,
];

/// Steered, and no listener stands: ECONNREFUSED. Not steered: no route leads there.
const DIAL: &str = "connect destination=10.1.2.3:5432";
const STEERED: &str = "err=111";
const PASSED: &str = "err=101";

/// Where a lab's own programs are attached: others' labs share the base.
fn on_own_root(name: &str, cgroup: &Cgroup, pins: Option<&Path>) -> Result<Lab, Box<dyn std::error::Error>> {
    let lab = Lab::below(name, &cgroup.path, |config| config.pin_directory = pins.map(Path::to_owned));
    lab.steering.attach()?;
    Ok(lab)
}

/// The links of a hook of this cgroup.
fn links(cgroup: &Path, hook: Hook) -> Result<Vec<std::os::fd::OwnedFd>, Box<dyn std::error::Error>> {
    let cgroup = id(cgroup);
    let all = bpf::links()?.into_iter();
    Ok(all.filter(|(info, _)| info.cgroup == cgroup && info.hook == hook).map(|(_, link)| link).collect())
}

fn detached(name: &str, pins: Option<&Path>) -> Outcome {
    let root = Cgroup::below(base(), &format!("{name}-root"));
    let lab = on_own_root(name, &root, pins)?;
    let netns = Netns::new();
    let mut workload = lab.workload(&netns);
    equal("attached", &workload.ask(DIAL).as_str(), &STEERED)?;
    equal("whole", &lab.steering.check_hooks()?.lost.len(), &0)?;
    let found = links(&root.path, Hook::CONNECT4)?;
    equal("links of connect4", &found.len(), &1)?;
    for link in &found {
        bpf::link_detach(link)?;
    }
    equal("detached", &workload.ask(DIAL).as_str(), &PASSED)?;
    let report = lab.steering.check_hooks()?;
    let lost: Vec<_> = report.lost.iter().map(|lost| (lost.program, lost.how.clone())).collect();
    equal("lost", &lost, &vec![("connect4", Loss::Detached)])?;
    equal(&format!("{report:?}"), &report.is_whole(), &true)?;
    equal("brought back", &workload.ask(DIAL).as_str(), &STEERED)?;
    equal("whole again", &lab.steering.check_hooks()?.lost.len(), &0)?;
    drop((workload, lab.into_cgroups()));
    Ok(())
}

fn a_program_that_is_detached_by_force_is_brought_back(name: &str) -> Outcome {
    detached(name, None)
}

fn a_pinned_program_that_is_detached_by_force_is_brought_back(name: &str) -> Outcome {
    let bpffs = Bpffs::mount()?;
    detached(name, Some(&bpffs.path().join("verbatim")))
}

fn a_program_that_is_replaced_is_brought_back(name: &str) -> Outcome {
    let root = Cgroup::below(base(), &format!("{name}-root"));
    let lab = on_own_root(name, &root, None)?;
    let idle = bpf::idle_program()?;
    for link in links(&root.path, Hook::CONNECT4)? {
        bpf::link_update(&link, &idle)?;
    }
    let report = lab.steering.check_hooks()?;
    let lost: Vec<_> = report.lost.iter().map(|lost| (lost.program, lost.how.to_string())).collect();
    equal(&format!("{lost:?}"), &lost.len(), &1)?;
    equal("which", &lost[0].0, &"connect4")?;
    equal(&lost[0].1, &lost[0].1.contains("(verbatim_probe)"), &true)?;
    equal(&format!("{report:?}"), &report.is_whole(), &true)?;
    equal("whole again", &lab.steering.check_hooks()?.lost.len(), &0)?;
    drop(lab.into_cgroups());
    Ok(())
}

fn a_successor_on_the_same_hooks_is_left_alone(name: &str) -> Outcome {
    let (bpffs, root) = (Bpffs::mount()?, Cgroup::below(base(), &format!("{name}-root")));
    let pins = bpffs.path().join("verbatim");
    let first = on_own_root(name, &root, Some(&pins))?;
    let mut config = SteerConfig::new(&root.path);
    config.pin_directory = Some(pins);
    let second = Steering::load(&config)?;
    second.attach()?;
    let report = first.steering.check_hooks()?;
    equal(&format!("{report:?}"), &(report.superseded, report.is_whole()), &(true, true))?;
    let report = second.check_hooks()?;
    equal(&format!("{report:?}"), &(report.superseded, report.lost.len()), &(false, 0))?;
    second.detach()?;
    drop(first.into_cgroups());
    Ok(())
}

fn exclusive(name: &str, attach_below: bool) -> Outcome {
    let root = Cgroup::below(base(), &format!("{name}-root"));
    let below = Cgroup::below(&root.path, "below");
    bpf::program_attach_alone(bpf::idle_program()?, std::fs::File::open(&root.path)?, Hook::CONNECT4)?;
    let attach = if attach_below { &below.path } else { &root.path };
    let steering = Steering::load(&SteerConfig::new(attach))?;
    let error = steering.attach().err().ok_or("attached beside an exclusive program")?;
    let named = matches!(&error, SteerError::ExclusiveHook { program: "connect4", cgroup, .. } if *cgroup == root.path);
    equal(&error.to_string(), &named, &true)?;
    equal(&error.to_string(), &error.to_string().contains("(verbatim_probe)"), &true)?;
    drop((below, root));
    Ok(())
}

fn an_exclusive_attachment_is_named(name: &str) -> Outcome {
    exclusive(name, false)
}

fn an_exclusive_attachment_above_the_root_is_named(name: &str) -> Outcome {
    exclusive(name, true)
}
