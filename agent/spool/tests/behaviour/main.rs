//! What a spool promises to those who append, to those who ship, and to whoever comes after a crash.

mod support;

mod chains;
mod crash;
mod damage;
mod full;
mod group;
mod ship;
