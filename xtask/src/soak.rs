//! `soak`: the lab's scenarios over and over, with fuzzing for a tenth of the time at the end.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{binaries, ebpf, fuzz, place::Place, say, setup, setup::Purpose, tally::Tally, test};

/// How long a person takes to answer for a held statement.
const HOLD: Duration = Duration::from_secs(60);

pub(crate) fn run(place: &Place, duration: Duration) -> Result<ExitCode> {
    setup::ensure(place, Purpose::Test)?;
    ebpf::build(place)?;
    let built = binaries::everything(place)?;
    let begun = Instant::now();
    let mut sum = Tally::default();
    let mut rounds = 0_u32;
    // At least once, whatever the time.
    while rounds == 0 || (begun.elapsed() < duration.mul_f64(0.9) && sum.failed == 0) {
        rounds += 1;
        say::heading(&format!("Round {rounds} of the lab"));
        sum.add(test::lab(place, &built, HOLD)?);
    }
    fuzz::run(place, None, duration.mul_f64(0.1))?;
    say::line(&format!("{rounds} rounds in {}", say::took(begun)));
    println!("\n{sum}");
    Ok(if sum.failed == 0 && sum.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
