//! Files that make workloads trust us, in a folder that they can read and only the agent's user can write.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use verbatim_sys::privilege::is_private_folder;
use verbatim_tls::{Authority, Change, EnvironmentPlan, Problem, prepare};

/// Why the files are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// The folder or a file in it.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could change whom workloads trust.
    #[error(
        "{0} belongs to, or can be written by, others than the agent's user: name a folder that does not exist \
         yet, or one of that user's own with mode 0755 or less"
    )]
    Shared(PathBuf),
}

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct TrustFolder(PathBuf);

impl TrustFolder {
    /// Makes it, or takes one that is ours already.
    pub(crate) fn make(path: &Path) -> Result<Self, TrustError> {
        let failed = |source| TrustError::Write { path: path.to_owned(), source };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ if !is_private_folder(path).unwrap_or(false) => {
                return Err(TrustError::Shared(path.to_owned()));
            }
            _ => {}
        }
        // Whatever the umask says.
        fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(failed)?;
        Ok(Self(path.to_owned()))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes everything of a plan that was made for this folder. The answer: the variables to be set, and what could
    /// not be read. What names a file that could not be is not among the variables, and stays as it is.
    pub(crate) fn fill(
        &self,
        plan: &EnvironmentPlan,
        authority: &Authority,
    ) -> Result<(Vec<Change>, Vec<Problem>), TrustError> {
        let prepared = prepare(plan, authority);
        for file in &prepared.files {
            self.write(&file.path, &file.bytes)?;
        }
        Ok((prepared.changes, prepared.problems))
    }

    /// Beside, then renamed: nobody reads half of it.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), TrustError> {
        let failed = |source| TrustError::Write { path: path.to_owned(), source };
        let beside = path.with_extension("new");
        // What was left behind by one that died while it wrote.
        fs::remove_file(&beside).ok();
        let mut file =
            File::options().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
        fs::rename(&beside, path).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use verbatim_tls::{TrustPaths, plan};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o7777
    }

    #[test]
    fn everybody_reads_the_files_and_nobody_else_writes_them() {
        let place = tempfile::tempdir().expect("folder");
        let folder = TrustFolder::make(&place.path().join("trust")).expect("make");
        let authority = Authority::for_run(&[]).expect("authority");
        let extra = place.path().join("theirs.pem");
        fs::write(&extra, authority.roots_pem()).expect("write");
        let existing = |name: &str| (name == "REQUESTS_CA_BUNDLE").then(|| extra.clone().into_os_string());
        let plan = plan(existing, &TrustPaths { folder: folder.path().to_owned() });
        folder.fill(&plan, &authority).expect("fill");
        // And once more, as after a restart.
        let folder = TrustFolder::make(folder.path()).expect("again");
        folder.fill(&plan, &authority).expect("again");
        assert_eq!(mode(folder.path()), 0o755);
        let files: Vec<_> =
            fs::read_dir(folder.path()).expect("list").flatten().map(|file| file.path()).collect();
        assert_eq!(files.len(), plan.bundles.len() + plan.trust_stores.len(), "{files:?}");
        assert!(files.iter().all(|file| mode(file) == 0o644), "{files:?}");
        for bundle in &plan.bundles {
            let text = fs::read_to_string(&bundle.path).expect("bundle");
            assert!(authority.roots_pem().split_inclusive("-----END").all(|part| text.contains(part.trim())));
        }
    }

    #[test]
    fn what_names_a_file_that_cannot_be_read_stays_as_it_is() {
        let place = tempfile::tempdir().expect("folder");
        let folder = TrustFolder::make(&place.path().join("trust")).expect("make");
        let authority = Authority::for_run(&[]).expect("authority");
        let existing = |name: &str| (name == "REQUESTS_CA_BUNDLE").then(|| "/nonexistent/corp.pem".into());
        let plan = plan(existing, &TrustPaths { folder: folder.path().to_owned() });
        let (changes, problems) = folder.fill(&plan, &authority).expect("fill");
        assert!(changes.iter().all(|change| change.name != "REQUESTS_CA_BUNDLE"), "{changes:?}");
        assert!(changes.iter().any(|change| change.name == "SSL_CERT_FILE"));
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn a_folder_that_others_write_is_refused() {
        let place = tempfile::tempdir().expect("folder");
        let path = place.path().join("trust");
        fs::create_dir(&path).expect("make");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("permissions");
        assert!(matches!(TrustFolder::make(&path), Err(TrustError::Shared(_))));
        let link = place.path().join("link");
        std::os::unix::fs::symlink(place.path(), &link).expect("link");
        assert!(matches!(TrustFolder::make(&link), Err(TrustError::Shared(_))));
    }
}
