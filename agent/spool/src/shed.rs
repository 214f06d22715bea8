//! Counts records that were not kept, until a gap record can say so.

use verbatim_api::v1;

/// What was shed since the last gap record.
#[derive(Debug, Default)]
pub(crate) struct Shed {
    count: u64,
    from_wall_nanos: u64,
    to_wall_nanos: u64,
}

impl Shed {
    /// Counts a record, unless it says nothing of a command or connection.
    pub(crate) fn count(&mut self, envelope: &v1::Envelope, wall_nanos: u64) {
        if matches!(envelope.kind(), v1::RecordKind::Heartbeat | v1::RecordKind::Gap) {
            return;
        }
        if self.count == 0 {
            self.from_wall_nanos = wall_nanos;
        }
        self.count += 1;
        self.to_wall_nanos = self.to_wall_nanos.max(wall_nanos);
    }

    /// What a gap record has to say, if anything; counts from nothing again.
    pub(crate) fn take(&mut self) -> Option<v1::Gap> {
        let shed = std::mem::take(self);
        (shed.count > 0).then(|| v1::Gap {
            reason: v1::GapReason::SpoolFullShed.into(),
            count: shed.count,
            from_wall_nanos: shed.from_wall_nanos,
            to_wall_nanos: shed.to_wall_nanos,
        })
    }

    /// The gap record did not fit either.
    pub(crate) fn put_back(&mut self, gap: v1::Gap) {
        self.count += gap.count;
        self.from_wall_nanos = gap.from_wall_nanos;
        self.to_wall_nanos = self.to_wall_nanos.max(gap.to_wall_nanos);
    }
}
