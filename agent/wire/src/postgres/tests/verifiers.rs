//! SCRAM of a client that binds to our certificate, by what is known of its password.

use std::sync::Arc;

use super::{
    bytes::{error, message, query, ready, startup},
    conversation::{Conversation, Run},
    encryption::{NONCE, ask, authentication, both, certificate, choice, initial, offer, told, welcome},
};
use crate::{
    postgres::{Verifier, end_point, refuse, scram::Client, verifier::tests::PENCIL},
    seam::{Encryption, SessionFact, Status, Verifiers},
};

/// Another one than the server's.
fn leaf() -> Vec<u8> {
    let mut leaf = certificate();
    *leaf.last_mut().expect("bytes") ^= 1;
    leaf
}

fn knowing() -> Encryption {
    let verifiers = Verifiers(Arc::new(|user: &[u8]| {
        (user == b"bob").then(|| Arc::new(Verifier::parse(PENCIL).expect("a verifier")))
    }));
    Encryption { certificate: leaf(), verifiers: Some(verifiers), ..both() }
}

/// One who knows the password, bound to a certificate: the client to ours, or whom the server wants to see.
fn bound(password: &[u8], certificate: &[u8]) -> Client {
    let binding = end_point::end_point(certificate);
    assert!(binding.is_some());
    Client::new(password, &NONCE, binding.as_deref())
}

const SALTED: &str = "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

fn server_first(client: &Client, salted: &str) -> Vec<u8> {
    let first = String::from_utf8(client.first()).expect("text");
    format!("r={}server,{salted}", first.rsplit("r=").next().expect("a nonce")).into_bytes()
}

/// Up to the client's proof.
fn proved(password: &[u8]) -> (Client, Conversation, Vec<u8>) {
    let mut client = bound(password, &leaf());
    let server_first = server_first(&client, SALTED);
    let first = initial("SCRAM-SHA-256-PLUS", &client.first());
    let last = message(b'p', &client.last(&server_first).expect("a proof"));
    let conversation = Conversation::raw()
        .encryption(knowing())
        .client(startup(&[("user", "bob")]))
        .server(offer())
        .client(first)
        .server(authentication(11, &server_first))
        .client(last);
    (client, conversation, server_first)
}

fn nothing_is_told(run: &Run) {
    for key in PENCIL.rsplit('$').next().expect("keys").split(':') {
        assert!(!format!("{:?}", run.events).contains(key));
    }
}

#[test]
fn each_leg_is_bound_to_its_own_certificate_where_a_verifier_is_known() {
    let (mut client, conversation, server_first) = proved(b"pencil");
    let mut knows = bound(b"pencil", &certificate());
    let proof = knows.last(&server_first).expect("a proof");
    let run = conversation
        .server([authentication(12, &knows.expected()), welcome()].concat())
        .client(query("select 1"))
        .server([&b"C\0\0\0\x0dSELECT 1\0"[..], &ready(b'I')].concat())
        .run();
    let first = initial("SCRAM-SHA-256-PLUS", &client.first());
    let sent = [startup(&[("user", "bob")]), first, message(b'p', &proof), query("select 1")].concat();
    assert_eq!(run.to_server, sent, "bound to the server's certificate");
    let signature = client.expected();
    client.verify(&signature).expect("its own");
    let begun =
        [offer(), authentication(11, &server_first), authentication(12, &signature), welcome()].concat();
    assert!(run.to_client.starts_with(&begun), "never asked for a password");
    assert_eq!(run.ends(), [("select 1".to_owned(), Status::Ok)]);
    assert_eq!(told(&run).as_deref(), Some("SCRAM on both legs, by a known verifier"));
    nothing_is_told(&run);
}

#[test]
fn a_client_that_is_known_to_bind_is_not_asked_where_a_verifier_is_known() {
    let known = || Conversation::raw().encryption(Encryption { ask_password: true, ..knowing() });
    let run = known().client(startup(&[("user", "bob")])).server(offer()).run();
    assert_eq!(run.to_client, offer());
    let run = known().client(startup(&[("user", "eve")])).server(offer()).run();
    assert_eq!(run.to_client, ask(), "an unknown role, as before");
}

#[test]
fn a_client_that_binds_nothing_authenticates_by_itself_whatever_is_known() {
    let run = Conversation::raw()
        .encryption(knowing())
        .client(startup(&[("user", "bob")]))
        .server(offer())
        .client(choice("SCRAM-SHA-256"))
        .server(authentication(11, b"r=abcdef,s=c2FsdA==,i=4096"))
        .client(message(b'p', b"c=biws,r=abcdef,p=AAAA"))
        .server([authentication(12, b"v=AAAA"), welcome()].concat())
        .observed();
    assert_eq!(told(&run), None);
}

#[test]
fn a_role_that_nothing_is_known_of_is_asked_for_its_password() {
    let run = Conversation::raw()
        .encryption(knowing())
        .client(startup(&[("user", "eve")]))
        .server(offer())
        .client(choice("SCRAM-SHA-256-PLUS"))
        .run();
    assert_eq!(run.to_client, [offer(), ask()].concat());
}

#[test]
fn a_password_that_is_wrong_for_the_verifier_is_the_servers_to_refuse() {
    let (_, conversation, server_first) = proved(b"pen");
    let refused = error("28P01", "password authentication failed for user \"bob\"");
    let run = conversation.clone().server(&refused).run();
    assert!(run.to_client.ends_with(&refused) && !run.closed);
    assert!(told(&run).expect("recorded").contains("does not fit"));
    let mut knows = bound(b"pencil", &certificate());
    let proof = message(b'p', &knows.last(&server_first).expect("a proof"));
    assert!(!run.to_server.ends_with(&proof), "the server sees a wrong one");
    // A server that takes it is none.
    let run = conversation.server(authentication(12, &knows.expected())).run();
    assert!(run.closed && run.to_client.ends_with(&refuse::start("the server took a wrong proof")));
}

#[test]
fn a_verifier_that_is_out_of_date_is_said_and_recorded() {
    let client = bound(b"pencil", &leaf());
    for salted in ["s=AAAA,i=4096", "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4097"] {
        let run = Conversation::raw()
            .encryption(knowing())
            .client(startup(&[("user", "bob")]))
            .server(offer())
            .client(initial("SCRAM-SHA-256-PLUS", &client.first()))
            .server(authentication(11, &server_first(&client, salted)))
            .run();
        assert!(run.closed);
        assert_eq!(told(&run).as_deref(), Some(refuse::OUTDATED));
        let said = refuse::start_with(refuse::OUTDATED, refuse::RENEW);
        assert_eq!(run.to_client, [offer(), said].concat());
        nothing_is_told(&run);
    }
}

/// Bad input, and what becomes of it: whether the session is ended by us.
#[test]
fn messages_out_of_turn_or_out_of_shape_start_no_session() {
    let client = bound(b"pencil", &leaf());
    let begun = || {
        Conversation::raw()
            .encryption(knowing())
            .client(startup(&[("user", "bob")]))
            .server(offer())
            .client(initial("SCRAM-SHA-256-PLUS", &client.first()))
    };
    let first = authentication(11, &server_first(&client, SALTED));
    let answered = |last: &[u8]| begun().server(&first).client(message(b'p', last));
    let (_, right, _) = proved(b"pencil");
    let mut elsewhere = bound(b"pencil", &certificate());
    let elsewhere = elsewhere.last(&server_first(&client, SALTED)).expect("a proof");
    for (case, conversation) in [
        ("the client does not wait", begun().client(message(b'p', b"c=,r=,p="))),
        ("no first message", begun().server(authentication(11, b"nonsense"))),
        ("no salt", begun().server(authentication(11, &server_first(&client, "s=!,i=1")))),
        ("no last message", answered(b"")),
        ("no proof", answered(b"c=biws,r=x")),
        ("another nonce", answered(b"c=biws,r=x,p=AAAA")),
        ("another certificate", answered(&elsewhere)),
        ("an early welcome", begun().server(&first).server(authentication(0, b""))),
        ("an early end", begun().server(authentication(12, b"v=AAAA"))),
        ("twice the first", begun().server(&first).server(&first)),
        ("a wrong signature", right.clone().server(authentication(12, b"v=AAAA"))),
        ("no signature", right.clone().server(authentication(0, b""))),
        ("another method", right.server(authentication(3, b""))),
    ] {
        let run = conversation.run();
        assert!(run.closed, "{case}");
        let why = told(&run).expect("recorded");
        assert!(run.to_client.ends_with(&refuse::start(&why)), "{case}: {why}");
        assert!(run.commands().is_empty(), "{case}");
        nothing_is_told(&run);
    }
}

#[test]
fn a_first_message_that_binds_nothing_is_the_servers_to_refuse() {
    for first in [&b"n,,n=,r=abc"[..], b"p=tls-unique,,n=,r=abc", b""] {
        let refused = error("08P01", "malformed SCRAM message");
        let run = Conversation::raw()
            .encryption(knowing())
            .client(startup(&[("user", "bob")]))
            .server(offer())
            .client(initial("SCRAM-SHA-256-PLUS", first))
            .server(&refused)
            .run();
        assert_eq!(run.to_client, [offer(), refused].concat());
        assert!(run.to_server.ends_with(&initial("SCRAM-SHA-256-PLUS", first)));
        assert!(run.facts().contains(&&SessionFact::BindsChannel));
    }
}
