//! What a spool promises to those who append, to those who ship, and to whoever comes after a crash.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of a test fail it; a child reports on its output"
)]

mod support;

mod chains;
mod crash;
mod damage;
mod full;
mod group;
mod ship;
mod slots;
