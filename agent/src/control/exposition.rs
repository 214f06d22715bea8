//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

/// Media type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text that grows by metric families.
#[derive(Debug, Default)]
pub(crate) struct Exposition(String);

impl Exposition {
    /// A counter without labels; its name ends in `_total`.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help, [([], value)]);
    }

    /// A gauge without labels.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help, [([], value)]);
    }

    /// A family of values that differ by their labels.
    pub(crate) fn family<'a, V: Display, const N: usize>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'a str, &'a str); N], V)>,
    ) {
        debug_assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        // Writing to a string never fails.
        writeln!(self.0, "# HELP {name} {}", escaped(help, false)).ok();
        writeln!(self.0, "# TYPE {name} {kind}").ok();
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value, true))).collect();
            match labels.is_empty() {
                true => writeln!(self.0, "{name} {value}"),
                false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
            }
            .ok();
        }
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut text = Exposition::default();
        text.counter("verbatim_commands_total", "Commands recorded as started.", 7);
        text.gauge("verbatim_spool_oldest_unacknowledged_age_seconds", "a \\ b", 1.5);
        text.family("verbatim_x_total", "counter", "x", [([("reason", "a\"b\\c\nd"), ("to", "z")], 1_u64)]);
        assert_eq!(
            text.finish(),
            "# HELP verbatim_commands_total Commands recorded as started.\n\
             # TYPE verbatim_commands_total counter\n\
             verbatim_commands_total 7\n\
             # HELP verbatim_spool_oldest_unacknowledged_age_seconds a \\\\ b\n\
             # TYPE verbatim_spool_oldest_unacknowledged_age_seconds gauge\n\
             verbatim_spool_oldest_unacknowledged_age_seconds 1.5\n\
             # HELP verbatim_x_total x\n\
             # TYPE verbatim_x_total counter\n\
             verbatim_x_total{reason=\"a\\\"b\\\\c\\nd\",to=\"z\"} 1\n"
        );
    }
}
