//! Programs built with `cargo install`, pinned, into the cache: never into the person's own ~/.cargo.
//! What cargo wrote down of each (version, features) tells whether it must be built again.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{EbpfToolchain, Missing};
use crate::{command, place::Place};

/// A program that is built here.
#[derive(Clone, Copy)]
pub(crate) enum Tool {
    BpfLinker,
    CargoDeny,
    CargoFuzz,
}

/// How one of them is built.
struct Recipe {
    crate_name: &'static str,
    version: &'static str,
    features: Vec<String>,
    llvm_prefix: Option<String>,
    time: &'static str,
}

impl Tool {
    /// Where the program is, once built.
    pub(crate) fn path(self, place: &Place) -> PathBuf {
        let name = match self {
            Self::BpfLinker => "bpf-linker",
            Self::CargoDeny => "cargo-deny",
            Self::CargoFuzz => "cargo-fuzz",
        };
        place.tools().join("bin").join(name)
    }

    fn recipe(self) -> Result<Recipe> {
        Ok(match self {
            Self::BpfLinker => match EbpfToolchain::find().context("no compiler for the eBPF programs")? {
                EbpfToolchain::Distribution { llvm } => Recipe {
                    crate_name: "bpf-linker",
                    version: "0.13.0",
                    features: vec![format!("llvm-{llvm}")],
                    llvm_prefix: Some(format!("/usr/lib/llvm-{llvm}")),
                    time: "1 to 2 min",
                },
                // The last line of versions that finds LLVM inside rustup's tool chain and needs none beside it.
                EbpfToolchain::Rustup { .. } => Recipe {
                    crate_name: "bpf-linker",
                    version: "0.10.3",
                    features: vec!["llvm-22".into(), "rust-llvm-22".into()],
                    llvm_prefix: None,
                    time: "1 to 2 min",
                },
            },
            Self::CargoDeny => Recipe {
                crate_name: "cargo-deny",
                version: "0.20.2",
                features: vec![],
                llvm_prefix: None,
                time: "3 to 5 min",
            },
            Self::CargoFuzz => Recipe {
                crate_name: "cargo-fuzz",
                version: "0.13.2",
                features: vec![],
                llvm_prefix: None,
                time: "about 1 min",
            },
        })
    }
}

impl Recipe {
    /// Whether cargo's own list of what it installed (`.crates2.json`) has it, built like this.
    fn is_built(&self, installed: &str) -> bool {
        let Ok(list) = serde_json::from_str::<Value>(installed) else { return false };
        let Some(installs) = list["installs"].as_object() else { return false };
        installs.iter().any(|(package, built)| {
            let features = built["features"].as_array().into_iter().flatten().filter_map(Value::as_str);
            package.starts_with(&format!("{} {} ", self.crate_name, self.version))
                && features.eq(self.features.iter().map(String::as_str))
        })
    }
}

/// What is to be built, when it is not there as its recipe says.
pub(super) fn missing(place: &Place, tool: Tool) -> Result<Option<Missing>> {
    let recipe = tool.recipe()?;
    let installed = fs::read_to_string(place.tools().join(".crates2.json")).unwrap_or_default();
    if recipe.is_built(&installed) && tool.path(place).is_file() {
        return Ok(None);
    }
    let what = format!(
        "{} {}, built with cargo into {} ({})",
        recipe.crate_name,
        recipe.version,
        place.short(&place.tools()),
        recipe.time
    );
    Ok(Some(Missing::new(what, move |place| {
        let mut cargo = command::cargo();
        // Outside of the workspace: its tool chain file and its cargo configuration are not for this.
        cargo.current_dir(&place.cache).env("CARGO_TARGET_DIR", place.tools().join("build"));
        cargo.args([
            "install",
            recipe.crate_name,
            "--version",
            recipe.version,
            "--locked",
            "--force",
            "--root",
        ]);
        cargo.arg(place.tools());
        if !recipe.features.is_empty() {
            cargo.args(["--no-default-features", "--features", &recipe.features.join(",")]);
        }
        if let Some(prefix) = &recipe.llvm_prefix {
            cargo.env("LLVM_PREFIX", prefix);
        }
        command::run(&mut cargo)?;
        fs::remove_dir_all(place.tools().join("build")).context("removing what the build left")
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_built_again_when_its_version_or_its_features_differ() {
        let recipe = |version, feature: &str| Recipe {
            crate_name: "bpf-linker",
            version,
            features: vec![feature.to_owned()],
            llvm_prefix: None,
            time: "",
        };
        let installed = r#"{"installs":{"bpf-linker 0.13.0 (registry+x)":{"features":["llvm-22"]}}}"#;
        assert!(recipe("0.13.0", "llvm-22").is_built(installed));
        assert!(!recipe("0.13.0", "llvm-23").is_built(installed));
        assert!(!recipe("0.13", "llvm-22").is_built(installed));
        assert!(!recipe("0.13.0", "llvm-22").is_built(""));
    }
}
