//! How one generation follows another.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

const DAY: i64 = 24 * 3600;

fn days(days: i64) -> Duration {
    Duration::from_secs(u64::try_from(days * DAY).expect("positive"))
}

fn rules() -> Rules {
    Rules { names: vec![], lifetime: days(730), lead: days(30), own_lead: days(1), signed: days(1) }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
    i64::try_from(since.as_secs()).expect("fits")
}

fn phases(kept: &Kept, class: Class) -> Vec<Phase> {
    kept.generations(class).iter().map(|one| one.phase).collect()
}

#[test]
fn the_first_of_each_class_signs_at_once() {
    let kept = Kept::new(&rules(), now()).expect("made");
    for class in Class::ALL {
        assert_eq!(phases(&kept, class), [Phase::Active], "{class}");
    }
    assert!(kept.root(NameClass::Api).is_ok() && kept.plain(Class::Servers).is_ok());
    assert_eq!(kept.fingerprint_key.bytes().map(|bytes| bytes != [0; 32]), Some(true));
    let again = Kept::read(&kept.write()).expect("read");
    assert_eq!(again, kept);
    assert!(!format!("{kept:?}").contains("PRIVATE"));
}

#[test]
fn a_new_root_is_published_one_pod_lifetime_before_it_signs() {
    let (rules, start) = (rules(), now());
    let mut kept = Kept::new(&rules, start).expect("made");
    let old = kept.root(NameClass::Databases).expect("root").id();
    kept.begin(Class::Databases, &rules, start).expect("begun");
    for day in [0, 15, 29] {
        kept.tick(&rules, start + day * DAY).expect("tick");
        assert_eq!(phases(&kept, Class::Databases), [Phase::Active, Phase::Published], "day {day}");
        assert_eq!(kept.root(NameClass::Databases).expect("root").id(), old);
        assert_eq!(kept.certificates(Class::Databases).matches("BEGIN").count(), 2);
    }
    assert!(kept.tick(&rules, start + 30 * DAY).expect("tick"));
    assert_eq!(phases(&kept, Class::Databases), [Phase::Retiring, Phase::Active]);
    assert_ne!(kept.root(NameClass::Databases).expect("root").id(), old);
    assert!(kept.generations(Class::Databases)[0].key.is_empty(), "the old key is destroyed");
    // It is believed for as long as what it has signed is good.
    assert!(!kept.tick(&rules, start + 31 * DAY).expect("tick"));
    assert!(kept.tick(&rules, start + 31 * DAY + 3600).expect("tick"));
    assert_eq!(phases(&kept, Class::Databases), [Phase::Active]);
    // Other classes have nothing to do with it.
    assert_eq!(phases(&kept, Class::Api), [Phase::Active]);
}

#[test]
fn a_rotation_begins_by_itself_before_a_root_expires_and_when_names_change() {
    let (mut rules, start) = (rules(), now());
    let mut kept = Kept::new(&rules, start).expect("made");
    assert!(!kept.tick(&rules, start + 600 * DAY).expect("tick"));
    assert!(kept.tick(&rules, start + 670 * DAY).expect("tick"));
    assert_eq!(phases(&kept, Class::Api), [Phase::Active, Phase::Published]);
    let mut kept = Kept::new(&rules, start).expect("made");
    rules.names = vec!["db.example".to_owned()];
    assert!(kept.tick(&rules, start).expect("tick"));
    assert_eq!(phases(&kept, Class::Databases), [Phase::Active, Phase::Published]);
    assert_eq!(phases(&kept, Class::Api), [Phase::Active]);
    assert!(!kept.tick(&rules, start + 1).expect("tick"), "it has begun already");
    // What is published has signed nothing: another begin replaces it.
    kept.begin(Class::Databases, &rules, start).expect("begun");
    assert_eq!(phases(&kept, Class::Databases), [Phase::Active, Phase::Published]);
}

#[test]
fn a_lost_key_is_out_of_use_at_once() {
    let (rules, start) = (rules(), now());
    let mut kept = Kept::new(&rules, start).expect("made");
    let old = kept.certificates(Class::Api);
    kept.begin(Class::Api, &rules, start).expect("begun");
    kept.hasten(Class::Api, start);
    assert_eq!(phases(&kept, Class::Api), [Phase::Active]);
    assert_ne!(kept.certificates(Class::Api), old);
}

#[test]
fn what_cannot_be_used_is_told_without_its_text() {
    let kept = Kept::new(&rules(), now()).expect("made");
    let text = String::from_utf8(kept.write().to_vec()).expect("text");
    for bad in
        [text.replacen("\"version\":1", "\"version\":2", 1), text[..text.len() / 2].to_owned(), "{}".into()]
    {
        let error = Kept::read(bad.as_bytes()).expect_err("refused").to_string();
        assert!(!error.contains("PRIVATE") && !error.contains(&kept.fingerprint_key.key), "{error}");
    }
    let swapped = text.replacen("PRIVATE", "PRIMATE", 1);
    let kept = Kept::read(swapped.as_bytes()).expect("read");
    let errors: Vec<_> = NameClass::ALL.into_iter().filter_map(|class| kept.root(class).err()).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
}
