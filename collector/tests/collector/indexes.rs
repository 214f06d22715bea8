//! One suite for every index; the one in memory, which looks at every row, is the measure for the other.

use verbatim_api::v1::{self, Capture, Decision, Operation, Status};
use verbatim_collector::{
    index::{
        Batch, Change, CommandRow, Id, Index, MemoryIndex, Names, Part, Query, Role, SessionPart,
        SqliteIndex, Words,
        counts::{ChainPart, ChainStep, Reading, SeriesKey},
    },
    log::Location,
};

trait Made {
    fn made() -> (Box<dyn Index>, Option<tempfile::TempDir>);
}

struct Memory;
struct Sqlite;

impl Made for Memory {
    fn made() -> (Box<dyn Index>, Option<tempfile::TempDir>) {
        (Box::new(MemoryIndex::default()), None)
    }
}

impl Made for Sqlite {
    fn made() -> (Box<dyn Index>, Option<tempfile::TempDir>) {
        let folder = tempfile::tempdir().expect("folder");
        let index = SqliteIndex::open(&folder.path().join("index.sqlite")).expect("opens");
        (Box::new(index), Some(folder))
    }
}

fn id(n: u64) -> Id {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    id
}

fn at(position: u64) -> Location {
    Location {
        position,
        segment: 0,
        offset: position * 100,
        length: 80,
        content_offset: 24,
        content_length: 3,
    }
}

fn started(n: u64, position: u64, wall: u64, text: &str) -> Part {
    Part {
        id: id(n),
        role: Role::Started,
        location: at(position),
        flow: id(1000 + n % 3).to_vec(),
        names: Names {
            principal: format!("p{}", n % 4),
            service: "postgresql".to_owned(),
            ..Names::default()
        },
        operation: Operation::Query.into(),
        capture: Capture::Decoded.into(),
        decision: Decision::Allowed.into(),
        status: Status::Pending.into(),
        wall,
        duration: 0,
        method: String::new(),
        resource: String::new(),
        parent: Vec::new(),
        http_status: 0,
        grpc_status: None,
        findings: 0,
        resolution: 3,
        credential_match: 0,
        behalf: 0,
        on_behalf_of: String::new(),
        text: Some(text.to_owned()),
        content_gone: false,
    }
}

/// A request for something, of a job if it is known which command began that.
fn request(n: u64, position: u64, resource: &str, parent: Option<u64>) -> Part {
    Part {
        method: format!("things.{}", n % 3),
        resource: resource.to_owned(),
        parent: parent.map(|n| id(n).to_vec()).unwrap_or_default(),
        findings: i64::from(n.is_multiple_of(2)) << 1,
        resolution: (n % 7) as i32,
        credential_match: (n % 4) as i32,
        behalf: (n % 3) as i32,
        on_behalf_of: if n.is_multiple_of(3) { String::new() } else { format!("person{}", n % 2) },
        ..started(n, position, position, resource)
    }
}

fn finished(n: u64, position: u64, wall: u64, status: Status) -> Part {
    Part {
        role: Role::Finished,
        status: status.into(),
        duration: 5,
        text: None,
        decision: 0,
        ..started(n, position, wall, "")
    }
}

/// What a command began has ended, as another connection tells.
fn ended(n: u64, position: u64, wall: u64, status: Status) -> Part {
    Part {
        role: Role::Ended,
        flow: id(2000).to_vec(),
        names: Names::default(),
        operation: Operation::Query.into(),
        capture: 0,
        duration: 500,
        http_status: 200,
        ..finished(n, position, wall, status)
    }
}

fn command(part: Part) -> Change {
    Change::Command(Box::new(part))
}

fn apply(index: &dyn Index, changes: Vec<Change>, next_position: u64) {
    index.apply(&Batch { changes, next_position, ..Batch::default() }).expect("applies");
}

fn all() -> Query {
    Query { limit: 1000, ..Query::default() }
}

fn found(index: &dyn Index, query: &Query) -> Vec<CommandRow> {
    index.search(query).expect("search").0
}

fn start_and_end_are_one_row_whether_they_come_together_or_apart<M: Made>() {
    let mut rows = Vec::new();
    for together in [true, false] {
        let (index, _folder) = M::made();
        let parts = [command(started(1, 1, 10, "select")), command(finished(1, 2, 10, Status::Error))];
        if together {
            apply(&*index, parts.to_vec(), 3);
        } else {
            let [start, end] = parts;
            apply(&*index, vec![start], 2);
            assert_eq!(found(&*index, &all())[0].status, i32::from(Status::Pending));
            apply(&*index, vec![end], 3);
        }
        assert_eq!(index.position().expect("position"), 3);
        let row = found(&*index, &all());
        assert_eq!(
            (row.len(), row[0].status, row[0].duration, row[0].position),
            (1, Status::Error.into(), 5, 2)
        );
        assert_eq!(index.locations(&id(1)).expect("locations"), [at(1), at(2)]);
        rows.push(row);
    }
    assert_eq!(rows[0], rows[1]);
}

fn end_without_a_start_and_a_second_start_are_not_lost<M: Made>() {
    let (index, _folder) = M::made();
    apply(&*index, vec![command(finished(1, 1, 10, Status::OutcomeUnknown))], 2);
    assert_eq!(found(&*index, &all())[0].status, i32::from(Status::OutcomeUnknown));
    // A fork brought the same id twice: the first stands, the other is kept beside it.
    apply(&*index, vec![command(started(2, 2, 20, "first")), command(started(2, 3, 20, "second"))], 4);
    assert_eq!(index.locations(&id(2)).expect("locations"), [at(2), at(3)]);
    let second = Query { words: Words::parse("second").expect("words"), ..all() };
    assert_eq!(found(&*index, &second), []);
}

fn a_job_s_own_end_is_the_command_s_in_whatever_order_it_comes<M: Made>() {
    let mut rows = Vec::new();
    for order in [[0, 1, 2], [2, 1, 0], [0, 2, 1], [2, 0, 1]] {
        let (index, _folder) = M::made();
        let accepted = Part { http_status: 201, ..finished(1, 2, 10, Status::Accepted) };
        let parts = [started(1, 1, 10, "select"), accepted, ended(1, 3, 10, Status::Error)];
        for at in order {
            apply(&*index, vec![command(parts[at].clone())], 4);
        }
        let row = found(&*index, &all()).remove(0);
        assert_eq!(
            (row.status, row.duration, row.http_status),
            (Status::Error.into(), 500, 201),
            "{order:?}"
        );
        assert_eq!((row.flow.as_slice(), row.ended), (&id(1001)[..], Some(at(3))), "{order:?}");
        assert_eq!(index.locations(&id(1)).expect("locations"), [at(1), at(2), at(3)]);
        rows.push(row);
    }
    assert!(rows.iter().all(|row| *row == rows[0]));
}

fn requests_are_found_by_what_they_act_on_how_they_were_answered_and_what_they_go_on_with<M: Made>() {
    let (index, _folder) = M::made();
    let answer = |n, position, http_status, grpc_status| Part {
        http_status,
        grpc_status,
        ..finished(n, position, 10, Status::Ok)
    };
    let parts = vec![
        request(1, 1, "projects/p", None),
        answer(1, 2, 200, None),
        request(2, 3, "projects/p/jobs/j", Some(1)),
        answer(2, 4, 404, Some(5)),
        request(3, 5, "projects/p", Some(1)),
    ];
    apply(&*index, parts.into_iter().map(command).collect(), 6);
    let f = v1::Filter::default;
    for (filter, wanted) in [
        (v1::Filter { method: "things.1".to_owned(), ..f() }, vec![id(1)]),
        (v1::Filter { resource: "projects/p".to_owned(), ..f() }, vec![id(3), id(1)]),
        (v1::Filter { resource: "projects".to_owned(), ..f() }, vec![]),
        (v1::Filter { http_statuses: vec![404, 500], ..f() }, vec![id(2)]),
        (v1::Filter { parent_command_id: id(1).to_vec(), ..f() }, vec![id(3), id(2)]),
        (v1::Filter { findings: vec![1], ..f() }, vec![id(2)]),
        (v1::Filter { findings: vec![2], ..f() }, vec![]),
        (v1::Filter { credential_matches: vec![2, 3], ..f() }, vec![id(3), id(2)]),
        (v1::Filter { behalf_kinds: vec![1], ..f() }, vec![id(1)]),
        (v1::Filter { resolutions: vec![1, 3], ..f() }, vec![id(3), id(1)]),
        (v1::Filter { resolutions: vec![5], ..f() }, vec![]),
        (v1::Filter { on_behalf_of: "person0".to_owned(), ..f() }, vec![id(2)]),
        (v1::Filter { on_behalf_of: "person0".to_owned(), behalf_kinds: vec![1], ..f() }, vec![]),
    ] {
        let rows = found(&*index, &Query { filter: filter.clone(), ..all() });
        assert_eq!(rows.iter().map(|r| r.id).collect::<Vec<_>>(), wanted, "{filter:?}");
    }
    let row = &found(&*index, &all())[1];
    assert_eq!((row.resource.as_str(), row.grpc_status), ("projects/p/jobs/j", Some(5)));
}

fn rows_of_one_instant_keep_their_order_of_arrival<M: Made>() {
    let (index, _folder) = M::made();
    apply(&*index, (1..=5).map(|n| command(started(n, n, 10, "x"))).collect(), 6);
    apply(&*index, vec![command(started(6, 6, 10, "x"))], 7);
    let ids: Vec<_> = found(&*index, &Query { oldest_first: true, ..all() }).iter().map(|r| r.id).collect();
    assert_eq!(ids, (1..=6).map(id).collect::<Vec<_>>());
    let page = Query { limit: 2, ..all() };
    let first = found(&*index, &page);
    let next = found(&*index, &Query { after: Some(first[1].key), ..page });
    assert_eq!([first[0].id, first[1].id, next[0].id, next[1].id], [6, 5, 4, 3].map(id));
}

fn impossible_clocks_are_taken<M: Made>() {
    let (index, _folder) = M::made();
    let walls = [0, u64::MAX, u64::MAX, 1, i64::MAX as u64];
    let parts = walls.iter().zip(1..).map(|(wall, n)| command(started(n, n, *wall, "x")));
    apply(&*index, parts.collect(), 6);
    assert_eq!(found(&*index, &all()).len(), walls.len());
}

fn removed_rows_are_gone_with_everything_that_was_theirs<M: Made>() {
    let (index, _folder) = M::made();
    let session = Change::Session(Box::new(SessionPart {
        flow: id(1001),
        end: false,
        location: at(9),
        names: Names::default(),
        wall: 5,
        protocol: 1,
        capture: 1,
        reason: 0,
        node: String::new(),
        cgroup: 0,
        series: 0,
        number: 0,
        boottime: 0,
        bytes_sent: 0,
        bytes_received: 0,
    }));
    let changes = vec![
        session,
        command(started(1, 1, 10, "secret")),
        command(started(2, 2, 20, "public")),
        Change::Extra(id(1), at(3)),
    ];
    apply(&*index, changes, 4);
    assert_eq!(index.sessions(&all()).expect("sessions").0[0].commands, 1);
    let remove = Batch { remove: vec![id(1), id(1001), id(77)], next_position: 5, ..Batch::default() };
    index.apply(&remove).expect("applies");
    index.scrub().expect("scrubs");
    assert_eq!(found(&*index, &all()).iter().map(|r| r.id).collect::<Vec<_>>(), [id(2)]);
    assert_eq!(index.locations(&id(1)).expect("locations"), []);
    assert_eq!(index.sessions(&all()).expect("sessions"), (Vec::new(), 5));
    let secret = Query { words: Words::parse("secret").expect("words"), ..all() };
    assert_eq!(found(&*index, &secret), []);
    index.reset().expect("resets");
    assert_eq!((index.position().expect("position"), found(&*index, &all()).len()), (0, 0));
}

fn findings_are_paged_in_the_logs_order<M: Made>() {
    let (index, _folder) = M::made();
    let finding = |position: u64, detail: &str| Change::Finding {
        position,
        finding: v1::Finding { detail: detail.to_owned(), ..v1::Finding::default() },
    };
    apply(&*index, vec![finding(4, "a"), finding(4, "b"), finding(7, "c")], 8);
    let (first, position) = index.findings((0, 0), 2).expect("findings");
    assert_eq!(position, 8);
    assert_eq!(first.iter().map(|(_, f)| f.detail.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let (rest, _) = index.findings(first[1].0, 2).expect("findings");
    assert_eq!(rest.iter().map(|(_, f)| f.detail.as_str()).collect::<Vec<_>>(), ["c"]);
    index.apply(&Batch { forget_findings_below: 5, next_position: 9, ..Batch::default() }).expect("applies");
    assert_eq!(index.findings((0, 0), 9).expect("findings").0.len(), 1);
}

macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[test] fn $name() { super::$name::<super::Memory>(); })+
        }
        mod sqlite {
            $(#[test] fn $name() { super::$name::<super::Sqlite>(); })+
        }
    };
}

suite!(
    start_and_end_are_one_row_whether_they_come_together_or_apart,
    end_without_a_start_and_a_second_start_are_not_lost,
    a_job_s_own_end_is_the_command_s_in_whatever_order_it_comes,
    requests_are_found_by_what_they_act_on_how_they_were_answered_and_what_they_go_on_with,
    rows_of_one_instant_keep_their_order_of_arrival,
    impossible_clocks_are_taken,
    removed_rows_are_gone_with_everything_that_was_theirs,
    findings_are_paged_in_the_logs_order,
);

mod agreement {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    const WORDS: [&str; 5] = ["select", "drop", "accounts", "public.accounts", "ünïcode"];

    fn any_change() -> impl Strategy<Value = (u64, u8, u64, usize, i32, i32)> {
        (0_u64..40, 0_u8..9, 1_u64..60, 0..WORDS.len(), 1_i32..7, 1_i32..5)
    }

    fn change(
        position: u64,
        (n, kind, wall, word, status, decision): (u64, u8, u64, usize, i32, i32),
    ) -> Change {
        let names = Names {
            principal: format!("p{}", n % 4),
            namespace: format!("ns{}", n % 3),
            pod_name: format!("pod{}", n % 5),
            pod_uid: format!("uid{}", n % 5),
            service: if n.is_multiple_of(2) { "postgresql".to_owned() } else { String::new() },
            cluster: if n.is_multiple_of(3) { "c0".to_owned() } else { String::new() },
            owner: format!("Job/{}", n % 3),
            ..Names::default()
        };
        let text = format!("{} from {}", WORDS[word], WORDS[(word + n as usize) % WORDS.len()]);
        match kind {
            0 | 1 => command(Part { decision, names, ..started(n, position, wall, &text) }),
            2 => command(Part { status, names, ..finished(n, position, wall, Status::Ok) }),
            3 => Change::Extra(id(n), at(position)),
            4 => {
                let status = Status::try_from(status).unwrap_or_default();
                command(Part { decision: 0, ..ended(n, position, wall, status) })
            }
            5 => {
                let grpc_status = n.is_multiple_of(2).then_some(status as u32);
                let answer = Part {
                    http_status: 200 + wall as u32 % 3,
                    grpc_status,
                    ..finished(n, position, wall, Status::Error)
                };
                match wall % 2 {
                    0 => command(answer),
                    _ => command(request(n, position, WORDS[word], n.checked_sub(20))),
                }
            }
            7 => Change::Chain(Box::new(ChainPart {
                chain: id(2000 + n % 3),
                boottime: wall,
                sequence: n,
                position,
                step: match status {
                    1 => ChainStep::Opened {
                        node: format!("n{}", n % 2),
                        boot: vec![1],
                        shard: (n % 3) as u32,
                        predecessor: n.is_multiple_of(2).then(|| id(2000 + wall % 3)),
                    },
                    2 => ChainStep::Drained,
                    _ => ChainStep::Alive,
                },
            })),
            8 => Change::Reading(Box::new(Reading {
                key: series(n),
                outcome: decision,
                chain: id(2000 + n % 3),
                sequence: n,
                location: at(position),
                wall: wall * 100_000_000_000,
                boottime: wall,
                age: n,
                connects: wall,
                connected: n,
            })),
            _ => Change::Session(Box::new(SessionPart {
                flow: id(1000 + n % 8),
                end: wall % 2 == 0,
                location: at(position),
                names,
                wall,
                protocol: decision,
                capture: decision.min(3),
                reason: decision,
                node: series(n).node,
                cgroup: series(n).cgroup,
                series: series(n).series,
                number: wall,
                boottime: position,
                bytes_sent: n,
                bytes_received: wall,
            })),
        }
    }

    fn series(n: u64) -> SeriesKey {
        SeriesKey { node: format!("n{}", n % 2), cgroup: n % 3, series: n % 2 }
    }

    /// Everything that is counted, in an order of its own.
    fn counted(index: &dyn Index) -> impl PartialEq + std::fmt::Debug {
        let mut chains = index.chains().expect("chains");
        chains.sort_by_key(|row| row.chain);
        let mut readings = index.readings().expect("readings");
        readings.sort_by_key(|one| (one.key.clone(), one.outcome));
        let mut recorded = index.recorded().expect("recorded");
        recorded.sort();
        let of: Vec<_> = (0..6)
            .map(series)
            .map(|key| {
                (
                    index.between(&key, 5, 40).expect("between"),
                    index.absent(&key, 5, 40, 12).expect("absent"),
                    index.older(&key, 10, 30).expect("older"),
                )
            })
            .collect();
        (chains, readings, recorded, of)
    }

    fn any_filter() -> impl Strategy<Value = v1::Filter> {
        let maybe = |texts: &'static [&'static str]| prop_oneof![3 => Just(String::new()), 1 => select(texts).prop_map(str::to_owned)];
        (
            (maybe(&["p0", "p1", "nobody"]), maybe(&["ns0", "ns2"]), maybe(&["pod1", "uid2"])),
            (maybe(&["postgresql"]), maybe(&["drop", "accounts select", "public.accounts", "ünïcode"])),
            (vec(1_i32..7, 0..2), vec(1_i32..5, 0..2), 0_u64..50, 0_u64..70, 0_u64..5),
            (maybe(&["things.0", "things.9"]), maybe(&["drop"]), 0_u32..12, 0_u64..30, 0_i32..8),
            (maybe(&["person0", "person9"]), 0_i32..12, 0_i32..9, vec(0_i32..8, 0..2)),
            (maybe(&["c0", "c1"]), maybe(&["Job/1", "Job/9"])),
        )
            .prop_map(
                |(
                    (principal, namespace, pod),
                    (service, text),
                    (statuses, decisions, from, to, flow),
                    (method, resource, http_status, parent, finding),
                    (on_behalf_of, credential_match, behalf, resolutions),
                    (cluster, owner),
                )| {
                    v1::Filter {
                        method,
                        resource,
                        http_statuses: if http_status > 3 { Vec::new() } else { vec![199 + http_status] },
                        parent_command_id: if parent > 5 { Vec::new() } else { id(parent).to_vec() },
                        findings: if finding > 2 { Vec::new() } else { vec![finding] },
                        credential_matches: if credential_match > 3 {
                            Vec::new()
                        } else {
                            vec![credential_match]
                        },
                        behalf_kinds: if behalf > 2 { Vec::new() } else { vec![behalf] },
                        on_behalf_of,
                        resolutions,
                        cluster,
                        owner,
                        principal,
                        namespace,
                        pod,
                        service,
                        text,
                        statuses,
                        decisions,
                        from_wall_nanos: if from > 30 { 0 } else { from },
                        to_wall_nanos: if to > 40 { 0 } else { to },
                        flow_id: if flow < 3 { Vec::new() } else { id(1000 + flow - 3).to_vec() },
                        ..v1::Filter::default()
                    }
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_indexes_answer_every_question_alike(
            changes in vec(vec(any_change(), 0..30), 1..6),
            removals in vec(0_u64..40, 0..4),
            filters in vec(any_filter(), 1..12),
            oldest_first: bool,
            limit in 1_usize..20,
        ) {
            let (memory, _) = Memory::made();
            let (sqlite, _folder) = Sqlite::made();
            let mut position = 1;
            for stretch in changes {
                let stretch: Vec<_> = stretch.into_iter().map(|c| { position += 1; change(position, c) }).collect();
                for index in [&memory, &sqlite] {
                    apply(&**index, stretch.clone(), position + 1);
                }
            }
            let remove = Batch { remove: removals.into_iter().map(id).collect(), next_position: position + 1, ..Batch::default() };
            for index in [&memory, &sqlite] {
                index.apply(&remove).expect("applies");
            }
            for filter in filters {
                let words = Words::parse(&filter.text).expect("words");
                let mut query = Query { filter, words, oldest_first, limit, after: None };
                loop {
                    let (expected, got) = (found(&*memory, &query), found(&*sqlite, &query));
                    prop_assert_eq!(&expected, &got, "{:?}", &query);
                    for row in &expected {
                        let (one, _) = sqlite.command(&row.id, &query).expect("command");
                        prop_assert_eq!(one.as_ref(), Some(row));
                    }
                    match expected.last() {
                        Some(row) if expected.len() == limit => query.after = Some(row.key),
                        _ => break,
                    }
                }
                query.after = None;
                prop_assert_eq!(memory.sessions(&query).expect("sessions"), sqlite.sessions(&query).expect("sessions"), "{:?}", &query);
            }
            prop_assert_eq!(counted(&*memory), counted(&*sqlite));
            let below = Batch { forget_findings_below: position / 2, next_position: position + 1, ..Batch::default() };
            for index in [&memory, &sqlite] {
                index.apply(&below).expect("applies");
            }
            prop_assert_eq!(counted(&*memory), counted(&*sqlite));
            for n in 0..40 {
                prop_assert_eq!(memory.locations(&id(n)).expect("locations"), sqlite.locations(&id(n)).expect("locations"));
            }
        }
    }
}
