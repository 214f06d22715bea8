//! The short form of each thing that `cargo xtask soak` does for hours: clients at work, one disturbance, and
//! every command judged.

use std::time::Duration;

use anyhow::{Result, ensure};
use verbatim_tests::soak::{self, Disturbance, NEEDS, Soak, options, seed::Seed};

use crate::scenario::{Scenario, alone};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        alone!(agent_and_collector_that_are_killed_at_once_lose_no_record, NEEDS),
        alone!(a_spools_disk_that_fills_under_load_loses_no_record, NEEDS),
        alone!(an_agent_that_takes_over_while_the_spool_is_full_loses_no_record, NEEDS),
        alone!(a_collectors_disk_that_fills_under_load_loses_no_record, NEEDS),
        alone!(a_spools_disk_that_stands_still_loses_no_record, NEEDS),
        alone!(a_collectors_disk_that_stands_still_loses_no_record, NEEDS),
        alone!(a_link_to_the_collector_that_is_cut_loses_no_record, NEEDS),
        alone!(clocks_that_jump_lose_no_record_and_break_no_chain, NEEDS),
        alone!(an_agent_whose_memory_is_used_up_loses_no_record, NEEDS),
        alone!(an_agent_without_descriptors_lets_connections_wait_and_says_so, NEEDS),
        alone!(a_collector_without_descriptors_lets_nodes_wait, NEEDS),
        alone!(bytes_a_second_apart_are_one_command, NEEDS),
    ]
}

/// Longer than what is retried or repeated meanwhile.
const HOLD: Duration = Duration::from_secs(2);

fn agent_and_collector_that_are_killed_at_once_lose_no_record(name: &str) -> Result<()> {
    soak::short(name, &[Disturbance::KillAgent, Disturbance::KillCollector], HOLD)
}

fn a_spools_disk_that_fills_under_load_loses_no_record(name: &str) -> Result<()> {
    soak::short(name, &[Disturbance::FillSpool], HOLD)
}

fn an_agent_that_takes_over_while_the_spool_is_full_loses_no_record(name: &str) -> Result<()> {
    soak::short(name, &[Disturbance::TakeOverFull], HOLD)
}

fn a_collectors_disk_that_fills_under_load_loses_no_record(name: &str) -> Result<()> {
    soak::short(name, &[Disturbance::FillLog], HOLD)
}

fn a_spools_disk_that_stands_still_loses_no_record(name: &str) -> Result<()> {
    soak::short(name, &[Disturbance::StallSpool], HOLD)
}

fn a_collectors_disk_that_stands_still_loses_no_record(name: &str) -> Result<()> {
    soak::short(name, &[Disturbance::StallLog], HOLD)
}

fn a_link_to_the_collector_that_is_cut_loses_no_record(name: &str) -> Result<()> {
    soak::short(name, &[Disturbance::CutLink], HOLD)
}

fn clocks_that_jump_lose_no_record_and_break_no_chain(name: &str) -> Result<()> {
    let mut soak = Soak::start(name, "short", options(96))?;
    // Back first, then forward: with this seed the agent's by nine minutes.
    soak.round(&[Disturbance::SetClocks], HOLD, &mut Seed::new(1))?;
    let findings = soak.lab.collector.findings()?;
    let told = |way| findings.iter().filter(|one| one.detail.contains(way)).count();
    ensure!(told("clock was set back") > 0 && told("clock was set forward") > 0, "{findings:?}");
    soak.finish().map(drop)
}

fn an_agent_whose_memory_is_used_up_loses_no_record(name: &str) -> Result<()> {
    soak::short(name, &[Disturbance::LittleMemory], HOLD)
}

fn an_agent_without_descriptors_lets_connections_wait_and_says_so(name: &str) -> Result<()> {
    let mut soak = Soak::start(name, "short", options(96))?;
    soak.round(&[Disturbance::FewDescriptors, Disturbance::Silent], HOLD, &mut Seed::new(1))?;
    let said = soak.lab.agent.complaints();
    ensure!(said.contains("nearly all descriptors are used"), "the agent says {said}");
    ensure!(said.contains("there are descriptors again"), "the agent says {said}");
    soak.finish().map(drop)
}

fn a_collector_without_descriptors_lets_nodes_wait(name: &str) -> Result<()> {
    soak::short(name, &[Disturbance::FewForCollector], HOLD)
}

fn bytes_a_second_apart_are_one_command(name: &str) -> Result<()> {
    // As the soak does for as long as it lasts; here a tenth of a second.
    let mut soak = Soak::start(name, "short", options(96))?;
    soak.drip("0.1")?;
    soak.round(&[Disturbance::Nothing], HOLD, &mut Seed::new(1))?;
    let counts = soak.finish()?;
    ensure!(counts.answered > 0, "nothing was said byte by byte");
    Ok(())
}
