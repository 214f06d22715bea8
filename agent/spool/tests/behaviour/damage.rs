//! Files that were cut, changed, or never were segments.

use std::{fs, path::Path};

use proptest::prelude::*;
use verbatim_api::v1;

use crate::support::*;

/// What a dead agent left: a few segments of one chain, and what was appended.
fn dead(directory: &Path) -> Vec<String> {
    let opened = open(directory);
    let texts: Vec<_> = (0..400).map(|n| format!("statement {n} {}", "x".repeat(n * 7 % 300))).collect();
    run(async {
        for text in &texts {
            opened.spools[0].append_when_room(started(text)).await.unwrap();
        }
    });
    drop(opened);
    assert!(segments(directory, 0).len() >= 3);
    texts
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("shard-0")).unwrap();
    for entry in fs::read_dir(from.join("shard-0")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join("shard-0").join(entry.file_name())).unwrap();
    }
}

/// Whatever happened to the files: what comes out is a beginning of what went in, each with one end.
fn check(directory: &Path, texts: &[String]) -> Collector {
    let collector = recovered(directory);
    let found = collector.texts();
    assert_eq!(found, texts[..found.len()], "a beginning of what was written");
    assert_eq!(collector.ends().len(), found.len());
    collector
}

fn gaps(collector: &Collector) -> u64 {
    let gaps = collector.all().into_iter().filter(|seen| seen.kind() == v1::RecordKind::Gap);
    gaps.map(|seen| seen.gap().count).sum()
}

fn quarantined(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory.join("shard-0/quarantine")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn valid_frames_behind_a_damaged_one_are_put_aside_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let texts = dead(dir.path());
    let first = dir.path().join("shard-0").join(&segments(dir.path(), 0)[0]);
    let mut bytes = fs::read(&first).unwrap();
    let place = bytes.windows(13).position(|window| window == b"statement 50 ").unwrap();
    bytes[place] ^= 1;
    fs::write(&first, bytes).unwrap();
    let collector = check(dir.path(), &texts);
    assert_eq!(collector.texts().len(), 50);
    let lost = gaps(&collector);
    // A damaged frame may be counted with what its bytes look like, never left out.
    assert!((350..=352).contains(&lost), "{lost}");
    let gap = collector.all().into_iter().find(|seen| seen.kind() == v1::RecordKind::Gap).unwrap().gap();
    assert_eq!(gap.reason(), v1::GapReason::Quarantined);
    assert!(gap.from_wall_nanos > 0 && gap.from_wall_nanos <= gap.to_wall_nanos);
    assert!(quarantined(dir.path()).len() >= 3);
    // And that was that.
    assert_eq!(gaps(&recovered(dir.path())), 0);
}

#[test]
fn a_folder_full_of_garbage_opens() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("shard-0")).unwrap();
    let name = format!("{}-00000000.seg", "ab".repeat(16));
    for (name, bytes) in [
        (name.as_str(), &b"not a segment"[..]),
        ("tail", &[0xff; 100][..]),
        ("tail.spare", &[][..]),
        ("abc.seg", &[1][..]),
        ("x.heads", &[2; 33][..]),
    ] {
        fs::write(dir.path().join("shard-0").join(name), bytes).unwrap();
    }
    let collector = recovered(dir.path());
    assert_eq!(collector.chains.len(), 1);
    assert_eq!(quarantined(dir.path()), [name]);
}

#[test]
fn a_segment_that_changes_while_it_is_shipped_is_an_error_and_no_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    run(async {
        for n in 0..1000 {
            opened.spools[0].append_when_room(started(&n.to_string())).await.unwrap();
        }
    });
    opened.spools[0].sign();
    let first = dir.path().join("shard-0").join(&segments(dir.path(), 0)[0]);
    let mut bytes = fs::read(&first).unwrap();
    bytes[3000] ^= 1;
    fs::write(&first, bytes).unwrap();
    let mut collector = Collector::default();
    let error = loop {
        match opened.outboxes[0].next_batch(10, 1 << 20) {
            Ok(Some(batch)) => collector.take(&batch),
            Ok(None) => panic!("nothing was wrong"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("is damaged at byte"), "{error}");
}

#[derive(Clone, Debug)]
enum Harm {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Zero(prop::sample::Index, usize),
    Remove,
    Swap,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(at, by)| Harm::Flip(at, by)),
        2 => any::<prop::sample::Index>().prop_map(Harm::Cut),
        2 => (any::<prop::sample::Index>(), 1..9000_usize).prop_map(|(at, n)| Harm::Zero(at, n)),
        1 => Just(Harm::Remove),
        1 => Just(Harm::Swap),
    ]
}

fn inflict(directory: &Path, file: prop::sample::Index, harm: &Harm) {
    let folder = directory.join("shard-0");
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let mut chosen = file.index(names.len());
    if matches!(harm, Harm::Remove) {
        // Without its first segment a chain ships from where it goes on: the collector sees the gap.
        chosen = chosen.max(1);
    }
    let path = folder.join(&names[chosen]);
    let mut bytes = fs::read(&path).unwrap();
    if bytes.is_empty() {
        return;
    }
    match harm {
        Harm::Flip(at, by) => {
            let at = at.index(bytes.len());
            bytes[at] ^= by;
        }
        Harm::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Harm::Zero(at, n) => {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + n);
            bytes[at..end].fill(0);
        }
        Harm::Remove => return fs::remove_file(&path).unwrap(),
        Harm::Swap => {
            let other = folder.join(names.last().unwrap());
            let others = fs::read(&other).unwrap();
            fs::write(&other, &bytes).unwrap();
            bytes = others;
        }
    }
    fs::write(&path, bytes).unwrap();
}

#[test]
fn whatever_is_cut_or_changed_a_beginning_is_recovered_and_nothing_is_invented() {
    let origin = tempfile::tempdir().unwrap();
    let texts = dead(origin.path());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let harms = prop::collection::vec((any::<prop::sample::Index>(), harm()), 1..4);
    runner
        .run(&harms, |harms| {
            let dir = tempfile::tempdir().unwrap();
            copy(origin.path(), dir.path());
            for (file, harm) in &harms {
                inflict(dir.path(), *file, harm);
            }
            let collector = check(dir.path(), &texts);
            // The files that stand for what is missing are still there, unless they were what was removed,
            // cut or blanked.
            let kept = harms.iter().all(|(_, harm)| matches!(harm, Harm::Flip(..)));
            if kept && collector.texts().len() < texts.len() {
                prop_assert!(!quarantined(dir.path()).is_empty());
                prop_assert!(gaps(&collector) as usize + collector.texts().len() >= texts.len());
            }
            Ok(())
        })
        .unwrap();
}
