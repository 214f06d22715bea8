//! TLS that ends in the proxy: what passes through it, and what is recorded of it.

use std::{
    io::{Read, Write},
    sync::Arc,
    thread,
};

use rustls::{
    CipherSuite, ClientConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};
use verbatim_api::v1;
use verbatim_proxy::seam::Termination;

use crate::support::{
    World, eventually,
    spool::each_start_has_one_end,
    tls::{Lab, alpn, close_client, close_server, connect, expect, params, say, serve, server_config, shake},
};

fn closing(world: &World) -> (v1::Envelope, v1::Content) {
    let record = eventually("the closing record", || world.spool().closing());
    (record.envelope, record.content.unwrap())
}

#[test]
fn what_is_said_within_tls_is_decoded_and_its_legs_are_recorded() {
    let lab = Lab::new();
    let world = lab.world();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = lab.signed(&params(&["db.example"]), &key);
    let digest = Sha256::digest(&certificate).to_vec();
    let (mut client, mut server) =
        connect(&world, lab.client(), "db.example", server_config(certificate, &key));
    say(&mut client, b"one\n");
    expect(&mut server, b"one\n");
    say(&mut server, b"ok\n");
    expect(&mut client, b"ok\n");
    say(&mut client, b"deny two\n");
    expect(&mut client, b"refused deny it is\n");
    close_client(&mut client);
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 0, "TLS's own end");
    close_server(&mut server);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "TLS's own end");
    let (envelope, content) = closing(&world);
    assert_eq!((envelope.status(), envelope.capture()), (v1::Status::Ok, v1::Capture::Decoded));
    assert_eq!((envelope.bytes_sent, envelope.bytes_received), (4, 3));
    assert_eq!(content.note, "");
    assert_eq!(content.target.unwrap().host, "db.example");
    let tls = content.tls.unwrap();
    assert_eq!((tls.server_name.as_str(), tls.refusal.as_str()), ("db.example", ""));
    let (of_client, of_server) = (tls.client.unwrap(), tls.server.unwrap());
    assert_eq!((of_client.version.as_str(), of_server.version.as_str()), ("TLSv1.3", "TLSv1.3"));
    assert!(of_server.cipher_suite.starts_with("TLS13_"), "{}", of_server.cipher_suite);
    assert_eq!(of_server.peer_certificate_sha256, digest);
    assert!(of_client.peer_certificate_sha256.is_empty() && !of_server.client_certificate_requested);
    let story = world.spool().story();
    assert_eq!(
        story,
        [
            "started allowed one",
            "finished ok",
            "started denied deny two",
            "finished not_forwarded",
            "injected"
        ]
    );
    each_start_has_one_end(world.spool());
}

fn with_versions(lab: &Lab, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for root in lab.authority.roots() {
        roots.add(root.clone()).unwrap();
    }
    ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots).with_no_client_auth()
}

#[test]
fn the_client_gets_the_version_that_it_offers_and_the_protocol_that_the_server_chose() {
    let offers: [(&[&str], &[&str], Option<&str>); 4] = [
        (&[], &["h2"], None),
        (&["postgresql"], &["postgresql"], Some("postgresql")),
        (&["a", "b", "c"], &["c", "b"], Some("c")),
        (&["a", "b"], &[], None),
    ];
    for (versions, version) in [(&[&TLS12][..], "TLSv1.2"), (&[&TLS13][..], "TLSv1.3")] {
        for (offered, known, chosen) in offers {
            let lab = Lab::new();
            let world = lab.world();
            let mut client = with_versions(&lab, versions);
            client.alpn_protocols = alpn(offered);
            let mut server = lab.server(&["db.example"]);
            server.alpn_protocols = alpn(known);
            let (mut client, mut server) = connect(&world, client, "db.example", server);
            assert_eq!(client.conn.alpn_protocol(), chosen.map(str::as_bytes));
            assert_eq!(server.conn.alpn_protocol(), chosen.map(str::as_bytes));
            assert_eq!(client.conn.protocol_version(), server.conn.protocol_version());
            say(&mut client, b"one\n");
            expect(&mut server, b"one\n");
            drop((client, server));
            let legs = closing(&world).1.tls.unwrap();
            let (client, server) = (legs.client.unwrap(), legs.server.unwrap());
            assert_eq!((client.version.as_str(), server.version.as_str()), (version, version));
            assert_eq!(client.alpn, chosen.unwrap_or_default());
            assert_eq!(server.alpn, chosen.unwrap_or_default());
        }
    }
}

#[test]
fn a_client_without_a_name_gets_a_leaf_for_the_address_that_it_dialled() {
    let lab = Lab::new();
    let world = lab.world();
    let (mut client, mut server) = connect(&world, lab.client(), "127.0.0.1", lab.server(&["127.0.0.1"]));
    assert_eq!(server.conn.server_name(), None);
    say(&mut client, b"one\n");
    expect(&mut server, b"one\n");
    drop((client, server));
    assert_eq!(closing(&world).1.tls.unwrap().server_name, "");
}

/// A client whose first flight holds a post-quantum key share.
fn post_quantum(lab: &Lab) -> ClientConfig {
    use aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
    let kx_groups = vec![X25519MLKEM768, X25519];
    let provider = CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(lab.authority.roots());
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[test]
fn a_hello_in_single_bytes_and_in_two_segments_is_read_whole() {
    let lab = Lab::new();
    for step in [1, 700, 1400] {
        let world = lab.world();
        let serving = serve(&world, lab.server(&["db.example"]));
        let mut socket = world.client().stream;
        let name = "db.example".try_into().unwrap();
        let config = Arc::new(post_quantum(&lab));
        let mut session = rustls::ClientConnection::new(config, name).unwrap();
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        assert!(hello.len() > 1400, "longer than a segment: {}", hello.len());
        for part in hello.chunks(step) {
            socket.write_all(part).unwrap();
            thread::sleep(std::time::Duration::from_micros(if step == 1 { 20 } else { 5_000 }));
        }
        let mut client = rustls::StreamOwned::new(session, socket);
        say(&mut client, b"one\n");
        let mut server = serving.join().unwrap().unwrap();
        expect(&mut server, b"one\n");
    }
}

#[test]
fn an_endless_hello_is_answered_by_an_alert_and_recorded() {
    let lab = Lab::new();
    let world = lab.world();
    let mut client = world.client();
    let _server = world.accept();
    // A ClientHello of 16 MB, in records of 16 KiB.
    let mut record = vec![0x16, 3, 1, 0x40, 0];
    let first = [&[1, 0xff, 0xff, 0xff, 3, 3][..], &[7; 0x4000 - 6]].concat();
    record.extend(&first);
    while client.stream.write_all(&record).is_ok() {
        record.truncate(5);
        record.extend([7; 0x4000]);
    }
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::TlsHandshakeFailed);
    assert!(content.note.contains("cannot be read"), "{}", content.note);
    assert_eq!(world.shards.stats().spliced.get(v1::OpaqueReason::TlsHandshakeFailed), 1);
}

#[test]
fn a_workload_that_is_not_known_to_trust_us_is_passed_on_untouched() {
    let lab = Lab::new();
    let world = lab.world();
    *lab.trust.judges.lock().unwrap() = Termination::Splice(v1::OpaqueReason::TrustNotInjected);
    let (mut client, mut server) =
        connect(&world, lab.pinning_client(), "db.example", lab.server(&["db.example"]));
    say(&mut client, b"secret\n");
    expect(&mut server, b"secret\n");
    drop((client, server));
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::TrustNotInjected);
    assert_eq!(envelope.capture(), v1::Capture::SeenNotDecoded);
    assert_eq!(content.tls, None, "none of it is ours");
    assert_eq!(content.target.unwrap().host, "db.example");
}

#[test]
fn a_name_outside_of_the_constraints_is_passed_on_and_recorded() {
    let lab = Lab::new();
    let world = lab.world();
    let (mut client, mut server) =
        connect(&world, lab.pinning_client(), "shop.invalid", lab.server(&["shop.invalid"]));
    say(&mut client, b"secret\n");
    expect(&mut server, b"secret\n");
    drop((client, server));
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::NameOutsideConstraints);
    assert!(content.note.contains("shop.invalid"), "{}", content.note);
}

#[test]
fn a_selector_that_denies_is_an_alert() {
    let lab = Lab::new();
    let world = lab.world();
    let (reason, why) = (v1::OpaqueReason::TrustNotInjected, "this workload must trust us".to_owned());
    *lab.trust.judges.lock().unwrap() = Termination::Deny { reason, why };
    let error = shake(&world, lab.client(), "db.example").unwrap_err();
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.opaque_reason(), reason);
    assert_eq!(content.note, "this workload must trust us");
}

#[test]
fn an_end_without_close_notify_is_passed_on_as_such_and_noted() {
    let lab = Lab::new();
    let world = lab.world();
    let (mut client, mut server) = connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    say(&mut client, b"one\n");
    expect(&mut server, b"one\n");
    say(&mut server, b"+half an answ");
    server.sock.shutdown(std::net::Shutdown::Write).unwrap();
    expect(&mut client, b"+half an answ");
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "not TLS's own end");
    close_client(&mut client);
    drop(server);
    let (_, content) = closing(&world);
    assert!(content.note.contains("the server's TLS ended without close_notify"), "{}", content.note);
}

#[test]
fn what_is_no_known_protocol_within_tls_is_copied_byte_by_byte_and_recorded() {
    let lab = Lab::new();
    let world = lab.world();
    let (mut client, mut server) = connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    say(&mut client, b"????");
    expect(&mut server, b"????");
    let size = 20_000_000_u32;
    let payload: Arc<Vec<u8>> = Arc::new((0..size).map(|n| (n % 251) as u8).collect());
    let down = Arc::clone(&payload);
    let sending = thread::spawn(move || {
        // One direction after the other: a session of rustls is one thread's.
        let mut received = vec![0; down.len()];
        server.read_exact(&mut received).unwrap();
        assert!(received == *down);
        server.write_all(&down).unwrap();
        close_server(&mut server);
        assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
    });
    client.write_all(&payload).unwrap();
    client.flush().unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == *payload);
    close_client(&mut client);
    sending.join().unwrap();
    let (envelope, _) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::UnknownProtocolInTls);
    assert_eq!((envelope.bytes_sent, envelope.bytes_received), (u64::from(size) + 4, u64::from(size)));
    assert_eq!(envelope.status(), v1::Status::Ok);
}

#[test]
fn what_stops_being_decoded_within_tls_goes_on_undecoded() {
    let lab = Lab::new();
    let world = lab.world();
    let (mut client, mut server) = connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    say(&mut client, b"one\n");
    expect(&mut server, b"one\n");
    say(&mut server, b"ok\n");
    expect(&mut client, b"ok\n");
    say(&mut client, b"opaque\nanything: deny\n");
    expect(&mut server, b"opaque\nanything: deny\n");
    // A client that is done speaking may still listen.
    close_client(&mut client);
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 0, "TLS's own end");
    say(&mut server, b"whatever\n");
    close_server(&mut server);
    expect(&mut client, b"whatever\n");
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.capture(), v1::Capture::Partly);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::Desynchronised);
    assert_eq!((envelope.bytes_sent, envelope.bytes_received), (26, 12));
    assert_eq!((envelope.status(), content.note.as_str()), (v1::Status::Ok, ""));
}

#[test]
fn sessions_with_the_server_are_resumed_and_that_is_recorded() {
    let lab = Lab::new();
    let world = lab.world();
    let server = lab.server(&["db.example"]);
    let mut resumed = Vec::new();
    for _ in 0..2 {
        let (mut client, mut server) = connect(&world, lab.client(), "db.example", server.clone());
        say(&mut client, b"one\n");
        expect(&mut server, b"one\n");
        // With it the ticket is read.
        say(&mut server, b"ok\n");
        expect(&mut client, b"ok\n");
        drop((client, server));
        eventually("the end", || (world.shards.stats().open == 0).then_some(()));
        resumed.push(closing(&world).1.tls.unwrap().server.unwrap().resumed);
    }
    assert_eq!(resumed, [false, true]);
}

#[test]
fn a_client_that_speaks_nothing_that_we_speak_is_passed_on() {
    let lab = Lab::new();
    let world = lab.world();
    let mut client = world.client();
    let mut server = world.accept();
    // TLS 1.2 with a suite of RSA key exchange (RFC 5246 section 7.4.1.2).
    let suite = u16::from(CipherSuite::TLS_RSA_WITH_AES_128_CBC_SHA).to_be_bytes();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2], &suite, &[1, 0]].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    let hello = [&[0x16, 3, 1][..], &u16::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
    client.stream.write_all(&hello).unwrap();
    let mut arrived = vec![0; hello.len()];
    server.read_exactly(&mut arrived);
    assert_eq!(arrived, hello);
    drop((client, server));
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::TlsHandshakeFailed);
    assert!(content.note.contains("the client's TLS is not ours"), "{}", content.note);
}

#[test]
fn a_drain_ends_a_handshake_that_does_not_go_on() {
    let lab = Lab::new();
    let world = lab.world();
    let config = Arc::new(lab.client());
    let mut session = rustls::ClientConnection::new(config, "db.example".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let mut client = world.client();
    client.stream.write_all(&hello).unwrap();
    let mut server = world.accept();
    let mut arrived = [0; 5];
    server.read_exactly(&mut arrived);
    world.drain();
    assert!(client.rest().is_err(), "reset");
    assert_eq!(closing(&world).0.status(), v1::Status::OutcomeUnknown);
}

#[test]
fn a_client_that_stops_reading_slows_its_server_down_and_nobody_else() {
    let lab = Lab::new();
    let world = lab.world();
    let (mut client, mut server) = connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    say(&mut client, b"one\n");
    expect(&mut server, b"one\n");
    let writing = thread::spawn(move || {
        let block = format!("+{}\n", "x".repeat(65_534)).into_bytes();
        for _ in 0..1024 {
            server.write_all(&block).unwrap();
        }
        server.write_all(b"ok\n").unwrap();
        close_server(&mut server);
        server
    });
    thread::sleep(std::time::Duration::from_millis(300));
    assert!(!writing.is_finished(), "nothing holds the server back");
    let (mut sibling, mut its_server) =
        connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    say(&mut sibling, b"two\n");
    expect(&mut its_server, b"two\n");
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 1024 * 65_536 + 3);
    drop(writing.join().unwrap());
}

#[test]
fn a_hold_within_tls_is_released_and_a_client_that_goes_meanwhile_is_noticed() {
    let lab = Lab::new();
    let world = lab.world();
    let (mut client, mut server) = connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    say(&mut client, b"hold me\n");
    world.answer_hold(true);
    expect(&mut server, b"hold me\n");
    say(&mut server, b"ok\n");
    expect(&mut client, b"ok\n");
    say(&mut client, b"hold me again\n");
    eventually("the hold", || world.policy.holds.lock().unwrap().first().map(drop));
    // More than is kept, so that the end is behind bytes that nobody reads.
    say(&mut client, &vec![b'x'; 200_000]);
    drop(client);
    let mut rest = Vec::new();
    let _cut_off = server.read_to_end(&mut rest);
    assert!(!rest.windows(4).any(|part| part == b"hold"), "never forwarded");
    drop(server);
    closing(&world);
    let story = world.spool().story();
    assert!(story.contains(&"decided abandoned".to_owned()));
    each_start_has_one_end(world.spool());
}
