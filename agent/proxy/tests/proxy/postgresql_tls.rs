//! PostgreSQL over TLS: every combination of legs, authentication with and without channel binding, cancelling;
//! with psql, pgbench and a real server where they are installed.

use std::{
    fs,
    process::{Command, Stdio},
    sync::atomic::Ordering,
};

use rcgen::KeyPair;
use verbatim_api::v1;
use verbatim_proxy::seam::Termination;

use crate::support::{
    World,
    database::{Database, Identity, out, run},
    eventually,
    spool::{MemorySpool, each_start_has_one_end},
    tls::{Lab, params},
};

const SCRAM: &str = "hostnossl all all all scram-sha-256\nhostssl all all all scram-sha-256\n";
const TLS_ONLY: &str = "hostssl all all all scram-sha-256\n";
const PASSWORD: &str = "geheim";

/// A server, a proxy in front of it, and psql's idea of whom to trust.
struct Scene {
    lab: Lab,
    world: World,
    database: Database,
    roots: tempfile::NamedTempFile,
}

impl Scene {
    fn start(hba: &str) -> Option<Self> {
        let lab = Lab::new();
        let identity = identity(&lab);
        Self::with(lab, Some(&identity), hba)
    }

    fn with(lab: Lab, identity: Option<&Identity>, hba: &str) -> Option<Self> {
        let database = Database::start_with(identity, hba)?;
        let world = lab.real_world(2);
        *world.flows.0.lock().unwrap() = Some(database.address());
        let roots = tempfile::NamedTempFile::new().unwrap();
        fs::write(roots.path(), lab.authority.roots_pem()).unwrap();
        Some(Self { lab, world, database, roots })
    }

    fn client(&self, program: &str, mode: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-h", "localhost", "-p", &self.world.proxies[0].port().to_string(), "-U", "ada"])
            .env("PGHOSTADDR", "127.0.0.1")
            .env("PGPASSWORD", PASSWORD)
            .env("PGSSLMODE", mode)
            .env("PGSSLROOTCERT", self.roots.path())
            .env("PGGSSENCMODE", "disable")
            .env("PGDATABASE", "postgres");
        command
    }

    fn psql(&self, mode: &str, binding: &str, arguments: &[&str]) -> (String, String) {
        let mut psql = self.client("psql", mode);
        psql.args(["-X", "-A", "-t"]).args(arguments).env("PGCHANNELBINDING", binding);
        out(&psql.output().unwrap())
    }

    /// Closing records, oldest first, when nothing is open any more.
    fn closings(&self) -> Vec<(v1::Envelope, v1::Content)> {
        eventually("the ends", || (self.world.shards.stats().open == 0).then_some(()));
        let connections = self.world.spools[0].of_kind(v1::RecordKind::Connection);
        let ended = connections.into_iter().filter(|record| record.envelope.status() != v1::Status::Pending);
        ended.map(|record| (record.envelope, record.content.unwrap())).collect()
    }

    fn ran(&self, statement: &str) -> bool {
        let started = format!("started allowed {statement}");
        let story = self.world.spools.iter().flat_map(MemorySpool::story);
        story.into_iter().any(|line| line.trim_end() == started)
    }

    /// The password is in no record.
    fn keeps_its_secret(&self) {
        let everything = format!("{:?}", self.world.spools[0].records());
        assert!(!everything.contains(PASSWORD), "the password was recorded");
    }
}

fn identity(lab: &Lab) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params(&["localhost", "127.0.0.1"]).signed_by(&key, &lab.root).unwrap();
    Identity { certificate: certificate.pem(), key: key.serialize_pem() }
}

/// How a session was authenticated, as the record has it.
fn authentication(content: &v1::Content) -> String {
    let found = content.attributes.iter().find(|attribute| attribute.name == "authentication");
    found.map(|attribute| String::from_utf8_lossy(&attribute.value).into_owned()).unwrap_or_default()
}

fn versions(content: &v1::Content) -> (String, String) {
    let tls = content.tls.clone().unwrap_or_default();
    (tls.client.unwrap_or_default().version, tls.server.unwrap_or_default().version)
}

#[test]
fn psql_works_with_every_sslmode_and_every_statement_is_recorded() {
    let Some(scene) = Scene::start(SCRAM) else { return };
    for (number, mode) in
        ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"].into_iter().enumerate()
    {
        let statement = format!("select {number}");
        let (rows, errors) = scene.psql(mode, "disable", &["-c", &statement]);
        assert_eq!((rows.trim(), errors.as_str()), (number.to_string().as_str(), ""), "{mode}");
        assert!(scene.ran(&statement), "{mode}");
        let (_, content) = scene.closings().pop().unwrap();
        let (client, server) = versions(&content);
        let plain = matches!(mode, "disable" | "allow");
        let expected = if plain { "" } else { "TLSv1.3" };
        assert_eq!((client.as_str(), server.as_str()), (expected, expected), "{mode}");
        assert_eq!(authentication(&content), "", "passed through");
        assert_eq!(content.target.unwrap().user, "ada");
    }
    scene.keeps_its_secret();
    scene.world.spools.iter().for_each(each_start_has_one_end);
}

#[test]
fn a_client_that_binds_its_authentication_to_tls_is_asked_for_its_password_and_scram_plus_is_done_for_it() {
    let Some(scene) = Scene::start(TLS_ONLY) else { return };
    // The second one is asked at once.
    for statement in ["select 1", "select 2"] {
        let (rows, errors) = scene.psql("verify-full", "prefer", &["-c", statement]);
        assert_eq!((rows.trim(), errors.as_str()), (&statement[7..], ""));
        assert!(scene.ran(statement));
        let (_, content) = scene.closings().pop().unwrap();
        assert!(authentication(&content).contains("SCRAM with the server"), "{}", authentication(&content));
    }
    let mut wrong = scene.client("psql", "verify-full");
    let (_, errors) =
        out(&wrong.env("PGPASSWORD", "falsch").args(["-X", "-c", "select 3"]).output().unwrap());
    assert!(errors.contains("password authentication failed for user \"ada\""), "{errors}");
    assert!(!scene.ran("select 3"));
    scene.keeps_its_secret();
}

#[test]
fn a_client_that_does_not_give_its_password_away_fails_by_itself_and_that_is_recorded() {
    let Some(scene) = Scene::start(TLS_ONLY) else { return };
    let (_, errors) = scene.psql("verify-full", "require", &["-c", "select 1"]);
    assert!(errors.contains("channel binding required"), "{errors}");
    let (_, content) = scene.closings().pop().unwrap();
    assert!(authentication(&content).contains("password asked of the client"));
    assert!(!scene.ran("select 1"));
}

#[test]
fn other_kinds_of_authentication_pass_through() {
    for method in ["trust", "password", "md5"] {
        let Some(scene) = Scene::start(&format!("hostssl all all all {method}\n")) else { return };
        let (rows, errors) = scene.psql("verify-full", "prefer", &["-c", "select 1"]);
        // With a password that was kept for SCRAM, md5 is SCRAM as well.
        assert_eq!((rows.trim(), errors.as_str()), ("1", ""), "{method}");
        scene.keeps_its_secret();
    }
}

#[test]
fn a_server_without_tls_says_so_to_the_client_itself() {
    let Some(scene) = Scene::with(Lab::new(), None, "host all all all scram-sha-256\n") else { return };
    let (rows, errors) = scene.psql("prefer", "prefer", &["-c", "select 1"]);
    assert_eq!((rows.trim(), errors.as_str()), ("1", ""));
    assert!(scene.ran("select 1"));
    let (_, errors) = scene.psql("require", "prefer", &["-c", "select 2"]);
    assert!(errors.contains("server does not support SSL"), "{errors}");
}

#[test]
fn a_client_without_tls_keeps_the_servers_leg_encrypted_where_tls_was_spoken_before() {
    let Some(scene) = Scene::start(SCRAM) else { return };
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let ask = |mode: &str| scene.psql(mode, "disable", &["-c", encrypted]).0.trim().to_owned();
    assert_eq!(ask("disable"), "f", "as the client asked");
    assert_eq!(ask("verify-full"), "t");
    // SCRAM-SHA-256-PLUS is not offered to a client without TLS.
    assert_eq!(ask("disable"), "t", "never downgraded");
    let (_, content) = scene.closings().pop().unwrap();
    assert_eq!(versions(&content), (String::new(), "TLSv1.3".to_owned()));
    scene.keeps_its_secret();
}

#[test]
fn a_client_without_tls_reaches_a_server_that_insists_on_it_where_that_is_configured() {
    let Some(scene) = Scene::start(TLS_ONLY) else { return };
    let (_, errors) = scene.psql("disable", "prefer", &["-c", "select 1"]);
    assert!(errors.contains("no encryption"), "the server's own words: {errors}");
    scene.lab.trust.requires.store(true, Ordering::Relaxed);
    let (rows, errors) = scene.psql("disable", "prefer", &["-c", "select 2"]);
    assert_eq!((rows.trim(), errors.as_str()), ("2", ""));
    assert!(scene.ran("select 2"));
}

#[test]
fn a_client_is_told_why_where_the_servers_leg_cannot_be_encrypted() {
    let Some(scene) = Scene::with(Lab::new(), None, "host all all all trust\n") else { return };
    scene.lab.trust.requires.store(true, Ordering::Relaxed);
    let (_, errors) = scene.psql("disable", "prefer", &["-c", "select 1"]);
    assert!(
        errors.contains("this session cannot start") && errors.contains("does not speak TLS"),
        "{errors}"
    );
    let (envelope, content) = scene.closings().pop().unwrap();
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::TlsHandshakeFailed);
    assert!(content.note.contains("TLS is required"), "{}", content.note);
}

#[test]
fn a_server_that_is_not_verified_gets_neither_tls_nor_plaintext_of_a_client_that_wanted_tls() {
    let (lab, stranger) = (Lab::new(), Lab::new());
    let identity = identity(&stranger);
    let Some(scene) = Scene::with(lab, Some(&identity), "host all all all trust\n") else { return };
    let (rows, errors) = scene.psql("prefer", "prefer", &["-c", "select 1"]);
    assert_eq!(rows, "");
    // First by an alert, and upon the retry in plaintext in its protocol.
    assert!(errors.contains("this session cannot start"), "{errors}");
    let closings = scene.closings();
    assert_eq!(closings.len(), 2);
    for (envelope, content) in closings {
        assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::ServerNotTrusted);
        assert!(content.note.contains("is not accepted"), "{}", content.note);
    }
}

#[test]
fn a_client_whose_tls_passes_as_it_is_may_also_come_without() {
    let (lab, stranger) = (Lab::new(), Lab::new());
    let identity = identity(&stranger);
    let Some(scene) = Scene::with(lab, Some(&identity), "host all all all trust\n") else { return };
    scene.lab.trust.splices_all.store(true, Ordering::Relaxed);
    for mode in ["require", "disable"] {
        let mut psql = scene.client("psql", mode);
        psql.env_remove("PGSSLROOTCERT").args(["-X", "-A", "-t", "-c", "select 1"]);
        let (rows, errors) = out(&psql.output().unwrap());
        assert_eq!((rows.trim(), errors.as_str()), ("1", ""), "{mode}");
    }
    let reasons: Vec<_> = scene.closings().into_iter().map(|(e, _)| e.opaque_reason()).collect();
    assert_eq!(reasons, [v1::OpaqueReason::ServerNotTrusted, v1::OpaqueReason::Unspecified]);
}

#[test]
fn a_workload_that_does_not_trust_us_keeps_its_own_tls_with_the_server() {
    let Some(scene) = Scene::start(TLS_ONLY) else { return };
    *scene.lab.trust.judges.lock().unwrap() = Termination::Splice(v1::OpaqueReason::TrustNotInjected);
    fs::write(scene.roots.path(), scene.lab.root.pem()).unwrap();
    let (rows, errors) = scene.psql("verify-full", "require", &["-c", "select 1"]);
    assert_eq!((rows.trim(), errors.as_str()), ("1", ""), "with the server's own channel binding");
    let (envelope, content) = scene.closings().pop().unwrap();
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::TrustNotInjected);
    assert_eq!(content.target.unwrap().host, "localhost");
}

#[test]
fn a_client_that_pins_its_own_root_loses_one_connection() {
    let Some(scene) = Scene::start(TLS_ONLY) else { return };
    fs::write(scene.roots.path(), scene.lab.root.pem()).unwrap();
    let (_, errors) = scene.psql("verify-full", "prefer", &["-c", "select 1"]);
    assert!(errors.contains("certificate verify failed"), "{errors}");
    let (rows, errors) = scene.psql("verify-full", "prefer", &["-c", "select 2"]);
    assert_eq!((rows.trim(), errors.as_str()), ("2", ""));
    let reasons: Vec<_> = scene.closings().into_iter().map(|(e, _)| e.opaque_reason()).collect();
    assert_eq!(reasons, [v1::OpaqueReason::ClientDoesNotTrustUs; 2]);
}

#[test]
fn a_request_to_cancel_in_plaintext_goes_on_within_tls_where_its_session_did() {
    let Some(scene) = Scene::start(SCRAM) else { return };
    let psql = || {
        let mut psql = scene.client("psql", "verify-full");
        psql.args(["-X", "-c", "select pg_sleep(60)"]).env("PGCHANNELBINDING", "disable");
        psql.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let sleeping = psql();
    eventually("the statement", || scene.ran("select pg_sleep(60)").then_some(()));
    // What is cancelled before the server has begun with it goes on.
    eventually("the server to sleep", || scene.database.sleeps().then_some(()));
    run(Command::new("kill").args(["-INT", &sleeping.id().to_string()]));
    let (_, errors) = out(&sleeping.wait_with_output().unwrap());
    assert!(errors.contains("canceling statement due to user request"), "{errors}");
    let cancel = |draft: &verbatim_spool::Draft| draft.envelope.operation() == v1::Operation::Cancel;
    let started = scene.world.spools[0].of_kind(v1::RecordKind::Started);
    assert_eq!(started.iter().filter(|draft| cancel(draft)).count(), 1);
    let closings = scene.closings();
    let of_cancel: Vec<_> = closings.iter().filter(|(_, c)| versions(c).0.is_empty()).collect();
    assert_eq!(of_cancel.len(), 1);
    assert_eq!(versions(&of_cancel[0].1).1, "TLSv1.3", "the key did not go in plaintext");
}

#[test]
fn pgbench_runs_over_tls_and_each_of_its_statements_is_recorded() {
    let Some(scene) = Scene::start("hostssl all all all trust\n") else { return };
    let pgbench = |arguments: &[&str]| {
        let mut pgbench = scene.client("pgbench", "verify-full");
        let output = pgbench.args(["-U", "postgres"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", out(&output).1);
    };
    pgbench(&["-i", "-q", "-s", "1"]);
    let before = scene.world.shards.stats().commands;
    pgbench(&["-S", "-c", "4", "-t", "100", "-M", "prepared"]);
    let commands = scene.world.shards.stats().commands - before;
    assert!(commands >= 400, "{commands}");
    scene.closings();
    scene.world.spools.iter().for_each(each_start_has_one_end);
    assert_eq!(scene.world.shards.stats().panics, 0);
}
