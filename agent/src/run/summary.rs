//! What is said when a run has ended.

use std::path::Path;

use verbatim_proxy::Stats;
use verbatim_ship::Target;
use verbatim_sys::privilege;

use super::{Destination, Surroundings, trusting::Trusting};

/// As many names as a line can hold, and that there are more.
fn few(names: &[String]) -> Option<(String, String)> {
    const SHOWN: usize = 5;
    let (shown, more) = names.split_at_checked(SHOWN).unwrap_or((names, &[]));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    // A workload chose them: they are not to drive the terminal.
    let shown: Vec<String> = shown.iter().map(|name| name.escape_debug().to_string()).collect();
    (!shown.is_empty()).then(|| (more, shown.join(", ")))
}

/// One line on what was recorded and where it is; another where that is not where it was to be (`moved`).
pub(super) fn say(
    around: &Surroundings,
    target: &Target,
    shipped: bool,
    stats: &Stats,
    moved: Option<&Path>,
) {
    let spliced: u64 = stats.spliced.iter().map(|(_, count)| count).sum();
    let mut what = format!("{} commands recorded", stats.commands);
    if spliced > 0 {
        what.push_str(&format!(", {spliced} connections recorded that could not be decoded"));
    }
    let outside = around.trusting.as_ref().map(Trusting::outside).unwrap_or_default();
    if let Some((more, names)) = few(&outside) {
        what.push_str(&format!(" (TLS to {names}{more} is not looked into: --name NAME adds a name)"));
    }
    let data = moved.unwrap_or(around.folders.shown()).display();
    let where_to = match (&around.destination, shipped) {
        (_, false) => format!(
            "the collector {target} has not acknowledged all of them: the rest is in {data}/spool; run again \
             with --data {data} and the same collector to send it"
        ),
        (Destination::Other(_), true) => format!("all are with the collector {target}"),
        (Destination::Own(_), true) if around.folders.kept.is_some() => {
            // What is root's is read by root.
            let sudo = if around.person.uid == privilege::effective_user() { "" } else { "sudo " };
            format!("read them with: {sudo}verbatim --data {data} records")
        }
        (Destination::Own(_), true) => "nothing is kept: give --data DIR to keep them".to_owned(),
    };
    crate::say(&format!("{what}; {where_to}"));
    if let Some(moved) = moved {
        let asked = around.folders.shown().display();
        let now = match moved.to_string_lossy() {
            // The person that the command runs as chose it: it is not to drive the terminal.
            path if !path.is_empty() => format!("all records of this run are in {}", path.escape_debug()),
            _ => "where it is now cannot be told".to_owned(),
        };
        crate::say(&format!(
            "WARNING: {asked} is not the folder any more that records were kept in: while the command ran, \
             somebody put another in its place, or took it away. What is there now is no record of this run; \
             {now}. So this ends with {}, however the command ended",
            super::FAILED
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_are_shown_and_none_drives_the_terminal() {
        assert_eq!(few(&[]), None);
        let names = ["a\u{1b}[2J", "b", "c", "d", "e", "f", "g"].map(str::to_owned);
        let (more, shown) = few(&names).expect("names");
        assert_eq!((more.as_str(), shown.as_str()), (" and 2 more", "a\\u{1b}[2J, b, c, d, e"));
        let (more, shown) = few(&names[1..3]).expect("names");
        assert_eq!((more.as_str(), shown.as_str()), ("", "b, c"));
    }
}
