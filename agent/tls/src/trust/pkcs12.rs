//! Java's trust stores as PKCS#12 (RFC 7292).
//!
//! Owns the part of it that holds certificates. What is written is plain: a trust store has no secret, and what is
//! neither encrypted nor under a MAC opens with whatever password Java was told, or none.

use std::io;

use rustls::pki_types::CertificateDer;
use yasna::{ASN1Error, BERReader, DERWriter, Tag, models::ObjectIdentifier};

const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];
const CERTIFICATE_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 3];
const X509_CERTIFICATE: &[u64] = &[1, 2, 840, 113_549, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113_549, 1, 9, 20];
/// Oracle's: without it Java takes the certificate for somebody's, not for a trusted one.
const TRUSTED_KEY_USAGE: &[u64] = &[2, 16, 840, 1, 113_894, 746_875, 1, 1];
const ANY_EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37, 0];

/// A trust store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is not what it should be.
    #[error("expected a trust store of Java's (PKCS#12 or JKS), found {0}")]
    Format(&'static str),
    /// Its certificates are encrypted, which is not supported.
    #[error(
        "its certificates are encrypted: give Java one without encryption (`keytool -importkeystore` with \
         `-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE -J-Dkeystore.pkcs12.macAlgorithm=NONE`)"
    )]
    Encrypted,
}

/// Writes a store with these certificates, all trusted for everything.
pub(super) fn write(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    let contents = yasna::construct_der(|writer| {
        writer.write_sequence(|bags| {
            for (index, certificate) in certificates.iter().enumerate() {
                bag(bags.next(), index, certificate);
            }
        });
    });
    let safes = yasna::construct_der(|writer| {
        writer.write_sequence(|safes| content(safes.next(), &contents));
    });
    yasna::construct_der(|writer| {
        writer.write_sequence(|pfx| {
            pfx.next().write_u8(3);
            content(pfx.next(), &safes);
        });
    })
}

/// `ContentInfo` of the kind *data* (RFC 2315, 7).
fn content(writer: DERWriter<'_>, bytes: &[u8]) {
    writer.write_sequence(|info| {
        info.next().write_oid(&oid(DATA));
        info.next().write_tagged(Tag::context(0), |writer| writer.write_bytes(bytes));
    });
}

fn bag(writer: DERWriter<'_>, index: usize, certificate: &[u8]) {
    writer.write_sequence(|bag| {
        bag.next().write_oid(&oid(CERTIFICATE_BAG));
        bag.next().write_tagged(Tag::context(0), |writer| {
            writer.write_sequence(|bag| {
                bag.next().write_oid(&oid(X509_CERTIFICATE));
                bag.next().write_tagged(Tag::context(0), |writer| writer.write_bytes(certificate));
            });
        });
        bag.next().write_set_of(|attributes| {
            attribute(attributes.next(), FRIENDLY_NAME, |writer| {
                writer.write_bmp_string(&format!("trusted-{index}"));
            });
            attribute(attributes.next(), TRUSTED_KEY_USAGE, |writer| {
                writer.write_oid(&oid(ANY_EXTENDED_KEY_USAGE));
            });
        });
    });
}

fn attribute(writer: DERWriter<'_>, name: &[u64], value: impl FnOnce(DERWriter<'_>)) {
    writer.write_sequence(|attribute| {
        attribute.next().write_oid(&oid(name));
        attribute.next().write_set_of(|values| value(values.next()));
    });
}

fn oid(components: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(components)
}

/// The certificates of a store that is not encrypted.
pub(super) fn read(
    bytes: &[u8],
    _password: Option<&str>,
) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let malformed = |_: ASN1Error| StoreError::Format("something else");
    let safes = yasna::parse_ber(bytes, |reader| {
        reader.read_sequence(|pfx| {
            let _version = pfx.next().read_u8()?;
            let safes = data(pfx.next())?;
            // The MAC, where there is one: under a password that we need not know.
            pfx.read_optional(|reader| reader.read_der())?;
            Ok(safes)
        })
    })
    .map_err(malformed)?
    .ok_or(StoreError::Encrypted)?;
    let contents = yasna::parse_ber(&safes, |reader| reader.collect_sequence_of(data)).map_err(malformed)?;
    let mut certificates = Vec::new();
    let mut encrypted = false;
    for content in contents {
        let Some(content) = content else {
            encrypted = true;
            continue;
        };
        let bags =
            yasna::parse_ber(&content, |reader| reader.collect_sequence_of(read_bag)).map_err(malformed)?;
        certificates.extend(bags.into_iter().flatten().map(CertificateDer::from));
    }
    if certificates.is_empty() && encrypted { Err(StoreError::Encrypted) } else { Ok(certificates) }
}

/// The bytes of a `ContentInfo` of the kind *data*; `None` for any other, encrypted ones among them.
fn data(reader: BERReader<'_, '_>) -> Result<Option<Vec<u8>>, ASN1Error> {
    reader.read_sequence(|info| {
        let kind = info.next().read_oid()?;
        info.next().read_tagged(Tag::context(0), |reader| {
            if kind == oid(DATA) { reader.read_bytes().map(Some) } else { reader.read_der().map(|_| None) }
        })
    })
}

/// The certificate of a bag; `None` for a bag of something else.
fn read_bag(reader: BERReader<'_, '_>) -> Result<Option<Vec<u8>>, ASN1Error> {
    reader.read_sequence(|bag| {
        let kind = bag.next().read_oid()?;
        let certificate = bag.next().read_tagged(Tag::context(0), |reader| {
            if kind != oid(CERTIFICATE_BAG) {
                return reader.read_der().map(|_| None);
            }
            reader.read_sequence(|bag| {
                let kind = bag.next().read_oid()?;
                bag.next().read_tagged(Tag::context(0), |reader| {
                    if kind == oid(X509_CERTIFICATE) {
                        reader.read_bytes().map(Some)
                    } else {
                        reader.read_der().map(|_| None)
                    }
                })
            })
        })?;
        bag.read_optional(|reader| reader.read_der())?;
        Ok(certificate)
    })
}
