//! What the programs cost whom they let pass: measured when asked for, never asserted.

use std::{collections::BTreeMap, fs};

use verbatim_steer::{Action, CgroupVerdict, FailMode};

use crate::{
    Outcome,
    lab::{Cgroup, Lab, Pair},
    workload::{self, Workload},
};

const ROUNDS: usize = 9;
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Medians of socket() and connect() together, in turns: in a cgroup without our programs; in one with them, whose
/// verdict is found by walking to the default, and again by its own. Then the kernel's own account of each program.
pub(crate) fn measure_unsteered(name: &str) -> Outcome {
    let (lab, pair) = (Lab::new(name), Pair::new());
    workload::stay_on(1)?;
    let mount = crate::lab::base().parent().ok_or("a mount point")?;
    let outside = Cgroup::below(mount, &format!("vst-outside-{}", std::process::id()));
    let mut without = Workload::start(&outside.path, Some(&pair.client.path()));
    let mut with = lab.unsteered(&pair.client);
    let order = "latency whole=1 refused=1 count=3000 destination=127.0.0.1:1";
    let pass = CgroupVerdict { action: Action::Pass, fail_mode: FailMode::Open };
    let mut rounds: [Vec<u64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        lab.steering.remove_cgroup(lab.other.id())?;
        rounds[0].push(median(&without.ask(order))?);
        rounds[1].push(median(&with.ask(order))?);
        lab.steering.set_cgroup(lab.other.id(), pass)?;
        rounds[2].push(median(&with.ask(order))?);
    }
    for (what, mut nanos) in ["without programs", "by default", "by its own verdict"].into_iter().zip(rounds)
    {
        nanos.sort_unstable();
        println!("{what}: median of {ROUNDS} medians {} ns, least {} ns", nanos[ROUNDS / 2], nanos[0]);
    }
    account(|| with.ask(order))
}

/// Prints what the kernel counts of each program's time meanwhile.
pub(crate) fn account(work: impl FnOnce() -> String) -> Outcome {
    let before = fs::read_to_string(STATISTICS)?;
    fs::write(STATISTICS, "1")?;
    let earlier = runs();
    let asked = work();
    let later = runs();
    fs::write(STATISTICS, before)?;
    println!("with statistics: {asked}");
    let names: BTreeMap<u32, String> = aya::programs::loaded_programs()
        .flatten()
        .filter_map(|info| Some((info.id(), info.name_as_str()?.to_owned())))
        .collect();
    for (program, (nanos, count)) in later {
        let (nanos_before, count_before) = earlier.get(&program).copied().unwrap_or_default();
        let (nanos, count) = (nanos - nanos_before, count - count_before);
        if let Some(each) = nanos.checked_div(count) {
            let name = names.get(&program).map_or("", String::as_str);
            println!("{name} ({program}): {each} ns each, {count} times");
        }
    }
    Ok(())
}

fn median(answer: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let fields = crate::proxy::fields(answer);
    Ok(fields.get("p50").ok_or_else(|| answer.to_owned())?.parse()?)
}

/// Nanoseconds and runs of each program that this process has loaded, by id.
fn runs() -> BTreeMap<u32, (u64, u64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
        if let (Some(id), Some(nanos), Some(count)) =
            (number("prog_id"), number("run_time_ns"), number("run_cnt"))
        {
            found.insert(id as u32, (nanos, count));
        }
    }
    found
}
