//! The node agent as shipped: observes and records, refuses nothing.

use std::{process::ExitCode, sync::Arc};

use verbatim_proxy::seam::ObserveAll;

fn main() -> ExitCode {
    verbatim_agent::main_with(Arc::new(ObserveAll))
}
