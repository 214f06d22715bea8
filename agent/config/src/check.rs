//! What a configuration file says as a whole: that nothing in it contradicts anything else in it.

use super::{Action, FailMode, Misdirected, NodeAgent, OnBehalfOf, Trust, Untrusted};

/// Room for commands of usual length, bytes.
const LEAST_SEGMENT: u64 = 64 << 10;

/// Ports that workloads' connections are sent to.
const STEERED_TO: [u16; 2] = [61_973, 62_973];

/// What no single key can tell.
pub(super) fn check(config: &NodeAgent) -> Result<(), String> {
    if config.destinations.is_empty() {
        return Err("`destinations` is empty, so nothing would be steered: list at least one".into());
    }
    for destination in &config.destinations {
        match (destination.fail_mode, destination.action) {
            (None, _) | (Some(FailMode::Open), Action::Steer) => {}
            (Some(FailMode::Open), _) => {
                return Err(format!(
                    "`destinations[].failMode` of {} means nothing: only what is steered can fail",
                    destination.cidr
                ));
            }
            (Some(FailMode::Closed), _) => {
                return Err(format!(
                    "`destinations[].failMode` of {} may only be `open`: `closed` is a selector's to say",
                    destination.cidr
                ));
            }
        }
    }
    if config.selectors.is_empty() {
        return Err("`selectors` is empty, so nothing would be steered: list at least one".into());
    }
    let before_last = config.selectors.len() - 1;
    if config.selectors.iter().take(before_last).any(|selector| selector.matching.is_everything()) {
        return Err("a selector without `match` decides for every workload: it must be the last".into());
    }
    if config.shards.is_some_and(|shards| shards == 0 || shards > 64) {
        return Err("`shards` must be 1 to 64".into());
    }
    if config.node.as_deref() == Some("") {
        return Err("`node` is empty: name the node, or leave the key out".into());
    }
    check_tls(config)?;
    check_kubernetes(config)?;
    check_evidence(config)?;
    check_collector(config)?;
    if config.bypass.maximum.0.is_zero() {
        return Err("`bypass.maximum` is 0: to allow none say `bypass: {enabled: false}`".into());
    }
    if let Some(metrics) = config.metrics {
        let port = metrics.listen.port();
        if port == 0 {
            return Err("`metrics.listen` has port 0: name one, e.g. `127.0.0.1:9464`".into());
        }
        if STEERED_TO.contains(&port) {
            return Err(format!(
                "`metrics.listen` has port {port}, to which workloads' connections are sent: name another"
            ));
        }
    }
    for rule in &config.identities {
        let known: Vec<&str> = rule.cgroup.captures().collect();
        let templates = [Some(&rule.namespace), Some(&rule.service_account), rule.pod.name.as_ref()];
        let templates = templates.into_iter().chain([rule.pod.uid.as_ref(), rule.container.as_ref()]);
        for name in templates.flatten().flat_map(|template| template.names()) {
            if !known.contains(&name) {
                let pattern = &rule.cgroup;
                return Err(format!("identity of `{pattern}`: `{{{name}}}` is not captured by the pattern"));
            }
        }
    }
    let limits = &config.limits;
    if limits.dial_timeout.is_some_and(|time| time.0.is_zero()) {
        return Err("`limits.dialTimeout` is 0, so no server could be reached".into());
    }
    if limits.connections_per_shard == Some(0) {
        return Err("`limits.connectionsPerShard` is 0, so no connection would be taken".into());
    }
    let (segment, limit) = (config.spool.segment_size.0, config.spool.limit.0);
    if segment < LEAST_SEGMENT {
        return Err(format!(
            "`spool.segmentSize` ({segment} bytes) is too small for a command: {LEAST_SEGMENT} bytes at least"
        ));
    }
    if segment.saturating_mul(2) > limit {
        return Err(format!(
            "`spool.limit` ({limit} bytes) must hold two segments of `spool.segmentSize` ({segment} bytes)"
        ));
    }
    Ok(())
}

fn check_kubernetes(config: &NodeAgent) -> Result<(), String> {
    if let Some(kubernetes) = &config.kubernetes {
        return kubernetes.check();
    }
    let mut matches = config.selectors.iter().map(|selector| &selector.matching);
    if matches.any(|matching| matching.unknown_pod || !matching.pod_labels.is_empty()) {
        return Err("a selector matches by pods, but there is no `kubernetes`: add it".into());
    }
    if config.selectors.iter().any(|selector| selector.set.trust == Some(Trust::ByInjection)) {
        return Err(
            "a selector says `trust: byInjection`, but there is no `kubernetes` to ask: add it".into()
        );
    }
    Ok(())
}

fn check_evidence(config: &NodeAgent) -> Result<(), String> {
    let tokeninfo = &config.credentials.tokeninfo;
    if tokeninfo.enabled && !tokeninfo.endpoint.starts_with("https://") {
        return Err(
            "`credentials.tokeninfo.endpoint` must begin with `https://`: tokens are sent there".into()
        );
    }
    let OnBehalfOf { issuers, names, session_names, task_names, tool_names } = &config.on_behalf_of;
    for issuer in issuers {
        let name = &issuer.issuer;
        if name.is_empty() {
            return Err("`onBehalfOf.issuers` has one whose `issuer` is empty: give its claim `iss`".into());
        }
        if issuer.audiences.is_empty() {
            return Err(format!(
                "`onBehalfOf.issuers`, {name}: `audiences` is empty, so no token would hold"
            ));
        }
        if issuer.workload_claim.is_empty() {
            return Err(format!("`onBehalfOf.issuers`, {name}: `workloadClaim` is empty: name a claim"));
        }
        match (&issuer.jwks.file, &issuer.jwks.url) {
            (Some(_), None) => {}
            (None, Some(url)) if url.starts_with("https://") => {}
            (None, Some(_)) => {
                return Err(format!("`onBehalfOf.issuers`, {name}: `jwks.url` must begin with `https://`"));
            }
            _ => return Err(format!("`onBehalfOf.issuers`, {name}: give `jwks` either `file` or `url`")),
        }
        if issuers.iter().filter(|other| other.issuer == *name).count() > 1 {
            return Err(format!("`onBehalfOf.issuers` has {name} twice"));
        }
    }
    let lists = [
        ("names", names),
        ("sessionNames", session_names),
        ("taskNames", task_names),
        ("toolNames", tool_names),
    ];
    for (key, list) in lists {
        if list.as_ref().is_some_and(|list| list.iter().any(String::is_empty)) {
            return Err(format!("`onBehalfOf.{key}` has an empty name"));
        }
    }
    Ok(())
}

fn check_collector(config: &NodeAgent) -> Result<(), String> {
    let Some(tls) = &config.collector.tls else { return Ok(()) };
    let issuer = config.tls.as_ref().and_then(|tls| tls.authority.issuer.as_ref());
    match (tls.issuer, &tls.certificate, &tls.key) {
        (true, None, None) if issuer.is_none() => Err(
            "`collector.tls.issuer` is true, but there is no `tls.authority.issuer` that would give a certificate"
                .into(),
        ),
        (true, None, None) | (false, Some(_), Some(_)) => Ok(()),
        (true, ..) => {
            Err("`collector.tls.issuer` gives certificate and key: leave `certificate` and `key` out".into())
        }
        (false, ..) => Err("`collector.tls` needs `certificate` and `key`, or `issuer: true`".into()),
    }
}

fn check_tls(config: &NodeAgent) -> Result<(), String> {
    let Some(tls) = &config.tls else {
        let sets = || config.selectors.iter().map(|selector| selector.set);
        if sets().any(|set| matches!(set.trust, Some(Trust::Injected | Trust::ByInjection))) {
            return Err(
                "a selector says that workloads trust us, but there is no `tls`: say whose roots were given"
                    .into(),
            );
        }
        if sets().any(|set| set.untrusted == Untrusted::Deny) {
            return Err(
                "a selector says `untrusted: deny`, but without `tls` no TLS is looked at: add it".into()
            );
        }
        if sets().any(|set| set.misdirected == Misdirected::Deny) {
            return Err(
                "a selector says `misdirected: deny`, but without `tls` no TLS is looked into: add it".into(),
            );
        }
        return Ok(());
    };
    let authority = &tls.authority;
    let sources = (&authority.ephemeral, &authority.issuer);
    match (sources, authority.roots.is_empty(), authority.intermediates.is_empty()) {
        ((Some(_), None) | (None, Some(_)), true, true) | ((None, None), false, false) => {}
        ((Some(_), Some(_)), _, _) => {
            return Err("`tls.authority` says `ephemeral` and `issuer`: one of them".into());
        }
        ((Some(_), None), _, _) => {
            return Err("`tls.authority.ephemeral` makes roots and intermediates: leave those out".into());
        }
        ((None, Some(_)), _, _) => {
            return Err("`tls.authority.issuer` gives roots and intermediates: leave those out".into());
        }
        ((None, None), true, _) => {
            return Err("`tls.authority.roots` is empty: name the file that workloads got".into());
        }
        ((None, None), false, true) => {
            return Err("`tls.authority.intermediates` is empty: name what signs".into());
        }
    }
    if let Some(issuer) = &authority.issuer
        && issuer
            .address
            .rsplit_once(':')
            .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
    {
        return Err(format!("`tls.authority.issuer.address` is `{}`: write HOST:PORT", issuer.address));
    }
    if !tls.upstream_roots.system && tls.upstream_roots.files.is_empty() {
        return Err("`tls.upstreamRoots` believes nobody: let `system` be true, or list `files`".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Sync, parse};

    const GOOD: &str = "\
apiVersion: verbatim.v1
kind: NodeAgent
destinations:
- {cidr: 10.0.0.0/8, ports: [5432], action: steer}
selectors:
- match: {cgroup: 'kubepods/**'}
  set: {capture: steer, failMode: closed}
- set: {capture: pass, failMode: open}
identities:
- cgroup: 'kubepods/**/pod{uid}/**'
  projectNumber: 123456789012
  pool: p.svc.id.goog
  namespace: shop
  serviceAccount: checkout
  pod: {uid: '{uid}'}
spool: {directory: /var/lib/verbatim/spool}
collector: {address: 'unix:/run/collector.sock'}
";

    /// What is said about the good file with one text replaced.
    fn said(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        match parse(&GOOD.replacen(from, to, 1), Path::new("agent.yaml")) {
            Ok(_) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_good_file_is_read_with_its_defaults() {
        let config = parse(GOOD, Path::new("agent.yaml")).expect("good");
        assert_eq!(config.spool.sync, Sync::Process);
        assert_eq!(config.drain_deadline.0.as_secs(), 30);
        assert_eq!(config.selectors.len(), 2);
        assert_eq!(config.identities[0].project_number, 123_456_789_012);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let said = said("failMode: closed", "failmod: closed");
        assert!(said.starts_with("agent.yaml:7: unknown key `failmod`; did you mean `failMode`?"), "{said}");
        assert!(
            said.contains("known here: capture, failMode, existing, trust, untrusted, misdirected"),
            "{said}"
        );
        let said = self::said("spool:", "spoool:");
        assert!(said.starts_with("agent.yaml:16: unknown key `spoool`; did you mean `spool`?"), "{said}");
    }

    #[test]
    fn a_key_like_no_other_gets_no_guess() {
        let said = said("spool:", "zzzzzzzzzz:");
        assert!(
            said.starts_with("agent.yaml:16: unknown key `zzzzzzzzzz` (known here: apiVersion, "),
            "{said}"
        );
    }

    #[test]
    fn limits_that_let_nothing_through_are_refused() {
        let spool = "spool: {directory: /var/lib/verbatim/spool}";
        let limits = |what: &str| said(spool, &format!("{spool}\nlimits: {what}"));
        assert!(limits("{dialTimeout: 0s}").contains("no server could be reached"));
        assert!(limits("{connectionsPerShard: 0}").contains("no connection would be taken"));
        assert_eq!(limits("{dialTimeout: 1s, connectionsPerShard: 1}"), "nothing");
        let small = said(spool, "spool: {directory: /var/lib/verbatim/spool, segmentSize: 0B}");
        assert!(small.contains("too small for a command"), "{small}");
    }

    #[test]
    fn only_what_is_steered_can_be_said_to_fail_open() {
        let with = |action: &str| said("action: steer", action);
        assert_eq!(with("action: steer, failMode: open"), "nothing");
        assert!(
            with("action: deny, failMode: open").contains("`destinations[].failMode` of 10.0.0.0/8 means")
        );
        assert!(with("action: steer, failMode: closed").contains("may only be `open`"));
    }

    #[test]
    fn metrics_and_a_bypass_need_an_address_and_a_time() {
        let spool = "spool: {directory: /var/lib/verbatim/spool}";
        let with = |more: &str| said(spool, &format!("{spool}\n{more}"));
        assert_eq!(with("metrics: {listen: '127.0.0.1:9464'}"), "nothing");
        assert_eq!(with("metrics: {listen: '[::1]:9464'}\nbypass: {enabled: false, maximum: 5m}"), "nothing");
        assert!(with("metrics: {listen: '127.0.0.1:0'}").contains("has port 0"));
        assert!(with("metrics: {listen: '127.0.0.1:61973'}").contains("connections are sent"));
        let unaddressed = with("metrics: {listen: 9464}");
        assert!(unaddressed.contains("agent.yaml:17: invalid socket address"), "{unaddressed}");
        assert!(with("bypass: {maximum: 0s}").contains("enabled: false"));
    }

    #[test]
    fn pods_are_matched_only_where_somebody_names_them() {
        let labels = "match: {cgroup: 'kubepods/**', podLabels: {app: web}}";
        let from = "match: {cgroup: 'kubepods/**'}";
        assert!(said(from, labels).contains("there is no `kubernetes`"));
        assert!(said(from, "match: {unknownPod: true}").contains("there is no `kubernetes`"));
        let spool = "spool: {";
        let with = |keys: &str| said(spool, &format!("kubernetes: {{{keys}}}\nspool: {{"));
        assert_eq!(with(""), "nothing");
        assert_eq!(with("nodeName: n, projectNumber: 7, pool: p.svc.id.goog, labels: [app]"), "nothing");
        assert!(with("nodeName: ''").contains("`kubernetes.nodeName` is empty"));
        assert!(with("projectNumber: 0").contains("`kubernetes.projectNumber` is 0"));
        assert!(with("resolveTimeout: 5m").contains("30s at most"));
        assert!(with("projectnumber: 7").contains("did you mean `projectNumber`?"));
    }

    #[test]
    fn the_fail_mode_has_no_default() {
        let said = said("capture: pass, failMode: open", "capture: pass");
        assert!(said.contains("`failMode` is missing"), "{said}");
        assert!(said.starts_with("agent.yaml:8:"), "{said}");
    }

    #[test]
    fn an_unknown_value_is_named_with_the_known_ones() {
        let said = said("failMode: closed", "failMode: close");
        let expected =
            "agent.yaml:7: unknown value `close`; did you mean `closed`? (known here: open, closed)";
        assert_eq!(said, expected);
        assert!(self::said("verbatim.v1", "verbatim.v2").contains("did you mean `verbatim.v1`?"));
    }

    #[test]
    fn a_value_that_cannot_be_read_is_named_with_its_line_and_what_was_expected() {
        for (from, to, line, part) in [
            ("10.0.0.0/8", "10.0.0.1/8", 4, "did you mean `10.0.0.0/8`?"),
            ("10.0.0.0/8", "db.example.com", 4, "no address range"),
            ("[5432]", "[70000]", 4, ""),
            ("spool: {", "spool: {limit: 5GB, ", 16, "no size"),
            ("pod{uid}/", "pod{uid/", 10, "must be followed by"),
        ] {
            let said = said(from, to);
            assert!(said.starts_with(&format!("agent.yaml:{line}: ")) && said.contains(part), "{to}: {said}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let catch_all_first = said("match: {cgroup: 'kubepods/**'}", "match: {}");
        assert!(catch_all_first.contains("must be the last"), "{catch_all_first}");
        let no_capture = said("uid: '{uid}'", "uid: '{pod}'");
        assert!(no_capture.contains("`{pod}` is not captured"), "{no_capture}");
        let small = said("spool: {", "spool: {limit: 10MiB, ");
        assert!(small.contains("must hold two segments"), "{small}");
    }

    #[test]
    fn tls_is_one_authority_and_somebody_who_is_believed() {
        let tls = |keys: &str| said("spool: {", &format!("tls: {{stateFile: /s, {keys}}}\nspool: {{"));
        let issued = "authority: {roots: [r], intermediates: [{certificate: c, key: k}]}";
        assert_eq!(tls(issued), "nothing");
        assert_eq!(tls("authority: {ephemeral: {directory: d, names: [db.example]}}"), "nothing");
        for (keys, part) in [
            ("authority: {roots: [r]}".to_owned(), "`tls.authority.intermediates` is empty"),
            ("authority: {}".to_owned(), "`tls.authority.roots` is empty"),
            ("authority: {roots: [r], ephemeral: {directory: d}}".to_owned(), "leave those out"),
            (format!("{issued}, upstreamRoots: {{system: false}}"), "believes nobody"),
            (
                format!("{issued}, upstreamRoot: {{}}"),
                "unknown key `upstreamRoot`; did you mean `upstreamRoots`?",
            ),
            (
                "authority: {roots: [r], intermediates: [{certificate: c}]}".to_owned(),
                "`key` is missing here",
            ),
        ] {
            let said = tls(&keys);
            assert!(said.contains(part), "{keys}: {said}");
        }
    }

    #[test]
    fn an_issuer_stands_alone_and_gives_the_collectors_certificate_too() {
        const ISSUER: &str =
            "tls: {stateFile: /s, authority: {issuer: {address: 'i:8443', ca: /ca, tokenFile: /t}}}";
        let with = |tls: &str| said("spool:", &format!("{tls}\nspool:"));
        assert_eq!(with(ISSUER), "nothing");
        let known = with(&ISSUER.replace("'i:8443'", "https://i"));
        assert!(known.contains("HOST:PORT"), "{known}");
        let two = with(&ISSUER.replace("{issuer:", "{roots: [/r], issuer:"));
        assert!(two.contains("leave those out"), "{two}");
        let both = with(&ISSUER.replace("{issuer:", "{ephemeral: {directory: /d}, issuer:"));
        assert!(both.contains("one of them"), "{both}");
        let collector = |tls: &str, more: &str| {
            let to = format!("collector: {{address: 'https://c:1', tls: {{ca: /ca, {tls}}}}}\n{more}");
            said("collector: {address: 'unix:/run/collector.sock'}", &to)
        };
        assert_eq!(collector("issuer: true", ISSUER), "nothing");
        assert_eq!(collector("certificate: /c, key: /k", ""), "nothing");
        for (tls, more, complaint) in [
            ("issuer: true", "", "there is no `tls.authority.issuer`"),
            ("issuer: true, key: /k", ISSUER, "leave `certificate` and `key` out"),
            ("certificate: /c", "", "needs `certificate` and `key`"),
        ] {
            let said = collector(tls, more);
            assert!(said.contains(complaint), "{said}");
        }
    }

    #[test]
    fn trust_needs_an_authority_and_is_no_default() {
        let said = said("failMode: closed", "failMode: closed, trust: injected");
        assert!(said.contains("there is no `tls`"), "{said}");
        let said = self::said("failMode: closed", "failMode: closed, untrusted: deny");
        assert!(said.contains("without `tls`"), "{said}");
        let said = self::said("failMode: closed", "failMode: closed, misdirected: deny");
        assert!(said.contains("without `tls` no TLS is looked into"), "{said}");
        assert_eq!(self::said("failMode: closed", "failMode: closed, misdirected: pass"), "nothing");
        assert_eq!(
            self::said("failMode: closed", "failMode: closed, trust: none, untrusted: splice"),
            "nothing"
        );
        let said = self::said("failMode: closed", "failMode: closed, trust: inject");
        assert!(
            said.contains("did you mean `injected`? (known here: injected, none, byInjection)"),
            "{said}"
        );
        let config = parse(GOOD, Path::new("agent.yaml")).expect("good");
        assert_eq!(config.selectors[0].set.trust, None);
        assert_eq!(config.selectors[0].set.untrusted, Untrusted::Splice);
    }

    #[test]
    fn who_is_believed_about_whom_is_said_in_full() {
        let with = |keys: &str| said("spool: {", &format!("{keys}\nspool: {{"));
        let issuer = |keys: &str| with(&format!("onBehalfOf: {{issuers: [{{{keys}}}]}}"));
        let good = "issuer: i, audiences: [a], jwks: {file: /k}";
        assert_eq!(issuer(good), "nothing");
        assert_eq!(
            issuer("issuer: i, audiences: [a], jwks: {url: 'https://i/k'}, workloadClaim: w"),
            "nothing"
        );
        assert_eq!(with("credentials: {fingerprintKey: {file: /k}, tokeninfo: {enabled: true}}"), "nothing");
        for (keys, part) in [
            ("issuer: '', audiences: [a], jwks: {file: /k}", "`issuer` is empty"),
            ("issuer: i, audiences: [], jwks: {file: /k}", "`audiences` is empty"),
            ("issuer: i, audiences: [a], jwks: {}", "either `file` or `url`"),
            ("issuer: i, audiences: [a], jwks: {file: /k, url: 'https://k'}", "either `file` or `url`"),
            ("issuer: i, audiences: [a], jwks: {url: 'http://k'}", "must begin with `https://`"),
            ("issuer: i, audiences: [a], jwks: {file: /k}, workloadClaim: ''", "`workloadClaim` is empty"),
            (&format!("{good}}}, {{{good}"), "has i twice"),
            ("issuer: i, audience: a, jwks: {file: /k}", "did you mean `audiences`?"),
        ] {
            let said = issuer(keys);
            assert!(said.contains(part), "{keys}: {said}");
        }
        let plain = with("credentials: {tokeninfo: {enabled: true, endpoint: 'http://x'}}");
        assert!(plain.contains("tokens are sent there"), "{plain}");
        let empty = with("onBehalfOf: {toolNames: ['']}");
        assert!(empty.contains("has an empty name"), "{empty}");
    }

    #[test]
    fn what_becomes_of_connections_from_before_follows_the_fail_mode_unless_it_is_said() {
        let resets = |replacement: &str| {
            let text = GOOD.replacen("failMode: closed", replacement, 1);
            parse(&text, Path::new("agent.yaml")).map(|config| config.selectors[0].set.resets_existing())
        };
        assert_eq!(resets("failMode: closed").ok(), Some(true));
        assert_eq!(resets("failMode: open").ok(), Some(false));
        assert_eq!(resets("failMode: closed, existing: keep").ok(), Some(false));
        assert_eq!(resets("failMode: open, existing: reset").ok(), Some(true));
        let said = said("failMode: closed", "failMode: closed, existing: drop");
        assert!(said.contains("known here: keep, reset"), "{said}");
    }

    #[test]
    fn a_key_that_is_there_twice_and_what_is_no_yaml_are_errors() {
        assert_ne!(said("kind: NodeAgent", "kind: NodeAgent\nkind: NodeAgent"), "nothing");
        assert!(said("selectors:", "selectors: [").starts_with("agent.yaml:"));
        assert!(parse("", Path::new("agent.yaml")).is_err());
    }
}
