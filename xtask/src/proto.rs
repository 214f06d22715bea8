//! `proto`: the generated code of the `.proto` files, by a crate of its own, so that nobody else waits for it.

use anyhow::Result;

use crate::{command, place::Place, say};

pub(crate) fn run(place: &Place, check: bool) -> Result<()> {
    say::heading("Code of the .proto files");
    let mut cargo = place.cargo();
    cargo.args(["run", "--quiet", "--package", "xtask-proto"]);
    if check {
        cargo.args(["--", "--check"]);
    }
    command::run(&mut cargo)
}
