//! A bounded reader over one message: it never reads beyond it and complains about what is left over.

use core::ffi::CStr;

/// The bytes are not what the protocol says they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads big-endian numbers and strings from a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// A string up to its NUL, without it.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let text = CStr::from_bytes_until_nul(self.rest).map_err(|_absent| Malformed)?.to_bytes();
        self.rest = self.rest.get(text.len().saturating_add(1)..).ok_or(Malformed)?;
        Ok(text)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_neither_reads_beyond_the_end_nor_ignores_what_is_left() {
        let mut reader = Reader::new(b"\x00\x02ab\x00z");
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.string(), Ok(&b"ab"[..]));
        assert_eq!(reader.u16(), Err(Malformed));
        assert_eq!(reader.string(), Err(Malformed));
        assert_eq!(reader.end(), Err(Malformed));
        assert_eq!(reader.rest(), b"z");
        assert_eq!(reader.end(), Ok(()));
    }
}
