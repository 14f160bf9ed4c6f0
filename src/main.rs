//! The binary: parses arguments, runs the command, turns its end into an exit code.
//!
//! Exit codes: 0 done, 1 failed, 2 bad usage or config.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use pointsman::cli::{self, Cli};

fn main() -> ExitCode {
    // Clap itself ends with 2 on bad usage.
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)),
        Err(error) => Err(anyhow::Error::new(error).context("cannot start the runtime")),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            // Nobody is left to tell when standard error itself is closed.
            let _ = writeln!(std::io::stderr(), "pointsman: {error:#}");
            cli::exit_code(&error)
        }
    }
}
