//! The client's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677).
//!
//! Owns the three messages and their proofs. Knows no connection; makes no randomness. What the password and
//! its keys were in is wiped.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// The mechanism without channel binding.
pub(super) const PLAIN: &[u8] = b"SCRAM-SHA-256";
/// The mechanism with channel binding.
pub(super) const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";
/// More would hold up everything else on the thread; PostgreSQL's default is 4096.
pub(super) const MAX_ITERATIONS: u32 = 200_000;

/// SHA-256, or HMAC with it.
pub(super) type Hash = [u8; 32];

/// Why an authentication in the client's place did not come about: one line, without a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure(pub(super) &'static str);

/// The server's first message.
pub(super) struct ServerFirst<'a> {
    pub(super) text: &'a str,
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

impl<'a> ServerFirst<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Failure> {
        let malformed = Failure("the server's first SCRAM message is malformed");
        let text = core::str::from_utf8(message).map_err(|_invalid| malformed)?;
        let mut fields = text.split(',');
        let mut field =
            |name: &str| fields.next().and_then(|field| field.strip_prefix(name)).ok_or(malformed);
        let nonce = field("r=")?;
        let salt = BASE64_STANDARD.decode(field("s=")?).map_err(|_invalid| malformed)?;
        let iterations = field("i=")?.parse().map_err(|_invalid| malformed)?;
        Ok(Self { text, nonce, salt, iterations })
    }
}

/// One authentication.
pub(super) struct Client {
    password: Zeroizing<Vec<u8>>,
    /// GS2 header: which channel binding there is.
    header: &'static str,
    /// Header and channel binding data, as they are repeated at the end.
    binding: Vec<u8>,
    nonce: String,
    /// What the server must answer at the end; from the proof on.
    server_signature: Option<Hash>,
    verified: bool,
}

impl Client {
    /// `nonce`: random bytes. `end_point`: the channel binding data of type `tls-server-end-point` (RFC 5929
    /// section 4.1), where there is any.
    pub(super) fn new(password: &[u8], nonce: &[u8], end_point: Option<&[u8]>) -> Self {
        let header = if end_point.is_some() { "p=tls-server-end-point,," } else { "n,," };
        let binding = [header.as_bytes(), end_point.unwrap_or_default()].concat();
        Self {
            password: prepared(password),
            header,
            binding,
            nonce: BASE64_STANDARD.encode(nonce),
            server_signature: None,
            verified: false,
        }
    }

    /// The mechanism to name.
    pub(super) fn mechanism(&self) -> &'static [u8] {
        if self.header.starts_with('p') { PLUS } else { PLAIN }
    }

    fn first_bare(&self) -> String {
        // The name is in the start-up packet; PostgreSQL ignores this one.
        format!("n=,r={}", self.nonce)
    }

    /// The client's first message.
    pub(super) fn first(&self) -> Vec<u8> {
        format!("{}{}", self.header, self.first_bare()).into_bytes()
    }

    /// The client's final message, from the server's first.
    pub(super) fn last(&mut self, server_first: &[u8]) -> Result<Vec<u8>, Failure> {
        if self.server_signature.is_some() {
            return Err(Failure("the server began SCRAM twice"));
        }
        let ServerFirst { text, nonce, salt, iterations } = ServerFirst::read(server_first)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Failure("the server's SCRAM nonce does not begin with ours"));
        }
        if iterations == 0 || iterations > MAX_ITERATIONS {
            return Err(Failure("the server asks for no iterations of SCRAM, or for more than 200000"));
        }
        let mut salted = salted(&self.password, &salt, iterations)?;
        self.password.zeroize();
        let without_proof = format!("c={},r={nonce}", BASE64_STANDARD.encode(&self.binding));
        let signed = format!("{},{text},{without_proof}", self.first_bare());
        let mut client_key = hmac(&salted, &[b"Client Key"])?;
        let stored: Hash = Sha256::digest(client_key).into();
        let signature = hmac(&stored, &[signed.as_bytes()])?;
        for (byte, other) in client_key.iter_mut().zip(signature) {
            *byte ^= other;
        }
        let server_key = hmac(&salted, &[b"Server Key"])?;
        self.server_signature = Some(hmac(&server_key, &[signed.as_bytes()])?);
        salted.zeroize();
        Ok(format!("{without_proof},p={}", BASE64_STANDARD.encode(client_key)).into_bytes())
    }

    /// Checks the server's final message: only who knows the password's keys can have made it.
    pub(super) fn verify(&mut self, server_last: &[u8]) -> Result<(), Failure> {
        let wrong = Failure("the server did not prove that it knows the password");
        let signature = server_last.strip_prefix(b"v=").ok_or(wrong)?;
        let signature = BASE64_STANDARD.decode(signature).map_err(|_invalid| wrong)?;
        let expected = self.server_signature.ok_or(wrong)?;
        // It is no secret: the one who could learn it by timing has sent it.
        if signature != expected {
            return Err(wrong);
        }
        self.verified = true;
        Ok(())
    }

    /// What a server that knows the password answers.
    #[cfg(test)]
    pub(super) fn expected(&self) -> Vec<u8> {
        let signature = self.server_signature.map(|signature| BASE64_STANDARD.encode(signature));
        format!("v={}", signature.unwrap_or_default()).into_bytes()
    }

    /// Whether the server has proved itself.
    pub(super) fn verified(&self) -> bool {
        self.verified
    }
}

/// SASLprep (RFC 4013); as PostgreSQL has it, a password that it is not made for is taken as it is.
fn prepared(password: &[u8]) -> Zeroizing<Vec<u8>> {
    if password.is_ascii() {
        return Zeroizing::new(password.to_vec());
    }
    let text = core::str::from_utf8(password).ok();
    let prepared = text.and_then(|text| stringprep::saslprep(text).ok());
    Zeroizing::new(prepared.map_or_else(|| password.to_vec(), |text| text.into_owned().into_bytes()))
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, Failure> {
    Hmac::new_from_slice(key).map_err(|_length| Failure("a key is too long for HMAC"))
}

pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> Result<Hash, Failure> {
    let mut mac = keyed(key)?;
    for part in parts {
        mac.update(part);
    }
    Ok(mac.finalize().into_bytes().into())
}

/// `Hi` of RFC 5802 section 2.2: PBKDF2 with HMAC-SHA-256 and one block.
fn salted(password: &[u8], salt: &[u8], iterations: u32) -> Result<Hash, Failure> {
    let mac = keyed(password)?;
    let mut first = mac.clone();
    first.update(salt);
    first.update(&[0, 0, 0, 1]);
    let mut block: Hash = first.finalize().into_bytes().into();
    let mut sum = block;
    for _ in 1..iterations {
        let mut next = mac.clone();
        next.update(&block);
        block = next.finalize().into_bytes().into();
        for (byte, other) in sum.iter_mut().zip(block) {
            *byte ^= other;
        }
    }
    block.zeroize();
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677 section 3; its user name is PostgreSQL's empty one there, so the signatures are made by hand
    /// from the RFC's own salted password.
    #[test]
    fn the_salted_password_is_that_of_the_rfc() {
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let salted = salted(b"pencil", &salt, 4096).expect("salted");
        let client_key = hmac(&salted, &[b"Client Key"]).expect("key");
        let stored: Hash = Sha256::digest(client_key).into();
        let signed = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                      s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,\
                      r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac(&stored, &[signed.as_bytes()]).expect("signature");
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, other)| key ^ other).collect();
        assert_eq!(BASE64_STANDARD.encode(proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let server_key = hmac(&salted, &[b"Server Key"]).expect("key");
        let server = hmac(&server_key, &[signed.as_bytes()]).expect("signature");
        assert_eq!(BASE64_STANDARD.encode(server), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    fn client() -> Client {
        Client::new(b"pencil", &[7; 18], Some(b"hash of a certificate"))
    }

    fn server_first(client: &Client, more: &str) -> Vec<u8> {
        let first = String::from_utf8(client.first()).expect("text");
        let nonce = first.rsplit("r=").next().expect("nonce");
        format!("r={nonce}{more}").into_bytes()
    }

    #[test]
    fn channel_binding_is_named_first_and_repeated_with_its_data() {
        let mut client = client();
        assert_eq!(client.mechanism(), PLUS);
        assert!(client.first().starts_with(b"p=tls-server-end-point,,n=,r="));
        let server = server_first(&client, "x,s=AAAA,i=1");
        let last = String::from_utf8(client.last(&server).expect("well-formed")).expect("text");
        let bound = BASE64_STANDARD.encode(b"p=tls-server-end-point,,hash of a certificate");
        assert!(last.starts_with(&format!("c={bound},r=")), "{last}");
        let without = Client::new(b"pencil", &[7; 18], None);
        assert_eq!((without.mechanism(), without.first().starts_with(b"n,,")), (PLAIN, true));
    }

    #[test]
    fn a_server_that_breaks_the_rules_or_asks_for_too_much_is_refused() {
        for more in [
            "",
            "x",
            "x,s=AAAA",
            "x,s=!,i=1",
            "x,s=AAAA,i=0",
            "x,s=AAAA,i=200001",
            "x,s=AAAA,i=x",
            ",s=AAAA,i=1",
        ] {
            let mut client = client();
            let server = server_first(&client, more);
            assert!(client.last(&server).is_err(), "{more}");
        }
        assert!(client().last(b"r=another,s=AAAA,i=1").is_err());
    }

    #[test]
    fn only_the_right_signature_proves_the_server() {
        let mut client = client();
        assert!(client.verify(b"v=AAAA").is_err(), "before the proof");
        let server = server_first(&client, "x,s=AAAA,i=1");
        client.last(&server).expect("well-formed");
        for wrong in [&b"v=AAAA"[..], b"e=other-error", b"v=", b""] {
            assert!(client.verify(wrong).is_err());
            assert!(!client.verified());
        }
        let right = BASE64_STANDARD.encode(client.server_signature.expect("there"));
        client.verify(format!("v={right}").as_bytes()).expect("right");
        assert!(client.verified());
    }

    #[test]
    fn passwords_are_prepared_where_they_can_be() {
        assert_eq!(prepared("pass\u{ad}word\u{2168}".as_bytes()).as_slice(), b"passwordIX");
        assert_eq!(prepared(b"\xff\xfe").as_slice(), b"\xff\xfe");
    }
}
