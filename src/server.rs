//! To be written.

use crate::config::Config;

/// To be written.
pub async fn run(_: Config) -> anyhow::Result<()> {
    anyhow::bail!("the proxy is not part of this build")
}
