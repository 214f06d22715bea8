//! TLS that ends with us, and authentication between legs of which it is ours.

use super::{
    bytes::{error, message, query, ready, request, startup, status},
    conversation::{Conversation, Run},
};
use crate::{
    postgres::{end_point, refuse, scram},
    seam::{Encryption, OpaqueReason, ServerTls, SessionFact, Status, Upgrade},
};

const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
pub(super) const NONCE: [u8; 18] = [9; 18];

fn ends_here() -> Encryption {
    Encryption { ends_here: true, declines_others: true, ..Encryption::default() }
}

#[test]
fn tls_that_was_agreed_on_is_the_decoders_last_word() {
    let hello = [0x16, 3, 1, 0, 5, 1];
    let run =
        Conversation::raw().encryption(ends_here()).client(request(SSL)).server("S").client(hello).run();
    assert_eq!(run.upgraded, Some(Upgrade::Both));
    assert_eq!((run.to_server, run.to_client), (request(SSL), b"S".to_vec()));
    assert_eq!(run.left, [hello.to_vec(), Vec::new()], "TLS is for the next one");
    assert!(run.events.len() == 1, "{:?}", run.events);
}

#[test]
fn what_comes_before_or_behind_the_servers_consent_is_not_read_as_plaintext() {
    let hello = [0x16, 3, 1, 0, 5, 1];
    let eager = Conversation::raw().encryption(ends_here()).client([request(SSL), hello.to_vec()].concat());
    let run = eager.clone().server("S").run();
    assert_eq!((run.upgraded, run.to_server), (Some(Upgrade::Both), request(SSL)));
    assert_eq!(run.left[0], hello);
    let run = eager.server("Sxyz").run();
    assert_eq!((run.to_client.as_slice(), run.left[1].as_slice()), (&b"S"[..], &b"xyz"[..]));
}

#[test]
fn a_session_goes_on_in_plaintext_where_the_server_has_no_tls() {
    let run = Conversation::raw()
        .encryption(ends_here())
        .client([request(SSL), startup(&[("user", "bob")])].concat())
        .server("N")
        .server(ready(b'I'))
        .client(query("select 1"))
        .server([&b"C\0\0\0\x0dSELECT 1\0"[..], &ready(b'I')].concat())
        .observed();
    assert_eq!(run.ends(), [("select 1".to_owned(), Status::Ok)]);
}

#[test]
fn an_encryption_that_cannot_end_with_us_is_declined_and_never_asked_for() {
    let run = Conversation::raw()
        .encryption(ends_here())
        .client(request(GSS))
        .client(request(SSL))
        .server("S")
        .run();
    assert_eq!(run.upgraded, Some(Upgrade::Both));
    assert_eq!((run.to_server, run.to_client), (request(SSL), b"NS".to_vec()));
    let left_alone = Encryption { declines_others: false, ..ends_here() };
    let run =
        Conversation::raw().encryption(left_alone).client(request(GSS)).server("G").client("token").run();
    assert_eq!(run.opaque(), Some(OpaqueReason::GssEncryption));
}

#[test]
fn a_session_or_a_cancel_request_waits_for_tls_that_is_required() {
    let required = Encryption { server_required: true, ..ends_here() };
    let start = startup(&[("user", "bob")]);
    let cancel =
        [&16u32.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), &7u32.to_be_bytes(), b"abcd"].concat();
    for packet in [start, cancel] {
        let run = Conversation::raw().encryption(required.clone()).client(&packet).run();
        assert_eq!(run.upgraded, Some(Upgrade::Server));
        assert_eq!(run.to_server, b"", "nothing of it went in plaintext");
        assert_eq!(run.left[0], packet, "all of it is for the next one");
        assert_eq!(run.events.len(), 1, "{:?}", run.events);
    }
    let run = Conversation::raw()
        .encryption(required)
        .client(request(SSL))
        .server("N")
        .client(startup(&[("user", "bob")]))
        .run();
    assert_eq!((run.upgraded, run.to_server), (Some(Upgrade::Server), request(SSL)));
}

/// With a signature by ECDSA and SHA-256, as far as anybody looks.
pub(super) fn certificate() -> Vec<u8> {
    let algorithm = [&[0x30, 10, 6, 8][..], &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]].concat();
    let inner = [&[0x30, 1, 0][..], &algorithm, &[3, 1, 0]].concat();
    [&[0x30, inner.len() as u8][..], &inner].concat()
}

pub(super) fn both() -> Encryption {
    let server = Some(ServerTls { certificate: certificate() });
    Encryption { client: true, server, nonce: NONCE, ..Encryption::default() }
}

pub(super) fn authentication(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], rest].concat())
}

pub(super) fn offer() -> Vec<u8> {
    authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
}

pub(super) fn initial(mechanism: &str, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u32).to_be_bytes();
    message(b'p', &[mechanism.as_bytes(), b"\0", &length, data].concat())
}

pub(super) fn choice(mechanism: &str) -> Vec<u8> {
    initial(mechanism, b"n,,n=,r=abc")
}

/// What passes between us and the server when we know the password.
struct Exchange {
    first: Vec<u8>,
    server_first: Vec<u8>,
    last: Vec<u8>,
    server_last: Vec<u8>,
}

fn exchange(password: &[u8]) -> Exchange {
    let binding = end_point::end_point(&certificate());
    assert!(binding.is_some());
    let mut client = scram::Client::new(password, &NONCE, binding.as_deref());
    let first = client.first();
    let nonce =
        String::from_utf8(first.clone()).expect("text").rsplit("r=").next().expect("nonce").to_owned();
    let server_first = format!("r={nonce}server,s=c2FsdA==,i=2").into_bytes();
    let last = client.last(&server_first).expect("well-formed");
    let server_last = client.expected();
    Exchange { first, server_first, last, server_last }
}

pub(super) fn ask() -> Vec<u8> {
    authentication(3, b"")
}

/// Up to the client's password.
fn asked() -> Conversation {
    Conversation::raw()
        .encryption(both())
        .client(startup(&[("user", "bob")]))
        .server(offer())
        .client(choice("SCRAM-SHA-256-PLUS"))
        .client(message(b'p', b"geheim\0"))
}

pub(super) fn welcome() -> Vec<u8> {
    [authentication(0, b""), status("server_version", "15.1"), ready(b'I')].concat()
}

pub(super) fn told(run: &Run) -> Option<String> {
    run.facts().into_iter().rev().find_map(|fact| match fact {
        SessionFact::Parameter(name, value) if name == b"authentication" => {
            Some(String::from_utf8_lossy(value).into_owned())
        }
        _ => None,
    })
}

#[test]
fn a_client_that_binds_is_asked_for_its_password_and_scram_plus_is_done_in_its_place() {
    let Exchange { first, server_first, last, server_last } = exchange(b"geheim");
    let run = asked()
        .server(authentication(11, &server_first))
        .server(authentication(12, &server_last))
        .server(welcome())
        .client(query("select 1"))
        .server([&b"C\0\0\0\x0dSELECT 1\0"[..], &ready(b'I')].concat())
        .run();
    let to_client = [offer(), ask(), welcome(), b"C\0\0\0\x0dSELECT 1\0".to_vec(), ready(b'I')].concat();
    assert_eq!(run.to_client, to_client, "not a word of SCRAM for the client");
    let proof = [initial("SCRAM-SHA-256-PLUS", &first), message(b'p', &last)].concat();
    assert_eq!(run.to_server, [startup(&[("user", "bob")]), proof, query("select 1")].concat());
    assert!(!run.to_server.windows(6).any(|part| part == b"geheim"), "the password stayed here");
    assert!(!format!("{:?}", run.events).contains("geheim"));
    assert_eq!(run.ends(), [("select 1".to_owned(), Status::Ok)]);
    assert!(run.facts().contains(&&SessionFact::BindsChannel));
    assert!(told(&run).expect("recorded").contains("SCRAM with the server"));
}

#[test]
fn a_client_that_is_known_to_bind_is_asked_at_once() {
    let Exchange { first, server_first, last, server_last } = exchange(b"geheim");
    let run = Conversation::raw()
        .encryption(Encryption { ask_password: true, ..both() })
        .client(startup(&[("user", "bob")]))
        .server(offer())
        .client(message(b'p', b"geheim\0"))
        .server(authentication(11, &server_first))
        .server([authentication(12, &server_last), welcome()].concat())
        .run();
    assert_eq!(run.to_client, [ask(), welcome()].concat());
    let proof = [initial("SCRAM-SHA-256-PLUS", &first), message(b'p', &last)].concat();
    assert_eq!(run.to_server, [startup(&[("user", "bob")]), proof].concat());
}

#[test]
fn a_client_that_binds_nothing_authenticates_by_itself() {
    let conversation = Conversation::raw()
        .encryption(both())
        .client(startup(&[("user", "bob")]))
        .server(offer())
        .client(choice("SCRAM-SHA-256"))
        .server(authentication(11, b"r=abcdef,s=c2FsdA==,i=4096"))
        .client(message(b'p', b"c=biws,r=abcdef,p=AAAA"))
        .server([authentication(12, b"v=AAAA"), welcome()].concat());
    let run = conversation.observed();
    assert_eq!(told(&run), None);
    for other in [authentication(5, b"salt"), authentication(3, b""), authentication(0, b"")] {
        let conversation = Conversation::raw()
            .encryption(both())
            .client(startup(&[("user", "bob")]))
            .server(other)
            .client(message(b'p', b"anything\0"))
            .server(welcome());
        assert_eq!(told(&conversation.observed()), None);
    }
}

#[test]
fn channel_binding_is_not_offered_to_a_client_without_tls() {
    let half = Encryption { client: false, ..both() };
    let start = Conversation::raw().encryption(half).client(startup(&[("user", "bob")]));
    let run = start.clone().server(offer()).client(choice("SCRAM-SHA-256")).server(welcome()).run();
    assert_eq!(run.to_client, [authentication(10, b"SCRAM-SHA-256\0\0"), welcome()].concat());
    assert_eq!(run.to_server, [startup(&[("user", "bob")]), choice("SCRAM-SHA-256")].concat());
    let run = start.server(authentication(10, b"SCRAM-SHA-256-PLUS\0\0")).run();
    assert!(run.closed);
    assert_eq!(run.to_client, refuse::start(&told(&run).expect("recorded")));
}

#[test]
fn a_wrong_password_is_the_servers_to_say() {
    let Exchange { server_first, .. } = exchange(b"falsch");
    let refused = error("28P01", "password authentication failed");
    let run = asked().server(authentication(11, &server_first)).server(&refused).run();
    assert!(run.to_client.ends_with(&refused));
    assert!(!run.closed);
}

#[test]
fn a_server_that_does_not_prove_itself_gets_no_session() {
    let Exchange { server_first, server_last, .. } = exchange(b"geheim");
    let cases: [&[Vec<u8>]; 5] = [
        &[authentication(11, b"r=other,s=c2FsdA==,i=2")],
        &[authentication(11, &server_first), authentication(12, b"v=AAAA")],
        &[authentication(11, &server_first), authentication(0, b"")],
        &[authentication(0, b"")],
        &[authentication(11, &server_first), authentication(11, &server_last)],
    ];
    for messages in cases {
        let conversation = messages.iter().fold(asked(), |conversation, bytes| conversation.server(bytes));
        let run = conversation.run();
        assert!(run.closed, "{messages:?}");
        let why = told(&run).expect("recorded");
        assert!(run.to_client.ends_with(&refuse::start(&why)), "{why}");
        assert!(run.commands().is_empty());
    }
}
