//! To be written.

use std::process::ExitCode;

/// To be written.
#[derive(clap::Args, Debug)]
pub struct DemoArgs {}

/// To be written.
pub async fn run(_: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the demo is not part of this build")
}
