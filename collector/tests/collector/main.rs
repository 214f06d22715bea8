//! The collector as a whole: over its sockets, over its files, and through kills. What needs root stands in `tests/privileged`.

mod audit;
mod coverage;
mod deletion;
mod durability;
mod events;
mod findings;
mod indexes;
mod ingest;
mod network;
mod nodes;
mod offline;
mod parts;
mod rebuild;
mod repeats;
mod retention;
mod rotation;
mod stores;
mod support;
