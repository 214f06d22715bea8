//! What a record takes from its surroundings: clocks and chance. Tests and golden files bring their own.

use rand::{Rng, rngs::StdRng};

/// Clocks and randomness of one chain.
pub trait Ambient: Send + 'static {
    /// Wall clock, nanoseconds since 1970.
    fn wall_nanos(&mut self) -> u64;
    /// CLOCK_BOOTTIME, nanoseconds.
    fn boottime_nanos(&mut self) -> u64;
    /// Unpredictable bytes: salts keep a commitment from telling anything about a guessable content.
    fn random(&mut self, bytes: &mut [u8]);
}

/// The machine's clocks and a generator seeded by the kernel.
#[derive(Debug)]
pub(crate) struct Machine {
    random: StdRng,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { random: rand::make_rng() }
    }
}

impl Ambient for Machine {
    fn wall_nanos(&mut self) -> u64 {
        verbatim_sys::clock::wall_nanos()
    }
    fn boottime_nanos(&mut self) -> u64 {
        verbatim_sys::clock::boottime_nanos()
    }
    fn random(&mut self, bytes: &mut [u8]) {
        self.random.fill_bytes(bytes);
    }
}

/// Makes UUIDv7 that grow within one chain, whatever the wall clock does.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    millis: u64,
    /// The twelve bits behind the milliseconds.
    counter: u16,
}

impl Ids {
    pub(crate) fn next(&mut self, wall_nanos: u64, ambient: &mut dyn Ambient) -> [u8; 16] {
        let mut bytes = [0; 10];
        ambient.random(&mut bytes);
        let millis = wall_nanos / 1_000_000;
        if millis > self.millis {
            self.millis = millis;
            // Half of the counter's range is left for this millisecond's other ids.
            self.counter = u16::from_be_bytes([bytes[0] & 0x07, bytes[1]]);
        } else if self.counter < 0x0fff {
            self.counter += 1;
        } else {
            self.millis += 1;
            self.counter = 0;
        }
        bytes[..2].copy_from_slice(&self.counter.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(self.millis, &bytes).into_uuid().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_although_the_wall_clock_stands_still_or_goes_back() {
        let mut ambient = Machine::new();
        let mut ids = Ids::default();
        let mut last = [0; 16];
        for n in 0..20_000_u64 {
            let wall = 1_700_000_000_000_000_000 - n * 500_000;
            let id = ids.next(wall, &mut ambient);
            assert!(id > last, "id {n}");
            assert_eq!(id[6] >> 4, 7, "version");
            assert_eq!(id[8] >> 6, 2, "variant");
            last = id;
        }
    }
}
