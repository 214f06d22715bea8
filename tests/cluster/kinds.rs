//! Pods of every kind with nothing but what the webhook gave them, and those that keep roots of their own.

use std::{path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use verbatim_api::v1::{ContainerKind, OpaqueReason};
use verbatim_tests::{
    audit::Seen,
    clients,
    cluster::{
        Image, NODE,
        google::Google,
        pods::{Pod, node, python},
    },
    did::Did,
    google,
    parts::Part,
    shell,
};

use crate::{
    Scenario,
    stage::{DATABASE, SHOP, Stage},
    trust::{doctor, injected, spliced},
    who,
};

/// What asks over HTTPS.
const ASKING: &[Part] = &[
    Part::Root,
    Part::Sandbox,
    Part::Cluster,
    Part::Binaries,
    Part::Postgres,
    Part::Python,
    Part::Bpf,
    Part::Emulator,
    Part::Curl,
];
const BY_JAVA: &[Part] = &[
    Part::Root,
    Part::Sandbox,
    Part::Cluster,
    Part::Binaries,
    Part::Postgres,
    Part::Python,
    Part::Bpf,
    Part::Emulator,
    Part::Java,
];

/// An image that holds `curl` and what it loads.
const BARE: &str = "localhost/bare:lab";

pub(crate) fn scenarios() -> Vec<Scenario> {
    let asking = |name, body| Scenario { name, needs: ASKING, body };
    vec![
        asking(
            "pods_that_write_nowhere_hold_nothing_or_begin_with_another_container_trust_us",
            pods_that_write_nowhere_hold_nothing_or_begin_with_another_container_trust_us,
        ),
        Scenario {
            name: "java_in_a_pod_trusts_us_by_the_store_that_the_webhook_gave",
            needs: BY_JAVA,
            body: java_in_a_pod_trusts_us_by_the_store_that_the_webhook_gave,
        },
        asking(
            "pods_with_roots_of_their_own_keep_them_and_doctor_tells",
            pods_with_roots_of_their_own_keep_them_and_doctor_tells,
        ),
        asking(
            "a_companys_own_authority_is_trusted_where_nothing_is_captured",
            a_companys_own_authority_is_trusted_where_nothing_is_captured,
        ),
    ]
}

/// Where BigQuery is asked, the question, and what of it must be recorded.
fn question(id: &str) -> (String, String, Did) {
    let (host, project) = (google::names::BIGQUERY, google::names::PROJECT);
    let url = format!("https://{host}/bigquery/v2/projects/{project}/queries");
    let statement = format!("SELECT 1 AS one /* id:{id} */");
    let body = json!({"query": statement, "useLegacySql": false}).to_string();
    let mut did = Did::query(&who::principal(SHOP, "reader"), id, statement).rows(1);
    did.method = Some("bigquery.jobs.query".to_owned());
    (url, body, did)
}

fn curl() -> Result<String> {
    Ok(shell::which("curl").context("curl is not installed")?.display().to_string())
}

/// curl with a question.
fn asking(id: &str) -> Result<(Vec<String>, Did)> {
    let (url, body, did) = question(id);
    let words = [&curl()?, "-sS", "--fail", "--json", &body, &url].map(str::to_owned);
    Ok((words.into(), did))
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn client(name: &str) -> Pod {
    Pod::new(SHOP, "reader", name).knowing(&Google::hosts())
}

/// Those commands of which this is the id.
fn of(seen: &[Seen], id: &str) -> Vec<Seen> {
    seen.iter().filter(|one| one.ids.iter().any(|other| other == id)).cloned().collect()
}

fn pods_that_write_nowhere_hold_nothing_or_begin_with_another_container_trust_us(
    stage: &mut Stage,
) -> Result<()> {
    let program = shell::which("curl").context("curl is not installed")?;
    stage.cluster.import(&Image::bare(BARE, &program)?)?;
    let (read_only, did_read_only) = asking("read-only-1")?;
    let (mut bare, did_bare) = asking("bare-1")?;
    "/usr/bin/curl".clone_into(bare.first_mut().context("a program")?);
    let ((first, did_first), (then, did_then)) = (asking("first-1")?, asking("then-1")?);
    let pods = [
        client("read-only").read_only().runs(&words(&read_only)),
        client("bare").of_image(BARE).read_only().runs(&words(&bare)),
        client("begins").runs_first(&words(&first)).runs(&words(&then)),
    ];
    let mut found = Vec::new();
    for pod in &pods {
        let (_, pod) = stage.run(pod)?;
        injected(&pod)?;
        found.push(pod);
    }
    let seen = stage.agree_with_google(&[did_read_only, did_bare, did_first, did_then])?;
    let [read_only, bare, begins] = &found[..] else { anyhow::bail!("three pods were made") };
    for (id, pod) in [("read-only-1", read_only), ("bare-1", bare), ("first-1", begins), ("then-1", begins)] {
        who::all_of(stage, &of(&seen, id), pod)?;
    }
    let containers = who::containers(stage, &[of(&seen, "first-1"), of(&seen, "then-1")].concat())?;
    let expected = [("prepare", ContainerKind::Init), ("client", ContainerKind::Regular)];
    let expected = expected.map(|(name, kind)| (name.to_owned(), kind)).into();
    ensure!(containers == expected, "by {containers:?}");
    Ok(())
}

fn java_in_a_pod_trusts_us_by_the_store_that_the_webhook_gave(stage: &mut Stage) -> Result<()> {
    let (url, body, did) = question("java-1");
    let java = shell::which("java").context("java is not installed")?.canonicalize()?;
    let source = clients::scripts().join("Ask.java").display().to_string();
    // Debian keeps the settings of a runtime outside of it, by links.
    let home = java.ancestors().nth(2).context("a runtime without a folder")?;
    let settings = home.join("conf/security/java.security").canonicalize()?;
    let settings = settings.ancestors().nth(2).context("settings without a folder")?.to_owned();
    // A pod's own options stay, and ours are behind them.
    let pod = client("java").mounting(settings).with("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1").runs(&[
        &java.display().to_string(),
        &source,
        &url,
        &body,
    ]);
    let (_, pod) = stage.run(&pod)?;
    injected(&pod)?;
    let seen = stage.agree_with_google(&[did])?;
    who::all_of(stage, &seen, &pod)
}

fn pods_with_roots_of_their_own_keep_them_and_doctor_tells(stage: &mut Stage) -> Result<()> {
    // The server's own root, as an image would bring it: good for the server, and not for us.
    let own = stage.cluster.folder().join("root/root.pem");
    let folder: PathBuf = own.parent().context("a file has a folder")?.to_owned();
    let own = own.display().to_string();
    let (node, module) = node("roots.mjs")?;
    let sets = client("sets-its-own")
        .mounting(folder.clone())
        .with("SSL_CERT_FILE", &own)
        .with("NODE_EXTRA_CA_CERTS", &own)
        .with("VLAB_NODE", &module);
    let holds = client("holds-its-own").mounting(folder);
    for pod in [&sets, &holds] {
        stage.kubectl().apply(&pod.manifest()?)?;
    }
    let sets = stage.kubectl().wait_until_ready(SHOP, "sets-its-own")?;
    let holds = stage.kubectl().wait_until_ready(SHOP, "holds-its-own")?;
    injected(&holds)?;

    let (by_curl, _) = asking("own-curl-1")?;
    stage.kubectl().exec(SHOP, "sets-its-own", &words(&by_curl))?;
    spliced(stage, &sets, OpaqueReason::TrustNotInjected)?;
    let (url, body, _) = question("own-node-1");
    let by_node = [&words(&node)[..], &[&url, &body]].concat();
    stage.kubectl().exec(SHOP, "sets-its-own", &by_node)?;
    spliced(stage, &sets, OpaqueReason::TrustNotInjected)?;

    let (mut built_in, _) = asking("built-in-1")?;
    built_in.extend(["--cacert".to_owned(), own]);
    let refused = stage.kubectl().exec(SHOP, "holds-its-own", &words(&built_in));
    ensure!(refused.is_err(), "a client that has other roots took our certificate");
    spliced(stage, &holds, OpaqueReason::ClientDoesNotTrustUs)?;
    stage.kubectl().exec(SHOP, "holds-its-own", &words(&built_in))?;
    spliced(stage, &holds, OpaqueReason::ClientDoesNotTrustUs)?;

    let told = doctor(stage)?;
    for (pod, finding) in [
        ("sets-its-own", "variables of its own: CURL_CA_BUNDLE, NODE_EXTRA_CA_CERTS, SSL_CERT_FILE"),
        ("holds-its-own", "it refused our certificate for"),
    ] {
        let about = told.split_once(pod).map(|(_, rest)| rest).unwrap_or_default();
        let about: String = about.lines().take(4).map(|line| format!("{line}\n")).collect();
        ensure!(about.contains(finding), "of {pod} nothing says {finding:?}: {told}");
    }
    // What passed undecoded is in no record as a command.
    thread::sleep(Duration::from_millis(500));
    for id in ["own-curl-1", "own-node-1", "built-in-1"] {
        ensure!(of(&stage.seen()?, id).is_empty(), "{id} was looked into");
    }
    for name in ["sets-its-own", "holds-its-own"] {
        stage.kubectl().delete("pod", SHOP, name)?;
    }
    Ok(())
}

fn a_companys_own_authority_is_trusted_where_nothing_is_captured(stage: &mut Stage) -> Result<()> {
    let script = "import psycopg; print(psycopg.connect(sslmode='verify-full', sslrootcert='system')\
                  .execute('SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()').fetchone()[0])";
    let [python, _] = python("");
    // By the node's address and not by the Service's: that is no destination of ours.
    let pod = Pod::new(SHOP, "reader", "company").for_database(DATABASE).with("PGHOST", NODE);
    let (said, pod) = stage.run(&pod.runs(&[&python, "-c", script]))?;
    injected(&pod)?;
    ensure!(said.contains("TLSv1.3"), "{said}");
    let uid = pod["metadata"]["uid"].as_str().context("a pod without a UID")?;
    let mut sessions = stage.product()?.audit().sessions()?;
    sessions.retain(|one| one.workload.as_ref().is_some_and(|workload| workload.pod_uid == uid));
    ensure!(sessions.is_empty(), "it is captured: {sessions:?}");
    Ok(())
}
