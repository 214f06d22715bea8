//! BigQuery with Google's own clients, unmodified: every statement and every call is recorded, and the
//! front before the emulator has seen just those.

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Decision, Operation, RecordKind, Status};
use verbatim_tests::{
    agent::Options,
    did::{self, Did},
    google,
    lab::Lab,
    network::Pod,
    parts::Part,
    process::{Ended, Process},
};

use crate::scenario::{Scenario, usual};

pub(crate) const NEEDS: &[Part] = &[
    Part::Root,
    Part::Sandbox,
    Part::Binaries,
    Part::Postgres,
    Part::PythonGoogle,
    Part::Emulator,
    Part::Bpf,
];
const WITH_NODE: &[Part] = &[
    Part::Root,
    Part::Sandbox,
    Part::Binaries,
    Part::Postgres,
    Part::PythonGoogle,
    Part::Emulator,
    Part::NodeGoogle,
    Part::Bpf,
];
const WITH_BQ: &[Part] = &[
    Part::Root,
    Part::Sandbox,
    Part::Binaries,
    Part::Postgres,
    Part::PythonGoogle,
    Part::Emulator,
    Part::Bq,
    Part::Bpf,
];

pub(crate) fn scenarios() -> Vec<Scenario> {
    let usual = [
        usual!(bigquery_from_python_is_recorded_from_two_pods_at_once).needing(NEEDS),
        usual!(bigquery_from_node_is_recorded).needing(WITH_NODE),
        usual!(bq_is_recorded_and_an_upload_is_one_chain).needing(WITH_BQ),
        usual!(a_denied_query_is_answered_in_bigquerys_own_form).needing(NEEDS),
        usual!(a_held_query_runs_once_it_is_released).needing(NEEDS),
        usual!(a_held_query_expires_when_nobody_answers).needing(NEEDS),
    ];
    usual.map(|one| one.with(emulated)).into()
}

/// Both pods trust us, and there is an emulator.
pub(crate) fn emulated() -> Options {
    Options { google: Some(google::Options { emulator: true, ..Default::default() }), ..Options::default() }
}

/// Compares statements and calls with what was recorded, and that with what the front saw; then looks for
/// the access tokens on the disk.
fn compare(lab: &mut Lab, ended: &[(Pod, Ended)]) -> Result<()> {
    let mut all: Vec<Did> = Vec::new();
    for (pod, ended) in ended {
        let did = did::read(&ended.text(), &lab.principal(*pod))?;
        ensure!(!did.is_empty(), "the client did nothing");
        all.extend(did);
    }
    lab.compare(&all)?;
    let seen = lab.collector.seen()?;
    for (pod, ended) in ended {
        google::calls(&did::calls(&ended.text())?, &lab.principal(*pod), &seen)?;
        for folder in [lab.agent.spool(), lab.collector.folder().to_owned()] {
            let found = verbatim_tests::find::files_with(&folder, google::token(*pod).as_bytes())?;
            ensure!(found.is_empty(), "the access token is in {found:?}");
        }
    }
    for one in seen.iter().filter(|one| one.operation != Operation::Connect) {
        ensure!(one.target.service == "bigquery", "service: {one:?}");
        ensure!(one.target.host == google::names::BIGQUERY, "host: {one:?}");
    }
    Ok(())
}

fn bigquery_from_python_is_recorded_from_two_pods_at_once(lab: &mut Lab) -> Result<()> {
    let clients = Pod::ALL
        .map(|pod| Ok((pod, lab.google_pod(pod)?.python(pod.letter(), "bigquery_commands.py", &[])?)))
        .into_iter()
        .collect::<Result<Vec<(Pod, Process)>>>()?;
    let ended =
        clients.into_iter().map(|(pod, client)| Ok((pod, client.finish()?))).collect::<Result<Vec<_>>>()?;
    compare(lab, &ended)?;
    let seen = lab.collector.seen()?;
    let named = |name: &str| {
        let id = format!("a-bigquery_commands-{name}");
        seen.iter().find(move |one| one.ids.contains(&id)).with_context(|| format!("no {name}"))
    };
    // Parameters with their values, as a person would write them.
    let values = &named("parameters")?.parameters;
    ensure!(*values == [Some("41".into()), Some("näive".into())], "{values:?}");
    let dry = named("dry")?;
    ensure!(dry.attribute("dry_run").is_some(), "nothing says that it was a dry run: {dry:?}");
    let update = named("update")?;
    ensure!(update.rows == Some(1), "{update:?}");
    ensure!(update.resource.contains("lab-project"), "{update:?}");
    // Sent in parts: the parts go on with what the first request began.
    uploads_are_chained(lab, 1)
}

/// Parts of uploads name the command that began them.
fn uploads_are_chained(lab: &Lab, least: usize) -> Result<()> {
    let seen = lab.collector.seen()?;
    let parts: Vec<_> = seen.iter().filter(|one| one.operation == Operation::Upload).collect();
    ensure!(parts.len() >= least, "{} parts of uploads are recorded", parts.len());
    for part in parts {
        let parent = seen.iter().find(|one| one.record == part.parent);
        let parent = parent.with_context(|| format!("nothing began this: {part:?}"))?;
        ensure!(parent.operation == Operation::Load && parent.principal == part.principal, "{parent:?}");
    }
    Ok(())
}

fn bigquery_from_node_is_recorded(lab: &mut Lab) -> Result<()> {
    let ended = lab.google_pod(Pod::B)?.node("node", "bigquery_node.mjs", &[])?.finish()?;
    compare(lab, &[(Pod::B, ended)])
}

fn bq_is_recorded_and_an_upload_is_one_chain(lab: &mut Lab) -> Result<()> {
    let ended = lab.google_pod(Pod::A)?.python("bq", "bq_commands.py", &[])?.finish()?;
    compare(lab, &[(Pod::A, ended)])?;
    uploads_are_chained(lab, 1)
}

fn decide(lab: &Lab, what: &str) -> Result<Process> {
    lab.google_pod(Pod::A)?.python(what, "bigquery_decisions.py", &[what])
}

fn a_denied_query_is_answered_in_bigquerys_own_form(lab: &mut Lab) -> Result<()> {
    let ended = decide(lab, "denied")?.finish()?;
    compare(lab, &[(Pod::A, ended)])
}

fn a_held_query_runs_once_it_is_released(lab: &mut Lab) -> Result<()> {
    let client = decide(lab, "released")?;
    let id = "a-bigquery_decisions-held";
    lab.approver().wait_until_held(id)?;
    std::thread::sleep(crate::decisions::thinking_time());
    ensure!(lab.google()?.requests()?.iter().all(|one| one.ids != [id]), "it went on while it was held");
    lab.approver().answer(id, true)?;
    let ended = client.finish()?;
    compare(lab, &[(Pod::A, ended)])?;
    let seen = lab.collector.seen()?;
    let held = seen.iter().find(|one| one.ids == [id]).context("it is not recorded")?;
    ensure!(held.decision == Decision::Allowed && held.status == Status::Ok, "{held:?}");
    let mut kinds = Vec::new();
    for entry in &lab.collector.get(&held.record)?.entries {
        kinds.push(verbatim_tests::audit::envelope(entry)?.kind());
    }
    ensure!(kinds.contains(&RecordKind::Decided), "{kinds:?}");
    Ok(())
}

fn a_held_query_expires_when_nobody_answers(lab: &mut Lab) -> Result<()> {
    let ended = decide(lab, "expired")?.finish()?;
    compare(lab, &[(Pod::A, ended)])
}
