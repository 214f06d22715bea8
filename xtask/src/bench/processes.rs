//! What processes have used, as `/proc` says it: memory now, and processor time since they began.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};

/// Ticks a second in `/proc/PID/stat`: what Linux tells user space on every machine (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: u64 = 100;

/// What some processes have used.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub(super) struct Used {
    /// Resident memory, KiB.
    pub(super) resident_kib: u64,
    /// What of it no file stands behind, KiB.
    pub(super) anonymous_kib: u64,
    /// Processor time, in user space and in the kernel, of all threads.
    pub(super) processor: Duration,
}

impl Used {
    /// The higher memory of both, and the later processor time.
    pub(super) fn peak(self, other: Self) -> Self {
        Self {
            resident_kib: self.resident_kib.max(other.resident_kib),
            anonymous_kib: self.anonymous_kib.max(other.anonymous_kib),
            processor: self.processor.max(other.processor),
        }
    }
}

/// All processes of this name among this one and those below it, taken together.
pub(super) fn named_below(ancestor: u32, name: &str) -> Result<Used> {
    let mut seen: BTreeMap<u32, Process> = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the listing and the look.
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
        if let (Some(status), Some(stat)) = (read("status"), read("stat")) {
            seen.insert(id, Process::parse(&status, &stat));
        }
    }
    let is_below = |mut id: u32| {
        while id != ancestor {
            match seen.get(&id) {
                Some(process) => id = process.parent,
                None => return false,
            }
        }
        true
    };
    let mut sum = Used::default();
    for (id, process) in &seen {
        if process.name == name && is_below(*id) {
            sum.resident_kib += process.used.resident_kib;
            sum.anonymous_kib += process.used.anonymous_kib;
            sum.processor += process.used.processor;
        }
    }
    Ok(sum)
}

/// One process alone.
pub(super) fn of(id: u32) -> Result<Used> {
    let read = |file: &str| {
        let path = format!("/proc/{id}/{file}");
        fs::read_to_string(&path).context(path)
    };
    Ok(Process::parse(&read("status")?, &read("stat")?).used)
}

/// What `/proc/PID/status` and `/proc/PID/stat` say.
#[derive(Default, Debug, PartialEq)]
struct Process {
    name: String,
    parent: u32,
    used: Used,
}

impl Process {
    fn parse(status: &str, stat: &str) -> Self {
        let mut process = Self::default();
        for line in status.lines() {
            let Some((key, value)) = line.split_once(":\t") else { continue };
            let number = || value.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_default();
            match key {
                "Name" => value.clone_into(&mut process.name),
                "PPid" => process.parent = u32::try_from(number()).unwrap_or_default(),
                "VmRSS" => process.used.resident_kib = number(),
                "RssAnon" => process.used.anonymous_kib = number(),
                _ => {}
            }
        }
        // The name in the second field may hold blanks and brackets; `utime` and `stime` are the 14th and 15th.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        process.used.processor = Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
        process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_parent_memory_and_processor_time_are_read() {
        let status =
            "Name:\tverbatim-agent\nUmask:\t0022\nPPid:\t17\nVmRSS:\t  2048 kB\nRssAnon:\t    1024 kB\n";
        let stat = "7 (verba) tim) S 17 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1 1\n";
        let used = Used { resident_kib: 2048, anonymous_kib: 1024, processor: Duration::from_secs(3) };
        let expected = Process { name: "verbatim-agent".into(), parent: 17, used };
        assert_eq!(Process::parse(status, stat), expected);
    }

    #[test]
    fn this_process_has_used_something() {
        let own = of(std::process::id()).unwrap();
        assert!(own.anonymous_kib > 0 && own.resident_kib >= own.anonymous_kib, "{own:?}");
    }
}
