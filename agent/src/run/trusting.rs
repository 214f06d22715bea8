//! What makes the command of one run trust us: an authority in memory, files that it can read, variables.
//!
//! Owns where the files are and that they go again. What is in them, and which variables there are, is
//! `verbatim_tls`'s.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use verbatim_proxy::seam::Tls;
use verbatim_sys::privilege::Person;
use verbatim_tls::{Change, TrustPaths, plan};

use super::folders;
use crate::{
    cli::RunArgs,
    trust::{Evidence, Judge, Material, MaterialError, Names, OneCgroup, Standing, TrustError, TrustFolder},
};

/// Why the command cannot be made to trust us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustingError {
    /// Certificates.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// Files.
    #[error(transparent)]
    Files(#[from] TrustError),
    /// Where to put them.
    #[error(transparent)]
    Folder(#[from] folders::FolderError),
    /// They would be of no use.
    #[error(
        "{person} cannot read what is in {folder}: set TMPDIR to a folder that is theirs to enter, or give --no-tls"
    )]
    Unreadable {
        /// Where.
        folder: PathBuf,
        /// Who.
        person: String,
    },
}

/// Where the files of a run are going to be; makes nothing.
pub(crate) fn place(id: &str, person: &Person) -> Result<PathBuf, TrustingError> {
    let name = format!("verbatim-{id}-trust");
    if let Some(runtime) = folders::runtime()
        && enters(person, &runtime)
    {
        return Ok(runtime.join(name));
    }
    let folder = folders::temporary()?;
    if !enters(person, &folder) {
        return Err(TrustingError::Unreadable { folder, person: person.name.clone() });
    }
    Ok(folder.join(name))
}

/// Whether a person may pass through a folder and all above it.
fn enters(person: &Person, folder: &Path) -> bool {
    let Ok(real) = folder.canonicalize() else { return false };
    real.ancestors().all(|folder| {
        fs::metadata(folder).is_ok_and(|found| {
            let bit = match found.uid() {
                _ if person.uid == 0 => return true,
                uid if uid == person.uid => 0o100,
                _ if person.groups.contains(&found.gid()) || person.gid == found.gid() => 0o010,
                _ => 0o001,
            };
            found.mode() & bit != 0
        })
    })
}

/// Everything of it. Dropping it removes the files.
#[derive(Debug)]
pub(crate) struct Trusting {
    material: Material,
    /// Variables for the command.
    pub(crate) variables: Vec<Change>,
    outside: Arc<Names>,
    _files: Files,
}

/// Removed when it is dropped.
#[derive(Debug)]
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        folders::remove(&self.0, None);
    }
}

impl Trusting {
    /// Makes it all in `place`. `None`, with the reason on standard error, where TLS cannot be looked into on
    /// this machine.
    pub(crate) fn make(args: &RunArgs, place: &Path) -> Result<Option<Self>, TrustingError> {
        let Some(material) =
            Material::for_run(&args.names, &args.upstream_ca, args.verifier_file.as_deref())?
        else {
            crate::say(
                "no TLS is looked into: this machine has no root certificates to verify servers by (install \
                 `ca-certificates`, or give --upstream-ca)",
            );
            return Ok(None);
        };
        let files = Files(place.to_owned());
        let folder = TrustFolder::make(place)?;
        let plan = plan(|name| std::env::var_os(name), &TrustPaths { folder: folder.path().to_owned() });
        let (variables, problems) = folder.fill(&plan, &material.authority)?;
        for problem in problems {
            tracing::warn!(%problem, "what names it stays as it is: clients that go by it will not trust us");
        }
        Ok(Some(Self { material, variables, outside: Arc::default(), _files: files }))
    }

    /// For the proxy: only what is in the cgroup was given our roots.
    pub(crate) fn tls(&self, args: &RunArgs, cgroup_id: u64, workload: &str) -> Arc<Tls> {
        let standing = Standing {
            workload: workload.to_owned(),
            evidence: Evidence::Injected,
            untrusted: args.untrusted,
            misdirected: args.misdirected,
        };
        let standings = Arc::new(OneCgroup { id: cgroup_id, standing });
        // Its cgroup is no other run's: what is learned ends with it.
        let authority = Arc::clone(&self.material.authority);
        self.material.tls(Judge::new(authority, standings, Arc::default(), Arc::clone(&self.outside)))
    }

    /// Names that `--name` could add.
    pub(crate) fn outside(&self) -> Vec<String> {
        self.outside.all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_person_enters_where_the_bits_that_are_theirs_say_so() {
        let place = tempfile::tempdir().expect("folder");
        let inner = place.path().join("inner");
        fs::create_dir(&inner).expect("make");
        let found = fs::metadata(place.path()).expect("there");
        let stranger = Person {
            uid: found.uid() + 1000,
            gid: found.gid() + 1000,
            groups: vec![],
            name: "stranger".into(),
            home: None,
            shell: None,
        };
        let owner = Person { uid: found.uid(), ..stranger.clone() };
        let member = Person { groups: vec![found.gid()], ..stranger.clone() };
        for (mode, enters_owner, enters_member, enters_stranger) in [
            (0o700, true, false, false),
            (0o710, true, true, false),
            (0o711, true, true, true),
            (0o701, true, false, true),
        ] {
            fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).expect("permissions");
            let who = [&owner, &member, &stranger].map(|person| enters(person, place.path()));
            assert_eq!(who, [enters_owner, enters_member, enters_stranger], "{mode:o}");
        }
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).expect("permissions");
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o777)).expect("permissions");
        assert!(!enters(&stranger, &inner), "what is above counts too");
        assert!(enters(&Person { uid: 0, ..stranger }, &inner));
    }
}
