//! Runs the fuzz targets over their committed corpus.
#![allow(clippy::panic, reason = "a panic is how a test says no")]

use std::{fs, path::Path};

use verbatim_credential::fuzzing::TARGETS;

#[test]
fn every_input_of_the_corpus_keeps_the_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, body) in TARGETS {
        let folder = corpus.join(name);
        let inputs = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut ran = 0;
        for input in inputs {
            let path = input.expect("a readable folder").path();
            let data = fs::read(&path).expect("a readable file");
            let result = std::panic::catch_unwind(|| body(&data));
            assert!(result.is_ok(), "{name} fails on {}", path.display());
            ran += 1;
        }
        assert!(ran >= 3, "the corpus of {name} has only {ran} inputs");
    }
}

#[test]
fn every_target_is_a_program_of_its_own() {
    for (name, _) in TARGETS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
        let source = fs::read_to_string(&path).unwrap_or_default();
        assert!(source.contains(&format!("fuzzing::{name}(")), "{} does not run it", path.display());
    }
}
