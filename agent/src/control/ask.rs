//! `verbatim-agent bypass`: gives an order to the running agent; where none answers, to the kernel itself.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use verbatim_agent_config::{self as config, ConfigError, NodeAgent};
use verbatim_steer::{Bypasses, SteerError};

use super::{
    orders::{Limits, Refusal, humane},
    person::Person,
    words::{Answer, Order, SOCKET},
};
use crate::{
    cli::{BypassArgs, DoctorArgs, DoctorOutput},
    doctor::{self, Report},
};

/// For a worker that is just being started again.
const PATIENCE: Duration = Duration::from_secs(3);
const TRY_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "no agent answers at {}: {source}; {hint}",
        path.display()
    )]
    Nobody { path: PathBuf, source: io::Error, hint: &'static str },
    #[error("the agent did not answer: {0}")]
    Answer(io::Error),
    #[error("not done: {0}")]
    Refused(String),
    #[error("no agent answers, and the kernel cannot be told: {0}")]
    Kernel(#[from] SteerError),
}

impl From<Refusal> for AskError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Steer(error) => Self::Kernel(error),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// Does what the command line says.
pub(crate) fn bypass(args: &BypassArgs) -> u8 {
    match asked(args) {
        Ok(text) => {
            // For whoever asked; where nobody reads, nobody is told.
            writeln!(io::stdout(), "{text}").ok();
            0
        }
        Err(error) => {
            crate::say(&error.to_string());
            1
        }
    }
}

fn asked(args: &BypassArgs) -> Result<String, AskError> {
    let config = args.config.as_deref().map(config::load).transpose()?;
    let directory = match (&args.run_directory, &config) {
        (Some(directory), _) => directory.clone(),
        (None, Some(config)) => config.run_directory.clone(),
        (None, None) => config::default_run_directory(),
    };
    let order = args.order();
    let path = directory.join(SOCKET);
    match connect(&path) {
        Ok(stream) => match talk(stream, &order).map_err(AskError::Answer)? {
            Answer::Refused { why } => Err(AskError::Refused(why)),
            answer => Ok(said(&answer)),
        },
        Err(source) => match config {
            Some(config) => alone(&config, &order),
            None => {
                let hint = "name the right directory with --run-directory; with --config, an order works also \
                            while no agent lives";
                Err(AskError::Nobody { path, source, hint })
            }
        },
    }
}

/// Says how workloads stand: 0 where all is well, 2 where something is not, 1 where that cannot be told.
pub(crate) fn doctor(args: &DoctorArgs) -> u8 {
    match examined(args) {
        Ok(report) => {
            let text = match args.output {
                DoctorOutput::Table => doctor::shown(&report),
                // Strings and numbers can always be written.
                DoctorOutput::Json => {
                    verbatim_terminal::json(&serde_json::to_string_pretty(&report).unwrap_or_default())
                }
            };
            writeln!(io::stdout(), "{text}").ok();
            if report.is_well() { 0 } else { 2 }
        }
        Err(error) => {
            crate::say(&error.to_string());
            1
        }
    }
}

fn examined(args: &DoctorArgs) -> Result<Report, AskError> {
    let directory = match (&args.run_directory, &args.config) {
        (Some(directory), _) => directory.clone(),
        (None, Some(path)) => config::load(path)?.run_directory,
        (None, None) => config::default_run_directory(),
    };
    let path = directory.join(SOCKET);
    let hint = "name the right directory with --run-directory";
    let stream = connect(&path).map_err(|source| AskError::Nobody { path, source, hint })?;
    match talk(stream, &Order::Doctor).map_err(AskError::Answer)? {
        Answer::Examined { report } => Ok(report),
        Answer::Refused { why } => Err(AskError::Refused(why)),
        other => Err(AskError::Refused(said(&other))),
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(TRY_AGAIN),
            result => return result,
        }
    }
}

fn talk(mut stream: UnixStream, order: &Order) -> io::Result<Answer> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// Programs that outlive their agent take orders, too; the next agent records what was ordered.
fn alone(config: &NodeAgent, order: &Order) -> Result<String, AskError> {
    let pinned = Bypasses::pinned(&config.attach.pins)?;
    let now = pinned.bypasses.read()?.filter(|order| !order.left().is_zero());
    match order {
        Order::Status | Order::Doctor => {}
        Order::End => {
            if let Some(order) = now {
                let until_nanos = verbatim_sys::clock::monotonic_nanos();
                pinned.bypasses.set(&verbatim_steer::Bypass { until_nanos, ..order })?;
            }
        }
        Order::Bypass { millis, reason } => {
            if now.is_some() {
                let why =
                    "steering is bypassed already, and no agent lives to record another order: end it first";
                return Err(AskError::Refused(why.to_owned()));
            }
            let limits = Limits { enabled: config.bypass.enabled, maximum: config.bypass.maximum.0 };
            let order = limits.admit(*millis, reason, Person::own(), pinned.passed)?;
            pinned.bypasses.set(&order)?;
        }
    }
    let text = match pinned.bypasses.read()?.filter(|order| !order.left().is_zero()) {
        Some(order) => said(&Answer::Bypassed {
            left_millis: u64::try_from(order.left().as_millis()).unwrap_or(u64::MAX),
            by: Person { uid: order.uid, login: order.login }.display(),
            passed: pinned.passed.saturating_sub(order.counted_before),
            reason: order.reason,
        }),
        None => said(&Answer::Steering),
    };
    Ok(format!("{text}\nno agent lives: the next one records it"))
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Steering => "connections are steered".to_owned(),
        Answer::Bypassed { left_millis, reason, by, passed } => format!(
            "steering is bypassed for another {}: {reason}\nby {by}; connections that have passed: {passed}",
            humane(Duration::from_millis(*left_millis))
        ),
        Answer::Refused { why } => why.clone(),
        Answer::Examined { .. } => "how workloads stand".to_owned(),
    }
}
