//! The client libraries that people use, each through ten switchovers under its own load, with its
//! default settings and without retries: no error, no lost or doubled write, no new connection.
//!
//! The programs are in `tests/clients`; `make test-clients` installs what they need. A test whose
//! library is missing says so and does nothing, unless `POINTSMAN_CLIENTS=required`.

#[path = "clients/driver.rs"]
mod driver;
mod support;

use driver::Connections::{self, Stay};
use driver::{Program, available, check, installed, source};
use support::*;
use tokio::process::Command;

/// One test on each engine for each client.
macro_rules! clients {
    ($($name:ident: $program:expr;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn on_redis() {
                if let Some(program) = $program {
                    check(program, &Shard::redis(1).await, "redis").await;
                }
            }

            #[tokio::test]
            async fn on_kvrocks() {
                let Some(program) = $program else { return };
                // Off unless asked for; libraries that want RESP3 do not take less.
                let options = ["--resp3-enabled", "yes"];
                if let Some(shard) = Shard::kvrocks_with(1, &options).await {
                    check(program, &shard, "kvrocks").await;
                }
            }
        }
    )*};
}

clients! {
    redis_py_resp2: python("redis_py.py", &["2"], Stay);
    redis_py_resp3: python("redis_py.py", &["3"], Stay);
}

fn python(file: &str, arguments: &[&str], connections: Connections) -> Option<Program> {
    let (python, file) = (installed("python/bin/python"), source("python").join(file));
    available(std::slice::from_ref(&python)).then(|| {
        let mut command = Command::new(python);
        // No compiled files beside the sources.
        command.arg("-B").arg(file).args(arguments);
        Program {
            command,
            connections,
        }
    })
}
