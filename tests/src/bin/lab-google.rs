//! Google's side of the lab as processes of their own.
//!
//! `front CONFIG` terminates TLS before the emulator; `metadata ADDRESS PROJECT NUMBER EMAIL TOKEN` is the
//! metadata server of one pod.

use std::fs;

use anyhow::{Context as _, Result, bail};
use verbatim_tests::front::{self, Account};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["front", path] => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
            front::run(&serde_json::from_str(&text).with_context(|| format!("{path} is no configuration"))?)
        }
        ["metadata", address, project, number, email, token] => {
            let account = Account {
                project: (*project).to_owned(),
                number: number.parse().context("the project's number")?,
                email: (*email).to_owned(),
                token: (*token).to_owned(),
            };
            front::metadata(address.parse().context("the address")?, &account)
        }
        other => bail!("unknown arguments {other:?}: expected `front CONFIG` or `metadata …`"),
    }
}
