//! Whose credentials are, on whose behalf, and that none of them ever comes out.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use verbatim_api::v1::{self, BehalfKind, CommandFinding, CredentialMatch, CredentialSource, TokenIssuer};
use verbatim_tests::{
    agent::Options,
    cli::{self, Source},
    google,
    lab::{Lab, identity},
    network::Pod,
    parts::Part,
    wait,
};

use crate::scenario::{Scenario, usual};

const NEEDS: &[Part] =
    &[Part::Root, Part::Sandbox, Part::Binaries, Part::Postgres, Part::Python, Part::PythonGoogle, Part::Bpf];

/// What is planted holds this word, and so do the tokens of the lab's services the other one.
const PLANTED: [&str; 3] = ["plantedsecret", "lab-secret-of", "cGxhbnRlZHNlY3JldA"];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(a_token_is_named_for_whose_it_is_and_who_asked_is_verified).with(believing).needing(NEEDS),
        usual!(no_credential_comes_out_anywhere).with(telling_all).needing(NEEDS),
    ]
}

/// Both pods trust us, their metadata server is seen, and there is an issuer whose keys come later.
fn believing() -> Options {
    Options {
        google: Some(google::Options::default()),
        metadata: true,
        extra_in: Some(|folder| {
            let keys = folder.join("jwks.json");
            format!(
                "onBehalfOf: {{issuers: [{{issuer: 'https://login.lab', audiences: [verbatim], jwks: {{file: {}}}}}]}}\n",
                keys.display()
            )
        }),
        ..Options::default()
    }
}

/// The same, and everything is logged, also what libraries have to say.
fn telling_all() -> Options {
    Options { metrics: true, extra: "log: {level: 'trace,aya=info,aya_obj=info'}", ..believing() }
}

/// Somebody who signs delegations.
struct Signer(Ed25519KeyPair);

impl Signer {
    /// Publishes its key where the agent looks for it.
    fn new(lab: &Lab) -> Result<Self> {
        let key = Ed25519KeyPair::generate().map_err(|_unspecified| anyhow::anyhow!("no key"))?;
        let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "use": "sig", "x": x}]});
        let path = lab.ground.path("jwks.json");
        let made = path.with_extension("new");
        fs::write(&made, set.to_string())?;
        fs::rename(&made, &path)?;
        Ok(Self(key))
    }

    fn sign(&self, subject: &str, workload: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({"iss": "https://login.lab", "aud": "verbatim", "sub": subject, "exp": now + 600,
                            "workload": workload});
        let message = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "k1"})), part(&claims));
        let signature = self.0.sign(message.as_bytes());
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn name(pod: Pod) -> String {
    let (namespace, account) = identity(pod);
    format!("{namespace}/{account}")
}

/// The command whose resource ends with an id.
fn command(lab: &Lab, id: &str) -> Result<v1::Command> {
    let ends = format!("id:{id}");
    wait::until(&format!("{id} in the records"), || {
        let all = lab.collector.commands()?;
        Ok(all.into_iter().find(|one| {
            let target = one.started_content.as_ref().and_then(|content| content.target.as_ref());
            one.finished.is_some() && target.is_some_and(|target| target.resource.ends_with(&ends))
        }))
    })
}

fn a_token_is_named_for_whose_it_is_and_who_asked_is_verified(lab: &mut Lab) -> Result<()> {
    let signer = Signer::new(lab)?;
    wait::until("the key set to be read", || {
        Ok(lab.agent.complaints().contains("key set read").then_some(()))
    })?;
    let delegation = signer.sign("ada@example.com", &name(Pod::A))?;
    lab.google_pod(Pod::A)?.python("own", "evidence.py", &["own", &delegation])?.finish()?;
    let own = command(lab, "a-evidence-own")?;
    let (started, content) = (own.started.context("no start")?, own.started_content.context("no content")?);
    ensure!(started.credential_match() == CredentialMatch::Yes, "{content:?}");
    ensure!(started.on_behalf_of_kind() == BehalfKind::Verified, "{content:?}");
    ensure!(started.findings.is_empty(), "{started:?}");
    let credential = content.credentials.first().context("no credential")?;
    ensure!(
        credential.source() == CredentialSource::Issuance && credential.fingerprint.len() == 32,
        "{credential:?}"
    );
    let issuance = credential.issuance.as_ref().context("no issuance")?;
    ensure!(issuance.issuer() == TokenIssuer::MetadataServer && issuance.pod_name == "pod-a", "{issuance:?}");
    let asked = lab.collector.get(&issuance.command_id)?.command.context("no request for the token")?;
    let method = asked.started_content.and_then(|content| content.target).context("no target")?.method;
    ensure!(method == "metadata.token", "issued by {method}");
    let person = content.on_behalf_of.first().context("nobody")?;
    ensure!(person.subject == "ada@example.com" && person.evidence == "baggage", "{person:?}");
    let trace = content.trace.context("no trace")?;
    ensure!(trace.session_id == "s1" && trace.traceparent.starts_with("00-4bf9"), "{trace:?}");

    // The other pod has got hold of both.
    let arguments = ["with", &delegation, &google::token(Pod::A)];
    lab.google_pod(Pod::B)?.python("with", "evidence.py", &arguments)?.finish()?;
    let stolen = command(lab, "b-evidence-with")?;
    let (started, content) =
        (stolen.started.context("no start")?, stolen.started_content.context("no content")?);
    ensure!(started.credential_match() == CredentialMatch::No, "{content:?}");
    ensure!(started.on_behalf_of_kind() == BehalfKind::Asserted, "{content:?}");
    let findings: Vec<_> = started.findings().collect();
    let expected = [CommandFinding::CredentialOfAnother, CommandFinding::OnBehalfOfRejected];
    ensure!(findings == expected, "{findings:?}");
    let issuance = content.credentials.first().and_then(|one| one.issuance.clone()).context("no issuance")?;
    ensure!(issuance.pod_name == "pod-a", "{issuance:?}");
    ensure!(content.on_behalf_of[0].rejection == "given to another workload", "{:?}", content.on_behalf_of);

    let socket = lab.collector.audit_socket();
    let ask = |arguments: &[&str]| cli::run(Source::Socket(&socket), arguments);
    let found = ask(&["records", "--finding", "credential-of-another", "-o", "json"])?;
    ensure!(found.lines().count() == 1 && found.contains("b-evidence-with"), "{found}");
    let found = ask(&["records", "--on-behalf-of", "ada@example.com", "--behalf", "verified"])?;
    ensure!(found.contains("verified \"ada@example.com\"") && !found.contains("asserted"), "{found}");
    let found = ask(&["records", "--on-behalf-of", "ada@example.com", "--behalf", "asserted"])?;
    ensure!(found.contains("asserted \"ada@example.com\"") && !found.contains("verified"), "{found}");
    Ok(())
}

/// A page of the agent's, as text.
fn page(lab: &Lab, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(lab.agent.metrics()?)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn no_credential_comes_out_anywhere(lab: &mut Lab) -> Result<()> {
    let client =
        lab.google_pod(Pod::A)?.with("PGPASSWORD", "plantedsecretenv").with("SECRET", "plantedsecretenv");
    let arguments = ["all", "ya29.plantedsecretargument", "eyJhbGciOiJFUzI1NiJ9.e30.plantedsecretargument"];
    let ended = client.python("all", "evidence.py", &arguments)?.finish()?;
    ensure!(ended.text().contains("done"), "{}", ended.complaints());
    let socket = lab.collector.audit_socket();
    let ask = |arguments: &[&str]| cli::run(Source::Socket(&socket), arguments);
    wait::until("the last statement in the records", || {
        let seen = lab.collector.seen()?;
        let last = seen
            .iter()
            .any(|one| one.statement.starts_with(b"SELECT $1") && one.parameters == [Some("2".into())]);
        Ok((last || seen.iter().any(|one| one.statement.ends_with(b"was set'"))).then_some(()))
    })?;
    wait::until("all that had anything taken out", || {
        let records = ask(&["records", "-n", "100000", "-o", "json"])?;
        let marked = records.lines().filter(|line| line.contains("[redacted]")).count();
        ensure!(marked >= 25, "only {marked} commands had anything taken out: {records}");
        Ok(Some(()))
    })?;
    let mut said = vec![
        ("metrics", page(lab, "/metrics")?),
        ("the agent's log", lab.agent.complaints()),
        ("the collector's log", lab.collector.complaints()),
        ("records", ask(&["records", "-n", "100000"])?),
        ("records as JSON", ask(&["records", "-n", "100000", "-o", "json"])?),
        ("records as CSV", ask(&["records", "-n", "100000", "-o", "csv"])?),
        ("sessions", ask(&["sessions", "-n", "100000", "-o", "json"])?),
        ("findings", ask(&["findings", "-o", "json"])?),
        ("coverage", ask(&["coverage", "--json"])?),
    ];
    ensure!(said[1].1.contains(" DEBUG "), "not everything is logged: {}", said[1].1);
    for command in lab.collector.commands()? {
        let id = uuid(&command.id);
        said.push(("show", ask(&["show", &id])?));
    }
    said.push(("the agent's last words", lab.agent.end()?));
    let words = PLANTED;
    for (what, text) in &said {
        for word in words {
            if let Some(at) = text.find(word) {
                let from = text[..at].char_indices().rev().nth(300).map_or(0, |(at, _)| at);
                anyhow::bail!(
                    "{what} has a credential: …{}…",
                    text[from..].chars().take(400).collect::<String>()
                );
            }
        }
    }
    for folder in [lab.agent.spool(), lab.collector.folder().to_owned()] {
        for word in words {
            let found: Vec<PathBuf> = verbatim_tests::find::files_with(&folder, word.as_bytes())?;
            ensure!(found.is_empty(), "{word} is in {found:?}");
        }
    }
    Ok(())
}

fn uuid(id: &[u8]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
