//! Calls as clients make them, and with messages that are units of their own.

mod calls;
mod messages;

/// A message with its prefix.
fn message(flag: u8, body: &[u8]) -> Vec<u8> {
    [&[flag][..], &(body.len() as u32).to_be_bytes(), body].concat()
}
