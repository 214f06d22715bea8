//! The configuration file: the documented one is read, and mistakes are named where they are.

use std::path::Path;

use verbatim_agent_config::{ConfigError, NodeAgent, parse};

const DOCUMENTED: &str = include_str!("../../../docs/deploy/node-agent.yaml");

const DEPLOYED: &str = include_str!("../../../docs/deploy/cluster-agent.yaml");

fn read(text: &str) -> Result<NodeAgent, ConfigError> {
    parse(text, Path::new("agent.yaml"))
}

#[test]
fn the_documented_configuration_is_read() {
    let config = read(DOCUMENTED).expect("read");
    assert_eq!((config.selectors.len(), config.destinations.len()), (3, 3));
    assert_eq!(config.tls.map(|tls| tls.authority.intermediates.len()), Some(2));
}

#[test]
fn the_configuration_for_clusters_is_read_and_lets_nobodys_connects_fail() {
    let config = read(DEPLOYED).expect("read");
    assert!(config.metrics.is_some() && config.selectors.len() == 3);
    assert!(!DEPLOYED.contains("failMode: closed"), "an installation must not cut anybody off");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let wrong = DOCUMENTED.replace("segmentSize:", "segmentsize:");
    let line = wrong.lines().position(|line| line.contains("segmentsize")).expect("there") + 1;
    let error = read(&wrong).expect_err("unknown").to_string();
    for part in [format!("agent.yaml:{line}"), "`segmentsize`".into(), "did you mean `segmentSize`".into()] {
        assert!(error.contains(&part), "{error} lacks {part}");
    }
}

#[test]
fn a_selector_must_say_what_happens_without_the_agent() {
    let wrong = DOCUMENTED.replace("capture: steer, failMode: closed", "capture: steer");
    let error = read(&wrong).expect_err("missing").to_string();
    assert!(error.contains("failMode"), "{error}");
}

#[test]
fn values_that_contradict_one_another_are_refused_with_what_to_do() {
    let all_first = DOCUMENTED.replace("match: { namespace: kube-system }", "match: {}");
    assert!(read(&all_first).expect_err("first").to_string().contains("must be the last"));
    let small = DOCUMENTED.replace("limit: 1GiB", "limit: 8MiB");
    assert!(read(&small).expect_err("small").to_string().contains("must hold two segments"));
    let capture = DOCUMENTED.replace("uid: \"{uid}\"", "uid: \"{pod}\"");
    assert!(read(&capture).expect_err("capture").to_string().contains("not captured"));
}
