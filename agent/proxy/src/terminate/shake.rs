//! Handshakes, within their time, and what a failed one upstream means.

use std::{future::poll_fn, io, rc::Rc, time::Duration};

use rustls::{ClientConnection, ProtocolVersion};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use verbatim_api::v1;
use verbatim_tls::{LeafName, Offer, Requested, UpstreamFailure, noticing};
use verbatim_wire::seam::{Direction, StartTls};

use super::{Request, Stop, insists, nothing, report, way_out, way_out::Way, workload};
use crate::{
    Records,
    connection::undecoded,
    control::Control,
    journal::Journal,
    legs::{End, Leg, Legs, TlsLeg},
    seam::Tls,
    shard::Shard,
};

/// What the network may take of the time that a server has for its objection.
const NETWORK: Duration = Duration::from_secs(2);

/// The server's leg after its handshake.
pub(super) struct Handshake {
    pub(super) leg: TlsLeg,
    /// The server asked for a client's certificate.
    pub(super) requested: Option<Requested>,
}

/// Drives one handshake. `Err(None)`: killed.
pub(super) async fn shake(
    leg: &mut Leg,
    patience: Duration,
    control: &Control,
) -> Result<(), Option<io::Error>> {
    let Leg::Tls(leg) = leg else { return Ok(()) };
    drive(leg, patience, control).await
}

async fn drive(leg: &mut TlsLeg, patience: Duration, control: &Control) -> Result<(), Option<io::Error>> {
    let killed = poll_fn(|cx| control.poll_killed(cx));
    let shaken = timeout(patience, poll_fn(|cx| leg.poll_handshake(cx)));
    tokio::select! {
        shaken = shaken => match shaken {
            Ok(shaken) => shaken.map_err(Some),
            Err(_elapsed) => {
                let why = format!("TLS was not ready within {patience:?}");
                Err(Some(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        },
        () = killed => Err(None),
    }
}

/// Shakes hands with the server over the socket that was dialled, and takes it out of the legs for that.
pub(super) async fn with_server<R: Records>(
    request: &Request<'_, R>,
    offer: &Offer,
    name: &LeafName,
    legs: &mut Legs,
    journal: &mut Journal<R>,
) -> Result<Handshake, Stop> {
    let Request { shard, tls, control, .. } = request;
    let failed = v1::OpaqueReason::TlsHandshakeFailed;
    let mut leg = match begin(shard, tls, offer, name, legs, journal) {
        Ok(leg) => leg,
        Err(why) => return Err(Stop::GetOut(Way::Undo(failed, why))),
    };
    let begun = Instant::now();
    let (mut shaken, requested) = noticing(drive(&mut leg, shard.config.handshake_timeout, control)).await;
    let certificate_requested = requested.is_some();
    if certificate_requested {
        let facts = &journal.facts;
        tls.upstream.never_resume(&workload(&facts.identity, &facts.flow), &name.server_name());
    }
    if shaken.is_ok() && certificate_requested && !shard.known.takes_none(&journal.facts.flow) {
        let patience = shard.config.objection_timeout + (begun.elapsed() * 2).min(NETWORK);
        shaken = objection(&mut leg, patience, control).await;
        if shaken.is_ok() {
            shard.known.took_none(&journal.facts.flow);
        }
    }
    let error = match shaken {
        Ok(()) => return Ok(Handshake { leg, requested }),
        Err(None) => return Err(Stop::End(End::Killed)),
        Err(Some(error)) => error,
    };
    if let Some(tls) = &mut journal.facts.tls {
        tls.server = Some(report::leg(&leg, certificate_requested));
    }
    Err(Stop::GetOut(match UpstreamFailure::read(&error, certificate_requested) {
        UpstreamFailure::ServerNotTrusted(why) => {
            let why = format!("the certificate of `{name}` is not accepted: {why}");
            Way::Undo(v1::OpaqueReason::ServerNotTrusted, why)
        }
        UpstreamFailure::ClientCertificateRequired => {
            insists(tls, request.server_name.as_deref(), journal);
            let why = format!("the server insists on a client's certificate: {error}");
            Way::Undo(v1::OpaqueReason::ClientCertificateRequired, why)
        }
        UpstreamFailure::Other => {
            Way::Undo(failed, format!("TLS with the server failed: {}", in_one_line(&error)))
        }
    }))
}

/// Waits for what a server says to a client without a certificate: of TLS 1.3 that comes only after the handshake
/// (RFC 8446 section 4.4.2.4), and as long as the client is not answered, everything can still be undone. Nearly all
/// servers say something: those who need none issue tickets. Silence for longer than the way there and back takes
/// means that it does without.
async fn objection(leg: &mut TlsLeg, patience: Duration, control: &Control) -> Result<(), Option<io::Error>> {
    if leg.session().protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(());
    }
    let killed = poll_fn(|cx| control.poll_killed(cx));
    tokio::select! {
        said = timeout(patience, poll_fn(|cx| leg.poll_first_words(cx))) => match said {
            Ok(said) => said.map_err(Some),
            Err(_silent) => Ok(()),
        },
        () = killed => Err(None),
    }
}

fn begin<R: Records>(
    shard: &Shard<R>,
    tls: &Tls,
    offer: &Offer,
    name: &LeafName,
    legs: &mut Legs,
    journal: &Journal<R>,
) -> Result<TlsLeg, String> {
    let facts = &journal.facts;
    let config = tls.upstream.config(&workload(&facts.identity, &facts.flow), offer);
    let session = ClientConnection::new(config, name.server_name()).map_err(|error| error.to_string())?;
    match legs.server.take() {
        Some(Leg::Plain(socket)) => {
            Ok(TlsLeg::new(socket, session.into(), Rc::clone(&shard.pool), nothing()))
        }
        other => {
            legs.server = other;
            Err("the server's leg is TLS already, or closed".to_owned())
        }
    }
}

pub(super) fn in_one_line(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        io::ErrorKind::ConnectionReset => "it reset the connection".to_owned(),
        _ => error.to_string(),
    }
}

/// TLS toward the server alone, of a connection that its client begins without: a client without TLS never
/// downgrades the server's leg.
pub(crate) async fn secure_server<R: Records>(
    shard: &Shard<R>,
    tls: &Tls,
    start: StartTls,
    legs: &mut Legs,
    journal: &mut Journal<R>,
    control: &Control,
) -> Result<(), End> {
    let secured = secure(shard, tls, start, legs, journal, control).await;
    let (reason, why) = match secured {
        Ok(()) => return Ok(()),
        Err(None) => return Err(End::Killed),
        Err(Some(failed)) => failed,
    };
    let words = (start.refusal)(&why);
    if journal.injected(None, Direction::ToClient, words.len() as u64).is_ok() {
        way_out::say(legs, &words, control).await;
    }
    way_out::part(shard, legs, control).await;
    undecoded(journal, control, reason).await?;
    Err(End::Tls(why))
}

async fn secure<R: Records>(
    shard: &Shard<R>,
    tls: &Tls,
    start: StartTls,
    legs: &mut Legs,
    journal: &mut Journal<R>,
    control: &Control,
) -> Result<(), Option<(v1::OpaqueReason, String)>> {
    let failed = |why: String| Some((v1::OpaqueReason::TlsHandshakeFailed, why));
    if let Err(error) = ask(start, legs, shard.config.handshake_timeout, control).await? {
        return Err(failed(format!("TLS is required toward the server: {}", in_one_line(&error))));
    }
    let facts = &journal.facts;
    let name = shard.known.tls_name(&facts.flow).unwrap_or_else(|| facts.flow.destination.ip().into());
    let offer = Offer { alpn: Vec::new(), tls12: true, tls13: true };
    let mut leg = begin(shard, tls, &offer, &name, legs, journal).map_err(failed)?;
    let shaken = noticing(drive(&mut leg, shard.config.handshake_timeout, control));
    let (shaken, requested) = shaken.await;
    let certificate_requested = requested.is_some();
    let server = Some(report::leg(&leg, certificate_requested));
    journal.facts.tls = Some(v1::Tls { client: Some(v1::TlsLeg::default()), server, ..v1::Tls::default() });
    match shaken {
        Ok(()) => {
            legs.server = Some(Leg::Tls(Box::new(leg)));
            Ok(())
        }
        Err(None) => Err(None),
        Err(Some(error)) => Err(Some(match UpstreamFailure::read(&error, certificate_requested) {
            UpstreamFailure::ServerNotTrusted(why) => {
                let why = format!("the certificate of `{name}` is not accepted: {why}");
                (v1::OpaqueReason::ServerNotTrusted, why)
            }
            UpstreamFailure::ClientCertificateRequired => {
                let why = "the server insists on a client's certificate".to_owned();
                (v1::OpaqueReason::ClientCertificateRequired, why)
            }
            UpstreamFailure::Other => {
                let why = format!("TLS with the server failed: {}", in_one_line(&error));
                (v1::OpaqueReason::TlsHandshakeFailed, why)
            }
        })),
    }
}

/// Asks the server for TLS in its protocol's own way. `Err(None)`: killed.
pub(super) async fn ask<T>(
    start: StartTls,
    legs: &mut Legs,
    patience: Duration,
    control: &Control,
) -> Result<io::Result<()>, Option<T>> {
    let Some(server) = &mut legs.server else { return Ok(Err(io::ErrorKind::NotConnected.into())) };
    let asking = async {
        server.write_all(start.request).await?;
        server.flush().await?;
        let mut answer = [0];
        server.read_exact(&mut answer).await?;
        if answer == [start.agreed] {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, "it does not speak TLS here"))
    };
    let killed = poll_fn(|cx| control.poll_killed(cx));
    tokio::select! {
        asked = timeout(patience, asking) => Ok(match asked {
            Ok(asked) => asked,
            Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
        }),
        () = killed => Err(None),
    }
}
