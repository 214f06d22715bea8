//! A small disk of a scenario's own: an ext4 in a file, which can be filled and can be made to stand still.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{reaper::Guard, shell::run, undo::Leftover};

/// A mounted file system. Dropping it takes it away, whoever still has files open there.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    _guard: Guard,
}

impl Disk {
    /// Makes one of so many MiB and mounts it at a folder, which is made.
    pub fn mount(image: &Path, at: &Path, mebibytes: u64) -> Result<Self> {
        fs::create_dir_all(at).with_context(|| format!("cannot make {}", at.display()))?;
        let guard = Guard::new(Leftover::Mount(at.display().to_string()))?;
        let file = File::create(image).with_context(|| format!("cannot write {}", image.display()))?;
        file.set_len(mebibytes << 20)?;
        let image = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
        run("mount", &["-o", "loop", &image, &at.display().to_string()])?;
        Ok(Self { at: at.to_owned(), _guard: guard })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Takes all the room there is.
    pub fn fill(&self) -> Result<Filled> {
        let mut filled = Filled { path: self.at.join("filler") };
        let free = run("df", &["--block-size=1", "--output=avail", &self.at.display().to_string()])?;
        let free: u64 =
            free.lines().last().unwrap_or_default().trim().parse().context("df says no number")?;
        // Without a byte that has to be written; what is left is taken below.
        let most = free.saturating_sub(1 << 20).max(4096).to_string();
        run("fallocate", &["--length", &most, &filled.path.display().to_string()])?;
        filled.press()?;
        Ok(filled)
    }

    /// Makes every write wait, as a disk does whose other end is gone.
    pub fn stall(&self) -> Result<Stalled> {
        let stalled = Stalled { at: self.at.display().to_string() };
        run("fsfreeze", &["--freeze", &stalled.at])?;
        Ok(stalled)
    }
}

/// Room that is taken; dropping it gives it back.
#[derive(Debug)]
pub struct Filled {
    path: PathBuf,
}

impl Filled {
    /// Takes what others have given back since.
    pub fn press(&mut self) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        for size in [1 << 20, 4096] {
            let zeros = vec![0; size];
            loop {
                match file.write_all(&zeros) {
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    other => other.context("cannot fill the disk")?,
                }
            }
        }
        Ok(())
    }

    /// Keeps it full for so long.
    pub fn hold(&mut self, time: Duration) -> Result<()> {
        const STEP: Duration = Duration::from_millis(100);
        let mut held = Duration::ZERO;
        while held < time {
            self.press()?;
            thread::sleep(STEP);
            held += STEP;
        }
        Ok(())
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        // What cannot be removed goes with the disk.
        drop(fs::remove_file(&self.path));
    }
}

/// A disk that stands still; dropping it lets it go on.
#[derive(Debug)]
pub struct Stalled {
    at: String,
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // What cannot be thawed is thawed when it is unmounted.
        drop(run("fsfreeze", &["--unfreeze", &self.at]));
    }
}
