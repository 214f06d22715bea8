//! Certificates under a password: PBES2 (RFC 8018, 6.2) with PBKDF2 and AES-CBC, as `keytool` writes it.
//!
//! Owns key derivation and decryption. Older ciphers (RC2, triple DES) are not supported: nobody should.

use std::num::NonZeroU32;

use aws_lc_rs::{
    cipher::{AES_128, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    iv::FixedLength,
    pbkdf2::{self, PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA384, PBKDF2_HMAC_SHA512},
};
use yasna::{ASN1Error, ASN1ErrorKind, BERReader, Tag, models::ObjectIdentifier};
use zeroize::Zeroizing;

use super::{StoreError, oid};

const PBES2: &[u64] = &[1, 2, 840, 113_549, 1, 5, 13];
const PBKDF2: &[u64] = &[1, 2, 840, 113_549, 1, 5, 12];
const HMAC_SHA1: &[u64] = &[1, 2, 840, 113_549, 2, 7];
const HMAC_SHA256: &[u64] = &[1, 2, 840, 113_549, 2, 9];
const HMAC_SHA384: &[u64] = &[1, 2, 840, 113_549, 2, 10];
const HMAC_SHA512: &[u64] = &[1, 2, 840, 113_549, 2, 11];
const AES_128_CBC: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 1, 2];
const AES_256_CBC: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 1, 42];
/// More rounds than this are no store but an attempt to keep us busy; `keytool` does 10,000.
const MAX_ITERATIONS: u32 = 1_000_000;

struct Parameters {
    salt: Vec<u8>,
    iterations: u32,
    hash: ObjectIdentifier,
    cipher: ObjectIdentifier,
    iv: Vec<u8>,
}

/// Decrypts an `EncryptedData` (RFC 2315, 13).
pub(super) fn decrypt(data: &[u8], password: Option<&str>) -> Result<Vec<u8>, StoreError> {
    let password = password.ok_or(StoreError::Password)?;
    let (parameters, bytes) = yasna::parse_ber(data, |reader| {
        reader.read_sequence(|data| {
            let _version = data.next().read_u8()?;
            data.next().read_sequence(|content| {
                let _kind = content.next().read_oid()?;
                let parameters = scheme(content.next())?;
                let bytes =
                    content.next().read_tagged_implicit(Tag::context(0), |reader| reader.read_bytes())?;
                Ok((parameters, bytes))
            })
        })
    })
    .map_err(|_malformed| StoreError::Cipher)?;
    open(&parameters.ok_or(StoreError::Cipher)?, bytes, password)
}

/// `None` for any scheme but PBES2.
fn scheme(reader: BERReader<'_, '_>) -> Result<Option<Parameters>, ASN1Error> {
    reader.read_sequence(|algorithm| {
        if algorithm.next().read_oid()? != oid(PBES2) {
            algorithm.read_optional(|reader| reader.read_der())?;
            return Ok(None);
        }
        algorithm.next().read_sequence(|parameters| {
            let (salt, iterations, hash) = parameters.next().read_sequence(|derivation| {
                if derivation.next().read_oid()? != oid(PBKDF2) {
                    return Err(ASN1Error::new(ASN1ErrorKind::Invalid));
                }
                derivation.next().read_sequence(|parameters| {
                    let salt = parameters.next().read_bytes()?;
                    let iterations = parameters.next().read_u32()?;
                    let _key_length = parameters.read_optional(|reader| reader.read_u32())?;
                    let hash = parameters.read_optional(|reader| {
                        reader.read_sequence(|hash| {
                            let name = hash.next().read_oid()?;
                            hash.read_optional(|reader| reader.read_der())?;
                            Ok(name)
                        })
                    })?;
                    // RFC 8018, A.2: the default.
                    Ok((salt, iterations, hash.unwrap_or_else(|| oid(HMAC_SHA1))))
                })
            })?;
            let (cipher, iv) = parameters.next().read_sequence(|cipher| {
                let name = cipher.next().read_oid()?;
                Ok((name, cipher.next().read_bytes()?))
            })?;
            Ok(Some(Parameters { salt, iterations, hash, cipher, iv }))
        })
    })
}

fn open(parameters: &Parameters, mut bytes: Vec<u8>, password: &str) -> Result<Vec<u8>, StoreError> {
    let named = |wanted: &[u64], name: &ObjectIdentifier| *name == oid(wanted);
    let hash = match &parameters.hash {
        name if named(HMAC_SHA1, name) => PBKDF2_HMAC_SHA1,
        name if named(HMAC_SHA256, name) => PBKDF2_HMAC_SHA256,
        name if named(HMAC_SHA384, name) => PBKDF2_HMAC_SHA384,
        name if named(HMAC_SHA512, name) => PBKDF2_HMAC_SHA512,
        _ => return Err(StoreError::Cipher),
    };
    let (cipher, length): (&'static Algorithm, usize) = match &parameters.cipher {
        name if named(AES_128_CBC, name) => (&AES_128, 16),
        name if named(AES_256_CBC, name) => (&AES_256, 32),
        _ => return Err(StoreError::Cipher),
    };
    let iterations = Some(parameters.iterations)
        .filter(|iterations| *iterations <= MAX_ITERATIONS)
        .and_then(NonZeroU32::new)
        .ok_or(StoreError::Cipher)?;
    let mut key = Zeroizing::new(vec![0; length]);
    pbkdf2::derive(hash, iterations, &parameters.salt, password.as_bytes(), &mut key);
    let iv = <[u8; 16]>::try_from(parameters.iv.as_slice()).map_err(|_length| StoreError::Cipher)?;
    let refused = |_: aws_lc_rs::error::Unspecified| StoreError::Password;
    let key =
        UnboundCipherKey::new(cipher, &key).and_then(PaddedBlockDecryptingKey::cbc_pkcs7).map_err(refused)?;
    let context = DecryptionContext::Iv128(FixedLength::from(&iv));
    Ok(key.decrypt(&mut bytes, context).map_err(refused)?.to_vec())
}
