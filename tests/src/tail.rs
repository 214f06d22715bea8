//! The lines of a growing log, each once.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

/// Where reading goes on.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    at: u64,
}

impl Tail {
    /// From a log's beginning.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, at: 0 }
    }

    /// The whole lines that came since the last call.
    pub fn lines(&mut self) -> Result<String> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
            opened => opened.with_context(|| format!("cannot read {}", self.path.display()))?,
        };
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        bytes.truncate(whole);
        self.at += u64::try_from(whole)?;
        String::from_utf8(bytes).with_context(|| format!("{} is no text", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::Tail;

    #[test]
    fn each_line_comes_once_and_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.lines().unwrap(), "");
        fs::write(&path, "one\ntw").unwrap();
        assert_eq!(tail.lines().unwrap(), "one\n");
        assert_eq!(tail.lines().unwrap(), "");
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"o\nthree\n").unwrap();
        assert_eq!(tail.lines().unwrap(), "two\nthree\n");
    }
}
