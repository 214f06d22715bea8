//! Denied, held, expired, abandoned and cancelled commands.

use std::time::Duration;

use crate::support::{Options, World, eventually, spool::each_start_has_one_end};
use verbatim_api::v1;

#[test]
fn a_denied_command_in_a_pipeline_is_answered_in_its_turn_and_never_forwarded() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("one\ndeny two\nthree\n");
    assert_eq!((server.line().as_str(), server.line().as_str()), ("one\n", "three\n"));
    server.send("ok 1\nok 3\n");
    let answers = [client.line(), client.line(), client.line()];
    assert_eq!(answers, ["ok 1\n", "refused deny it is\n", "ok 3\n"]);
    let denied = &world.spool().of_kind(v1::RecordKind::Started)[1];
    assert_eq!(denied.envelope.decision(), v1::Decision::Denied);
    assert_eq!(denied.content.as_ref().unwrap().verdict.as_ref().unwrap().policies, ["deny-words"]);
    let injected = &world.spool().of_kind(v1::RecordKind::Injected)[0];
    let expected = v1::Injected { toward: v1::Toward::Workload.into(), bytes: 19 };
    assert_eq!(injected.envelope.detail, Some(v1::envelope::Detail::Injected(expected)));
    assert_eq!(injected.envelope.command_id.len(), 16, "of the denied command");
    each_start_has_one_end(world.spool());
    assert_eq!(world.shards.stats().denied, 1);
}

#[test]
fn what_observing_would_have_denied_or_held_passes_and_says_so() {
    let world = World::start(Options { mode: v1::PolicyMode::Observe, ..Options::default() });
    let (mut client, mut server) = world.connect();
    client.send("deny this\nhold that\n");
    assert_eq!((server.line().as_str(), server.line().as_str()), ("deny this\n", "hold that\n"));
    let started = world.spool().of_kind(v1::RecordKind::Started);
    for (record, reason) in started
        .iter()
        .zip(["observed only; would be denied: deny it is", "observed only; would be held: hold it is"])
    {
        assert_eq!(record.envelope.decision(), v1::Decision::Allowed);
        assert_eq!(record.envelope.policy_mode(), v1::PolicyMode::Observe);
        assert_eq!(record.content.as_ref().unwrap().verdict.as_ref().unwrap().reason, reason);
    }
}

#[test]
fn a_held_command_goes_on_when_a_person_allows_it_and_the_decision_was_recorded_first() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("hold me\nnext\n");
    eventually("the hold", || (world.spool().story() == ["started held hold me"]).then_some(()));
    assert!(server.is_quiet(), "forwarded what is held");
    world.answer_hold(true);
    assert_eq!(server.line(), "hold me\n");
    assert_eq!(world.spool().story()[..2], ["started held hold me", "decided allowed"]);
    assert_eq!(server.line(), "next\n");
    server.send("ok\nok\n");
    assert_eq!((client.line().as_str(), client.line().as_str()), ("ok\n", "ok\n"));
    let decided = &world.spool().of_kind(v1::RecordKind::Decided)[0];
    let verdict = decided.content.as_ref().unwrap().verdict.as_ref().unwrap();
    assert_eq!((verdict.approver.as_str(), verdict.approval_id.as_str()), ("grace", "a-1"));
    assert_eq!(decided.envelope.command_id.len(), 16);
    each_start_has_one_end(world.spool());
}

#[test]
fn a_hold_that_is_allowed_waits_until_its_decision_is_durable() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("hold me\n");
    eventually("the hold", || world.spool().story().pop());
    world.spool().group();
    world.answer_hold(true);
    eventually("the decision", || (world.spool().story().len() == 2).then_some(()));
    assert!(server.is_quiet(), "released before the decision was synced");
    world.spool().sync();
    assert_eq!(server.line(), "hold me\n");
}

#[test]
fn a_held_command_that_a_person_refuses_is_answered_and_the_connection_goes_on() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("hold me\n");
    world.answer_hold(false);
    assert_eq!(client.line(), "refused looked at it\n");
    client.send("next\n");
    assert_eq!(server.line(), "next\n");
    let story = world.spool().story();
    let expected = [
        "started held hold me",
        "decided denied",
        "finished not_forwarded",
        "injected",
        "started allowed next",
    ];
    assert_eq!(story, expected);
}

#[test]
fn a_hold_that_nobody_can_answer_any_more_is_refused() {
    let world = World::new();
    let (mut client, _server) = world.connect();
    client.send("hold me\n");
    drop(eventually("the hold", || world.policy.holds.lock().unwrap().pop()));
    assert_eq!(client.line(), "refused nobody can be asked any more\n");
}

#[test]
fn a_hold_expires() {
    let world = World::start(Options { deadline: Duration::from_millis(50), ..Options::default() });
    let (mut client, _server) = world.connect();
    client.send("hold me\n");
    assert_eq!(client.line(), "refused nobody decided in time\n");
    let story = world.spool().story();
    assert_eq!(story[..3], ["started held hold me", "decided expired", "finished not_forwarded"]);
}

#[test]
fn a_hold_is_abandoned_when_the_client_closes_or_resets_even_behind_bytes_that_nobody_reads() {
    let abandoned = ["started held hold me", "decided abandoned", "finished not_forwarded"];
    for (more, reset) in [(0_usize, false), (0, true), (1_000_000, true)] {
        let world = World::new();
        let (mut client, mut server) = world.connect();
        client.send("hold me\n");
        eventually("the hold", || world.spool().story().pop());
        client.stream.set_nonblocking(true).unwrap();
        let mut left = more;
        while left > 0 {
            match std::io::Write::write(&mut client.stream, &[b'x'; 10_000]) {
                Ok(n) => left = left.saturating_sub(n),
                Err(_full) => break,
            }
        }
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        // What stands behind it is another command, cut off by the end.
        let mut forwarded = Vec::new();
        // A reset may end it; what came before counts all the same.
        let _ended = std::io::Read::read_to_end(&mut server.reader, &mut forwarded);
        assert!(!forwarded.windows(7).any(|part| part == b"hold me"), "never forwarded");
        assert!(more > 0 || forwarded.is_empty(), "nothing else was sent");
        drop(server);
        eventually("the end", || world.spool().closing());
        assert_eq!(world.spool().story()[..3], abandoned, "{more} bytes, reset {reset}");
    }
}

#[test]
fn answers_to_earlier_commands_pass_while_a_command_is_held() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("one\nhold me\n");
    assert_eq!(server.line(), "one\n");
    eventually("the hold", || world.policy.holds.lock().unwrap().first().map(drop));
    server.send("+row\nok\n");
    assert_eq!((client.line().as_str(), client.line().as_str()), ("+row\n", "ok\n"));
}

#[test]
fn a_hold_is_abandoned_when_the_server_closes() {
    let world = World::new();
    let (mut client, server) = world.connect();
    client.send("hold me\n");
    eventually("the hold", || world.spool().story().pop());
    drop(server);
    assert_eq!(client.line(), "refused the server has closed the connection\n");
    assert_eq!(client.line(), "");
    assert_eq!(world.spool().story()[1], "decided abandoned");
}

#[test]
fn a_server_that_breaks_the_protocol_does_not_release_a_held_command() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("hold me\n");
    eventually("the hold", || world.spool().story().pop());
    server.send("chaos\n");
    assert!(client.rest().is_err(), "reset");
    assert_eq!(server.rest().unwrap_or_default(), b"", "never forwarded");
    eventually("the end", || world.spool().closing());
    let story = world.spool().story();
    assert_eq!(story, ["started held hold me", "progress", "decided abandoned", "finished not_forwarded"]);
}

#[test]
fn a_drain_abandons_what_is_held() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send("hold me\n");
    eventually("the hold", || world.spool().story().pop());
    world.drain();
    assert_eq!(server.rest().unwrap_or_default(), b"");
    let story = world.spool().story();
    assert_eq!(story, ["started held hold me", "decided abandoned", "finished not_forwarded"]);
}

#[test]
fn a_cancel_request_gives_up_a_hold_on_another_shard_and_does_not_reach_the_server() {
    let world = World::start(Options { shards: 2, ..Options::default() });
    let (mut client, mut server) = world.connect();
    client.send("hello\n");
    assert_eq!(server.line(), "hello\n");
    server.send("key 42 sesame\nok\n");
    assert_eq!((client.line().as_str(), client.line().as_str()), ("key 42 sesame\n", "ok\n"));
    client.send("hold me\n");
    eventually("the hold", || world.policy.holds.lock().unwrap().first().map(drop));

    let mut canceller = world.client_of(1);
    let mut asked = world.accept();
    canceller.send("cancel 42 sesame\n");
    assert_eq!(client.line(), "refused canceling statement due to user request\n");
    canceller.shut();
    assert_eq!(asked.rest().unwrap(), b"", "not forwarded");
    drop(asked);
    let note = eventually("the cancel's end", || {
        world.spools[1].of_kind(v1::RecordKind::Finished).pop().map(|record| record.content.unwrap().note)
    });
    assert!(note.contains("was held here"), "{note}");
    let story = world.spools[0].story();
    assert_eq!(story[2..5], ["started held hold me", "decided abandoned", "finished not_forwarded"]);
    client.send("next\n");
    assert_eq!(server.line(), "next\n");
    // The key is a credential: it is in no record.
    let everything = format!("{:?}", world.spools[0].records());
    assert!(!everything.contains("sesame"));
}

#[test]
fn a_cancel_request_goes_to_the_server_when_nothing_is_held_or_something_runs_there() {
    let world = World::start(Options { shards: 2, ..Options::default() });
    let (mut client, mut server) = world.connect();
    client.send("hello\n");
    assert_eq!(server.line(), "hello\n");
    server.send("key 42 sesame\nok\n");
    client.line();
    client.line();
    for (running, key) in [("slow\n", "42 sesame"), ("slow\nhold me\n", "42 sesame"), ("", "42 wrong")] {
        client.send(running);
        if !running.is_empty() {
            assert_eq!(server.line(), "slow\n");
        }
        if running.contains("hold") {
            eventually("the hold", || world.policy.holds.lock().unwrap().first().map(drop));
        }
        let mut canceller = world.client_of(1);
        let mut asked = world.accept();
        canceller.send(&format!("cancel {key}\n"));
        assert_eq!(asked.line(), format!("cancel {key}\n"));
        drop(asked);
        assert_eq!(canceller.rest().unwrap(), b"");
    }
    // The first two were forwarded and answered by closing.
    drop((client, server));
    eventually("all ends", || (world.shards.stats().open == 0).then_some(()));
    for spool in &world.spools {
        each_start_has_one_end(spool);
    }
    let ends = world.spools[1].of_kind(v1::RecordKind::Finished);
    assert!(ends.iter().all(|end| end.envelope.status() == v1::Status::Ok), "{ends:?}");
}

#[test]
fn a_long_command_that_is_refused_by_its_first_part_closes_the_servers_leg() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    client.send(&format!("deny {}", "x".repeat(200_000)));
    assert_eq!(client.line(), "refused deny it is\n");
    assert_eq!(client.line(), "");
    assert!(server.rest().is_err(), "reset, and nothing of the command arrived");
    drop(client);
    let closing = eventually("the end", || world.spool().closing());
    assert!(closing.content.unwrap().note.contains("refused"));
    assert_eq!(world.spool().story().len(), 3);
    each_start_has_one_end(world.spool());
}

#[test]
fn a_long_command_that_is_held_by_its_first_part_goes_on_and_its_length_follows() {
    let world = World::new();
    let (mut client, mut server) = world.connect();
    let text = format!("hold {}", "x".repeat(200_000));
    client.stream.set_nonblocking(false).unwrap();
    let (mut writer, line) = (client.stream.try_clone().unwrap(), format!("{text}\n"));
    let writing =
        std::thread::spawn(move || std::io::Write::write_all(&mut writer, line.as_bytes()).unwrap());
    eventually("the hold", || world.policy.holds.lock().unwrap().first().map(drop));
    assert!(server.is_quiet());
    world.answer_hold(true);
    assert_eq!(server.line().len(), text.len() + 1);
    writing.join().unwrap();
    let rest = &world.spool().of_kind(v1::RecordKind::Progress)[0];
    assert_eq!(rest.content.as_ref().unwrap().statement.as_ref().unwrap().full_length, text.len() as u64 + 1);
    server.send("ok\n");
    assert_eq!(client.line(), "ok\n");
    each_start_has_one_end(world.spool());
}
