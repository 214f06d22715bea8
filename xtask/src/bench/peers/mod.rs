//! The peers: proxies that pass on what Verbatim passes on, and record less or nothing. Their configuration is
//! written here, so that it can be shown beside the numbers.

pub(super) mod envoy;
pub(super) mod pgbouncer;

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{daemon::Daemon, say};

/// A running proxy before a server of the bench.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) port: u16,
    /// What it is and how it is configured, for the report.
    configuration: String,
    server: Daemon,
}

impl Peer {
    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.server.id()
    }
}

/// Those that take part, and why the others do not.
#[derive(Default)]
pub(super) struct Peers {
    here: Vec<Peer>,
    absent: Vec<(&'static str, String)>,
}

impl Peers {
    /// Starts one; where it does not start it is absent, with that reason.
    pub(super) fn add(&mut self, name: &'static str, start: impl FnOnce() -> Result<Peer>) {
        match start() {
            Ok(peer) => self.here.push(peer),
            Err(error) => self.absent(name, &format!("{error:#}")),
        }
    }

    /// One that does not take part, by name and reason.
    pub(super) fn absent(&mut self, name: &'static str, reason: &str) {
        say::note(&format!("{name} is absent: {reason}"));
        self.absent.push((name, reason.to_owned()));
    }

    pub(super) fn here(&self) -> impl Iterator<Item = &Peer> {
        self.here.iter()
    }

    /// Who is absent and how the others are configured, for the report.
    pub(super) fn shown(&self) -> String {
        let mut text = String::new();
        for (name, reason) in &self.absent {
            text.push_str(&format!("\n{name} is absent: {reason}.\n"));
        }
        for peer in &self.here {
            text.push_str(&format!("\n{}: {}\n", peer.name, peer.configuration));
        }
        text
    }
}

/// A configuration for the report: these words, then the text with the bench's own folder left out of it.
fn shown(words: &str, language: &str, configuration: &str, folder: &Path) -> String {
    let text = configuration.replace(&format!("{}/", folder.display()), "");
    format!("{words}\n\n```{language}\n{text}```")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_does_not_start_is_absent_with_its_reason() {
        let mut peers = Peers::default();
        peers.add("Envoy", || anyhow::bail!("it is not installed"));
        assert_eq!(peers.here().count(), 0);
        assert_eq!(peers.shown(), "\nEnvoy is absent: it is not installed.\n");
    }

    #[test]
    fn a_shown_configuration_names_no_folder_of_the_bench() {
        let shown = shown("so:", "ini", "key = /tmp/x/server.key\n", Path::new("/tmp/x"));
        assert_eq!(shown, "so:\n\n```ini\nkey = server.key\n```");
    }
}
