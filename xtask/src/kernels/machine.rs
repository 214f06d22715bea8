//! The machine in qemu: emulated, since a kernel of another version needs one of its own, and this one may be
//! a virtual machine itself that lends no KVM.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::packages::{Kernel, Unpacked};
use crate::{
    place::{self, Place},
    say,
};

const QEMU: &str = "qemu-system-x86_64";
/// What the guest says before and after each part of its work; `guest/init.sh` has the same words.
const BEGIN: &str = "@begin ";
const END: &str = "@end ";

/// What the machine said.
pub(crate) struct Output {
    pub(crate) parts: Vec<Part>,
    /// All of it.
    pub(crate) log: PathBuf,
}

/// One part of its work that came to an end.
pub(crate) struct Part {
    pub(crate) said: String,
    pub(crate) code: i32,
}

/// Why no machine can be started here.
pub(crate) fn missing() -> Option<&'static str> {
    if place::program(QEMU).is_none() {
        return Some("no qemu-system-x86_64 (package qemu-system-x86)");
    }
    if place::program("busybox").is_none() {
        return Some("no busybox (package busybox-static)");
    }
    None
}

/// Starts a kernel with a root file system and listens until it powers off, for so long at most.
pub(crate) fn boot(
    place: &Place,
    kernel: &Kernel,
    unpacked: &Unpacked,
    image: &Path,
    patience: Duration,
) -> Result<Output> {
    let log_path = place.target.join("test-logs").join(format!("linux-{}.log", kernel.series));
    fs::create_dir_all(log_path.parent().context("a folder")?)?;
    let mut log = fs::File::create(&log_path).with_context(|| log_path.display().to_string())?;
    let mut machine = Machine(
        Command::new(QEMU)
            .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1536", "-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio", "-kernel"])
            .arg(&unpacked.image)
            .arg("-initrd")
            .arg(image)
            // The timer's own check fails where the machine below is busy.
            .args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("starting {QEMU}"))?,
    );
    let serial = BufReader::new(machine.0.stdout.take().context("the serial line")?);
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in serial.split(b'\n').map_while(std::result::Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + patience;
    let mut parts = Vec::new();
    let mut said = String::new();
    loop {
        let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                say::note(&format!("it was ended after {}", say::duration(patience)));
                break;
            }
        };
        writeln!(log, "{line}")?;
        if line.starts_with(BEGIN) {
            said.clear();
        } else if let Some(code) = line.strip_prefix(END) {
            let code = code.trim().parse().unwrap_or(-1);
            parts.push(Part { said: std::mem::take(&mut said), code });
        } else {
            said.push_str(&line);
            said.push('\n');
        }
    }
    drop(machine);
    reader.join().ok().context("reading the serial line failed")?;
    Ok(Output { parts, log: log_path })
}

/// Dies with its handle.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
