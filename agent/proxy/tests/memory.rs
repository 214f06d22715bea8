//! What connections cost in memory. A process of its own, one test at a time: it measures itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "proxy/support/mod.rs"]
mod support;

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
    thread,
};

use support::World;

static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_client_that_stops_reading_leaves_memory_flat_and_its_siblings_unhindered() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    let (mut client, server) = world.connect();
    client.send("give me everything\n");
    let mut bulk = server.stream.try_clone().unwrap();
    let block = format!("+{}\n", "x".repeat(65_534)).into_bytes();
    let size = block.len() * 4096;
    let writer = {
        let block = block.clone();
        thread::spawn(move || {
            for _ in 0..4096 {
                bulk.write_all(&block).unwrap();
            }
            bulk.write_all(b"ok\n").unwrap();
        })
    };
    let mut start = vec![0; 1_000_000];
    client.read_exactly(&mut start);
    let before = resident();
    let (mut sibling, mut its_server) = world.connect();
    for _ in 0..2_000 {
        sibling.send("quick\n");
        assert_eq!(its_server.line(), "quick\n");
        its_server.send("ok\n");
        assert_eq!(sibling.line(), "ok\n");
    }
    assert!(!writer.is_finished(), "nothing holds the server back");
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes while the client did not read");
    let mut left = size + 3 - start.len();
    let mut scrap = vec![0; 1 << 20];
    while left > 0 {
        let n = left.min(scrap.len());
        client.read_exactly(&mut scrap[..n]);
        left -= n;
    }
    writer.join().unwrap();
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes over a result of 256 MiB");
}

#[test]
fn idle_connections_hold_no_buffer() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    let mut open = Vec::new();
    for n in 0..400 {
        if n == 100 {
            open.push(None);
        }
        let (mut client, mut server) = world.connect();
        client.send("one\n");
        assert_eq!(server.line(), "one\n");
        server.send("ok\n");
        assert_eq!(client.line(), "ok\n");
        open.push(Some((client, server)));
    }
    let before = resident();
    for _ in 0..300 {
        let (mut client, mut server) = world.connect();
        client.send("one\n");
        assert_eq!(server.line(), "one\n");
        server.send("ok\n");
        assert_eq!(client.line(), "ok\n");
        open.push(Some((client, server)));
    }
    // Both ends of the test's own (two 8 KiB readers) and four records each are in it.
    let each = resident().saturating_sub(before) / 300;
    assert!(each < 48 * 1024, "{each} bytes for an idle connection");
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
