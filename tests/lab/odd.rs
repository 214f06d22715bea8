//! Servers that speak HTTP/1.1 as none should: their clients get what they would have got without us, and the
//! record says what was seen.

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{OpaqueReason, Status};
use verbatim_tests::{
    agent::Options,
    google::{self, names::ODD},
    lab::Lab,
    network::Pod,
};

use crate::{
    http::{curl, named, requests, sessions},
    scenario::{Scenario, usual},
    tls::NEEDS,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    [
        usual!(headers_keep_their_case_and_order_in_http1),
        usual!(interim_answers_are_dropped_and_the_answer_arrives),
        usual!(an_answer_before_the_request_is_complete_arrives),
        usual!(a_body_that_ends_early_leaves_an_unknown_outcome),
        usual!(bodies_that_are_more_than_they_seem_pass_unchanged_and_cost_no_memory),
        usual!(an_upgrade_passes_and_is_recorded_with_its_reason),
        usual!(a_server_that_answers_no_http_is_recorded),
    ]
    .map(|one| one.needing(NEEDS).with(odd))
    .into()
}

fn odd() -> Options {
    Options { google: Some(google::Options { odd: true, ..Default::default() }), ..Options::default() }
}

fn odd_url(how: &str, id: &str) -> String {
    format!("https://odd.googleapis.com/{how}/id:{id}")
}

fn headers_keep_their_case_and_order_in_http1(lab: &mut Lab) -> Result<()> {
    let headers = ["-H", "X-MiXeD-Case: One", "-H", "x-lower: Two", "-H", "X-UPPER: Three"];
    let url = odd_url("plain", "a-case");
    let arguments = [&["--http1.1", "-i"][..], &headers, &[&url]].concat();
    let ended = curl(lab, "case", &arguments)?.finish()?;
    ensure!(ended.text().contains("X-CaSe-KePt: Yes"), "{}", ended.text());
    let output = lab.google()?.output("odd");
    let head = output.lines().find(|line| line.contains("id:a-case")).context("it did not arrive")?;
    let lines: Vec<String> = serde_json::from_str(head)?;
    for line in ["X-MiXeD-Case: One", "x-lower: Two", "X-UPPER: Three"] {
        ensure!(lines.iter().any(|other| other == line), "{line} became one of {lines:?}");
    }
    let seen = requests(lab, 1)?;
    ensure!(named(&seen, "a-case")?.status == Status::Ok, "{seen:?}");
    Ok(())
}

fn interim_answers_are_dropped_and_the_answer_arrives(lab: &mut Lab) -> Result<()> {
    let ended = curl(lab, "interim", &["--http1.1", "-i", &odd_url("interim", "a-interim")])?.finish()?;
    ensure!(ended.text().starts_with("HTTP/1.1 200 OK"), "{}", ended.text());
    let seen = requests(lab, 1)?;
    ensure!(named(&seen, "a-interim")?.http_status == 200, "{seen:?}");
    Ok(())
}

fn an_answer_before_the_request_is_complete_arrives(lab: &mut Lab) -> Result<()> {
    let file = lab.ground.path("upload");
    std::fs::write(&file, vec![b'y'; 3_000_000])?;
    let file = file.display().to_string();
    for (how, status) in [("early", "200"), ("early_close", "413")] {
        let id = format!("a-{how}");
        let arguments = ["--http1.1", "-H", "Expect:", "-w", "%{http_code}", "-T", &file, &odd_url(how, &id)];
        // Whether curl calls an answer to half of a request a failure is its own business.
        let ended = curl(lab, how, &arguments)?.wait()?;
        ensure!(ended.text().contains(status), "{how}: {} {}", ended.text(), ended.complaints());
    }
    let seen = requests(lab, 2)?;
    ensure!(named(&seen, "a-early")?.http_status == 200, "{seen:?}");
    ensure!(named(&seen, "a-early_close")?.http_status == 413, "{seen:?}");
    Ok(())
}

fn a_body_that_ends_early_leaves_an_unknown_outcome(lab: &mut Lab) -> Result<()> {
    for how in ["short", "short_chunk"] {
        let ended = curl(lab, how, &["--http1.1", &odd_url(how, &format!("a-{how}"))])?.wait()?;
        ensure!(!ended.status.success(), "{how}: curl took half an answer for a whole one");
    }
    curl(lab, "until-close", &["--http1.1", "--fail", &odd_url("until_close", "a-until-close")])?.finish()?;
    let seen = requests(lab, 3)?;
    for id in ["a-short", "a-short_chunk"] {
        ensure!(named(&seen, id)?.status == Status::OutcomeUnknown, "{:?}", named(&seen, id)?);
    }
    ensure!(named(&seen, "a-until-close")?.status == Status::Ok, "{seen:?}");
    Ok(())
}

fn bodies_that_are_more_than_they_seem_pass_unchanged_and_cost_no_memory(lab: &mut Lab) -> Result<()> {
    let before = lab.agent.peak_kib()?;
    let size = |how: &str| -> Result<usize> {
        let url = odd_url(how, &format!("a-{how}"));
        let text = curl(lab, how, &["--http1.1", "-o", "/dev/null", "-w", "%{size_download}", &url])?;
        Ok(text.finish()?.text().trim().parse()?)
    };
    let (bomb, deep) = (size("bomb")?, size("deep")?);
    ensure!((30_000..200_000).contains(&bomb) && deep == 20_000, "{bomb} and {deep} bytes arrived");
    let seen = requests(lab, 2)?;
    ensure!(seen.iter().all(|one| one.status == Status::Ok), "{seen:?}");
    let peak = lab.agent.peak_kib()?;
    ensure!(peak < before + 32 * 1024, "the agent's peak went from {before} to {peak} KiB");
    Ok(())
}

fn an_upgrade_passes_and_is_recorded_with_its_reason(lab: &mut Lab) -> Result<()> {
    let clients = lab
        .google_pod(Pod::A)?
        .with("PGHOST", ODD)
        .with("PGPORT", "443")
        .with("VLAB_NAME", "odd.googleapis.com");
    clients.python("upgrade", "raw_tls.py", &["upgrade", "a-upgrade"])?.finish()?;
    let session = sessions(lab, ODD, 1)?.remove(0);
    ensure!(session.opaque_reason() == OpaqueReason::HttpUpgrade, "{session:?}");
    let seen = requests(lab, 1)?;
    ensure!(named(&seen, "a-upgrade")?.http_status == 101, "{seen:?}");
    Ok(())
}

fn a_server_that_answers_no_http_is_recorded(lab: &mut Lab) -> Result<()> {
    let ended = curl(lab, "garbage", &["--http1.1", "--fail", &odd_url("garbage", "a-garbage")])?.wait()?;
    ensure!(!ended.status.success(), "curl took garbage for an answer");
    let seen = requests(lab, 1)?;
    ensure!(named(&seen, "a-garbage")?.status == Status::OutcomeUnknown, "{seen:?}");
    Ok(())
}
