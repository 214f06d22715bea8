//! What the lab needs as processes of their own.
//!
//! `reap` tidies up after a harness that died; `ground SCENARIO` makes a scenario's ground, says so and
//! waits to be killed, which is how the former is tested.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the harness")]

use std::io::{BufReader, stdin};

use anyhow::{Result, bail};
use verbatim_tests::{lab::Ground, reaper};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["reap"] => {
            for (leftover, error) in reaper::reap(BufReader::new(stdin())) {
                eprintln!("lab-helper: could not undo {}: {error}", leftover.line());
            }
            Ok(())
        }
        ["ground", scenario] => {
            let ground = Ground::create(scenario)?;
            let server =
                ground.postgres("postgres", verbatim_tests::network::DATABASE, Default::default())?;
            println!("made {}", ground.name);
            std::thread::park();
            drop((server, ground));
            Ok(())
        }
        other => bail!("unknown arguments {other:?}: expected `reap` or `ground SCENARIO`"),
    }
}
