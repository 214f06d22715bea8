//! What the lab needs as processes of their own.
//!
//! `reap` tidies up after a harness that died; `ground SCENARIO` makes a scenario's ground, says so and
//! waits to be killed, which is how the former is tested. `serve ADDRESS` and `load ADDRESS RATE COUNT` are a
//! server and a client of many short connections.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the harness")]

use std::io::{BufReader, stdin};

use anyhow::{Context as _, Result, bail};
use verbatim_tests::{lab::Ground, reaper, traffic};

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
        ["serve", address] => {
            let served = traffic::serve(address.parse().context("the address")?, || println!("listening"))?;
            println!("served {served}");
            Ok(())
        }
        ["load", address, rate, most] => {
            let (rate, most) = (rate.parse().context("the rate")?, most.parse().context("how many")?);
            let counts = traffic::load(address.parse().context("the address")?, rate, most)?;
            println!("{}", serde_json::to_string(&counts)?);
            Ok(())
        }
        other => bail!("unknown arguments {other:?}: expected `reap`, `ground`, `serve` or `load`"),
    }
}
