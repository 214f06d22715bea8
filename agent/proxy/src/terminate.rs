//! TLS that a client asks for: whether it ends here, and how that comes about on both legs.
//!
//! The order: the ClientHello is read whole and kept; trust is asked; the server is shaken hands with, and
//! verified; only then the client is answered, with what the server chose. Until then everything can still be
//! undone, by dialling again and passing the kept bytes on. Knows no protocol inside TLS.

mod hello;
mod look_back;
mod report;
mod shake;
mod way_out;

use std::rc::Rc;

use rustls::{Error, server::Accepted};
use verbatim_api::v1;
use verbatim_tls::{LeafName, Moment, NameError, Offer, refusal};
use verbatim_wire::seam::StartTls;

pub(crate) use self::shake::secure_server;
use self::{
    shake::{Handshake, in_one_line, shake, with_server},
    way_out::{Way, part, redial},
};
use crate::{
    Records,
    buffer::Buffer,
    connection::undecoded,
    control::Control,
    guard::catch,
    journal::Journal,
    legs::{End, Leg, Legs, TlsLeg, Watch},
    seam::{Flow, Identity, Termination, Tls},
    shard::Shard,
    sniff::First,
};

/// What became of it.
pub(crate) enum Outcome {
    /// Both legs are TLS of ours.
    Terminated(Box<Inside>),
    /// It passes as it is, which is recorded: what was read of the client is still to go on.
    Passes,
}

/// TLS that ends here.
pub(crate) struct Inside {
    /// What the server chose, and so the client was told.
    pub(crate) alpn: Option<Vec<u8>>,
    /// The name that it was made for.
    pub(crate) name: LeafName,
    /// The name that the client asked for.
    pub(crate) server_name: Option<String>,
    /// Ours, DER, as the client saw it.
    pub(crate) certificate: Vec<u8>,
    pub(crate) client: Rc<Watch>,
    pub(crate) server: Rc<Watch>,
    /// The server asked for a client's certificate.
    pub(crate) certificate_requested: bool,
    /// A client of this protocol speaks as soon as TLS is there, whatever it opened the connection for: the preface of
    /// HTTP/2 (RFC 9113 section 3.4), the start-up of PostgreSQL. One of HTTP/1.1 may wait for its first request.
    speaks_at_once: bool,
    /// PostgreSQL, whose client has shown a certificate to us, in the server's place.
    shown_to_postgres: bool,
}

/// One client's wish for TLS.
pub(crate) struct Request<'a, R> {
    pub(crate) shard: &'a Shard<R>,
    pub(crate) tls: &'a Tls,
    pub(crate) control: &'a Control,
    pub(crate) server_name: Option<String>,
    /// How TLS was agreed on, where that was not by beginning it.
    pub(crate) start: Option<StartTls>,
}

/// Sessions are resumed within a workload only: its pod, or where there is none its cgroup.
pub(crate) fn workload(identity: &Identity, flow: &Flow) -> String {
    match identity.workload.pod_uid.as_str() {
        "" => format!("cgroup:{}", flow.cgroup_id),
        uid => uid.to_owned(),
    }
}

impl<R: Records> Request<'_, R> {
    /// Does what trust says. `first` holds the ClientHello; afterwards it is empty, or holds what is to be
    /// passed on.
    pub(crate) async fn serve(
        self,
        legs: &mut Legs,
        first: &mut First,
        journal: &mut Journal<R>,
    ) -> Result<Outcome, End> {
        if let Some(name) = &self.server_name {
            journal.facts.target.host.clone_from(name);
        }
        let judged = catch(|| {
            let facts = &journal.facts;
            self.tls.trust.judge(&facts.identity, &facts.flow, self.server_name.as_deref())
        });
        match judged.map_err(|panicked| End::Panicked(panicked.0))? {
            Termination::Terminate => {}
            Termination::Splice(reason) => return self.pass(reason, journal).await,
            Termination::Deny { reason, why } => {
                return Err(self.deny(legs, &way_out::ACCESS_DENIED, reason, why, journal).await);
            }
        }
        journal.facts.tls =
            Some(v1::Tls { server_name: self.server_name.clone().unwrap_or_default(), ..v1::Tls::default() });
        let (accepted, taken) = match hello::read(first.buffer.all()) {
            Ok(read) => read,
            Err((error @ Error::PeerIncompatible(_), _)) => {
                let why = format!("the client's TLS is not ours: {error}");
                let way = Way::Untouched(v1::OpaqueReason::TlsHandshakeFailed, why);
                return self.get_out(way, legs, first, journal).await;
            }
            Err((error, alert)) => {
                let why = format!("the client's TLS cannot be read: {error}");
                let reason = v1::OpaqueReason::TlsHandshakeFailed;
                return Err(self.deny(legs, &alert, reason, why, journal).await);
            }
        };
        let Some(offer) = hello::offer(first.buffer.all()) else {
            let why = "the client offers neither TLS 1.2 nor 1.3".to_owned();
            let way = Way::Untouched(v1::OpaqueReason::TlsHandshakeFailed, why);
            return self.get_out(way, legs, first, journal).await;
        };
        let name = match self.name(&journal.facts.flow) {
            Ok(name) if self.tls.authority.permits(&name) => name,
            Ok(name) => {
                let why = format!("`{name}` is outside the names that our authority may vouch for");
                let way = Way::Untouched(v1::OpaqueReason::NameOutsideConstraints, why);
                return self.get_out(way, legs, first, journal).await;
            }
            Err(error) => {
                let way = Way::Untouched(v1::OpaqueReason::NameOutsideConstraints, error.to_string());
                return self.get_out(way, legs, first, journal).await;
            }
        };
        match Box::pin(self.both(accepted, taken, &offer, name, legs, first, journal)).await {
            Ok(inside) => Ok(Outcome::Terminated(Box::new(inside))),
            Err(Stop::End(end)) => Err(end),
            Err(Stop::GetOut(way)) => Box::pin(self.get_out(way, legs, first, journal)).await,
        }
    }

    /// What the server's certificate must be for: the name that the client asked for, else the address.
    fn name(&self, flow: &Flow) -> Result<LeafName, NameError> {
        self.server_name.as_deref().map_or_else(|| Ok(flow.destination.ip().into()), LeafName::parse)
    }

    /// The client may come again without TLS: that must not take it from the server's leg. Where its TLS passes
    /// as it is, it does not come for a reason of ours.
    fn remember_tls(&self, flow: &Flow) {
        if self.start.is_some()
            && let Ok(name) = self.name(flow)
        {
            self.shard.known.had_tls(flow, &name);
        }
    }

    /// Shakes hands with the server, then with the client.
    #[expect(clippy::too_many_arguments, reason = "each is another party to it")]
    async fn both(
        &self,
        accepted: Accepted,
        taken: usize,
        offer: &Offer,
        name: LeafName,
        legs: &mut Legs,
        first: &mut First,
        journal: &mut Journal<R>,
    ) -> Result<Inside, Stop> {
        let Handshake { leg: server, requested } = with_server(self, offer, &name, legs, journal).await?;
        self.remember_tls(&journal.facts.flow);
        let alpn = server.session().alpn_protocol().map(<[u8]>::to_vec);
        let failed = v1::OpaqueReason::TlsHandshakeFailed;
        let leaf = match self.tls.authority.leaf(&name) {
            Ok(leaf) => leaf,
            Err(error) => return Err(Stop::GetOut(Way::Undo(failed, error.to_string()))),
        };
        let certificate = leaf.cert.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
        let config = match &requested {
            None => Ok(self.tls.downstream.config(leaf, alpn.clone())),
            // Without us the client would be asked as well.
            Some(requested) => self.tls.downstream.config_asking(leaf, alpn.clone(), requested),
        };
        let config = match config {
            Ok(config) => config,
            Err(error) => return Err(Stop::GetOut(Way::Undo(failed, error.to_string()))),
        };
        let session = match accepted.into_connection(config) {
            Ok(session) => session,
            Err((error, _alert)) => {
                let why = format!("the client's TLS does not fit: {error}");
                return Err(Stop::GetOut(Way::Undo(failed, why)));
            }
        };
        if legs.client.as_ref().is_some_and(Leg::is_known_to_have_gone) {
            // The server took its time, and the client did not wait: it has refused nothing.
            legs.server = Some(Leg::Tls(Box::new(server)));
            let why = "the client went away before it was answered".to_owned();
            return Err(Stop::End(self.client_left(why, failed, legs, journal).await));
        }
        // From here on the client is answered: nothing can be undone.
        first.buffer.dispose(taken);
        let ahead = std::mem::take(&mut first.buffer);
        let Some(Leg::Plain(socket)) = legs.client.take() else {
            return Err(Stop::End(End::Stuck("the client's leg is TLS already")));
        };
        let client = TlsLeg::new(socket, session.into(), Rc::clone(&self.shard.pool), ahead);
        let server_watch = server.watch();
        let client_watch = client.watch();
        legs.server = Some(Leg::Tls(Box::new(server)));
        let client = legs.client.insert(Leg::Tls(Box::new(client)));
        let shaken = shake(client, self.shard.config.handshake_timeout, self.control).await;
        match shaken {
            Ok(()) => {}
            Err(None) => return Err(Stop::End(End::Killed)),
            Err(Some(error)) => {
                return Err(Stop::End(self.client_failed(&error, legs, journal).await));
            }
        }
        let certificate_requested = requested.is_some();
        journal.facts.tls = Some(report::report(legs, self.server_name.as_deref(), certificate_requested));
        let shown = certificate_requested && shows_certificate(legs);
        let postgres = self.start.is_some() || alpn.as_deref() == Some(b"postgresql");
        if shown && !postgres {
            holds(self.tls, self.server_name.as_deref(), journal);
        }
        Ok(Inside {
            speaks_at_once: postgres || alpn.as_deref() == Some(b"h2"),
            shown_to_postgres: shown && postgres,
            alpn,
            name,
            server_name: self.server_name.clone(),
            certificate,
            client: client_watch,
            server: server_watch,
            certificate_requested,
        })
    }

    /// The client did not take our answer.
    async fn client_failed(&self, error: &std::io::Error, legs: &mut Legs, journal: &mut Journal<R>) -> End {
        journal.facts.tls = Some(report::report(legs, self.server_name.as_deref(), false));
        // A workload that has spoken here trusts us: when it goes without a word, it does so for a reason of its own.
        let trusts = self.shard.known.has_spoken(&journal.facts.flow);
        let moment = if trusts { Moment::Established } else { Moment::Handshake };
        let (reason, why) = match refusal(error, moment) {
            Some(alert) => {
                refused(self.tls, self.server_name.as_deref(), alert, journal);
                let why = format!("the client refused our certificate: {alert}");
                (v1::OpaqueReason::ClientDoesNotTrustUs, why)
            }
            None => {
                let why = format!("the client's TLS handshake failed: {}", in_one_line(error));
                (v1::OpaqueReason::TlsHandshakeFailed, why)
            }
        };
        self.client_left(why, reason, legs, journal).await
    }

    /// There is no TLS with the client, who may have been answered.
    async fn client_left(
        &self,
        why: String,
        reason: v1::OpaqueReason,
        legs: &mut Legs,
        journal: &mut Journal<R>,
    ) -> End {
        part(self.shard, legs, self.control).await;
        match undecoded(journal, self.control, reason).await {
            Ok(()) => End::Tls(why),
            Err(end) => end,
        }
    }

    async fn pass(&self, reason: v1::OpaqueReason, journal: &mut Journal<R>) -> Result<Outcome, End> {
        undecoded(journal, self.control, reason).await?;
        Ok(Outcome::Passes)
    }

    /// Answers the client by an alert and ends it.
    async fn deny(
        &self,
        legs: &mut Legs,
        alert: &[u8],
        reason: v1::OpaqueReason,
        why: String,
        journal: &mut Journal<R>,
    ) -> End {
        way_out::say(legs, alert, self.control).await;
        part(self.shard, legs, self.control).await;
        match undecoded(journal, self.control, reason).await {
            Ok(()) => End::Tls(why),
            Err(end) => end,
        }
    }

    /// It cannot end here, and the client has had no answer yet.
    async fn get_out(
        &self,
        way: Way,
        legs: &mut Legs,
        first: &First,
        journal: &mut Journal<R>,
    ) -> Result<Outcome, End> {
        let (touched, reason, why) = way.open();
        let judged = catch(|| {
            let facts = &journal.facts;
            let name = self.server_name.as_deref();
            self.tls.trust.cannot(&facts.identity, &facts.flow, name, reason, &why)
        });
        match judged.map_err(|panicked| End::Panicked(panicked.0))? {
            Termination::Deny { reason, why } => {
                self.remember_tls(&journal.facts.flow);
                Err(self.deny(legs, &way_out::HANDSHAKE_FAILURE, reason, why, journal).await)
            }
            Termination::Splice(_) | Termination::Terminate => {
                debug_assert!(!first.buffer.is_empty(), "the hello is kept");
                undecoded(journal, self.control, reason).await?;
                journal.remark(why);
                if touched {
                    redial(self, legs, journal).await?;
                }
                Ok(Outcome::Passes)
            }
        }
    }
}

/// Remembers that the client refused our certificate.
pub(crate) fn refused<R: Records>(
    tls: &Tls,
    server_name: Option<&str>,
    alert: &str,
    journal: &mut Journal<R>,
) {
    let facts = &mut journal.facts;
    facts.tls.get_or_insert_default().refusal = alert.to_owned();
    if let Err(panicked) = catch(|| tls.trust.refused(&facts.identity, &facts.flow, server_name, alert)) {
        tracing::error!(message = panicked.0, "refusal is not remembered");
    }
}

/// Remembers that the server insists on a client's certificate.
pub(crate) fn insists<R: Records>(tls: &Tls, server_name: Option<&str>, journal: &Journal<R>) {
    let facts = &journal.facts;
    let told = catch(|| tls.trust.wants_client_certificate(&facts.identity, &facts.flow, server_name));
    if let Err(panicked) = told {
        tracing::error!(message = panicked.0, "the server's wish is not remembered");
    }
}

/// Whether the client has shown a certificate to us, in the server's place.
fn shows_certificate(legs: &Legs) -> bool {
    let client = legs.client.as_ref().and_then(Leg::tls);
    client.and_then(|leg| leg.session().peer_certificates()).is_some_and(|chain| !chain.is_empty())
}

/// Remembers that the client goes by a certificate that we do not have.
fn holds<R: Records>(tls: &Tls, server_name: Option<&str>, journal: &mut Journal<R>) {
    let what =
        "the client showed a certificate, which cannot be passed on: the next connection passes as it is";
    journal.remark(what.to_owned());
    let facts = &journal.facts;
    if let Err(panicked) = catch(|| tls.trust.shows_certificate(&facts.identity, &facts.flow, server_name)) {
        tracing::error!(message = panicked.0, "the client's certificate is not remembered");
    }
}

/// Why there are no two legs of TLS.
enum Stop {
    /// Nothing was answered yet.
    GetOut(Way),
    End(End),
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// Nothing was read.
pub(crate) fn nothing() -> Buffer {
    Buffer::default()
}
