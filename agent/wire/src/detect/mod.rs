//! Says from the first bytes of a connection which protocol its client speaks.
//!
//! Owns detection and the name that the first bytes carry. A pure function over a prefix: it knows no
//! destination, no time-out and nothing of what comes after the first message.

mod http;
mod postgres;
mod tls;

pub use postgres::PostgresStart;
pub use tls::ClientHello;

/// More bytes than this are never asked for: a caller may size its buffer by it.
pub const MAX_BYTES: usize = 64 * 1024;

/// What the first bytes of a client are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detection {
    /// Everything so far fits a known protocol, but it is too little to tell. Never the answer for
    /// [`MAX_BYTES`] bytes or more.
    NeedMore,
    /// A TLS ClientHello that was read whole, or is too long to be read whole.
    Tls(ClientHello),
    /// PostgreSQL, and what it starts with.
    Postgres(PostgresStart),
    /// An HTTP/1 request line.
    Http1 {
        /// From the `Host` header or an absolute target, without a port, where it was among the bytes.
        host: Option<String>,
    },
    /// The connection preface of HTTP/2 with prior knowledge.
    Http2,
    /// None of these.
    Unknown,
}

impl Detection {
    /// The name of the server that the client asked for, where the first bytes carry one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tls(hello) => hello.server_name.as_deref(),
            Self::Http1 { host } => host.as_deref(),
            _ => None,
        }
    }
}

/// Detects the protocol from everything that the client has sent so far.
#[must_use]
pub fn detect(bytes: &[u8]) -> Detection {
    let Some(first) = bytes.first() else {
        return Detection::NeedMore;
    };
    match first {
        0x16 => tls::detect(bytes),
        0x00 => postgres::detect(bytes),
        b'A'..=b'Z' => http::detect(bytes),
        _ => Detection::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that every proper prefix needs more and that the whole is what is expected.
    fn at_every_prefix(bytes: &[u8], expected: &Detection) {
        let last = bytes.len().saturating_sub(1);
        for length in 0..=last {
            assert_eq!(detect(&bytes[..length]), Detection::NeedMore, "after {length} bytes");
        }
        assert_eq!(detect(bytes), *expected);
    }

    #[test]
    fn postgresql_is_known_after_eight_bytes_and_not_before() {
        for (bytes, start) in [
            (&[0u8, 0, 0, 8, 4, 210, 22, 47], PostgresStart::SslRequest),
            (&[0, 0, 0, 8, 4, 210, 22, 48], PostgresStart::GssEncRequest),
            (&[0, 0, 0, 16, 4, 210, 22, 46], PostgresStart::CancelRequest),
            (&[0, 0, 0, 41, 0, 3, 0, 0], PostgresStart::Startup),
            (&[0, 0, 0, 41, 0, 3, 0, 2], PostgresStart::Startup),
        ] {
            at_every_prefix(bytes, &Detection::Postgres(start));
        }
    }

    #[test]
    fn zeros_that_are_no_start_up_packet_are_unknown() {
        assert_eq!(detect(&[0, 0, 0, 4]), Detection::Unknown);
        assert_eq!(detect(&[0, 1]), Detection::Unknown);
        assert_eq!(detect(&[0, 0, 0x27, 0x11]), Detection::Unknown);
        assert_eq!(detect(&[0, 0, 0, 9, 4, 210, 22, 47]), Detection::Unknown);
        assert_eq!(detect(&[0, 0, 0, 41, 0, 9, 0, 0]), Detection::Unknown);
    }

    #[test]
    fn an_http1_request_is_known_at_the_end_of_its_first_line() {
        at_every_prefix(b"GET /a?b HTTP/1.1\r\n", &Detection::Http1 { host: None });
        assert_eq!(detect(b"POST /x HTTP/1.1\r\nhost: a.example:8080\r\n").host(), Some("a.example"));
        assert_eq!(detect(b"GET http://b.example/x HTTP/1.0\r\n").host(), Some("b.example"));
        assert_eq!(detect(b"CONNECT c.example:443 HTTP/1.1\r\n").host(), Some("c.example"));
        assert_eq!(detect(b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").host(), Some("::1"));
    }

    #[test]
    fn a_host_header_that_is_not_whole_yet_is_not_half_a_name() {
        assert_eq!(detect(b"GET / HTTP/1.1\r\nHost: a.exam").host(), None);
    }

    #[test]
    fn an_http2_preface_is_known_when_it_is_whole() {
        at_every_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &Detection::Http2);
        assert_eq!(detect(b"PRI * HTTP/2.1\r\n"), Detection::Unknown);
    }

    #[test]
    fn other_letters_are_unknown_at_once() {
        assert_eq!(detect(b"SSH-2.0-x\r\n"), Detection::Unknown);
        assert_eq!(detect(b"EHLO me\r\n"), Detection::Unknown);
        assert_eq!(detect(b"*1\r\n$4\r\nPING"), Detection::Unknown);
        assert_eq!(detect(b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVW"), Detection::Unknown);
    }

    #[test]
    fn an_endless_request_line_is_given_up_within_the_bound() {
        let mut bytes = b"GET /".to_vec();
        bytes.resize(MAX_BYTES, b'a');
        assert_eq!(detect(&bytes), Detection::Unknown);
    }

    #[test]
    fn a_client_hello_is_known_when_it_is_whole() {
        let hello = tls::tests::hello(Some("db.example"), &[b"postgresql"], 0);
        let expected = Detection::Tls(ClientHello {
            server_name: Some("db.example".into()),
            alpn: vec![b"postgresql".to_vec()],
            tls12: true,
            ..ClientHello::default()
        });
        at_every_prefix(&tls::tests::records(&hello, 16 * 1024), &expected);
    }

    #[test]
    fn a_client_hello_over_many_records_is_put_together() {
        // As large as with X25519MLKEM768.
        let hello = tls::tests::hello(Some("big.example"), &[b"h2", b"http/1.1"], 1500);
        let expected = Detection::Tls(ClientHello {
            server_name: Some("big.example".into()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            tls12: true,
            ..ClientHello::default()
        });
        for record in [1, 3, 100, 1000] {
            at_every_prefix(&tls::tests::records(&hello, record), &expected);
        }
    }

    #[test]
    fn a_client_hello_beyond_the_bound_is_tls_without_a_name() {
        let hello = tls::tests::hello(Some("x.example"), &[], 60_000);
        let mut records = tls::tests::records(&hello, 10);
        records.truncate(MAX_BYTES);
        assert_eq!(detect(&records), Detection::Tls(ClientHello::default()));
    }

    #[test]
    fn a_client_hello_without_extensions_or_with_broken_ones_is_tls_without_a_name() {
        assert_eq!(detect(&tls::tests::records(&tls::tests::hello(None, &[], 0), 100)).host(), None);
        let mut hello = tls::tests::hello(Some("x.example"), &[], 0);
        let last = hello.len() - 12;
        hello[last] = 0xff;
        assert!(matches!(detect(&tls::tests::records(&hello, 1000)), Detection::Tls(_)));
    }

    #[test]
    fn tls_that_does_not_begin_with_a_client_hello_is_unknown() {
        assert_eq!(detect(&[0x16, 3, 1, 0, 4, 2]), Detection::Unknown);
        assert_eq!(detect(&[0x16, 9]), Detection::Unknown);
        assert_eq!(detect(&[0x16, 3, 1, 0, 0]), Detection::Unknown);
    }
}
