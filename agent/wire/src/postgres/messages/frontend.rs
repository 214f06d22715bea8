//! Messages of the client.

use crate::{
    reader::{Malformed, Reader},
    seam::ParameterFormat,
};

/// What Describe and Close are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) enum Target<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::postgres) struct Parse<'a> {
    pub(in crate::postgres) name: &'a [u8],
    pub(in crate::postgres) text: &'a [u8],
    pub(in crate::postgres) types: Vec<u32>,
}

/// The head of a Bind; its values follow by [`values`].
#[derive(Clone, Copy, Debug)]
pub(in crate::postgres) struct Bind<'a> {
    pub(in crate::postgres) portal: &'a [u8],
    pub(in crate::postgres) statement: &'a [u8],
    pub(in crate::postgres) formats: Formats<'a>,
    rest: Reader<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::postgres) struct FunctionCall<'a> {
    pub(in crate::postgres) function: u32,
    pub(in crate::postgres) formats: Formats<'a>,
    rest: Reader<'a>,
}

/// Format codes: none (all text), one for all, or one for each.
#[derive(Clone, Copy, Debug)]
pub(in crate::postgres) struct Formats<'a>(&'a [u8]);

impl<'a> Formats<'a> {
    /// Two bytes a code.
    pub(in crate::postgres) fn new(codes: &'a [u8]) -> Self {
        Self(codes)
    }

    pub(in crate::postgres) fn of(&self, index: usize) -> ParameterFormat {
        let (codes, _) = self.0.as_chunks::<2>();
        let code = match codes {
            [] => return ParameterFormat::Text,
            [all] => Some(all),
            each => each.get(index),
        };
        match code {
            Some([0, 0]) | None => ParameterFormat::Text,
            Some(_) => ParameterFormat::Binary,
        }
    }
}

/// Query and CopyFail: one string.
pub(in crate::postgres) fn text(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    let text = reader.string()?;
    reader.end()?;
    Ok(text)
}

pub(in crate::postgres) fn parse(body: &[u8]) -> Result<Parse<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let name = reader.string()?;
    let text = reader.string()?;
    let types = types(reader.rest())?;
    Ok(Parse { name, text, types })
}

/// A count and as many type OIDs, to the end.
pub(in crate::postgres) fn types(tail: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut reader = Reader::new(tail);
    let count = reader.u16()?;
    let (oids, rest) = reader.rest().as_chunks::<4>();
    if oids.len() != usize::from(count) || !rest.is_empty() {
        return Err(Malformed);
    }
    Ok(oids.iter().map(|oid| u32::from_be_bytes(*oid)).collect())
}

pub(in crate::postgres) fn bind(body: &[u8]) -> Result<Bind<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let portal = reader.string()?;
    let statement = reader.string()?;
    let formats = formats(&mut reader)?;
    Ok(Bind { portal, statement, formats, rest: reader })
}

pub(in crate::postgres) fn function_call(body: &[u8]) -> Result<FunctionCall<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let function = reader.u32()?;
    let formats = formats(&mut reader)?;
    Ok(FunctionCall { function, formats, rest: reader })
}

fn formats<'a>(reader: &mut Reader<'a>) -> Result<Formats<'a>, Malformed> {
    let count = usize::from(reader.u16()?);
    reader.take(count.saturating_mul(2)).map(Formats)
}

impl<'a> Bind<'a> {
    /// Gives each value in turn to `take`; what follows the values is checked too.
    pub(in crate::postgres) fn values(
        &self,
        take: impl FnMut(usize, Option<&'a [u8]>),
    ) -> Result<(), Malformed> {
        let mut reader = values(self.rest, take)?;
        formats(&mut reader)?;
        reader.end()
    }
}

impl<'a> FunctionCall<'a> {
    /// As [`Bind::values`].
    pub(in crate::postgres) fn values(
        &self,
        take: impl FnMut(usize, Option<&'a [u8]>),
    ) -> Result<(), Malformed> {
        let mut reader = values(self.rest, take)?;
        reader.u16()?;
        reader.end()
    }
}

fn values<'a>(
    mut reader: Reader<'a>,
    mut take: impl FnMut(usize, Option<&'a [u8]>),
) -> Result<Reader<'a>, Malformed> {
    let count = usize::from(reader.u16()?);
    for index in 0..count {
        let length = reader.i32()?;
        match usize::try_from(length) {
            Ok(length) => take(index, Some(reader.take(length)?)),
            Err(_) if length == -1 => take(index, None),
            Err(_) => return Err(Malformed),
        }
    }
    Ok(reader)
}

pub(in crate::postgres) fn target(body: &[u8]) -> Result<Target<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let kind = reader.u8()?;
    let name = reader.string()?;
    reader.end()?;
    match kind {
        b'S' => Ok(Target::Statement(name)),
        b'P' => Ok(Target::Portal(name)),
        _ => Err(Malformed),
    }
}

/// Execute: portal and row limit (0 or less: none).
pub(in crate::postgres) fn execute(body: &[u8]) -> Result<(&[u8], i32), Malformed> {
    let mut reader = Reader::new(body);
    let portal = reader.string()?;
    let rows = reader.i32()?;
    reader.end()?;
    Ok((portal, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_gives_its_values_with_their_formats() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0";
        let bind = bind(body).expect("well-formed");
        assert_eq!((bind.portal, bind.statement), (&b"p"[..], &b"s"[..]));
        assert_eq!(bind.formats.of(1), ParameterFormat::Binary);
        let mut values = Vec::new();
        bind.values(|index, value| values.push((index, value))).expect("well-formed");
        assert_eq!(values, [(0, Some(&b"x"[..])), (1, None)]);
    }

    #[test]
    fn trailing_and_missing_bytes_are_malformed() {
        assert_eq!(text(b"a\0b").err(), Some(Malformed));
        assert_eq!(text(b"a").err(), Some(Malformed));
        assert_eq!(parse(b"\0select\0\0\x01\0\0\0").err(), Some(Malformed));
        assert_eq!(parse(b"\0select\0\0\0\0").err(), Some(Malformed));
        assert_eq!(execute(b"\0\0\0\0\0\0").err(), Some(Malformed));
        assert_eq!(target(b"X\0").err(), Some(Malformed));
        let bind = bind(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0").expect("head is well-formed");
        assert_eq!(bind.values(|_, _| {}), Err(Malformed));
    }
}
