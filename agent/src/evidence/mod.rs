//! Whose the credentials are that workloads present, and on whose behalf they act: the proxy's questions, answered
//! from what was read, seen being issued, and told by issuers.
//!
//! Owns how these are put together for a record. Everything that waits (key sets, tokeninfo) has tasks of its own.

mod fetch;
mod issuers;
mod tokeninfo;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::request;
use tokio::task::JoinHandle;
use verbatim_agent_config::{self as config, NodeAgent};
use verbatim_api::v1;
use verbatim_credential::{
    FingerprintKey, Fingerprints, Issuances, KeyError, Owner, Shown, Workload,
    behalf::{Behalf, Carried, Names, Verifier},
    judge, of_head, of_secret, of_session, together,
};
use verbatim_proxy::seam::{Evidence, Flow, Identity, Proof, Remembered, Session, Whom};
use verbatim_sys::clock;
use verbatim_wire::seam::{Command, Issued, TokenIssuer};
use zeroize::Zeroizing;

use self::tokeninfo::Tokeninfo;

/// Headers whose values are credentials.
const SHOWN: [&str; 5] =
    ["authorization", "proxy-authorization", "x-goog-iam-authorization-token", "x-goog-api-key", "cookie"];
/// Words in a query that holds one.
const SUSPECT: [&[u8]; 4] = [b"key", b"token", b"sig", b"credential"];

/// Why credentials cannot be looked at as the configuration says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvidenceError {
    /// The key's file.
    #[error("`credentials.fingerprintKey.file` {path}: {source}")]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it.
    #[error("`credentials.fingerprintKey.file` {path}: {source}")]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// Roots for the fetcher.
    #[error(transparent)]
    Roots(#[from] fetch::FetcherError),
}

/// See the module.
pub(crate) struct Engine {
    fingerprints: Arc<Fingerprints>,
    issuances: Issuances,
    /// Grows with everything that may change what a credential proves.
    generation: Arc<AtomicU64>,
    names: Names,
    verifier: Verifier,
    tokeninfo: Option<Tokeninfo>,
    nothing: Arc<Proof>,
}

/// Tasks of an engine; they end when this is dropped.
#[derive(Default)]
pub(crate) struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Reads the key that the configuration names; where it names none, makes one of this process alone.
fn fingerprint_key(config: &config::Credentials) -> Result<FingerprintKey, EvidenceError> {
    let Some(config::FingerprintKey { file: path }) = &config.fingerprint_key else {
        return Ok(FingerprintKey::of_process());
    };
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|source| EvidenceError::KeyFile { path: path.clone(), source })?;
    FingerprintKey::parse(&text).map_err(|source| EvidenceError::Key { path: path.clone(), source })
}

impl Engine {
    /// As configured, with its tasks on the current runtime.
    ///
    /// # Errors
    /// See [`EvidenceError`].
    pub(crate) fn configured(config: &NodeAgent) -> Result<(Arc<Self>, Tasks), EvidenceError> {
        let key = fingerprint_key(&config.credentials)?;
        let behalf = &config.on_behalf_of;
        let roots = config.tls.as_ref().map(|tls| tls.upstream_roots.clone()).unwrap_or_default();
        let needs_fetcher = config.credentials.tokeninfo.enabled
            || behalf.issuers.iter().any(|issuer| issuer.jwks.url.is_some());
        let fetcher = needs_fetcher.then(|| fetch::Fetcher::new(&roots)).transpose()?.map(Arc::new);
        let mut tasks = Tasks::default();
        let issuers = issuers::start(&behalf.issuers, fetcher.as_ref(), &mut tasks.0);
        let generation = Arc::new(AtomicU64::new(0));
        let tokeninfo = fetcher.as_ref().filter(|_| config.credentials.tokeninfo.enabled).map(|fetcher| {
            let endpoint = config.credentials.tokeninfo.endpoint.clone();
            let (tokeninfo, task) = Tokeninfo::start(endpoint, Arc::clone(fetcher), Arc::clone(&generation));
            tasks.0.push(task);
            tokeninfo
        });
        let defaults = Names::default();
        let names = Names {
            on_behalf_of: behalf.names.clone().unwrap_or(defaults.on_behalf_of),
            session: behalf.session_names.clone().unwrap_or(defaults.session),
            task: behalf.task_names.clone().unwrap_or(defaults.task),
            tool: behalf.tool_names.clone().unwrap_or(defaults.tool),
        };
        let engine = Self::new(key, names, Verifier::new(issuers), tokeninfo, generation);
        Ok((Arc::new(engine), tasks))
    }

    /// For one command: what it shows and what is issued to it, with a key of this process alone. `issuers` are
    /// believed.
    pub(crate) fn for_run(issuers: &[config::Issuer]) -> (Arc<Self>, Tasks) {
        let mut tasks = Tasks::default();
        let issuers = issuers::start(issuers, None, &mut tasks.0);
        let key = FingerprintKey::of_process();
        let engine = Self::new(key, Names::default(), Verifier::new(issuers), None, Arc::default());
        (Arc::new(engine), tasks)
    }

    fn new(
        key: FingerprintKey,
        names: Names,
        verifier: Verifier,
        tokeninfo: Option<Tokeninfo>,
        generation: Arc<AtomicU64>,
    ) -> Self {
        tracing::info!(key = key.id(), "credentials are fingerprinted");
        Self {
            fingerprints: Arc::new(Fingerprints::new(key)),
            issuances: Issuances::default(),
            generation,
            names,
            verifier,
            tokeninfo,
            nothing: Arc::default(),
        }
    }

    /// What fingerprints are made with; its key can be replaced at any time.
    pub(crate) fn fingerprints(&self) -> &Arc<Fingerprints> {
        &self.fingerprints
    }

    fn proof(&self, whom: Whom<'_>, shown: &[Shown], accepted: bool) -> Proof {
        let now = clock::wall_nanos();
        let workload = workload(whom.identity);
        let key = owner_key(whom);
        let mut proof = Proof::default();
        for shown in shown {
            let credential = self.credential(shown, &workload, &key, accepted, now, &mut proof.findings);
            proof.credentials.push(credential);
        }
        proof.matches = together(proof.credentials.iter().map(v1::Credential::matches_principal));
        proof
    }

    fn credential(
        &self,
        shown: &Shown,
        workload: &Workload<'_>,
        key: &[u8],
        accepted: bool,
        now: u64,
        findings: &mut Vec<v1::CommandFinding>,
    ) -> v1::Credential {
        let binding = self.issuances.find(&shown.secret, now);
        let owner = binding.as_ref().and_then(|binding| binding.owner(key));
        let opaque = matches!(shown.kind, v1::CredentialKind::OpaqueToken | v1::CredentialKind::BoundToken);
        let asked =
            self.tokeninfo.as_ref().filter(|_| opaque && owner.is_none() && is_googles(&shown.secret));
        let told = asked.and_then(|tokeninfo| tokeninfo.ask(&shown.secret));
        let judged = judge(shown, owner, told.as_ref(), accepted, workload);
        let jwt = shown.jwt.clone().unwrap_or_default();
        let mut credential = v1::Credential {
            kind: shown.kind.into(),
            place: shown.place.to_string(),
            subject: shown.subject.clone(),
            issuer: jwt.issuer,
            audiences: jwt.audiences,
            expires_wall_nanos: jwt.expires_wall_nanos,
            key_id: jwt.key_id,
            issuance: owner.map(|(owner, _)| owner.issuance.clone()),
            matches_principal: judged.matches.into(),
            reason: judged.reason,
            source: judged.source.into(),
            ..v1::Credential::default()
        };
        if let Some(binding) = &binding {
            if credential.expires_wall_nanos == 0 {
                credential.expires_wall_nanos = binding.expires_wall_nanos;
            }
            if binding.bound {
                credential.kind = v1::CredentialKind::BoundToken.into();
            }
        }
        if let Some(told) = told.filter(|_| credential.subject.is_empty()) {
            credential.subject = if told.email.is_empty() { told.subject } else { told.email };
        }
        // A password is never digested: who can guess it could try.
        if !shown.secret.is_empty() && shown.kind != v1::CredentialKind::Password {
            let fingerprint = self.fingerprints.of(&shown.secret);
            credential.fingerprint = fingerprint.code.to_vec();
            credential.fingerprint_key_id = fingerprint.key_id.to_string();
        }
        if let Some(finding) = judged.finding.filter(|finding| !findings.contains(finding)) {
            findings.push(finding);
        }
        credential
    }

    fn check(&self, whom: Whom<'_>, carried: &Carried) -> Behalf {
        let now = clock::wall_nanos() / 1_000_000_000;
        carried.check(&self.verifier, &workload(whom.identity), now)
    }
}

impl Evidence for Engine {
    fn of_request(
        &self,
        whom: Whom<'_>,
        head: &request::Parts,
        host: &str,
        last: &mut Option<Remembered>,
    ) -> Arc<Proof> {
        let generation = self.generation.load(Ordering::Acquire);
        let shown = shown(head, host);
        let known = last.as_ref().filter(|last| last.generation == generation && last.shown == shown);
        let presented = match known {
            Some(known) => Arc::clone(&known.proof),
            None if shown.is_empty() => Arc::clone(&self.nothing),
            None => {
                let proof = Arc::new(self.proof(whom, &of_head(head, host), false));
                *last = Some(Remembered { shown, generation, proof: Arc::clone(&proof) });
                proof
            }
        };
        let carried = Carried::of_headers(&head.headers, &self.names);
        if carried.is_empty() {
            return presented;
        }
        let mut proof = Proof::clone(&presented);
        merge(&mut proof, self.check(whom, &carried));
        Arc::new(proof)
    }

    fn of_session(&self, whom: Whom<'_>, session: Session<'_>) -> Proof {
        let shown: Vec<Shown> = of_session(session.user).into_iter().collect();
        let mut proof = self.proof(whom, &shown, session.accepted);
        if !session.application_name.is_empty() {
            let mut carried = Carried::default();
            carried.application_name(session.application_name, &self.names);
            merge(&mut proof, self.check(whom, &carried));
        }
        proof
    }

    fn of_command(&self, whom: Whom<'_>, base: &Proof, command: &Command) -> Option<Proof> {
        let mut carried = Carried::default();
        carried.statement(&command.statement, &command.redactions, &self.names);
        for (_, labels) in command.attributes.iter().filter(|(name, _)| *name == "labels") {
            carried.labels(labels, &self.names);
        }
        if carried.is_empty() && command.presented.is_empty() {
            return None;
        }
        let mut proof = base.clone();
        if !command.presented.is_empty() {
            let shown = command.presented.iter().map(|shown| of_secret(shown.place, shown.secret.bytes()));
            let shown: Vec<Shown> = shown.collect();
            let body = self.proof(whom, &shown, false);
            proof.matches = together([proof.matches, body.matches].into_iter());
            proof.credentials.extend(body.credentials);
            proof.findings.extend(body.findings);
        }
        merge(&mut proof, self.check(whom, &carried));
        Some(proof)
    }

    fn issued(&self, whom: Whom<'_>, command_id: &[u8], findings: &[v1::CommandFinding], issued: &[Issued]) {
        let now = clock::wall_nanos();
        let workload = &whom.identity.workload;
        let inherits = findings.iter().copied().find(|finding| {
            use v1::CommandFinding::{CredentialOfAPerson, CredentialOfAnother, SharedKey};
            matches!(finding, CredentialOfAPerson | CredentialOfAnother | SharedKey)
        });
        for token in issued {
            let issuance = v1::Issuance {
                issuer: issuer(token.issuer).into(),
                issued_wall_nanos: now,
                namespace: workload.namespace.clone(),
                service_account: workload.service_account.clone(),
                pod_uid: workload.pod_uid.clone(),
                pod_name: workload.pod_name.clone(),
                container: workload.container.clone(),
                account: token.account.clone(),
                command_id: command_id.to_vec(),
            };
            let owner = Owner { key: owner_key(whom), issuance, inherits };
            self.issuances.issue(token.secret.bytes(), token.lifetime_seconds, token.bound, owner, now);
        }
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// The credentials of a head as they stand there, so that the same ones are known again.
fn shown(head: &request::Parts, host: &str) -> Zeroizing<Vec<u8>> {
    let mut shown = Zeroizing::new(Vec::new());
    for (at, name) in SHOWN.iter().enumerate() {
        for value in head.headers.get_all(*name) {
            // No value of a header holds these (RFC 9110 section 5.5).
            shown.extend_from_slice(&[0, u8::try_from(at).unwrap_or(u8::MAX)]);
            shown.extend_from_slice(value.as_bytes());
        }
    }
    if let Some(query) = head.uri.query().filter(|query| is_suspect(query.as_bytes())) {
        shown.push(0);
        shown.extend_from_slice(query.as_bytes());
    }
    if !shown.is_empty() && host.ends_with(".mtls.googleapis.com") {
        shown.extend_from_slice(b"\0mtls");
    }
    shown
}

fn is_suspect(query: &[u8]) -> bool {
    // An escaped name is looked at as well.
    query.contains(&b'%')
        || SUSPECT.iter().any(|word| query.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word)))
}

/// Whether a token has the form of Google's access tokens. Nobody else's is shown to Google.
fn is_googles(token: &[u8]) -> bool {
    token.starts_with(b"ya29.")
}

fn workload(identity: &Identity) -> Workload<'_> {
    let workload = &identity.workload;
    Workload {
        kind: workload.principal_kind(),
        principal: &workload.principal,
        namespace: &workload.namespace,
        service_account: &workload.service_account,
        impersonated: &workload.impersonated_service_account,
    }
}

/// Equal for equal workloads: the pod; without one whoever it is by name; without any the cgroup.
fn owner_key(whom: Whom<'_>) -> Vec<u8> {
    let Whom { identity, flow: Flow { cgroup_id, .. } } = whom;
    let workload = &identity.workload;
    let parts = match identity.local_user.as_deref() {
        // By its UID alone: that is known also while nobody has said whose it is.
        _ if !workload.pod_uid.is_empty() => ["pod", "", &workload.pod_uid],
        Some(user) => ["user", user, ""],
        None if !workload.service_account.is_empty() => {
            ["name", &workload.namespace, &workload.service_account]
        }
        None => return [b"cgroup\0", &cgroup_id.to_be_bytes()[..]].concat(),
    };
    parts.join("\0").into_bytes()
}

fn issuer(issuer: TokenIssuer) -> v1::TokenIssuer {
    match issuer {
        TokenIssuer::MetadataServer => v1::TokenIssuer::MetadataServer,
        TokenIssuer::Sts => v1::TokenIssuer::Sts,
        TokenIssuer::IamCredentials => v1::TokenIssuer::IamCredentials,
        TokenIssuer::Oauth2 => v1::TokenIssuer::Oauth2,
    }
}

/// Adds on whose behalf to what is known already; who is proven stays first.
fn merge(proof: &mut Proof, behalf: Behalf) {
    proof.on_behalf_of.extend(behalf.on_behalf_of);
    proof.on_behalf_of.sort_by_key(|person| person.kind() != v1::BehalfKind::Verified);
    proof.behalf = proof.on_behalf_of.first().map(v1::OnBehalfOf::kind).unwrap_or_default();
    if let Some(finding) = behalf.finding.filter(|finding| !proof.findings.contains(finding)) {
        proof.findings.push(finding);
    }
    let Some(added) = behalf.trace else { return };
    let trace = proof.trace.get_or_insert_default();
    for (slot, value) in [
        (&mut trace.traceparent, added.traceparent),
        (&mut trace.tracestate, added.tracestate),
        (&mut trace.session_id, added.session_id),
        (&mut trace.task_id, added.task_id),
        (&mut trace.tool_id, added.tool_id),
    ] {
        if slot.is_empty() {
            *slot = value;
        }
    }
    trace.places.extend(added.places);
}

#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
mod tests;
