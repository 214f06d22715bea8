//! How PostgreSQL begins TLS, byte by byte: agreed on, declined, eager, from the first byte.

use std::{
    io::{Read, Write},
    sync::Arc,
    thread,
};

use verbatim_api::v1;

use crate::support::{
    PATIENCE, eventually,
    spool::each_start_has_one_end,
    tls::{Lab, expect, say, shake_over, shake_server},
};

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

fn packet(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat()
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

#[test]
fn a_cancel_request_within_tls_is_a_command_and_reaches_the_server_within_tls() {
    let lab = Lab::new();
    let world = lab.real_world(1);
    let mut client = world.client();
    let mut server = world.accept();
    let config = Arc::new(lab.server(&["localhost"]));
    let serving = thread::spawn(move || {
        let mut request = [0; 8];
        server.read_exactly(&mut request);
        assert_eq!(request, SSL_REQUEST);
        server.stream.write_all(b"S").unwrap();
        shake_server(server.into_stream(), config).unwrap()
    });
    client.stream.write_all(&SSL_REQUEST).unwrap();
    let mut consent = [0];
    client.read_exactly(&mut consent);
    assert_eq!(&consent, b"S");
    let mut client = shake_over(client.into_stream(), lab.client(), "localhost").unwrap();
    let mut server = serving.join().unwrap();
    let cancel = packet(&[80_877_102_u32.to_be_bytes(), 7_u32.to_be_bytes(), *b"abcd"].concat());
    say(&mut client, &cancel);
    let mut arrived = vec![0; cancel.len()];
    server.read_exact(&mut arrived).unwrap();
    assert_eq!(arrived, cancel);
    drop((client, server));
    eventually("the end", || world.spool().closing());
    let started = world.spool().of_kind(v1::RecordKind::Started);
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].envelope.operation(), v1::Operation::Cancel);
    each_start_has_one_end(world.spool());
}

#[test]
fn gssapi_encryption_is_declined_in_the_servers_place_and_tls_may_follow() {
    let lab = Lab::new();
    let world = lab.real_world(1);
    let mut client = world.client();
    let mut server = world.accept();
    client.stream.write_all(&GSSENC_REQUEST).unwrap();
    let mut answer = [0];
    client.read_exactly(&mut answer);
    assert_eq!(&answer, b"N");
    client.stream.write_all(&SSL_REQUEST).unwrap();
    let mut request = [0; 8];
    server.read_exactly(&mut request);
    assert_eq!(request, SSL_REQUEST, "the server was not asked for the other");
    server.stream.write_all(b"S").unwrap();
    client.read_exactly(&mut answer);
    assert_eq!(&answer, b"S");
    assert_eq!(world.spool().of_kind(v1::RecordKind::Injected).len(), 1);
}

#[test]
fn tls_from_the_first_byte_is_decoded_by_what_is_within() {
    let lab = Lab::new();
    let world = lab.real_world(1);
    let mut config = lab.server(&["localhost"]);
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let mut of_client = lab.client();
    of_client.alpn_protocols = vec![b"postgresql".to_vec()];
    let (mut client, mut server) = crate::support::tls::connect(&world, of_client, "localhost", config);
    let start = packet(b"\0\x03\0\0user\0ada\0\0");
    say(&mut client, &start);
    expect(&mut server, &start);
    let welcome = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    say(&mut server, &welcome);
    expect(&mut client, &welcome);
    let query = message(b'Q', b"select 1\0");
    say(&mut client, &query);
    expect(&mut server, &query);
    assert_eq!(world.spool().story(), ["started allowed select 1"]);
    drop((client, server));
    let closing = eventually("the closing record", || world.spool().closing());
    assert_eq!(closing.envelope.protocol(), v1::Protocol::Postgresql);
    assert_eq!(closing.content.unwrap().tls.unwrap().server.unwrap().alpn, "postgresql");
}

#[test]
fn a_server_that_says_more_than_it_agrees_is_not_believed() {
    let lab = Lab::new();
    let world = lab.real_world(1);
    let (mut client, mut server) = world.connect();
    client.stream.write_all(&SSL_REQUEST).unwrap();
    let mut request = [0; 8];
    server.read_exactly(&mut request);
    // What follows could be anybody's, put in before TLS protects anything.
    server.stream.write_all(b"SC").unwrap();
    assert!(client.rest().is_err(), "reset");
    let closing = eventually("the closing record", || world.spool().closing());
    assert!(closing.content.unwrap().note.contains("plaintext after it agreed on TLS"));
}

#[test]
fn a_hello_that_does_not_wait_for_the_servers_consent_is_held_until_it_comes() {
    let lab = Lab::new();
    let world = lab.real_world(1);
    let mut session =
        rustls::ClientConnection::new(Arc::new(lab.client()), "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let mut client = world.client();
    let mut server = world.accept();
    client.stream.write_all(&[&SSL_REQUEST[..], &hello].concat()).unwrap();
    let mut request = [0; 8];
    server.read_exactly(&mut request);
    assert!(server.is_quiet(), "nothing but the request");
    server.stream.write_all(b"S").unwrap();
    let mut consent = [0];
    client.read_exactly(&mut consent);
    let config = Arc::new(lab.server(&["localhost"]));
    let serving = thread::spawn(move || shake_server(server.stream, config).unwrap());
    let mut client = rustls::StreamOwned::new(session, client.stream);
    client.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock).unwrap();
    }
    let mut server = serving.join().unwrap();
    let start = packet(b"\0\x03\0\0user\0ada\0\0");
    say(&mut client, &start);
    expect(&mut server, &start);
}

#[test]
fn a_client_that_agrees_on_tls_and_goes_on_in_plaintext_is_passed_on_and_recorded() {
    let lab = Lab::new();
    let world = lab.real_world(1);
    let (mut client, mut server) = world.connect();
    client.stream.write_all(&SSL_REQUEST).unwrap();
    let mut request = [0; 8];
    server.read_exactly(&mut request);
    server.stream.write_all(b"S").unwrap();
    let mut consent = [0];
    client.read_exactly(&mut consent);
    let start = packet(b"\0\x03\0\0user\0ada\0\0");
    client.stream.write_all(&start).unwrap();
    let mut arrived = vec![0; start.len()];
    server.read_exactly(&mut arrived);
    assert_eq!(arrived, start);
    drop((client, server));
    let closing = eventually("the closing record", || world.spool().closing());
    assert_eq!(closing.envelope.opaque_reason(), v1::OpaqueReason::Malformed);
}
