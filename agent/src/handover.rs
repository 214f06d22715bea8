//! What supervisors and workers say to each other, over sockets that carry descriptors.
//!
//! The two ends may be of different versions: what one does not know it passes over.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use serde::{Deserialize, Serialize};
use verbatim_sys::packets::Packets;

/// One message; `Listener` alone brings descriptors: the IPv4 listener, then the IPv6 one where there is one.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum Message {
    /// A new supervisor to the old one: hand over, and wait.
    TakeOver { version: String },
    /// One shard's listeners in one network namespace.
    Listener { name: String, cookie: u64, port: u16, shard: usize },
    /// A namespace is gone, and its listeners with it.
    Forget { cookie: u64 },
    /// Every listener has been handed. `cgroups`: of agents that still live. `schema`: of the pinned maps.
    Handed { cgroups: Vec<u64>, schema: u32, succeeding: bool },
    /// To a worker: decide nothing more, a successor is starting.
    Freeze,
    /// From a worker: it decides nothing more.
    Frozen,
    /// To a worker: the successor is gone.
    Thaw,
    /// From a worker: it steers. `cgroup`: its own.
    Ready { cgroup: u64 },
    /// The successor steers: serve what is open, take nothing new, end. `detach`: its maps are others.
    Drain { detach: bool },
    /// To a worker: agents that were taken over have ended.
    Alone,
    /// The old supervisor cannot be taken over now.
    Refused { reason: String },
    /// Of another version.
    #[serde(other)]
    Unknown,
}

/// Sends one.
pub(crate) fn send(to: &Packets, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    to.send(&bytes, descriptors)
}

/// The next one; `None`: the other end is gone. What cannot be read is `Unknown`.
pub(crate) fn receive(from: &Packets) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let Some(packet) = from.receive()? else { return Ok(None) };
    let message = serde_json::from_slice(&packet.bytes).unwrap_or(Message::Unknown);
    Ok(Some((message, packet.descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_says_more_or_newly_is_passed_over() {
        let (one, two) = Packets::pair().expect("pair");
        one.send(br#"{"type":"somethingNew","x":1}"#, &[]).expect("send");
        one.send(br#"{"type":"drain","detach":true,"more":[1,2]}"#, &[]).expect("send");
        one.send(b"no json", &[]).expect("send");
        send(&one, &Message::Ready { cgroup: u64::MAX }, &[]).expect("send");
        let expected = [
            Message::Unknown,
            Message::Drain { detach: true },
            Message::Unknown,
            Message::Ready { cgroup: u64::MAX },
        ];
        for expected in expected {
            assert_eq!(receive(&two).expect("receive").expect("message").0, expected);
        }
        drop(one);
        assert!(receive(&two).expect("receive").is_none());
    }
}
