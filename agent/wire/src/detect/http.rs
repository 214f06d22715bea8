//! An HTTP/1 request line (RFC 9112, 3) and the connection preface of HTTP/2 (RFC 9113, 3.4).

use super::Detection;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method looked for, bytes; the longest registered one has 17.
const MAX_METHOD: usize = 20;
/// Longest request line looked at, bytes.
const MAX_LINE: usize = 16 * 1024;

pub(super) fn detect(bytes: &[u8]) -> Detection {
    if PREFACE.starts_with(bytes) && bytes != PREFACE {
        return Detection::NeedMore;
    }
    if bytes.starts_with(PREFACE) {
        return Detection::Http2;
    }
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    if method > MAX_METHOD {
        return Detection::Unknown;
    }
    let Some((b' ', after)) = bytes.get(method..).and_then(<[u8]>::split_first) else {
        return if bytes.len() == method { Detection::NeedMore } else { Detection::Unknown };
    };
    let window = after.get(..after.len().min(MAX_LINE)).unwrap_or_default();
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        let plausible = after.len() < MAX_LINE && could_become_target_and_version(after);
        return if plausible { Detection::NeedMore } else { Detection::Unknown };
    };
    let (line, rest) = after.split_at(end);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(target), Some(version), None) = (words.next(), words.next(), words.next()) else {
        return Detection::Unknown;
    };
    let clean = !target.is_empty() && target.iter().all(u8::is_ascii_graphic);
    if !matches!(version, b"HTTP/1.0" | b"HTTP/1.1") || !clean {
        return Detection::Unknown;
    }
    let connect = bytes.starts_with(b"CONNECT ");
    Detection::Http1 { host: host_header(rest).or_else(|| host_of_target(target, connect)) }
}

/// Whether an unfinished line may still end as `target HTTP/1.x`.
fn could_become_target_and_version(line: &[u8]) -> bool {
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let target = words.next().unwrap_or_default();
    let version = words.next().unwrap_or_default();
    let graphic = target.iter().all(|byte| byte.is_ascii_graphic());
    graphic && (b"HTTP/1.0\r".starts_with(version) || b"HTTP/1.1\r".starts_with(version))
}

/// The `Host` header among the lines that are there whole.
fn host_header(rest: &[u8]) -> Option<String> {
    for line in rest.split_inclusive(|byte| *byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return None;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"host") {
            return without_port(value.get(1..)?.trim_ascii());
        }
    }
    None
}

fn host_of_target(target: &[u8], connect: bool) -> Option<String> {
    if connect {
        return without_port(target);
    }
    let authority = target.strip_prefix(b"http://").or_else(|| target.strip_prefix(b"https://"))?;
    without_port(authority.split(|byte| *byte == b'/').next()?)
}

/// `host`, `host:port`, `[address]`, `[address]:port`.
fn without_port(authority: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(authority).ok()?;
    let host = match text.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => text.split(':').next()?,
    };
    let clean = !host.is_empty() && host.len() <= 255 && host.chars().all(|c| c.is_ascii_graphic());
    clean.then(|| host.to_ascii_lowercase())
}
