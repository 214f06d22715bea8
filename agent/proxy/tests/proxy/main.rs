//! The proxy over real loopback sockets, with doubles of everything around it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod certificates;
mod clients;
mod commands;
mod cut_off;
mod decisions;
mod distrust;
mod ends;
mod http;
mod postgresql;
mod postgresql_tls;
mod scripts;
mod support;
mod termination;
mod upgrades;
