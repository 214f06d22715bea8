//! What a command proves, from what several pods present and are issued.

use std::net::Ipv4Addr;

use http::Request;
use verbatim_api::v1::{
    BehalfKind, CommandFinding, CredentialKind, CredentialMatch, CredentialSource, PrincipalKind,
};
use verbatim_wire::{Secret, seam::PresentedSecret};

use super::*;

fn engine() -> Arc<Engine> {
    let key = FingerprintKey::new("cluster", &[7; 32]);
    Arc::new(Engine::new(key, Names::default(), Verifier::new(Vec::new()), None, Arc::default()))
}

fn flow(cgroup_id: u64) -> Flow {
    Flow {
        destination: (Ipv4Addr::LOCALHOST, 443).into(),
        cgroup_id,
        ancestor_cgroup_ids: Vec::new(),
        pid: 1,
        uid: 1,
        gid: 1,
        client_netns: 1,
        listener_netns: 1,
        socket_cookie: 1,
        ktime_nanos: 1,
        comm: String::new(),
        connect_series: 0,
        connect_number: 0,
    }
}

fn pod(uid: &str, account: &str) -> Identity {
    let workload = v1::Workload {
        principal_kind: PrincipalKind::Federated.into(),
        principal: format!("principal://p/subject/ns/shop/sa/{account}"),
        namespace: "shop".into(),
        service_account: account.into(),
        pod_uid: uid.into(),
        pod_name: format!("{account}-{uid}"),
        impersonated_service_account: format!("{account}@p.iam.gserviceaccount.com"),
        ..v1::Workload::default()
    };
    Identity { workload, ..Identity::default() }
}

fn head(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

fn bearer(token: &str) -> request::Parts {
    head("/x", &[("authorization", &format!("Bearer {token}"))])
}

fn issued(token: &str) -> Issued {
    Issued {
        issuer: TokenIssuer::MetadataServer,
        secret: Secret::new(token.as_bytes().to_vec()),
        account: "default".into(),
        lifetime_seconds: Some(3600),
        bound: false,
    }
}

struct Case {
    engine: Arc<Engine>,
    flow: Flow,
}

impl Case {
    fn new() -> Self {
        Self { engine: engine(), flow: flow(1) }
    }

    fn whom<'a>(&'a self, identity: &'a Identity) -> Whom<'a> {
        Whom { identity, flow: &self.flow }
    }

    fn ask(&self, identity: &Identity, head: &request::Parts) -> Arc<Proof> {
        self.engine.of_request(self.whom(identity), head, "bigquery.googleapis.com", &mut None)
    }

    fn issue(&self, identity: &Identity, token: &str, findings: &[CommandFinding]) {
        self.engine.issued(self.whom(identity), &[9; 16], findings, &[issued(token)]);
    }
}

#[test]
fn a_token_that_was_issued_before_its_pod_had_a_name_is_still_that_pods() {
    let case = Case::new();
    let workload = v1::Workload {
        principal_kind: PrincipalKind::Unresolved.into(),
        pod_uid: "1".into(),
        ..v1::Workload::default()
    };
    case.issue(&Identity { workload, ..Identity::default() }, "ya29.t", &[]);
    let own = case.ask(&pod("1", "agent"), &bearer("ya29.t"));
    assert_eq!((own.matches, own.findings.len()), (CredentialMatch::Yes, 0));
    assert_eq!(case.ask(&pod("2", "agent"), &bearer("ya29.t")).matches, CredentialMatch::No);
}

#[test]
fn only_tokens_of_googles_form_are_shown_to_google() {
    assert!(is_googles(b"ya29.c.b0Aaekm1") && is_googles(b"ya29.d.c0ARcRzXw"));
    for other in ["ghp_16C7e42F292c6912E7", "ya29", "", "xoxb-1", "1//0g-refresh", "Ya29.x"] {
        assert!(!is_googles(other.as_bytes()), "{other}");
    }
}

#[test]
fn a_token_is_the_pods_that_it_was_issued_to_and_a_finding_with_another() {
    let case = Case::new();
    let (agent, other, unseen) = (pod("1", "agent"), pod("2", "other"), pod("3", "agent"));
    let before = case.ask(&agent, &bearer("ya29.t"));
    assert_eq!((before.matches, before.findings.len()), (CredentialMatch::Unknown, 0));
    case.issue(&agent, "ya29.t", &[]);
    let own = case.ask(&agent, &bearer("ya29.t"));
    assert_eq!((own.matches, own.findings.len()), (CredentialMatch::Yes, 0));
    let credential = &own.credentials[0];
    assert_eq!(credential.kind(), CredentialKind::OpaqueToken);
    assert_eq!(credential.source(), CredentialSource::Issuance);
    assert_eq!((credential.fingerprint.len(), credential.fingerprint_key_id.as_str()), (32, "cluster"));
    let issuance = credential.issuance.as_ref().expect("an issuance");
    assert_eq!((issuance.pod_name.as_str(), issuance.command_id.as_slice()), ("agent-1", &[9; 16][..]));
    for thief in [&other, &unseen] {
        let stolen = case.ask(thief, &bearer("ya29.t"));
        assert_eq!(stolen.matches, CredentialMatch::No);
        assert_eq!(stolen.findings, [CommandFinding::CredentialOfAnother]);
        assert_eq!(
            stolen.credentials[0].issuance.as_ref().map(|issuance| issuance.pod_uid.as_str()),
            Some("1")
        );
    }
    // The metadata server hands one token to all pods of an account.
    case.issue(&unseen, "ya29.t", &[]);
    assert_eq!(case.ask(&unseen, &bearer("ya29.t")).matches, CredentialMatch::Yes);
    assert_eq!(case.ask(&agent, &bearer("ya29.t")).matches, CredentialMatch::Yes);
}

#[test]
fn what_is_issued_for_a_persons_credential_is_a_persons() {
    let case = Case::new();
    let agent = pod("1", "agent");
    let presented =
        vec![PresentedSecret { place: "form refresh_token", secret: Secret::new(b"1//0".to_vec()) }];
    let command = Command { presented, ..Command::default() };
    let asked = case.engine.of_command(case.whom(&agent), &Proof::default(), &command).expect("a credential");
    assert_eq!(asked.findings, [CommandFinding::CredentialOfAPerson]);
    case.issue(&agent, "ya29.person", &asked.findings);
    let used = case.ask(&agent, &bearer("ya29.person"));
    assert_eq!(
        (used.matches, used.findings.as_slice()),
        (CredentialMatch::No, &[CommandFinding::CredentialOfAPerson][..])
    );
}

#[test]
fn the_same_credentials_are_looked_at_once_until_something_new_is_known() {
    let case = Case::new();
    let agent = pod("1", "agent");
    let (head, mut last) = (bearer("ya29.t"), None);
    let mut ask = |head: &request::Parts| case.engine.of_request(case.whom(&agent), head, "x", &mut last);
    let first = ask(&head);
    assert!(Arc::ptr_eq(&first, &ask(&head)));
    assert!(!Arc::ptr_eq(&first, &ask(&bearer("ya29.u"))));
    let again = ask(&head);
    case.issue(&agent, "ya29.t", &[]);
    let after = ask(&head);
    assert_eq!((again.matches, after.matches), (CredentialMatch::Unknown, CredentialMatch::Yes));
    assert!(Arc::ptr_eq(&ask(&self::head("/a?b=c", &[])), &case.engine.nothing));
}

#[test]
fn no_credential_and_no_digest_of_a_password_is_in_what_goes_into_a_record() {
    let case = Case::new();
    let agent = pod("1", "agent");
    let all = head(
        "/x?key=s3cret-key&access_token=s3cret-query&X-Goog-Signature=s3cret-signature",
        &[
            ("authorization", "Bearer s3cret-bearer"),
            ("proxy-authorization", "Basic YWRhOnMzY3JldC1wYXNzd29yZA=="),
            ("x-goog-api-key", "s3cret-api"),
            ("x-goog-iam-authorization-token", "s3cret-iam"),
            ("cookie", "a=s3cret-cookie"),
            ("baggage", "on-behalf-of=eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.s3cretsignature"),
        ],
    );
    let proof = case.ask(&agent, &all);
    assert_eq!(proof.credentials.len(), 8);
    assert!(!format!("{proof:?}").contains("s3cret"), "{proof:?}");
    let password =
        proof.credentials.iter().find(|shown| shown.kind() == CredentialKind::Password).expect("one");
    assert_eq!((password.subject.as_str(), password.fingerprint.len()), ("ada", 0));
    assert_eq!(proof.on_behalf_of[0].subject, "ada");
    assert_eq!(
        (proof.behalf, proof.findings.as_slice()),
        (BehalfKind::Asserted, &[CommandFinding::OnBehalfOfRejected][..])
    );
}

#[test]
fn a_database_user_is_evidence_of_its_session() {
    let case = Case::new();
    let agent = pod("1", "agent");
    let session = |user| Session { user, application_name: b"x on-behalf-of=ada", accepted: true };
    let own = case.engine.of_session(case.whom(&agent), session("agent@p.iam"));
    assert_eq!((own.matches, own.behalf), (CredentialMatch::Yes, BehalfKind::Asserted));
    assert_eq!(own.credentials[0].source(), CredentialSource::ServerAccepted);
    assert!(own.credentials[0].fingerprint.is_empty() && own.credentials[0].fingerprint_key_id.is_empty());
    let other = case.engine.of_session(case.whom(&agent), session("other@p.iam"));
    assert_eq!(other.findings, [CommandFinding::CredentialOfAnother]);
    assert_eq!(case.engine.of_session(case.whom(&agent), session("")).credentials.len(), 0);
}

#[test]
fn workloads_without_a_pod_are_told_apart_by_name_and_then_by_cgroup() {
    let (one, two) = (flow(1), flow(2));
    let key = |identity: &Identity, flow| owner_key(Whom { identity, flow });
    let named = |account| pod("", account);
    let user = Identity { local_user: Some("local:h/ada".into()), ..Identity::default() };
    assert_eq!(key(&named("a"), &one), key(&named("a"), &two));
    assert_ne!(key(&named("a"), &one), key(&named("b"), &one));
    assert_eq!(key(&user, &one), key(&user, &two));
    assert_ne!(key(&Identity::default(), &one), key(&Identity::default(), &two));
    assert_ne!(key(&pod("1", "a"), &one), key(&pod("2", "a"), &one));
}
