//! `verbatim`: the security team's command line.
//!
//! Owns how questions are asked and answers are shown. Knows the collector only through its Audit service,
//! be it behind a socket or opened in this process from a folder.

mod args;
mod connect;
mod failure;
mod filter;
mod names;
#[cfg(test)]
#[path = "../../tests/collector/support/node.rs"]
#[allow(dead_code, reason = "made for the collector's tests, which need more of it")]
mod node;
mod output;
mod query;
mod view;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Args, Verb},
    failure::Failure,
};

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::Local(error.into())),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

async fn run(args: Args) -> Result<(), Failure> {
    if let Verb::Completion { shell } = args.verb {
        return output::completion(shell);
    }
    let mut client = connect::connect(&args.source).await?;
    match args.verb {
        Verb::Records(verb) => query::records(&mut client, &verb, args.output).await,
        Verb::Show { id } => Box::pin(query::show(&mut client, &id, args.output)).await,
        Verb::Tail(verb) => query::tail(&mut client, &verb, args.output).await,
        Verb::Sessions(verb) => query::sessions(&mut client, &verb, args.output).await,
        Verb::Findings(verb) => query::findings(&mut client, &verb, args.output).await,
        Verb::Coverage(verb) => query::coverage(&mut client, &verb, args.output).await,
        Verb::Events(verb) => query::events(&mut client, &verb, args.output).await,
        Verb::DeleteContent { ids, reason } => query::delete_content(&mut client, &ids, reason).await,
        Verb::Completion { .. } => Ok(()),
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a failure is told to a person")]
fn report(failure: &Failure) -> ExitCode {
    if !failure.silent() {
        eprintln!("verbatim: {failure}");
    }
    ExitCode::from(failure.exit_code())
}
