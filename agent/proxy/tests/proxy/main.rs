//! The proxy over real loopback sockets, with doubles of everything around it.

mod commands;
mod decisions;
mod ends;
mod support;
