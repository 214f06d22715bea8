//! What was agreed on in TLS, on both legs.

use serde::Serialize;
use verbatim_api::v1;

use super::hex;

/// The TLS of a connection that we terminate.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TlsView {
    pub(crate) server_name: String,
    /// How the client refused our certificate.
    pub(crate) refusal: String,
    pub(crate) client: Option<LegView>,
    pub(crate) server: Option<LegView>,
}

/// One leg.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LegView {
    pub(crate) version: String,
    pub(crate) cipher_suite: String,
    pub(crate) alpn: String,
    pub(crate) peer_certificate_sha256: String,
    pub(crate) resumed: bool,
    pub(crate) client_certificate_requested: bool,
}

impl TlsView {
    pub(crate) fn new(tls: &v1::Tls) -> Self {
        Self {
            server_name: tls.server_name.clone(),
            refusal: tls.refusal.clone(),
            client: tls.client.as_ref().map(LegView::new),
            server: tls.server.as_ref().map(LegView::new),
        }
    }

    /// A line a leg, for a person.
    pub(crate) fn lines(&self) -> Vec<String> {
        let legs = [("from workload", &self.client), ("to server", &self.server)];
        let mut lines: Vec<_> =
            legs.into_iter().filter_map(|(name, leg)| Some(leg.as_ref()?.line(name))).collect();
        if !self.server_name.is_empty() {
            lines.push(format!("asked for {}", self.server_name));
        }
        if !self.refusal.is_empty() {
            lines.push(format!("our certificate was refused: {}", self.refusal));
        }
        lines
    }
}

impl LegView {
    fn new(leg: &v1::TlsLeg) -> Self {
        Self {
            version: leg.version.clone(),
            cipher_suite: leg.cipher_suite.clone(),
            alpn: leg.alpn.clone(),
            peer_certificate_sha256: hex(&leg.peer_certificate_sha256),
            resumed: leg.resumed,
            client_certificate_requested: leg.client_certificate_requested,
        }
    }

    fn line(&self, name: &str) -> String {
        if self.version.is_empty() {
            return format!("{name}: plaintext");
        }
        let mut line = format!("{name}: {} {}", self.version, self.cipher_suite);
        if !self.alpn.is_empty() {
            line.push_str(&format!(" {}", self.alpn));
        }
        if self.resumed {
            line.push_str(" resumed");
        }
        if self.client_certificate_requested {
            line.push_str(" asked for a client certificate");
        }
        if !self.peer_certificate_sha256.is_empty() {
            line.push_str(&format!(" certificate {}", self.peer_certificate_sha256));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_legs_are_told_in_a_line_each() {
        let leg = v1::TlsLeg {
            version: "TLSv1.3".into(),
            cipher_suite: "TLS13_AES_128_GCM_SHA256".into(),
            alpn: "h2".into(),
            resumed: true,
            ..v1::TlsLeg::default()
        };
        let tls = v1::Tls {
            client: Some(v1::TlsLeg::default()),
            server: Some(leg),
            server_name: "bigquery.googleapis.com".into(),
            ..v1::Tls::default()
        };
        let lines = TlsView::new(&tls).lines();
        assert_eq!(
            lines,
            [
                "from workload: plaintext",
                "to server: TLSv1.3 TLS13_AES_128_GCM_SHA256 h2 resumed",
                "asked for bigquery.googleapis.com"
            ]
        );
    }
}
