//! Java's trust stores as PKCS#12 (RFC 7292).
//!
//! Owns the part of it that holds certificates. What is written is plain: a trust store has no secret, and what is
//! neither encrypted nor under a MAC opens with whatever password Java was told, or none.

mod encrypted;

use std::io;

use rustls::pki_types::CertificateDer;
use yasna::{ASN1Error, BERReader, DERWriter, Tag, models::ObjectIdentifier};

const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];
const ENCRYPTED_DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 6];
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
    /// Its certificates are encrypted in a way that is not supported.
    #[error(
        "its certificates are encrypted, but not with AES (PBES2): expected what `keytool` has written since Java 12, \
         or a store without encryption"
    )]
    Cipher,
    /// Its certificates are encrypted, and not with this password.
    #[error(
        "its certificates are encrypted: the password (javax.net.ssl.trustStorePassword) is missing or wrong"
    )]
    Password,
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

/// The certificates of a store. The MAC is not checked: what Java would take is what is taken.
pub(super) fn read(bytes: &[u8], password: Option<&str>) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let malformed = |_: ASN1Error| StoreError::Format("something else");
    let safes = yasna::parse_ber(bytes, |reader| {
        reader.read_sequence(|pfx| {
            let _version = pfx.next().read_u8()?;
            let safes = content_info(pfx.next())?;
            // The MAC, where there is one.
            pfx.read_optional(|reader| reader.read_der())?;
            Ok(safes)
        })
    });
    let Content::Data(safes) = safes.map_err(malformed)? else {
        return Err(StoreError::Format("one that is signed instead of under a password"));
    };
    let contents =
        yasna::parse_ber(&safes, |reader| reader.collect_sequence_of(content_info)).map_err(malformed)?;
    let mut certificates = Vec::new();
    for content in contents {
        let bags = |bytes: &[u8]| yasna::parse_ber(bytes, |reader| reader.collect_sequence_of(read_bag));
        let bags = match content {
            Content::Data(bytes) => bags(&bytes).map_err(malformed)?,
            // A wrong password may leave bytes that merely look padded.
            Content::Encrypted(data) => {
                bags(&encrypted::decrypt(&data, password)?).map_err(|_malformed| StoreError::Password)?
            }
            Content::Other => continue,
        };
        certificates.extend(bags.into_iter().flatten().map(CertificateDer::from));
    }
    Ok(certificates)
}

/// `ContentInfo` (RFC 2315, 7).
enum Content {
    Data(Vec<u8>),
    /// The DER of `EncryptedData`.
    Encrypted(Vec<u8>),
    Other,
}

fn content_info(reader: BERReader<'_, '_>) -> Result<Content, ASN1Error> {
    reader.read_sequence(|info| {
        let kind = info.next().read_oid()?;
        info.next().read_tagged(Tag::context(0), |reader| {
            if kind == oid(DATA) {
                reader.read_bytes().map(Content::Data)
            } else if kind == oid(ENCRYPTED_DATA) {
                reader.read_der().map(Content::Encrypted)
            } else {
                reader.read_der().map(|_| Content::Other)
            }
        })
    })
}

/// The certificate of a bag; `None` for a bag of something else, keys not least.
fn read_bag(reader: BERReader<'_, '_>) -> Result<Option<Vec<u8>>, ASN1Error> {
    reader.read_sequence(|bag| {
        let kind = bag.next().read_oid()?;
        let certificate = bag.next().read_tagged(Tag::context(0), |reader| {
            if kind == oid(CERTIFICATE_BAG) {
                read_certificate(reader)
            } else {
                reader.read_der().map(|_| None)
            }
        })?;
        bag.read_optional(|reader| reader.read_der())?;
        Ok(certificate)
    })
}

fn read_certificate(reader: BERReader<'_, '_>) -> Result<Option<Vec<u8>>, ASN1Error> {
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
}
