//! Paired rounds: in each, every contestant does the same work against the same server, in an order that turns
//! from round to round. Compared is within a round; what is reported is the median of those ratios.
//! Knows nothing of what the work is.

use anyhow::{Context, Result};

use super::report;
use crate::say;

/// What came out of all rounds.
pub(super) struct Pairs {
    contestants: Vec<String>,
    /// What is done, as a line above its table says it.
    loads: Vec<String>,
    /// What is counted, such as `requests/s`.
    unit: &'static str,
    /// By load, by contestant, by round.
    rates: Vec<Vec<Vec<f64>>>,
}

impl Pairs {
    /// Runs them. `once` has the contestant of the second index do the load of the first, and says how much of
    /// the unit it did.
    pub(super) fn run(
        rounds: usize,
        contestants: Vec<String>,
        loads: Vec<String>,
        unit: &'static str,
        once: impl Fn(usize, usize) -> Result<f64>,
    ) -> Result<Self> {
        let mut rates = vec![vec![Vec::new(); contestants.len()]; loads.len()];
        for round in 0..rounds {
            say::heading(&format!("Round {} of {rounds}", round + 1));
            for (load, rates) in rates.iter_mut().enumerate() {
                for turn in 0..contestants.len() {
                    let contestant = (turn + round) % contestants.len();
                    let name = &contestants[contestant];
                    let rate = once(load, contestant).with_context(|| format!("{name}, {}", loads[load]))?;
                    say::line(&format!("{:50} {name:24} {rate:9.0} {unit}", loads[load]));
                    rates[contestant].push(rate);
                }
            }
        }
        Ok(Self { contestants, loads, unit, rates })
    }

    /// A table for each load, with a column for the ratio to each of these contestants.
    pub(super) fn tables(&self, yardsticks: &[usize]) -> String {
        let mut text = String::new();
        for (load, rates) in self.loads.iter().zip(&self.rates) {
            text.push_str(&format!("\n{load}:\n\n| | {} |", self.unit));
            yardsticks.iter().for_each(|y| text.push_str(&format!(" × {} |", self.contestants[*y])));
            text.push_str(&format!("\n|---|--:|{}\n", "--:|".repeat(yardsticks.len())));
            for (contestant, own) in self.contestants.iter().zip(rates) {
                text.push_str(&format!("| {contestant} | {:.0} |", report::median(own)));
                for yardstick in yardsticks {
                    let ratios: Vec<f64> = own.iter().zip(&rates[*yardstick]).map(|(a, b)| a / b).collect();
                    text.push_str(&format!(" {:.2} |", report::median(&ratios)));
                }
                text.push('\n');
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn everybody_runs_once_in_each_round_and_another_one_begins() {
        let order = RefCell::new(Vec::new());
        let names = vec!["direct".to_owned(), "Envoy".to_owned()];
        let pairs = Pairs::run(2, names, vec!["`load`".to_owned()], "tps", |_, contestant| {
            order.borrow_mut().push(contestant);
            // The machine is half as fast in the second round: the ratio does not mind.
            let round = order.borrow().len().div_ceil(2);
            Ok(if contestant == 0 { 100.0 } else { 50.0 } / round as f64)
        })
        .unwrap();
        assert_eq!(*order.borrow(), [0, 1, 1, 0]);
        let expected = "\n`load`:\n\n| | tps | × direct |\n|---|--:|--:|\n| direct | 75 | 1.00 |\n| Envoy | 38 | 0.50 |\n";
        assert_eq!(pairs.tables(&[0]), expected);
    }

    #[test]
    fn what_fails_is_named_with_its_contestant_and_load() {
        let failed = Pairs::run(1, vec!["Envoy".into()], vec!["load".into()], "tps", |_, _| {
            anyhow::bail!("no answer")
        });
        assert_eq!(format!("{:#}", failed.err().unwrap()), "Envoy, load: no answer");
    }
}
