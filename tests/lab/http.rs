//! HTTP/1.1 and HTTP/2 through both endpoints of ours: clients and servers cannot tell, and each request has its
//! record.

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Capture, Decision, OpaqueReason, Operation, Protocol, Session, Status};
use verbatim_tests::{
    audit::Seen,
    google::names::{GOOGLE, MIRROR},
    lab::Lab,
    network::{OTHER, Pod},
    peers,
    process::Process,
    wait,
};

use crate::{
    scenario::{Scenario, usual},
    tls::{NEEDS, WITH_NODE, trusted},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mirrored = [
        usual!(httpx_over_http2_is_recorded_request_by_request),
        usual!(curl_is_recorded_request_by_request_on_kept_connections),
        usual!(a_request_that_waits_for_100_gets_it),
        usual!(a_held_stream_is_abandoned_when_its_client_resets_it),
        usual!(a_denied_request_is_answered_with_403_and_the_connection_goes_on),
        usual!(a_header_is_replaced_on_the_way_and_its_value_is_nowhere),
        usual!(a_large_body_costs_no_memory_in_either_direction),
        usual!(requests_that_can_be_read_in_two_ways_are_refused_and_recorded),
    ]
    .map(|one| one.needing(NEEDS).with(trusted));
    let others = [
        usual!(a_held_stream_waits_while_a_hundred_others_on_its_connection_pass)
            .needing(WITH_NODE)
            .with(trusted),
        usual!(plaintext_http_is_recorded),
    ];
    mirrored.into_iter().chain(others).collect()
}

fn httpx(lab: &Lab, what: &str) -> Result<Process> {
    lab.google_pod(Pod::A)?.python(what, "httpx_requests.py", &[what])
}

pub(crate) fn curl(lab: &Lab, name: &str, arguments: &[&str]) -> Result<Process> {
    let arguments = [&["-sS", "--max-time", "100"], arguments].concat();
    lab.google_pod(Pod::A)?.start(name, "curl", &arguments)
}

/// The requests that were recorded, once none is under way; by the names of their ids without the prefix.
pub(crate) fn requests(lab: &Lab, count: usize) -> Result<Vec<Seen>> {
    wait::until(&format!("{count} request(s) to be recorded"), || {
        let mut seen = lab.collector.seen()?;
        seen.retain(|one| one.operation != Operation::Connect);
        ensure!(seen.len() <= count, "too many: {seen:?}");
        Ok((seen.len() == count && seen.iter().all(|one| one.status != Status::Pending)).then_some(seen))
    })
    .with_context(|| format!("recorded: {:?}", lab.collector.seen()))
}

pub(crate) fn named<'a>(seen: &'a [Seen], id: &str) -> Result<&'a Seen> {
    let mut found = seen.iter().filter(|one| one.ids.iter().any(|other| other == id));
    let one = found.next().with_context(|| format!("{id} is not recorded among {seen:?}"))?;
    ensure!(found.next().is_none(), "{id} is recorded more than once");
    Ok(one)
}

pub(crate) fn sessions(lab: &Lab, address: &str, count: usize) -> Result<Vec<Session>> {
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
    let id = "a-http2_held-held";
    let mut client = lab.google_pod(Pod::A)?.node("many", "http2_held.mjs", &[])?;
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
