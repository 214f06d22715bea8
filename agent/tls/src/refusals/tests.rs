//! What counts as a refusal, and how long it is remembered.

use std::{io, sync::Arc};

use rustls::{AlertDescription, Error};

use super::*;
use crate::{
    Authority, Downstream, LeafName,
    testing::{BOTH, client, shake},
};

fn tls(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[test]
fn a_client_that_does_not_trust_us_is_known_by_its_alert() {
    let (ours, other) = (Authority::for_run(&[]).unwrap(), Authority::for_run(&[]).unwrap());
    let name = LeafName::parse("bigquery.googleapis.com").unwrap();
    let server = Downstream::new().unwrap().config(ours.leaf(&name).unwrap(), None);
    let pair = shake(Arc::new(client(&other.roots(), BOTH)), name.server_name(), server);
    let error = tls(pair.server_error.unwrap());
    assert_eq!(refusal(&error, Moment::Handshake), Some("unknown_ca"));
}

#[test]
fn alerts_about_certificates_are_refusals_at_any_time_and_others_never() {
    use AlertDescription as A;
    for moment in [Moment::Handshake, Moment::Established] {
        for (alert, expected) in [
            (A::UnknownCA, Some("unknown_ca")),
            (A::BadCertificate, Some("bad_certificate")),
            (A::CertificateUnknown, Some("certificate_unknown")),
            (A::CertificateExpired, Some("certificate_expired")),
            (A::AccessDenied, Some("access_denied")),
            (A::HandshakeFailure, None),
            (A::ProtocolVersion, None),
            (A::NoApplicationProtocol, None),
            (A::UserCanceled, None),
            (A::CloseNotify, None),
        ] {
            assert_eq!(refusal(&tls(Error::AlertReceived(alert)), moment), expected, "{alert:?}");
        }
        assert_eq!(refusal(&tls(Error::DecryptError), moment), None);
        assert_eq!(refusal(&io::ErrorKind::TimedOut.into(), moment), None);
    }
}

#[test]
fn silence_is_a_refusal_while_hands_are_shaken_and_nothing_after_it() {
    for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe] {
        assert_eq!(refusal(&kind.into(), Moment::Handshake), Some("eof"));
        assert_eq!(refusal(&kind.into(), Moment::Established), None);
    }
}

#[test]
fn a_refusal_is_of_one_workload_and_one_service() {
    let refusals = Refusals::default();
    refusals.remember("pod-1/main", "bigquery.googleapis.com", "unknown_ca");
    let known = refusals.refused("pod-1/main", "bigquery.googleapis.com").unwrap();
    assert_eq!(known.alert, "unknown_ca");
    assert_eq!(refusals.refused("pod-1/side", "bigquery.googleapis.com"), None);
    assert_eq!(refusals.refused("pod-1/main", "storage.googleapis.com"), None);
    refusals.forget("pod-1/main");
    assert_eq!(refusals.refused("pod-1/main", "bigquery.googleapis.com"), None);
}

#[test]
fn a_server_that_insists_is_known_by_destination_and_name() {
    let refusals = Refusals::default();
    let destination = "10.0.0.1:5432".parse().unwrap();
    refusals.remember_insistence(destination, "db.example");
    assert!(refusals.insists(destination, "db.example"));
    assert!(!refusals.insists(destination, ""));
    assert!(!refusals.insists("10.0.0.1:5433".parse().unwrap(), "db.example"));
}

#[test]
fn a_certificate_is_shown_by_one_workload_to_one_service_for_as_long_as_it_lives() {
    let refusals = Refusals::default();
    refusals.remember_certificate("pod-1/main", "db.example:5432");
    assert!(refusals.shows_certificate("pod-1/main", "db.example:5432"));
    assert!(!refusals.shows_certificate("pod-2/main", "db.example:5432"));
    assert!(!refusals.shows_certificate("pod-1/main", "db.example:443"));
    refusals.forget("pod-1");
    assert!(!refusals.shows_certificate("pod-1/main", "db.example:5432"));
}

#[test]
fn no_more_is_remembered_than_the_bounds_and_the_used_stays_longest() {
    let refusals = Refusals::default();
    refusals.remember("used", "service", "eof");
    for n in 0..REFUSALS + 100 {
        refusals.remember(&format!("w{n}"), "service", "eof");
        assert!(refusals.refused("used", "service").is_some());
    }
    assert_eq!(lock(&refusals.by_client).len(), REFUSALS);
    for port in 0..u16::MAX {
        refusals.remember_insistence(([10, 0, 0, 1], port).into(), "");
    }
    assert_eq!(lock(&refusals.by_server).len(), DESTINATIONS);
}

#[test]
fn refusals_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("refusals.json");
    let (file, problem) = RefusalFile::open(path.clone());
    assert!(problem.is_none(), "that there is no file yet is none");
    assert!(!file.save().unwrap(), "there is nothing to write");
    file.refusals().remember("pod-1/main", "bigquery.googleapis.com", "unknown_ca");
    file.refusals().remember_insistence("[fd00::1]:5432".parse().unwrap(), "db.example");
    file.refusals().remember_certificate("pod-1/main", "db.example");
    assert!(file.save().unwrap() && !file.save().unwrap());
    let (again, problem) = RefusalFile::open(path);
    assert!(problem.is_none());
    let before = file.refusals().refused("pod-1/main", "bigquery.googleapis.com");
    assert_eq!(again.refusals().refused("pod-1/main", "bigquery.googleapis.com"), before);
    assert!(again.refusals().insists("[fd00::1]:5432".parse().unwrap(), "db.example"));
    assert!(again.refusals().shows_certificate("pod-1/main", "db.example"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_file_that_is_not_understood_counts_as_empty_and_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("refusals.json");
    for text in ["", "{", "[]", r#"{"version":9,"refused":[],"insistent":[]}"#, "\0\0\0\0"] {
        std::fs::write(&path, text).unwrap();
        let (file, problem) = RefusalFile::open(path.clone());
        let problem = problem.unwrap();
        assert!(matches!(problem, RefusalFileError::Unreadable { .. }), "{problem}");
        file.refusals().remember("w", "s", "eof");
        assert!(file.save().unwrap());
        assert!(RefusalFile::open(path.clone()).0.refusals().refused("w", "s").is_some());
    }
}

#[test]
fn what_could_not_be_written_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let within = folder.path().join("later");
    let (file, _) = RefusalFile::open(within.join("refusals.json"));
    file.refusals().remember("w", "s", "eof");
    assert!(matches!(file.save(), Err(RefusalFileError::Io { .. })));
    std::fs::create_dir(&within).unwrap();
    assert!(file.save().unwrap());
}

#[test]
fn who_refuses_ever_new_services_has_its_own_forgotten_and_nobody_elses() {
    let refusals = Refusals::default();
    refusals.remember("a/app", "bigquery.googleapis.com", "eof");
    for n in 0..REFUSALS + 10 {
        refusals.remember("b/app", &format!("x{n}.googleapis.com"), "eof");
        refusals.remember_certificate("b/app", &format!("x{n}.googleapis.com"));
    }
    assert!(refusals.refused("a/app", "bigquery.googleapis.com").is_some());
    let newest = format!("x{}.googleapis.com", REFUSALS + 9);
    assert!(refusals.refused("b/app", &newest).is_some() && refusals.shows_certificate("b/app", &newest));
    assert!(refusals.refused("b/app", "x0.googleapis.com").is_none());
    assert_eq!(refusals.all().len(), SHARE + 1);
}
