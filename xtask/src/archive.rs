//! Debian's archive, read with apt under lists and sources of its own: what the machine is configured for stays
//! as it is, and everything is verified by the archive's keys as apt always does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::command;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What is wanted of the archive.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Packages as they are installed.
    Packages,
    /// The sources of packages.
    Sources,
}

/// Some suites of the archive, with fresh lists.
pub(crate) struct Archive {
    folder: PathBuf,
    options: Vec<String>,
}

impl Archive {
    /// Why it cannot be read here, where that can be told beforehand.
    pub(crate) fn missing() -> Option<String> {
        (!Path::new(KEYRING).is_file())
            .then(|| format!("{KEYRING} is missing (package debian-archive-keyring)"))
    }

    /// Fetches the lists of suites into a folder of one's own.
    pub(crate) fn open(folder: PathBuf, kind: Kind, suites: &[&str]) -> Result<Self> {
        if let Some(reason) = Self::missing() {
            bail!(reason);
        }
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(name)).with_context(|| folder.display().to_string())?;
        }
        let list = folder.join("sources.list");
        fs::write(&list, sources(kind, suites)).with_context(|| list.display().to_string())?;
        let options = [
            ("Dir::Etc::sourcelist", list.display().to_string()),
            ("Dir::Etc::sourceparts", "-".to_owned()),
            ("Dir::State::lists", folder.join("lists").display().to_string()),
            ("Dir::Cache", folder.join("cache").display().to_string()),
            // In a folder of one's own apt need not become somebody else to fetch.
            ("APT::Sandbox::User", String::new()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
            ("APT::Update::Error-Mode", "any".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
        let archive = Self { folder, options };
        command::quiet(archive.get().args(["update", "-qq"]))?;
        Ok(archive)
    }

    /// Where its lists are; whoever opened it removes it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn get(&self) -> Command {
        self.with_options("apt-get")
    }

    pub(crate) fn cache(&self) -> Command {
        self.with_options("apt-cache")
    }

    fn with_options(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

fn sources(kind: Kind, suites: &[&str]) -> String {
    let (kind, options) = match kind {
        Kind::Packages => ("deb", "arch=amd64 "),
        Kind::Sources => ("deb-src", ""),
    };
    suites
        .iter()
        .map(|suite| {
            let archive = if suite.ends_with("-security") { "debian-security" } else { "debian" };
            format!("{kind} [{options}signed-by={KEYRING}] http://deb.debian.org/{archive} {suite} main\n")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_for_security_are_in_an_archive_of_their_own() {
        assert_eq!(
            sources(Kind::Sources, &["bookworm", "bookworm-security"]),
            format!(
                "deb-src [signed-by={KEYRING}] http://deb.debian.org/debian bookworm main\n\
                 deb-src [signed-by={KEYRING}] http://deb.debian.org/debian-security bookworm-security main\n"
            )
        );
    }
}
