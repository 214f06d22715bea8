//! Questions to a running agent: metrics, health, orders.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{agent::Agent, binaries};

/// Status and body of one page.
pub fn page(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).context("nobody answers about metrics")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status.with_context(|| format!("no status in {text:?}"))?, body))
}

/// Metrics of one moment.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// As an agent says them now.
    pub fn of(agent: &Agent) -> Result<Self> {
        let (status, text) = page(agent.metrics()?, "/metrics")?;
        ensure!(status == 200, "{status}: {text}");
        Ok(Self(text))
    }

    /// The value of one, by its name with its labels.
    pub fn get(&self, name: &str) -> Result<f64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.with_context(|| format!("no {name} in {}", self.0))?;
        value.parse().with_context(|| format!("{name} is {value}"))
    }

    /// The sum of a family's values that have this among their labels; all of them where it is empty.
    #[must_use]
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let values = self.0.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let values =
            values.filter_map(|rest| rest.split_once("} ")).filter(|(labels, _)| labels.contains(label));
        values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
    }
}

/// `verbatim-agent bypass` with these options; what it said.
pub fn bypass(agent: &Agent, options: &[&str]) -> Result<String> {
    let output = Command::new(binaries::find("verbatim-agent")?)
        .arg("bypass")
        .arg("--config")
        .arg(agent.configuration_file())
        .args(options)
        .output()?;
    let (said, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{options:?}: {}: {said}{complaints}", output.status);
    Ok(said.into_owned())
}
