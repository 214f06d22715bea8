//! The issuer's binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    verbatim_issuer::main()
}
