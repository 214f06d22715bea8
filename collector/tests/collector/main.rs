//! The collector as a whole: over its sockets, over its files, and through kills, power losses and full disks.

mod audit;
mod deletion;
mod durability;
mod findings;
mod indexes;
mod ingest;
mod network;
mod offline;
mod powerloss;
mod rebuild;
mod retention;
mod stores;
mod support;
