//! HTTP/2 between clients and servers that behave.

mod support;

use std::{future::poll_fn, rc::Rc};

use bytes::Bytes;
use h2::{Reason, RecvStream, client, server};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use support::{Paired, run};
use tokio::{net::TcpStream, task::spawn_local};
use verbatim_http::{Ended, HttpConfig, Version, seam::Cut};

type Send = client::SendRequest<Bytes>;

async fn connect(stream: TcpStream) -> Send {
    let (send, connection) = client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake(stream)
        .await
        .expect("handshake");
    spawn_local(async move { drop(connection.await) });
    send.ready().await.expect("ready")
}

/// Accepts requests for as long as the connection lives.
fn serve_with<F, R>(stream: TcpStream, mut each: F)
where
    F: FnMut(Request<RecvStream>, server::SendResponse<Bytes>) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    spawn_local(async move {
        let mut connection = server::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake(stream)
            .await
            .expect("handshake");
        while let Some(Ok((request, respond))) = connection.accept().await {
            spawn_local(each(request, respond));
        }
    });
}

/// Answers with the body that came, its trailers, and what came in some headers.
async fn echo(request: Request<RecvStream>, mut respond: server::SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    let (bytes, trailers) = match whole(&mut body).await {
        Ok(whole) => whole,
        Err(_) => return,
    };
    let mut answer = Response::builder().header("x-method", head.method.as_str());
    for (name, value) in &head.headers {
        answer = answer.header(format!("echo-{name}"), value);
    }
    let answer = answer.body(()).expect("answer");
    let mut stream = respond.send_response(answer, false).expect("sent");
    if bytes.is_empty() && trailers.is_none() {
        stream.send_data(Bytes::new(), true).expect("sent");
        return;
    }
    stream.send_data(bytes, trailers.is_none()).expect("sent");
    if let Some(trailers) = trailers {
        stream.send_trailers(trailers).expect("sent");
    }
}

async fn whole(body: &mut RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        body.flow_control().release_capacity(bytes.len()).expect("released");
        all.extend_from_slice(&bytes);
    }
    Ok((all.into(), body.trailers().await?))
}

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("https://example.test{path}")).body(()).expect("request")
}

async fn get(send: &mut Send, path: &str) -> Result<Response<Bytes>, h2::Error> {
    let (answer, _) = send.send_request(request(Method::GET, path), true)?;
    collect(answer).await
}

async fn post(send: &mut Send, path: &str, bytes: impl Into<Bytes>) -> Result<Response<Bytes>, h2::Error> {
    let (answer, mut stream) = send.send_request(request(Method::POST, path), false)?;
    stream.send_data(bytes.into(), true)?;
    collect(answer).await
}

async fn collect(answer: client::ResponseFuture) -> Result<Response<Bytes>, h2::Error> {
    let (head, mut body) = answer.await?.into_parts();
    let (bytes, _) = whole(&mut body).await?;
    Ok(Response::from_parts(head, bytes))
}

#[test]
fn requests_and_answers_pass_whole_and_are_shown_whole() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut send = connect(pair.client()).await;
        let answer = get(&mut send, "/a?b=c").await.expect("answer");
        assert_eq!(answer.status(), StatusCode::OK);
        for path in ["/b", "/whole", "/pieces"] {
            let body = vec![b'x'; 100_000];
            let answer = post(&mut send, path, body.clone()).await.expect("answer");
            assert!(*answer.body() == body);
        }
        let first = pair.recorder.seen(0);
        assert_eq!((first.method.as_str(), first.uri.as_str()), ("GET", "https://example.test/a?b=c"));
        assert!(first.request_ended && first.response_ended && first.cut.is_none());
        for index in 1..4 {
            let seen = pair.recorder.seen(index);
            assert_eq!((seen.request.len(), seen.response.len()), (100_000, 100_000));
            assert!(seen.request_ended && seen.response_ended && seen.cut.is_none());
        }
        drop(send);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Closed), "{ended:?}");
        assert!(recorder.violations.borrow().is_empty());
    });
}

#[test]
fn a_request_without_a_body_goes_on_as_one_frame() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), |request, mut respond| async move {
            let ends = request.body().is_end_stream();
            let status = if ends { StatusCode::OK } else { StatusCode::BAD_REQUEST };
            let answer = Response::builder().status(status).body(()).expect("answer");
            respond.send_response(answer, true).expect("sent");
        });
        let mut send = connect(pair.client()).await;
        for path in ["/", "/whole", "/pieces"] {
            let (answer, _) = send.send_request(request(Method::GET, path), true).expect("sent");
            let answer = answer.await.expect("answer");
            assert_eq!(answer.status(), StatusCode::OK);
            assert!(answer.body().is_end_stream(), "an answer without a body too");
        }
    });
}

#[test]
fn trailers_pass_both_ways() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut send = connect(pair.client()).await;
        for path in ["/", "/whole", "/pieces"] {
            let mut request = request(Method::POST, path);
            request.headers_mut().insert("te", "trailers".parse().expect("value"));
            let raw = http::HeaderValue::from_bytes(&[0x80, 0xff, b'a']).expect("value");
            request.headers_mut().insert("x-raw-bin", raw.clone());
            let (answer, mut stream) = send.send_request(request, false).expect("sent");
            stream.send_data("body".into(), false).expect("sent");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("value"));
            stream.send_trailers(trailers.clone()).expect("sent");
            let mut answer = answer.await.expect("answer");
            assert_eq!(answer.headers().get("echo-te").expect("kept"), "trailers");
            assert_eq!(answer.headers().get("echo-x-raw-bin"), Some(&raw));
            let (bytes, passed) = whole(answer.body_mut()).await.expect("body");
            assert_eq!(bytes, "body");
            assert_eq!(passed, Some(trailers.clone()));
            let seen = pair.recorder.seen(pair.recorder.count() - 1);
            assert_eq!(seen.request_trailers, Some(trailers.clone()));
            assert_eq!(seen.response_trailers, Some(trailers));
        }
    });
}

#[test]
fn an_answer_of_trailers_alone_passes_as_one_frame() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), |_, mut respond| async move {
            let answer = Response::builder().header("grpc-status", "5").body(()).expect("answer");
            respond.send_response(answer, true).expect("sent");
        });
        let mut send = connect(pair.client()).await;
        let (answer, _stream) = send.send_request(request(Method::POST, "/"), false).expect("sent");
        let answer = answer.await.expect("answer");
        assert!(answer.body().is_end_stream());
        assert_eq!(answer.headers().get("grpc-status").expect("status"), "5");
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_before_any_message() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), |request, mut respond| async move {
            let mut stream = respond.send_response(Response::new(()), false).expect("sent");
            stream.send_data("hello".into(), false).expect("sent");
            let mut body = request.into_body();
            while let Some(Ok(bytes)) = body.data().await {
                stream.send_data(bytes, false).expect("sent");
            }
            stream.send_data(Bytes::new(), true).expect("sent");
        });
        let mut send = connect(pair.client()).await;
        let (answer, mut stream) = send.send_request(request(Method::POST, "/pieces"), false).expect("sent");
        let mut body = answer.await.expect("answer").into_body();
        assert_eq!(body.data().await.expect("some").expect("data"), "hello");
        for message in ["one", "two"] {
            stream.send_data(message.into(), false).expect("sent");
            assert_eq!(body.data().await.expect("some").expect("data"), message);
        }
        stream.send_data(Bytes::new(), true).expect("sent");
        assert!(body.data().await.is_none_or(|rest| rest.expect("data").is_empty()));
    });
}

#[test]
fn a_header_is_replaced_on_the_way() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut send = connect(pair.client()).await;
        let mut request = request(Method::GET, "/");
        request.headers_mut().insert("authorization", "Bearer own".parse().expect("value"));
        request.headers_mut().insert("x-replace", "1".parse().expect("value"));
        let (answer, _) = send.send_request(request, true).expect("sent");
        let answer = answer.await.expect("answer");
        let values: Vec<_> = answer.headers().get_all("echo-authorization").iter().collect();
        assert_eq!(values, ["Bearer replaced"]);
    });
}

#[test]
fn a_held_stream_lets_a_hundred_others_on_its_connection_pass() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let reached = Rc::new(std::cell::Cell::new(0));
        let count = Rc::clone(&reached);
        serve_with(pair.server(), move |request, respond| {
            count.set(count.get() + 1);
            echo(request, respond)
        });
        let mut send = connect(pair.client()).await;
        let (held, mut stream) = send.send_request(request(Method::POST, "/hold"), false).expect("sent");
        stream.send_data(vec![b'h'; 200_000].into(), true).expect("sent");
        for _ in 0..100 {
            let answer = post(&mut send, "/", "small").await.expect("answer");
            assert_eq!(*answer.body(), "small");
        }
        assert_eq!(reached.get(), 100);
        pair.recorder.release();
        let answer = collect(held).await.expect("answer");
        assert_eq!(answer.body().len(), 200_000);
        assert_eq!(reached.get(), 101);
    });
}

#[test]
fn a_held_stream_that_its_client_resets_never_reaches_the_server() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let reached = Rc::new(std::cell::Cell::new(0));
        let count = Rc::clone(&reached);
        serve_with(pair.server(), move |request, respond| {
            count.set(count.get() + 1);
            echo(request, respond)
        });
        let mut send = connect(pair.client()).await;
        let (held, mut stream) = send.send_request(request(Method::POST, "/hold"), false).expect("sent");
        stream.send_data("held".into(), true).expect("sent");
        pair.recorder.until(|recorder| recorder.count() == 1 && recorder.seen(0).request_ended).await;
        stream.send_reset(Reason::CANCEL);
        drop(held);
        pair.recorder.until(|recorder| recorder.seen(0).cut == Some(Cut::Client)).await;
        pair.recorder.release();
        get(&mut send, "/").await.expect("the connection goes on");
        assert_eq!(reached.get(), 1);
    });
}

#[test]
fn a_held_stream_whose_client_goes_never_reaches_the_server() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), |_, _| async { panic!("nothing reaches the server") });
        let (mut send, connection) = client::handshake(pair.client()).await.expect("handshake");
        let connection = spawn_local(async move { drop(connection.await) });
        let (_held, _stream) = send.send_request(request(Method::POST, "/hold"), false).expect("sent");
        pair.recorder.until(|recorder| recorder.count() == 1).await;
        connection.abort();
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Client(_)), "{ended:?}");
        assert_eq!(recorder.seen(0).cut, Some(Cut::Client));
    });
}

#[test]
fn a_denied_request_is_answered_and_never_sent() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), |_, _| async { panic!("nothing reaches the server") });
        let mut send = connect(pair.client()).await;
        let answer = post(&mut send, "/deny", "body").await.expect("answer");
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::FORBIDDEN, &b"denied"[..]));
        let (answer, mut stream) =
            send.send_request(request(Method::POST, "/deny-grpc"), false).expect("sent");
        stream.send_data("body".into(), true).expect("sent");
        let answer = answer.await.expect("answer");
        assert_eq!(answer.headers().get("grpc-status").expect("status"), "7");
        assert!(answer.body().is_end_stream(), "trailers alone");
        assert_eq!(pair.recorder.seen(0).cut, Some(Cut::Ours));
    });
}

#[test]
fn a_request_denied_under_way_is_reset_at_the_server() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let (told, was_told) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        serve_with(pair.server(), move |request, _respond| {
            let told = told.take().expect("one request");
            async move {
                let mut body = request.into_body();
                let mut bytes = 0;
                let error = loop {
                    match body.data().await {
                        Some(Ok(data)) => bytes += data.len(),
                        Some(Err(error)) => break Some(error),
                        None => break None,
                    }
                };
                told.send((bytes, error.and_then(|error| error.reason()))).expect("told");
            }
        });
        let mut send = connect(pair.client()).await;
        let (answer, mut stream) =
            send.send_request(request(Method::POST, "/deny-late"), false).expect("sent");
        stream.send_data("0123456789".into(), false).expect("sent");
        pair.recorder.until(|recorder| recorder.count() == 1 && recorder.seen(0).request.len() == 10).await;
        stream.send_data("and more".into(), false).expect("sent");
        let answer = collect(answer).await.expect("answer");
        assert_eq!(*answer.body(), "denied late");
        let (bytes, reason) = was_told.await.expect("told");
        assert_eq!(reason, Some(Reason::CANCEL));
        assert!(bytes <= 10);
    });
}

#[test]
fn what_cannot_be_recorded_goes_no_further() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut send = connect(pair.client()).await;
        for path in ["/reset", "/unrecordable"] {
            let error = post(&mut send, path, "body").await.expect_err("reset");
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        }
        assert_eq!(pair.recorder.seen(0).cut, Some(Cut::Ours));
        assert_eq!(pair.recorder.seen(1).cut, Some(Cut::Ours));
    });
}

#[test]
fn an_answer_waits_for_its_record_and_others_do_not() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut send = connect(pair.client()).await;
        let slow = spawn_local({
            let mut send = send.clone();
            async move { post(&mut send, "/slow-record", "slow").await }
        });
        pair.recorder.until(|recorder| recorder.count() == 1 && recorder.seen(0).status == Some(200)).await;
        for _ in 0..20 {
            post(&mut send, "/", "quick").await.expect("answer");
        }
        assert!(!slow.is_finished());
        pair.recorder.record();
        let answer = slow.await.expect("no panic").expect("answer");
        assert_eq!(*answer.body(), "slow");
    });
}

#[test]
fn a_reset_by_the_client_resets_the_servers_stream() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let (told, was_told) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        serve_with(pair.server(), move |_request, mut respond| {
            let told = told.take().expect("one request");
            async move {
                let mut stream = respond.send_response(Response::new(()), false).expect("sent");
                stream.send_data("some".into(), false).expect("sent");
                let reason = poll_fn(|cx| stream.poll_reset(cx)).await.expect("reset");
                told.send(reason).expect("told");
            }
        });
        let mut send = connect(pair.client()).await;
        let (answer, mut stream) = send.send_request(request(Method::POST, "/"), false).expect("sent");
        let mut body = answer.await.expect("answer").into_body();
        assert_eq!(body.data().await.expect("some").expect("data"), "some");
        stream.send_reset(Reason::CANCEL);
        assert_eq!(was_told.await.expect("told"), Reason::CANCEL);
        pair.recorder.until(|recorder| recorder.seen(0).cut == Some(Cut::Client)).await;
    });
}

#[test]
fn a_reset_by_the_server_resets_the_clients_stream_with_its_code() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), |request, mut respond| async move {
            let reason = match request.uri().path() {
                "/refused" => Reason::REFUSED_STREAM,
                "/cancel" => Reason::CANCEL,
                "/calm" => Reason::ENHANCE_YOUR_CALM,
                "/http1" => Reason::HTTP_1_1_REQUIRED,
                // Accuses us of something; the client has done nothing.
                _ => Reason::PROTOCOL_ERROR,
            };
            if request.uri().path() == "/late" {
                let mut stream = respond.send_response(Response::new(()), false).expect("sent");
                stream.send_data("some".into(), false).expect("sent");
                tokio::task::yield_now().await;
                stream.send_reset(Reason::INTERNAL_ERROR);
            } else {
                respond.send_reset(reason);
            }
        });
        let mut send = connect(pair.client()).await;
        let expected = [
            ("/refused", Reason::REFUSED_STREAM),
            ("/cancel", Reason::CANCEL),
            ("/calm", Reason::ENHANCE_YOUR_CALM),
            ("/http1", Reason::HTTP_1_1_REQUIRED),
            ("/", Reason::INTERNAL_ERROR),
            ("/late", Reason::INTERNAL_ERROR),
        ];
        for (index, (path, reason)) in expected.into_iter().enumerate() {
            let error = get(&mut send, path).await.expect_err("reset");
            assert_eq!(error.reason(), Some(reason), "{path}");
            assert_eq!(pair.recorder.seen(index).cut, Some(Cut::Server), "{path}");
        }
        assert!(pair.recorder.violations.borrow().is_empty());
    });
}

#[test]
fn a_server_that_says_goaway_finishes_what_is_under_way_and_gets_nothing_new() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let server = pair.server();
        let (go, going) = tokio::sync::oneshot::channel::<()>();
        spawn_local(async move {
            let mut connection = server::handshake(server).await.expect("handshake");
            let (_, mut respond) = connection.accept().await.expect("some").expect("request");
            connection.graceful_shutdown();
            let mut going = std::pin::pin!(going);
            let mut gone = false;
            poll_fn(|cx| {
                if !gone && going.as_mut().poll(cx).is_ready() {
                    gone = true;
                    let mut stream = respond.send_response(Response::new(()), false).expect("sent");
                    stream.send_data("late answer".into(), true).expect("sent");
                }
                connection.poll_accept(cx).map(|more| assert!(more.is_none(), "nothing new"))
            })
            .await;
        });
        let mut send = connect(pair.client()).await;
        let (under_way, _) = send.send_request(request(Method::GET, "/"), true).expect("sent");
        // The client learns of it by a GOAWAY of its own.
        poll_fn(|cx| {
            let ready = send.poll_ready(cx);
            cx.waker().wake_by_ref();
            if matches!(ready, std::task::Poll::Ready(Err(_))) { ready } else { std::task::Poll::Pending }
        })
        .await
        .expect_err("goaway");
        go.send(()).expect("still there");
        let answer = collect(under_way).await.expect("answer");
        assert_eq!(*answer.body(), "late answer");
        drop(send);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Closed), "{ended:?}");
        assert!(recorder.seen(0).response_ended);
    });
}

#[test]
fn a_server_that_goes_away_ends_the_clients_connection() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let server = pair.server();
        spawn_local(async move {
            let mut connection = server::handshake(server).await.expect("handshake");
            drop(connection.accept().await);
        });
        let mut send = connect(pair.client()).await;
        get(&mut send, "/").await.expect_err("no answer");
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Server(_)), "{ended:?}");
        assert_eq!(recorder.seen(0).cut, Some(Cut::Server));
    });
}

#[test]
fn interim_answers_are_dropped_and_told_but_for_100() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), |request, mut respond| async move {
            for status in [103, 100, 103] {
                let interim = Response::builder().status(status).body(()).expect("interim");
                respond.send_informational(interim).expect("sent");
            }
            echo(request, respond).await;
        });
        let mut send = connect(pair.client()).await;
        let mut asks = request(Method::POST, "/");
        asks.headers_mut().insert("expect", "100-continue".parse().expect("value"));
        let (mut answer, mut stream) = send.send_request(asks, false).expect("sent");
        let interim = poll_fn(|cx| answer.poll_informational(cx)).await.expect("some").expect("interim");
        assert_eq!(interim.status(), StatusCode::CONTINUE);
        stream.send_data("body".into(), true).expect("sent");
        let answer = collect(answer).await.expect("answer");
        assert_eq!(*answer.body(), "body");
        assert_eq!(*pair.recorder.interim.borrow(), [103, 103]);
    });
}

#[test]
fn a_client_that_waits_for_100_gets_it_where_its_body_decides() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut send = connect(pair.client()).await;
        let mut asks = request(Method::POST, "/whole");
        asks.headers_mut().insert("expect", "100-continue".parse().expect("value"));
        let (mut answer, mut stream) = send.send_request(asks, false).expect("sent");
        let interim = poll_fn(|cx| answer.poll_informational(cx)).await.expect("some").expect("interim");
        assert_eq!(interim.status(), StatusCode::CONTINUE);
        stream.send_data("body".into(), true).expect("sent");
        assert_eq!(*collect(answer).await.expect("answer").body(), "body");
    });
}

#[test]
fn an_answer_before_the_request_is_complete_passes_and_ends_it() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), |_request, mut respond| async move {
            let answer = Response::builder().status(413).body(()).expect("answer");
            let mut stream = respond.send_response(answer, false).expect("sent");
            stream.send_data("too large".into(), true).expect("sent");
            // The rest is not wanted: the library resets with NO_ERROR.
        });
        let mut send = connect(pair.client()).await;
        let (answer, mut stream) = send.send_request(request(Method::POST, "/pieces"), false).expect("sent");
        stream.send_data("some".into(), false).expect("sent");
        let answer = collect(answer).await.expect("answer");
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (413, &b"too large"[..]));
        let reason = poll_fn(|cx| stream.poll_reset(cx)).await.expect("reset");
        assert_eq!(reason, Reason::NO_ERROR);
        let seen = pair.recorder.seen(0);
        assert!(seen.response_ended && !seen.request_ended);
        assert_eq!(seen.cut, Some(Cut::Server));
    });
}

#[test]
fn a_stalled_reader_leaves_memory_flat_and_its_sibling_proceeds() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let sent = Rc::new(std::cell::Cell::new(0_usize));
        let count = Rc::clone(&sent);
        serve_with(pair.server(), move |request, respond| {
            let count = Rc::clone(&count);
            async move {
                if request.uri().path() != "/large" {
                    return echo(request, respond).await;
                }
                let mut respond = respond;
                let mut stream = respond.send_response(Response::new(()), false).expect("sent");
                // A gigabyte, for as long as somebody takes it.
                while count.get() < 1 << 30 {
                    stream.reserve_capacity(1 << 16);
                    match poll_fn(|cx| stream.poll_capacity(cx)).await {
                        Some(Ok(bytes)) => {
                            count.set(count.get() + bytes);
                            stream.send_data(vec![0; bytes].into(), false).expect("sent");
                        }
                        _ => return,
                    }
                }
            }
        });
        let mut send = connect(pair.client()).await;
        let (answer, _) = send.send_request(request(Method::GET, "/large"), true).expect("sent");
        let stalled = answer.await.expect("answer").into_body();
        let mut before = 0;
        for _ in 0..300 {
            post(&mut send, "/", vec![1; 50_000]).await.expect("a sibling's answer");
            before = sent.get();
        }
        // The client's own window, ours, what each leg may keep, and what the sockets hold.
        let config = HttpConfig::default();
        let most = (1 << 20) + config.stream_window as usize + 2 * config.send_buffer + (4 << 20);
        assert!(before > 0 && before < most, "{before} bytes were taken from the server");
        drop(stalled);
    });
}

#[test]
fn a_request_that_is_held_stops_its_client_and_not_its_connection() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut send = connect(pair.client()).await;
        let mut held = Vec::new();
        for _ in 0..20 {
            let (answer, mut stream) =
                send.send_request(request(Method::POST, "/hold"), false).expect("sent");
            stream.reserve_capacity(4 << 20);
            held.push((answer, stream, 0_usize));
        }
        // Each sends for as long as it is taken.
        for _ in 0..200 {
            for (_, stream, sent) in &mut held {
                let room = stream.capacity();
                if room > 0 {
                    *sent += room;
                    stream.send_data(vec![0; room].into(), false).expect("sent");
                }
            }
            post(&mut send, "/", "small").await.expect("a sibling's answer");
        }
        let config = HttpConfig::default();
        let kept: usize = (0..pair.recorder.count())
            .map(|index| pair.recorder.seen(index))
            .filter(|seen| seen.uri.ends_with("/hold"))
            .map(|seen| seen.request.len())
            .sum();
        assert!(kept >= 20 * config.held_bytes, "{kept} bytes were read");
        assert!(kept <= 20 * (config.held_bytes + (64 << 10)), "{kept} bytes were read");
        let sent: usize = held.iter().map(|(_, _, sent)| sent).sum();
        assert!(sent <= 20 * config.stream_window as usize, "{sent} bytes were sent");
    });
}

#[test]
fn stop_ends_the_pair_and_cuts_what_is_under_way() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut send = connect(pair.client()).await;
        let (held, _stream) = send.send_request(request(Method::POST, "/hold"), false).expect("sent");
        pair.recorder.until(|recorder| recorder.count() == 1).await;
        pair.stop();
        held.await.expect_err("no answer");
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Stopped), "{ended:?}");
        assert_eq!(recorder.seen(0).cut, Some(Cut::Ours));
    });
}

#[test]
fn a_pair_that_is_dropped_cuts_what_is_under_way() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut send = connect(pair.client()).await;
        let (_held, _stream) = send.send_request(request(Method::POST, "/hold"), false).expect("sent");
        pair.recorder.until(|recorder| recorder.count() == 1).await;
        pair.ended.abort();
        let recorder = Rc::clone(&pair.recorder);
        recorder.until(|recorder| recorder.seen(0).cut == Some(Cut::Ours)).await;
    });
}

#[test]
fn an_unknown_setting_is_never_echoed() {
    use support::frames::{Raw, SETTINGS, frame};
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let mut server = Raw(pair.server());
        let mut client = Raw(pair.client());
        // 0xFE03 = 1, as gRPC sends it, from both sides.
        let setting = [0xfe, 0x03, 0, 0, 0, 1];
        client.send(&[support::frames::PREFACE, &frame(SETTINGS, 0, 0, &setting)].concat()).await;
        server.send(&frame(SETTINGS, 0, 0, &setting)).await;
        let to_client = client.next(SETTINGS).await.expect("settings");
        let mut preface = [0; 24];
        tokio::io::AsyncReadExt::read_exact(&mut server.0, &mut preface).await.expect("preface");
        let to_server = server.next(SETTINGS).await.expect("settings");
        for settings in [to_client, to_server] {
            assert!(!settings.payload.is_empty());
            assert!(settings.payload.chunks(6).all(|setting| setting.get(..2) != Some(&[0xfe, 0x03])));
        }
    });
}

#[test]
fn a_request_named_by_its_host_alone_passes() {
    use support::frames::{END_HEADERS, END_STREAM, HEADERS, Raw, field, frame};
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), |request, mut respond| async move {
            assert_eq!(request.uri().authority().expect("authority"), "example.test");
            respond.send_response(Response::new(()), true).expect("sent");
        });
        let mut client = Raw::client(pair.client()).await;
        let fields = [
            field(":method", b"GET"),
            field(":scheme", b"https"),
            field(":path", b"/"),
            field("host", b"example.test"),
        ]
        .concat();
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)).await;
        let answer = client.next(HEADERS).await.expect("answer");
        assert_eq!(answer.stream, 1);
    });
}

#[test]
fn requests_that_a_server_refuses_by_its_goaway_may_be_sent_again() {
    use support::frames::{GOAWAY, HEADERS, PREFACE, Raw, SETTINGS, frame};
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let mut server = Raw(pair.server());
        let mut send = connect(pair.client()).await;
        let (answer, _) = send.send_request(request(Method::GET, "/"), true).expect("sent");
        let mut preface = [0; PREFACE.len()];
        tokio::io::AsyncReadExt::read_exact(&mut server.0, &mut preface).await.expect("preface");
        server.send(&frame(SETTINGS, 0, 0, &[])).await;
        server.next(HEADERS).await.expect("request");
        // The last stream that was looked at is none.
        server.send(&frame(GOAWAY, 0, 0, &[0; 8])).await;
        let error = answer.await.expect_err("refused");
        assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
        assert_eq!(pair.recorder.seen(0).cut, Some(Cut::Server));
    });
}

#[test]
fn a_client_that_says_goaway_gets_what_is_under_way() {
    use support::frames::{END_HEADERS, END_STREAM, GOAWAY, HEADERS, Raw, frame, request as fields};
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut client = Raw::client(pair.client()).await;
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields("GET", "/hold"))).await;
        pair.recorder.until(|recorder| recorder.count() == 1).await;
        client.send(&frame(GOAWAY, 0, 0, &[0; 8])).await;
        pair.recorder.release();
        assert_eq!(client.next(HEADERS).await.expect("answer").stream, 1);
        while client.frame().await.is_some() {}
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Closed), "{ended:?}");
        assert!(recorder.seen(0).response_ended);
    });
}

#[test]
fn requests_beyond_what_the_server_takes_at_once_wait_for_others() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        let server = pair.server();
        let most = Rc::new(std::cell::Cell::new((0, 0)));
        let count = Rc::clone(&most);
        spawn_local(async move {
            let mut connection =
                server::Builder::new().max_concurrent_streams(2).handshake(server).await.expect("handshake");
            while let Some(Ok((request, respond))) = connection.accept().await {
                let count = Rc::clone(&count);
                spawn_local(async move {
                    let (now, most) = count.get();
                    count.set((now + 1, most.max(now + 1)));
                    tokio::task::yield_now().await;
                    echo(request, respond).await;
                    let (now, most) = count.get();
                    count.set((now - 1, most));
                });
            }
        });
        let mut send = connect(pair.client()).await;
        // So that the server's settings are known.
        get(&mut send, "/").await.expect("answer");
        let asked: Vec<_> = (0..20)
            .map(|_| {
                let mut send = send.clone();
                spawn_local(async move { post(&mut send, "/whole", "body").await })
            })
            .collect();
        for answer in asked {
            assert_eq!(*answer.await.expect("no panic").expect("answer").body(), "body");
        }
        assert_eq!(most.get().1, 2);
    });
}

#[test]
fn a_connect_is_a_stream_like_others() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let mut send = connect(pair.client()).await;
        let request =
            Request::builder().method(Method::CONNECT).uri("db.test:5432").body(()).expect("request");
        let (answer, mut stream) = send.send_request(request, false).expect("sent");
        stream.send_data("tunnelled".into(), true).expect("sent");
        assert_eq!(*collect(answer).await.expect("answer").body(), "tunnelled");
        let seen = pair.recorder.seen(0);
        assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("CONNECT", "db.test:5432"));
    });
}

#[test]
fn requests_of_every_size_pass_side_by_side() {
    run(async {
        let mut pair = Paired::new(Version::Http2).await;
        serve_with(pair.server(), echo);
        let send = connect(pair.client()).await;
        let asked: Vec<_> = (0..20_usize)
            .map(|worker| {
                let mut send = send.clone();
                spawn_local(async move {
                    for round in 0..15_usize {
                        let size = (worker * 7919 + round * 104_729) % 300_000;
                        let path = ["/", "/whole", "/pieces"][round % 3];
                        let answer = post(&mut send, path, vec![round as u8; size]).await.expect("answer");
                        assert_eq!(answer.body().len(), size);
                    }
                })
            })
            .collect();
        for worker in asked {
            worker.await.expect("no panic");
        }
        let count = pair.recorder.count();
        assert_eq!(count, 300);
        assert!((0..count).map(|index| pair.recorder.seen(index)).all(|seen| seen.cut.is_none()));
    });
}
