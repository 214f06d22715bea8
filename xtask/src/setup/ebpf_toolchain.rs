//! Which compiler builds the eBPF programs: one that has its own `core` as source, because none ships it
//! built for BPF. Two kinds are known; the one that is there is taken, else the one that can be had.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use super::{Missing, apt};
use crate::{command, place, place::Place};

/// The nightly that is installed where rustup is the way; its LLVM is the one `bpf-linker` is pinned to.
const NIGHTLY: &str = "nightly-2026-05-20";

/// LLVM of the rustup way: `bpf-linker` loads it out of the tool chain.
const RUSTUP_LLVM: u32 = 22;

/// The LLVM versions for which `bpf-linker` can be built against a distribution's libraries.
const DISTRIBUTION_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// A compiler with its sources.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum EbpfToolchain {
    /// The distribution's `/usr/bin/rustc`, whose LLVM has its libraries and headers in `/usr/lib/llvm-N`.
    Distribution { llvm: u32 },
    /// One of rustup's, by name.
    Rustup { name: String },
}

impl EbpfToolchain {
    /// The one that is there, the distribution's first: its parts are updated together.
    pub(crate) fn find() -> Option<Self> {
        distribution().or_else(rustup)
    }

    /// cargo, with this compiler and free to build `core`.
    pub(crate) fn cargo(&self) -> Command {
        match self {
            Self::Distribution { .. } => {
                let own = Path::new("/usr/bin/cargo");
                let mut cargo = if own.is_file() { Command::new(own) } else { command::cargo() };
                cargo.env("RUSTC", "/usr/bin/rustc").env_remove("LD_LIBRARY_PATH");
                cargo.env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Self::Rustup { name } => {
                let mut cargo = Command::new("rustup");
                cargo.args(["run", name, "cargo"]).env_remove("RUSTC").env("RUSTC_BOOTSTRAP", "1");
                cargo.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
                cargo
            }
        }
    }

    /// What it is, in words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Distribution { llvm } => format!("the distribution's rustc with LLVM {llvm}"),
            Self::Rustup { name } => format!("rustup's {name}"),
        }
    }
}

fn distribution() -> Option<EbpfToolchain> {
    let rustc = "/usr/bin/rustc";
    let llvm = llvm_of(Command::new(rustc).env_remove("LD_LIBRARY_PATH"))?;
    let ready = Path::new("/usr/lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
        && DISTRIBUTION_LLVM.contains(&llvm)
        && Path::new(&format!("/usr/lib/llvm-{llvm}/bin/llvm-config")).is_file();
    ready.then_some(EbpfToolchain::Distribution { llvm })
}

fn rustup() -> Option<EbpfToolchain> {
    let list = command::output(Command::new("rustup").args(["toolchain", "list", "--quiet"])).ok()?;
    let names = || list.lines().filter_map(|line| line.split_whitespace().next());
    // The pinned one, then any other nightly, then a stable one that somebody gave its sources.
    let pinned = names().filter(|name| name.starts_with(NIGHTLY));
    let nightly = names().filter(|name| name.starts_with("nightly") && !name.starts_with(NIGHTLY));
    let other = names().filter(|name| !name.starts_with("nightly"));
    pinned
        .chain(nightly)
        .chain(other)
        .find(|name| has_sources(name))
        .map(|name| EbpfToolchain::Rustup { name: name.to_owned() })
}

fn has_sources(name: &str) -> bool {
    let rustc = || {
        let mut rustc = Command::new("rustup");
        rustc.args(["run", name, "rustc"]);
        rustc
    };
    let sysroot = command::output(rustc().args(["--print", "sysroot"]));
    sysroot.is_ok_and(|s| Path::new(s.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
        && llvm_of(&mut rustc()) == Some(RUSTUP_LLVM)
}

/// The major version of a compiler's LLVM.
fn llvm_of(rustc: &mut Command) -> Option<u32> {
    parse_llvm(&command::output(rustc.arg("-vV")).ok()?)
}

fn parse_llvm(version: &str) -> Option<u32> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

/// What to install where none is there: the distribution's when it offers one, else rustup's.
pub(super) fn missing(_: &Place) -> Result<Option<Missing>> {
    if place::program("apt-get").is_some() && apt::offers("rustc-web") && apt::offers("rust-web-src") {
        return Ok(Some(Missing::new(
            "a compiler for the eBPF programs, with apt-get as root: rustc-web, rust-web-src and the llvm-dev of the \
             same LLVM (1.4 GB, about a minute)",
            |_| install_distribution(),
        )));
    }
    if place::program("rustup").is_some() {
        return Ok(Some(Missing::new(
            format!(
                "a compiler for the eBPF programs, with rustup: {NIGHTLY} with rust-src (0.4 GB; your default \
                 tool chain stays what it is)"
            ),
            |_| {
                command::run(Command::new("rustup").env_remove("RUSTUP_TOOLCHAIN").args([
                    "toolchain",
                    "install",
                    NIGHTLY,
                    "--profile=minimal",
                    "--component=rust-src",
                    "--no-self-update",
                ]))
            },
        )));
    }
    bail!(
        "the eBPF programs need a Rust compiler with its own sources. Install rustup, then run this again; or, by \
         hand: a rustc in /usr/bin with /usr/lib/rustlib/src and LLVM {} to {} in /usr/lib/llvm-N",
        DISTRIBUTION_LLVM.start(),
        DISTRIBUTION_LLVM.end()
    );
}

fn install_distribution() -> Result<()> {
    apt::install(&["rustc-web", "rust-web-src"])?;
    let llvm = llvm_of(Command::new("/usr/bin/rustc").env_remove("LD_LIBRARY_PATH"));
    match llvm {
        Some(llvm) if DISTRIBUTION_LLVM.contains(&llvm) => {
            apt::install(&[&format!("llvm-{llvm}-dev"), "g++"])?
        }
        Some(llvm) => bail!(
            "this distribution's rustc uses LLVM {llvm}, and bpf-linker knows {} to {}: install {NIGHTLY} with \
             rust-src by rustup instead",
            DISTRIBUTION_LLVM.start(),
            DISTRIBUTION_LLVM.end()
        ),
        None => bail!("/usr/bin/rustc does not say which LLVM it uses"),
    }
    if distribution().is_none() {
        bail!("rustc-web, rust-web-src and llvm-dev were installed, and yet they are no complete tool chain");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_compiler_is_read_from_what_it_says_of_itself() {
        assert_eq!(parse_llvm("rustc 1.96.0\nhost: x86_64\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(parse_llvm("rustc 1.96.0\n"), None);
    }
}
