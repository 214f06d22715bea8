//! A spool in memory that can be full, slow to sync, shedding or broken.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use verbatim_api::v1;
use verbatim_proxy::Records;
use verbatim_spool::{AppendError, Appended, Common, Draft};
use verbatim_sys::clock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Takes,
    Full,
    Sheds,
    TooLarge,
}

struct State {
    records: Vec<Draft>,
    mood: Mood,
    /// When set, appends count down and then it is full.
    room_for: Option<usize>,
    durable: u64,
    group: bool,
    closed: bool,
    /// How often somebody began to wait for room.
    waits: usize,
}

#[derive(Clone)]
pub(crate) struct MemorySpool {
    shard: usize,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl MemorySpool {
    pub(crate) fn new(shard: usize) -> Self {
        let state = State {
            records: Vec::new(),
            mood: Mood::Takes,
            room_for: None,
            durable: 0,
            group: false,
            closed: false,
            waits: 0,
        };
        Self { shard, state: Arc::new(Mutex::new(state)), changed: Arc::default() }
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
        self.changed.notify_waiters();
    }

    /// Takes so many more records and is full then.
    pub(crate) fn room_for(&self, records: usize) {
        self.state.lock().unwrap().room_for = Some(records);
        self.changed.notify_waiters();
    }

    /// From now on records wait for [`MemorySpool::sync`].
    pub(crate) fn group(&self) {
        let mut state = self.state.lock().unwrap();
        state.group = true;
        state.durable = state.records.len() as u64;
    }

    pub(crate) fn sync(&self) {
        let mut state = self.state.lock().unwrap();
        state.durable = state.records.len() as u64;
        drop(state);
        self.changed.notify_waiters();
    }

    /// How often somebody began to wait for room.
    pub(crate) fn waits(&self) -> usize {
        self.state.lock().unwrap().waits
    }

    pub(crate) fn closed(&self) -> bool {
        self.state.lock().unwrap().closed
    }

    pub(crate) fn records(&self) -> Vec<Draft> {
        self.state.lock().unwrap().records.clone()
    }

    pub(crate) fn of_kind(&self, kind: v1::RecordKind) -> Vec<Draft> {
        self.records().into_iter().filter(|record| record.envelope.kind() == kind).collect()
    }

    /// Kind, decision or status, and text of each record, without connections: what a test compares.
    pub(crate) fn story(&self) -> Vec<String> {
        let tell = |record: Draft| {
            let envelope = &record.envelope;
            let content = record.content.clone().unwrap_or_default();
            let text = content.statement.map(|s| String::from_utf8_lossy(&s.text).into_owned());
            Some(match envelope.kind() {
                v1::RecordKind::Started => {
                    format!(
                        "started {} {}",
                        word(envelope.decision().as_str_name()),
                        text.unwrap_or_default()
                    )
                }
                v1::RecordKind::Decided => format!("decided {}", word(envelope.decision().as_str_name())),
                v1::RecordKind::Finished => format!("finished {}", word(envelope.status().as_str_name())),
                v1::RecordKind::Injected => "injected".to_owned(),
                v1::RecordKind::Progress => "progress".to_owned(),
                _ => return None,
            })
        };
        self.records().into_iter().filter_map(tell).collect()
    }

    /// The last connection record that is not an opening.
    pub(crate) fn closing(&self) -> Option<Draft> {
        let mut closings = self.of_kind(v1::RecordKind::Connection);
        closings.retain(|record| record.envelope.status() != v1::Status::Pending);
        closings.pop()
    }

    fn is_durable(&self, position: u64) -> bool {
        let state = self.state.lock().unwrap();
        !state.group || state.durable >= position
    }

    fn has_room(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.mood != Mood::Full && state.room_for != Some(0)
    }
}

fn word(name: &str) -> String {
    let name = name.trim_start_matches("DECISION_").trim_start_matches("STATUS_");
    name.to_ascii_lowercase()
}

impl Records for MemorySpool {
    fn append(&self, draft: Draft) -> Result<Appended, AppendError> {
        let mut state = self.state.lock().unwrap();
        match (state.mood, state.room_for) {
            (Mood::Full, _) | (_, Some(0)) => return Err(AppendError::Full),
            (Mood::Sheds, _) => return Err(AppendError::Shed),
            (Mood::TooLarge, _) => return Err(AppendError::TooLarge(1)),
            (Mood::Takes, Some(room)) => state.room_for = Some(room - 1),
            (Mood::Takes, None) => {}
        }
        state.records.push(draft);
        let position = state.records.len() as u64;
        let mut record_id = [0; 16];
        record_id[0] = 0xf0 | self.shard as u8;
        record_id[8..].copy_from_slice(&position.to_be_bytes());
        Ok(Appended { record_id, sequence: position - 1, boottime_nanos: clock::boottime_nanos(), position })
    }

    fn append_with(&self, draft: Draft, common: &Common) -> Result<Appended, AppendError> {
        self.append(common.join(&draft).unwrap())
    }

    async fn room(&self) {
        self.state.lock().unwrap().waits += 1;
        loop {
            let changed = self.changed.notified();
            if self.has_room() {
                return;
            }
            changed.await;
        }
    }

    async fn durable(&self, position: u64) {
        loop {
            let changed = self.changed.notified();
            if self.is_durable(position) {
                return;
            }
            changed.await;
        }
    }

    fn close(self) {
        self.state.lock().unwrap().closed = true;
    }
}

/// Every STARTED has exactly one FINISHED behind it, and every FINISHED a STARTED.
#[track_caller]
pub(crate) fn each_start_has_one_end(spool: &MemorySpool) {
    let records = spool.records();
    let mut ends = std::collections::HashMap::new();
    for record in &records {
        if record.envelope.kind() == v1::RecordKind::Finished {
            *ends.entry(record.envelope.command_id.clone()).or_insert(0) += 1;
        }
    }
    let mut starts = 0;
    for (place, record) in records.iter().enumerate() {
        if record.envelope.kind() == v1::RecordKind::Started {
            starts += 1;
            let mut id = vec![0xf0 | spool.shard as u8, 0, 0, 0, 0, 0, 0, 0];
            id.extend_from_slice(&(place as u64 + 1).to_be_bytes());
            assert_eq!(ends.get(&id), Some(&1), "ends of {record:?}");
        }
    }
    assert_eq!(starts, ends.len(), "ends without a start");
}
