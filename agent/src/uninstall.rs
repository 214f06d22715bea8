//! `verbatim-agent uninstall`: nothing is steered or refused on this node any more.

use verbatim_agent_config::{self as config, ConfigError};
use verbatim_steer::SteerError;

use crate::{
    cli::UninstallArgs,
    supervisor::{self, PlaceError},
};

#[derive(Debug, thiserror::Error)]
enum UninstallError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("an agent serves this node: stop it first")]
    Serves,
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Steer(#[from] SteerError),
}

/// Unpins what any version has pinned; the exit code.
pub(crate) fn uninstall(args: &UninstallArgs) -> u8 {
    match unpinned(args) {
        Ok(text) => {
            crate::say(&text);
            0
        }
        Err(error) => {
            crate::say(&error.to_string());
            1
        }
    }
}

fn unpinned(args: &UninstallArgs) -> Result<String, UninstallError> {
    let config = config::load(&args.config)?;
    if supervisor::serves(&config.run_directory)? {
        return Err(UninstallError::Serves);
    }
    let pins = config.attach.pins.display();
    let removed = verbatim_steer::unpin(&config.attach.pins)?;
    // Where nothing else is in it.
    std::fs::remove_file(config.run_directory.join("starting")).ok();
    std::fs::remove_dir(&config.run_directory).ok();
    let spool = config.spool.directory.display();
    Ok(match removed {
        0 => format!("nothing is pinned in {pins}: nothing is steered here"),
        _ => format!("programs and maps in {pins} are removed; records that were not sent stay in {spool}"),
    })
}
