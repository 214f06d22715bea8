//! Channel binding of type `tls-server-end-point` (RFC 5929 section 4.1): a hash of the server's certificate.
//!
//! Owns which hash: that of the certificate's signature. Reads just enough DER (X.690) for it.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use crate::reader::{Malformed, Reader};

const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;
/// `[0]`, constructed.
const CONTEXT_0: u8 = 0xa0;
/// 1.2.840.113549.1.1, RSA's signatures (RFC 8017 appendix C).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
/// 1.2.840.10045.4, ECDSA's (RFC 5758 section 3.2).
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4];
/// 2.16.840.1.101.3.4.2, the SHA-2 hashes (RFC 5754 section 2).
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];

/// The binding data for a certificate in DER; `None` where none is defined (Ed25519, an unknown signature).
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    match hash(certificate).ok()?? {
        224 => Some(Sha224::digest(certificate).to_vec()),
        256 => Some(Sha256::digest(certificate).to_vec()),
        384 => Some(Sha384::digest(certificate).to_vec()),
        512 => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// Which SHA-2, by its bits. MD5 and SHA-1 stand for SHA-256.
fn hash(certificate: &[u8]) -> Result<Option<u16>, Malformed> {
    let mut outer = Reader::new(certificate);
    let mut fields = Reader::new(expect(&mut outer, SEQUENCE)?);
    let _to_be_signed = expect(&mut fields, SEQUENCE)?;
    let mut algorithm = Reader::new(expect(&mut fields, SEQUENCE)?);
    let object = expect(&mut algorithm, OBJECT)?;
    if let Some(kind) = object.strip_prefix(RSA) {
        return Ok(match kind {
            [4 | 5 | 11] => Some(256),
            [12] => Some(384),
            [13] => Some(512),
            [14] => Some(224),
            [10] => pss(algorithm)?,
            _ => None,
        });
    }
    Ok(match object.strip_prefix(ECDSA) {
        Some([1] | [3, 2]) => Some(256),
        Some([3, 1]) => Some(224),
        Some([3, 3]) => Some(384),
        Some([3, 4]) => Some(512),
        _ => None,
    })
}

/// RSASSA-PSS names its hash among its parameters (RFC 4055 section 3.1); without a name it is SHA-1.
fn pss(mut algorithm: Reader<'_>) -> Result<Option<u16>, Malformed> {
    let mut parameters = Reader::new(expect(&mut algorithm, SEQUENCE)?);
    let Ok((CONTEXT_0, named)) = element(&mut parameters) else { return Ok(Some(256)) };
    let mut hash = Reader::new(expect(&mut Reader::new(named), SEQUENCE)?);
    Ok(match expect(&mut hash, OBJECT)?.strip_prefix(SHA2) {
        Some([1]) => Some(256),
        Some([2]) => Some(384),
        Some([3]) => Some(512),
        Some([4]) => Some(224),
        _ => None,
    })
}

fn expect<'a>(reader: &mut Reader<'a>, tag: u8) -> Result<&'a [u8], Malformed> {
    match element(reader)? {
        (found, content) if found == tag => Ok(content),
        _ => Err(Malformed),
    }
}

fn element<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8]), Malformed> {
    let tag = reader.u8()?;
    let length = match reader.u8()? {
        short @ 0..=0x7f => usize::from(short),
        0x81 => usize::from(reader.u8()?),
        0x82 => usize::from(reader.u16()?),
        _ => return Err(Malformed),
    };
    Ok((tag, reader.take(length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = match content.len() {
            short @ 0..=0x7f => vec![short as u8],
            long => [&[0x82][..], &(long as u16).to_be_bytes()].concat(),
        };
        [&[tag][..], &length, content].concat()
    }

    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        let signed = wrap(SEQUENCE, &[5; 300]);
        wrap(SEQUENCE, &[signed, wrap(SEQUENCE, algorithm), wrap(3, &[0; 64])].concat())
    }

    fn object(prefix: &[u8], rest: &[u8]) -> Vec<u8> {
        wrap(OBJECT, &[prefix, rest].concat())
    }

    #[test]
    fn the_hash_is_the_signatures_own_and_sha_256_for_weak_ones() {
        for (algorithm, length) in [
            (object(RSA, &[4]), 32),
            (object(RSA, &[5]), 32),
            (object(RSA, &[11]), 32),
            (object(RSA, &[12]), 48),
            (object(RSA, &[13]), 64),
            (object(RSA, &[14]), 28),
            (object(ECDSA, &[1]), 32),
            (object(ECDSA, &[3, 2]), 32),
            (object(ECDSA, &[3, 3]), 48),
            (object(ECDSA, &[3, 4]), 64),
        ] {
            let certificate = certificate(&algorithm);
            assert_eq!(end_point(&certificate).map(|hash| hash.len()), Some(length), "{algorithm:?}");
        }
        let plain = certificate(&object(ECDSA, &[3, 2]));
        assert_eq!(end_point(&plain), Some(Sha256::digest(&plain).to_vec()));
    }

    #[test]
    fn pss_names_its_hash_among_its_parameters() {
        let named = wrap(CONTEXT_0, &wrap(SEQUENCE, &object(SHA2, &[2])));
        let algorithm = [object(RSA, &[10]), wrap(SEQUENCE, &named)].concat();
        assert_eq!(end_point(&certificate(&algorithm)).map(|hash| hash.len()), Some(48));
        let unnamed = [object(RSA, &[10]), wrap(SEQUENCE, &[])].concat();
        assert_eq!(end_point(&certificate(&unnamed)).map(|hash| hash.len()), Some(32));
    }

    #[test]
    fn without_a_known_hash_there_is_no_binding() {
        // Ed25519, 1.3.101.112.
        assert_eq!(end_point(&certificate(&object(&[0x2b, 0x65], &[0x70]))), None);
        let whole = certificate(&object(RSA, &[11]));
        for length in 0..300 {
            assert_eq!(end_point(&whole[..length]), None, "cut at {length}");
        }
        assert_eq!(end_point(b"not a certificate"), None);
    }
}
