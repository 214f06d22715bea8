//! Generates `collector/api/src/generated/` from the `.proto` files, without a `protoc` on anybody's machine.
//!
//! `xtask-proto` writes; `xtask-proto --check` compares and fails when the committed code is stale.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use prost::Message;

const FILES: [&str; 3] = ["record", "ingest", "audit"];

fn main() -> Result<()> {
    let check = std::env::args().any(|a| a == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../collector/api");
    let made = tempfile::tempdir()?;
    generate(&root.join("proto"), made.path())?;
    let committed = root.join("src/generated");
    for name in ["verbatim.v1.rs", "descriptor.bin"] {
        let new = fs::read(made.path().join(name))?;
        let path = committed.join(name);
        if check {
            if fs::read(&path).with_context(|| path.display().to_string())? != new {
                bail!("{} is stale: run `cargo xtask proto`", path.display());
            }
        } else {
            fs::create_dir_all(&committed)?;
            fs::write(&path, new)?;
        }
    }
    Ok(())
}

fn generate(proto: &Path, out: &Path) -> Result<()> {
    let files: Vec<PathBuf> = FILES.iter().map(|f| proto.join(format!("verbatim/v1/{f}.proto"))).collect();
    let descriptors = protox::compile(&files, [proto])?;
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".verbatim.v1.Entry")
        .client_mod_attribute("verbatim.v1", "#[cfg(feature = \"client\")]")
        .server_mod_attribute("verbatim.v1", "#[cfg(feature = \"server\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
