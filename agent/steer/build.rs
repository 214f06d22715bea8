//! Finds the compiled eBPF programs and lays them where the crate embeds them from. Without them the
//! crate compiles all the same, and says at run time what is missing.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

const NAME: &str = "verbatim-ebpf";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=VERBATIM_EBPF");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    println!("cargo::rerun-if-changed=build.rs");
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join(NAME);
    let programs = match find()? {
        Some(object) => fs::read(&object).map_err(|error| format!("{}: {error}", object.display()))?,
        None => Vec::new(),
    };
    fs::write(&embedded, programs)?;
    Ok(())
}

/// `VERBATIM_EBPF`, or the newest of those that `cargo xtask ebpf` may have laid down.
fn find() -> Result<Option<PathBuf>, Box<dyn std::error::Error>> {
    if let Some(named) = env::var_os("VERBATIM_EBPF") {
        let named = PathBuf::from(named);
        println!("cargo::rerun-if-changed={}", named.display());
        return Ok(Some(named));
    }
    let workspace = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let mut targets = vec![workspace.join("target")];
    if let Some(target) = env::var_os("CARGO_TARGET_DIR") {
        targets.push(workspace.join(target));
    }
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for target in targets {
        let folder = target.join("bpf");
        // cargo watches a folder for what appears in it, but takes a missing one for changed.
        fs::create_dir_all(&folder)?;
        println!("cargo::rerun-if-changed={}", folder.display());
        let object = folder.join(NAME);
        if let Ok(metadata) = fs::metadata(&object) {
            found.push((metadata.modified()?, object));
        }
    }
    Ok(found.into_iter().max().map(|(_, object)| object))
}
