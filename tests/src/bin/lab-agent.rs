//! The node agent with the lab's decisions: the product's own code but for the policy.
#![allow(clippy::print_stderr, reason = "it says why it cannot start")]

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use verbatim_tests::policy::{CONTROL, LabPolicy};

fn main() -> ExitCode {
    let Some(folder) = std::env::var_os(CONTROL).map(PathBuf::from) else {
        eprintln!("lab-agent: {CONTROL} must name the folder in which holds are answered");
        return ExitCode::FAILURE;
    };
    match LabPolicy::new(&folder) {
        Ok(policy) => verbatim_agent::main_with(Arc::new(policy)),
        Err(error) => {
            eprintln!("lab-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
