//! SCRAM between a client that binds to our certificate and a server that is bound to its own, with what the server
//! keeps of the password (RFC 5802 section 3; channel binding of RFC 5929 section 4.1).
//!
//! Nonces, salt and iterations pass as they are. The two final messages differ, for the client's names our
//! certificate: its proof gives ClientKey, with which ours is made, and ServerKey makes the server's anew. The password
//! is in none of it. Knows no connection; ClientKey is wiped.

use core::mem;
use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    scram::{Failure, Hash, ServerFirst, hmac},
    verifier::Verifier,
};

/// The only kind of channel binding that PostgreSQL has.
const BOUND: &[u8] = b"p=tls-server-end-point,";

/// One authentication.
pub(super) struct Bridge {
    verifier: Arc<Verifier>,
    /// The client's GS2 header.
    header: Vec<u8>,
    /// Binding data of our certificate, and of the server's.
    ours: Vec<u8>,
    servers: Vec<u8>,
    /// `client-first-message-bare`.
    first: String,
    stage: Stage,
}

#[derive(Default)]
enum Stage {
    /// The server's first message is awaited.
    #[default]
    Begun,
    /// The client's last one is.
    Asked {
        server_first: String,
        nonce: String,
    },
    /// The server's last one is.
    Proved {
        /// What it must be.
        expected: Hash,
        /// The client's; `None`: its proof was wrong.
        answer: Option<Hash>,
    },
    /// Both have proved themselves.
    Done,
    Over,
}

/// The client's final message, as the server gets it.
pub(super) struct Last {
    pub(super) message: Vec<u8>,
    /// Whether the client's own proof fits the verifier. Where it does not, neither does the one in `message`: to
    /// refuse it is the server's.
    pub(super) fits: bool,
}

impl Bridge {
    /// From the client's first message, which passes as it is. `None` where that binds nothing, or cannot be read: the
    /// server says so.
    pub(super) fn begin(
        client_first: &[u8],
        verifier: Arc<Verifier>,
        ours: Vec<u8>,
        servers: Vec<u8>,
    ) -> Option<Self> {
        let rest = client_first.strip_prefix(BOUND)?;
        let authorization = rest.iter().position(|&byte| byte == b',')?;
        let header = BOUND.len().checked_add(authorization)?.checked_add(1)?;
        let (header, first) = client_first.split_at_checked(header)?;
        let first = core::str::from_utf8(first).ok()?.to_owned();
        Some(Self { verifier, header: header.to_vec(), ours, servers, first, stage: Stage::Begun })
    }

    /// The server's first message, which passes as it is. `false`: the verifier is not what the server has.
    pub(super) fn server_first(&mut self, message: &[u8]) -> Result<bool, Failure> {
        let Stage::Begun = mem::replace(&mut self.stage, Stage::Over) else {
            return Err(Failure("the server began SCRAM twice"));
        };
        let ServerFirst { text, nonce, salt, iterations } = ServerFirst::read(message)?;
        if salt != self.verifier.salt || iterations != self.verifier.iterations {
            return Ok(false);
        }
        self.stage = Stage::Asked { server_first: text.to_owned(), nonce: nonce.to_owned() };
        Ok(true)
    }

    /// The client's final message, and with it the one for the server.
    pub(super) fn client_last(&mut self, message: &[u8]) -> Result<Last, Failure> {
        let malformed = Failure("the client's last SCRAM message is malformed");
        let Stage::Asked { server_first, nonce } = mem::replace(&mut self.stage, Stage::Over) else {
            return Err(Failure("the client spoke out of turn in SCRAM"));
        };
        let text = core::str::from_utf8(message).map_err(|_invalid| malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(malformed)?;
        let mut fields = without_proof.split(',');
        let bound = fields.next().and_then(|field| field.strip_prefix("c=")).ok_or(malformed)?;
        let bound = BASE64_STANDARD.decode(bound).map_err(|_invalid| malformed)?;
        if bound != [self.header.as_slice(), &self.ours].concat() {
            return Err(Failure("the client is bound to another certificate than ours"));
        }
        if fields.next().and_then(|field| field.strip_prefix("r=")) != Some(&nonce) {
            return Err(malformed);
        }
        let proof = BASE64_STANDARD.decode(proof).map(Zeroizing::new).map_err(|_invalid| malformed)?;
        let mut client_key = Zeroizing::new(Hash::default());
        if proof.len() != client_key.len() {
            return Err(malformed);
        }
        client_key.copy_from_slice(&proof);
        let Verifier { stored_key, server_key, .. } = &*self.verifier;
        let signed = [self.first.as_str(), &server_first, without_proof].join(",");
        exclusive_or(&mut client_key, &Zeroizing::new(hmac(&**stored_key, &[signed.as_bytes()])?));
        let fits = equal(&Sha256::digest(*client_key).into(), stored_key);
        let answer = if fits { Some(hmac(&**server_key, &[signed.as_bytes()])?) } else { None };

        let bound = [self.header.as_slice(), &self.servers].concat();
        let without_proof = format!("c={},r={nonce}", BASE64_STANDARD.encode(bound));
        let signed = [self.first.as_str(), &server_first, &without_proof].join(",");
        exclusive_or(&mut client_key, &hmac(&**stored_key, &[signed.as_bytes()])?);
        let expected = hmac(&**server_key, &[signed.as_bytes()])?;
        self.stage = Stage::Proved { expected, answer };
        let message = format!("{without_proof},p={}", BASE64_STANDARD.encode(*client_key)).into_bytes();
        Ok(Last { message, fits })
    }

    /// The server's final message, and with it the one for the client.
    pub(super) fn server_last(&mut self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let wrong = Failure("the server did not prove that it knows the password");
        let Stage::Proved { expected, answer } = mem::replace(&mut self.stage, Stage::Over) else {
            return Err(wrong);
        };
        let signature = message.strip_prefix(b"v=").ok_or(wrong)?;
        let signature = BASE64_STANDARD.decode(signature).map_err(|_invalid| wrong)?;
        match answer {
            Some(answer) if signature == expected => {
                self.stage = Stage::Done;
                Ok(format!("v={}", BASE64_STANDARD.encode(answer)).into_bytes())
            }
            Some(_) => Err(wrong),
            None => Err(Failure("the server took a wrong proof")),
        }
    }

    /// Whether both have proved themselves.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }
}

fn exclusive_or(bytes: &mut Hash, other: &Hash) {
    for (byte, other) in bytes.iter_mut().zip(other) {
        *byte ^= other;
    }
}

/// In the same time whatever they are.
fn equal(one: &Hash, other: &Hash) -> bool {
    one.iter().zip(other).fold(0, |different, (one, other)| different | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::postgres::{
        scram::{self, Client},
        verifier::tests::PENCIL,
    };

    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const OURS: &[u8] = b"hash of ours";
    const SERVERS: &[u8] = b"hash of the server's";

    fn bridge(client: &Client) -> Bridge {
        let verifier = Arc::new(Verifier::parse(PENCIL).expect("a verifier"));
        Bridge::begin(&client.first(), verifier, OURS.to_vec(), SERVERS.to_vec()).expect("bound")
    }

    fn client(password: &str) -> Client {
        Client::new(password.as_bytes(), &[7; 18], Some(OURS))
    }

    fn server_first(client: &Client) -> Vec<u8> {
        let first = String::from_utf8(client.first()).expect("text");
        format!("r={}more,s={SALT},i=4096", first.rsplit("r=").next().expect("a nonce")).into_bytes()
    }

    /// With the RFC's own salted password, proof and signature are those of somebody who knows the password: a client
    /// that is bound to the server's certificate.
    #[test]
    fn the_server_gets_the_proof_of_one_who_knows_the_password_and_the_client_its_own_signature() {
        let mut client = client("pencil");
        let mut knows = Client::new(b"pencil", &[7; 18], Some(SERVERS));
        let mut bridge = bridge(&client);
        let first = server_first(&client);
        assert_eq!(bridge.server_first(&first), Ok(true));
        let last = client.last(&first).expect("a proof");
        let Last { message, fits } = bridge.client_last(&last).expect("well-formed");
        assert!(fits);
        assert_ne!(message, last);
        assert_eq!(message, knows.last(&first).expect("a proof"));
        let answer = bridge.server_last(&knows.expected()).expect("the right signature");
        client.verify(&answer).expect("what the client expects");
        assert!(bridge.is_done());
    }

    /// RFC 7677 section 3, without channel binding: the keys are those of the verifier.
    #[test]
    fn the_proof_of_the_rfc_fits_its_verifier() {
        let verifier = Verifier::parse(PENCIL).expect("a verifier");
        let signed = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                      s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,\
                      r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = BASE64_STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").expect("base64");
        let mut client_key: Hash = proof.try_into().expect("32 bytes");
        exclusive_or(&mut client_key, &hmac(&*verifier.stored_key, &[signed.as_bytes()]).expect("a hash"));
        assert!(equal(&Sha256::digest(client_key).into(), &verifier.stored_key));
        let signature = hmac(&*verifier.server_key, &[signed.as_bytes()]).expect("a hash");
        assert_eq!(BASE64_STANDARD.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_wrong_password_makes_a_proof_that_the_server_refuses_too() {
        let mut client = client("pen");
        let mut bridge = bridge(&client);
        let first = server_first(&client);
        assert_eq!(bridge.server_first(&first), Ok(true));
        let last = client.last(&first).expect("a proof");
        let sent = bridge.client_last(&last).expect("well-formed");
        assert!(!sent.fits);
        let mut knows = Client::new(b"pencil", &[7; 18], Some(SERVERS));
        assert_ne!(sent.message, knows.last(&first).expect("a proof"));
        assert!(bridge.server_last(&knows.expected()).is_err(), "nobody proved anything to this server");
    }

    #[test]
    fn another_salt_or_count_means_that_the_verifier_is_out_of_date() {
        for more in ["s=AAAA,i=4096", &format!("s={SALT},i=4097")] {
            let client = client("pencil");
            let mut bridge = bridge(&client);
            let first = String::from_utf8(server_first(&client)).expect("text");
            let (nonce, _) = first.split_once(',').expect("a nonce");
            assert_eq!(bridge.server_first(format!("{nonce},{more}").as_bytes()), Ok(false));
            assert!(bridge.client_last(b"c=,r=,p=").is_err(), "it is over");
        }
    }

    #[test]
    fn a_client_that_is_bound_to_another_certificate_is_refused() {
        let mut another = Client::new(b"pencil", &[7; 18], Some(SERVERS));
        let mut bridge = bridge(&another);
        let first = server_first(&another);
        assert_eq!(bridge.server_first(&first), Ok(true));
        let last = another.last(&first).expect("a proof");
        assert!(bridge.client_last(&last).is_err_and(|Failure(why)| why.contains("another certificate")));
    }

    #[test]
    fn only_a_client_that_binds_by_the_certificate_is_bridged() {
        let verifier = || Arc::new(Verifier::parse(PENCIL).expect("a verifier"));
        for first in
            [&b"n,,n=,r=abc"[..], b"y,,n=,r=abc", b"p=tls-unique,,n=,r=abc", b"p=tls-server-end-point"]
        {
            assert!(Bridge::begin(first, verifier(), OURS.to_vec(), SERVERS.to_vec()).is_none());
        }
    }

    proptest! {
        /// Whatever the three messages are, nothing panics and nobody is believed.
        #[test]
        fn malformed_messages_prove_nothing(
            server_first in "(r=[a-zA-Z0-9]{0,30})?,?(s=[a-zA-Z=]{0,6})?,?(i=.{0,4})?",
            last in "(c=[a-zA-Z=]{0,8})?,?(r=.{0,20})?(,p=[A-Za-z/+]{0,44}=?)?",
            server_last in "(v=)?.{0,44}",
            order in 0..6_u8,
        ) {
            let client = client("pencil");
            let mut bridge = bridge(&client);
            if order > 1 {
                prop_assert!(bridge.server_first(server_first.as_bytes()) != Ok(true));
            } else {
                prop_assert_eq!(bridge.server_first(&self::server_first(&client)), Ok(true));
            }
            if order % 2 == 0 {
                prop_assert!(!bridge.client_last(last.as_bytes()).is_ok_and(|last| last.fits));
            }
            prop_assert!(bridge.server_last(server_last.as_bytes()).is_err());
            prop_assert!(bridge.client_last(last.as_bytes()).is_err());
            prop_assert!(!bridge.is_done());
        }

        /// A right message with one byte changed is no right message.
        #[test]
        fn no_byte_of_a_proof_can_be_changed(at in 0..1000_usize, by in 1..=127_u8) {
            let mut client = client("pencil");
            let mut bridge = bridge(&client);
            let first = server_first(&client);
            prop_assert_eq!(bridge.server_first(&first), Ok(true));
            let mut last = client.last(&first).expect("a proof");
            let at = at % last.len();
            last[at] ^= by;
            prop_assert!(!bridge.client_last(&last).is_ok_and(|last| last.fits));
        }
    }

    #[test]
    fn the_mechanism_is_the_one_with_channel_binding() {
        assert_eq!(client("pencil").mechanism(), scram::PLUS);
    }
}
