//! Watching a process while a client works: the client says which phase it is in (`phase NAME`) and what it
//! measured (`value NAME NUMBER`), a line each; everything else that it prints is kept.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    Bench,
    capture::{AGENT, Capture, Trail},
    processes::{self, Used},
};

/// How often is looked.
const INTERVAL: Duration = Duration::from_millis(200);

/// What was seen of the process while the client worked.
#[derive(Default)]
pub(super) struct Phases {
    /// The most that was used, by phase.
    peak: BTreeMap<String, Used>,
    /// What had been used when a phase began for the first time.
    first: BTreeMap<String, Used>,
    values: BTreeMap<String, f64>,
    /// The client's other lines.
    pub(super) printed: String,
}

impl Phases {
    /// The most that was used in a phase.
    pub(super) fn peak(&self, phase: &str) -> Result<Used> {
        self.peak.get(phase).copied().with_context(|| format!("the client was never in its phase `{phase}`"))
    }

    /// Processor time between the beginnings of two phases.
    pub(super) fn processor(&self, from: &str, to: &str) -> Result<Duration> {
        let at = |phase: &str| {
            let used = self.first.get(phase);
            used.map(|used| used.processor).with_context(|| format!("the client never began `{phase}`"))
        };
        at(to)?.checked_sub(at(from)?).with_context(|| format!("`{from}` began after `{to}`"))
    }

    /// A number that the client said.
    pub(super) fn value(&self, name: &str) -> Result<f64> {
        self.values.get(name).copied().with_context(|| format!("the client did not say `{name}`"))
    }

    fn line(&mut self, line: String) -> Result<()> {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["value", name, number] => {
                let number = number.parse().with_context(|| format!("`{line}` ends in no number"))?;
                self.values.insert(name.to_owned(), number);
            }
            _ => self.printed.extend([line.as_str(), "\n"]),
        }
        Ok(())
    }
}

/// Captures the client and watches the agent. As many requests as the client says must be in the trail.
pub(super) fn captured(bench: &Bench<'_>, capture: &Capture, client: &Command) -> Result<Phases> {
    let trail = Trail(bench.scratch.path().join("phases-trail"));
    let mut command = capture.command(bench, &trail.0, client)?;
    let phases = watch(&mut command, |capture| processes::named_below(capture, AGENT))?;
    // Some clients have others do the work, and only they know how much it was.
    if let Ok(requests) = phases.value("requests") {
        trail.holds(bench, requests)?;
    }
    Ok(phases)
}

/// Runs the client uncaptured and watches some server.
pub(super) fn beside(server: u32, client: &mut Command) -> Result<Phases> {
    watch(client, |_| processes::of(server))
}

/// `used` looks, given the id of the started process.
fn watch(client: &mut Command, used: impl Fn(u32) -> Result<Used>) -> Result<Phases> {
    let mut child =
        client.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting the client")?;
    let lines = BufReader::new(child.stdout.take().context("the client's output")?).lines();
    let (sender, receiver) = channel();
    let reader = thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));

    let mut phases = Phases::default();
    let mut phase = String::new();
    loop {
        let line = match receiver.recv_timeout(INTERVAL) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let now = used(child.id())?;
        // What is seen at its end still belongs to a phase.
        let peak = phases.peak.entry(phase.clone()).or_default();
        *peak = peak.peak(now);
        match line.as_deref().and_then(|line| line.strip_prefix("phase ")) {
            Some(name) => {
                name.clone_into(&mut phase);
                phases.first.entry(phase.clone()).or_insert(now);
            }
            None => line.map_or(Ok(()), |line| phases.line(line))?,
        }
    }
    let status = child.wait()?;
    // The thread has ended: it holds the other end of the channel.
    drop(reader.join());
    if !status.success() {
        bail!("the client ended with {status}:\n{}", phases.printed);
    }
    Ok(phases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Phases> {
        beside(std::process::id(), Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn phases_values_and_everything_else_are_told_apart() {
        let phases = shell("echo phase one; echo value latency 1.5; echo hello you; echo phase two").unwrap();
        assert_eq!(phases.value("latency").unwrap(), 1.5);
        assert_eq!(phases.printed, "hello you\n");
        assert!(phases.peak("one").unwrap().anonymous_kib > 0);
        assert!(phases.processor("one", "two").is_ok());
        assert!(phases.peak("three").is_err() && phases.value("bytes").is_err());
    }

    #[test]
    fn a_client_that_fails_is_an_error_with_what_it_said() {
        let error = shell("echo no such luck; exit 3").err().unwrap().to_string();
        assert!(error.contains("no such luck") && error.contains("exit status: 3"), "{error}");
    }
}
