//! PostgreSQL over TLS: every sslmode of every client, passwords, cancelling, and never less upstream than
//! toward the client.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, bail, ensure};
use verbatim_api::v1::{Capture, OpaqueReason, Operation, Protocol, Session};
use verbatim_tests::{
    agent::Options,
    clients::Clients,
    did::{self, Did},
    google,
    lab::Lab,
    network::{DATABASE, DATABASE_V6, Pod},
    parts::Part,
    postgres::Offers,
    wait,
};

use crate::{
    postgres_drivers::loses_one,
    scenario::{Scenario, needs, usual},
    tls::NEEDS,
};

pub(crate) const WITH_NODE: &[Part] = needs!(Node);

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ours = [
        usual!(psql_with_every_sslmode_is_recorded).needing(NEEDS),
        usual!(psycopg_and_asyncpg_with_every_sslmode_are_recorded).needing(NEEDS),
        usual!(node_postgres_with_and_without_tls_is_recorded).needing(WITH_NODE),
        usual!(everything_that_psycopg_does_is_recorded_over_tls).needing(NEEDS),
        usual!(cancelling_and_scram_work_over_tls).needing(NEEDS),
        usual!(scram_with_a_bound_channel_is_answered_by_us).needing(NEEDS),
        usual!(a_client_that_requires_channel_binding_is_told_why_not).needing(NEEDS),
        usual!(a_client_that_trusts_only_the_servers_root_loses_one_connection).needing(NEEDS),
        usual!(a_client_whose_certificate_postgresql_insists_on_loses_one_connection).needing(NEEDS),
        usual!(a_client_whose_certificate_postgresql_only_asks_for_is_captured_as_before).needing(NEEDS),
        usual!(a_client_that_asks_for_gssapi_is_answered_no_and_goes_on).needing(NEEDS),
    ];
    ours.map(|one| one.with(over_tls)).into()
}

pub(crate) fn over_tls() -> Options {
    Options { google: Some(google::Options::default()), database: Offers::Tls, ..Options::default() }
}

/// A client in pod-a with what injection gives it, and `sslmode`.
pub(crate) fn client(lab: &Lab, mode: &str) -> Result<Clients> {
    let trust = lab.trust()?;
    let roots = trust.bundle().display().to_string();
    Ok(lab.pod(Pod::A).trusting(trust).with("PGSSLMODE", mode).with("VLAB_ROOTS", roots))
}

pub(crate) fn mine(lab: &Lab, id: &str, text: &str) -> Did {
    Did::query(&lab.principal(Pod::A), id, text)
}

pub(crate) fn sessions(lab: &Lab, count: usize) -> Result<Vec<Session>> {
    wait::until(&format!("{count} session(s)"), || {
        let mut sessions = lab.collector.sessions()?;
        sessions.retain(|one| one.closed_wall_nanos != 0);
        Ok((sessions.len() >= count).then_some(sessions))
    })
}

fn psql_with_every_sslmode_is_recorded(lab: &mut Lab) -> Result<()> {
    let mut did = Vec::new();
    for host in ["db.vpc.internal", DATABASE, DATABASE_V6] {
        for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
            let id = format!("a-{mode}-{}", host.replace(':', "-"));
            let text = format!("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid() /* id:{id} */");
            let mut clients = client(lab, mode)?.with("PGHOST", host);
            if mode.starts_with("verify") {
                clients = clients.with("PGSSLROOTCERT", lab.trust()?.bundle().display().to_string());
            }
            let ended = clients.psql(&id, &["-Atc", &text])?.finish()?;
            let over_tls = !matches!(mode, "disable" | "allow");
            ensure!(!over_tls || ended.text().trim() == "t", "{id}: upstream without TLS: {}", ended.text());
            did.push(mine(lab, &id, &text).rows(1));
        }
    }
    lab.compare(&did)?;
    let sessions = sessions(lab, did.len())?;
    let both = sessions.iter().filter_map(|one| one.tls.as_ref()).filter(|tls| {
        let version = |leg: &Option<verbatim_api::v1::TlsLeg>| {
            leg.as_ref().map(|leg| leg.version.clone()).unwrap_or_default()
        };
        version(&tls.client) == "TLSv1.3" && version(&tls.server) == "TLSv1.3"
    });
    ensure!(both.count() == 12, "{sessions:?}");
    Ok(())
}

fn psycopg_and_asyncpg_with_every_sslmode_are_recorded(lab: &mut Lab) -> Result<()> {
    let ended = client(lab, "prefer")?.python("modes", "tls_modes.py", &[])?.finish()?;
    let did = did::read(&ended.text(), &lab.principal(Pod::A))?;
    lab.compare(&did)
}

fn node_postgres_with_and_without_tls_is_recorded(lab: &mut Lab) -> Result<()> {
    let ended = client(lab, "prefer")?.node("modes", "tls_modes.mjs", &[])?.finish()?;
    let did = did::read(&ended.text(), &lab.principal(Pod::A))?;
    lab.compare(&did)
}

fn everything_that_psycopg_does_is_recorded_over_tls(lab: &mut Lab) -> Result<()> {
    let mut did = Vec::new();
    for script in ["psycopg_simple", "psycopg_extended", "psycopg_copy", "asyncpg_commands"] {
        let clients = client(lab, "require")?.with("VLAB_SSL", "require");
        let ended = clients.python(script, &format!("{script}.py"), &[])?.finish()?;
        did.extend(did::read(&ended.text(), &lab.principal(Pod::A))?);
    }
    lab.compare(&did)?;
    for one in lab.collector.seen()? {
        ensure!(one.protocol == Protocol::Postgresql && one.operation != Operation::Connect, "{one:?}");
    }
    Ok(())
}

fn cancelling_and_scram_work_over_tls(lab: &mut Lab) -> Result<()> {
    let ended = client(lab, "require")?.python("cancel", "psycopg_cancel.py", &[])?.finish()?;
    let did = did::read(&ended.text(), &lab.principal(Pod::A))?;
    lab.compare(&did)?;
    let cancels = lab.collector.seen()?.into_iter().filter(|one| one.operation == Operation::Cancel).count();
    ensure!(cancels > 0, "the cancel request is not recorded");
    Ok(())
}

pub(crate) const SECRET: &str = "secret of the clerk";

/// A client that binds the channel if it can: libpq's own default, without injection's variable.
fn scram_with_a_bound_channel_is_answered_by_us(lab: &mut Lab) -> Result<()> {
    let text = "SELECT current_user /* id:a-bound */";
    let clients = client(lab, "require")?
        .with("PGCHANNELBINDING", "prefer")
        .with("PGUSER", "clerk")
        .with("PGPASSWORD", SECRET);
    let ended = clients.psql("bound", &["-Atc", text])?.finish()?;
    ensure!(ended.text().trim() == "clerk", "psql said {}", ended.text());
    let wrong = clients.with("PGPASSWORD", "wrong").psql("wrong", &["-Atc", "SELECT 1"])?.wait()?;
    ensure!(!wrong.status.success(), "a wrong password was taken");
    ensure!(wrong.complaints().contains("password authentication failed"), "{}", wrong.complaints());
    lab.compare(&[mine(lab, "a-bound", text).rows(1)])?;
    for folder in [lab.agent.spool(), lab.collector.folder().to_owned()] {
        let found = verbatim_tests::find::files_with(&folder, SECRET.as_bytes())?;
        ensure!(found.is_empty(), "the password is in {found:?}");
    }
    Ok(())
}

fn a_client_that_requires_channel_binding_is_told_why_not(lab: &mut Lab) -> Result<()> {
    let clients = client(lab, "require")?
        .with("PGCHANNELBINDING", "require")
        .with("PGUSER", "clerk")
        .with("PGPASSWORD", SECRET);
    let ended = clients.psql("bound", &["-Atc", "SELECT 1 /* id:a-never */"])?.wait()?;
    ensure!(!ended.status.success(), "a channel was bound that is not the server's: {}", ended.text());
    let session = sessions(lab, 1)?.remove(0);
    ensure!(session.commands == 0 && session.principal == lab.principal(Pod::A), "{session:?}");
    lab.compare(&[])
}

/// `sslrootcert` names the server's own authority, as Cloud SQL's documentation has it.
fn a_client_that_trusts_only_the_servers_root_loses_one_connection(lab: &mut Lab) -> Result<()> {
    let clients = client(lab, "verify-full")?;
    let asks = |name: &str, arguments: &[&str]| match arguments {
        [root, text] => clients.clone().with("PGSSLROOTCERT", *root).psql(name, &["-Atc", text]),
        _ => bail!("a root and a statement are wanted"),
    };
    let said = loses_one(lab, asks, &["unknown_ca", "eof"])?;
    ensure!(said.trim() == "2", "psql said {said}");
    let logged: Vec<String> = lab.server.complete_log()?.into_iter().map(|one| one.text).collect();
    ensure!(logged == ["SELECT 2 /* id:a-second */"], "the server's log has {logged:?}");
    Ok(())
}

/// PostgreSQL says so within its own protocol, after TLS has done without (manual, 20.12): `clientcert`.
fn a_client_whose_certificate_postgresql_insists_on_loses_one_connection(lab: &mut Lab) -> Result<()> {
    let clients = certified(lab, "clientcert=verify-ca")?;
    let ended = clients.psql("first", &["-Atc", "SELECT 1 /* id:a-first */"])?.wait()?;
    ensure!(ended.complaints().contains("requires a valid client certificate"), "{}", ended.complaints());
    sessions(lab, 1)?;
    let text = "SELECT 2 /* id:a-second */";
    let ended = clients.psql("second", &["-Atc", text])?.finish()?;
    ensure!(ended.text().trim() == "2", "psql said {}", ended.text());
    let seen = wait::until("the second connection to be recorded", || {
        Ok(lab.collector.seen()?.into_iter().find(|one| one.operation == Operation::Connect))
    })?;
    ensure!(seen.opaque_reason == OpaqueReason::ClientCertificateRequired, "{seen:?}");
    ensure!(seen.capture == Capture::SeenNotDecoded && seen.principal == lab.principal(Pod::A), "{seen:?}");
    let logged: Vec<String> = lab.server.complete_log()?.into_iter().map(|one| one.text).collect();
    ensure!(logged == [text], "the server's log has {logged:?}");
    Ok(())
}

/// As with most instances of Cloud SQL that clients have certificates for.
fn a_client_whose_certificate_postgresql_only_asks_for_is_captured_as_before(lab: &mut Lab) -> Result<()> {
    let clients = certified(lab, "")?;
    let mut did = Vec::new();
    for id in ["a-first", "a-second"] {
        let text = format!("SELECT current_user /* id:{id} */");
        let ended = clients.psql(id, &["-Atc", &text])?.finish()?;
        ensure!(ended.text().trim() == "clerk", "psql said {}", ended.text());
        sessions(lab, did.len() + 1)?;
        did.push(mine(lab, id, &text).rows(1));
    }
    lab.compare(&did)
}

/// A client with a certificate, and a server that asks for one and, with a rule of `pg_hba.conf`, insists on it.
fn certified(lab: &Lab, rule: &str) -> Result<Clients> {
    let root = lab.google()?.root();
    let (roots, own) = (root.certificate().display().to_string(), root.issue("clerk", &["clerk"])?);
    let hba = lab.server.admin("postgres", "SHOW hba_file")?;
    let rules = format!("hostssl all clerk all trust {rule}\\nhost all all all trust\\n");
    for sql in [
        format!("ALTER SYSTEM SET ssl_ca_file = '{roots}'"),
        format!("COPY (SELECT unnest(string_to_array(E'{rules}', E'\\n'))) TO '{hba}'"),
        "SELECT pg_reload_conf()".to_owned(),
    ] {
        lab.server.admin("postgres", &sql)?;
    }
    std::fs::set_permissions(&own.key, std::fs::Permissions::from_mode(0o600))?;
    Ok(client(lab, "require")?
        .with("PGUSER", "clerk")
        .with("PGSSLCERT", own.certificate.display().to_string())
        .with("PGSSLKEY", own.key.display().to_string()))
}

fn a_client_that_asks_for_gssapi_is_answered_no_and_goes_on(lab: &mut Lab) -> Result<()> {
    let text = "SELECT 1 /* id:a-gss */";
    let clients = client(lab, "disable")?;
    clients.python("gss", "raw.py", &["gss", text])?.finish()?;
    lab.compare(&[mine(lab, "a-gss", text).rows(1)])
}
