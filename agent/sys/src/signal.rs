//! Signals: blocked, and read like a file instead of interrupting.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
};

pub use libc::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};

use crate::process::wait_readable;

/// Whatever the calling thread had blocked. Allocates nothing.
pub(crate) fn unblock_all() -> io::Result<()> {
    mask(libc::SIG_SETMASK, &[])
}

fn mask(how: libc::c_int, signals: &[i32]) -> io::Result<()> {
    let set = signal_set(signals);
    // SAFETY: `set` is an initialised signal set that is only read.
    let code = unsafe { libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()) };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before anything else touches it; sigaddset only writes into
    // it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// e.g. 15.
    pub signal: i32,
    /// A terminal sent it to its whole foreground process group, our children among them.
    pub by_terminal: bool,
}

/// Signals read like a file, instead of interrupting.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks these for the calling thread and those that it starts, and has them delivered here. To be
    /// called before the first thread is started. The descriptor does not block.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        mask(libc::SIG_BLOCK, signals)?;
        let set = signal_set(signals);
        // SAFETY: `set` is an initialised signal set that is only read; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd has just made this descriptor; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// poll(2) or read(2) fails.
    pub fn wait(&self) -> io::Result<Received> {
        loop {
            wait_readable(self.0.as_fd(), None)?;
            match self.read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }

    /// `WouldBlock` while none is pending.
    fn read(&self) -> io::Result<Received> {
        let mut buffer = [0u8; size_of::<libc::signalfd_siginfo>()];
        let length = rustix::io::read(&self.0, &mut buffer)?;
        if length != buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // ssi_signo, ssi_errno, ssi_code: the first three 32-bit fields (signalfd(2)).
        let field = |at: usize| {
            buffer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes)
        };
        Ok(Received { signal: field(0), by_terminal: field(8) == SI_KERNEL })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `si_code` of what the kernel itself sends, a terminal's keys among it (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_a_process_sent_is_read_and_is_no_terminals() {
        // In a thread of its own, which the blocked signal goes with.
        let received = std::thread::spawn(|| {
            let signals = Signals::new(&[SIGHUP])?;
            assert_eq!(signals.read().map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
            // SAFETY: sends a signal, which is blocked here, to the calling thread.
            unsafe { libc::pthread_kill(libc::pthread_self(), SIGHUP) };
            signals.wait()
        });
        let received = received.join().expect("thread").expect("signal");
        assert_eq!(received, Received { signal: SIGHUP, by_terminal: false });
    }
}
