//! Bad input from either side: nothing hangs, nothing crashes, nothing goes unrecorded.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Capture, OpaqueReason, Operation, Session, Status};
use verbatim_tests::{
    binaries,
    did::{Did, ServerSaw},
    lab::Lab,
    network::{DATABASE, OTHER, Pod},
    parts::Part,
    peers,
    process::Process,
    shell, wait,
};

use crate::{
    passing::connects,
    scenario::{Scenario, alone, usual},
};

const BINARIES: &[Part] = &[Part::Root, Part::Binaries];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(a_client_that_sends_garbage_is_recorded_as_undecoded),
        usual!(a_start_up_that_ends_in_its_middle_is_recorded),
        usual!(a_query_that_ends_in_its_middle_never_reaches_the_server),
        usual!(a_message_of_an_unknown_type_makes_the_rest_undecoded),
        usual!(a_length_below_the_least_makes_the_rest_undecoded),
        usual!(a_length_of_two_gigabytes_costs_no_memory),
        usual!(bytes_that_come_one_by_one_are_recorded_all_the_same),
        usual!(a_client_that_closes_its_side_gets_its_answer),
        usual!(a_client_that_resets_leaves_an_unknown_outcome),
        usual!(a_statement_that_is_no_utf8_is_recorded_byte_by_byte),
        usual!(a_statement_of_100_mb_is_recorded_cut_with_its_digest),
        usual!(a_server_that_answers_one_byte_at_a_time_is_recorded),
        usual!(a_server_that_ends_in_the_middle_of_an_answer_leaves_an_unknown_outcome),
        usual!(a_server_that_resets_in_the_middle_of_an_answer_leaves_an_unknown_outcome),
        usual!(a_server_that_answers_garbage_leaves_an_unknown_outcome),
        usual!(a_server_that_announces_four_gigabytes_costs_no_memory),
        usual!(a_server_that_answers_before_it_was_asked_is_not_believed),
        usual!(a_client_that_stops_reading_costs_no_memory_and_slows_nobody),
        alone!(an_unknown_configuration_key_is_named_with_its_line_and_the_nearest, BINARIES),
        alone!(without_privileges_the_agent_says_what_it_needs, BINARIES),
    ]
}

/// Runs a raw client in pod-a to its end.
fn raw(lab: &Lab, host: &str, what: &str, argument: &str) -> Result<String> {
    let client = lab.pod(Pod::A).with("PGHOST", host);
    let ended = client.python(&format!("raw-{what}"), "raw.py", &[what, argument])?.finish()?;
    Ok(ended.text())
}

/// The one connection to an address, once it is recorded as ended.
fn session(lab: &Lab, address: &str) -> Result<Session> {
    wait::until("the connection to be recorded", || {
        let sessions = lab.collector.sessions()?;
        Ok(sessions.into_iter().find(|session| {
            session.closed_wall_nanos != 0
                && session.target.as_ref().is_some_and(|target| target.address == address)
        }))
    })
}

fn mine(lab: &Lab, id: &str, text: &str) -> Did {
    Did::query(&lab.principal(Pod::A), id, text)
}

fn a_client_that_sends_garbage_is_recorded_as_undecoded(lab: &mut Lab) -> Result<()> {
    raw(lab, DATABASE, "garbage", "")?;
    let (seen, _) = connects(lab, DATABASE, 5432, 1)?;
    ensure!(seen.iter().all(|one| one.capture == Capture::SeenNotDecoded), "{seen:?}");
    ensure!(seen.iter().all(|one| one.opaque_reason != OpaqueReason::Unspecified), "{seen:?}");
    lab.compare(&[])
}

fn a_start_up_that_ends_in_its_middle_is_recorded(lab: &mut Lab) -> Result<()> {
    raw(lab, DATABASE, "truncated", "")?;
    let session = session(lab, DATABASE)?;
    ensure!(session.commands == 0 && session.principal == lab.principal(Pod::A), "{session:?}");
    lab.compare(&[])
}

fn a_query_that_ends_in_its_middle_never_reaches_the_server(lab: &mut Lab) -> Result<()> {
    raw(lab, DATABASE, "truncated_query", "DELETE FROM item /* id:a-half */")?;
    session(lab, DATABASE)?;
    // There was no command: nothing is recorded of one, and the server has nothing to log.
    lab.compare(&[])?;
    ensure!(lab.server.admin("shop", "SELECT count(*) FROM item")? == "100", "it was executed");
    Ok(())
}

/// What bad input may cost: buffers, and pages of the spool, but nothing of the size that was announced.
const COST_KIB: u64 = 32 * 1024;

fn cheap(lab: &Lab, before_kib: u64) -> Result<()> {
    let peak = lab.agent.peak_kib()?;
    ensure!(peak < before_kib + COST_KIB, "the agent's peak went from {before_kib} to {peak} KiB");
    Ok(())
}

/// A good query, then what breaks the protocol: the query is recorded, and the connection says why the
/// rest is not.
fn breaks_after_one(lab: &mut Lab, what: &str, reasons: &[OpaqueReason]) -> Result<()> {
    let before = lab.agent.peak_kib()?;
    let text = "SELECT 1 /* id:a-good */";
    raw(lab, DATABASE, what, text)?;
    let session = session(lab, DATABASE)?;
    ensure!(reasons.contains(&session.opaque_reason()), "{session:?}");
    cheap(lab, before)?;
    lab.compare(&[mine(lab, "a-good", text).rows(1)])
}

fn a_message_of_an_unknown_type_makes_the_rest_undecoded(lab: &mut Lab) -> Result<()> {
    breaks_after_one(lab, "bad_message", &[OpaqueReason::Malformed])
}

fn a_length_below_the_least_makes_the_rest_undecoded(lab: &mut Lab) -> Result<()> {
    breaks_after_one(lab, "short_length", &[OpaqueReason::Malformed])
}

fn a_length_of_two_gigabytes_costs_no_memory(lab: &mut Lab) -> Result<()> {
    // Malformed, or simply a query whose end never came.
    breaks_after_one(lab, "huge_length", &[OpaqueReason::Malformed, OpaqueReason::Unspecified])
}

fn bytes_that_come_one_by_one_are_recorded_all_the_same(lab: &mut Lab) -> Result<()> {
    let text = "SELECT 1 /* id:a-slow */";
    raw(lab, DATABASE, "slow", text)?;
    lab.compare(&[mine(lab, "a-slow", text).rows(1)])
}

fn a_client_that_closes_its_side_gets_its_answer(lab: &mut Lab) -> Result<()> {
    let text = "SELECT 1 FROM pg_sleep(0.5) /* id:a-half-closed */";
    raw(lab, DATABASE, "half_close", text)?;
    lab.compare(&[mine(lab, "a-half-closed", text).rows(1)])
}

fn a_client_that_resets_leaves_an_unknown_outcome(lab: &mut Lab) -> Result<()> {
    let text = "SELECT pg_sleep(60) /* id:a-reset */";
    let client = lab.pod(Pod::A).with("PGHOST", DATABASE);
    let mut client = client.python("raw-reset", "raw.py", &["reset", text])?;
    wait::until("the server to have it", || {
        Ok(lab.server.log()?.iter().any(|one| one.text == text).then_some(()))
    })?;
    drop(client.stdin());
    client.finish()?;
    lab.compare(&[mine(lab, "a-reset", text).ended(Status::OutcomeUnknown, ServerSaw::It)])
}

fn a_statement_that_is_no_utf8_is_recorded_byte_by_byte(lab: &mut Lab) -> Result<()> {
    raw(lab, DATABASE, "not_utf8", "a-latin")?;
    let mut did = mine(lab, "a-latin", "").rows(1);
    did.statement = Some(b"SELECT 'caf\xe9 \xff' /* id:a-latin */".to_vec());
    lab.compare(&[did])
}

fn a_statement_of_100_mb_is_recorded_cut_with_its_digest(lab: &mut Lab) -> Result<()> {
    const SIZE: usize = 100 * 1024 * 1024;
    let file = lab.ground.path("big.sql");
    let mut text = String::from("SELECT length('");
    text.push_str(&"x".repeat(SIZE));
    text.push_str("') /* id:a-tail */");
    // The id has to be in what is kept: at the beginning.
    let text = text.replacen("SELECT", "SELECT /* id:a-big */", 1).replace(" /* id:a-tail */", "");
    std::fs::write(&file, &text)?;
    let digest = shell::run("sha256sum", &[&file.display().to_string()])?;
    let before = lab.agent.peak_kib()?;
    let ended = lab.pod(Pod::A).psql("big", &["-Atf", &file.display().to_string()])?.finish()?;
    ensure!(ended.text().trim() == SIZE.to_string(), "psql said {}", ended.text());
    cheap(lab, before)?;
    let mut did = mine(lab, "a-big", "").rows(1);
    did.statement = None;
    did.capture = Capture::Partly;
    lab.compare(&[did])?;
    let seen = lab.collector.seen()?;
    let one = seen.iter().find(|one| one.ids == ["a-big"]).context("it is not there")?;
    ensure!(one.full_length == text.len() as u64, "full length {}", one.full_length);
    ensure!(!one.statement.is_empty() && text.as_bytes().starts_with(&one.statement), "another beginning");
    let found: String = one.full_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(digest.starts_with(&found) && found.len() == 64, "digest {found}, expected {digest}");
    Ok(())
}

/// One query to a server that misbehaves in its answer.
fn misbehaving(lab: &mut Lab, what: &str, status: Status) -> Result<()> {
    let _server = peers::start(&lab.ground, what, OTHER, 5432, "")?;
    let before = lab.agent.peak_kib()?;
    let text = "SELECT 1 /* id:a-peer */";
    raw(lab, OTHER, "plain", text)?;
    session(lab, OTHER)?;
    cheap(lab, before)?;
    // That server has no log.
    lab.compare(&[mine(lab, "a-peer", text).ended(status, ServerSaw::Nothing)])
}

fn a_server_that_answers_one_byte_at_a_time_is_recorded(lab: &mut Lab) -> Result<()> {
    misbehaving(lab, "drip", Status::Ok)
}

fn a_server_that_ends_in_the_middle_of_an_answer_leaves_an_unknown_outcome(lab: &mut Lab) -> Result<()> {
    misbehaving(lab, "truncate", Status::OutcomeUnknown)
}

fn a_server_that_resets_in_the_middle_of_an_answer_leaves_an_unknown_outcome(lab: &mut Lab) -> Result<()> {
    misbehaving(lab, "reset", Status::OutcomeUnknown)
}

fn a_server_that_answers_garbage_leaves_an_unknown_outcome(lab: &mut Lab) -> Result<()> {
    misbehaving(lab, "garbage", Status::OutcomeUnknown)?;
    ensure!(session(lab, OTHER)?.opaque_reason() == OpaqueReason::Malformed, "{:?}", session(lab, OTHER)?);
    Ok(())
}

fn a_server_that_announces_four_gigabytes_costs_no_memory(lab: &mut Lab) -> Result<()> {
    misbehaving(lab, "huge", Status::OutcomeUnknown)
}

fn a_server_that_answers_before_it_was_asked_is_not_believed(lab: &mut Lab) -> Result<()> {
    let _server = peers::start(&lab.ground, "eager", OTHER, 5432, "")?;
    raw(lab, OTHER, "late", "SELECT 1 /* id:a-peer */")?;
    let session = session(lab, OTHER)?;
    // What nobody asked for cannot be told from an answer: from there on nothing is claimed.
    ensure!(
        matches!(session.opaque_reason(), OpaqueReason::Desynchronised | OpaqueReason::Malformed),
        "{session:?}"
    );
    let believed: Vec<_> = lab
        .collector
        .seen()?
        .into_iter()
        .filter(|one| one.status == Status::Ok && one.operation == Operation::Query)
        .collect();
    ensure!(believed.is_empty(), "{believed:?}");
    Ok(())
}

fn a_client_that_stops_reading_costs_no_memory_and_slows_nobody(lab: &mut Lab) -> Result<()> {
    use std::io::Write as _;
    // Rows of 8 KiB: one result of 1 GiB, and one of 128 MiB for each further shard.
    const ROWS: [u64; 4] = [131_072, 16_384, 16_384, 16_384];
    let _server = peers::start(&lab.ground, "flood", OTHER, 5432, "")?;
    let before = lab.agent.anonymous_kib()?;
    let mut did = Vec::new();
    let mut stalled: Vec<Process> = Vec::new();
    for (number, rows) in ROWS.into_iter().enumerate() {
        let id = format!("a-flood{number}");
        let text = format!("SELECT 'lab:flood={rows}' /* id:{id} */");
        let client = lab.pod(Pod::A).with("PGHOST", OTHER);
        let mut client = client.python(&format!("stalled-{number}"), "raw.py", &["stalled", &text])?;
        client.wait_for_output("asked")?;
        stalled.push(client);
        let mut one = mine(lab, &id, &text).rows(rows);
        one.server = ServerSaw::Nothing;
        did.push(one);
    }
    // Beside them others work on the same agent.
    let file = lab.ground.path("beside.sql");
    std::fs::write(&file, "SELECT 1 /* vlab=a-beside */;\n")?;
    let arguments = ["-n", "-c", "4", "-j", "2", "-t", "500", "-f"];
    lab.pod(Pod::A)
        .pgbench("beside", &[&arguments[..], &[&file.display().to_string()]].concat())?
        .finish()?;
    did.extend(vec![mine(lab, "a-beside", "SELECT 1 /* vlab=a-beside */;").rows(1); 2000]);
    let after = lab.agent.anonymous_kib()?;
    ensure!(after < before + 16 * 1024, "the agent grew from {before} to {after} KiB");
    for (client, rows) in stalled.iter_mut().zip(ROWS) {
        client.stdin().context("no standard input")?.write_all(b"read on\n")?;
        client.wait_for_output("done")?;
        let size =
            client.output().split("got ").nth(1).and_then(|rest| rest.lines().next()?.parse::<u64>().ok());
        ensure!(size.is_some_and(|size| size > rows * 8190), "{}", client.output());
    }
    lab.compare(&did)
}

fn an_unknown_configuration_key_is_named_with_its_line_and_the_nearest(_: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (binary, text, line, key, nearest) in [
        ("verbatim-agent", "apiVersion: verbatim.v1\nkind: NodeAgent\nspol: {}\n", 3, "spol", "spool"),
        (
            "verbatim-collector",
            "apiVersion: verbatim.v1\nkind: Collector\nretenton: {}\n",
            3,
            "retenton",
            "retention",
        ),
    ] {
        let file = folder.path().join(format!("{binary}.yaml"));
        std::fs::write(&file, text)?;
        let output = Command::new(binaries::find(binary)?).args(["serve", "--config"]).arg(&file).output()?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{binary} took it");
        let file = file.display().to_string();
        let place = complaint.split_once(&file).is_some_and(|(_, rest)| {
            rest.trim_start_matches([':', ' ']).trim_start_matches("line ").starts_with(&format!("{line}:"))
        });
        ensure!(
            place && [key, nearest].iter().all(|part| complaint.contains(&format!("`{part}`"))),
            "{binary} says {complaint}"
        );
    }
    Ok(())
}

fn without_privileges_the_agent_says_what_it_needs(_: &str) -> Result<()> {
    let agent = binaries::find("verbatim-agent")?;
    // Copied to where everybody may read it.
    let folder = verbatim_tests::folder::Folder::create(&verbatim_tests::name::unique("unprivileged"))?;
    let copy = folder.path().join("verbatim-agent");
    std::fs::copy(&agent, &copy).context("cannot copy the agent")?;
    let output = Command::new("setpriv")
        .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
        .arg(&copy)
        .args(["run", "--", "true"])
        .current_dir("/")
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it ran without privileges");
    ensure!(
        complaint.contains("root") || complaint.contains("sudo") || complaint.contains("CAP_"),
        "it does not say what it needs: {complaint}"
    );
    Ok(())
}
