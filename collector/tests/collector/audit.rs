//! What people ask, and what they get.

use std::time::Duration;

use verbatim_api::v1::{self, Capture, Decision, Operation, Status};

use crate::support::{
    NOW, Place, append,
    node::{EPOCH, Node},
    search, sessions,
};

fn texts(commands: &[v1::Command]) -> Vec<String> {
    let text = |c: &v1::Command| {
        let statement = c.started_content.as_ref().and_then(|c| c.statement.as_ref());
        statement.map(|s| String::from_utf8_lossy(&s.text).into_owned()).unwrap_or_default()
    };
    commands.iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_the_filter_restricts_and_all_of_them_together() {
    let place = Place::new();
    let collector = place.start().await;
    let mut node = Node::new();
    let cluster = "projects/p/locations/l/clusters/c";
    node.workload.cluster = cluster.to_owned();
    let flow = node.connection(None, Capture::Decoded);
    node.command(&flow, "SELECT wanted FROM accounts");
    let mut local = node.workload.clone();
    local.cluster = String::new();
    local.principal_kind = v1::PrincipalKind::Local.into();
    local.principal = String::new();
    (local.namespace, local.service_account) = (String::new(), String::new());
    (local.pod_name, local.pod_uid) = ("other-0".to_owned(), "0ther".to_owned());
    node.workload = local;
    let (mut envelope, mut content) = node.started(b"", "DELETE FROM audit_log");
    envelope.operation = Operation::Execute.into();
    envelope.decision = Decision::Denied.into();
    envelope.capture = Capture::Partly.into();
    content.client = Some(v1::Client { local_user: "local:host/ada".to_owned(), ..v1::Client::default() });
    content.target =
        Some(v1::Target { service: "mysql".to_owned(), database: "hr".to_owned(), ..Default::default() });
    let owner =
        |kind: &str, name: &str| v1::Owner { kind: kind.into(), name: name.into(), ..v1::Owner::default() };
    let owners = vec![owner("Job", "nightly-29"), owner("CronJob", "nightly")];
    content.pod = Some(v1::Pod { owners, ..v1::Pod::default() });
    let other = node.push(envelope, Some(content));
    node.finish(b"", &other, Status::NotForwarded);
    append(&mut place.ingest_client().await, vec![node.batch()]).await.expect("acknowledged");

    let mut audit = place.audit_client().await;
    let all = search(&mut audit, v1::Filter::default()).await;
    assert_eq!(texts(&all), ["DELETE FROM audit_log", "SELECT wanted FROM accounts"]);
    assert_eq!(all[0].principal, "local:host/ada");
    let started = |c: &v1::Command| c.started.as_ref().map(|e| e.wall_nanos).expect("started");
    let (early, late) = (started(&all[1]), started(&all[0]));
    let text = |text: &str| v1::Filter { text: text.to_owned(), ..v1::Filter::default() };
    let f = v1::Filter::default;
    let only_the_first: Vec<v1::Filter> = vec![
        v1::Filter { principal: "principal://pool/subject/ns/shop/sa/cart".to_owned(), ..f() },
        v1::Filter { namespace: "shop".to_owned(), ..f() },
        v1::Filter { service_account: "cart".to_owned(), ..f() },
        v1::Filter { pod: "cart-0".to_owned(), ..f() },
        v1::Filter { pod: "7e57".to_owned(), ..f() },
        v1::Filter { cluster: cluster.to_owned(), ..f() },
        v1::Filter { service: "postgresql".to_owned(), ..f() },
        v1::Filter { operations: vec![Operation::Query.into()], ..f() },
        v1::Filter { decisions: vec![Decision::Allowed.into()], ..f() },
        v1::Filter { statuses: vec![Status::Ok.into(), Status::Error.into()], ..f() },
        v1::Filter { from_wall_nanos: early, to_wall_nanos: late, ..f() },
        text("WANTED select"),
        text("accounts"),
        v1::Filter { flow_id: flow.clone(), ..f() },
        v1::Filter { captures: vec![Capture::Decoded.into()], ..f() },
        v1::Filter { database: "orders".to_owned(), ..f() },
        v1::Filter { database: "orders".to_owned(), namespace: "shop".to_owned(), ..text("wanted") },
    ];
    for filter in only_the_first {
        let found = search(&mut audit, filter.clone()).await;
        assert_eq!(texts(&found), ["SELECT wanted FROM accounts"], "{filter:?}");
    }
    let only_the_second = [
        v1::Filter { principal: "local:host/ada".to_owned(), ..f() },
        v1::Filter { pod: "0ther".to_owned(), ..f() },
        v1::Filter { owner: "CronJob/nightly".to_owned(), ..f() },
        v1::Filter { service: "mysql".to_owned(), ..f() },
        v1::Filter { decisions: vec![Decision::Denied.into()], ..f() },
        v1::Filter { from_wall_nanos: late, ..f() },
        text("audit_log"),
    ];
    for filter in only_the_second {
        let found = search(&mut audit, filter.clone()).await;
        assert_eq!(texts(&found), ["DELETE FROM audit_log"], "{filter:?}");
    }
    for nothing in [
        text("wanted delete"),
        v1::Filter { namespace: "sho".to_owned(), ..f() },
        v1::Filter { cluster: "c".to_owned(), ..f() },
        v1::Filter { owner: "Job/nightly-29".to_owned(), ..f() },
    ] {
        assert!(search(&mut audit, nothing.clone()).await.is_empty(), "{nothing:?}");
    }
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_join_up_and_what_comes_meanwhile_does_not_move_them() {
    let place = Place::new();
    let collector = place.start().await;
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    (0..25).for_each(|n| drop(node.command(b"", &format!("SELECT {n}"))));
    append(&mut client, vec![node.batch()]).await.expect("acknowledged");
    let mut audit = place.audit_client().await;
    for oldest_first in [false, true] {
        let mut request = v1::SearchRequest {
            page_size: 7,
            oldest_first,
            at_least_position: NOW,
            filter: Some(v1::Filter { to_wall_nanos: EPOCH + 51_500, ..v1::Filter::default() }),
            ..v1::SearchRequest::default()
        };
        let mut all = Vec::new();
        loop {
            let page = audit.search(request.clone()).await.expect("search").into_inner();
            assert!(page.commands.len() <= 7);
            all.extend(texts(&page.commands));
            // New ones come between the pages, at the end and in the middle of time.
            node.command(b"", "SELECT 'new'");
            append(&mut client, vec![node.batch()]).await.expect("acknowledged");
            request.cursor = page.next_cursor;
            if request.cursor.is_empty() {
                break;
            }
        }
        let mut expected: Vec<_> = (0..25).map(|n| format!("SELECT {n}")).collect();
        if !oldest_first {
            expected.reverse();
        }
        assert_eq!(all, expected);
    }
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_are_refused_with_what_to_do() {
    let place = Place::new();
    let collector = place.start().await;
    let mut node = Node::new();
    (0..3).for_each(|n| drop(node.command(b"", &format!("SELECT {n}"))));
    append(&mut place.ingest_client().await, vec![node.batch()]).await.expect("acknowledged");
    let mut audit = place.audit_client().await;
    let one = v1::SearchRequest { page_size: 1, at_least_position: NOW, ..v1::SearchRequest::default() };
    let cursor = audit.search(one).await.expect("search").into_inner().next_cursor;
    let other = v1::Filter { namespace: "x".to_owned(), ..v1::Filter::default() };
    for (request, complaint) in [
        (v1::SearchRequest { page_size: 1001, ..Default::default() }, "at most 1000"),
        (v1::SearchRequest { cursor: "feed".to_owned(), ..Default::default() }, "not one of ours"),
        (v1::SearchRequest { cursor, filter: Some(other), ..Default::default() }, "another question"),
        (
            v1::SearchRequest {
                filter: Some(v1::Filter { text: "**".to_owned(), ..Default::default() }),
                ..Default::default()
            },
            "at least one word",
        ),
    ] {
        let refused = audit.search(request).await.expect_err("refused");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains(complaint), "{}", refused.message());
    }
    let unknown = audit.get(v1::GetRequest { id: vec![9; 16] }).await.expect_err("unknown");
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    let mut far = tonic::Request::new(v1::SearchRequest { at_least_position: 1 << 40, ..Default::default() });
    far.set_timeout(Duration::from_millis(200));
    assert!(
        audit.search(far).await.is_err(),
        "a position that is never reached is not waited for beyond the deadline"
    );
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn command_is_shown_with_every_record_that_belongs_to_it_as_it_was_shipped() {
    let place = Place::new();
    let collector = place.start().await;
    let mut node = Node::new();
    let (mut envelope, content) = node.started(b"", "DROP TABLE orders");
    envelope.decision = Decision::Held.into();
    let id = node.push(envelope, Some(content));
    let of = |kind: v1::RecordKind| v1::Envelope {
        kind: kind.into(),
        command_id: id.clone(),
        ..Default::default()
    };
    let verdict = v1::Verdict { approver: "grace".to_owned(), ..v1::Verdict::default() };
    let decided = v1::Envelope { decision: Decision::Allowed.into(), ..of(v1::RecordKind::Decided) };
    node.push(decided, Some(v1::Content { verdict: Some(verdict), ..v1::Content::default() }));
    node.push(of(v1::RecordKind::Progress), None);
    node.finish(b"", &id, Status::Error);
    let batch = node.batch();
    append(&mut place.ingest_client().await, vec![batch.clone()]).await.expect("acknowledged");
    let mut audit = place.audit_client().await;
    let found = search(&mut audit, v1::Filter::default()).await;
    assert_eq!((found.len(), found[0].decision(), found[0].status()), (1, Decision::Allowed, Status::Error));
    let got = audit.get(v1::GetRequest { id: id.clone() }).await.expect("get").into_inner();
    assert_eq!(got.command.as_ref(), found.first());
    assert_eq!(got.entries, batch.entries[1..], "byte for byte, in chain order");
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn undecoded_connection_is_a_command_and_every_connection_a_session() {
    let place = Place::new();
    let collector = place.start().await;
    let mut node = Node::new();
    let decoded = node.connection(None, Capture::Decoded);
    node.command(&decoded, "SELECT 1");
    let failed = node.start(&decoded, "SELECT broken");
    node.finish(&decoded, &failed, Status::Error);
    let (mut envelope, content) = node.started(&decoded, "DROP TABLE x");
    envelope.decision = Decision::Denied.into();
    let denied = node.push(envelope, Some(content));
    node.finish(&decoded, &denied, Status::NotForwarded);
    // Nobody denied this one: the server was gone.
    let unsent = node.start(&decoded, "SELECT 2");
    node.finish(&decoded, &unsent, Status::NotForwarded);
    // It only turned out later that this one cannot be decoded.
    let opaque = node.connection(None, Capture::Unspecified);
    node.connection(Some(&opaque), Capture::SeenNotDecoded);
    // And this one said so at once and is still open.
    let open = node.connection(None, Capture::SeenNotDecoded);
    append(&mut place.ingest_client().await, vec![node.batch()]).await.expect("acknowledged");
    let mut audit = place.audit_client().await;
    let connects = v1::Filter { operations: vec![Operation::Connect.into()], ..v1::Filter::default() };
    let found = search(&mut audit, connects).await;
    assert_eq!(found.iter().map(|c| &c.id).collect::<Vec<_>>(), [&open, &opaque]);
    assert_eq!((found[0].status(), found[1].status()), (Status::Pending, Status::Ok));
    let ended = found[1].finished.as_ref().expect("its end");
    assert_eq!((ended.operation(), ended.bytes_sent), (Operation::Connect, 100));
    let got = audit.get(v1::GetRequest { id: opaque.clone() }).await.expect("get").into_inner();
    assert_eq!(got.entries.len(), 2, "its opening and its end");

    let sessions = sessions(&mut audit).await;
    assert_eq!(sessions.iter().map(|s| &s.flow_id).collect::<Vec<_>>(), [&open, &opaque, &decoded]);
    let counts = |s: &v1::Session| (s.commands, s.errors, s.denied);
    assert_eq!(counts(&sessions[2]), (4, 1, 1));
    assert_eq!((sessions[1].bytes_received, sessions[1].closed_wall_nanos > 0), (200, true));
    assert_eq!((sessions[0].capture(), sessions[0].closed_wall_nanos), (Capture::SeenNotDecoded, 0));
    assert_eq!(sessions[2].target.as_ref().map(|t| t.port), Some(5432));
    let errors = v1::Filter { statuses: vec![Status::Error.into()], ..v1::Filter::default() };
    let request = v1::SessionsRequest { filter: Some(errors), ..v1::SessionsRequest::default() };
    let with_errors = audit.sessions(request).await.expect("sessions").into_inner().sessions;
    assert_eq!(with_errors.iter().map(|s| &s.flow_id).collect::<Vec<_>>(), [&decoded]);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_shows_starts_and_ends_as_they_come_and_goes_on_after_a_position() {
    let place = Place::new();
    let collector = place.start().await;
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    node.command(b"", "SELECT 'before'");
    append(&mut client, vec![node.batch()]).await.expect("acknowledged");
    let mut audit = place.audit_client().await;
    search(&mut audit, v1::Filter::default()).await;
    let request = v1::TailRequest { include_started: true, ..v1::TailRequest::default() };
    let mut tail = audit.tail(request).await.expect("tail").into_inner();
    let id = node.start(b"", "SELECT 'now'");
    append(&mut client, vec![node.batch()]).await.expect("acknowledged");
    let started = tail.message().await.expect("message").expect("command");
    assert_eq!((&started.id, started.status()), (&id, Status::Pending));
    node.finish(b"", &id, Status::Ok);
    append(&mut client, vec![node.batch()]).await.expect("acknowledged");
    let finished = tail.message().await.expect("message").expect("command");
    assert_eq!((&finished.id, finished.status()), (&id, Status::Ok));
    drop(tail);
    // A reader that comes back later, with a filter, without starts.
    node.command(b"", "SELECT 'other'");
    node.command(b"", "SELECT 'later'");
    append(&mut client, vec![node.batch()]).await.expect("acknowledged");
    let filter = v1::Filter { text: "later".to_owned(), ..v1::Filter::default() };
    let request =
        v1::TailRequest { filter: Some(filter), after_position: finished.position, include_started: false };
    let mut tail = audit.tail(request).await.expect("tail").into_inner();
    let later = tail.message().await.expect("message").expect("command");
    assert_eq!(texts(&[later]), ["SELECT 'later'"]);
    // The end of the collector ends it, and not with a silent end of the stream.
    let ending = tokio::spawn(collector.shut_down());
    assert_eq!(tail.message().await.expect_err("ended").code(), tonic::Code::Unavailable);
    ending.await.expect("joins").expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_cut_into_pages_by_size() {
    let place = Place::new();
    let collector = place.start().await;
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    let filler = "x".repeat(250_000);
    for n in 0..40 {
        node.command(b"", &format!("SELECT {n}, '{filler}'"));
        append(&mut client, vec![node.batch()]).await.expect("acknowledged");
    }
    // A client with gRPC's own default limit of 4 MiB.
    let mut audit = v1::audit_client::AuditClient::new(crate::support::connect(&place.audit()).await);
    assert_eq!(search(&mut audit, v1::Filter::default()).await.len(), 40);
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_are_not_utf8_are_kept_byte_for_byte_and_found_by_their_words() {
    let place = Place::new();
    let collector = place.start().await;
    let mut node = Node::new();
    let text = b"SELECT '\xff\xfe\0' FROM latin".to_vec();
    let (envelope, mut content) = node.started(b"", "");
    content.statement = Some(v1::Statement { text: text.clone(), ..v1::Statement::default() });
    node.push(envelope, Some(content));
    append(&mut place.ingest_client().await, vec![node.batch()]).await.expect("acknowledged");
    let latin = v1::Filter { text: "latin".to_owned(), ..v1::Filter::default() };
    let found = search(&mut place.audit_client().await, latin).await;
    let statement = found[0].started_content.as_ref().and_then(|c| c.statement.as_ref());
    assert_eq!(statement.map(|s| &s.text), Some(&text));
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_one_command_with_its_own_end_and_those_that_go_on_with_it() {
    let place = Place::new();
    let collector = place.start().await;
    let mut node = Node::new();
    let (first, second) = (node.connection(None, Capture::Decoded), node.connection(None, Capture::Decoded));
    let (mut envelope, mut content) = node.started(&first, "SELECT wanted FROM accounts");
    envelope.protocol = v1::Protocol::Http2.into();
    content.target = Some(v1::Target {
        service: "bigquery".to_owned(),
        method: "bigquery.jobs.insert".to_owned(),
        resource: "projects/p/jobs/j".to_owned(),
        ..v1::Target::default()
    });
    let job = node.push(envelope, Some(content));
    node.finish(&first, &job, Status::Accepted);
    let (mut envelope, mut content) = node.started(&second, "");
    envelope.operation = Operation::ReadRows.into();
    envelope.parent_command_id = job.clone();
    envelope.findings =
        vec![v1::CommandFinding::HostMismatch.into(), v1::CommandFinding::CredentialOfAnother.into()];
    envelope.credential_match = v1::CredentialMatch::No.into();
    envelope.on_behalf_of_kind = v1::BehalfKind::Verified.into();
    content.on_behalf_of = vec![v1::OnBehalfOf { subject: "ada".to_owned(), ..v1::OnBehalfOf::default() }];
    content.target =
        Some(v1::Target { resource: "projects/p/queries/j".to_owned(), ..v1::Target::default() });
    let poll = node.push(envelope, Some(content));
    // What is said of a connection is no command's end.
    node.progress(&second, &second, Status::Error);
    node.progress(&second, &job, Status::Error);
    node.finish(&second, &poll, Status::Ok);
    append(&mut place.ingest_client().await, vec![node.batch()]).await.expect("acknowledged");

    let mut audit = place.audit_client().await;
    let f = v1::Filter::default;
    let ids = |commands: &[v1::Command]| commands.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
    let (only_job, only_poll) = (vec![job.clone()], vec![poll.clone()]);
    assert_eq!(ids(&search(&mut audit, f()).await), [poll, job.clone()]);
    let failed = search(&mut audit, v1::Filter { statuses: vec![Status::Error.into()], ..f() }).await;
    assert_eq!(ids(&failed), only_job);
    assert_eq!((failed[0].status(), failed[0].duration_nanos), (Status::Error, 7000));
    assert_eq!(failed[0].finished.as_ref().map(v1::Envelope::status), Some(Status::Accepted));
    assert_eq!(failed[0].ended.as_ref().and_then(|ended| ended.rows), Some(42));
    assert_eq!(failed[0].ended_content.as_ref().map(|content| content.attributes.len()), Some(1));
    for filter in [
        v1::Filter { parent_command_id: job.clone(), ..f() },
        v1::Filter { resource: "projects/p/queries/j".to_owned(), ..f() },
        v1::Filter { findings: vec![v1::CommandFinding::HostMismatch.into()], ..f() },
        v1::Filter { findings: vec![v1::CommandFinding::CredentialOfAnother.into()], ..f() },
        v1::Filter { credential_matches: vec![v1::CredentialMatch::No.into()], ..f() },
        v1::Filter { on_behalf_of: "ada".to_owned(), ..f() },
        v1::Filter { behalf_kinds: vec![v1::BehalfKind::Verified.into()], ..f() },
        v1::Filter { text: "queries".to_owned(), ..f() },
    ] {
        assert_eq!(ids(&search(&mut audit, filter.clone()).await), only_poll, "{filter:?}");
    }
    let method = v1::Filter { method: "bigquery.jobs.insert".to_owned(), ..f() };
    assert_eq!(ids(&search(&mut audit, method).await), only_job);
    let entries = audit.get(v1::GetRequest { id: job }).await.expect("found").into_inner().entries;
    assert_eq!(entries.len(), 3, "start, end, and the job's own end");
    collector.shut_down().await.expect("ends");
}
