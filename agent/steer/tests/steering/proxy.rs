//! The smallest proxy: answers each connection with its flow, in one line, and closes it.

use std::{
    collections::HashMap,
    io::Write,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use verbatim_steer::{Flow, FlowReader, ShardListeners};

use crate::lab::accept_all;

/// Accepts until it is dropped.
pub(crate) struct Proxy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// One thread for each shard.
    pub(crate) fn start(flows: FlowReader, shards: Vec<ShardListeners>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = shards
            .into_iter()
            .map(|shard| {
                let (stop, flows) = (Arc::clone(&stop), flows.clone());
                thread::spawn(move || {
                    let listeners: Vec<_> =
                        [Some(&shard.v4), shard.v6.as_ref()].into_iter().flatten().collect();
                    accept_all(&listeners, &stop, |mut stream, _| {
                        let line = flows.flow(stream.as_fd()).map_or("noflow".to_owned(), |flow| line(&flow));
                        // In one piece: where a client's data are left unread, a reset comes behind it.
                        stream.write_all(format!("{line}\n").as_bytes()).ok();
                    });
                })
            })
            .collect();
        Self { stop, threads }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn line(flow: &Flow) -> String {
    let raw = &flow.0;
    let ancestors: Vec<String> = flow.ancestor_cgroup_ids().iter().map(u64::to_string).collect();
    format!(
        "flow destination={} cgroup={} ancestors={} pid={} tid={} uid={} gid={} client_netns={} listener_netns={} \
         cookie={} ktime={} comm={} family={} route={} series={} \
         number={}",
        flow.destination(),
        raw.cgroup_id,
        ancestors.join(","),
        raw.pid,
        raw.tid,
        raw.uid,
        raw.gid,
        raw.client_netns,
        raw.listener_netns,
        raw.socket_cookie,
        raw.ktime_nanos,
        flow.comm(),
        raw.family,
        raw.route,
        raw.series,
        raw.number,
    )
}

/// `key=value` words of a line.
pub(crate) fn fields(line: &str) -> HashMap<&str, &str> {
    line.split_ascii_whitespace().filter_map(|word| word.split_once('=')).collect()
}
