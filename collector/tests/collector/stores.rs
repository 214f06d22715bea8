//! One suite for every store.

use std::sync::Arc;

use bytes::Bytes;
use verbatim_collector::{
    log::frame::{self, FrameKind, Part, SEGMENT_HEADER},
    store::{BucketStore, Group, LocalStore, Store, StoreError},
};

/// A store that can be opened again on what it kept.
trait Kept {
    fn new() -> Self;
    fn open(&self) -> Arc<dyn Store>;
}

struct Local(tempfile::TempDir);

impl Kept for Local {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("folder"))
    }
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(LocalStore::open(&self.0.path().join("log")).expect("opens").0)
    }
}

struct Bucket(Arc<object_store::memory::InMemory>);

impl Kept for Bucket {
    fn new() -> Self {
        Self(Arc::default())
    }
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(BucketStore::open(Arc::clone(&self.0) as Arc<dyn object_store::ObjectStore>).expect("opens"))
    }
}

/// Frames of one position.
fn group(position: u64, with_content: bool) -> Group {
    let mut group = Group { first_position: position, ..Group::default() };
    let envelope = format!("envelope {position}");
    frame::write(&mut group.envelopes, FrameKind::Batch, position, 1, b"", [envelope].iter());
    if with_content {
        let content = format!("content {position}");
        frame::write(&mut group.contents, FrameKind::Contents, position, 1, b"", [content].iter());
    }
    group
}

/// Items of all frames of a part, in order.
fn items(store: &dyn Store, part: Part) -> Vec<String> {
    let mut all = Vec::new();
    for segment in store.segments().expect("segments") {
        let bytes = match store.read(part, segment.first_position, SEGMENT_HEADER..u64::MAX) {
            Ok(bytes) => bytes,
            Err(StoreError::Gone { .. }) => continue,
            Err(e) => panic!("{e}"),
        };
        let mut at = 0;
        while at < bytes.len() {
            let frame = frame::read(&bytes.slice(at..)).expect("intact");
            at += frame.head.length();
            all.extend(frame.items.iter().map(|(_, i)| String::from_utf8_lossy(i).into_owned()));
        }
    }
    all
}

fn committed_groups_are_read_back_in_order<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    for position in 0..5 {
        store.commit(&group(position, position % 2 == 0)).expect("commits");
        if position == 2 {
            store.seal().expect("seals");
        }
    }
    let envelopes: Vec<_> = (0..5).map(|p| format!("envelope {p}")).collect();
    let contents: Vec<_> = [0, 2, 4].map(|p| format!("content {p}")).to_vec();
    assert_eq!(items(&*store, Part::Envelopes), envelopes);
    assert_eq!(items(&*store, Part::Contents), contents);
    drop(store);
    let again = kept.open();
    assert_eq!(items(&*again, Part::Envelopes), envelopes);
    assert_eq!(items(&*again, Part::Contents), contents);
    again.commit(&group(5, false)).expect("commits after opening again");
    assert_eq!(items(&*again, Part::Envelopes).len(), 6);
}

fn ranges_are_cut_at_the_end_and_what_is_gone_is_said_to_be_gone<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    let committed = store.commit(&group(0, false)).expect("commits");
    let all = store.read(Part::Envelopes, 0, 0..u64::MAX).expect("reads");
    assert_eq!(all.len() as u64, committed.envelope_bytes);
    assert_eq!(store.read(Part::Envelopes, 0, 10..20).expect("reads"), all.slice(10..20));
    assert_eq!(store.read(Part::Envelopes, 0, 1 << 40..1 << 41).expect("reads"), Bytes::new());
    assert!(matches!(store.read(Part::Contents, 0, 0..8), Err(StoreError::Gone { segment: 0, .. })));
    assert!(matches!(store.read(Part::Envelopes, 9, 0..8), Err(StoreError::Gone { segment: 9, .. })));
}

fn contents_can_be_replaced_and_parts_removed<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    store.commit(&group(0, true)).expect("commits");
    store.seal().expect("seals");
    // A reader that has the old bytes open must see the new ones afterwards.
    store.read(Part::Contents, 0, 0..u64::MAX).expect("reads");
    store.replace_contents(0, Bytes::from_static(b"replaced")).expect("replaces");
    assert_eq!(store.read(Part::Contents, 0, 0..u64::MAX).expect("reads"), Bytes::from_static(b"replaced"));
    store.remove(Part::Contents, 0).expect("removes");
    store.remove(Part::Contents, 0).expect("removing twice is no error");
    assert!(matches!(store.read(Part::Contents, 0, 0..8), Err(StoreError::Gone { .. })));
    let segments = kept.open().segments().expect("segments");
    assert_eq!((segments.len(), segments[0].content_bytes), (1, 0));
    store.remove(Part::Envelopes, 0).expect("removes");
    assert_eq!(kept.open().segments().expect("segments"), []);
}

macro_rules! suite {
    ($($name:ident),+) => {
        mod local {
            $(#[test] fn $name() { super::$name::<super::Local>(); })+
        }
        mod bucket {
            $(#[test] fn $name() { super::$name::<super::Bucket>(); })+
        }
    };
}

suite!(
    committed_groups_are_read_back_in_order,
    ranges_are_cut_at_the_end_and_what_is_gone_is_said_to_be_gone,
    contents_can_be_replaced_and_parts_removed
);

#[test]
fn second_writer_of_a_bucket_notices_that_it_is_not_alone() {
    let kept = Bucket::new();
    let (one, other) = (kept.open(), kept.open());
    one.commit(&group(0, false)).expect("commits");
    assert!(matches!(other.commit(&group(0, false)), Err(StoreError::Broken { .. })));
    assert_eq!(items(&*one, Part::Envelopes), ["envelope 0"]);
}

#[test]
fn torn_tail_is_cut_off_and_what_was_acknowledged_stays() {
    let kept = Local::new();
    {
        let store = kept.open();
        store.commit(&group(0, true)).expect("commits");
        store.commit(&group(1, true)).expect("commits");
        // Dropped without a seal, as a kill does it.
    }
    let torn = group(2, true);
    let open = |part: Part| kept.0.path().join(format!("log/{}/{:020}.open", part.folder(), 0));
    for cut in 1..torn.envelopes.len() {
        let folder = tempfile::tempdir().expect("folder");
        for part in [Part::Envelopes, Part::Contents] {
            let copy = folder.path().join(format!("log/{}", part.folder()));
            std::fs::create_dir_all(&copy).expect("folder");
            let mut bytes = std::fs::read(open(part)).expect("reads");
            match part {
                Part::Envelopes => bytes.extend_from_slice(&torn.envelopes[..cut]),
                Part::Contents => bytes.extend_from_slice(&torn.contents),
            }
            std::fs::write(copy.join(format!("{:020}.open", 0)), bytes).expect("writes");
        }
        let (store, damage) = LocalStore::open(&folder.path().join("log")).expect("recovers");
        assert_eq!(items(&store, Part::Envelopes), ["envelope 0", "envelope 1"], "cut at {cut}");
        assert_eq!(items(&store, Part::Contents), ["content 0", "content 1"], "cut at {cut}");
        assert!(damage.iter().all(|d| !d.intact_behind), "cut at {cut}: {damage:?}");
        assert!(store.segments().expect("segments")[0].sealed);
    }
}

#[test]
fn damage_in_front_of_intact_frames_is_told_from_a_torn_tail_and_kept_aside() {
    let kept = Local::new();
    {
        let store = kept.open();
        for position in 0..3 {
            store.commit(&group(position, false)).expect("commits");
        }
    }
    let path = kept.0.path().join(format!("log/envelopes/{:020}.open", 0));
    let mut bytes = std::fs::read(&path).expect("reads");
    let middle = SEGMENT_HEADER as usize + group(0, false).envelopes.len() + 40;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let (store, damage) = LocalStore::open(&kept.0.path().join("log")).expect("recovers");
    assert_eq!(items(&store, Part::Envelopes), ["envelope 0"]);
    assert_eq!(damage.iter().filter(|d| d.intact_behind).count(), 1);
    let aside = std::fs::read_dir(kept.0.path().join("log/envelopes")).expect("folder");
    let damaged = |e: std::io::Result<std::fs::DirEntry>| {
        e.expect("entry").file_name().to_string_lossy().ends_with(".damaged")
    };
    assert_eq!(aside.map(damaged).filter(|d| *d).count(), 1);
}
