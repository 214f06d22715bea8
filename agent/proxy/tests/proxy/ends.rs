//! Connections that are not decoded, and all the ways in which a connection ends.

use std::{
    io::{Read, Write},
    thread,
    time::Duration,
};

use crate::support::{
    Options, World, eventually,
    spool::{MemorySpool, each_start_has_one_end},
};
use verbatim_api::v1;

fn closing(world: &World) -> (v1::Envelope, v1::Content) {
    let record = eventually("the closing record", || world.spool().closing());
    (record.envelope, record.content.unwrap())
}

#[test]
fn a_half_closed_connection_goes_on_the_other_way() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("one\n");
    client.shut();
    assert_eq!((server.line().as_str(), server.line().as_str()), ("one\n", ""));
    server.send("+row\nok\n");
    server.shut();
    assert_eq!(client.rest().unwrap(), b"+row\nok\n");
    assert_eq!(closing(&world).0.status(), v1::Status::Ok);

    let (mut client, mut server) = world.connect();
    client.send("one\n");
    assert_eq!(server.line(), "one\n");
    server.shut();
    assert_eq!(client.line(), "");
    client.send("two\n");
    assert_eq!(server.line(), "two\n");
}

#[test]
fn a_reset_is_carried_over_as_a_reset_both_ways() {
    for from_client in [true, false] {
        let world = World::new();
        let (mut client, mut server) = world.connect();
        client.send("one\n");
        assert_eq!(server.line(), "one\n");
        let (gone, mut left) = if from_client { (client, server) } else { (server, client) };
        gone.reset();
        let error = left.rest().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let (envelope, content) = closing(&world);
        assert_eq!(envelope.status(), v1::Status::Error);
        assert_eq!(content.note, if from_client { "reset by the workload" } else { "reset by the server" });
        assert_eq!(world.spool().story(), ["started allowed one", "finished outcome_unknown"]);
    }
}

#[test]
fn a_command_sent_right_before_a_reset_has_one_start_and_one_end() {
    let world = World::new();
    let (mut client, _server) = world.connect();
    client.send("one\n");
    client.reset();
    closing(&world);
    each_start_has_one_end(world.spool());
}

#[test]
fn a_refused_dial_resets_the_client_and_is_recorded_with_its_reason() {
    let world = World::new();
    // Bound, so that nobody else is there, and not listening.
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    *world.flows.0.lock().unwrap() = bound.local_addr().unwrap().as_socket();
    let mut client = world.client();
    assert!(client.rest().is_err(), "reset");
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::DialFailed);
    assert_eq!(envelope.capture(), v1::Capture::SeenNotDecoded);
    assert!(content.note.contains("Connection refused"), "{}", content.note);
    assert_eq!(world.shards.stats().dial_failed, 1);
}

#[test]
fn a_socket_without_a_flow_is_closed_unread_and_recorded() {
    let world = World::new();
    *world.flows.0.lock().unwrap() = None;
    let mut client = world.client();
    assert!(client.rest().is_err(), "reset");
    let record = eventually("the record", || world.spool().of_kind(v1::RecordKind::Coverage).pop());
    let coverage =
        v1::Coverage { event: v1::CoverageEvent::NoFlow.into(), count: 1, ..v1::Coverage::default() };
    assert_eq!(record.envelope.detail, Some(v1::envelope::Detail::Coverage(coverage)));
    assert_eq!(world.shards.stats().no_flow, 1);
    assert_eq!(world.shards.stats().dialled, 0);
}

#[test]
fn a_connection_that_says_nothing_is_left_in_peace_and_recorded_as_silent() {
    let world = World::new();
    let (client, mut server) = world.connect();
    assert!(server.is_quiet());
    drop(client);
    assert_eq!(server.line(), "");
    drop(server);
    assert_eq!(closing(&world).0.opaque_reason(), v1::OpaqueReason::Silent);
}

#[test]
fn a_server_that_speaks_first_is_spliced() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    server.send("220 welcome\n");
    assert_eq!(client.line(), "220 welcome\n");
    client.send("one\n");
    assert_eq!(server.line(), "one\n");
    drop(client);
    assert_eq!(server.line(), "");
    drop(server);
    let (envelope, _) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::ServerFirst);
    assert_eq!(envelope.operation(), v1::Operation::Connect);
    assert_eq!((envelope.bytes_sent, envelope.bytes_received), (4, 12));
    let stats = world.shards.stats();
    assert_eq!((stats.bytes_sent, stats.bytes_received), (4, 12));
    assert_eq!(stats.spliced.get(v1::OpaqueReason::ServerFirst), 1);
    let summary = world.seen.summaries.lock().unwrap()[0].clone();
    assert!(String::from_utf8(summary.statement).unwrap().ends_with("(server_first)"));
}

#[test]
fn tls_is_spliced_whole_and_recorded_with_the_name_it_asked_for_as_soon_as_that_is_known() {
    let world = World::new();
    let (mut client, server) = world.connect();
    client.send("\u{16}");
    let progress = eventually("the record", || world.spool().of_kind(v1::RecordKind::Progress).pop());
    assert_eq!(progress.envelope.opaque_reason(), v1::OpaqueReason::Tls);
    assert_eq!(progress.envelope.command_id.len(), 16);
    assert_eq!(progress.content.unwrap().target.unwrap().host, "db.example");

    // 40 MB each way at once, and every byte of it.
    let payload: Vec<u8> = (0..40_000_000_u32).map(|n| (n % 251) as u8).collect();
    let write = |mut stream: std::net::TcpStream, payload: Vec<u8>| {
        thread::spawn(move || {
            stream.write_all(&payload).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        })
    };
    let read = |mut stream: std::net::TcpStream| {
        thread::spawn(move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        })
    };
    let writers = [
        write(client.stream.try_clone().unwrap(), payload.clone()),
        write(server.stream.try_clone().unwrap(), payload.clone()),
    ];
    let readers = [read(server.stream.try_clone().unwrap()), read(client.stream.try_clone().unwrap())];
    let [at_server, at_client] = readers.map(|reader| reader.join().unwrap());
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert!(at_server[0] == 0x16 && at_server[1..] == payload && at_client == payload);
    let (envelope, _) = closing(&world);
    assert_eq!(envelope.protocol(), v1::Protocol::Tls);
    assert_eq!((envelope.bytes_sent, envelope.bytes_received), (40_000_001, 40_000_000));
}

#[test]
fn a_spliced_connection_carries_half_close_and_reset() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("???? hello\n");
    client.shut();
    assert_eq!(server.rest().unwrap(), b"???? hello\n");
    server.send("still here\n");
    assert_eq!(client.line(), "still here\n");
    server.reset();
    assert!(client.rest().is_err());

    let (mut client, mut server) = world.connect();
    client.send("???? hello\n");
    assert_eq!(server.line(), "???? hello\n");
    client.reset();
    assert!(server.rest().is_err());
}

/// A long stream is waited for, so that it is moved on in larger pieces. Whoever sends less and waits for the answer
/// must have it go on all the same.
#[test]
fn what_is_less_than_a_piece_of_a_long_stream_goes_on() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    server.send("220\n");
    assert_eq!(client.line(), "220\n");
    let piece: Vec<u8> = (0..100 * 1024).map(|n| (n % 251) as u8).collect();
    let pieces: usize = 1500;
    let mut arrived = vec![0; piece.len()];
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (mut from, mut to) = (&from.stream, &to.stream);
        // Bytes that are kept for ever fail the test.
        to.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for _ in 0..pieces {
            from.write_all(&piece).unwrap();
            to.read_exact(&mut arrived).unwrap();
            assert_eq!(arrived, piece);
        }
        from.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(to.read(&mut arrived).unwrap(), 0);
    }
    let (envelope, _) = closing(&world);
    let each = (pieces * piece.len()) as u64;
    assert_eq!((envelope.bytes_sent, envelope.bytes_received), (each, each + 4));
}

#[test]
fn a_connection_that_stops_being_decoded_goes_on_undecoded_and_is_recorded_as_partly_captured() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("one\n");
    assert_eq!(server.line(), "one\n");
    server.send("ok\n");
    assert_eq!(client.line(), "ok\n");
    client.send("opaque\nanything: deny\n");
    assert_eq!((server.line().as_str(), server.line().as_str()), ("opaque\n", "anything: deny\n"));
    server.send("whatever\n");
    assert_eq!(client.line(), "whatever\n");
    drop(client);
    assert_eq!(server.line(), "");
    drop(server);
    let (envelope, _) = closing(&world);
    assert_eq!(envelope.capture(), v1::Capture::Partly);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::Desynchronised);
    assert_eq!((envelope.bytes_sent, envelope.bytes_received), (26, 12));
}

#[test]
fn every_start_has_exactly_one_end_whatever_is_torn_down_when() {
    let world = World::start(Options { shards: 2, deadline: Duration::from_millis(5), ..Options::default() });
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for round in 0..300 {
        let mut client = world.client_of((round % 2) as usize);
        let mut server = world.accept();
        let commands = ["one\n", "a;b;c\n", "deny x\n", "hold y\n", "half", "err\n", "opaque\n"];
        for _ in 0..next(6) {
            let _gone = client.stream.write_all(commands[next(7) as usize].as_bytes());
        }
        let answers = ["ok\n", "+row\n", "err\n", "half", "chaos\n", "ok\nok\n"];
        if next(2) == 0 {
            server.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let _nothing = server.stream.read(&mut [0; 64]);
        }
        for _ in 0..next(5) {
            let _gone = server.stream.write_all(answers[next(6) as usize].as_bytes());
        }
        match next(5) {
            0 => client.reset(),
            1 => server.reset(),
            2 => client.shut(),
            3 => server.shut(),
            _ => {}
        }
    }
    world.drain();
    assert_eq!(world.shards.stats().open, 0);
    assert_eq!(world.shards.stats().panics, 0);
    let started: usize =
        world.spools.iter().map(|spool: &MemorySpool| spool.of_kind(v1::RecordKind::Started).len()).sum();
    assert!(started > 300, "{started} commands");
    world.spools.iter().for_each(each_start_has_one_end);
    for spool in &world.spools {
        let connections = spool.of_kind(v1::RecordKind::Connection);
        let open = connections.iter().filter(|record| record.envelope.status() == v1::Status::Pending);
        assert_eq!(open.count() * 2, connections.len(), "each opening has its closing");
    }
}
