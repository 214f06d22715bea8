//! `build`: the product's binaries, and all test programs in the same pass, so that nothing is compiled twice.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{command, ebpf, place::Place, say, setup, setup::Purpose};

/// What a person runs.
const PRODUCT: [&str; 3] = ["verbatim-agent", "verbatim-collector", "verbatim"];

/// The profile of what is shipped; cargo names its folder after it.
const SHIPPED: &str = "dist";

/// A test program that cargo built.
pub(crate) struct TestProgram {
    pub(crate) package: String,
    /// The target's name: the crate for unit tests, the file for integration tests.
    pub(crate) target: String,
    /// `lib`, `bin` or `test`.
    pub(crate) kind: String,
    pub(crate) path: PathBuf,
    /// The package's folder, in which cargo runs its tests.
    pub(crate) folder: PathBuf,
}

/// Everything that one pass built.
pub(crate) struct Built {
    /// Where the binaries are.
    pub(crate) folder: PathBuf,
    pub(crate) tests: Vec<TestProgram>,
}

/// `build`: set-up, the eBPF programs, and the binaries. The answer is the folder they are in.
pub(crate) fn build(place: &Place, shipped: bool) -> Result<PathBuf> {
    setup::ensure(place, Purpose::Build)?;
    ebpf::build(place)?;
    product(place, shipped)
}

/// The binaries alone: as they are shipped, or for developing.
pub(crate) fn product(place: &Place, shipped: bool) -> Result<PathBuf> {
    let begun = Instant::now();
    say::heading(if shipped { "Binaries, as they are shipped" } else { "Binaries" });
    let mut cargo = place.cargo();
    cargo.args(["build", "--locked"]);
    for name in PRODUCT {
        cargo.args(["--bin", name]);
    }
    if shipped {
        cargo.args(["--profile", SHIPPED]);
    }
    command::run(&mut cargo)?;
    let folder = place.target.join(if shipped { SHIPPED } else { "debug" });
    say::line(&format!("in {} ({})", place.short(&folder), say::took(begun)));
    Ok(folder)
}

/// The product's binaries and the lab's.
pub(crate) fn all(place: &Place) -> Result<PathBuf> {
    let begun = Instant::now();
    say::heading("Binaries, the lab's too");
    command::run(place.cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    let folder = place.target.join("debug");
    say::line(&format!("in {} ({})", place.short(&folder), say::took(begun)));
    Ok(folder)
}

/// Binaries and test programs of the whole workspace, one profile, one set of features.
pub(crate) fn everything(place: &Place) -> Result<Built> {
    with_tests(place, &["--workspace", "--bins", "--tests"])
}

/// The binaries, and one test program.
pub(crate) fn product_and(place: &Place, package: &str, test: &str) -> Result<Built> {
    let mut what = vec!["--package", package, "--test", test];
    for name in PRODUCT {
        what.extend(["--package", name, "--bin", name]);
    }
    with_tests(place, &what)
}

fn with_tests(place: &Place, what: &[&str]) -> Result<Built> {
    let begun = Instant::now();
    say::heading("Binaries and test programs");
    let mut cargo = place.cargo();
    cargo.args(["build", "--locked", "--message-format=json-render-diagnostics"]).args(what);
    say::command(&command::shown(&cargo));
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let messages = BufReader::new(child.stdout.take().context("cargo's output")?);
    let mut built = Built { folder: place.target.join("debug"), tests: Vec::new() };
    for line in messages.lines() {
        let message: Value = serde_json::from_str(&line?).context("a message of cargo")?;
        built.tests.extend(test_program(&message));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the build failed: {status}");
    }
    built.tests.sort_by(|a, b| (&a.package, &a.kind, &a.target).cmp(&(&b.package, &b.kind, &b.target)));
    say::line(&format!("{} test programs ({})", built.tests.len(), say::took(begun)));
    Ok(built)
}

/// One test program alone, as a release build, for what it measures.
pub(crate) fn test_program_of(place: &Place, package: &str, target: &str) -> Result<PathBuf> {
    let mut cargo = place.cargo();
    cargo.args([
        "test",
        "--quiet",
        "--locked",
        "--release",
        "--no-run",
        "--package",
        package,
        "--test",
        target,
    ]);
    let messages = command::output(cargo.arg("--message-format=json-render-diagnostics"))?;
    messages
        .lines()
        .filter_map(|line| test_program(&serde_json::from_str(line).ok()?))
        .find(|program| program.target == target)
        .map(|program| program.path)
        .with_context(|| format!("cargo built no test program {target} of {package}"))
}

fn test_program(message: &Value) -> Option<TestProgram> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let folder = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_owned();
    // `path+file:///…/agent/wire#verbatim-wire@0.1.0`, or without a name where the folder has it.
    let (before, after) = message["package_id"].as_str()?.rsplit_once('#')?;
    let package = after.split_once('@').map_or_else(|| before.rsplit('/').next(), |(name, _)| Some(name))?;
    Some(TestProgram {
        package: package.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        kind: message["target"]["kind"][0].as_str()?.to_owned(),
        path: PathBuf::from(message["executable"].as_str()?),
        folder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_among_the_messages_of_cargo() {
        let message = serde_json::json!({
            "reason": "compiler-artifact", "profile": {"test": true}, "manifest_path": "/w/agent/wire/Cargo.toml",
            "package_id": "path+file:///w/agent/wire#verbatim-wire@0.1.0",
            "target": {"name": "verbatim_wire", "kind": ["lib"]}, "executable": "/t/debug/deps/verbatim_wire-1",
        });
        let program = test_program(&message).unwrap();
        assert_eq!((program.package.as_str(), program.kind.as_str()), ("verbatim-wire", "lib"));
        assert_eq!(program.folder, PathBuf::from("/w/agent/wire"));
        let mut same_name = message.clone();
        same_name["package_id"] = "path+file:///w/xtask#0.1.0".into();
        assert_eq!(test_program(&same_name).unwrap().package, "xtask");
        let mut library = message;
        library["profile"]["test"] = false.into();
        assert!(test_program(&library).is_none());
    }
}
