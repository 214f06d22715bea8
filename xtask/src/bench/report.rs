//! The bench's answer as Markdown: printed, and put between the marks that `docs/performance.md` has for it.

use std::fs;

use anyhow::{Context, Result};

use super::{Bench, Options, processes::Used};
use crate::{command, place::Place, say};

/// One table with what belongs to it. `name` is that of its marks in the document.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) text: String,
}

/// A table of how much memory was used.
#[derive(Default)]
pub(super) struct MemoryTable(String);

impl MemoryTable {
    pub(super) fn row(&mut self, name: &str, used: Used) {
        say::line(&format!(
            "{name}: {} KiB resident, {} KiB anonymous",
            used.resident_kib, used.anonymous_kib
        ));
        let mib = |kib: u64| kib as f64 / 1024.0;
        let (resident, anonymous) = (mib(used.resident_kib), mib(used.anonymous_kib));
        self.0.push_str(&format!("| {name} | {resident:.1} | {anonymous:.1} |\n"));
    }

    pub(super) fn text(&self) -> String {
        format!("\n| | resident, MiB | of it anonymous, MiB |\n|---|--:|--:|\n{}", self.0)
    }
}

/// The middle value; of an even number, the mean of the two in the middle. Not a number for none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Under what it was measured.
pub(super) fn conditions(bench: &Bench<'_>, options: &Options) -> Result<Section> {
    let cpu = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |m| m.1);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's version")?;
    let server = bench.postgres.admin("bench", "SHOW server_version")?;
    let text = format!(
        "\n{} cores of {model}, Linux {}, PostgreSQL {}, everything on one machine over loopback; {} paired rounds of \
         {} for each contestant; medians{}.\n",
        std::thread::available_parallelism()?,
        kernel.trim(),
        server.trim(),
        options.rounds,
        say::duration(options.each),
        options.shards.map_or_else(String::new, |shards| format!("; Verbatim with `--shards {shards}`")),
    );
    Ok(Section { name: "conditions", text })
}

/// Prints all sections, and writes them into the document where that was asked for.
pub(super) fn publish(place: &Place, sections: &[Section], write: bool) -> Result<()> {
    say::heading("Result");
    for section in sections {
        println!("{}", section.text);
    }
    if !write {
        return Ok(());
    }
    let path = place.root.join("docs/performance.md");
    let mut document = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for section in sections {
        document = placed(&document, section)?;
    }
    fs::write(&path, document).with_context(|| path.display().to_string())?;
    say::line(&format!("written into {}", place.short(&path)));
    say::command(&command::shown(std::process::Command::new("git").args(["diff", "docs/performance.md"])));
    Ok(())
}

/// The document with this section between its marks.
fn placed(document: &str, section: &Section) -> Result<String> {
    let open = format!("<!-- bench: {} -->\n", section.name);
    let close = format!("<!-- end of {} -->", section.name);
    let (before, rest) =
        document.split_once(&open).with_context(|| format!("docs/performance.md has no mark {open}"))?;
    let (_, after) =
        rest.split_once(&close).with_context(|| format!("docs/performance.md has no mark {close}"))?;
    Ok(format!("{before}{open}{}\n{close}{after}", section.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_replaces_what_stood_between_its_marks_and_nothing_else() {
        let section = Section { name: "memory", text: "\nnew\n".into() };
        let document = "a\n<!-- bench: memory -->\nold\n<!-- end of memory -->\nb\n";
        assert_eq!(
            placed(document, &section).unwrap(),
            "a\n<!-- bench: memory -->\n\nnew\n\n<!-- end of memory -->\nb\n"
        );
        assert!(placed("a\n", &section).is_err());
    }

    #[test]
    fn the_median_is_that_of_the_sorted_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
