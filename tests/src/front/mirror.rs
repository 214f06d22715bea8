//! A service that tells its clients what it got, and answers in whatever way they ask for by the path:
//! its first part says how, the rest may carry an id.

use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{self, HeaderValue},
    http::request,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{
    log::Line,
    serve::{Body, read},
};
use crate::did;

/// Size of the pieces in which long answers are given.
const PIECE: usize = 16 * 1024;

pub(super) async fn answer(head: request::Parts, body: Incoming, mut line: Line) -> Result<Response<Body>> {
    let path = head.uri.path().to_owned();
    let mut parts = path.trim_start_matches('/').split('/');
    let (how, argument) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let number = || argument.parse::<u64>().with_context(|| format!("{path}: a number is expected"));
    line.request.status = 200;
    match how {
        // What was sent comes back piece by piece, as it comes.
        "duplex" => Ok(Response::new(duplex(body, line))),
        "bytes" => {
            let length = number()?;
            read(body, &mut line.request).await?;
            Ok(Response::new(bytes(length)))
        }
        // The answer comes before the request is complete.
        "early" => {
            let answer = described(&line);
            drop(tokio::spawn(async move { read(body, &mut line.request).await }));
            Ok(answer)
        }
        "wait" => {
            read(body, &mut line.request).await?;
            tokio::time::sleep(Duration::from_millis(number()?)).await;
            Ok(described(&line))
        }
        "status" => {
            read(body, &mut line.request).await?;
            line.request.status = u16::try_from(number()?)?;
            let mut answer = described(&line);
            *answer.status_mut() = StatusCode::from_u16(line.request.status)?;
            Ok(answer)
        }
        "trailers" => {
            read(body, &mut line.request).await?;
            Ok(trailers())
        }
        "gzip" => {
            read(body, &mut line.request).await?;
            let mut answer = Response::new(whole(gzip(described_text(&line).as_bytes())));
            answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Ok(answer)
        }
        _ => {
            read(body, &mut line.request).await?;
            Ok(described(&line))
        }
    }
}

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

fn described_text(line: &Line) -> String {
    let request = &line.request;
    json!({
        "method": request.method, "path": request.path, "query": request.query, "host": request.host,
        "headers": request.headers, "bytes": request.bytes, "alpn": request.alpn,
    })
    .to_string()
}

/// What was got, as JSON.
fn described(line: &Line) -> Response<Body> {
    let mut answer = Response::new(whole(described_text(line)));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn stream(frames: mpsc::Receiver<Frame<Bytes>>) -> Body {
    StreamBody::new(ReceiverStream::new(frames).map(Ok)).boxed_unsync()
}

fn bytes(length: u64) -> Body {
    let (sender, frames) = mpsc::channel(4);
    drop(tokio::spawn(async move {
        let mut left = length;
        while left > 0 {
            let piece = left.min(PIECE as u64);
            left -= piece;
            let data = Bytes::from(vec![b'x'; usize::try_from(piece).unwrap_or_default()]);
            if sender.send(Frame::data(data)).await.is_err() {
                return;
            }
        }
    }));
    stream(frames)
}

fn duplex(mut body: Incoming, mut line: Line) -> Body {
    let (sender, frames) = mpsc::channel(4);
    drop(tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            line.request.bytes += data.len() as u64;
            line.request.ids.extend(did::ids(&data));
            if sender.send(Frame::data(data)).await.is_err() {
                return;
            }
        }
        line.request.whole = true;
        drop(line);
    }));
    stream(frames)
}

fn trailers() -> Response<Body> {
    let (sender, frames) = mpsc::channel(2);
    let mut map = HeaderMap::new();
    map.insert("x-lab-trailer", HeaderValue::from_static("at the end"));
    // Both fit in: nothing waits, nothing fails.
    drop(sender.try_send(Frame::data(Bytes::from_static(b"a body with trailers\n"))));
    drop(sender.try_send(Frame::trailers(map)));
    let mut answer = Response::new(stream(frames));
    answer.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-lab-trailer"));
    answer
}

/// gzip (RFC 1952) of one stored block (RFC 1951, 3.2.4): nothing is compressed, and it is gzip.
fn gzip(data: &[u8]) -> Vec<u8> {
    let data = data.get(..usize::from(u16::MAX)).unwrap_or(data);
    let length = u16::try_from(data.len()).unwrap_or_default();
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(data);
    out.extend(crc32(data).to_le_bytes());
    out.extend(u32::from(length).to_le_bytes());
    out
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_checksum_is_that_of_gzip() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
