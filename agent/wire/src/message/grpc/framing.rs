//! Length-prefixed messages (gRPC over HTTP/2, "Requests"), cut anywhere.
//!
//! Owns where a message ends. Keeps of it what is wanted and no more. Knows nothing of its meaning.

/// The byte that says whether a message is compressed, and its length.
pub(super) const PREFIX: usize = 5;

/// How far a message was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All bytes were taken.
    More,
    /// As much of the message as is wanted was read, and it goes on.
    Limit,
    /// The message is whole.
    Message,
    /// No message begins so; nothing more is read.
    Malformed,
}

/// Reads one direction.
pub(super) struct Framing {
    wanted: usize,
    prefix: [u8; PREFIX],
    filled: usize,
    remaining: u64,
    kept: Vec<u8>,
    limited: bool,
    malformed: bool,
    /// Messages that are whole.
    pub(super) messages: u64,
}

impl Framing {
    /// Keeps so many bytes of each message; with 0 it counts them only.
    pub(super) fn new(wanted: usize) -> Self {
        Self {
            wanted,
            prefix: [0; PREFIX],
            filled: 0,
            remaining: 0,
            kept: Vec::new(),
            limited: false,
            malformed: false,
            messages: 0,
        }
    }

    pub(super) fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// Whether no message has begun that is not whole.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.filled == 0
    }

    /// What is kept of the message, as it was sent.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// The message's length as it was announced.
    pub(super) fn length(&self) -> u64 {
        let [_, a, b, c, d] = self.prefix;
        u64::from(u32::from_be_bytes([a, b, c, d]))
    }

    pub(super) fn is_compressed(&self) -> bool {
        let [flag, ..] = self.prefix;
        flag == 1
    }

    /// Takes bytes up to the next step, and says how many. After [`Step::Message`], what is known of the
    /// message is there until [`Framing::next`].
    pub(super) fn push(&mut self, bytes: &[u8]) -> (usize, Step) {
        if self.malformed {
            return (bytes.len(), Step::More);
        }
        let missing = PREFIX.saturating_sub(self.filled).min(bytes.len());
        let (head, rest) = bytes.split_at(missing);
        if let Some(place) = self.prefix.get_mut(self.filled..self.filled.saturating_add(missing)) {
            place.copy_from_slice(head);
        }
        let had = self.filled;
        self.filled = self.filled.saturating_add(missing);
        if had == 0
            && let [flag, ..] = head
            && *flag > 1
        {
            self.malformed = true;
            return (bytes.len(), Step::Malformed);
        }
        if self.filled < PREFIX {
            return (missing, Step::More);
        }
        if had < PREFIX {
            self.remaining = self.length();
        }
        let body = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(rest.len());
        let room = self.wanted.saturating_sub(self.kept.len());
        let stops =
            self.wanted > 0 && !self.limited && room < usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let take = if stops { body.min(room) } else { body };
        let piece = rest.get(..take).unwrap_or_default();
        self.kept.extend(piece.iter().take(room));
        self.remaining = self.remaining.saturating_sub(take as u64);
        let taken = missing.saturating_add(take);
        if self.remaining == 0 {
            self.messages = self.messages.saturating_add(1);
            return (taken, Step::Message);
        }
        if stops && take == room {
            self.limited = true;
            return (taken, Step::Limit);
        }
        (taken, Step::More)
    }

    /// The next message may begin.
    pub(super) fn next(&mut self) {
        self.filled = 0;
        self.kept.clear();
        self.limited = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flag: u8, body: &[u8]) -> Vec<u8> {
        [&[flag][..], &(body.len() as u32).to_be_bytes(), body].concat()
    }

    fn read(bytes: &[u8], wanted: usize, piece: usize) -> Vec<(Step, Vec<u8>, u64, usize)> {
        let mut framing = Framing::new(wanted);
        let (mut seen, mut total) = (Vec::new(), 0);
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                let (taken, step) = framing.push(piece);
                assert!(taken > 0, "no progress");
                piece = &piece[taken..];
                total += taken;
                if step != Step::More {
                    seen.push((step, framing.kept().to_vec(), framing.length(), total));
                }
                if step == Step::Message {
                    framing.next();
                }
            }
        }
        seen
    }

    #[test]
    fn messages_are_found_at_every_split() {
        let bytes = [message(0, b"abc"), message(1, b""), message(0, b"defgh")].concat();
        for piece in 1..=bytes.len() {
            let seen = read(&bytes, 100, piece);
            let expected = [
                (Step::Message, b"abc".to_vec(), 3, 8),
                (Step::Message, b"".to_vec(), 0, 13),
                (Step::Message, b"defgh".to_vec(), 5, 23),
            ];
            assert_eq!(seen, expected, "by {piece}");
            assert_eq!(read(&bytes, 0, piece).len(), 3);
        }
    }

    #[test]
    fn a_message_beyond_the_limit_stops_once() {
        let bytes = [message(0, b"abcdef"), message(0, b"xyz")].concat();
        for piece in 1..=bytes.len() {
            let steps: Vec<_> =
                read(&bytes, 3, piece).into_iter().map(|(step, kept, ..)| (step, kept)).collect();
            let expected = [
                (Step::Limit, b"abc".to_vec()),
                (Step::Message, b"abc".to_vec()),
                (Step::Message, b"xyz".to_vec()),
            ];
            assert_eq!(steps, expected, "by {piece}");
        }
    }

    #[test]
    fn four_gigabytes_that_are_announced_cost_nothing() {
        let mut framing = Framing::new(10);
        assert_eq!(framing.push(&[0, 255, 255, 255, 255]), (5, Step::More));
        assert_eq!(framing.push(&[7; 1000]), (10, Step::Limit));
        assert_eq!(framing.push(&[7; 1000]), (1000, Step::More));
        assert_eq!((framing.kept().len(), framing.length()), (10, u64::from(u32::MAX)));
    }

    #[test]
    fn what_is_no_message_is_malformed_from_there_on() {
        let mut framing = Framing::new(10);
        assert_eq!(framing.push(b"GET"), (3, Step::Malformed));
        assert_eq!(framing.push(b"ET"), (2, Step::More));
        assert!(framing.is_malformed());
    }
}
