//! The client libraries that people use, each through ten switchovers under its own load, with its
//! default settings and without retries: no error, no lost or doubled write, no new connection.
//!
//! The programs are in `tests/clients`; `make test-clients` installs what they need. A test whose
//! library is missing says so and does nothing, unless `POINTSMAN_CLIENTS=required`.

#[path = "clients/driver.rs"]
mod driver;
mod support;

use driver::{Program, available, check_on_kvrocks, check_on_redis, installed, source};
use tokio::process::Command;

/// One test on each engine for each client.
macro_rules! clients {
    ($($name:ident: $program:expr;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn on_redis() {
                check_on_redis($program).await;
            }

            #[tokio::test]
            async fn on_kvrocks() {
                check_on_kvrocks($program).await;
            }
        }
    )*};
}

clients! {
    redis_py_resp2: python("redis_py.py", &["2"]);
    redis_py_resp3: python("redis_py.py", &["3"]);
    redis_py_asyncio_resp2: python("redis_py_asyncio.py", &["2"]);
    redis_py_asyncio_resp3: python("redis_py_asyncio.py", &["3"]);
    rq: python("rq_jobs.py", &[]).map(Program::connections_come_and_go).map(not_on_kvrocks);
    celery: python("celery_jobs.py", &[]).map(not_on_kvrocks);
    redis_rs: program("rust/debug/redis_rs");
    fred: program("rust/debug/fred");
    redis_cli_and_benchmark: python("redis_cli.py", &[]).map(Program::connections_come_and_go);
    ioredis: node("ioredis.js", &[]);
    node_redis_resp2: node("node_redis.js", &["2"]);
    node_redis_resp3: node("node_redis.js", &["3"]);
    hiredis: program("c/hiredis");
    redigo: program("go/redigo");
    phpredis: script("php", "php-redis", "php/phpredis.php");
    redis_rb: script("ruby", "ruby-redis", "ruby/redis_rb.rb");
    bullmq: node("bullmq.js", &[]).map(|program| program.not_on_kvrocks("BullMQ wants Redis 5"));
}

fn not_on_kvrocks(program: Program) -> Program {
    program.not_on_kvrocks("EXEC beside a blocked client that wakes up crashes Kvrocks before 2.12")
}

/// What `make test-clients` has built.
fn program(path: &str) -> Option<Program> {
    let program = installed(path);
    available(&[&program]).then(|| Program::new(Command::new(program)))
}

/// A program in a language whose library the distribution has; `make test-clients` notes that it is
/// there.
fn script(language: &str, library: &str, file: &str) -> Option<Program> {
    available(&[language.as_ref(), &installed(library)]).then(|| {
        let mut command = Command::new(language);
        command.arg(source(file));
        Program::new(command)
    })
}

fn python(file: &str, arguments: &[&str]) -> Option<Program> {
    let python = installed("python/bin/python");
    available(&[&python]).then(|| {
        let mut command = Command::new(python);
        // No compiled files beside the sources.
        command.arg("-B").arg(source("python").join(file));
        command.args(arguments);
        Program::new(command)
    })
}

fn node(file: &str, arguments: &[&str]) -> Option<Program> {
    let modules = installed("node/node_modules");
    available(&["node".as_ref(), &modules]).then(|| {
        let mut command = Command::new("node");
        command.arg(source("node").join(file)).args(arguments);
        command.env("NODE_PATH", modules);
        Program::new(command)
    })
}
