//! What identity costs in memory.

use std::fs;

use libtest_mimic::Failed;
use serde_json::{Value, json};
use verbatim_api::v1::Resolution;

use super::world::{World, pod};
use crate::{
    Outcome,
    support::{Guard, ensure, until},
};

/// Resident memory of the worker that serves, bytes.
fn resident(agent: &Guard) -> Result<u64, Failed> {
    let children = format!("/proc/{0}/task/{0}/children", agent.0.id());
    let worker = fs::read_to_string(children)?.split_whitespace().last().ok_or("no worker")?.to_owned();
    let status = fs::read_to_string(format!("/proc/{worker}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// As large as pods are: managed fields, environments, volumes and conditions are most of it.
fn large(number: u32) -> Value {
    let uid = format!("{number:08x}-0000-4000-8000-000000000000");
    let mut pod = pod(&uid, &format!("{number:064x}"), "checkout");
    pod["metadata"]["name"] = json!(format!("checkout-{number}"));
    let fields = "f:metadata ".repeat(300);
    pod["metadata"]["managedFields"] = json!([{"manager": "kubelet", "operation": "Update", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {"f:note": fields}}}]);
    let environment: Vec<Value> = (0..60)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "a value of usual length"}))
        .collect();
    pod["spec"]["containers"][0]["env"] = json!(environment);
    pod
}

pub(super) fn two_hundred_and_fifty_pods_take_less_than_ten_mebibytes() -> Outcome {
    const PODS: u32 = 250;
    const LIMIT: u64 = 10 << 20;
    let world = World::new()?;
    let agent = world.serve("30s")?;
    // One before, so that what the first of all costs does not count.
    world.api.put(large(PODS));
    let last = |number: u32| (format!("{number:08x}-0000-4000-8000-000000000000"), format!("{number:064x}"));
    let (uid, id) = last(PODS);
    world.echo(&world.container(&uid, &id)?)?;
    let before = resident(&agent)?;
    for number in 0..PODS {
        let (uid, id) = last(number);
        world.container(&uid, &id)?;
        fs::create_dir(
            world.tree.path(&format!("kubepods/burstable/pod{uid}/{:064x}", u64::from(number) + (1 << 40))),
        )?;
        world.api.put(large(number));
    }
    // The connection waits for the last of them.
    let (uid, id) = last(PODS - 1);
    world.echo(&world.container(&uid, &id)?)?;
    let listed = resident(&agent)?.saturating_sub(before);
    // And a list of all, which is the most that there is in memory at once.
    let lists = world.api.lists();
    world.api.compact();
    until("everything is listed anew", || world.api.lists() >= lists + 5)?;
    let after = resident(&agent)?.saturating_sub(before);
    println!("{PODS} pods: {listed} bytes after their events, {after} after a list");
    world.stop(agent)?;
    ensure(world.workloads().iter().all(|workload| workload.resolution() == Resolution::Pod), || {
        format!("recorded: {:?}", world.workloads())
    })?;
    ensure(listed.max(after) < LIMIT, || format!("{listed} bytes, {after} after a list"))
}
