//! The command table against what real servers say of their own commands.
//!
//! A server's flags are no authority (Kvrocks flags read-only what writes), but where it is the
//! stricter one, the table has to be as strict, or the difference is listed below with its reason.

use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, Value};

use pointsman::cli::demo::port::Port;
use pointsman::resp::command::{Path, Pin, Verdict, classify, is_known};

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// On a lane and not held, although the server does not flag them as reads: names and the reason.
const NOT_FLAGGED_READ: &[(&str, &str)] = &[
    ("echo ping", "answer with their argument"),
    ("info lastsave role time", "ask about the server"),
    (
        "acl|cat acl|genpass",
        "answer the same whoever asks and whenever",
    ),
    (
        "acl|dryrun acl|getuser acl|list acl|users acl|whoami",
        "ask about users",
    ),
    (
        "acl|log latency|reset slowlog|reset",
        "may clear what is measured, which is not replicated",
    ),
    (
        "latency|doctor latency|graph latency|histogram",
        "ask about measurements",
    ),
    (
        "latency|history latency|latest slowlog|get slowlog|len",
        "ask about measurements",
    ),
    (
        "cluster|info cluster|nodes cluster|slots cluster|shards cluster|links",
        "ask about a cluster",
    ),
    (
        "cluster|myid cluster|replicas cluster|slaves",
        "ask about a cluster",
    ),
    (
        "cluster|count-failure-reports cluster|countkeysinslot",
        "ask about a cluster",
    ),
    (
        "cluster|getkeysinslot cluster|keyslot",
        "ask about a cluster",
    ),
    (
        "command|count command|getkeys command|getkeysandflags",
        "ask about commands",
    ),
    ("config|get module|list", "ask about the server"),
    (
        "function|list function|dump script|exists",
        "ask about libraries and scripts",
    ),
    (
        "pubsub|channels pubsub|numpat pubsub|numsub",
        "ask about subscriptions",
    ),
    (
        "pubsub|shardchannels pubsub|shardnumsub",
        "ask about subscriptions",
    ),
    (
        "acl|help client|help cluster|help command|help config|help",
        "constant texts",
    ),
    (
        "function|help latency|help memory|help module|help object|help",
        "constant texts",
    ),
    (
        "pubsub|help script|help slowlog|help xgroup|help xinfo|help",
        "constant texts",
    ),
    (
        "acl client cluster clusterx config function latency memory",
        "errors without subcommand",
    ),
    (
        "module object pubsub script slowlog xgroup xinfo",
        "errors without subcommand",
    ),
];

/// On a lane, although they are not allowed in scripts or belong to publish and subscribe: flags
/// that often mean that a command changes its connection.
const LEAVES_THE_CONNECTION_ALONE: &[(&str, &str)] = &[
    (
        "eval eval_ro evalsha evalsha_ro fcall fcall_ro",
        "scripts don't nest, but are no state",
    ),
    (
        "function|list function|dump function|load",
        "a library belongs to the server",
    ),
    (
        "function|delete function|restore",
        "a library belongs to the server",
    ),
    (
        "script|load script|exists",
        "a script belongs to the server",
    ),
    (
        "publish spublish mpublish",
        "one reply: the number of receivers",
    ),
    (
        "pubsub|channels pubsub|numpat pubsub|numsub",
        "ask about all connections",
    ),
    (
        "pubsub|shardchannels pubsub|shardnumsub pubsub|help",
        "ask about all connections",
    ),
    ("role", "asks about the server"),
    (
        "acl|cat acl|dryrun acl|genpass acl|getuser acl|list acl|log acl|users",
        "about users",
    ),
    ("acl|whoami", "the sessions of a lane are the same user"),
    (
        "latency|doctor latency|graph latency|histogram",
        "measurements of the server",
    ),
    (
        "latency|history latency|latest latency|reset",
        "measurements of the server",
    ),
    ("config|get module|list", "ask about the server"),
    // Kvrocks does not list subcommands, and flags these by what needs the flag among them.
    (
        "cluster clusterx function pubsub script",
        "errors without subcommand",
    ),
];

#[test]
fn the_table_is_as_strict_as_redis() {
    let port = Port::reserve().unwrap();
    let mut redis = Command::new("redis-server");
    redis.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    redis.args(["--port", &port.to_string()]);
    match Server::start(redis, port) {
        Ok(server) => check(&server.commands()),
        Err(why) => say_skipped(&format!("no redis-server to ask: {why}")),
    }
}

#[test]
fn the_table_is_as_strict_as_kvrocks() {
    let Some(binary) = std::env::var_os("KVROCKS_BIN") else {
        say_skipped("KVROCKS_BIN does not name a Kvrocks binary");
        return;
    };
    let (dir, port) = (tempfile::tempdir().unwrap(), Port::reserve().unwrap());
    let config = write_kvrocks_config(dir.path(), &port);
    let mut kvrocks = Command::new(binary);
    kvrocks.arg("-c").arg(config);
    let server = Server::start(kvrocks, port).expect("KVROCKS_BIN starts");
    check(&server.commands());
}

#[test]
fn every_exception_names_a_command_of_the_table() {
    for (names, _) in NOT_FLAGGED_READ.iter().chain(LEAVES_THE_CONNECTION_ALONE) {
        for name in names.split(' ') {
            let mut words = name.split('|').map(str::as_bytes);
            assert!(is_known(words.next().unwrap(), words.next()), "{name}");
        }
    }
}

/// One command or subcommand as the server describes it.
#[derive(Debug)]
struct Described {
    /// Lower case; a subcommand after a `|`.
    name: String,
    flags: Vec<String>,
}

impl Described {
    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|has| has == flag)
    }

    fn listed_in(&self, exceptions: &[(&str, &str)]) -> bool {
        exceptions
            .iter()
            .any(|(names, _)| names.split(' ').any(|name| name == self.name))
    }

    /// The verdict on this command, called so that it blocks if it can.
    fn verdict(&self) -> Verdict {
        let options: &[&str] = match self.name.as_str() {
            "xread" => &["BLOCK", "0", "STREAMS", "k", "$"],
            "xreadgroup" => &["GROUP", "g", "c", "BLOCK", "0", "STREAMS", "k", ">"],
            _ => &[],
        };
        let words: Vec<&str> = self
            .name
            .split('|')
            .chain(options.iter().copied())
            .collect();
        let arg = |at: usize| words.get(at).map(|word| word.as_bytes());
        classify(words[0].as_bytes(), arg, words.len())
    }
}

fn check(commands: &[Described]) {
    assert!(
        commands.len() > 200,
        "the server lists only {} commands",
        commands.len()
    );
    let mut wrong = Vec::new();
    for command in commands {
        let mut claim = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{}: {what} {:?}", command.name, command.flags));
            }
        };
        let (name, sub) = match command.name.split_once('|') {
            Some((name, sub)) => (name, Some(sub.as_bytes())),
            None => (command.name.as_str(), None),
        };
        claim(is_known(name.as_bytes(), sub), "is not in the table");

        let verdict = command.verdict();
        let on_a_lane = verdict.path == Path::Lane;
        let changes_data = command.has("write") || command.has("may_replicate");
        let refused = matches!(verdict.path, Path::Refused(_) | Path::Ruled(_));
        claim(
            !changes_data || verdict.writes || refused,
            "writes and is not held",
        );
        claim(
            !command.has("blocking") || !on_a_lane,
            "blocks and is on a lane",
        );
        let blocks = matches!(verdict.path, Path::Pinned(Pin::Blocking | Pin::Wait));
        claim(
            !command.has("blocking") || blocks,
            "blocks and is not known to",
        );
        let unheld = on_a_lane && !verdict.writes;
        let audited = command.has("readonly") || command.listed_in(NOT_FLAGGED_READ);
        claim(!unheld || audited, "is not flagged as a read and not held");
        let of_a_connection = command.has("noscript") || command.has("pubsub");
        let harmless = command.listed_in(LEAVES_THE_CONNECTION_ALONE);
        claim(
            !on_a_lane || !of_a_connection || harmless,
            "may change its connection on a lane",
        );
        let never = ["no_multi", "no-multi", "no_auth", "asking"];
        claim(
            !on_a_lane || !never.iter().any(|flag| command.has(flag)),
            "is not for a lane",
        );
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    println!("{} commands and subcommands agree", commands.len());
}

struct Server {
    child: Child,
    port: Port,
}

impl Server {
    fn start(mut command: Command, port: Port) -> Result<Server, String> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().map_err(|error| error.to_string())?;
        Ok(Server { child, port })
    }

    /// A connection, as soon as the server takes one.
    fn connect(&self) -> Connection {
        let client = redis::Client::open(("127.0.0.1", self.port.number())).unwrap();
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match client.get_connection() {
                Ok(connection) => return connection,
                Err(error) if Instant::now() > deadline => panic!("server did not start: {error}"),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    fn commands(&self) -> Vec<Described> {
        let Value::Array(entries) = redis::cmd("COMMAND").query(&mut self.connect()).unwrap()
        else {
            panic!("COMMAND did not answer with an array");
        };
        let mut commands = Vec::new();
        entries
            .iter()
            .for_each(|entry| describe(entry, &mut commands));
        commands
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Failing means that it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects an entry of COMMAND and, from Redis 7.0 on, its subcommands.
fn describe(entry: &Value, into: &mut Vec<Described>) {
    let Value::Array(fields) = entry else {
        panic!("not an entry of COMMAND: {entry:?}")
    };
    let flags = match &fields[2] {
        Value::Array(flags) | Value::Set(flags) => flags.iter().map(text).collect(),
        other => panic!("not the flags of a command: {other:?}"),
    };
    into.push(Described {
        name: text(&fields[0]),
        flags,
    });
    if let Some(Value::Array(subcommands)) = fields.get(9) {
        subcommands.iter().for_each(|entry| describe(entry, into));
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).to_lowercase(),
        Value::SimpleString(text) => text.to_lowercase(),
        other => panic!("not a name or a flag: {other:?}"),
    }
}

fn write_kvrocks_config(dir: &FilePath, port: &Port) -> std::path::PathBuf {
    let path = dir.join("kvrocks.conf");
    let dir = dir.display();
    let config = format!("bind 127.0.0.1\nport {port}\ndir {dir}\nworkers 1\ndaemonize no\n");
    std::fs::write(&path, config).unwrap();
    path
}

/// Says why a test does nothing. Written past the test runner, which keeps what passing tests
/// print.
fn say_skipped(why: &str) {
    use std::io::Write;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
