//! What connections cost in memory. A process of its own, one test at a time: it measures itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "proxy/support/mod.rs"]
mod support;

use std::{
    io::{Read, Write},
    sync::{Mutex, PoisonError},
    thread,
};

use support::{World, tls};

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
    // This process is client and server as well, and what the allocator keeps of theirs differs from run to run.
    assert!(grown < 32 << 20, "grew by {grown} bytes over a result of 256 MiB");
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

#[test]
fn a_client_that_stops_reading_within_tls_leaves_memory_flat_too() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = tls::Lab::new();
    let world = lab.world();
    let (mut client, mut server) =
        tls::connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    tls::say(&mut client, b"give me everything\n");
    tls::expect(&mut server, b"give me everything\n");
    let block = format!("+{}\n", "x".repeat(65_534)).into_bytes();
    let (blocks, size) = (2048, block.len() * 2048);
    let writer = thread::spawn(move || {
        for _ in 0..blocks {
            server.write_all(&block).unwrap();
        }
        tls::say(&mut server, b"ok\n");
        server
    });
    let mut start = vec![0; 1_000_000];
    client.read_exact(&mut start).unwrap();
    let before = resident();
    let (mut sibling, mut its_server) =
        tls::connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    for _ in 0..1_000 {
        tls::say(&mut sibling, b"quick\n");
        tls::expect(&mut its_server, b"quick\n");
        tls::say(&mut its_server, b"ok\n");
        tls::expect(&mut sibling, b"ok\n");
    }
    assert!(!writer.is_finished(), "nothing holds the server back");
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes while the client did not read");
    let mut left = size + 3 - start.len();
    let mut scrap = vec![0; 1 << 20];
    while left > 0 {
        let n = left.min(scrap.len());
        client.read_exact(&mut scrap[..n]).unwrap();
        left -= n;
    }
    drop(writer.join().unwrap());
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes over a result of 128 MiB");
}

#[test]
fn idle_connections_within_tls_hold_no_buffer() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = tls::Lab::new();
    let world = lab.world();
    let config = lab.server(&["db.example"]);
    // A result of several records, so that buffers have grown before.
    let answer = [b"+".repeat(40_000).as_slice(), b"\nok\n"].concat();
    let mut open = Vec::new();
    let mut before = 0;
    for n in 0..400 {
        if n == 100 {
            before = resident();
        }
        let (mut client, mut server) = tls::connect(&world, lab.client(), "db.example", config.clone());
        tls::say(&mut client, b"one\n");
        tls::expect(&mut server, b"one\n");
        tls::say(&mut server, &answer);
        tls::expect(&mut client, &answer);
        open.push((client, server));
    }
    // Two thirds of it are the test's own: its two sessions, and a configuration for each client.
    let each = resident().saturating_sub(before) / 300;
    assert!(each < 104 * 1024, "{each} bytes for an idle connection");
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
