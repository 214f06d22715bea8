//! HTTP/1.1 byte by byte: what goes in, what comes out, what is shown.

mod support;

use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::TokioIo;
use support::{Paired, run};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
};
use verbatim_http::{Ended, HttpConfig, UpgradeReason, Version, seam::Cut};

/// Reads until what came ends with this.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        let mut byte = [0];
        let read = stream.read(&mut byte).await.expect("read");
        assert!(read > 0, "ended after {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&byte);
    }
    String::from_utf8(all).expect("text")
}

/// Reads to the end of the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.expect("read");
    String::from_utf8(all).expect("text")
}

async fn write(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("written");
}

/// A server that reads a request up to `end` and answers it, over and over.
fn answer(
    mut stream: TcpStream,
    end: &'static str,
    answer: &'static str,
) -> Rc<std::cell::RefCell<Vec<String>>> {
    let requests = Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = Rc::clone(&requests);
    spawn_local(async move {
        let mut all = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            all.extend_from_slice(&bytes[..read]);
            while let Some(at) = all.windows(end.len()).position(|part| part == end.as_bytes()) {
                let request: Vec<u8> = all.drain(..at + end.len()).collect();
                seen.borrow_mut().push(String::from_utf8(request).expect("text"));
                stream.write_all(answer.as_bytes()).await.expect("written");
            }
        }
    });
    requests
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn pair() -> (Paired, TcpStream, TcpStream) {
    let mut pair = Paired::new(Version::Http1).await;
    let (client, server) = (pair.client(), pair.server());
    (pair, client, server)
}

#[test]
fn heads_pass_with_their_case_and_bodies_with_their_framing() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        let request = "POST /a/%7Eb?c=d HTTP/1.1\r\nHost: example.test\r\nX-CamelCase: 1\r\nx-lower: 2\r\n\
                       X-CamelCase: 3\r\nContent-Length: 5\r\n\r\nhello";
        write(&mut client, request).await;
        let got = read_until(&mut server, "hello").await;
        assert!(got.starts_with("POST /a/%7Eb?c=d HTTP/1.1\r\nHost: example.test\r\n"), "{got}");
        for line in ["X-CamelCase: 1\r\n", "X-CamelCase: 3\r\n", "x-lower: 2\r\n", "Content-Length: 5\r\n"] {
            assert!(got.contains(line), "{got}");
        }
        let answer = "HTTP/1.1 299 Quite Fine\r\nX-Odd-CASE: yes\r\ntransfer-Encoding: chunked\r\n\r\n\
                      3\r\nabc\r\n0\r\n\r\n";
        write(&mut server, answer).await;
        let got = read_until(&mut client, "0\r\n\r\n").await;
        assert_eq!(got, answer);
        let seen = pair.recorder.seen(0);
        assert_eq!((&seen.request[..], &seen.response[..]), (&b"hello"[..], &b"abc"[..]));
        assert!(seen.request_ended && seen.response_ended && seen.cut.is_none());
        drop(client);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Closed), "{ended:?}");
        assert!(recorder.violations.borrow().is_empty());
    });
}

#[test]
fn a_connection_is_kept_for_requests_one_after_another() {
    run(async {
        let (pair, mut client, server) = pair().await;
        let requests = answer(server, "\r\n\r\n", OK);
        for path in ["/", "/whole", "/pieces"] {
            write(&mut client, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            read_until(&mut client, "\r\n\r\nok").await;
        }
        assert_eq!(requests.borrow().len(), 3);
        assert_eq!(pair.recorder.count(), 3);
    });
}

#[test]
fn pipelined_requests_are_sent_and_answered_in_turn() {
    run(async {
        let (pair, mut client, server) = pair().await;
        let requests = answer(server, "\r\n\r\n", OK);
        let mut all = String::new();
        for index in 0..5 {
            all += &format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        all += "GET /hold HTTP/1.1\r\nHost: a\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\n\r\n";
        write(&mut client, &all).await;
        for _ in 0..5 {
            read_until(&mut client, "\r\n\r\nok").await;
        }
        pair.recorder.until(|recorder| recorder.count() == 6).await;
        assert_eq!(requests.borrow().len(), 5, "what is held has not gone on, nor what is behind it");
        pair.recorder.release();
        for _ in 0..2 {
            read_until(&mut client, "\r\n\r\nok").await;
        }
        assert!(requests.borrow()[6].starts_with("GET /last "));
    });
}

#[test]
fn chunked_requests_pass_with_their_trailers() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum\r\n\
                       Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n";
        write(&mut client, request).await;
        let got = read_until(&mut server, "0\r\nx-sum: 5\r\n\r\n").await;
        assert!(got.contains("5\r\nhello\r\n"), "{got}");
        let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n";
        write(&mut server, answer).await;
        read_until(&mut client, "0\r\nx-sum: 3\r\n\r\n").await;
        let seen = pair.recorder.seen(0);
        assert_eq!(seen.request_trailers.expect("trailers").get("x-sum").expect("sum"), "5");
        assert_eq!(seen.response_trailers.expect("trailers").get("x-sum").expect("sum"), "3");
    });
}

#[test]
fn trailers_that_nobody_announced_are_told_as_dropped() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n";
        write(&mut client, request).await;
        let got = read_until(&mut server, "0\r\n\r\n").await;
        assert!(!got.to_ascii_lowercase().contains("x-sum"), "{got}");
        let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n";
        write(&mut server, answer).await;
        read_until(&mut client, "0\r\n\r\n").await;
        let told: Vec<_> = pair.recorder.violations.borrow().iter().map(|told| told.by_client).collect();
        assert_eq!(told, [true, false]);
        let seen = pair.recorder.seen(0);
        assert!(seen.request_trailers.is_some() && seen.response_trailers.is_some());
    });
}

#[test]
fn a_body_streams_while_it_is_sent() {
    run(async {
        let (_pair, mut client, mut server) = pair().await;
        write(&mut client, "POST /pieces HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none").await;
        read_until(&mut server, "\r\n\r\none").await;
        write(&mut client, "two").await;
        read_until(&mut server, "two").await;
        write(&mut server, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none").await;
        read_until(&mut client, "\r\n\r\none").await;
        write(&mut server, "two").await;
        read_until(&mut client, "two").await;
    });
}

#[test]
fn answers_without_a_body_keep_their_headers() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        let cases = [
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
            ("GET", "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"),
            ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n"),
        ];
        for (method, answer) in cases {
            write(&mut client, &format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            read_until(&mut server, "\r\n\r\n").await;
            write(&mut server, answer).await;
            assert_eq!(read_until(&mut client, "\r\n\r\n").await, answer);
        }
        assert!((0..3).all(|index| pair.recorder.seen(index).response_ended));
    });
}

#[test]
fn http_1_0_is_spoken_as_it_is() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        write(&mut client, "GET /old HTTP/1.0\r\n\r\n").await;
        let got = read_until(&mut server, "\r\n\r\n").await;
        assert!(got.starts_with("GET /old HTTP/1.0\r\n"), "{got}");
        write(&mut server, "HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
        drop(server);
        let got = rest(&mut client).await;
        assert!(got.starts_with("HTTP/1.0 200 OK\r\n") && got.ends_with("\r\n\r\nuntil the end"), "{got}");
        let (_, recorder) = pair.ended().await;
        assert_eq!(recorder.seen(0).response, b"until the end");
    });
}

#[test]
fn connection_close_closes_both_legs() {
    run(async {
        for (request, answer) in [("Connection: close\r\n", ""), ("", "Connection: close\r\n")] {
            let (pair, mut client, mut server) = pair().await;
            write(&mut client, &format!("GET / HTTP/1.1\r\nHost: a\r\n{request}\r\n")).await;
            let got = read_until(&mut server, "\r\n\r\n").await;
            assert!(got.contains(request), "{got}");
            write(&mut server, &format!("HTTP/1.1 200 OK\r\n{answer}Content-Length: 2\r\n\r\nok")).await;
            let got = rest(&mut client).await;
            assert!(got.contains(answer) && got.ends_with("ok"), "{got}");
            assert_eq!(rest(&mut server).await, "");
            let (ended, _) = pair.ended().await;
            assert!(matches!(ended, Ended::Closed), "{ended:?}");
        }
    });
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    run(async {
        let (_pair, mut client, server) = pair().await;
        let requests = answer(
            server,
            "body",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        );
        for path in ["/", "/whole"] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
            );
            write(&mut client, &head).await;
            assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
            write(&mut client, "body").await;
            assert!(read_until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
        }
        assert_eq!(requests.borrow().len(), 2);
    });
}

#[test]
fn interim_answers_are_dropped_and_told_but_for_100() {
    run(async {
        let (pair, mut client, server) = pair().await;
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
                       HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        answer(server, "\r\n\r\n", interim);
        write(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(read_until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(*pair.recorder.interim.borrow(), [103, 102]);
    });
}

#[test]
fn a_header_is_replaced_on_the_way() {
    run(async {
        let (_pair, mut client, mut server) = pair().await;
        let request = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer own\r\nX-Replace: 1\r\n\r\n";
        write(&mut client, request).await;
        let got = read_until(&mut server, "\r\n\r\n").await;
        assert!(got.contains("Authorization: Bearer replaced\r\n") && !got.contains("own"), "{got}");
    });
}

#[test]
fn a_denied_request_is_answered_and_never_sent() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        write(&mut client, "POST /deny HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
        let got = rest(&mut client).await;
        assert!(got.starts_with("HTTP/1.1 403 Forbidden\r\n") && got.ends_with("\r\n\r\ndenied"), "{got}");
        let (_, recorder) = pair.ended().await;
        assert_eq!(rest(&mut server).await, "");
        assert_eq!(recorder.seen(0).cut, Some(Cut::Ours));
    });
}

#[test]
fn a_request_denied_under_way_closes_the_servers_connection() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        let head = "POST /deny-late HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n";
        write(&mut client, &format!("{head}0123456789")).await;
        read_until(&mut server, "0123456789").await;
        write(&mut client, "more").await;
        let got = rest(&mut client).await;
        assert!(got.starts_with("HTTP/1.1 403 Forbidden\r\n") && got.ends_with("denied late"), "{got}");
        assert!(got.to_ascii_lowercase().contains("connection: close\r\n"), "{got}");
        assert_eq!(rest(&mut server).await, "");
        pair.ended().await;
    });
}

#[test]
fn a_held_request_whose_client_goes_never_reaches_the_server() {
    run(async {
        for behind in ["", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let (pair, mut client, mut server) = pair().await;
            let request = "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
            write(&mut client, &format!("{request}{behind}")).await;
            pair.recorder.until(|recorder| recorder.count() == 1).await;
            drop(client);
            let (ended, recorder) = pair.ended().await;
            assert!(matches!(ended, Ended::Client(_)), "{ended:?}");
            recorder.release();
            assert_eq!(rest(&mut server).await, "");
            assert_eq!(recorder.seen(0).cut, Some(Cut::Client));
        }
    });
}

#[test]
fn what_cannot_be_recorded_goes_no_further() {
    run(async {
        for path in ["/reset", "/unrecordable"] {
            let (pair, mut client, server) = pair().await;
            answer(server, "\r\n\r\n", OK);
            write(&mut client, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!(rest(&mut client).await, "");
            let (ended, recorder) = pair.ended().await;
            assert!(matches!(ended, Ended::Failed(_)), "{ended:?}");
            assert_eq!(recorder.seen(0).cut, Some(Cut::Ours));
        }
    });
}

#[test]
fn an_answer_waits_for_its_record() {
    run(async {
        let (pair, mut client, server) = pair().await;
        answer(server, "\r\n\r\n", OK);
        write(&mut client, "GET /slow-record HTTP/1.1\r\nHost: a\r\n\r\n").await;
        pair.recorder.until(|recorder| recorder.count() == 1 && recorder.seen(0).status == Some(200)).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(client.try_read(&mut [0; 1]).expect_err("nothing").kind(), std::io::ErrorKind::WouldBlock);
        pair.recorder.record();
        read_until(&mut client, "ok").await;
    });
}

#[test]
fn an_answer_before_the_request_is_complete_passes() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        let head = "POST /pieces HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
        write(&mut client, &format!("{head}some")).await;
        read_until(&mut server, "some").await;
        write(&mut server, "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
            .await;
        let got = read_until(&mut client, "\r\n\r\nno").await;
        assert!(got.starts_with("HTTP/1.1 413 "), "{got}");
        drop((client, server));
        let (_, recorder) = pair.ended().await;
        let seen = recorder.seen(0);
        assert!(seen.response_ended && !seen.request_ended && seen.cut.is_some());
    });
}

#[test]
fn an_early_answer_lets_the_rest_of_the_request_pass() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        write(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nsome").await;
        read_until(&mut server, "some").await;
        write(&mut server, OK).await;
        read_until(&mut client, "\r\n\r\nok").await;
        write(&mut client, "rest").await;
        read_until(&mut server, "rest").await;
        // And the next finds the connection in order.
        write(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        read_until(&mut server, "\r\n\r\n").await;
        write(&mut server, OK).await;
        read_until(&mut client, "\r\n\r\nok").await;
        assert!(pair.recorder.seen(0).request_ended && pair.recorder.seen(0).cut.is_none());
    });
}

#[test]
fn a_server_that_goes_away_closes_the_clients_connection() {
    run(async {
        for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"] {
            let (pair, mut client, mut server) = pair().await;
            write(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            read_until(&mut server, "\r\n\r\n").await;
            write(&mut server, answer).await;
            drop(server);
            assert_eq!(rest(&mut client).await, answer);
            let (ended, recorder) = pair.ended().await;
            assert!(matches!(ended, Ended::Server(_)), "{ended:?}");
            assert_eq!(recorder.seen(0).cut, Some(Cut::Server));
        }
    });
}

#[test]
fn a_server_that_closes_an_idle_connection_closes_the_clients() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        write(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        read_until(&mut server, "\r\n\r\n").await;
        write(&mut server, OK).await;
        read_until(&mut client, "\r\n\r\nok").await;
        drop(server);
        assert_eq!(rest(&mut client).await, "");
        let (ended, _) = pair.ended().await;
        assert!(matches!(ended, Ended::Closed), "{ended:?}");
    });
}

#[test]
fn an_upgrade_hands_both_streams_back_with_what_was_read() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        write(
            &mut client,
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly",
        )
        .await;
        read_until(&mut server, "\r\n\r\n").await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        write(&mut server, &format!("{answer}first")).await;
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, answer);
        let (ended, recorder) = pair.ended().await;
        let Ended::Upgraded(mut upgraded) = ended else { panic!("{ended:?}") };
        assert_eq!(upgraded.reason, UpgradeReason::Upgrade);
        assert_eq!((&upgraded.from_client[..], &upgraded.from_server[..]), (&b"early"[..], &b"first"[..]));
        upgraded.client.write_all(b"to the client").await.expect("written");
        read_until(&mut client, "to the client").await;
        upgraded.server.write_all(b"to the server").await.expect("written");
        read_until(&mut server, "to the server").await;
        let seen = recorder.seen(0);
        assert_eq!((seen.status, seen.response_ended, seen.cut), (Some(101), true, None));
    });
}

#[test]
fn an_upgrade_that_is_declined_leaves_http() {
    run(async {
        let (pair, mut client, server) = pair().await;
        answer(server, "\r\n\r\n", OK);
        for _ in 0..2 {
            write(&mut client, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
                .await;
            read_until(&mut client, "\r\n\r\nok").await;
        }
        assert_eq!(pair.recorder.count(), 2);
    });
}

#[test]
fn a_connect_hands_both_streams_back() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        write(&mut client, "CONNECT db.test:5432 HTTP/1.1\r\nHost: db.test:5432\r\n\r\nearly").await;
        let got = read_until(&mut server, "\r\n\r\n").await;
        assert!(got.starts_with("CONNECT db.test:5432 HTTP/1.1\r\n"), "{got}");
        write(&mut server, "HTTP/1.1 200 Connection Established\r\n\r\n").await;
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 200 Connection Established\r\n\r\n");
        let (ended, _) = pair.ended().await;
        let Ended::Upgraded(upgraded) = ended else { panic!("{ended:?}") };
        assert_eq!(upgraded.reason, UpgradeReason::Connect);
        assert_eq!(upgraded.from_client, "early");
    });
}

#[test]
fn a_stalled_reader_leaves_memory_flat() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        write(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        read_until(&mut server, "\r\n\r\n").await;
        write(&mut server, "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n").await;
        let mut taken = 0;
        let mut idle = 0;
        while idle < 100 {
            match server.try_write(&[0; 65_536]) {
                Ok(bytes) => (taken, idle) = (taken + bytes, 0),
                Err(_) => idle += 1,
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        // What two sockets hold, each way, and little more.
        assert!(taken < 32 << 20, "{taken} bytes were taken");
        drop((client, server));
        pair.ended().await;
    });
}

#[test]
fn a_held_request_stops_its_client() {
    run(async {
        let (pair, mut client, _server) = pair().await;
        write(&mut client, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n").await;
        let mut idle = 0;
        while idle < 100 {
            idle = if client.try_write(&[0; 65_536]).is_ok() { 0 } else { idle + 1 };
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let config = HttpConfig::default();
        let kept = pair.recorder.seen(0).request.len();
        assert!((config.held_bytes..config.held_bytes + (64 << 10)).contains(&kept), "{kept} bytes are kept");
    });
}

#[test]
fn stop_ends_the_pair_and_cuts_what_is_under_way() {
    run(async {
        let (mut pair, mut client, _server) = pair().await;
        write(&mut client, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await;
        pair.recorder.until(|recorder| recorder.count() == 1).await;
        pair.stop();
        assert_eq!(rest(&mut client).await, "");
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Stopped), "{ended:?}");
        assert_eq!(recorder.seen(0).cut, Some(Cut::Ours));
    });
}

#[test]
fn a_connection_that_says_nothing_closes_in_order() {
    run(async {
        let (pair, client, _server) = pair().await;
        drop(client);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Closed), "{ended:?}");
        assert_eq!(recorder.count(), 0);
        assert!(recorder.violations.borrow().is_empty());
    });
}

#[test]
fn targets_of_every_form_pass_as_they_are() {
    run(async {
        let (pair, mut client, server) = pair().await;
        let requests = answer(server, "\r\n\r\n", OK);
        let lines = [
            "OPTIONS * HTTP/1.1",
            "GET http://example.test/a?b HTTP/1.1",
            "GET /%2e%2E//x;y=z?q=[{}]|` HTTP/1.1",
        ];
        for line in lines {
            write(&mut client, &format!("{line}\r\nHost: a\r\n\r\n")).await;
            read_until(&mut client, "\r\n\r\nok").await;
        }
        for (line, request) in lines.iter().zip(&*requests.borrow()) {
            assert!(request.starts_with(&format!("{line}\r\n")), "{request}");
        }
        assert!(pair.recorder.violations.borrow().is_empty());
    });
}

#[test]
fn a_client_that_goes_during_its_answer_cuts_it_and_closes_the_server() {
    run(async {
        let (pair, mut client, mut server) = pair().await;
        write(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        read_until(&mut server, "\r\n\r\n").await;
        write(&mut server, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome").await;
        read_until(&mut client, "some").await;
        drop(client);
        assert_eq!(rest(&mut server).await, "");
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Client(_)), "{ended:?}");
        assert_eq!(recorder.seen(0).cut, Some(Cut::Client));
    });
}

#[test]
fn requests_of_every_size_pass_one_after_another() {
    run(async {
        let (pair, client, server) = pair().await;
        let echo = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async {
            // Chunked where the request was.
            let chunked = request.headers().contains_key("transfer-encoding");
            let bytes = request.into_body().collect().await?.to_bytes();
            let parts: Vec<_> =
                bytes.chunks(50_000).map(|part| Ok(frame(Bytes::copy_from_slice(part)))).collect();
            Ok::<_, hyper::Error>(http::Response::new(if chunked {
                StreamBody::new(Parts(parts.into())).boxed()
            } else {
                Full::new(bytes).map_err(|never| match never {}).boxed()
            }))
        });
        spawn_local(async move {
            drop(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), echo).await,
            );
        });
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(client)).await.expect("handshake");
        spawn_local(async move { drop(connection.await) });
        for round in 0..150_usize {
            let size = (round * 104_729) % 300_000;
            let path = ["/", "/whole", "/pieces"][round % 3];
            let bytes = Bytes::from(vec![round as u8; size]);
            let request = http::Request::post(path).header("host", "a");
            let request = if round % 2 == 0 {
                request.body(Full::new(bytes.clone()).map_err(|never| match never {}).boxed())
            } else {
                let parts = bytes.chunks(9_000).map(|part| Ok(frame(Bytes::copy_from_slice(part))));
                request.body(StreamBody::new(Parts(parts.collect::<Vec<_>>().into())).boxed())
            };
            send.ready().await.expect("ready");
            let answer = send.send_request(request.expect("request")).await.expect("answer");
            assert!(answer.into_body().collect().await.expect("body").to_bytes() == bytes, "round {round}");
        }
        let count = pair.recorder.count();
        assert_eq!(count, 150);
        assert!((0..count).map(|index| pair.recorder.seen(index)).all(|seen| seen.cut.is_none()));
    });
}

type Part = Result<http_body::Frame<Bytes>, hyper::Error>;

fn frame(bytes: Bytes) -> http_body::Frame<Bytes> {
    http_body::Frame::data(bytes)
}

/// Gives its parts one by one.
struct Parts(std::collections::VecDeque<Part>);

impl futures_util::Stream for Parts {
    type Item = Part;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Part>> {
        std::task::Poll::Ready(self.0.pop_front())
    }
}
