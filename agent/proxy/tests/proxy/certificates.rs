//! Servers that ask for a client's certificate, or insist on one, and clients that have one.

use std::{
    io::{Read, Write},
    sync::Arc,
    thread,
    time::Duration,
};

use rcgen::KeyPair;
use rustls::{
    ClientConfig, ServerConfig, ServerConnection, SupportedProtocolVersion,
    pki_types::PrivateKeyDer,
    version::{TLS12, TLS13},
};
use verbatim_api::v1;

use crate::{
    distrust::closing,
    support::{
        World, eventually,
        tls::{Lab, connect, expect, params, say, shake, shake_server},
    },
};

#[test]
fn a_server_that_asks_for_a_certificate_without_needing_one_gets_none_and_that_is_recorded() {
    let lab = Lab::new();
    let world = lab.world();
    let (mut client, mut server) = connect(&world, lab.client(), "db.example", asking(&lab));
    say(&mut client, b"one\n");
    expect(&mut server, b"one\n");
    drop((client, server));
    assert!(closing(&world).1.tls.unwrap().server.unwrap().client_certificate_requested);
    assert!(lab.trust.showing.lock().unwrap().is_empty());
}

/// Asks for a certificate, and does without.
fn asking(lab: &Lab) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let certificate = lab.signed(&params(&["db.example"]), &key);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(lab.root.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots));
    ServerConfig::builder()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap()
}

/// What it shows cannot be passed on, and what the server makes of it cannot be known.
#[test]
fn a_client_that_shows_a_certificate_where_one_is_asked_for_passes_from_the_second_connection_on() {
    for version in [&TLS12, &TLS13] {
        let lab = Lab::new();
        let world = lab.world();
        let client = certified(&lab, &[version]);
        for (trusted, shown) in [(true, false), (false, true)] {
            let (mut client, mut server) = connect(&world, client.clone(), "db.example", asking(&lab));
            say(&mut client, b"one\n");
            expect(&mut server, b"one\n");
            assert_eq!(server.conn.peer_certificates().is_some(), shown, "the client's own");
            drop((client, server));
            let ended = eventually("the closing record", || {
                let mut records = world.spool().of_kind(v1::RecordKind::Connection);
                records.retain(|record| record.envelope.status() != v1::Status::Pending);
                (records.len() > usize::from(shown)).then(|| records.pop()).flatten()
            });
            let content = ended.content.unwrap();
            if trusted {
                assert_eq!(ended.envelope.capture(), v1::Capture::Decoded);
                assert!(content.note.contains("showed a certificate"), "{}", content.note);
                let leg = content.tls.unwrap().client.unwrap();
                assert!(leg.peer_certificate_sha256.is_empty(), "nobody has verified it");
            } else {
                assert_eq!(ended.envelope.opaque_reason(), v1::OpaqueReason::ClientCertificateRequired);
            }
        }
        assert_eq!(*lab.trust.showing.lock().unwrap(), [Some("db.example".to_owned())]);
    }
}

/// A session that the one's connection left would be resumed without a question.
#[test]
fn a_client_without_a_certificate_does_not_hide_one_of_the_same_workload_that_has_one() {
    for version in [&TLS12, &TLS13] {
        let lab = Lab::new();
        let world = lab.world();
        let server = asking(&lab);
        for client in [lab.client(), lab.client(), certified(&lab, &[version])] {
            let (mut client, mut server) = connect(&world, client, "db.example", server.clone());
            say(&mut client, b"one\n");
            expect(&mut server, b"one\n");
        }
        assert_eq!(*lab.trust.showing.lock().unwrap(), [Some("db.example".to_owned())]);
    }
}

/// A client with a certificate of its own.
fn certified(lab: &Lab, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let key = KeyPair::generate().unwrap();
    let own = lab.signed(&params(&["ada"]), &key);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(lab.root.der().clone()).unwrap();
    roots.add_parsable_certificates(lab.authority.roots());
    ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap()
}

/// Of TLS 1.2 the handshake says it, of TLS 1.3 what comes after it: we answer the client when we have heard it.
#[test]
fn a_server_that_insists_on_a_certificate_costs_no_connection() {
    for version in [&TLS12, &TLS13] {
        let lab = Lab::new();
        let mut options = lab.options();
        // However late the server's thread runs.
        options.config.objection_timeout = Duration::from_secs(60);
        let world = World::start(options);
        let config = Arc::new(lab.insisting_server(&["db.example"]));
        let listener = world.server.try_clone().unwrap();
        let serving = thread::spawn(move || {
            let (first, _) = listener.accept().unwrap();
            assert!(shake_server(first, Arc::clone(&config)).is_err(), "we have no certificate");
            let (second, _) = listener.accept().unwrap();
            shake_server(second, config).unwrap()
        });
        let mut client = shake(&world, certified(&lab, &[version]), "db.example").unwrap();
        let mut server = serving.join().unwrap();
        assert!(server.conn.peer_certificates().is_some(), "the client's own");
        say(&mut client, b"secret\n");
        expect(&mut server, b"secret\n");
        drop((client, server));
        let (envelope, content) = closing(&world);
        assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::ClientCertificateRequired);
        assert!(content.tls.unwrap().server.unwrap().client_certificate_requested);
        assert_eq!(*lab.trust.insisting.lock().unwrap(), [Some("db.example".to_owned())]);
    }
}

/// Answers, and takes its time before it looks at what the client shows.
fn slow(world: &World, config: ServerConfig) -> thread::JoinHandle<bool> {
    let listener = world.server.try_clone().unwrap();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut session = ServerConnection::new(Arc::new(config)).unwrap();
        while !session.wants_write() {
            session.read_tls(&mut socket).unwrap();
            session.process_new_packets().unwrap();
        }
        while session.wants_write() {
            session.write_tls(&mut socket).unwrap();
        }
        thread::sleep(Duration::from_secs(3));
        let shaken = session.complete_io(&mut socket);
        shaken.is_ok() && !session.is_handshaking()
    })
}

#[test]
fn a_server_that_insists_on_a_certificate_too_late_costs_one_connection() {
    let lab = Lab::new();
    let world = lab.world();
    let serving = slow(&world, lab.insisting_server(&["db.example"]));
    let mut client = shake(&world, lab.client(), "db.example").unwrap();
    let _gone = client.write_all(b"one\n").and_then(|()| client.flush());
    assert!(client.read(&mut [0; 8]).is_err());
    assert!(!serving.join().unwrap());
    drop(client);
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::ClientCertificateRequired);
    assert!(content.note.contains("insists on a client's certificate"), "{}", content.note);
    assert_eq!(*lab.trust.insisting.lock().unwrap(), [Some("db.example".to_owned())]);
}
