//! A node agent whose clocks, keys and chance are always the same.

use std::{path::Path, sync::Arc, time::Duration};

use verbatim_spool::{Ambient, Opened, SpoolConfig, Surroundings, SyncMode, WhenFull};

/// Clocks that step and chance that counts.
struct Fixed {
    wall: u64,
    boottime: u64,
    random: u8,
}

impl Ambient for Fixed {
    fn wall_nanos(&mut self) -> u64 {
        self.wall += 1_000_000;
        self.wall
    }
    fn boottime_nanos(&mut self) -> u64 {
        self.boottime += 1_000_000;
        self.boottime
    }
    fn random(&mut self, bytes: &mut [u8]) {
        self.random = self.random.wrapping_add(1);
        bytes.fill(self.random);
    }
}

/// The `run`-th start of a node agent on one machine.
pub(crate) fn open(directory: &Path, run: u8) -> Opened {
    let wall = 1_700_000_000_000_000_000 + u64::from(run) * 60_000_000_000;
    let surroundings = Surroundings {
        ambient: Arc::new(move || Box::new(Fixed { wall, boottime: 1_000_000_000, random: run * 64 })),
        head_wall_nanos: Arc::new(move || wall + 1_000_000_000),
        boot_id: Some([0xb0; 16]),
        agent_version: "0.1.0".into(),
        key_seed: Some([run + 1; 32]),
        ..Surroundings::default()
    };
    let config = SpoolConfig {
        directory: directory.to_owned(),
        sync: SyncMode::Process,
        segment_bytes: 64 * 1024,
        limit_bytes: 1 << 30,
        when_full: WhenFull::Stop,
        head_interval: Duration::from_secs(3600),
        node: "node-1".into(),
    };
    verbatim_spool::open_in(&config, 1, surroundings).unwrap()
}
