//! Messages, put together.

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn string(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

pub(super) fn startup(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for (name, value) in pairs {
        body.extend(string(name));
        body.extend(string(value));
    }
    body.push(0);
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

pub(super) fn request(code: u32) -> Vec<u8> {
    [8u32.to_be_bytes(), code.to_be_bytes()].concat()
}

pub(super) fn query(text: &str) -> Vec<u8> {
    message(b'Q', &string(text))
}

pub(super) fn parse(name: &str, text: &str, types: &[u32]) -> Vec<u8> {
    let mut body = [string(name), string(text), (types.len() as u16).to_be_bytes().to_vec()].concat();
    body.extend(types.iter().flat_map(|oid| oid.to_be_bytes()));
    message(b'P', &body)
}

pub(super) fn bind(portal: &str, statement: &str, formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = [string(portal), string(statement)].concat();
    body.extend((formats.len() as u16).to_be_bytes());
    body.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            Some(value) => {
                body.extend((value.len() as u32).to_be_bytes());
                body.extend(*value);
            }
            None => body.extend((-1i32).to_be_bytes()),
        }
    }
    body.extend([0, 0]);
    message(b'B', &body)
}

pub(super) fn execute(portal: &str, rows: i32) -> Vec<u8> {
    message(b'E', &[string(portal), rows.to_be_bytes().to_vec()].concat())
}

pub(super) fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[vec![kind], string(name)].concat())
}

pub(super) fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[vec![kind], string(name)].concat())
}

pub(super) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub(super) fn complete(tag: &str) -> Vec<u8> {
    message(b'C', &string(tag))
}

pub(super) fn ready(state: u8) -> Vec<u8> {
    message(b'Z', &[state])
}

pub(super) fn error(code: &str, text: &str) -> Vec<u8> {
    let body = format!("SERROR\0VERROR\0C{code}\0M{text}\0\0");
    message(b'E', body.as_bytes())
}

pub(super) fn notice(text: &str) -> Vec<u8> {
    message(b'N', format!("SNOTICE\0VNOTICE\0C00000\0M{text}\0\0").as_bytes())
}

pub(super) fn row(value: &str) -> Vec<u8> {
    let length = (value.len() as u32).to_be_bytes();
    message(b'D', &[&[0, 1][..], &length, value.as_bytes()].concat())
}

pub(super) fn status(name: &str, value: &str) -> Vec<u8> {
    message(b'S', &[string(name), string(value)].concat())
}

pub(super) const PARSED: &[u8] = b"1\0\0\0\x04";
pub(super) const BOUND: &[u8] = b"2\0\0\0\x04";
pub(super) const CLOSED: &[u8] = b"3\0\0\0\x04";
pub(super) const NO_DATA: &[u8] = b"n\0\0\0\x04";
pub(super) const SUSPENDED: &[u8] = b"s\0\0\0\x04";
pub(super) const EMPTY: &[u8] = b"I\0\0\0\x04";
/// A RowDescription without columns.
pub(super) const ROWS: &[u8] = b"T\0\0\0\x06\0\0";
