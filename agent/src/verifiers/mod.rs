//! What is known of the passwords of PostgreSQL's roles: read from a file, again when it changes, and found by the
//! proxy.
//!
//! Owns the file's safety and its limits. Its form is in [`table`]; what is done with a verifier is the decoder's.

mod table;

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use verbatim_proxy::seam::KnownVerifiers;
use verbatim_wire::postgres::Verifier;
use zeroize::Zeroizing;

pub(crate) use table::LineError;
use table::Table;

/// Longest file, bytes.
const MAX_BYTES: usize = 1 << 20;
/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(2);

/// Why a file of verifiers cannot be used. Never has anything of what is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifiersError {
    /// The file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder, a pipe.
    #[error("{0} is no regular file")]
    NoFile(PathBuf),
    /// Its mode.
    #[error(
        "{path} holds credentials and has mode {mode:03o}: nobody but its owner may have access (chmod 600)"
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Its size.
    #[error("{0} is longer than 1 MiB")]
    Long(PathBuf),
    /// What is in it.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        problem: LineError,
    },
}

/// What a file looked like from outside: whatever is done to it, something of this changes.
type Seen = (u64, u64, u64, (i64, i64));

fn seen(found: &Metadata) -> Seen {
    (found.dev(), found.ino(), found.len(), (found.ctime(), found.ctime_nsec()))
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verifiers {
    table: Arc<ArcSwap<Table>>,
    file: Option<(PathBuf, Seen)>,
}

impl Verifiers {
    /// Reads a file; none: nothing is known.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, VerifiersError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let (table, seen) = read(path)?;
        Ok(Self { table: Arc::new(ArcSwap::from_pointee(table)), file: Some((path.to_owned(), seen)) })
    }

    /// Reads the file again whenever it changes, for as long as the agent runs. What cannot be used leaves the old in
    /// force. `None`: there is no file.
    pub(crate) fn follow(&self) -> Option<JoinHandle<()>> {
        self.follow_every(LOOK)
    }

    fn follow_every(&self, pause: Duration) -> Option<JoinHandle<()>> {
        let (path, mut last) = self.file.clone()?;
        let table = Arc::clone(&self.table);
        Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let now = std::fs::metadata(&path).map(|found| seen(&found)).unwrap_or_default();
                if now == last {
                    continue;
                }
                last = now;
                match read(&path) {
                    Ok((read, seen)) => {
                        last = seen;
                        table.store(Arc::new(read));
                        tracing::info!(file = %path.display(), "the verifiers have changed: the new ones are used");
                    }
                    Err(error) => {
                        tracing::error!(%error, "the verifiers have changed and cannot be used; the old ones stay");
                    }
                }
            }
        }))
    }
}

impl KnownVerifiers for Verifiers {
    fn find(&self, destination: SocketAddr, server_name: Option<&str>, user: &[u8]) -> Option<Arc<Verifier>> {
        self.table.load().find(destination, server_name, user)
    }
}

fn read(path: &Path) -> Result<(Table, Seen), VerifiersError> {
    let failed = |source| VerifiersError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Of what was opened, whatever is there by now.
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(VerifiersError::NoFile(path.to_owned()));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(VerifiersError::Open { path: path.to_owned(), mode });
    }
    // Never grows, and so leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 2));
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_BYTES {
        return Err(VerifiersError::Long(path.to_owned()));
    }
    let table = Table::parse(&bytes);
    let table =
        table.map_err(|(line, problem)| VerifiersError::Line { path: path.to_owned(), line, problem })?;
    Ok((table, seen(&found)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LINE: &str = "\"clerk\" \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"\n";

    fn write(path: &Path, text: &str, mode: u32) {
        let beside = path.with_extension("new");
        std::fs::write(&beside, text).expect("written");
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).expect("mode");
        std::fs::rename(&beside, path).expect("renamed");
    }

    fn knows(verifiers: &Verifiers, user: &str) -> bool {
        verifiers.find("192.0.2.1:5432".parse().expect("an address"), None, user.as_bytes()).is_some()
    }

    #[test]
    fn a_file_that_others_could_read_is_refused_and_so_is_what_is_none() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("verifiers");
        for mode in [0o640, 0o604, 0o610, 0o666] {
            write(&path, LINE, mode);
            let said = Verifiers::read(Some(&path)).expect_err("open to others").to_string();
            assert!(said.contains("chmod 600") && said.contains(&format!("{mode:o}")), "{said}");
        }
        write(&path, LINE, 0o400);
        assert!(knows(&Verifiers::read(Some(&path)).expect("read"), "clerk"));
        assert!(matches!(Verifiers::read(Some(folder.path())), Err(VerifiersError::NoFile(_))));
        assert!(matches!(
            Verifiers::read(Some(&folder.path().join("none"))),
            Err(VerifiersError::Read { .. })
        ));
        write(&path, &LINE.repeat(10_000), 0o600);
        assert!(matches!(Verifiers::read(Some(&path)), Err(VerifiersError::Long(_))));
        assert!(!knows(&Verifiers::read(None).expect("nothing is known"), "clerk"));
    }

    #[test]
    fn an_error_names_file_and_line_and_nothing_of_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("verifiers");
        write(&path, &format!("{LINE}\"bob\" \"geheim\"\n"), 0o600);
        let said = Verifiers::read(Some(&path)).expect_err("a password").to_string();
        assert!(said.contains("verifiers:2: ") && !said.contains("geheim"), "{said}");
        assert!(!format!("{:?}", Verifiers::read(Some(&path))).contains("geheim"));
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again_and_the_old_one_stays_where_it_cannot_be_used() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("verifiers");
        write(&path, LINE, 0o600);
        let verifiers = Verifiers::read(Some(&path)).expect("read");
        let task = verifiers.follow_every(Duration::from_millis(10)).expect("a file");
        let until = async |user: &str| {
            for _ in 0..1000 {
                if knows(&verifiers, user) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{user} is not known within 10 s");
        };
        write(&path, &LINE.replace("clerk", "alice"), 0o600);
        until("alice").await;
        assert!(!knows(&verifiers, "clerk"));
        write(&path, &LINE.replace("clerk", "eve"), 0o644);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(knows(&verifiers, "alice") && !knows(&verifiers, "eve"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        until("eve").await;
        task.abort();
    }
}
