//! What only the end of a connection says of its TLS: a client that verified late, a server that wanted a
//! certificate after all, an end that was cut off.

use verbatim_api::v1;
use verbatim_tls::{Moment, UpstreamFailure, refusal};

use super::{Inside, holds, insists, refused};
use crate::{
    Records,
    connection::undecoded,
    control::Control,
    journal::Journal,
    legs::{End, Watch},
    seam::Tls,
    shard::Shard,
};

/// Connections that a client closes in good order without a word until that counts as a refusal, where its protocol
/// lets it open one in advance and not need it.
const CLOSED_UNUSED: u8 = 2;

impl Inside {
    /// Records and remembers it.
    pub(crate) async fn look_back<R: Records>(
        &self,
        shard: &Shard<R>,
        journal: &mut Journal<R>,
        control: &Control,
    ) -> Result<(), End> {
        let Some(tls) = &shard.deps.tls else { return Ok(()) };
        for (who, watch) in [("workload", &self.client), ("server", &self.server)] {
            if let Some(failure) = watch.failure() {
                journal.remark(format!("TLS with the {who} broke: {failure}"));
            } else if watch.truncated() && watch.spoke() {
                journal
                    .remark(format!("the {who}'s TLS ended without close_notify: it may have been cut off"));
            }
        }
        let name = self.server_name.as_deref();
        if let Some(alert) = self.late_refusal(shard, journal) {
            refused(tls, name, alert, journal);
            journal.remark(format!("the client refused our certificate after the handshake: {alert}"));
            return undecoded(journal, control, v1::OpaqueReason::ClientDoesNotTrustUs).await;
        }
        if self.shown_to_postgres {
            self.shown(shard, tls, journal);
        }
        if insisted(&self.server, self.certificate_requested) {
            insists(tls, name, journal);
            let what = "the server insists on a client's certificate: the next connection passes as it is";
            journal.remark(what.to_owned());
            return undecoded(journal, control, v1::OpaqueReason::ClientCertificateRequired).await;
        }
        Ok(())
    }

    /// PostgreSQL goes by a client's certificate only where its rules say so, and then no session begins without
    /// (manual, 20.12): where one has begun, the certificate is there for nothing, as many are.
    fn shown<R: Records>(&self, shard: &Shard<R>, tls: &Tls, journal: &mut Journal<R>) {
        let flow = &journal.facts.flow;
        if journal.has_commands() {
            shard.known.did_without_certificate(flow);
        } else if !shard.known.does_without_certificate(flow) {
            holds(tls, self.server_name.as_deref(), journal);
        }
    }

    /// A client may verify only after the handshake: its alert then, or that it goes away without a word. Without
    /// TLS's end that counts at once. With it (some libraries end TLS in good order when they refuse what they see)
    /// it counts at once where the protocol has every client speak as soon as it can, and else from the second time
    /// on. All of that only as long as no connection of its workload to this destination has said anything, and where
    /// it was not the server that ended the connection: a client may open one in advance and never need it.
    fn late_refusal<R: Records>(&self, shard: &Shard<R>, journal: &Journal<R>) -> Option<&'static str> {
        if self.client.spoke() {
            return None;
        }
        match self.client.failure() {
            Some(failure) => refusal(&failure, Moment::Established),
            None => {
                let flow = &journal.facts.flow;
                if shard.known.has_spoken(flow) || self.server.ended_before(&self.client) {
                    return None;
                }
                if self.client.truncated() || self.client.reset() {
                    return Some("eof");
                }
                let counts = || self.speaks_at_once || shard.known.closed_unused(flow) >= CLOSED_UNUSED;
                (self.client.ended() && counts()).then_some("close_notify")
            }
        }
    }
}

fn insisted(server: &Watch, certificate_requested: bool) -> bool {
    let failure = server.failure().filter(|_| !server.spoke());
    failure.is_some_and(|failure| {
        UpstreamFailure::read(&failure, certificate_requested) == UpstreamFailure::ClientCertificateRequired
    })
}
