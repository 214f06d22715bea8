//! Java's old trust stores (JKS): their certificates, read.
//!
//! Owns the format, versions 1 and 2, as the JDK documents it in `sun.security.provider.JavaKeyStore`. Its MAC is
//! not checked: what Java would take is what is taken.

use rustls::pki_types::CertificateDer;

use super::StoreError;

const MAGIC: [u8; 4] = 0xfeed_feed_u32.to_be_bytes();
const KEY: u32 = 1;
const TRUSTED: u32 = 2;

pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// The trusted certificates; keys are passed over.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let mut reader = Reader(bytes.strip_prefix(&MAGIC).unwrap_or_default());
    let version = reader.u32()?;
    if !(1..=2).contains(&version) {
        return Err(StoreError::Format("a JKS version that is neither 1 nor 2"));
    }
    let entries = reader.u32()?;
    let mut certificates = Vec::new();
    for _ in 0..entries {
        let tag = reader.u32()?;
        reader.text()?;
        let _created = reader.take(8)?;
        match tag {
            KEY => {
                let length = reader.u32()?;
                reader.take(length)?;
                for _ in 0..reader.u32()? {
                    reader.certificate(version)?;
                }
            }
            TRUSTED => certificates.push(CertificateDer::from(reader.certificate(version)?.to_vec())),
            _ => return Err(StoreError::Format("an entry that is neither a key nor a certificate")),
        }
    }
    Ok(certificates)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: u32) -> Result<&'a [u8], StoreError> {
        let (taken, rest) =
            self.0.split_at_checked(length as usize).ok_or(StoreError::Format("an early end"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, StoreError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(StoreError::Format("an early end"))?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*taken))
    }

    /// Two bytes of length, then modified UTF-8.
    fn text(&mut self) -> Result<&'a [u8], StoreError> {
        let (length, rest) = self.0.split_first_chunk().ok_or(StoreError::Format("an early end"))?;
        self.0 = rest;
        self.take(u16::from_be_bytes(*length).into())
    }

    fn certificate(&mut self, version: u32) -> Result<&'a [u8], StoreError> {
        if version == 2 {
            let _kind = self.text()?;
        }
        let length = self.u32()?;
        self.take(length)
    }
}
