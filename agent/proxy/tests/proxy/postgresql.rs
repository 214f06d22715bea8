//! The real decoder: between bytes that play a server, and between psql and PostgreSQL where that is
//! installed.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    sync::Arc,
};

use verbatim_api::v1;
use verbatim_proxy::{Builtin, ProxyConfig};

use crate::support::{
    Options, Peer, World,
    database::{Database, out, psql, psql_command, run},
    eventually,
    spool::{MemorySpool, Mood, each_start_has_one_end},
};

pub(super) fn world() -> World {
    let config = ProxyConfig::default();
    let protocols = Arc::new(Builtin { limits: config.limits });
    World::start(Options { config, protocols, shards: 2, ..Options::default() })
}

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

pub(super) fn start_up(peer: &mut Peer, server: &mut Peer) {
    let parameters = b"user\0ada\0database\0shop\0\0";
    let length = u32::try_from(parameters.len() + 8).unwrap();
    let packet = [&length.to_be_bytes()[..], &196_608_u32.to_be_bytes(), parameters].concat();
    peer.stream.write_all(&packet).unwrap();
    let mut arrived = vec![0; packet.len()];
    server.read_exactly(&mut arrived);
    assert_eq!(arrived, packet);
    let welcome = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    server.stream.write_all(&welcome).unwrap();
    let mut arrived = vec![0; welcome.len()];
    peer.read_exactly(&mut arrived);
    assert_eq!(arrived, welcome);
}

#[test]
fn a_server_that_answers_before_it_was_asked_is_carried_and_recorded_as_not_decoded() {
    let world = world();
    let (mut client, mut server) = world.connect();
    start_up(&mut client, &mut server);
    let answer = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    server.stream.write_all(&answer).unwrap();
    let mut arrived = vec![0; answer.len()];
    client.read_exactly(&mut arrived);
    assert_eq!(arrived, answer);
    drop((client, server));
    let closing = eventually("the closing record", || world.spool().closing());
    assert_eq!(closing.envelope.opaque_reason(), v1::OpaqueReason::Desynchronised);
}

/// A statement that the server rejects, without a Sync.
fn rejected(client: &mut Peer, server: &mut Peer) {
    let parse = [message(b'P', b"\0selec 1\0\0\0"), message(b'H', b"")].concat();
    client.stream.write_all(&parse).unwrap();
    let mut arrived = vec![0; parse.len()];
    server.read_exactly(&mut arrived);
    let error = message(b'E', b"SERROR\0VERROR\0C42601\0Msyntax error\0\0");
    server.stream.write_all(&error).unwrap();
    let mut arrived = vec![0; error.len()];
    client.read_exactly(&mut arrived);
}

#[test]
fn a_statement_that_the_server_rejected_is_recorded_however_its_client_goes() {
    for (resets, full) in [(false, false), (true, false), (true, true)] {
        let world = world();
        let (mut client, mut server) = world.connect();
        start_up(&mut client, &mut server);
        rejected(&mut client, &mut server);
        if full {
            world.spool().set(Mood::Full);
        }
        match resets {
            // Nothing is heard of the server's end: it is reset, too.
            true => client.reset(),
            false => {
                client.shut();
                server.rest().unwrap();
                server.shut();
            }
        }
        if full {
            eventually("its records wait for room", || (world.spool().waits() > 0).then_some(()));
            assert!(server.rest().is_err(), "its server need not wait with them");
            world.spool().set(Mood::Takes);
        }
        eventually("the closing record", || world.spool().closing());
        let story = world.spool().story();
        assert_eq!(story, ["started allowed selec 1", "finished error"], "reset: {resets}, full: {full}");
        each_start_has_one_end(world.spool());
    }
}

#[test]
fn an_outcome_that_the_server_has_said_is_recorded_though_its_client_resets_while_there_is_no_room() {
    let world = world();
    let (mut client, mut server) = world.connect();
    start_up(&mut client, &mut server);
    let query = message(b'Q', b"select 1\0");
    client.stream.write_all(&query).unwrap();
    server.read_exactly(&mut vec![0; query.len()]);
    // Its end is known, and recorded when it is known in which state of a transaction.
    let complete = message(b'C', b"SELECT 1\0");
    server.stream.write_all(&complete).unwrap();
    client.read_exactly(&mut vec![0; complete.len()]);
    world.spool().set(Mood::Full);
    client.reset();
    eventually("its records wait for room", || (world.spool().waits() > 0).then_some(()));
    world.spool().set(Mood::Takes);
    eventually("the closing record", || world.spool().closing());
    assert_eq!(world.spool().story(), ["started allowed select 1", "finished ok"]);
}

#[test]
fn garbage_after_the_start_up_is_carried_and_recorded_as_not_decoded() {
    let world = world();
    let (mut client, mut server) = world.connect();
    start_up(&mut client, &mut server);
    let garbage: Vec<u8> = (0..100_000_u32).map(|n| (n * 7 % 256) as u8).collect();
    client.stream.write_all(&garbage).unwrap();
    let mut arrived = vec![0; garbage.len()];
    server.read_exactly(&mut arrived);
    assert_eq!(arrived, garbage);
    drop((client, server));
    let closing = eventually("the closing record", || world.spool().closing());
    assert_eq!(closing.envelope.opaque_reason(), v1::OpaqueReason::Malformed);
}

#[test]
fn a_statement_of_many_megabytes_passes_and_is_recorded_cut_with_its_length_and_digest() {
    let world = world();
    let (mut client, mut server) = world.connect();
    start_up(&mut client, &mut server);
    let mut text = b"select '".to_vec();
    text.resize(20_000_000, b'x');
    text.extend_from_slice(b"'\0");
    let query = message(b'Q', &text);
    let mut reader = server.stream.try_clone().unwrap();
    let length = query.len();
    let reading = std::thread::spawn(move || {
        let mut arrived = vec![0; length];
        reader.read_exact(&mut arrived).unwrap();
        arrived
    });
    client.stream.write_all(&query).unwrap();
    assert!(reading.join().unwrap() == query);
    let started = &world.spool().of_kind(v1::RecordKind::Started)[0];
    assert_eq!(started.envelope.capture(), v1::Capture::Partly);
    let statement = started.content.as_ref().unwrap().statement.as_ref().unwrap();
    assert_eq!((statement.full_length, statement.full_sha256.len()), (text.len() as u64 - 1, 32));
    assert!(statement.text.len() <= 256 * 1024 && text.starts_with(&statement.text));
}

/// A ClientHello with a server name (RFC 8446 section 4.1.2, RFC 6066 section 3), in one record.
fn client_hello(name: &str) -> Vec<u8> {
    let long = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let names = long(&[&[0][..], &long(name.as_bytes())].concat());
    let extensions = long(&[&[0, 0][..], &long(&names)].concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &long(&[0x13, 0x01]), &[1, 0], &extensions].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let handshake = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &long(&handshake)].concat()
}

#[test]
fn a_connection_that_asks_for_tls_is_spliced_and_recorded_with_the_name_it_says_then() {
    for optimistic in [false, true] {
        let world = world();
        let (mut client, mut server) = world.connect();
        let hello = client_hello("db.example");
        let request = [0, 0, 0, 8, 4, 210, 22, 47];
        // In one piece, or the proxy may see them one after the other.
        let eager = if optimistic { hello.as_slice() } else { &[] };
        client.stream.write_all(&[&request[..], eager].concat()).unwrap();
        let mut arrived = [0; 8];
        server.read_exactly(&mut arrived);
        assert_eq!(arrived, request);
        server.send("S");
        let mut consent = [0];
        client.read_exactly(&mut consent);
        if !optimistic {
            client.stream.write_all(&hello).unwrap();
        }
        let mut arrived = vec![0; hello.len()];
        server.read_exactly(&mut arrived);
        assert_eq!(arrived, hello);
        server.send("hello yourself");
        let mut arrived = [0; 14];
        client.read_exactly(&mut arrived);
        drop((client, server));
        let closing = eventually("the closing record", || world.spool().closing());
        assert_eq!(closing.envelope.opaque_reason(), v1::OpaqueReason::Tls);
        assert_eq!(closing.envelope.capture(), v1::Capture::SeenNotDecoded);
        assert_eq!(closing.envelope.bytes_received, 15);
        assert_eq!(closing.envelope.bytes_sent, 8 + hello.len() as u64);
        // A client that did not wait for the consent has gone past before anybody asked for its name.
        let expected = if optimistic { "" } else { "db.example" };
        assert_eq!(closing.content.unwrap().target.unwrap().host, expected);
    }
}

/// Kind, status or decision and statement, in the order of both shards.
fn story(spools: &[MemorySpool]) -> Vec<String> {
    spools.iter().flat_map(MemorySpool::story).collect()
}

#[test]
fn psql_works_on_a_real_database_and_every_statement_is_recorded() {
    let Some(database) = Database::start() else { return };
    let world = world();
    *world.flows.0.lock().unwrap() = Some(database.address());
    let proxy = world.proxies[0];

    let (rows, errors) = out(&psql(proxy, &["-c", "select 1+1; select 'two'", "-c", "select nothing"]));
    assert_eq!(rows, "2\ntwo\n");
    assert!(errors.contains("column \"nothing\" does not exist"), "{errors}");

    // Denied within a transaction: it fails as by the server's own error.
    let script = ["-c", "begin", "-c", "deny this", "-c", "select 3", "-c", "rollback", "-c", "select 4"];
    let (rows, errors) = out(&psql(proxy, &script));
    assert_eq!(rows, "BEGIN\nROLLBACK\n4\n");
    assert!(errors.contains("deny it is") && errors.contains("current transaction is aborted"), "{errors}");

    // Held, and cancelled by Ctrl-C; then held and released.
    let mut interrupted = psql_command(proxy, &["-c", "set statement_timeout = 0", "-c", "hold on"]);
    let interrupted = interrupted.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the hold", || world.policy.holds.lock().unwrap().first().map(drop));
    run(Command::new("kill").args(["-INT", &interrupted.id().to_string()]));
    let (_, errors) = out(&interrupted.wait_with_output().unwrap());
    assert!(errors.contains("canceling statement due to user request"), "{errors}");
    world.policy.holds.lock().unwrap().clear();
    let held = std::thread::spawn(move || psql(proxy, &["-c", "hold; select 5"]));
    world.answer_hold(true);
    let (_, errors) = out(&held.join().unwrap());
    assert!(errors.contains("syntax error at or near \"hold\""), "the server has seen it: {errors}");

    world.drain();
    let story = story(&world.spools);
    for expected in [
        "started allowed select 1+1;",
        "started denied deny this",
        "started held hold on",
        "decided abandoned",
        "started held hold;",
        "decided allowed",
        "started allowed select 4",
    ] {
        assert!(story.iter().any(|line| line.trim_end() == expected), "{expected}: {story:#?}");
    }
    world.spools.iter().for_each(each_start_has_one_end);
    let started = world.spools[0].of_kind(v1::RecordKind::Started);
    let target = started[0].content.as_ref().unwrap().target.as_ref().unwrap();
    assert_eq!((target.database.as_str(), target.user.as_str()), ("postgres", "postgres"));
}

#[test]
fn a_client_that_is_far_ahead_of_its_answers_waits_and_all_of_it_is_recorded() {
    let mut config = ProxyConfig::default();
    config.limits.commands_in_flight = 3;
    let protocols = Arc::new(Builtin { limits: config.limits });
    let world = World::start(Options { config, protocols, ..Options::default() });
    let (mut client, mut server) = world.connect();
    start_up(&mut client, &mut server);
    // Together more than is ever kept of what was not looked at.
    let query = message(b'Q', &[&[b'x'; 100_000][..], b"\0"].concat());
    let (mut sender, queries) = (client.stream.try_clone().unwrap(), query.repeat(40));
    let sending = std::thread::spawn(move || sender.write_all(&queries).unwrap());
    let answer = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    let mut arrived = vec![0; query.len()];
    for _ in 0..3 {
        server.read_exactly(&mut arrived);
        assert!(arrived == query);
    }
    assert!(server.is_quiet(), "more than is followed");
    for left in (0..40).rev() {
        server.stream.write_all(&answer).unwrap();
        if left >= 3 {
            server.read_exactly(&mut arrived);
            assert!(arrived == query);
        }
        let mut answered = vec![0; answer.len()];
        client.read_exactly(&mut answered);
        assert_eq!(answered, answer);
    }
    sending.join().unwrap();
    drop((client, server));
    let closing = eventually("the closing record", || world.spool().closing());
    assert_eq!(closing.envelope.capture(), v1::Capture::Decoded);
    assert_eq!(world.spool().of_kind(v1::RecordKind::Started).len(), 40);
    each_start_has_one_end(world.spool());
}
