//! A real Redis on a port of the kernel's choice, ended by pid on drop.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pointsman::cli::demo::port::Port;

/// Longest time that a server may take to answer and close.
const DEADLINE: Duration = Duration::from_secs(20);

pub struct Redis {
    server: Child,
    port: Port,
}

impl Redis {
    /// `None`, with the reason on standard error, when redis-server is not installed.
    pub fn start() -> Option<Self> {
        let port = Port::reserve().unwrap();
        let spawned = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--logfile", ""])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let server = match spawned {
            Ok(server) => server,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                say_skipped("redis-server is not installed");
                return None;
            }
            Err(error) => panic!("redis-server does not start: {error}"),
        };
        let mut redis = Self { server, port };
        assert!(redis.is_ready(), "redis-server ended at once");
        Some(redis)
    }

    /// Sends `input` and gives everything the server says until it closes.
    pub fn until_closed(&self, input: &[u8]) -> Vec<u8> {
        let mut connection = TcpStream::connect(self.port.addr()).unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        connection.write_all(input).unwrap();
        let mut said = Vec::new();
        connection.read_to_end(&mut said).unwrap();
        // The server may have closed already, and then there is nothing left to shut down.
        let _ = connection.shutdown(Shutdown::Both);
        said
    }

    /// Reads the log up to the line that says so.
    fn is_ready(&mut self) -> bool {
        let Some(log) = self.server.stdout.take() else {
            return false;
        };
        let mut lines = BufReader::new(log).lines();
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("Ready to accept"));
        // Read on, because a server whose log nobody takes would be ended by its next line.
        std::thread::spawn(move || lines.for_each(drop));
        ready
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Both fail only when the process has ended, which is what is wanted.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Says why a test does nothing. Written past the test runner, which keeps what passing tests
/// print.
fn say_skipped(why: &str) {
    use std::io::Write;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
