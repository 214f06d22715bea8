//! What is measured, under its names. Labels come from closed sets only.

use std::sync::atomic::Ordering;

use verbatim_api::v1;
use verbatim_kube::Reach;
use verbatim_proxy::Stats;

use super::{exposition::Exposition, health::Health, orders::Orders};

/// Everything as of now.
pub(crate) fn render(health: &Health, orders: &Orders) -> String {
    let mut text = Exposition::default();
    let version = env!("CARGO_PKG_VERSION");
    text.family("verbatim_build_info", "gauge", "This agent.", [([("version", version)], 1)]);
    if let Some(shards) = health.shards() {
        relayed(&mut text, &shards.stats());
        let silence = shards.silence().as_secs_f64();
        text.gauge(
            "verbatim_shard_silence_seconds",
            "Since the last sign of life of the slowest shard.",
            silence,
        );
    }
    spool(&mut text, health);
    kernel(&mut text, health);
    watchdog(&mut text, health);
    pods(&mut text, health);
    issuer(&mut text, health);
    bypass(&mut text, orders);
    conditions(&mut text, health);
    text.finish()
}

fn relayed(text: &mut Exposition, stats: &Stats) {
    text.counter("verbatim_connections_accepted_total", "Connections accepted.", stats.accepted);
    text.gauge("verbatim_connections_open", "Connections that are open.", stats.open);
    let ended = stats.ended.iter().collect::<Vec<_>>();
    let ended = ended.iter().map(|one| {
        let labels = [("capture", capture(one.capture)), ("status", status(one.status))];
        (labels, one.count)
    });
    let help = "Connections that have ended, as their last record says.";
    text.family("verbatim_connections_ended_total", "counter", help, ended);
    let spliced: Vec<_> = stats
        .spliced
        .iter()
        .map(|(reason, count)| (lower(reason.as_str_name(), "OPAQUE_REASON_"), count))
        .collect();
    let spliced = spliced.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count));
    let help = "Connections that passed undecoded, wholly or from some point on.";
    text.family("verbatim_connections_spliced_total", "counter", help, spliced);
    let help = "Accepted sockets that were not steered by us: closed unread.";
    text.counter("verbatim_connections_without_flow_total", help, stats.no_flow);
    let dials = [([("outcome", "connected")], stats.dialled), ([("outcome", "failed")], stats.dial_failed)];
    text.family("verbatim_dials_total", "counter", "Connections made to servers.", dials);
    text.counter("verbatim_commands_total", "Commands recorded as started.", stats.commands);
    text.counter("verbatim_commands_denied_total", "Commands refused by policy.", stats.denied);
    text.counter("verbatim_commands_held_total", "Commands held for a person.", stats.held);
    proven(text, stats);
    let bytes = [
        ([("direction", "to_server")], stats.bytes_sent),
        ([("direction", "to_workload")], stats.bytes_received),
    ];
    let help = "Bytes forwarded on connections that have ended.";
    text.family("verbatim_relayed_bytes_total", "counter", help, bytes);
    text.counter(
        "verbatim_connection_panics_total",
        "Connections that panicked, and were reset.",
        stats.panics,
    );
    let help = "Records that found no room before the end of draining: the next start writes them.";
    text.counter("verbatim_records_unwritten_total", help, stats.unwritten);
}

fn proven(text: &mut Exposition, stats: &Stats) {
    let matches: Vec<_> = stats
        .proven
        .credentials()
        .map(|(value, count)| (lower(value.as_str_name(), "CREDENTIAL_MATCH_"), count))
        .collect();
    let matches = matches.iter().map(|(value, count)| ([("match", value.as_str())], *count));
    let help = "Commands by whether their credentials are the workload's own.";
    text.family("verbatim_commands_by_credential_total", "counter", help, matches);
    let kinds: Vec<_> = stats
        .proven
        .behalf()
        .map(|(value, count)| (lower(value.as_str_name(), "BEHALF_KIND_"), count))
        .collect();
    let kinds = kinds.iter().map(|(value, count)| ([("kind", value.as_str())], *count));
    let help = "Commands by how well it is known on whose behalf they were sent.";
    text.family("verbatim_commands_by_behalf_total", "counter", help, kinds);
}

fn spool(text: &mut Exposition, health: &Health) {
    let gauge = &health.vitals.spool;
    text.gauge("verbatim_spool_bytes", "Bytes that segments of the spool take.", gauge.used_bytes());
    text.gauge("verbatim_spool_limit_bytes", "Bytes that they may take.", gauge.limit_bytes());
    text.gauge("verbatim_spool_full", "1: a record waits for room.", u8::from(gauge.is_full()));
    let age = gauge.oldest_unacknowledged().unwrap_or_default().as_secs_f64();
    let help = "Since when the oldest record has waited for the collector; 0 where none waits.";
    text.gauge("verbatim_spool_oldest_unacknowledged_age_seconds", help, age);
    let connected = health.vitals.collector_connected.load(Ordering::Relaxed);
    let help = "1: the collector acknowledges records.";
    text.gauge("verbatim_collector_connected", help, u8::from(connected));
}

fn kernel(text: &mut Exposition, health: &Health) {
    let Some(steering) = health.steering() else { return };
    match steering.counters() {
        Ok(counters) => {
            for (name, value) in counters {
                let help = "Counted by the programs in the kernel; see docs/configuration.md.";
                text.counter(&format!("verbatim_kernel_{name}_total"), help, value);
            }
        }
        Err(error) => tracing::error!(%error, "the kernel's counters cannot be read"),
    }
    let lacking = steering.lacking().iter().map(|one| ([("feature", one.feature.name)], 1));
    let help = "1: this kernel has not this feature, without which the agent starts all the same.";
    text.family("verbatim_kernel_lacks", "gauge", help, lacking);
    let namespaces = steering.namespaces().count();
    text.gauge("verbatim_namespaces", "Network namespaces in which listeners stand.", namespaces.namespaces);
    text.gauge("verbatim_listeners", "Listening sockets in them.", namespaces.listeners);
    let help = "Network namespaces, or their directory, that cannot be used; /readyz says which and why.";
    text.gauge("verbatim_namespaces_in_trouble", help, health.troubles().len());
}

fn watchdog(text: &mut Exposition, health: &Health) {
    let hooks = health.found();
    let effective = hooks.effective.iter().map(|program| ([("program", *program)], 1));
    let missing = hooks.missing.iter().map(|program| ([("program", *program)], 0));
    let help = "1: the program is what runs on its hook.";
    text.family("verbatim_program_effective", "gauge", help, effective.chain(missing));
    let help = "Times that one of our programs was found not to run on its hook.";
    text.counter("verbatim_programs_lost_total", help, hooks.lost);
    text.counter("verbatim_programs_restored_total", "Programs that were attached again.", hooks.restored);
    let help = "1: another agent has taken the hooks over.";
    text.gauge("verbatim_superseded", help, u8::from(hooks.superseded));
}

fn pods(text: &mut Exposition, health: &Health) {
    let Some(store) = &health.pods else { return };
    let help = "Pods of this node that are known, those that went lately too.";
    text.gauge("verbatim_pods_known", help, u64::try_from(store.snapshot().len()).unwrap_or(u64::MAX));
    let help = "1: the API server has told all pods, and tells what changes.";
    text.gauge("verbatim_api_server_synced", help, u8::from(store.reach() == Reach::Synced));
}

fn issuer(text: &mut Exposition, health: &Health) {
    let Some(known) = &health.issuer else { return };
    let standing = known.now();
    let help = "1: the issuer gave certificates when it was asked last.";
    let answers = standing.failing.is_none() && standing.until.is_some();
    text.gauge("verbatim_issuer_answers", help, u8::from(answers));
    let help = "Until when what the issuer gave is good, seconds since 1970; 0 where it has given nothing.";
    let until = standing.until.and_then(|until| u64::try_from(until).ok()).unwrap_or_default();
    text.gauge("verbatim_issued_until_seconds", help, until);
}

fn bypass(text: &mut Exposition, orders: &Orders) {
    let order = orders.now().unwrap_or_else(|error| {
        tracing::error!(%error, "whether steering is bypassed cannot be read");
        None
    });
    let help = "1: a person has stopped steering for a time.";
    text.gauge("verbatim_bypass_active", help, u8::from(order.is_some()));
    let left = order.map(|(order, _)| order.left().as_secs_f64()).unwrap_or_default();
    text.gauge("verbatim_bypass_remaining_seconds", "How much longer it lasts.", left);
}

fn conditions(text: &mut Exposition, health: &Health) {
    for (name, help, conditions) in [
        ("verbatim_live", "Conditions of /livez that hold.", health.live()),
        ("verbatim_ready", "Conditions of /readyz that hold.", health.ready()),
    ] {
        let samples = conditions
            .iter()
            .map(|(condition, state)| ([("condition", *condition)], u8::from(state.is_ok())));
        text.family(name, "gauge", help, samples);
    }
}

fn capture(capture: v1::Capture) -> &'static str {
    match capture {
        v1::Capture::Unspecified => "none",
        v1::Capture::Decoded => "decoded",
        v1::Capture::Partly => "partly",
        v1::Capture::SeenNotDecoded => "seen_not_decoded",
    }
}

fn status(status: v1::Status) -> &'static str {
    match status {
        v1::Status::Ok => "ok",
        v1::Status::Error => "error",
        v1::Status::OutcomeUnknown => "outcome_unknown",
        _ => "other",
    }
}

fn lower(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}
