//! Denying and holding: the edit script is right when clients cannot tell it from the server's own doing.

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Decision, Operation, RecordKind};
use verbatim_tests::{
    did::{self, Did},
    lab::Lab,
    network::Pod,
    policy::APPROVER,
    process::Process,
};

use crate::scenario::{Scenario, usual};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(denied_statement_leaves_the_connection_usable),
        usual!(denied_in_a_transaction_fails_it_as_the_servers_own_error_would),
        usual!(denied_in_the_middle_of_a_pipeline_skips_what_comes_after),
        usual!(denied_message_with_several_statements_is_one_decision),
        usual!(held_statement_runs_once_it_is_released),
        usual!(held_statement_that_is_refused_never_reaches_the_server),
        usual!(held_statement_expires_when_nobody_answers),
        usual!(held_statement_is_abandoned_when_its_client_cancels),
        usual!(held_statement_is_abandoned_when_psql_is_interrupted),
        usual!(held_statement_is_abandoned_when_its_client_goes_away),
        usual!(pgbench_goes_on_beside_a_held_statement),
    ]
}

fn start(lab: &Lab, what: &str) -> Result<Process> {
    lab.pod(Pod::A).python(what, "decisions.py", &[what])
}

fn finish(lab: &mut Lab, client: Process) -> Result<Vec<Did>> {
    let ended = client.finish()?;
    let did = did::read(&ended.text(), &lab.principal(Pod::A))?;
    ensure!(!did.is_empty(), "the client did nothing");
    lab.compare(&did)?;
    Ok(did)
}

fn run(lab: &mut Lab, what: &str) -> Result<()> {
    let client = start(lab, what)?;
    finish(lab, client).map(drop)
}

fn denied_statement_leaves_the_connection_usable(lab: &mut Lab) -> Result<()> {
    run(lab, "denied")
}

fn denied_in_a_transaction_fails_it_as_the_servers_own_error_would(lab: &mut Lab) -> Result<()> {
    run(lab, "transaction")
}

fn denied_in_the_middle_of_a_pipeline_skips_what_comes_after(lab: &mut Lab) -> Result<()> {
    run(lab, "pipeline")
}

fn denied_message_with_several_statements_is_one_decision(lab: &mut Lab) -> Result<()> {
    run(lab, "several")
}

/// How long a hold lasts before it is answered: a minute in a soak run.
pub(crate) fn thinking_time() -> std::time::Duration {
    let seconds = std::env::var("VLAB_HOLD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    std::time::Duration::from_secs(seconds)
}

fn held_statement_runs_once_it_is_released(lab: &mut Lab) -> Result<()> {
    let mut client = start(lab, "released")?;
    let approver = lab.approver();
    for id in ["a-decisions-simple", "a-decisions-extended"] {
        approver.wait_until_held(id)?;
        std::thread::sleep(thinking_time());
        ensure!(client.running(), "the client did not wait");
        let early = lab.server.log()?.iter().any(|one| one.text.contains(&format!("id:{id} ")));
        ensure!(!early, "{id} reached the server while it was held");
        approver.answer(id, true)?;
    }
    finish(lab, client)?;
    for one in lab.collector.seen()?.iter().filter(|one| one.statement.windows(8).any(|w| w == b"lab:hold")) {
        let entries = lab.collector.get(&one.record)?.entries;
        let decided = kinds(&entries)?;
        ensure!(
            decided == [RecordKind::Started, RecordKind::Decided, RecordKind::Finished],
            "a released command has {decided:?}"
        );
        ensure!(contents(&entries).contains(APPROVER), "nothing says who released it");
    }
    Ok(())
}

/// Kinds of a command's records, in the order of its chain; bytes of ours apart.
fn kinds(entries: &[verbatim_api::v1::Entry]) -> Result<Vec<RecordKind>> {
    let mut kinds = Vec::new();
    for entry in entries {
        let envelope = verbatim_tests::audit::envelope(entry)?;
        if envelope.kind() != RecordKind::Injected {
            kinds.push(envelope.kind());
        }
    }
    Ok(kinds)
}

fn contents(entries: &[verbatim_api::v1::Entry]) -> String {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.content).into_owned()).collect()
}

fn held_statement_that_is_refused_never_reaches_the_server(lab: &mut Lab) -> Result<()> {
    let client = start(lab, "refused")?;
    lab.approver().wait_until_held("a-decisions-held")?;
    lab.approver().answer("a-decisions-held", false)?;
    finish(lab, client).map(drop)
}

fn held_statement_expires_when_nobody_answers(lab: &mut Lab) -> Result<()> {
    run(lab, "expired")
}

fn held_statement_is_abandoned_when_its_client_cancels(lab: &mut Lab) -> Result<()> {
    let mut client = start(lab, "cancelled")?;
    lab.approver().wait_until_held("a-decisions-held")?;
    go_on(&mut client)?;
    finish(lab, client)?;
    let cancels = lab.collector.seen()?.into_iter().filter(|one| one.operation == Operation::Cancel).count();
    ensure!(cancels == 1, "{cancels} cancel requests are recorded");
    Ok(())
}

fn go_on(client: &mut Process) -> Result<()> {
    use std::io::Write as _;
    client.stdin().context("no standard input")?.write_all(b"go on\n").context("the client is gone")
}

fn held_statement_is_abandoned_when_psql_is_interrupted(lab: &mut Lab) -> Result<()> {
    let held = "DELETE FROM item /* lab:hold=3600 id:a-held */";
    let client = lab.pod(Pod::A).psql("psql", &["-At", "-c", held])?;
    lab.approver().wait_until_held("a-held")?;
    client.signal("INT")?;
    let ended = client.wait()?;
    ensure!(ended.complaints().contains("cancel"), "psql said {}", ended.complaints());
    lab.compare(&[Did::query(&lab.principal(Pod::A), "a-held", held).refused(Decision::Abandoned)])
}

fn held_statement_is_abandoned_when_its_client_goes_away(lab: &mut Lab) -> Result<()> {
    let text = "DELETE FROM item /* lab:hold=3600 id:a-held */";
    let mut client = lab.pod(Pod::A).python("held", "raw.py", &["held", text])?;
    lab.approver().wait_until_held("a-held")?;
    go_on(&mut client)?;
    client.finish()?;
    let did = [Did::query(&lab.principal(Pod::A), "a-held", text).refused(Decision::Abandoned)];
    lab.agree(&did)?;
    // Too late: what nobody waits for does not run.
    lab.approver().answer("a-held", true)?;
    lab.compare(&did)
}

fn pgbench_goes_on_beside_a_held_statement(lab: &mut Lab) -> Result<()> {
    let text = "UPDATE item SET price = 1 WHERE id = 1 /* lab:hold=3600 id:a-held */";
    let held = lab.pod(Pod::A).psql("held", &["-c", text])?;
    lab.approver().wait_until_held("a-held")?;
    let file = lab.ground.path("beside.sql");
    std::fs::write(&file, "SELECT 1 /* vlab=a-beside */;\n")?;
    let file = file.display().to_string();
    let mut did = vec![Did::query(&lab.principal(Pod::A), "a-held", text).rows(1)];
    for mode in ["simple", "extended"] {
        let arguments = ["-n", "-M", mode, "-c", "4", "-j", "2", "-t", "50", "-f", &file];
        lab.pod(Pod::A).pgbench(&format!("pgbench-{mode}"), &arguments)?.finish()?;
        let operation = if mode == "simple" { Operation::Query } else { Operation::Execute };
        let one = Did::query(&lab.principal(Pod::A), "a-beside", "SELECT 1 /* vlab=a-beside */;")
            .operation(operation);
        did.extend(std::iter::repeat_n(one.rows(1), 200));
    }
    lab.approver().answer("a-held", true)?;
    held.finish()?;
    lab.compare(&did)
}
