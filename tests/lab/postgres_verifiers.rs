//! PostgreSQL's clients that insist on a bound channel, where the agent knows what the server keeps of the password.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use verbatim_tests::{clients::Clients, did, find, lab::Lab, network::Pod};

use crate::{
    postgres_drivers::WITH_JDBC,
    postgres_tls::{SECRET, WITH_NODE, client, mine, over_tls, sessions},
    scenario::{Scenario, usual},
    tls::NEEDS,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(a_client_that_requires_channel_binding_is_let_in_by_a_known_verifier)
            .needing(NEEDS)
            .with(over_tls),
        usual!(a_verifier_that_is_out_of_date_is_told_and_read_again).needing(NEEDS).with(over_tls),
        usual!(jdbc_that_requires_channel_binding_is_let_in_by_a_known_verifier)
            .needing(WITH_JDBC)
            .with(over_tls),
        usual!(node_postgres_that_binds_the_channel_is_let_in_by_a_known_verifier)
            .needing(WITH_NODE)
            .with(over_tls),
    ]
}

/// One that lets nobody in whose channel is not bound.
fn insisting(lab: &Lab, password: &str) -> Result<Clients> {
    Ok(client(lab, "verify-full")?
        .with("PGSSLROOTCERT", lab.trust()?.bundle().display().to_string())
        .with("PGCHANNELBINDING", "require")
        .with("PGUSER", "clerk")
        .with("PGPASSWORD", password))
}

/// What the server keeps of the clerk's password; the agent is told.
fn tell(lab: &Lab) -> Result<String> {
    let kept = lab.server.admin("postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'clerk'")?;
    let kept = kept.trim().to_owned();
    ensure!(kept.starts_with("SCRAM-SHA-256$"), "the server keeps {kept:?}");
    lab.know(&format!("; the lab's\n\"clerk\" \"{kept}\" \"db.vpc.internal:5432\"\n"))?;
    Ok(kept)
}

/// Neither password nor keys, as text or as bytes.
fn keeps_its_secrets(lab: &Lab, kept: &str) -> Result<()> {
    let keys = kept.rsplit('$').next().unwrap_or_default();
    let mut secrets = vec![SECRET.as_bytes().to_vec()];
    for key in keys.split(':') {
        secrets.push(key.as_bytes().to_vec());
        secrets.push(BASE64_STANDARD.decode(key)?);
    }
    for secret in secrets {
        for folder in [lab.agent.spool(), lab.collector.folder().to_owned()] {
            let found = find::files_with(&folder, &secret)?;
            ensure!(found.is_empty(), "a credential is in {found:?}");
        }
        let complaints = lab.agent.complaints();
        ensure!(
            !complaints.contains(&*String::from_utf8_lossy(&secret)),
            "a credential is in the agent's log"
        );
    }
    Ok(())
}

fn recorded(lab: &Lab, what: &str) -> Result<()> {
    let found = find::files_with(&lab.collector.data(), what.as_bytes())?;
    ensure!(!found.is_empty(), "no record has {what:?}");
    Ok(())
}

fn a_client_that_requires_channel_binding_is_let_in_by_a_known_verifier(lab: &mut Lab) -> Result<()> {
    let kept = tell(lab)?;
    let text = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid() /* id:a-psql */";
    let ended = insisting(lab, SECRET)?.psql("psql", &["-Atc", text])?.finish()?;
    ensure!(ended.text().trim() == "t", "psql said {}", ended.text());
    let ended = insisting(lab, SECRET)?.python("psycopg", "psycopg_bound.py", &[])?.finish()?;
    let mut did = did::read(&ended.text(), &lab.principal(Pod::A))?;
    did.push(mine(lab, "a-psql", text).rows(1));
    // In PostgreSQL's own words, for they are its own.
    let ended = insisting(lab, "wrong")?.psql("wrong", &["-Atc", "SELECT 1"])?.wait()?;
    ensure!(!ended.status.success(), "a wrong password was taken");
    let expected = "FATAL:  password authentication failed for user \"clerk\"";
    ensure!(ended.complaints().contains(expected), "{}", ended.complaints());
    let logged = lab.server.complete_raw_log()?;
    ensure!(
        logged.contains("password authentication failed for user \\\"clerk\\\""),
        "not in the server's log"
    );
    lab.compare(&did)?;
    sessions(lab, 3)?;
    recorded(lab, "SCRAM on both legs, by a known verifier")?;
    recorded(lab, "the client's proof does not fit the known verifier")?;
    keeps_its_secrets(lab, &kept)
}

fn a_verifier_that_is_out_of_date_is_told_and_read_again(lab: &mut Lab) -> Result<()> {
    let old = tell(lab)?;
    lab.server.admin("postgres", &format!("ALTER ROLE clerk PASSWORD '{SECRET}'"))?;
    let ended = insisting(lab, SECRET)?.psql("early", &["-Atc", "SELECT 1 /* id:a-early */"])?.wait()?;
    ensure!(!ended.status.success(), "an old verifier was taken: {}", ended.text());
    let said = ended.complaints();
    ensure!(said.contains("is not the server's") && said.contains("HINT:  the proxy's verifier"), "{said}");
    sessions(lab, 1)?;
    recorded(lab, "the verifier that the proxy has of this role is not the server's")?;
    let new = tell(lab)?;
    ensure!(new != old, "the server keeps the same");
    let text = "SELECT current_user /* id:a-late */";
    let ended = insisting(lab, SECRET)?.psql("late", &["-Atc", text])?.finish()?;
    ensure!(ended.text().trim() == "clerk", "psql said {}", ended.text());
    lab.compare(&[mine(lab, "a-late", text).rows(1)])?;
    keeps_its_secrets(lab, &old)?;
    keeps_its_secrets(lab, &new)
}

/// A second implementation of SCRAM and of `tls-server-end-point`.
fn jdbc_that_requires_channel_binding_is_let_in_by_a_known_verifier(lab: &mut Lab) -> Result<()> {
    let kept = tell(lab)?;
    let ended = client(lab, "require")?.jdbc("bound", &["bound"])?.finish().context("JDBC, bound")?;
    let did = did::read(&ended.text(), &lab.principal(Pod::A))?;
    ensure!(!did.is_empty(), "the client did nothing");
    lab.compare(&did)?;
    keeps_its_secrets(lab, &kept)
}

/// A third one; it insists on nothing, so the record must say that the channel was bound.
fn node_postgres_that_binds_the_channel_is_let_in_by_a_known_verifier(lab: &mut Lab) -> Result<()> {
    let kept = tell(lab)?;
    let clients = client(lab, "require")?.with("PGUSER", "clerk").with("PGPASSWORD", SECRET);
    let ended = clients.node("bound", "node_bound.mjs", &[])?.finish()?;
    let did = did::read(&ended.text(), &lab.principal(Pod::A))?;
    ensure!(!did.is_empty(), "the client did nothing");
    lab.compare(&did)?;
    sessions(lab, 1)?;
    recorded(lab, "SCRAM on both legs, by a known verifier")?;
    keeps_its_secrets(lab, &kept)
}
