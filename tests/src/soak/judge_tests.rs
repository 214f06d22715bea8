use verbatim_api::v1::{self, Status};

use super::{Counts, Judgement, Logged, judge};
use crate::{
    audit::Seen,
    network::Pod,
    soak::load::{Command, Told},
};

const ID: &str = "a-soak1r1-raw0-1";
const TEXT: &str = "SELECT 1 /* id:a-soak1r1-raw0-1 */";

fn told(answered: bool) -> Told {
    let command = Command { pod: Pod::A, statement: Some(TEXT.to_owned()), answered };
    Told::from([(ID.to_owned(), command)])
}

fn logged(times: usize) -> Logged {
    Logged::from([(ID.to_owned(), times)])
}

fn seen(status: Status) -> Seen {
    let started = v1::Envelope { record_id: vec![7], ..Default::default() };
    let statement = v1::Statement { text: TEXT.as_bytes().to_vec(), ..Default::default() };
    let content = v1::Content { statement: Some(statement), ..Default::default() };
    let mut command = v1::Command {
        id: vec![7],
        started: Some(started),
        started_content: Some(content),
        principal: "a".to_owned(),
        ..Default::default()
    };
    command.set_status(status);
    Seen::from_command(&command).unwrap()
}

fn wrong(told: &Told, seen: &[Seen], logged: &Logged) -> Vec<String> {
    judge(told, seen, logged, |pod| pod.letter().to_owned()).wrong
}

#[test]
fn what_was_answered_is_recorded_once_and_logged_once() {
    let counts = Counts { answered: 1, lost: 0, unknown: 0 };
    let fits = Judgement { counts, ..Judgement::default() };
    let name = |pod: Pod| pod.letter().to_owned();
    assert_eq!(judge(&told(true), &[seen(Status::Ok)], &logged(1), name), fits);
    assert!(wrong(&told(true), &[], &logged(1))[0].contains("not recorded"));
    assert!(wrong(&told(true), &[seen(Status::Ok), seen(Status::Ok)], &logged(1))[0].contains("2 times"));
    assert!(wrong(&told(true), &[seen(Status::OutcomeUnknown)], &logged(1))[0].contains("UNKNOWN"));
    assert!(wrong(&told(true), &[seen(Status::Ok)], &logged(0))[0].contains("0 time(s)"));
    assert!(wrong(&told(true), &[seen(Status::Ok)], &logged(2))[0].contains("2 time(s)"));
}

#[test]
fn what_was_lost_is_recorded_where_the_server_saw_it() {
    assert!(wrong(&told(false), &[], &Logged::new()).is_empty());
    let unseen = [seen(Status::OutcomeUnknown)];
    assert!(wrong(&told(false), &unseen, &Logged::new()).is_empty());
    let judgement = judge(&told(false), &unseen, &Logged::new(), |pod| pod.letter().to_owned());
    assert!(judgement.on_the_way.contains(ID), "{judgement:?}");
    assert!(wrong(&told(false), &[seen(Status::OutcomeUnknown)], &logged(1)).is_empty());
    assert!(wrong(&told(false), &[seen(Status::Ok)], &logged(1)).is_empty());
    assert!(wrong(&told(false), &[], &logged(1))[0].contains("not recorded"));
    assert!(wrong(&told(false), &[seen(Status::Ok)], &Logged::new())[0].contains("recorded as STATUS_OK"));
}

#[test]
fn what_nobody_did_and_what_is_under_another_name_is_told() {
    assert!(wrong(&Told::new(), &[seen(Status::Ok)], &Logged::new())[0].contains("nobody did it"));
    assert!(wrong(&Told::new(), &[], &logged(1))[0].contains("nobody did it"));
    let other = Seen { principal: "b".to_owned(), ..seen(Status::Ok) };
    assert!(wrong(&told(true), &[other], &logged(1))[0].contains("recorded under b"));
    let changed = Seen { statement: b"SELECT 2".to_vec(), ..seen(Status::Ok) };
    assert!(wrong(&told(true), &[changed], &logged(1))[0].contains("but it was"));
}
