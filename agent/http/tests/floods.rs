//! HTTP/2 from peers that misbehave, frame by frame: nothing hangs, memory stays flat, and it is told.

mod support;

use std::rc::Rc;

use h2::server;
use http::Response;
use support::{
    Paired,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, Raw,
        SETTINGS, WINDOW_UPDATE, field, frame, request,
    },
    run,
};
use tokio::{io::AsyncReadExt, net::TcpStream, task::spawn_local};
use verbatim_http::{Ended, HttpConfig, Version, seam::Cut};

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A server that reads what comes and answers 200.
fn serve(stream: TcpStream) {
    spawn_local(async move {
        let mut connection = server::handshake(stream).await.expect("handshake");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            spawn_local(async move {
                let mut body = request.into_body();
                while let Some(Ok(bytes)) = body.data().await {
                    drop(body.flow_control().release_capacity(bytes.len()));
                }
                drop(respond.send_response(Response::new(()), true));
            });
        }
    });
}

/// A pair, its client spoken by hand, its server well-behaved.
async fn by_hand() -> (Paired, Raw) {
    let mut pair = Paired::new(Version::Http2).await;
    serve(pair.server());
    let mut client = Raw::client(pair.client()).await;
    client.next(SETTINGS).await.expect("settings");
    (pair, client)
}

/// Sends the same over and over until it is not taken any more or a GOAWAY comes; its code.
async fn flood(client: Raw, bytes: Vec<u8>) -> Option<u32> {
    let (mut read, mut write) = client.0.into_split();
    let sending = spawn_local(async move {
        while tokio::io::AsyncWriteExt::write_all(&mut write, &bytes).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    let mut all = Vec::new();
    // A reset may take what was not read yet with it.
    drop(read.read_to_end(&mut all).await);
    sending.abort();
    frames(&all).into_iter().find(|frame| frame.0 == GOAWAY).map(|(_, payload)| {
        u32::from_be_bytes(payload.get(4..8).expect("a code").try_into().expect("4 bytes"))
    })
}

fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [l0, l1, l2, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push((*kind, payload.to_vec()));
        bytes = rest;
    }
    frames
}

async fn ended_by_client(pair: Paired, what: &str) {
    let (ended, recorder) = pair.ended().await;
    assert!(matches!(ended, Ended::Client(_)), "{ended:?}");
    let violation = recorder.violation(what);
    assert!(violation.is_some_and(|violation| violation.by_client), "{:?}", recorder.violations.borrow());
}

#[test]
fn a_flood_of_pings_ends_the_connection_and_is_told() {
    run(async {
        let (pair, client) = by_hand().await;
        let code = flood(client, frame(PING, 0, 0, &[0; 8]).repeat(50)).await;
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
        ended_by_client(pair, "flood of PING").await;
    });
}

#[test]
fn a_ping_with_each_message_is_no_flood() {
    run(async {
        let (pair, mut client) = by_hand().await;
        let pings = HttpConfig::default().control_frames + 1000;
        for stream in (1..).step_by(2).take(pings as usize) {
            client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/"))).await;
            client.next(HEADERS).await.expect("an answer");
            client.send(&frame(PING, 0, 0, &[0; 8])).await;
        }
        drop(client);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Closed | Ended::Client(_)), "{ended:?}");
        assert!(recorder.violations.borrow().is_empty(), "{:?}", recorder.violations.borrow());
        assert_eq!(recorder.count(), pings as usize);
    });
}

#[test]
fn a_flood_of_settings_ends_the_connection_and_is_told() {
    run(async {
        let (pair, client) = by_hand().await;
        let code = flood(client, frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(50)).await;
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
        ended_by_client(pair, "flood of SETTINGS").await;
    });
}

#[test]
fn a_flood_of_empty_data_ends_the_connection_and_is_told() {
    run(async {
        let (pair, mut client) = by_hand().await;
        client.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/hold"))).await;
        flood(client, frame(DATA, 0, 1, &[]).repeat(50)).await;
        let recorder = Rc::clone(&pair.recorder);
        let (ended, _) = pair.ended().await;
        assert!(matches!(ended, Ended::Client(_)), "{ended:?}");
        assert!(recorder.violations.borrow().iter().any(|violation| violation.by_client));
        assert_ne!(recorder.seen(0).cut, None);
    });
}

#[test]
fn a_flood_of_pings_by_the_server_ends_the_connection_and_is_told() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let mut client = Raw::client(pair.client()).await;
        let mut server = Raw(pair.server());
        server.send(&frame(SETTINGS, 0, 0, &[])).await;
        flood(server, frame(PING, 0, 0, &[0; 8]).repeat(50)).await;
        assert_ne!(client.next(GOAWAY).await.expect("goaway").code(), NO_ERROR);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Server(_)), "{ended:?}");
        assert!(!recorder.violation("flood of PING").expect("told").by_client);
    });
}

#[test]
fn a_rapid_reset_ends_the_connection_and_is_told() {
    run(async {
        let (pair, mut client) = by_hand().await;
        let mut stream = 1;
        // As many as fit into one segment, so that streams are reset before anybody sees them; then on.
        loop {
            let mut burst = Vec::new();
            for _ in 0..100 {
                burst.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/")));
                burst.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                stream += 2;
            }
            if !client.send_on(&burst).await {
                break;
            }
            tokio::task::yield_now().await;
        }
        let recorder = Rc::clone(&pair.recorder);
        let (ended, _) = pair.ended().await;
        assert!(matches!(ended, Ended::Client(_)), "{ended:?}");
        assert!(recorder.violations.borrow().iter().any(|violation| violation.by_client));
        // Each that was seen has its end, and few were.
        assert!(recorder.count() < 4000, "{}", recorder.count());
        assert!(
            (0..recorder.count())
                .all(|index| recorder.seen(index).cut.is_some() || recorder.seen(index).response_ended)
        );
    });
}

#[test]
fn a_slow_rapid_reset_is_told_too() {
    run(async {
        let (pair, mut client) = by_hand().await;
        let mut stream = 1;
        loop {
            let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/hold"));
            let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            if !client.send_on(&open).await {
                break;
            }
            // Each is seen before it is reset.
            tokio::task::yield_now().await;
            if !client.send_on(&reset).await {
                break;
            }
            tokio::task::yield_now().await;
            stream += 2;
        }
        ended_by_client(pair, "").await;
    });
}

#[test]
fn a_flood_of_continuations_ends_the_connection_and_is_told() {
    run(async {
        let (pair, mut client) = by_hand().await;
        client.send(&frame(HEADERS, 0, 1, &request("GET", "/"))).await;
        let code = flood(client, frame(CONTINUATION, 0, 1, &field("x-more", b"value"))).await;
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
        let recorder = Rc::clone(&pair.recorder);
        ended_by_client(pair, "excessive load").await;
        assert_eq!(recorder.count(), 0);
    });
}

#[test]
fn a_header_list_above_the_limit_is_answered_with_431_and_told() {
    run(async {
        let (pair, mut client) = by_hand().await;
        let mut block = request("GET", "/");
        for index in 0..10 {
            block.extend(field(&format!("x-{index}"), &[b'a'; 8000]));
        }
        let mut parts = block.chunks(16_000);
        let mut bytes = frame(HEADERS, END_STREAM, 1, parts.next().expect("a part"));
        let mut parts = parts.peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
            bytes.extend(frame(CONTINUATION, flags, 1, part));
        }
        client.send(&bytes).await;
        let answer = client.next(HEADERS).await.expect("answer");
        assert_eq!((answer.stream, answer.flags & END_STREAM), (1, END_STREAM));
        pair.recorder.until(|recorder| recorder.violation("431").is_some()).await;
        assert_eq!(pair.recorder.count(), 0);
        // The connection goes on.
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &request("GET", "/"))).await;
        assert_eq!(client.next(HEADERS).await.expect("answer").stream, 3);
        assert_eq!(pair.recorder.count(), 1);
    });
}

#[test]
fn a_header_list_of_a_megabyte_ends_the_connection_and_is_told() {
    run(async {
        let (pair, mut client) = by_hand().await;
        let mut block = request("GET", "/");
        for index in 0..130 {
            block.extend(field(&format!("x-{index}"), &[b'a'; 8000]));
        }
        let mut parts = block.chunks(16_000);
        let mut bytes = frame(HEADERS, END_STREAM, 1, parts.next().expect("a part"));
        for part in parts {
            bytes.extend(frame(CONTINUATION, 0, 1, part));
        }
        client.send_on(&bytes).await;
        let goaway = client.next(GOAWAY).await;
        assert!(goaway.is_none_or(|goaway| [COMPRESSION_ERROR, ENHANCE_YOUR_CALM].contains(&goaway.code())));
        let recorder = Rc::clone(&pair.recorder);
        ended_by_client(pair, "").await;
        assert_eq!(recorder.count(), 0);
    });
}

#[test]
fn a_header_list_that_unpacks_to_a_megabyte_never_reaches_the_server() {
    run(async {
        let (pair, mut client) = by_hand().await;
        // One entry of 4000 bytes in the table, then 300 references of one byte to it.
        let mut block = request("GET", "/");
        let mut entry = vec![0x40, 6];
        entry.extend_from_slice(b"x-bomb");
        entry.extend_from_slice(&[0x7f, 0xa1, 0x1e]);
        entry.extend_from_slice(&[b'a'; 4000]);
        block.extend(entry);
        block.extend([0xbe; 300]);
        client.send_on(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        let recorder = Rc::clone(&pair.recorder);
        recorder.until(|recorder| !recorder.violations.borrow().is_empty()).await;
        assert_eq!(recorder.count(), 0);
        drop(client);
        pair.ended().await;
    });
}

#[test]
fn a_window_that_overflows_is_told() {
    run(async {
        let (pair, mut client) = by_hand().await;
        let most = 0x7fff_ffff_u32.to_be_bytes();
        client.send(&[frame(WINDOW_UPDATE, 0, 0, &most), frame(WINDOW_UPDATE, 0, 0, &most)].concat()).await;
        assert_eq!(client.next(GOAWAY).await.expect("goaway").code(), FLOW_CONTROL_ERROR);
        ended_by_client(pair, "flow-control").await;
    });
}

#[test]
fn a_streams_window_that_overflows_resets_the_stream_and_is_told() {
    run(async {
        let (pair, mut client) = by_hand().await;
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/hold"))).await;
        let most = 0x7fff_ffff_u32.to_be_bytes();
        client.send(&frame(WINDOW_UPDATE, 0, 1, &most)).await;
        let reset = client.next(RST_STREAM).await.expect("reset");
        assert_eq!((reset.stream, reset.code()), (1, FLOW_CONTROL_ERROR));
        pair.recorder.until(|recorder| recorder.violation("stream 1").is_some()).await;
        assert!(pair.recorder.seen(0).cut.is_some());
    });
}

#[test]
fn data_beyond_the_window_is_told_and_never_kept() {
    run(async {
        let (pair, mut client) = by_hand().await;
        client.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/hold"))).await;
        let bytes = frame(DATA, 0, 1, &[0; 16_384]);
        let config = HttpConfig::default();
        for _ in 0..=config.stream_window as usize / 16_384 {
            if !client.send_on(&bytes).await {
                break;
            }
        }
        let reset = client.next(RST_STREAM).await.expect("reset");
        assert_eq!((reset.stream, reset.code()), (1, FLOW_CONTROL_ERROR));
        pair.recorder.until(|recorder| recorder.violation("stream 1").is_some()).await;
        let seen = pair.recorder.seen(0);
        assert!(seen.request.len() <= config.held_bytes + 16_384);
        assert_eq!(seen.cut, Some(Cut::Ours));
    });
}

#[test]
fn data_on_a_stream_that_is_closed_is_told() {
    run(async {
        let (pair, mut client) = by_hand().await;
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/"))).await;
        client.next(HEADERS).await.expect("answer");
        client.send(&frame(DATA, 0, 1, b"more")).await;
        let last = loop {
            let Some(frame) = client.frame().await else { break None };
            if [RST_STREAM, GOAWAY].contains(&frame.kind) {
                break Some(frame);
            }
        };
        assert!([PROTOCOL_ERROR, STREAM_CLOSED].contains(&last.expect("an error").code()));
        pair.recorder.until(|recorder| !recorder.violations.borrow().is_empty()).await;
        assert!(pair.recorder.seen(0).response_ended);
    });
}

#[test]
fn data_on_a_stream_that_never_was_is_told() {
    run(async {
        let (pair, mut client) = by_hand().await;
        client.send(&frame(DATA, 0, 5, b"out of nowhere")).await;
        assert_eq!(client.next(GOAWAY).await.expect("goaway").code(), PROTOCOL_ERROR);
        ended_by_client(pair, "").await;
    });
}

#[test]
fn a_body_that_ends_before_its_length_is_told_and_cut() {
    run(async {
        let (pair, mut client) = by_hand().await;
        let fields = [request("POST", "/whole"), field("content-length", b"10")].concat();
        client.send(&frame(HEADERS, END_HEADERS, 1, &fields)).await;
        client.send(&frame(DATA, END_STREAM, 1, b"short")).await;
        let reset = client.next(RST_STREAM).await.expect("reset");
        assert_eq!((reset.stream, reset.code()), (1, PROTOCOL_ERROR));
        pair.recorder.until(|recorder| recorder.violation("stream 1").is_some()).await;
        let seen = pair.recorder.seen(0);
        assert!(!seen.request_ended);
        assert_eq!(seen.cut, Some(Cut::Ours));
    });
}

#[test]
fn a_connection_that_ends_in_the_middle_of_a_body_is_cut() {
    run(async {
        let (pair, mut client) = by_hand().await;
        client.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/whole"))).await;
        client.send(&frame(DATA, 0, 1, b"some")).await;
        pair.recorder.until(|recorder| recorder.count() == 1 && recorder.seen(0).request == b"some").await;
        drop(client);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Client(_)), "{ended:?}");
        assert_eq!(recorder.seen(0).cut, Some(Cut::Client));
    });
}

#[test]
fn malformed_requests_are_reset_and_told() {
    run(async {
        let bad: [Vec<Vec<u8>>; 7] = [
            vec![field(":method", b"GET"), field(":scheme", b"https"), field(":path", b"/")],
            vec![field(":method", b"GET"), field(":scheme", b"https")],
            vec![request("GET", "/"), field("connection", b"close")],
            vec![request("GET", "/"), field("transfer-encoding", b"chunked")],
            vec![request("GET", "/"), field("te", b"gzip")],
            vec![request("GET", "/"), field("X-Upper", b"case")],
            vec![request("GET", "/"), field("x-split", b"a\r\nb: c")],
        ];
        for fields in bad {
            let (pair, mut client) = by_hand().await;
            client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields.concat())).await;
            let refused = loop {
                match client.frame().await {
                    Some(frame) if [RST_STREAM, GOAWAY].contains(&frame.kind) => break Some(frame),
                    Some(frame) => assert_ne!(frame.kind, HEADERS, "no answer"),
                    None => break None,
                }
            };
            assert!(refused.is_some());
            pair.recorder.until(|recorder| !recorder.violations.borrow().is_empty()).await;
            assert_eq!(pair.recorder.count(), 0);
        }
    });
}

#[test]
fn an_extended_connect_is_refused_and_told() {
    run(async {
        let (pair, mut client) = by_hand().await;
        let fields = [request("CONNECT", "/"), field(":protocol", b"websocket")].concat();
        client.send(&frame(HEADERS, END_HEADERS, 1, &fields)).await;
        let reset = client.next(RST_STREAM).await.expect("reset");
        assert_eq!((reset.stream, reset.code()), (1, PROTOCOL_ERROR));
        pair.recorder.until(|recorder| recorder.violation("stream 1").is_some()).await;
        assert_eq!(pair.recorder.count(), 0);
    });
}

#[test]
fn more_streams_than_may_be_open_are_refused() {
    run(async {
        let (pair, mut client) = by_hand().await;
        let most = HttpConfig::default().concurrent_streams;
        for index in 0..=most {
            client.send(&frame(HEADERS, END_HEADERS, index * 2 + 1, &request("POST", "/hold"))).await;
        }
        let reset = client.next(RST_STREAM).await.expect("reset");
        assert_eq!((reset.stream, reset.code()), (most * 2 + 1, 7));
        assert_eq!(pair.recorder.count(), most as usize);
        drop(client);
        pair.ended().await;
    });
}

#[test]
fn an_answer_that_breaks_a_rule_is_told_as_the_servers() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let mut server = Raw(pair.server());
        let mut client = Raw::client(pair.client()).await;
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/"))).await;
        let mut preface = [0; PREFACE.len()];
        server.0.read_exact(&mut preface).await.expect("preface");
        server.send(&frame(SETTINGS, 0, 0, &[])).await;
        let asked = server.next(HEADERS).await.expect("request");
        // Shorter than it says.
        let fields = [vec![0x88], field("content-length", b"10")].concat();
        server.send(&frame(HEADERS, END_HEADERS, asked.stream, &fields)).await;
        server.send(&frame(DATA, END_STREAM, asked.stream, b"short")).await;
        let reset = client.next(RST_STREAM).await.expect("reset");
        assert_eq!(reset.stream, 1);
        let violation = pair.recorder.violation("server's stream").expect("told");
        assert!(!violation.by_client);
        assert_eq!(pair.recorder.seen(0).cut, Some(Cut::Ours));
        assert_eq!(pair.recorder.violations.borrow().len(), 1, "and not as the client's");
    });
}

#[test]
fn garbage_instead_of_a_preface_is_told() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve(pair.server());
        let mut client = Raw(pair.client());
        client.send(&[0x7f; 64]).await;
        client.next(GOAWAY).await;
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Client(_)), "{ended:?}");
        assert_eq!(recorder.violations.borrow().len(), 1);
    });
}

#[test]
fn frames_cut_anywhere_are_read_all_the_same() {
    run(async {
        let (pair, mut client) = by_hand().await;
        let bytes = [
            frame(HEADERS, END_HEADERS, 1, &request("POST", "/whole")),
            frame(DATA, 0, 1, b"one"),
            frame(DATA, END_STREAM, 1, b"two"),
        ]
        .concat();
        for byte in bytes {
            client.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
        client.next(HEADERS).await.expect("answer");
        assert_eq!(pair.recorder.seen(0).request, b"onetwo");
        assert!(pair.recorder.violations.borrow().is_empty());
    });
}

#[test]
fn a_header_list_of_a_megabyte_by_the_server_is_told_as_the_servers() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let mut server = Raw(pair.server());
        let mut client = Raw::client(pair.client()).await;
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/"))).await;
        let mut preface = [0; PREFACE.len()];
        server.0.read_exact(&mut preface).await.expect("preface");
        server.send(&frame(SETTINGS, 0, 0, &[])).await;
        let asked = server.next(HEADERS).await.expect("request");
        let mut bytes = frame(HEADERS, 0, asked.stream, &[0x88]);
        for index in 0..70 {
            let part = field(&format!("x-{index}"), &[b'a'; 15_000]);
            bytes.extend(frame(CONTINUATION, if index == 69 { END_HEADERS } else { 0 }, asked.stream, &part));
        }
        server.send_on(&bytes).await;
        client.next(GOAWAY).await.expect("goaway");
        drop(client);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Server(_)), "{ended:?}");
        assert!(recorder.violations.borrow().iter().any(|violation| !violation.by_client));
        let seen = recorder.seen(0);
        assert!(seen.status.is_none() && seen.cut.is_some());
    });
}
