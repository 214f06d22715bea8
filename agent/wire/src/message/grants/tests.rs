//! What is read of a request for a token and of its answer, and that no credential is in either's record.

use crate::{
    message::talk::{Talk, of, request},
    seam::{Command, Operation, Outcome, Status, TokenIssuer},
};

const SERVER: &str = "169.254.169.254:80";
const ACCOUNTS: &str = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts";

fn metadata(path: &str) -> Talk {
    request("GET", &format!("{ACCOUNTS}{path}")).to(SERVER)
}

fn sts() -> Talk {
    request("POST", "https://sts.googleapis.com/v1/token")
        .tls("sts.googleapis.com")
        .header("content-type", "application/x-www-form-urlencoded")
}

fn iam(method: &str) -> Talk {
    let uri =
        "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a%40p.iam.gserviceaccount.com";
    request("POST", &format!("{uri}:{method}")).tls("iamcredentials.googleapis.com")
}

fn issued(outcome: &Outcome) -> Vec<(TokenIssuer, &str, Option<u64>)> {
    let all = outcome.issued.iter();
    all.map(|issued| {
        let token = std::str::from_utf8(issued.secret.bytes()).expect("text");
        (issued.issuer, token, issued.lifetime_seconds)
    })
    .collect()
}

/// Everything that a record is made of, as anybody would print it.
fn printed((command, outcome): &(Command, Outcome)) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let attributes = command.attributes.iter().chain(&outcome.attributes);
    let attributes: Vec<_> = attributes.map(|(name, value)| format!("{name}={}", text(value))).collect();
    format!("{command:?}{outcome:?}{}{attributes:?}", text(&command.statement.bytes))
}

#[test]
fn a_token_of_the_metadata_server_is_handed_on_and_not_recorded() {
    let talk = metadata("/default/token?scopes=a")
        .answered(200, r#"{"access_token":"ya29.s3cret","expires_in":3599,"token_type":"Bearer"}"#);
    assert_eq!(talk.service(), "metadata");
    for piece in [1, 7, usize::MAX] {
        let record = talk.clone().by(piece).record();
        assert_eq!((record.0.method.as_str(), record.0.operation), ("metadata.token", Operation::Get));
        assert_eq!(record.0.resource, "projects/-/serviceAccounts/default");
        assert_eq!(issued(&record.1), [(TokenIssuer::MetadataServer, "ya29.s3cret", Some(3599))]);
        assert_eq!(of(&record.1.attributes, "tokens_issued"), "1");
        assert!(!printed(&record).contains("s3cret"), "{}", printed(&record));
    }
    let identity = metadata("/default/identity?audience=x&bindCertificateFingerprint=f")
        .answered(200, "eyJh.eyJi.s3cret\n");
    let record = identity.record();
    assert_eq!(issued(&record.1), [(TokenIssuer::MetadataServer, "eyJh.eyJi.s3cret", None)]);
    assert!(record.1.issued[0].bound && !printed(&record).contains("s3cret"));
    let other = metadata("/default/email").answered(200, "a@p.iam.gserviceaccount.com").record();
    assert_eq!((other.0.method.as_str(), other.1.issued.len()), ("metadata.get", 0));
}

#[test]
fn garbage_of_the_metadata_server_is_recorded_as_such_and_binds_nothing() {
    let long = format!(r#"{{"access_token":"{}"}}"#, "s".repeat(70_000));
    for (body, why) in [
        ("", "no token in it"),
        ("<html>ya29.s3cret</html>", "no JSON"),
        ("[]", "no token in it"),
        (r#"{"access_token":""}"#, "no token in it"),
        (r#"{"access_token":{"a":"ya29.s3cret"}}"#, "no token in it"),
        (r#"{"access_token":"ya29.s3cret""#, "no JSON"),
        (long.as_str(), "longer than is read"),
    ] {
        let record = metadata("/default/token").answered(200, body).record();
        assert_eq!(of(&record.1.attributes, "answer_undecoded"), why, "{body:.40}");
        assert_eq!((record.1.issued.len(), record.1.status), (0, Status::Ok));
        assert!(!printed(&record).contains("s3cret"));
    }
    let bad = metadata("/default/identity").answered(200, "two words").record();
    assert_eq!(of(&bad.1.attributes, "answer_undecoded"), "no token in it");
    let refused = metadata("/default/token").answered(403, r#"{"error":"x"}"#).record();
    assert_eq!((refused.1.status, refused.1.issued.len()), (Status::Error, 0));
}

#[test]
fn only_the_service_itself_is_believed_to_issue_anything() {
    let reply = r#"{"access_token":"ya29.stolen","expires_in":3599}"#;
    let elsewhere =
        request("GET", &format!("{ACCOUNTS}/default/token")).to("10.0.0.7:80").answered(200, reply);
    assert_eq!((elsewhere.service(), elsewhere.record().1.issued.len()), ("http", 0));
    let in_tls = metadata("/default/token").tls("evil.example").answered(200, reply);
    assert_eq!(in_tls.record().1.issued.len(), 0);
    let plain = request("POST", "http://sts.googleapis.com/v1/token").answered(200, reply).record();
    assert_eq!(plain.1.issued.len(), 0);
    let other_name =
        request("POST", "https://sts.googleapis.com/v1/token").tls("evil.example").answered(200, reply);
    assert_eq!(other_name.record().1.issued.len(), 0);
}

#[test]
fn an_exchange_shows_its_subject_token_and_keeps_what_it_asks_for() {
    let form = "grant_type=urn%3Aietf%3Aparams&audience=%2F%2Fiam&scope=a+b&subject_token=eyJh.eyJi.s3cret1&x=s3cret2";
    let record =
        sts().body(form.as_bytes()).answered(200, r#"{"access_token":"s3cret3","expires_in":3600}"#).record();
    let (command, outcome) = &record;
    assert_eq!((command.method.as_str(), command.operation), ("sts.token", Operation::Create));
    assert_eq!(of(&command.attributes, "scope"), "a b");
    assert_eq!(of(&command.attributes, "audience"), "//iam");
    assert_eq!(command.presented.len(), 1);
    assert_eq!(
        (command.presented[0].place, command.presented[0].secret.bytes()),
        ("form subject_token", &b"eyJh.eyJi.s3cret1"[..])
    );
    assert_eq!(issued(outcome), [(TokenIssuer::Sts, "s3cret3", Some(3600))]);
    assert!(!printed(&record).contains("s3cret"), "{}", printed(&record));

    let json = r#"{"grantType":"x","subjectToken":"s3cret1","audience":"a"}"#;
    let (command, _) = sts().json(json).answered(400, "{}").record();
    assert_eq!(command.presented.len(), 1);
    assert_eq!(of(&command.attributes, "audience"), "a");

    let refresh = "grant_type=refresh_token&refresh_token=s3cret1&client_id=c&client_secret=s3cret2";
    let record = request("POST", "https://oauth2.googleapis.com/token")
        .tls("oauth2.googleapis.com")
        .body(refresh.as_bytes())
        .answered(200, r#"{"access_token":"s3cret3","id_token":"s3cret4"}"#)
        .record();
    assert_eq!(
        record.0.presented.iter().map(|shown| shown.place).collect::<Vec<_>>(),
        ["form refresh_token", "form client_secret"]
    );
    assert_eq!((record.1.issued.len(), of(&record.0.attributes, "client_id")), (2, "c"));
    assert!(!printed(&record).contains("s3cret"));
}

#[test]
fn iam_credentials_issue_for_the_account_in_the_path() {
    let lifetime = r#"{"scope":["a","b"],"lifetime":"43200s","delegates":[]}"#;
    let reply = r#"{"accessToken":"ya29.s3cret","expireTime":"2026-11-29T09:00:00Z"}"#;
    let record = iam("generateAccessToken").json(lifetime).answered(200, reply).record();
    assert_eq!(record.0.method, "iamcredentials.generateAccessToken");
    assert_eq!(record.0.resource, "projects/-/serviceAccounts/a@p.iam.gserviceaccount.com");
    assert_eq!(issued(&record.1), [(TokenIssuer::IamCredentials, "ya29.s3cret", Some(43200))]);
    assert_eq!(record.1.issued[0].account, "a@p.iam.gserviceaccount.com");

    let id = iam("generateIdToken").json(r#"{"audience":"x"}"#).answered(200, r#"{"token":"t"}"#).record();
    assert_eq!(issued(&id.1), [(TokenIssuer::IamCredentials, "t", None)]);
    let signed = iam("signJwt")
        .json(r#"{"payload":"{\"sub\":\"s3cret\"}"}"#)
        .answered(200, r#"{"keyId":"k","signedJwt":"s3cret.b.c"}"#)
        .record();
    assert_eq!(signed.1.issued.len(), 1);
    assert!(!printed(&signed).contains("s3cret"));
    let blob =
        iam("signBlob").json(r#"{"payload":"s3cret"}"#).answered(200, r#"{"signedBlob":"s3cret"}"#).record();
    assert_eq!(blob.1.issued.len(), 0);
    assert!(!printed(&blob).contains("s3cret"));
    let unknown = iam("allowedLocations").answered(200, "{}");
    assert_eq!(unknown.service(), "http");
}

#[test]
fn a_body_that_is_longer_than_is_read_or_no_form_is_partly_captured() {
    let long = format!("scope=a&subject_token={}", "s".repeat(100_000));
    let (command, _) = sts().body(long.as_bytes()).by(1000).answered(200, r#"{"access_token":"t"}"#).record();
    assert!(command.partly.is_some());
    let (command, _) = sts().json("{").answered(200, "{}").record();
    assert!(command.partly.is_some());
}
