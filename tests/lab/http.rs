//! HTTP/1.1, HTTP/2 and gRPC through both endpoints of ours: clients and servers cannot tell, and each request
//! has its record.

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Capture, Decision, OpaqueReason, Operation, Protocol, Session, Status};
use verbatim_tests::{
    agent::Options,
    audit::Seen,
    google::{
        self,
        names::{GOOGLE, MIRROR, ODD},
    },
    lab::Lab,
    network::{OTHER, Pod},
    peers,
    process::Process,
    wait,
};

use crate::{
    scenario::{Scenario, usual},
    tls::{NEEDS, trusted},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mirrored = [
        usual!(httpx_over_http2_is_recorded_request_by_request),
        usual!(curl_is_recorded_request_by_request_on_kept_connections),
        usual!(a_request_that_waits_for_100_gets_it),
        usual!(a_held_stream_waits_while_a_hundred_others_on_its_connection_pass),
        usual!(a_held_stream_is_abandoned_when_its_client_resets_it),
        usual!(a_denied_request_is_answered_with_403_and_the_connection_goes_on),
        usual!(a_header_is_replaced_on_the_way_and_its_value_is_nowhere),
        usual!(a_large_body_costs_no_memory_in_either_direction),
        usual!(requests_that_can_be_read_in_two_ways_are_refused_and_recorded),
    ]
    .map(|one| one.needing(NEEDS).with(trusted));
    let odd = [
        usual!(headers_keep_their_case_and_order_in_http1),
        usual!(interim_answers_are_dropped_and_the_answer_arrives),
        usual!(an_answer_before_the_request_is_complete_arrives),
        usual!(a_body_that_ends_early_leaves_an_unknown_outcome),
        usual!(bodies_that_are_more_than_they_seem_pass_unchanged_and_cost_no_memory),
        usual!(an_upgrade_passes_and_is_recorded_with_its_reason),
        usual!(a_server_that_answers_no_http_is_recorded),
    ]
    .map(|one| one.needing(NEEDS).with(odd));
    let grpc = [
        usual!(grpc_calls_of_every_kind_are_recorded_with_their_status),
        usual!(a_denied_call_is_answered_in_trailers_only_and_the_channel_goes_on),
        usual!(a_call_that_its_client_cancels_is_recorded),
    ]
    .map(|one| one.needing(NEEDS).with(grpc));
    let plain = [usual!(plaintext_http_is_recorded)];
    mirrored.into_iter().chain(odd).chain(grpc).chain(plain).collect()
}

fn odd() -> Options {
    Options { google: Some(google::Options { odd: true, ..Default::default() }), ..Options::default() }
}

fn grpc() -> Options {
    Options { google: Some(google::Options { grpc: true, ..Default::default() }), ..Options::default() }
}

fn httpx(lab: &Lab, what: &str) -> Result<Process> {
    lab.google_pod(Pod::A)?.python(what, "httpx_requests.py", &[what])
}

fn curl(lab: &Lab, name: &str, arguments: &[&str]) -> Result<Process> {
    let arguments = [&["-sS", "--max-time", "100"], arguments].concat();
    lab.google_pod(Pod::A)?.start(name, "curl", &arguments)
}

/// The requests that were recorded, once none is under way; by the names of their ids without the prefix.
fn requests(lab: &Lab, count: usize) -> Result<Vec<Seen>> {
    wait::until(&format!("{count} request(s) to be recorded"), || {
        let mut seen = lab.collector.seen()?;
        seen.retain(|one| one.operation != Operation::Connect);
        ensure!(seen.len() <= count, "too many: {seen:?}");
        Ok((seen.len() == count && seen.iter().all(|one| one.status != Status::Pending)).then_some(seen))
    })
    .with_context(|| format!("recorded: {:?}", lab.collector.seen()))
}

fn named<'a>(seen: &'a [Seen], id: &str) -> Result<&'a Seen> {
    let mut found = seen.iter().filter(|one| one.ids.iter().any(|other| other == id));
    let one = found.next().with_context(|| format!("{id} is not recorded among {seen:?}"))?;
    ensure!(found.next().is_none(), "{id} is recorded more than once");
    Ok(one)
}

fn sessions(lab: &Lab, address: &str, count: usize) -> Result<Vec<Session>> {
    wait::until(&format!("{count} session(s) to {address}"), || {
        let mut sessions = lab.collector.sessions()?;
        sessions.retain(|one| {
            one.closed_wall_nanos != 0 && one.target.as_ref().is_some_and(|target| target.address == address)
        });
        ensure!(sessions.len() <= count, "too many: {sessions:?}");
        Ok((sessions.len() == count).then_some(sessions))
    })
}

fn httpx_over_http2_is_recorded_request_by_request(lab: &mut Lab) -> Result<()> {
    httpx(lab, "all")?.finish()?;
    lab.compare(&[])?;
    let seen = requests(lab, 6)?;
    for one in &seen {
        ensure!(one.protocol == Protocol::Http2 && one.capture == Capture::Decoded, "{one:?}");
        ensure!(one.principal == lab.principal(Pod::A) && one.target.host == MIRROR, "{one:?}");
    }
    let of = |name: &str| named(&seen, &format!("a-httpx_requests-{name}"));
    ensure!(of("post")?.bytes_sent >= 100_000, "{:?}", of("post")?);
    ensure!(of("large")?.bytes_received >= 1_000_000, "{:?}", of("large")?);
    ensure!(
        of("missing")?.status == Status::Error && of("missing")?.http_status == 404,
        "{:?}",
        of("missing")?
    );
    ensure!(of("get")?.status == Status::Ok && of("get")?.http_status == 200, "{:?}", of("get")?);
    // One connection of the client's, one upstream.
    ensure!(sessions(lab, GOOGLE, 1)?.iter().all(|one| one.commands == 6), "{:?}", sessions(lab, GOOGLE, 1)?);
    let connections: std::collections::BTreeSet<u64> =
        lab.google()?.requests()?.iter().map(|one| one.connection).collect();
    ensure!(connections.len() == 1, "upstream connections: {connections:?}");
    Ok(())
}

fn curl_is_recorded_request_by_request_on_kept_connections(lab: &mut Lab) -> Result<()> {
    let file = lab.ground.path("upload");
    std::fs::write(&file, vec![b'y'; 300_000])?;
    let upload = format!("@{}", file.display());
    for (version, protocol) in [("--http1.1", Protocol::Http1), ("--http2", Protocol::Http2)] {
        let name = |what: &str| format!("a-{}-{what}", version.trim_start_matches('-'));
        let url = |how: &str, what: &str| format!("https://{MIRROR}/{how}/id:{}", name(what));
        let (get, chunked) = (url("echo", "get"), url("echo", "chunked"));
        let (gzip, trailers, last) = (url("gzip", "gzip"), url("trailers", "trailers"), url("echo", "last"));
        // Several requests of one program on one connection; the second is sent in chunks.
        let ended = curl(
            lab,
            &name("several"),
            &[
                version,
                "--fail-early",
                "--fail",
                &get,
                "--next",
                "--fail",
                "-sS",
                version,
                "-T",
                "-",
                &chunked,
                "--next",
                "-sS",
                version,
                "--fail",
                "--compressed",
                &gzip,
                "--next",
                "-sS",
                version,
                "--fail",
                &trailers,
                "--next",
                "-sS",
                version,
                "--fail",
                "--data-binary",
                &upload,
                &last,
            ],
        )?
        .finish()?;
        let text = ended.text();
        ensure!(text.contains("\"method\":\"PUT\"") && text.contains("a body with trailers"), "{text}");
        ensure!(text.contains("\"bytes\":300000"), "{text}");
        let seen = wait::until("all five to be recorded", || {
            let mut seen = lab.collector.seen()?;
            seen.retain(|one| one.protocol == protocol && one.status != Status::Pending);
            Ok((seen.len() >= 5).then_some(seen))
        })?;
        ensure!(seen.len() == 5, "{seen:?}");
        ensure!(named(&seen, &name("last"))?.bytes_sent >= 300_000, "{seen:?}");
        ensure!(seen.iter().all(|one| one.status == Status::Ok && one.flow == seen[0].flow), "{seen:?}");
    }
    lab.compare(&[])
}

fn a_request_that_waits_for_100_gets_it(lab: &mut Lab) -> Result<()> {
    let file = lab.ground.path("upload");
    std::fs::write(&file, vec![b'y'; 2_000_000])?;
    let upload = format!("@{}", file.display());
    let url = format!("https://{MIRROR}/echo/id:a-expects");
    let arguments = [
        "--http1.1",
        "-v",
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "90",
        "--data-binary",
        &upload,
        &url,
    ];
    let ended = curl(lab, "expects", &arguments)?.finish()?;
    ensure!(ended.text().contains("\"bytes\":2000000"), "{}", ended.text());
    ensure!(ended.complaints().contains("< HTTP/1.1 100 Continue"), "{}", ended.complaints());
    lab.compare(&[])
}

fn a_held_stream_waits_while_a_hundred_others_on_its_connection_pass(lab: &mut Lab) -> Result<()> {
    let id = "a-httpx_requests-held";
    let mut client = httpx(lab, "many")?;
    lab.approver().wait_until_held(id)?;
    client.stdin().context("no standard input")?.write_all(b"go on\n")?;
    client.wait_for_output("a hundred have passed")?;
    std::thread::sleep(crate::decisions::thinking_time());
    ensure!(lab.google()?.requests()?.iter().all(|one| one.ids != [id]), "it went on while it was held");
    lab.approver().answer(id, true)?;
    client.finish()?;
    lab.compare(&[])?;
    let seen = requests(lab, 101)?;
    ensure!(seen.iter().all(|one| one.flow == seen[0].flow && one.status == Status::Ok), "{seen:?}");
    ensure!(named(&seen, id)?.decision == Decision::Allowed, "{:?}", named(&seen, id)?);
    Ok(())
}

fn a_held_stream_is_abandoned_when_its_client_resets_it(lab: &mut Lab) -> Result<()> {
    let id = "a-httpx_requests-held";
    let mut client = httpx(lab, "reset")?;
    lab.approver().wait_until_held(id)?;
    client.stdin().context("no standard input")?.write_all(b"give up\n")?;
    client.finish()?;
    let seen = requests(lab, 2)?;
    let held = named(&seen, id)?;
    ensure!(held.decision == Decision::Abandoned && held.status == Status::NotForwarded, "{held:?}");
    // Too late: what nobody waits for does not run.
    lab.approver().answer(id, true)?;
    lab.compare(&[])?;
    ensure!(lab.google()?.requests()?.iter().all(|one| one.ids != [id]), "it went on");
    Ok(())
}

fn a_denied_request_is_answered_with_403_and_the_connection_goes_on(lab: &mut Lab) -> Result<()> {
    httpx(lab, "denied")?.finish()?;
    // Denied by its head, while its body is still coming.
    let file = lab.ground.path("upload");
    std::fs::write(&file, vec![b'y'; 3_000_000])?;
    let upload = format!("@{}", file.display());
    for version in ["http1.1", "http2"] {
        let url = format!("https://{MIRROR}/echo/lab:deny/id:a-{version}");
        let flag = format!("--{version}");
        let arguments = [&flag, "-H", "Expect:", "-w", "%{http_code}", "--data-binary", &upload, &url];
        let ended = curl(lab, version, &arguments)?.wait()?;
        let text = ended.text();
        ensure!(text.ends_with("403") && text.contains("the lab says no"), "{version}: {ended:?}");
    }
    lab.compare(&[])?;
    let seen = requests(lab, 4)?;
    for id in ["a-httpx_requests-denied", "a-http1.1", "a-http2"] {
        let one = named(&seen, id)?;
        ensure!(one.decision == Decision::Denied && one.status == Status::NotForwarded, "{one:?}");
    }
    let after = named(&seen, "a-httpx_requests-after")?;
    ensure!(after.flow == named(&seen, "a-httpx_requests-denied")?.flow, "another connection: {seen:?}");
    Ok(())
}

fn a_header_is_replaced_on_the_way_and_its_value_is_nowhere(lab: &mut Lab) -> Result<()> {
    httpx(lab, "replaced")?.finish()?;
    lab.compare(&[])?;
    let seen = requests(lab, 1)?;
    let one = named(&seen, "a-httpx_requests-replaced")?;
    ensure!(one.decision == Decision::Allowed && one.status == Status::Ok, "{one:?}");
    let injected = lab.collector.get(&one.record)?.entries.iter().try_fold(0, |sum, entry| {
        let envelope = verbatim_tests::audit::envelope(entry)?;
        Ok::<_, anyhow::Error>(sum + usize::from(envelope.kind() == verbatim_api::v1::RecordKind::Injected))
    })?;
    ensure!(injected == 1, "{injected} records say that bytes of ours were put in");
    Ok(())
}

fn a_large_body_costs_no_memory_in_either_direction(lab: &mut Lab) -> Result<()> {
    let before = lab.agent.anonymous_kib()?;
    for version in ["--http1.1", "--http2"] {
        let name = version.trim_start_matches('-');
        let down = format!("https://{MIRROR}/bytes/268435456/id:a-{name}-down");
        let ended = curl(
            lab,
            &format!("{name}-down"),
            &[version, "-o", "/dev/null", "-w", "%{size_download}", &down],
        )?;
        ensure!(ended.finish()?.text() == "268435456", "it did not come whole");
        let up = format!("https://{MIRROR}/echo/id:a-{name}-up");
        let file = lab.ground.path("large");
        std::fs::File::create(&file)?.set_len(200 << 20)?;
        let ended =
            curl(lab, &format!("{name}-up"), &[version, "-T", &file.display().to_string(), &up])?.finish()?;
        ensure!(ended.text().contains("\"bytes\":209715200"), "{}", ended.text());
    }
    let after = lab.agent.anonymous_kib()?;
    ensure!(after < before + 32 * 1024, "the agent grew from {before} to {after} KiB");
    lab.compare(&[])
}

fn requests_that_can_be_read_in_two_ways_are_refused_and_recorded(lab: &mut Lab) -> Result<()> {
    let clients = lab.google_pod(Pod::A)?.with("PGHOST", GOOGLE).with("PGPORT", "443");
    let text = clients.python("smuggle", "raw_tls.py", &["smuggle", "a-smuggle"])?.finish()?.text();
    let tries = text.lines().filter(|line| *line != "done").count();
    ensure!(tries == 8, "{text}");
    let hidden = |ids: &[String]| ids.iter().any(|id| id.ends_with("-hidden"));
    let arrived = lab.google()?.requests()?;
    ensure!(arrived.iter().all(|one| !hidden(&one.ids)), "one went through: {arrived:?}");
    let sessions = sessions(lab, GOOGLE, tries)?;
    let ambiguous =
        sessions.iter().filter(|one| one.opaque_reason() == OpaqueReason::AmbiguousRequest).count();
    // Some of them cannot be read at all.
    ensure!(ambiguous >= 2, "{sessions:?}");
    ensure!(lab.collector.seen()?.iter().all(|one| !hidden(&one.ids)), "one was believed");
    lab.compare(&[])
}

fn odd_url(how: &str, id: &str) -> String {
    format!("https://odd.googleapis.com/{how}/id:{id}")
}

fn headers_keep_their_case_and_order_in_http1(lab: &mut Lab) -> Result<()> {
    let headers = ["-H", "X-MiXeD-Case: One", "-H", "x-lower: Two", "-H", "X-UPPER: Three"];
    let url = odd_url("plain", "a-case");
    let arguments = [&["--http1.1", "-i"][..], &headers, &[&url]].concat();
    let ended = curl(lab, "case", &arguments)?.finish()?;
    ensure!(ended.text().contains("X-CaSe-KePt: Yes"), "{}", ended.text());
    let output = lab.google()?.output("odd");
    let head = output.lines().find(|line| line.contains("id:a-case")).context("it did not arrive")?;
    let lines: Vec<String> = serde_json::from_str(head)?;
    for line in ["X-MiXeD-Case: One", "x-lower: Two", "X-UPPER: Three"] {
        ensure!(lines.iter().any(|other| other == line), "{line} became one of {lines:?}");
    }
    let seen = requests(lab, 1)?;
    ensure!(named(&seen, "a-case")?.status == Status::Ok, "{seen:?}");
    Ok(())
}

fn interim_answers_are_dropped_and_the_answer_arrives(lab: &mut Lab) -> Result<()> {
    let ended = curl(lab, "interim", &["--http1.1", "-i", &odd_url("interim", "a-interim")])?.finish()?;
    ensure!(ended.text().starts_with("HTTP/1.1 200 OK"), "{}", ended.text());
    let seen = requests(lab, 1)?;
    ensure!(named(&seen, "a-interim")?.http_status == 200, "{seen:?}");
    Ok(())
}

fn an_answer_before_the_request_is_complete_arrives(lab: &mut Lab) -> Result<()> {
    let file = lab.ground.path("upload");
    std::fs::write(&file, vec![b'y'; 3_000_000])?;
    let file = file.display().to_string();
    for (how, status) in [("early", "200"), ("early_close", "413")] {
        let id = format!("a-{how}");
        let arguments = ["--http1.1", "-H", "Expect:", "-w", "%{http_code}", "-T", &file, &odd_url(how, &id)];
        // Whether curl calls an answer to half of a request a failure is its own business.
        let ended = curl(lab, how, &arguments)?.wait()?;
        ensure!(ended.text().contains(status), "{how}: {} {}", ended.text(), ended.complaints());
    }
    let seen = requests(lab, 2)?;
    ensure!(named(&seen, "a-early")?.http_status == 200, "{seen:?}");
    ensure!(named(&seen, "a-early_close")?.http_status == 413, "{seen:?}");
    Ok(())
}

fn a_body_that_ends_early_leaves_an_unknown_outcome(lab: &mut Lab) -> Result<()> {
    for how in ["short", "short_chunk"] {
        let ended = curl(lab, how, &["--http1.1", &odd_url(how, &format!("a-{how}"))])?.wait()?;
        ensure!(!ended.status.success(), "{how}: curl took half an answer for a whole one");
    }
    curl(lab, "until-close", &["--http1.1", "--fail", &odd_url("until_close", "a-until-close")])?.finish()?;
    let seen = requests(lab, 3)?;
    for id in ["a-short", "a-short_chunk"] {
        ensure!(named(&seen, id)?.status == Status::OutcomeUnknown, "{:?}", named(&seen, id)?);
    }
    ensure!(named(&seen, "a-until-close")?.status == Status::Ok, "{seen:?}");
    Ok(())
}

fn bodies_that_are_more_than_they_seem_pass_unchanged_and_cost_no_memory(lab: &mut Lab) -> Result<()> {
    let before = lab.agent.peak_kib()?;
    let size = |how: &str| -> Result<usize> {
        let url = odd_url(how, &format!("a-{how}"));
        let text = curl(lab, how, &["--http1.1", "-o", "/dev/null", "-w", "%{size_download}", &url])?;
        Ok(text.finish()?.text().trim().parse()?)
    };
    let (bomb, deep) = (size("bomb")?, size("deep")?);
    ensure!((30_000..200_000).contains(&bomb) && deep == 20_000, "{bomb} and {deep} bytes arrived");
    let seen = requests(lab, 2)?;
    ensure!(seen.iter().all(|one| one.status == Status::Ok), "{seen:?}");
    let peak = lab.agent.peak_kib()?;
    ensure!(peak < before + 32 * 1024, "the agent's peak went from {before} to {peak} KiB");
    Ok(())
}

fn an_upgrade_passes_and_is_recorded_with_its_reason(lab: &mut Lab) -> Result<()> {
    let clients = lab
        .google_pod(Pod::A)?
        .with("PGHOST", ODD)
        .with("PGPORT", "443")
        .with("VLAB_NAME", "odd.googleapis.com");
    clients.python("upgrade", "raw_tls.py", &["upgrade", "a-upgrade"])?.finish()?;
    let session = sessions(lab, ODD, 1)?.remove(0);
    ensure!(session.opaque_reason() == OpaqueReason::HttpUpgrade, "{session:?}");
    let seen = requests(lab, 1)?;
    ensure!(named(&seen, "a-upgrade")?.http_status == 101, "{seen:?}");
    Ok(())
}

fn a_server_that_answers_no_http_is_recorded(lab: &mut Lab) -> Result<()> {
    let ended = curl(lab, "garbage", &["--http1.1", "--fail", &odd_url("garbage", "a-garbage")])?.wait()?;
    ensure!(!ended.status.success(), "curl took garbage for an answer");
    let seen = requests(lab, 1)?;
    ensure!(named(&seen, "a-garbage")?.status == Status::OutcomeUnknown, "{seen:?}");
    Ok(())
}

fn grpc_calls_of_every_kind_are_recorded_with_their_status(lab: &mut Lab) -> Result<()> {
    lab.google_pod(Pod::A)?.python("grpc", "grpc_calls.py", &["all"])?.finish()?;
    let seen = requests(lab, 8)?;
    let expected = [
        ("unary", "Unary", 0),
        ("large", "Unary", 0),
        ("stream", "ServerStream", 0),
        ("client", "ClientStream", 0),
        ("bidi", "Bidi", 0),
        ("fail", "Fail", 9),
        ("late", "FailLate", 15),
        ("nothing", "Nothing", 12),
    ];
    for (name, method, status) in expected {
        let one = named(&seen, &format!("a-grpc_calls-{name}"))?;
        ensure!(one.operation == Operation::GrpcCall && one.protocol == Protocol::Http2, "{one:?}");
        ensure!(one.method == format!("lab.v1.Echo/{method}"), "method: {one:?}");
        ensure!(one.grpc_status == Some(status), "gRPC status: {one:?}");
        ensure!(one.status == if status == 0 { Status::Ok } else { Status::Error }, "{one:?}");
        ensure!(one.principal == lab.principal(Pod::A), "{one:?}");
    }
    // The service's own word: each call once, with what came before it.
    let output = lab.google()?.output("grpc");
    for (name, method, _) in expected.iter().filter(|(name, ..)| *name != "nothing") {
        let id = format!("id:a-grpc_calls-{name}\"");
        let lines: Vec<_> = output.lines().filter(|line| line.contains(&id)).collect();
        ensure!(lines.len() == 1 && lines[0].contains(&format!("\"{method}\"")), "{name}: {output}");
    }
    for folder in [lab.agent.spool(), lab.collector.folder().to_owned()] {
        let found = verbatim_tests::find::files_with(&folder, b"Bearer secret")?;
        ensure!(found.is_empty(), "the credential is in {found:?}");
    }
    Ok(())
}

fn a_denied_call_is_answered_in_trailers_only_and_the_channel_goes_on(lab: &mut Lab) -> Result<()> {
    lab.google_pod(Pod::A)?.python("grpc", "grpc_calls.py", &["denied"])?.finish()?;
    let seen = requests(lab, 2)?;
    let denied = named(&seen, "a-grpc_calls-denied")?;
    ensure!(denied.decision == Decision::Denied && denied.status == Status::NotForwarded, "{denied:?}");
    ensure!(named(&seen, "a-grpc_calls-after")?.flow == denied.flow, "another connection: {seen:?}");
    ensure!(!lab.google()?.output("grpc").contains("a-grpc_calls-denied"), "it went on");
    Ok(())
}

fn a_call_that_its_client_cancels_is_recorded(lab: &mut Lab) -> Result<()> {
    let mut client = lab.google_pod(Pod::A)?.python("grpc", "grpc_calls.py", &["cancelled"])?;
    wait::until("the call to be under way", || {
        let seen = lab.collector.seen()?;
        Ok(seen.iter().any(|one| one.ids == ["a-grpc_calls-wait"]).then_some(()))
    })?;
    client.stdin().context("no standard input")?.write_all(b"give up\n")?;
    client.finish()?;
    let seen = requests(lab, 2)?;
    ensure!(named(&seen, "a-grpc_calls-wait")?.status == Status::OutcomeUnknown, "{seen:?}");
    wait::until("the service to hear of it", || {
        let output = lab.google()?.output("grpc");
        Ok((output.contains("a-grpc_calls-wait") && output.contains("cancelled")).then_some(()))
    })
}

fn plaintext_http_is_recorded(lab: &mut Lab) -> Result<()> {
    let _server = peers::start(&lab.ground, "http", OTHER, 8080, "")?;
    let client = lab.pod(Pod::B).with("PGHOST", OTHER).with("PGPORT", "8080");
    client.python("http", "raw.py", &["http", &format!("http://{OTHER}:8080/page/id:b-plain")])?.finish()?;
    let seen = requests(lab, 1)?;
    let one = named(&seen, "b-plain")?;
    ensure!(one.protocol == Protocol::Http1 && one.capture == Capture::Decoded, "{one:?}");
    ensure!(one.principal == lab.principal(Pod::B) && one.http_status == 200, "{one:?}");
    let session = sessions(lab, OTHER, 1)?.remove(0);
    ensure!(session.bytes_sent > 20 && session.bytes_received > 60, "{session:?}");
    Ok(())
}
