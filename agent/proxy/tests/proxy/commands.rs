//! Commands that pass, and the order of record and byte.

use crate::support::{
    Options, World, eventually,
    spool::{Mood, each_start_has_one_end},
};
use verbatim_api::v1;
use verbatim_proxy::ProxyConfig;

#[test]
fn a_command_is_recorded_started_and_finished_within_its_connection() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("select 1\n");
    assert_eq!(server.line(), "select 1\n");
    assert_eq!(world.spool().story(), ["started allowed select 1"]);
    server.send("+row\nok\n");
    assert_eq!((client.line().as_str(), client.line().as_str()), ("+row\n", "ok\n"));
    assert_eq!(world.spool().story(), ["started allowed select 1", "finished ok"]);
    drop(client);
    assert_eq!(server.line(), "");
    drop(server);
    let closing = eventually("the closing record", || world.spool().closing());

    let opening = &world.spool().records()[0];
    let started = &world.spool().of_kind(v1::RecordKind::Started)[0];
    let finished = &world.spool().of_kind(v1::RecordKind::Finished)[0];
    assert_eq!(opening.envelope.kind(), v1::RecordKind::Connection);
    assert_eq!(opening.envelope.status(), v1::Status::Pending);
    assert!(opening.envelope.flow_id.is_empty());
    let flow_id = started.envelope.flow_id.clone();
    assert_eq!(
        (flow_id.len(), &finished.envelope.flow_id, &closing.envelope.flow_id),
        (16, &flow_id, &flow_id)
    );
    assert_eq!(finished.envelope.command_id.len(), 16);
    assert_eq!(started.envelope.workload.as_ref().unwrap().cgroup_id, 4711);
    assert_eq!(started.envelope.policy_version, "words-1");
    assert_eq!(closing.envelope.capture(), v1::Capture::Decoded);
    assert_eq!((closing.envelope.bytes_sent, closing.envelope.bytes_received), (9, 8));
    let client = opening.content.as_ref().unwrap().client.as_ref().unwrap();
    assert_eq!((client.comm.as_str(), client.local_user.as_str()), ("test-client", "local:box/ada"));
    assert!(!client.executable.is_empty());
    let target = started.content.as_ref().unwrap().target.as_ref().unwrap();
    assert_eq!((target.service.as_str(), target.address.as_str()), ("lines", "127.0.0.1"));
    let stats = world.shards.stats();
    assert_eq!((stats.accepted, stats.dialled, stats.commands, stats.panics), (1, 1, 1, 0));
    let summaries = world.seen.summaries.lock().unwrap();
    assert_eq!((summaries.len(), summaries[0].principal.as_str()), (1, "local:box/ada"));
    assert_eq!(summaries[0].statement, b"select 1");
}

#[test]
fn bytes_that_come_one_at_a_time_make_the_same_records() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    for byte in "one;two\n".chars() {
        client.send(&byte.to_string());
    }
    assert_eq!(server.line(), "one;two\n");
    for byte in "ok\nerr\n".chars() {
        server.send(&byte.to_string());
    }
    assert_eq!((client.line().as_str(), client.line().as_str()), ("ok\n", "err\n"));
    let story = world.spool().story();
    assert_eq!(story, ["started allowed one", "started allowed two", "finished ok", "finished error"]);
}

#[test]
fn a_pipeline_passes_whole_and_in_order() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    let commands: Vec<_> = (0..500).map(|n| format!("command {n}\n")).collect();
    client.send(&commands.concat());
    for command in &commands {
        assert_eq!(&server.line(), command);
    }
    server.send(&"ok\n".repeat(500));
    for _ in 0..500 {
        assert_eq!(client.line(), "ok\n");
    }
    assert_eq!(world.spool().of_kind(v1::RecordKind::Started).len(), 500);
    each_start_has_one_end(world.spool());
}

#[test]
fn the_last_byte_of_a_command_waits_for_room_in_the_spool() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("first\n");
    assert_eq!(server.line(), "first\n");
    world.spool().set(Mood::Full);
    client.send("second\n");
    assert!(server.is_quiet(), "forwarded what was not recorded");
    assert_eq!(world.spool().story(), ["started allowed first"]);
    world.spool().set(Mood::Takes);
    assert_eq!(server.line(), "second\n");
}

#[test]
fn an_answer_waits_until_the_end_of_its_command_is_recorded() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("first\n");
    assert_eq!(server.line(), "first\n");
    world.spool().set(Mood::Full);
    server.send("ok\n");
    assert!(client.is_quiet(), "answered what was not recorded as finished");
    world.spool().set(Mood::Takes);
    assert_eq!(client.line(), "ok\n");
    assert_eq!(world.spool().story(), ["started allowed first", "finished ok"]);
}

#[test]
fn an_outcome_that_is_known_when_the_agent_drains_is_recorded_when_there_is_room_just_in_time() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("first\n");
    assert_eq!(server.line(), "first\n");
    world.spool().set(Mood::Full);
    server.send("ok\n");
    eventually("the answer waits for room", || (world.spool().waits() == 1).then_some(()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the end of its connection does", || (world.spool().waits() == 2).then_some(()));
            world.spool().set(Mood::Takes);
        });
        world.drain();
    });
    assert_eq!(world.spool().story(), ["started allowed first", "finished ok"]);
    assert!(world.spool().closed());
}

#[test]
fn a_unit_that_finds_room_for_half_of_its_commands_records_each_once() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    eventually("the opening", || world.spool().records().first().cloned());
    world.spool().room_for(1);
    client.send("one;two;three\n");
    assert!(server.is_quiet());
    assert_eq!(world.spool().story(), ["started allowed one"]);
    world.spool().room_for(10);
    assert_eq!(server.line(), "one;two;three\n");
    let story = ["started allowed one", "started allowed two", "started allowed three"];
    assert_eq!(world.spool().story(), story);
}

#[test]
fn the_last_byte_of_a_command_waits_until_its_record_is_durable() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("first\n");
    assert_eq!(server.line(), "first\n");
    world.spool().group();
    client.send("second\n");
    eventually("the record", || (world.spool().story().len() == 2).then_some(()));
    assert!(server.is_quiet(), "forwarded what was not synced");
    // The other direction goes on meanwhile.
    server.send("ok\n");
    assert_eq!(client.line(), "ok\n");
    world.spool().sync();
    assert_eq!(server.line(), "second\n");
}

#[test]
fn a_command_whose_record_cannot_be_written_never_goes_upstream() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("first\n");
    assert_eq!(server.line(), "first\n");
    world.spool().set(Mood::TooLarge);
    client.send("second\n");
    assert!(client.rest().is_err(), "reset");
    assert!(server.rest().is_err(), "reset without the command");
    assert_eq!(world.spool().story(), ["started allowed first"]);
}

#[test]
fn a_spool_that_sheds_lets_commands_pass() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    eventually("the opening", || world.spool().records().first().cloned());
    world.spool().set(Mood::Sheds);
    client.send("first\n");
    assert_eq!(server.line(), "first\n");
    server.send("ok\n");
    assert_eq!(client.line(), "ok\n");
    world.spool().set(Mood::Takes);
    client.send("second\n");
    assert_eq!(server.line(), "second\n");
    server.send("ok\n");
    assert_eq!(client.line(), "ok\n");
    assert_eq!(world.spool().story(), ["started allowed second", "finished ok"]);
}

#[test]
fn a_command_longer_than_the_capture_limit_streams_and_its_last_byte_waits_for_the_record() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    let long = "x".repeat(300_000);
    client.send(&long);
    let mut arrived = vec![0; long.len()];
    server.read_exactly(&mut arrived);
    assert_eq!(world.spool().story(), [""; 0]);
    world.spool().set(Mood::Full);
    client.send("\n");
    assert!(server.is_quiet(), "completed what was not recorded");
    world.spool().set(Mood::Takes);
    assert_eq!(server.line(), "\n");
    let started = &world.spool().of_kind(v1::RecordKind::Started)[0];
    assert_eq!(started.envelope.capture(), v1::Capture::Partly);
    assert_eq!(started.content.as_ref().unwrap().statement.as_ref().unwrap().full_length, 300_001);
    server.send("ok\n");
    assert_eq!(client.line(), "ok\n");
    each_start_has_one_end(world.spool());
}

#[test]
fn a_long_command_that_is_cut_off_is_recorded_as_not_forwarded() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send(&"x".repeat(100_000));
    let mut arrived = vec![0; 100_000];
    server.read_exactly(&mut arrived);
    client.reset();
    eventually("the closing record", || world.spool().closing());
    let finished = &world.spool().of_kind(v1::RecordKind::Finished)[0];
    assert_eq!(finished.envelope.status(), v1::Status::NotForwarded);
    assert!(finished.content.as_ref().unwrap().note.contains("before the command was whole"));
    each_start_has_one_end(world.spool());
}

#[test]
fn a_panic_resets_one_connection_and_is_recorded_and_the_shard_goes_on() {
    let world = World::new();
    for poison in ["bug\n", "panic\n"] {
        let (mut client, mut server) = world.connect();
        client.send("first\n");
        assert_eq!(server.line(), "first\n");
        client.send(poison);
        assert!(client.rest().is_err(), "reset");
        assert!(server.rest().is_err(), "reset");
    }
    eventually("both ends", || (world.shards.stats().open == 0).then_some(()));
    assert_eq!(world.shards.stats().panics, 2);
    let note = world.spool().closing().unwrap().content.unwrap().note;
    assert!(note.contains("policy was told to panic"), "{note}");
    let story = world.spool().story();
    assert_eq!(story.iter().filter(|line| *line == "finished outcome_unknown").count(), 2);
    let (mut client, mut server) = world.connect();
    client.send("after\n");
    assert_eq!(server.line(), "after\n");
}

#[test]
fn draining_resets_what_is_open_records_its_end_and_closes_the_chain() {
    let world = World::start(Options { shards: 2, ..Options::default() });
    let (mut client, mut server) = world.connect();
    client.send("slow\n");
    assert_eq!(server.line(), "slow\n");
    world.drain();
    assert!(client.rest().is_err(), "reset");
    assert_eq!(world.spool().story(), ["started allowed slow", "finished outcome_unknown"]);
    assert_eq!(world.spool().closing().unwrap().envelope.status(), v1::Status::OutcomeUnknown);
    assert!(world.spools.iter().all(|spool| spool.closed()));
    assert!(std::net::TcpStream::connect(world.proxies[1]).is_err(), "no listener is left");
}

#[test]
fn a_chain_with_a_command_whose_end_finds_no_room_is_left_open_for_the_successor() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("slow\n");
    assert_eq!(server.line(), "slow\n");
    world.spool().set(Mood::Full);
    world.drain();
    assert_eq!(world.spool().story(), ["started allowed slow"]);
    assert!(!world.spool().closed());
    assert_eq!(world.shards.stats().unwritten, 2);
}

/// How many wait to be accepted: what proc_pid_net(5) has as the receive queue of a listening socket.
fn queued(listener: std::net::SocketAddr) -> u32 {
    let local = format!(":{:04X} 00000000:0000 0A ", listener.port());
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let found = sockets.lines().find_map(|line| line.split_once(&local));
    let queues =
        found.and_then(|(_, rest)| rest.split_once(' ')).and_then(|(queues, _)| queues.split_once(':'));
    queues.map_or(0, |(_, waiting)| u32::from_str_radix(waiting, 16).unwrap())
}

#[test]
fn draining_takes_and_records_what_still_waits_in_the_queue() {
    let config = ProxyConfig { connections_per_shard: 1, ..Options::default().config };
    let world = World::start(Options { config, ..Options::default() });
    let (_client, _server) = world.connect();
    let waiting: Vec<_> = (0..3).map(|_| world.client()).collect();
    // A client's connect() may return before its connection is in the queue.
    eventually("all in the queue", || (queued(world.proxies[0]) == 3).then_some(()));
    world.drain();
    for mut client in waiting {
        assert!(client.rest().is_err(), "reset");
    }
    let connections = world.spool().of_kind(v1::RecordKind::Connection);
    let open = connections.iter().filter(|record| record.envelope.status() == v1::Status::Pending).count();
    assert_eq!((open, connections.len()), (4, 8));
}

#[test]
fn draining_waits_for_a_connection_that_ends_in_time() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("last\n");
    assert_eq!(server.line(), "last\n");
    let worker = std::thread::spawn(move || {
        server.send("ok\n");
        assert_eq!(client.line(), "ok\n");
    });
    world.block_on(world.shards.drain(crate::support::PATIENCE));
    worker.join().unwrap();
    assert_eq!(world.spool().story(), ["started allowed last", "finished ok"]);
}

#[test]
fn the_agent_appends_its_own_records_and_stops_listening_by_namespace() {
    let world = World::new();
    let draft = verbatim_spool::Draft {
        envelope: v1::Envelope { kind: v1::RecordKind::Heartbeat.into(), ..v1::Envelope::default() },
        content: None,
    };
    world.block_on(world.shards.append(0, draft.clone())).unwrap();
    assert_eq!(world.spool().of_kind(v1::RecordKind::Heartbeat).len(), 1);
    assert!(world.block_on(world.shards.append(7, draft)).is_err());
    world.block_on(world.shards.stop_listening(99)).unwrap();
    let (mut client, mut server) = world.connect();
    world.block_on(world.shards.stop_listening(1)).unwrap();
    assert!(std::net::TcpStream::connect(world.proxies[0]).is_err());
    client.send("still here\n");
    assert_eq!(server.line(), "still here\n");
}

#[test]
fn a_record_of_the_agents_own_is_not_written_once_its_caller_has_given_up() {
    let world = World::new();
    let draft = |kind: v1::RecordKind| verbatim_spool::Draft {
        envelope: v1::Envelope { kind: kind.into(), ..v1::Envelope::default() },
        content: None,
    };
    world.spool().set(Mood::Full);
    for _ in 0..3 {
        let before = world.spool().waits();
        world.block_on(async {
            let appended = world.shards.append(0, draft(v1::RecordKind::Heartbeat));
            let waits = async {
                while world.spool().waits() == before {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            };
            tokio::select! { biased; _ = appended => panic!("it is full"), () = waits => {} }
        });
    }
    // Nobody waits for this one, either; but it was left to the shard.
    drop(world.block_on(world.shards.entrust(0, draft(v1::RecordKind::Coverage))).unwrap());
    world.spool().set(Mood::Takes);
    world.block_on(world.shards.append(0, draft(v1::RecordKind::Progress))).unwrap();
    eventually("both", || (world.spool().records().len() >= 2).then_some(()));
    world.drain();
    let mut kinds: Vec<_> = world.spool().records().iter().map(|record| record.envelope.kind()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [v1::RecordKind::Progress, v1::RecordKind::Coverage]);
}

#[test]
fn a_shard_accepts_no_more_than_its_limit_and_goes_on_when_one_ends() {
    let config = ProxyConfig {
        connections_per_shard: 1,
        limits: crate::support::lines::limits(),
        ..ProxyConfig::default()
    };
    let world = World::start(Options { config, ..Options::default() });
    let (mut client, mut server) = world.connect();
    client.send("one\n");
    assert_eq!(server.line(), "one\n");
    let mut second = world.client();
    second.send("two\n");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(world.shards.stats().accepted, 1);
    drop((client, server));
    let mut server = world.accept();
    assert_eq!(server.line(), "two\n");
}
