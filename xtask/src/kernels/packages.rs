//! Debian's kernels, fetched with apt into the cache and unpacked there: found in suites that this machine need
//! not be configured for, with apt's own verification by the archive's keys.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    archive::{Archive, Kind},
    command,
    place::Place,
    say,
};

/// A series of kernels in suites of Debian's archive.
pub(crate) struct Kernel {
    /// The first two numbers of its version.
    pub(crate) series: &'static str,
    pub(crate) suites: &'static [&'static str],
    /// Whether steering works there; where it does not, it must say what is lacking.
    pub(crate) runs: bool,
}

/// A kernel that can be started.
pub(crate) struct Unpacked {
    /// What it calls itself.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
}

/// Modules that the tests need and that the kernel would load by itself if it could; in the order of their names,
/// which is that of loading them.
const MODULES: [&str; 3] = ["inet_diag", "tcp_diag", "veth"];

/// The kernel, fetched where it is not there yet.
pub(crate) fn ready(place: &Place, kernel: &Kernel, refresh: bool) -> Result<Unpacked> {
    let folder = place.cache.join("kernels").join(kernel.series);
    let unpacked = |release: String| Unpacked {
        release,
        image: folder.join("vmlinuz"),
        modules: folder.join("modules"),
    };
    // One that was fetched when fewer modules were needed is fetched again.
    let whole = MODULES.iter().all(|name| folder.join(format!("modules/{name}.ko")).exists());
    if !refresh
        && whole
        && let Ok(release) = fs::read_to_string(folder.join("release"))
    {
        return Ok(unpacked(release));
    }
    let release =
        fetch(place, kernel, &folder).with_context(|| format!("Debian's Linux {}", kernel.series))?;
    Ok(unpacked(release))
}

fn fetch(place: &Place, kernel: &Kernel, folder: &Path) -> Result<String> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("only kernels for x86-64 are known here");
    }
    say::line(&format!(
        "fetching Debian's Linux {} (about 60 MB with the lists of its suites; unpacked, not installed)",
        kernel.series
    ));
    let lists = place.cache.join("kernels").join(format!("{}.apt", kernel.series));
    let apt = Archive::open(lists, Kind::Packages, kernel.suites)?;
    let names =
        command::output(apt.cache().args(["search", "--names-only", "^linux-image-[0-9].*-cloud-amd64$"]))?;
    let names: Vec<&str> = names.lines().filter_map(|line| line.split(' ').next()).collect();
    let release = newest(kernel.series, &names).context("the archive offers no such kernel any more")?;
    let image = format!("linux-image-{release}");
    let depends = command::output(apt.cache().args(["depends", &image]))?;
    // Newer kernels come in parts.
    let parts = [format!("linux-binary-{release}"), format!("linux-modules-{release}")];
    let parts =
        parts.iter().filter(|part| depends.lines().any(|line| line.trim_end().ends_with(part.as_str())));
    let fetched = apt.folder().join("packages");
    drop(fs::remove_dir_all(&fetched));
    fs::create_dir_all(&fetched)?;
    command::quiet(apt.get().current_dir(&fetched).args(["download", "-qq", &image]).args(parts))?;
    let all = apt.folder().join("unpacked");
    drop(fs::remove_dir_all(&all));
    for package in fs::read_dir(&fetched)?.flatten() {
        command::quiet(Command::new("dpkg-deb").arg("-x").arg(package.path()).arg(&all))?;
    }
    take(&all, &release, folder)?;
    fs::remove_dir_all(apt.folder())?;
    Ok(release)
}

/// The image, the modules that are needed, and last of all the release, by which all is known to be there.
fn take(all: &Path, release: &str, folder: &Path) -> Result<()> {
    drop(fs::remove_dir_all(folder));
    let modules = folder.join("modules");
    fs::create_dir_all(&modules)?;
    fs::copy(find(all, "vmlinuz*")?, folder.join("vmlinuz"))?;
    for name in MODULES {
        let found = find(all, &format!("{name}.ko*"))?;
        let target = modules.join(format!("{name}.ko"));
        if found.extension().is_some_and(|extension| extension == "xz") {
            let mut unpack = Command::new("busybox");
            let bytes = unpack.args(["xz", "-dc"]).arg(&found).output().context("starting busybox")?;
            fs::write(&target, bytes.stdout)?;
        } else {
            fs::copy(&found, &target)?;
        }
    }
    fs::write(folder.join("release"), release)?;
    Ok(())
}

/// The one file of this name: where it lies differs from version to version.
fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let found = command::output(Command::new("find").arg(folder).args(["-type", "f", "-name", name]))?;
    Ok(PathBuf::from(found.lines().next().with_context(|| format!("the packages hold no {name}"))?))
}

/// The release of the newest kernel of a series among packages' names.
fn newest(series: &str, names: &[&str]) -> Option<String> {
    names
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| release.strip_prefix(series).is_some_and(|rest| rest.starts_with('.')))
        .max_by_key(|release| numbers(release))
        .map(str::to_owned)
}

/// The numbers of a release in their order: `6.12.90+deb12.1-cloud-amd64` is 6, 12, 90, 12, 1, 64.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_series_is_taken_by_its_numbers() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.12.94+deb13-cloud-amd64",
            "linux-image-6.12.118+deb13-cloud-amd64",
            "linux-image-6.1-cloud-amd64",
        ];
        let newest = |series| newest(series, &names);
        assert_eq!(newest("6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest("6.12").as_deref(), Some("6.12.118+deb13-cloud-amd64"));
        assert_eq!(newest("5.10"), None);
    }
}
