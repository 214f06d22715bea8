//! HTTP/1.1 that can be read in two ways, and heads and bodies that are too long, too short or none: refused,
//! told, and never sent.

mod support;

use support::{Paired, run};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::spawn_local,
};
use verbatim_http::{Version, seam::Violation};

/// What became of bytes that a client sent: what it got, what the server got, what was told.
struct Sent {
    client: String,
    server: String,
    violations: Vec<Violation>,
    exchanges: usize,
}

/// Sends this, at once or byte by byte, to a pair whose server answers whatever looks like a request.
async fn send(bytes: &[u8], step: usize) -> Sent {
    let mut pair = Paired::new(Version::Http1).await;
    let (mut client, mut server) = (pair.client(), pair.server());
    let serving = spawn_local(async move {
        let mut all = Vec::new();
        let mut chunk = [0; 4096];
        let mut answered = 0;
        while let Ok(read @ 1..) = server.read(&mut chunk).await {
            all.extend_from_slice(&chunk[..read]);
            let heads = all.windows(4).filter(|part| part == b"\r\n\r\n").count();
            for _ in answered..heads {
                server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("written");
            }
            answered = heads;
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    for part in bytes.chunks(step) {
        if client.write_all(part).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.expect("read");
    drop(client);
    let (_, recorder) = pair.ended().await;
    let server = serving.await.expect("no panic");
    let violations = recorder.violations.borrow().clone();
    Sent {
        client: String::from_utf8_lossy(&got).into_owned(),
        server,
        violations,
        exchanges: recorder.count(),
    }
}

/// Refused with this status, as ambiguous, before anything went on.
async fn refused(request: &str, status: u16, ambiguous: bool) {
    for step in [request.len(), 1] {
        let sent = send(request.as_bytes(), step).await;
        assert!(sent.client.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} got {:?}", sent.client);
        assert_eq!(sent.server, "", "{request:?}");
        assert_eq!(sent.violations.len(), 1, "{request:?}: {:?}", sent.violations);
        let violation = sent.violations.first().expect("one");
        assert!(violation.by_client && violation.ambiguous == ambiguous, "{request:?}: {violation:?}");
        assert_eq!(sent.exchanges, 0, "{request:?}");
    }
}

#[test]
fn requests_with_two_lengths_are_refused() {
    run(async {
        let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        for fields in [
            "Content-Length: 6\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 6",
            "Content-Length: 6\r\nContent-Length: 5",
            "Content-Length: 6\r\nContent-Length: 6",
            "Content-Length: 6, 6",
            "Content-Length: +6",
            "Content-Length: 6 6",
            "Content-Length: 0x6",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{smuggled}");
            refused(&request, 400, true).await;
        }
    });
}

#[test]
fn transfer_codings_that_are_not_plainly_chunked_are_refused() {
    run(async {
        let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        for fields in [
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding:\r\n chunked",
            "X: y\r\n Transfer-Encoding: chunked",
            " Transfer-Encoding: chunked",
            "Transfer-Encoding\t: chunked",
            "Transfer-Encoding: chunk\x00ed",
            "Foo: bar\rTransfer-Encoding: chunked",
            "Foo: bar\nTransfer-Encoding: chunked",
            "Transfer-Encoding: \"chunked\"",
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{smuggled}");
            refused(&request, 400, true).await;
        }
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{smuggled}");
        refused(&request, 501, false).await;
        refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true).await;
    });
}

#[test]
fn lines_that_do_not_end_in_crlf_are_refused() {
    run(async {
        refused("GET / HTTP/1.1\nHost: a\n\n", 400, true).await;
        refused("GET / HTTP/1.1\r\nHost: a\n\r\n", 400, true).await;
        refused("GET / HTTP/1.1\r\nHost: a\r\n\n", 400, true).await;
        refused("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, true).await;
    });
}

#[test]
fn requests_with_no_host_or_two_are_refused() {
    run(async {
        refused("GET / HTTP/1.1\r\n\r\n", 400, false).await;
        refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, true).await;
    });
}

#[test]
fn request_lines_that_are_none_are_refused() {
    run(async {
        for line in [
            "GET  / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET /",
            "G(T / HTTP/1.1",
            "\x16\x03\x01",
        ] {
            refused(&format!("{line}\r\nHost: a\r\n\r\n"), 400, false).await;
        }
        refused("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, false).await;
    });
}

#[test]
fn what_only_the_library_refuses_is_told_too() {
    run(async {
        refused("GET /a`b HTTP/1.1\r\nHost: a\r\n\r\n", 400, false).await;
    });
}

#[test]
fn bodies_whose_chunks_do_not_add_up_go_no_further() {
    run(async {
        for chunks in [
            "0x3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc0\r\n\r\n",
            "ffffffffffffffff3\r\nabc\r\n0\r\n\r\n",
            "3;\n\r\nabc\r\n0\r\n\r\n",
            "0\r\nContent-Length: 5\r\n\r\n",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0\r\n folded\r\n\r\n",
        ] {
            let request =
                format!("POST /whole HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            for step in [request.len(), 1] {
                let sent = send(request.as_bytes(), step).await;
                assert_eq!(sent.server, "", "{chunks:?}");
                assert!(sent.client.starts_with("HTTP/1.1 400 "), "{chunks:?} got {:?}", sent.client);
                assert_eq!(sent.violations.len(), 1, "{chunks:?}: {:?}", sent.violations);
                assert!(sent.violations.first().is_some_and(|violation| violation.ambiguous), "{chunks:?}");
            }
        }
    });
}

#[test]
fn a_body_that_goes_wrong_under_way_never_ends_at_the_server() {
    run(async {
        let request = "POST /pieces HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\nabc\r\nzz\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let sent = send(request.as_bytes(), 1).await;
        assert!(!sent.server.contains("smuggled") && !sent.server.contains("\r\n0\r\n"), "{}", sent.server);
        assert!(sent.violations.iter().any(|violation| violation.ambiguous));
    });
}

#[test]
fn a_request_behind_a_good_one_is_refused_in_its_turn() {
    run(async {
        let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = "GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        let sent = send(format!("{good}{bad}{good}").as_bytes(), 4096).await;
        let (first, second) = sent.client.split_once("\r\n\r\nok").expect("an answer first");
        assert!(first.starts_with("HTTP/1.1 200 ") && second.starts_with("HTTP/1.1 400 "), "{}", sent.client);
        assert!(!sent.server.contains("bad"));
        assert_eq!(sent.exchanges, 1);
    });
}

#[test]
fn heads_above_the_limit_are_refused() {
    run(async {
        let long = "a".repeat(1 << 20);
        for (request, status) in [
            (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
            (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(1 << 17)), 431),
            (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        ] {
            let sent = send(request.as_bytes(), 4096).await;
            assert!(sent.client.starts_with(&format!("HTTP/1.1 {status} ")), "{:?}", sent.client);
            assert_eq!((sent.server.as_str(), sent.exchanges, sent.violations.len()), ("", 0, 1));
        }
        // More lines than the library takes, within the limit of bytes.
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(1000));
        let sent = send(request.as_bytes(), 4096).await;
        assert!(sent.client.starts_with("HTTP/1.1 431 "), "{:?}", sent.client);
        assert_eq!((sent.server.as_str(), sent.exchanges, sent.violations.len()), ("", 0, 1));
    });
}

#[test]
fn a_connection_that_ends_in_a_head_or_a_body_is_told() {
    run(async {
        for (request, exchanges) in [
            ("GET / HTTP/1.1\r\nHos", 0),
            ("POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nshort", 1),
            ("POST /whole HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsho", 1),
        ] {
            let mut pair = Paired::new(Version::Http1).await;
            let (mut client, mut server) = (pair.client(), pair.server());
            client.write_all(request.as_bytes()).await.expect("written");
            client.shutdown().await.expect("shut down");
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.expect("read");
            assert!(got.is_empty());
            let (_, recorder) = pair.ended().await;
            assert_eq!(recorder.count(), exchanges);
            if exchanges == 0 {
                assert!(recorder.violation("in the middle").is_some());
            } else {
                let seen = recorder.seen(0);
                assert!(!seen.request_ended && seen.cut.is_some(), "{seen:?}");
            }
        }
    });
}

#[test]
fn answers_with_two_lengths_are_told_and_pass_with_one() {
    run(async {
        let mut pair = Paired::new(Version::Http1).await;
        let (mut client, mut server) = (pair.client(), pair.server());
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
        let mut head = [0; 4096];
        assert!(server.read(&mut head).await.expect("read") > 0);
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                      5\r\nhello\r\n0\r\n\r\n";
        server.write_all(answer.as_bytes()).await.expect("written");
        let mut got = String::new();
        client.read_to_string(&mut got).await.expect("read");
        assert!(!got.contains("Content-Length") && got.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{got}");
        let violation = pair.recorder.violation("both").expect("told");
        assert!(violation.ambiguous && !violation.by_client);
    });
}

#[test]
fn an_answer_that_is_none_is_told_as_the_servers() {
    run(async {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
        let twice = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";
        for answer in ["nonsense\r\n\r\n", twice, &long] {
            let mut pair = Paired::new(Version::Http1).await;
            let (mut client, mut server) = (pair.client(), pair.server());
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
            let mut head = [0; 4096];
            assert!(server.read(&mut head).await.expect("read") > 0);
            // The pair may close before it has read all.
            drop(server.write_all(answer.as_bytes()).await);
            let mut got = String::new();
            client.read_to_string(&mut got).await.expect("read");
            assert_eq!(got, "");
            let (_, recorder) = pair.ended().await;
            assert!(!recorder.violation("server's answer").expect("told").by_client);
            assert!(recorder.seen(0).cut.is_some());
        }
    });
}
