//! Which selector decides about a workload.
//!
//! Owns what holds for pods that are not known yet. Knows no kernel: what a setting becomes there is `serve`'s.

use std::collections::BTreeMap;

use verbatim_agent_config::{Capture, FailMode, Match, Misdirected, Pattern, Selector, Setting, Untrusted};
use verbatim_api::v1;

/// What holds where no selector matches.
pub(super) const NO_SELECTOR: Setting = Setting {
    capture: Capture::Pass,
    fail_mode: FailMode::Open,
    existing: None,
    trust: None,
    untrusted: Untrusted::Splice,
    misdirected: Misdirected::Pass,
};

/// What holds for a pod whose selector cannot be told yet: nothing of it is missed, and nothing of it breaks, also
/// where it turns out to be a system's.
pub(super) const UNDECIDED: Setting = Setting { capture: Capture::Steer, ..NO_SELECTOR };

/// Who is asked about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who<'a> {
    /// A pod's cgroup, or one among pods: which pod's is not known.
    UnknownPod,
    /// Whoever a rule or the API server names. `container_known` is false for a pod's own cgroup too.
    Named { workload: &'a v1::Workload, labels: Option<&'a BTreeMap<String, String>>, container_known: bool },
    /// Nobody that anything names.
    Nobody,
}

/// Whether a selector matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    /// That depends on what is not known.
    Perhaps,
}

/// What the first selector that matches sets; where one before it may match, [`UNDECIDED`].
pub(super) fn setting(selectors: &[Selector], path: &str, who: Who<'_>) -> Setting {
    for selector in selectors {
        match answer(&selector.matching, path, who) {
            Answer::Yes => return selector.set,
            Answer::Perhaps => return UNDECIDED,
            Answer::No => {}
        }
    }
    NO_SELECTOR
}

fn answer(wanted: &Match, path: &str, who: Who<'_>) -> Answer {
    if wanted.cgroup.as_ref().is_some_and(|pattern| !holds_for(pattern, path)) {
        return Answer::No;
    }
    match who {
        _ if wanted.unknown_pod => {
            if matches!(who, Who::UnknownPod) {
                Answer::Yes
            } else {
                Answer::No
            }
        }
        Who::UnknownPod if wanted.asks_who() => Answer::Perhaps,
        Who::Nobody if wanted.asks_who() => Answer::No,
        Who::UnknownPod | Who::Nobody => Answer::Yes,
        Who::Named { workload, labels, container_known } => {
            let same =
                |wanted: &Option<String>, actual: &str| wanted.as_ref().is_none_or(|wanted| wanted == actual);
            let labelled = |(name, value): (&String, &String)| {
                labels.and_then(|labels| labels.get(name)).is_some_and(|actual| actual == value)
            };
            if !same(&wanted.namespace, &workload.namespace)
                || !same(&wanted.service_account, &workload.service_account)
                || !wanted.pod_labels.iter().all(labelled)
            {
                Answer::No
            } else if wanted.container.is_some() && !container_known {
                Answer::Perhaps
            } else if same(&wanted.container, &workload.container) {
                Answer::Yes
            } else {
                Answer::No
            }
        }
    }
}

/// A selector's cgroup pattern holds for the cgroup itself and for all below it.
fn holds_for(pattern: &Pattern, path: &str) -> bool {
    let mut path = path;
    loop {
        if pattern.matches(path).is_some() {
            return true;
        }
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn selectors(text: &str) -> Vec<Selector> {
        let text = format!(
            "apiVersion: verbatim.v1\nkind: NodeAgent\ndestinations: [{{cidr: 10.0.0.0/8, action: steer}}]\n\
             spool: {{directory: /s}}\ncollector: {{address: 'unix:/c'}}\nkubernetes: {{}}\nselectors:\n{text}"
        );
        verbatim_agent_config::parse(&text, Path::new("agent.yaml")).expect("configuration").selectors
    }

    const PATH: &str = "kubepods/burstable/pod1/c";

    const STEER: Setting = Setting { capture: Capture::Steer, fail_mode: FailMode::Closed, ..NO_SELECTOR };

    fn named<'a>(
        workload: &'a v1::Workload,
        labels: &'a BTreeMap<String, String>,
        container_known: bool,
    ) -> Who<'a> {
        Who::Named { workload, labels: Some(labels), container_known }
    }

    #[test]
    fn a_selector_holds_for_what_is_below_its_cgroup() {
        let one = selectors("- {match: {cgroup: 'kubepods/pod*'}, set: {capture: steer, failMode: closed}}");
        assert_eq!(setting(&one, "kubepods/pod1", Who::Nobody), STEER);
        assert_eq!(setting(&one, "kubepods/pod1/c/d", Who::UnknownPod), STEER);
        assert_eq!(setting(&one, "kubepods", Who::Nobody), NO_SELECTOR);
        assert_eq!(setting(&one, "", Who::Nobody), NO_SELECTOR);
    }

    #[test]
    fn a_pod_that_is_not_known_is_steered_and_fails_open_until_its_selector_can_be_told() {
        let two = selectors(
            "- {match: {namespace: kube-system}, set: {capture: pass, failMode: open}}\n\
             - {set: {capture: steer, failMode: closed}}",
        );
        assert_eq!(setting(&two, PATH, Who::UnknownPod), UNDECIDED);
        assert_eq!(setting(&two, "system.slice", Who::Nobody), STEER);
        let closed = selectors(
            "- {match: {unknownPod: true}, set: {capture: steer, failMode: closed}}\n\
             - {match: {namespace: kube-system}, set: {capture: pass, failMode: open}}",
        );
        assert_eq!(setting(&closed, PATH, Who::UnknownPod), STEER);
        assert_eq!(setting(&closed, "system.slice", Who::Nobody), NO_SELECTOR);
        let workload = v1::Workload { namespace: "shop".into(), ..v1::Workload::default() };
        let labels = BTreeMap::new();
        assert_eq!(setting(&closed, PATH, named(&workload, &labels, true)), NO_SELECTOR);
    }

    #[test]
    fn labels_and_containers_are_matched_once_they_are_known() {
        let both = selectors(
            "- {match: {podLabels: {app: web, tier: front}}, set: {capture: pass, failMode: open}}\n\
             - {match: {container: app}, set: {capture: steer, failMode: closed}}",
        );
        let workload = v1::Workload { container: "app".into(), ..v1::Workload::default() };
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let front = labels(&[("app", "web"), ("tier", "front"), ("x", "y")]);
        assert_eq!(setting(&both, PATH, named(&workload, &front, true)), NO_SELECTOR);
        let back: BTreeMap<String, String> = labels(&[("app", "web"), ("tier", "back")]);
        assert_eq!(setting(&both, PATH, named(&workload, &back, true)), STEER);
        let none = v1::Workload::default();
        assert_eq!(setting(&both, PATH, named(&none, &back, false)), UNDECIDED);
        let other = v1::Workload { container: "proxy".into(), ..v1::Workload::default() };
        assert_eq!(setting(&both, PATH, named(&other, &back, true)), NO_SELECTOR);
    }
}
