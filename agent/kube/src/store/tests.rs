use super::*;
use crate::pod::{Container, Kind, Run};

fn uid(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

fn pod(number: u32, name: &str) -> Pod {
    let uid = uid(number);
    Pod {
        cgroup_uid: uid.clone(),
        uid,
        namespace: "shop".into(),
        name: name.into(),
        service_account: "checkout".into(),
        ..Pod::default()
    }
}

fn with_run(mut pod: Pod, id: &str) -> Pod {
    let run = Run { id: id.into(), image_digest: String::new() };
    let container = Container { name: "app".into(), kind: Kind::Regular, image: "i".into(), runs: vec![run] };
    pod.containers = vec![container];
    pod
}

fn book() -> (Book, Arc<Store>, Instant) {
    let store = Store::new(|| {});
    (Book::new(Arc::clone(&store)), store, Instant::now())
}

fn name(store: &Store, uid: &str) -> Option<String> {
    store.snapshot().get(uid).map(|known| known.pod.name.clone())
}

#[test]
fn a_pod_of_the_same_name_is_another_and_the_earlier_one_is_remembered_for_a_time() {
    let (mut book, store, now) = book();
    book.apply(pod(1, "web-0"), Some(10));
    book.delete(&uid(1), now);
    book.apply(Pod { service_account: "admin".into(), ..pod(2, "web-0") }, Some(20));
    book.publish(now);
    assert_eq!(store.snapshot()[&uid(1)].pod.service_account, "checkout");
    assert_eq!(store.snapshot()[&uid(2)].pod.service_account, "admin");
    book.publish(now + REMEMBERED);
    assert_eq!((name(&store, &uid(1)), name(&store, &uid(2))), (None, Some("web-0".into())));
}

#[test]
fn what_is_not_in_a_list_is_gone_and_comes_back_if_a_later_one_has_it() {
    let (mut book, store, now) = book();
    book.list_begins();
    book.apply(pod(1, "a"), Some(1));
    book.list_ends(now);
    book.list_begins();
    book.list_ends(now);
    book.list_begins();
    book.apply(pod(1, "a"), Some(1));
    book.list_ends(now);
    book.publish(now + REMEMBERED);
    assert_eq!(name(&store, &uid(1)), Some("a".into()));
}

#[test]
fn what_was_deleted_does_not_come_back_with_a_late_event() {
    let (mut book, store, now) = book();
    book.apply(pod(1, "a"), Some(1));
    book.delete(&uid(1), now);
    book.apply(pod(1, "a"), Some(1));
    assert_eq!(book.living().count(), 0);
    book.publish(now);
    assert_eq!(name(&store, &uid(1)), Some("a".into()));
    book.publish(now + REMEMBERED);
    assert_eq!(name(&store, &uid(1)), None);
}

#[test]
fn an_older_version_changes_nothing_but_adds_lives_of_containers() {
    let (mut book, store, now) = book();
    let labelled = |value: &str, id: &str| Pod {
        labels: [("app".to_owned(), value.to_owned())].into(),
        ..with_run(pod(1, "a"), id)
    };
    book.apply(labelled("new", "c2"), Some(20));
    book.apply(labelled("old", "c1"), Some(10));
    book.publish(now);
    let known = Arc::clone(&store.snapshot()[&uid(1)]);
    assert_eq!(known.pod.labels["app"], "new");
    assert!(known.pod.container("c1").is_some() && known.pod.container("c2").is_some());
}

#[test]
fn a_pod_with_two_names_names_nobody() {
    let (mut book, store, now) = book();
    book.apply(pod(1, "a"), Some(1));
    book.apply(pod(1, "b"), Some(2));
    book.publish(now);
    assert_eq!(name(&store, &uid(1)), None);
    book.apply(pod(1, "a"), Some(3));
    book.publish(now);
    assert_eq!(name(&store, &uid(1)), None, "one of the two was a lie, and which is not known");
}

#[test]
fn two_mirrors_of_one_file_name_nobody_unless_they_are_of_one_name() {
    let (mut book, store, now) = book();
    let hash = "d41d8cd98f00b204e9800998ecf8427e";
    let mirror = |number: u32, name: &str| Pod {
        cgroup_uid: hash.into(),
        static_pod: true,
        service_account: String::new(),
        ..pod(number, name)
    };
    book.apply(mirror(1, "etcd"), Some(1));
    book.delete(&uid(1), now);
    book.apply(mirror(2, "etcd"), Some(2));
    book.publish(now);
    assert_eq!(store.snapshot()[hash].pod.uid, uid(2));
    book.apply(mirror(3, "posing"), Some(3));
    book.publish(now);
    assert_eq!(name(&store, hash), None);
}

#[test]
fn a_thousand_pods_that_went_are_bounded_and_the_latest_stay() {
    let (mut book, store, now) = book();
    for number in 0..2000 {
        book.apply(pod(number, "a"), Some(1));
        book.delete(&uid(number), now + Duration::from_millis(number.into()));
    }
    book.publish(now + Duration::from_secs(3));
    assert_eq!(store.snapshot().len(), REMEMBERED_PODS);
    assert!(store.snapshot().contains_key(&uid(1999)) && !store.snapshot().contains_key(&uid(0)));
}

#[test]
fn readers_are_told_of_changes_alone() {
    let told = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let store = Store::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let (mut book, now) = (Book::new(store), Instant::now());
    book.apply(pod(1, "a"), Some(1));
    book.publish(now);
    book.apply(pod(1, "a"), Some(2));
    book.publish(now);
    assert_eq!(told.load(Ordering::Relaxed), 1);
}
