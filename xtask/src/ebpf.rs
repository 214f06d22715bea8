//! `ebpf`: builds the eBPF programs for their own target with their own compiler, and looks at what came out
//! before anybody loads it.

use std::{fs, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context, Result, bail};

use crate::{
    command, elf,
    place::Place,
    say,
    setup::{EbpfToolchain, Tool},
};

/// Sections without which these are not Verbatim's programs, and those that tell the kernel of types and licence.
const SECTIONS: [&str; 16] = [
    "cgroup/connect4",
    "cgroup/connect6",
    "cgroup/getpeername4",
    "cgroup/getpeername6",
    "cgroup/getsockname4",
    "cgroup/getsockname6",
    "cgroup/bind4",
    "cgroup/bind6",
    "cgroup/sendmsg4",
    "cgroup/sendmsg6",
    "cgroup/sock_create",
    "cgroup_skb/egress",
    "sockops",
    "license",
    ".maps",
    ".BTF",
];

/// Builds them; the answer is where they are.
pub(crate) fn build(place: &Place) -> Result<PathBuf> {
    let begun = Instant::now();
    say::heading("eBPF programs");
    let toolchain = EbpfToolchain::find()
        .context("there is no compiler for the eBPF programs: run `cargo xtask setup` first")?;
    let linker = Tool::BpfLinker.path(place);
    if !linker.is_file() {
        bail!("{} is missing: run `cargo xtask setup` first", linker.display());
    }
    let mut cargo = toolchain.cargo();
    let build_target = place.target.join("bpf-build");
    cargo
        .current_dir(place.root.join("agent-ebpf"))
        .env("CARGO_TARGET_DIR", &build_target)
        .env("RUSTFLAGS", format!("-C linker={} -C link-arg=--btf -C debuginfo=2", linker.display()))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", "bpfel-unknown-none"]);
    say::line(&format!("with {}", toolchain.describe()));
    command::run(&mut cargo)?;
    let made = build_target.join("bpfel-unknown-none/release").join(binary_name(place)?);
    let bytes = fs::read(&made).with_context(|| made.display().to_string())?;
    check(&bytes).with_context(|| format!("{} is not what was expected", made.display()))?;
    let kept = place.ebpf();
    fs::create_dir_all(kept.parent().context("a folder")?)?;
    // Left alone when nothing changed: what embeds it need not be built again then.
    if fs::read(&kept).ok().as_deref() != Some(&bytes) {
        fs::write(&kept, &bytes).with_context(|| kept.display().to_string())?;
    }
    say::line(&format!("{}: {} KiB of BPF ({})", place.short(&kept), bytes.len() / 1024, say::took(begun)));
    Ok(kept)
}

/// The name of the one program that the crate builds.
fn binary_name(place: &Place) -> Result<String> {
    let metadata = command::output(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(place.root.join("agent-ebpf"))
            .args(["metadata", "--no-deps", "--format-version=1"]),
    )?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("cargo metadata of agent-ebpf")?;
    let targets = metadata["packages"][0]["targets"].as_array().context("agent-ebpf has no targets")?;
    let binary =
        targets.iter().find(|target| target["kind"][0] == "bin").context("agent-ebpf builds no program")?;
    Ok(binary["name"].as_str().context("a target has a name")?.to_owned())
}

fn check(object: &[u8]) -> Result<()> {
    let sections = elf::bpf_sections(object)?;
    let absent: Vec<&str> =
        SECTIONS.into_iter().filter(|s| !sections.iter().any(|found| found == s)).collect();
    if !absent.is_empty() {
        bail!("it has no section {}; it has {}", absent.join(", "), sections.join(" "));
    }
    Ok(())
}
