//! Real servers on ports that the kernel chose; each is killed by its pid when it goes out of
//! scope.

#![allow(dead_code)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pointsman::cli::demo::port::Port;
use pointsman::resp::reply::Value;
use pointsman::topology::facts::{Link, NodeFacts, Role};
use pointsman::topology::node::{Connection, Credentials, NodeName};
use tokio::time::{Instant, sleep};

pub const LONG: Duration = Duration::from_secs(20);
pub const STEP: Duration = Duration::from_secs(5);

pub struct Server {
    pub name: NodeName,
    pub port: u16,
    child: Child,
    _reserved: Port,
    binary: String,
    options: Vec<String>,
    directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the Kvrocks binary is, when there is one.
pub fn kvrocks() -> Option<String> {
    let binary = std::env::var("KVROCKS_BIN").ok();
    if binary.is_none() {
        say_skipped("KVROCKS_BIN names no binary");
    }
    binary
}

impl Server {
    pub async fn redis(options: &[&str]) -> Server {
        Server::start("redis-server", options).await
    }

    pub async fn start(binary: &str, options: &[&str]) -> Server {
        let server = Server::spawn(binary, options);
        assert!(server.answers().await, "{binary} does not start");
        server
    }

    fn spawn(binary: &str, options: &[&str]) -> Server {
        let reserved = Port::reserve().unwrap();
        let port = reserved.number();
        let directory = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|one| (*one).to_owned()).collect();
        let name = format!("127.0.0.1:{port}").into();
        let child = Server::run(binary, &options, port, directory.path());
        let binary = binary.to_owned();
        Server {
            name,
            port,
            child,
            _reserved: reserved,
            binary,
            options,
            directory,
        }
    }

    fn run(binary: &str, options: &[String], port: u16, directory: &Path) -> Child {
        let mut command = Command::new(binary);
        if binary.ends_with("kvrocks") {
            let mut config = format!("port {port}\nbind 127.0.0.1\nworkers 2\n");
            config += &format!(
                "dir {}\nrocksdb.write_buffer_size 16\n",
                directory.display()
            );
            for pair in options.chunks(2) {
                config += &format!("{} {}\n", pair[0].trim_start_matches("--"), pair[1]);
            }
            let path = directory.join("kvrocks.conf");
            std::fs::write(&path, config).unwrap();
            command.arg("-c").arg(path);
        } else {
            let path = directory.join("redis.conf");
            // What is written while a node changes its master hangs on the machine.
            let text = "save \"\"\nrepl-diskless-sync-delay 0\nrepl-backlog-size 64mb\n";
            std::fs::write(&path, text).unwrap();
            command
                .arg(path)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
            command.arg("--dir").arg(directory).args(options);
        }
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Killed without a word and started anew with the config it began with: it comes back as
    /// master, Redis without data.
    pub async fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let directory = self.directory.path();
        self.child = Server::run(&self.binary, &self.options, self.port, directory);
        assert!(self.answers().await);
    }

    /// The server's own config file, as CONFIG REWRITE leaves it.
    pub fn config_file(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("redis.conf")).unwrap()
    }

    async fn answers(&self) -> bool {
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            let open = Connection::open(&self.name, &Credentials::default(), "test", STEP).await;
            if !matches!(
                open,
                Err(pointsman::topology::node::NodeError::Unreachable { .. })
            ) {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        false
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops or continues the server, so that it is silent with its connections open.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub async fn connect(&self) -> Connection {
        self.connect_as("test").await
    }

    pub async fn connect_as(&self, name: &str) -> Connection {
        Connection::open(&self.name, &Credentials::default(), name, STEP)
            .await
            .unwrap()
    }

    pub async fn ask(&self, args: &[&str]) -> Value {
        self.connect().await.call(args, STEP).await.unwrap()
    }

    pub async fn facts(&self) -> NodeFacts {
        NodeFacts::read(&mut self.connect().await, STEP)
            .await
            .unwrap()
    }

    pub async fn is_master(&self) -> bool {
        self.facts().await.role == Role::Master
    }

    pub async fn follow(&self, master: &Server) {
        let port = master.port.to_string();
        assert!(self.ask(&["SLAVEOF", "127.0.0.1", &port]).await.is_ok());
        self.await_link(master).await;
    }

    pub async fn await_link(&self, master: &Server) {
        until("the link to be up", async || {
            let role = self.facts().await.role;
            matches!(role, Role::Replica { port, link: Link::Up, .. } if port == master.port)
        })
        .await;
    }
}

/// A master and its replicas, in sync.
pub async fn shard(binary: &str, replicas: usize, options: &[&str]) -> Vec<Server> {
    let mut servers = vec![Server::start(binary, options).await];
    for _ in 0..replicas {
        let replica = Server::start(binary, options).await;
        replica.follow(&servers[0]).await;
        servers.push(replica);
    }
    assert!(servers[0].ask(&["SET", "before", "1"]).await.is_ok());
    for replica in &servers[1..] {
        until("the first write to arrive", async || {
            replica.ask(&["GET", "before"]).await.text() == Some("1")
        })
        .await;
    }
    servers
}

/// Waits for a condition, with a deadline.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Stops (`-STOP`) or continues (`-CONT`) one process.
pub fn signal(pid: u32, name: &str) {
    let pid = pid.to_string();
    assert!(
        Command::new("kill")
            .args([name, &pid])
            .status()
            .unwrap()
            .success()
    );
}

/// Says why a test does nothing. Written past the test runner, which keeps what passing tests
/// print.
pub fn say_skipped(why: &str) {
    use std::io::Write;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
