//! The lab's policy: what is decided stands in the statement.
//!
//! `lab:deny` is denied; `lab:hold=SECONDS` is held so long unless it is answered before; with
//! `lab:replace` the header `x-lab-replaced` is replaced. A held statement shows as the file `held/ID` in the
//! control folder, and is answered by the file `answers/ID` that says `allow` or `deny`. Where a command has
//! no statement, it may stand in the name of its resource or in a header that is recorded.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use http::{HeaderName, HeaderValue};
use tokio::sync::oneshot;
use verbatim_api::v1::PolicyMode;
use verbatim_proxy::seam::{Grounds, HoldAnswer, Policy, Question, Verdict};
use verbatim_wire::seam::Command;

use crate::did;

/// Environment variable that names the control folder.
pub const CONTROL: &str = "VLAB_CONTROL";

/// Who the lab's approver is.
pub const APPROVER: &str = "approver@lab.example";

type Held = (String, oneshot::Sender<HoldAnswer>);

/// Decides by the statement's own words.
#[derive(Debug)]
pub struct LabPolicy {
    folder: PathBuf,
    held: OnceLock<mpsc::Sender<Held>>,
}

impl LabPolicy {
    /// Makes the folders. Starts no thread: the agent blocks signals before it starts its own, and one
    /// that was there before would take them.
    pub fn new(folder: &Path) -> Result<Self> {
        for sub in ["held", "answers"] {
            let path = folder.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(Self { folder: folder.to_owned(), held: OnceLock::new() })
    }

    /// To the thread that waits for answers, so that deciding itself never waits.
    fn held(&self) -> &mpsc::Sender<Held> {
        self.held.get_or_init(|| {
            let (held, received) = mpsc::channel();
            let folder = self.folder.clone();
            // Without that thread the receiver is dropped, and every hold is a refusal.
            drop(thread::Builder::new().name("lab-answers".into()).spawn(move || answer(&folder, &received)));
            held
        })
    }
}

impl Policy for LabPolicy {
    fn decide(&self, question: &Question<'_>) -> Verdict {
        let texts: Vec<Vec<u8>> = question.commands.iter().map(said).collect();
        if texts.iter().any(|text| find(text, b"lab:deny").is_some()) {
            return Verdict::Deny(Grounds {
                policies: vec!["lab-deny".into()],
                reason: "the lab says no".into(),
            });
        }
        if texts.iter().any(|text| find(text, b"lab:hang").is_some()) {
            // What no policy may do: it blocks the shard.
            let go_on = self.folder.join("go-on");
            while !go_on.exists() {
                thread::sleep(Duration::from_millis(10));
            }
        }
        if texts.iter().any(|text| find(text, b"lab:replace").is_some()) {
            return Verdict::Replace {
                grounds: Grounds {
                    policies: vec!["lab-replace".into()],
                    reason: "the lab puts in its own".into(),
                },
                headers: vec![(HeaderName::from_static("x-lab-replaced"), HeaderValue::from_static("yes"))],
            };
        }
        let Some((text, seconds)) = texts.iter().find_map(|text| Some((text, hold_seconds(text)?))) else {
            return Verdict::Allow(Grounds::default());
        };
        let (sender, answer) = oneshot::channel();
        let id = did::ids(text).into_iter().next().unwrap_or_default();
        // A thread that is gone drops the sender, which is a refusal.
        drop(self.held().send((id, sender)));
        Verdict::Hold {
            grounds: Grounds {
                policies: vec!["lab-hold".into()],
                reason: "the lab wants to be asked".into(),
            },
            deadline: Duration::from_secs(seconds),
            answer,
        }
    }

    fn version(&self) -> &str {
        "lab-1"
    }

    fn mode(&self) -> PolicyMode {
        PolicyMode::Enforce
    }
}

/// All that a command says.
fn said(command: &Command) -> Vec<u8> {
    let mut text = command.statement.bytes.clone();
    let attributes = command.attributes.iter().map(|(_, value)| value.as_slice());
    for more in [command.resource.as_bytes()].into_iter().chain(attributes) {
        text.push(b' ');
        text.extend_from_slice(more);
    }
    text
}

fn find(text: &[u8], words: &[u8]) -> Option<usize> {
    text.windows(words.len()).position(|window| window == words)
}

fn hold_seconds(text: &[u8]) -> Option<u64> {
    const MARK: &[u8] = b"lab:hold=";
    let digits = text.get(find(text, MARK)? + MARK.len()..)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

fn answer(folder: &Path, received: &mpsc::Receiver<Held>) {
    let mut open: HashMap<String, oneshot::Sender<HoldAnswer>> = HashMap::new();
    loop {
        match received.recv_timeout(Duration::from_millis(10)) {
            Ok((id, sender)) => {
                drop(fs::write(folder.join("held").join(&id), ""));
                open.insert(id, sender);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        let answered: Vec<String> = open.keys().filter(|id| answers(folder, id).is_some()).cloned().collect();
        for id in answered {
            let (Some(allowed), Some(sender)) = (answers(folder, &id), open.remove(&id)) else { continue };
            let answer = HoldAnswer {
                allowed,
                approver: APPROVER.into(),
                approval_id: format!("approval-{id}"),
                reason: "asked and answered".into(),
            };
            // The client may have gone meanwhile.
            drop(sender.send(answer));
        }
    }
}

/// `None` also while the file is still empty: its writer is not done.
fn answers(folder: &Path, id: &str) -> Option<bool> {
    match fs::read_to_string(folder.join("answers").join(id)).ok()?.trim() {
        "allow" => Some(true),
        "deny" => Some(false),
        _ => None,
    }
}

/// The scenario's side of the control folder.
#[derive(Clone, Debug)]
pub struct Approver {
    folder: PathBuf,
}

impl Approver {
    /// Of the policy that was started with this folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Waits until the statement with this id is held.
    pub fn wait_until_held(&self, id: &str) -> Result<()> {
        let path = self.folder.join("held").join(id);
        crate::wait::until(&format!("{id} to be held"), || Ok(path.exists().then_some(())))
    }

    /// Answers.
    pub fn answer(&self, id: &str, allow: bool) -> Result<()> {
        let path = self.folder.join("answers").join(id);
        fs::write(&path, if allow { "allow" } else { "deny" })
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::hold_seconds;

    #[test]
    fn the_time_of_a_hold_stands_in_the_statement() {
        assert_eq!(hold_seconds(b"SELECT 1 /* lab:hold=60 id:x */"), Some(60));
        assert_eq!(hold_seconds(b"SELECT 1 /* lab:hold= */"), None);
        assert_eq!(hold_seconds(b"SELECT 1"), None);
    }
}
