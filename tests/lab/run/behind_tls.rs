//! `run` where everything is behind TLS.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use verbatim_tests::{
    binaries, cli,
    did::ids,
    google,
    network::{DATABASE_NAME, Pod},
    parts, postgres,
    process::Process,
};

use super::{field, machine::Machine};
use crate::{
    bigquery,
    postgres_tls::SECRET,
    scenario::{Scenario, alone},
    tls::NEEDS,
};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        alone!(run_captures_bigquery_and_postgresql_behind_tls_in_one_trail, bigquery::NEEDS),
        alone!(run_lets_a_client_in_that_insists_on_a_bound_channel, NEEDS),
    ]
}

/// One command that asks a database and BigQuery, both behind TLS, as they are; nothing is set but by `run`.
fn run_captures_bigquery_and_postgresql_behind_tls_in_one_trail(name: &str) -> Result<()> {
    let machine = Machine::with_google(name, true)?;
    let google = machine.google.as_ref().context("no Google")?;
    let (data, root) = (machine.data(), google.root().certificate().display().to_string());
    fs::create_dir_all(machine.temporary())?;
    let hosts = format!("/etc/netns/{}/hosts", machine.ground.network.pod(Pod::A).name());
    let script = verbatim_tests::clients::scripts().join("both_services.py");
    // Names are this machine's alone: within a mount namespace of the run's own.
    let mut run = machine.place()?.command("unshare");
    run.args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc/hosts && exec "$@""#, &hosts]);
    run.arg(binaries::find("verbatim-agent")?);
    run.args(["run", "--data", &data, "--name", DATABASE_NAME, "--upstream-ca", &root, "--"]);
    run.arg(parts::python()).arg(script);
    run.envs([
        ("VLAB_PREFIX", "run-"),
        ("PGHOST", DATABASE_NAME),
        ("PGUSER", postgres::USER),
        ("PGDATABASE", postgres::DATABASE_DB),
        ("PGSSLMODE", "require"),
        ("GOOGLE_CLOUD_PROJECT", google::names::PROJECT),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ]);
    run.env("TMPDIR", machine.temporary());
    let ended = Process::start("both", machine.ground.folder.path(), run)?.finish()?;
    let did = verbatim_tests::did::read(&ended.text(), "")?;
    ensure!(did.len() == 4, "the client did {did:?}");
    let lines = cli::records(cli::Source::Data(Path::new(&data)))?;
    for one in &did {
        let of: Vec<_> = lines
            .iter()
            .filter(|line| ids(field(line, "statement").as_bytes()) == [one.id.as_str()])
            .collect();
        ensure!(of.len() == 1, "{}: {} record(s) in {lines:?}", one.id, of.len());
        let expected = if one.status == verbatim_api::v1::Status::Ok { "ok" } else { "error" };
        ensure!(of.iter().all(|line| field(line, "status") == expected), "{of:?}");
    }
    let requests = google.requests()?;
    let arrived = |id: &str| requests.iter().filter(|one| one.ids.iter().any(|other| other == id)).count();
    ensure!(arrived("run-both_services-bigquery") == 1, "{requests:?}");
    let logged: Vec<String> = machine.logged()?.into_iter().map(|one| one.text).collect();
    ensure!(logged.iter().filter(|text| text.contains("id:run-")).count() == 2, "{logged:?}");
    ensure!(fs::read_dir(machine.temporary())?.next().is_none(), "trust was left behind");
    Ok(())
}

fn run_lets_a_client_in_that_insists_on_a_bound_channel(name: &str) -> Result<()> {
    let machine = Machine::with_google(name, false)?;
    let google = machine.google.as_ref().context("no Google")?;
    let (data, root) = (machine.data(), google.root().certificate().display().to_string());
    let kept = r#"SELECT format('"%s" "%s"', rolname, rolpassword) FROM pg_authid WHERE rolname = 'clerk'"#;
    let verifiers = machine.ground.path("verifiers");
    fs::write(&verifiers, machine.server.admin("postgres", kept)?)?;
    let file = verifiers.display().to_string();
    let options = ["--data", &data, "--live", "off", "--upstream-ca", &root, "--verifier-file", &file];
    let (psql, password) = (machine.psql()?, format!("PGPASSWORD={SECRET}"));
    let text = "SELECT current_user /* id:run-bound */";
    let insists = ["env", "PGSSLMODE=require", "PGCHANNELBINDING=require", "PGUSER=clerk", &password];
    let command = [&insists[..], &[&psql, "-XAtc", text]].concat();
    fs::set_permissions(&verifiers, fs::Permissions::from_mode(0o644))?;
    let refused = machine.start("refused", &options, &command)?.wait()?;
    ensure!(refused.status.code() == Some(125), "{}: {}", refused.status, refused.complaints());
    ensure!(refused.complaints().contains("chmod 600"), "{}", refused.complaints());
    fs::set_permissions(&verifiers, fs::Permissions::from_mode(0o600))?;
    let ended = machine.run("bound", &options, &command)?;
    ensure!(ended.text().trim() == "clerk", "psql said {}: {}", ended.text(), ended.complaints());
    let lines = cli::records(cli::Source::Data(Path::new(&data)))?;
    ensure!(lines.iter().filter(|line| field(line, "statement") == text).count() == 1, "{lines:?}");
    let found = verbatim_tests::find::files_with(Path::new(&data), SECRET.as_bytes())?;
    ensure!(found.is_empty(), "the password is in {found:?}");
    Ok(())
}
