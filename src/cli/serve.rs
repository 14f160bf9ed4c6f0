//! `pointsman serve`: the proxy itself.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, LogFormat};
use crate::{server, telemetry};

/// Returns when the proxy has been told to end and every client has been let go.
pub async fn run(config: Config, path: PathBuf) -> anyhow::Result<ExitCode> {
    let level = config.proxy.log_level.as_str();
    match config.proxy.log_format {
        LogFormat::Text => telemetry::log_as_text(level),
        LogFormat::Json => telemetry::log_as_json(level),
    }
    server::run(config, path).await?;
    Ok(ExitCode::SUCCESS)
}
