//! Clients in both pods that work without a pause, and what they say that became of each command.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{lab::Lab, network::Pod, process::Process, wait};

/// What works in each pod.
const KINDS: [(Pod, &[&str]); 2] =
    [(Pod::A, &["psycopg", "extended", "raw", "https"]), (Pod::B, &["psycopg", "extended", "raw", "https"])];

/// Answers that each pod must get for its clients to count as at work.
const AT_WORK: usize = 40;

/// One command as its client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Who sent it.
    pub pod: Pod,
    /// The text that must be recorded, where it follows from the id.
    pub statement: Option<String>,
    /// Whether there was an answer; otherwise the connection went away before it.
    pub answered: bool,
}

/// Every command by its id.
pub type Told = BTreeMap<String, Command>;

/// Running clients.
#[derive(Debug)]
pub struct Load {
    clients: Vec<(Pod, Process)>,
}

impl Load {
    /// Starts them. All their ids have the mark in them, as a word of its own.
    pub fn start(lab: &Lab, mark: &str) -> Result<Self> {
        Self::of(lab, mark, &KINDS)
    }

    /// Starts one that sends a byte a second, or every so many seconds.
    pub fn dripping(lab: &Lab, mark: &str, pause: &str) -> Result<Self> {
        let mut clients = lab.google_pod(Pod::A)?;
        clients = clients.with("VLAB_DRIP", pause);
        let client = clients.python(mark, "soak_load.py", &[&format!("a-{mark}"), "drip"])?;
        Ok(Self { clients: vec![(Pod::A, client)] })
    }

    fn of(lab: &Lab, mark: &str, kinds: &[(Pod, &[&str])]) -> Result<Self> {
        let mut clients = Vec::new();
        for (pod, kinds) in kinds {
            let prefix = format!("{}-{mark}", pod.letter());
            let arguments = [&[prefix.as_str()], *kinds].concat();
            clients.push((*pod, lab.google_pod(*pod)?.python(&prefix, "soak_load.py", &arguments)?));
        }
        Ok(Self { clients })
    }

    /// Waits until each pod got so many more answers.
    pub fn go_on(&mut self) -> Result<()> {
        let before: Vec<usize> = self.clients.iter().map(|(_, client)| answers(client)).collect();
        wait::until("clients in both pods to get answers", || {
            for (_, client) in &mut self.clients {
                ensure!(client.running(), "a client ended: {} {}", client.output(), client.complaints());
            }
            let now = self.clients.iter().map(|(_, client)| answers(client));
            Ok(now.zip(&before).all(|(now, before)| now >= before + AT_WORK).then_some(()))
        })
        .with_context(|| self.last_words())
    }

    /// What clients last complained of.
    fn last_words(&self) -> String {
        let last = |text: String| text.lines().rev().take(5).collect::<Vec<_>>().join("\n");
        self.clients.iter().map(|(_, client)| last(client.complaints())).collect::<Vec<_>>().join("\n")
    }

    /// Lets them end what they are at; says what they did.
    pub fn stop(self) -> Result<Told> {
        let mut told = Told::new();
        for (_, client) in &self.clients {
            ensure!(!client.output().contains("\nfailed "), "{}", client.output());
        }
        let mut clients = self.clients;
        // All at once: nobody works on while another is waited for.
        for (_, client) in &mut clients {
            drop(client.stdin());
        }
        for (pod, client) in clients {
            let ended = client.finish()?;
            for line in ended.text().lines() {
                if line == "done" {
                    continue;
                }
                let (id, command) = read(line, pod)?;
                ensure!(told.insert(id, command).is_none(), "one id twice: {line}");
            }
        }
        Ok(told)
    }
}

fn answers(client: &Process) -> usize {
    client.output().lines().filter(|line| line.starts_with("answered ")).count()
}

fn read(line: &str, pod: Pod) -> Result<(String, Command)> {
    let (what, id) = line.split_once(' ').with_context(|| format!("a client said {line:?}"))?;
    let answered = match what {
        "answered" => true,
        "lost" => false,
        _ => bail!("a client said {line:?}"),
    };
    let mut parts = id.rsplit('-');
    let number = parts.next().and_then(|number| number.parse().ok()).context("an id without a number")?;
    let kind = parts.next().context("an id without a worker")?;
    Ok((id.to_owned(), Command { pod, statement: statement(kind, id, number), answered }))
}

/// What the client of this kind sends under an id, see `clients/soak_load.py`.
fn statement(kind: &str, id: &str, number: u64) -> Option<String> {
    let wide = || format!(" /* {}*/", "wide ".repeat(4000));
    let tail = if number.is_multiple_of(50) { wide() } else { String::new() };
    match kind.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "psycopg" | "raw" => Some(format!("SELECT {number} /* id:{id} */{tail}")),
        "extended" => Some(format!("SELECT $1::int8 /* id:{id} */{tail}")),
        "drip" => Some(format!("SELECT {number} /* id:{id} */")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Pod, read};

    #[test]
    fn a_clients_line_tells_what_must_be_recorded() {
        let (id, command) = read("answered a-soak1r2-raw2-7", Pod::A).unwrap();
        assert_eq!(id, "a-soak1r2-raw2-7");
        assert!(command.answered);
        assert_eq!(command.statement.as_deref(), Some("SELECT 7 /* id:a-soak1r2-raw2-7 */"));
        let (_, command) = read("lost b-soak1r2-https3-50", Pod::B).unwrap();
        assert_eq!((command.answered, command.statement), (false, None));
        let (_, wide) = read("lost b-soak1r2-extended1-50", Pod::B).unwrap();
        assert!(wide.statement.unwrap().ends_with("wide */"));
        assert!(read("failed raw2: AssertionError()", Pod::A).is_err());
    }
}
