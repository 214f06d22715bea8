//! Commands that were let through by their first part and never read whole.

use std::{io::Write, time::Duration};

use verbatim_api::v1;

use crate::{
    postgresql::{message, start_up, world},
    support::{World, eventually, spool::each_start_has_one_end},
};

const SENT: usize = 400_000;

fn long_query() -> Vec<u8> {
    let mut text = b"select '".to_vec();
    text.resize(600_000, b'x');
    text.extend_from_slice(b"'\0");
    message(b'Q', &text)
}

#[test]
fn a_long_query_is_recorded_before_its_rest_goes_on_undecoded() {
    let world = world();
    let (mut client, mut server) = world.connect();
    start_up(&mut client, &mut server);
    let query = long_query();
    client.stream.write_all(&query[..SENT]).unwrap();
    let mut arrived = vec![0; SENT];
    server.read_exactly(&mut arrived);
    world.spool().group();
    // The answer to nothing: from here on nothing is decoded.
    let answer = message(b'C', b"SELECT 1\0");
    server.stream.write_all(&answer).unwrap();
    eventually("the start", || world.spool().of_kind(v1::RecordKind::Started).pop());
    client.stream.write_all(&query[SENT..]).unwrap();
    assert!(server.is_quiet(), "the rest went on before the start was safe");
    world.spool().sync();
    let mut rest = vec![0; query.len() - SENT];
    server.read_exactly(&mut rest);
    assert!(arrived == query[..SENT] && rest == query[SENT..]);
    let mut arrived = vec![0; answer.len()];
    client.read_exactly(&mut arrived);
    assert_eq!(arrived, answer);
    drop((client, server));
    eventually("the closing record", || world.spool().closing());
    let story = world.spool().story();
    let kinds: Vec<_> = story.iter().filter_map(|told| told.split_whitespace().next()).collect();
    assert_eq!(kinds, ["started", "finished", "progress"]);
    let started = &world.spool().of_kind(v1::RecordKind::Started)[0];
    assert_eq!(started.envelope.capture(), v1::Capture::Partly);
    let text = &started.content.as_ref().unwrap().statement.as_ref().unwrap().text;
    assert!(text.starts_with(b"select 'xxx") && text.len() == 256 * 1024);
    let finished = &world.spool().of_kind(v1::RecordKind::Finished)[0];
    assert_eq!(finished.envelope.status(), v1::Status::OutcomeUnknown);
    assert!(finished.content.as_ref().unwrap().note.contains("was decoded no more"));
    each_start_has_one_end(world.spool());
}

#[test]
fn a_long_query_whose_client_stops_in_it_is_recorded_as_not_forwarded_once() {
    let world = world();
    let (mut client, mut server) = world.connect();
    start_up(&mut client, &mut server);
    client.stream.write_all(&long_query()[..SENT]).unwrap();
    let mut arrived = vec![0; SENT];
    server.read_exactly(&mut arrived);
    client.shut();
    let finished = eventually("the end", || world.spool().of_kind(v1::RecordKind::Finished).pop());
    assert_eq!(finished.envelope.status(), v1::Status::NotForwarded);
    assert!(finished.content.unwrap().note.contains("before the command was whole"));
    drop((client, server));
    eventually("the closing record", || world.spool().closing());
    assert_eq!(world.spool().of_kind(v1::RecordKind::Started).len(), 1);
    each_start_has_one_end(world.spool());
}

#[test]
fn a_long_command_that_is_cut_off_waits_for_room_in_the_spool() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send(&"x".repeat(100_000));
    let mut arrived = vec![0; 100_000];
    server.read_exactly(&mut arrived);
    world.spool().room_for(0);
    client.reset();
    // Long enough for whoever would not wait.
    std::thread::sleep(Duration::from_millis(200));
    for room in 1..4 {
        assert!(world.spool().closing().is_none());
        world.spool().room_for(1);
        eventually("a record", || (world.spool().records().len() == 1 + room).then_some(()));
    }
    let finished = &world.spool().of_kind(v1::RecordKind::Finished)[0];
    assert_eq!(finished.envelope.status(), v1::Status::NotForwarded);
    each_start_has_one_end(world.spool());
}
