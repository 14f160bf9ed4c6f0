//! What a server answers, byte for byte, the proxy in front of another one answers too.

mod support;

use std::time::Duration;

use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The same bytes to a server and to the proxy in front of another one just like it.
struct Twins {
    direct: Shard,
    // Held for its servers, which end when it does.
    _proxied: Shard,
    proxy: Proxy,
}

impl Twins {
    async fn start() -> Twins {
        Twins::start_with(Settings::default()).await
    }

    async fn start_with(settings: Settings) -> Twins {
        let (direct, proxied) = tokio::join!(Shard::redis(0), Shard::redis(0));
        let proxy = proxied.proxy_with(settings).await;
        Twins {
            direct,
            _proxied: proxied,
            proxy,
        }
    }

    /// Sends `input` on a fresh connection to both; the answers, and whether the connection stays
    /// open, must be the same byte for byte.
    async fn check(&self, input: &[u8]) {
        let shown = String::from_utf8_lossy(input);
        let shown: String = shown.chars().take(120).collect();
        let direct = self.direct.addr(0);
        let (direct, proxied) =
            tokio::join!(exchange(&direct, input), exchange(&self.proxy.addr, input));
        let text = |(bytes, ending): &(Vec<u8>, Ending)| {
            (String::from_utf8_lossy(bytes).into_owned(), *ending)
        };
        assert_eq!(
            text(&proxied),
            text(&direct),
            "proxied (left) and direct, after {shown:?}"
        );
    }

    /// Each line is one conversation: commands between bars, arguments between blanks.
    async fn check_all(&self, conversations: &[&str]) {
        for line in conversations {
            let mut input = Vec::new();
            for command in line.split(" | ") {
                put_request(&mut input, &command.split_whitespace().collect::<Vec<_>>());
            }
            self.check(&input).await;
        }
    }
}

/// Everything that comes back; a PING with a text of its own, sent last, tells that it is all.
async fn exchange(addr: &str, input: &[u8]) -> (Vec<u8>, Ending) {
    const LAST: &[u8] = b"$11\r\nlast-answer\r\n";
    let mut wire = Wire::connect(addr).await.unwrap();
    let mut input = input.to_vec();
    put_request(&mut input, &["PING", "last-answer"]);
    // A server that closes early may reset the connection while we still send.
    let _ = wire.send_raw(&input).await;
    wire.raw_until(LAST, Duration::from_millis(400)).await
}

#[tokio::test]
async fn plain_commands_and_their_errors_are_the_servers_own() {
    let twins = Twins::start().await;
    twins
        .check_all(&[
            "PING | PING hello | ping | PiNg | ECHO x",
            "SET k v | GET k | GET nothing | DEL k | EXISTS k",
            "SET k v EX 100 NX | TTL k | PTTL nothing | SET k w NX | GET k | GETDEL k",
            "SET | GET | GET a b | SET k v WRONG | INCR",
            "SET n ten | INCR n | INCRBY n x | SET n 41 | INCR n | DECRBY n 2",
            "LPUSH l a b c | LRANGE l 0 -1 | GET l | LPOP l 2 | LLEN l",
            "HSET h a 1 b 2 | HGETALL h | HGET h a | HMGET h a c | HINCRBY h a 5",
            "ZADD z 1 a 2 b | ZRANGE z 0 -1 WITHSCORES | ZSCORE z a | ZADD z x y",
            "SADD s a | SISMEMBER s a | SMEMBERS s | SINTERCARD 1 s",
            "XADD x 1-1 f v | XRANGE x - + | XLEN x | XADD x 1-1 f v | XREAD STREAMS x 0",
            "MSET a 1 b 2 | MGET a b c | APPEND a x | STRLEN a | GETRANGE a 0 0",
            "PFADD p a b | PFCOUNT p | BITCOUNT a | GETBIT a 1 | SETBIT a 1 1",
            "NOSUCHCOMMAND | NOSUCHCOMMAND with arguments | GET | OBJECT | OBJECT ENCODING a",
            "TYPE a | EXPIRE a 100 | PERSIST a | RENAME a c | RENAME none d | COPY c e",
            "FLUSHALL | DBSIZE | RANDOMKEY | SET k v | SCAN 0 COUNT 1000 | KEYS * | RANDOMKEY",
            "CONFIG GET maxmemory | CONFIG GET | COMMAND COUNT | MEMORY USAGE nothing",
            "SORT nothing | WAIT 0 0 | LASTSAVE x | DEBUG | OBJECT FREQ nothing",
        ])
        .await;
}

#[tokio::test]
async fn sessions_keep_their_state_as_on_a_server() {
    let twins = Twins::start().await;
    twins
        .check_all(&[
            "SELECT 1 | SET k one | GET k | SELECT 0 | GET k",
            "SELECT 16 | SELECT x | SELECT | SELECT -1 | SWAPDB 0 1 | GET k",
            "CLIENT GETNAME | CLIENT SETNAME me | CLIENT GETNAME | CLIENT | CLIENT NOPE",
            "AUTH secret | AUTH nobody secret | AUTH | AUTH a b c | PING",
            "HELLO 4 | HELLO x | HELLO 2 SETNAME | HELLO 3 AUTH nobody wrong | PING",
            "CLIENT SETNAME me | SELECT 2 | RESET | CLIENT GETNAME | SET k v",
            "QUIT | PING",
            "CLIENT REPLY SKIP | PING unseen | PING seen",
            "CLIENT REPLY OFF | PING unseen | CLIENT REPLY ON",
            "CLIENT REPLY OFF | SUBSCRIBE c | UNSUBSCRIBE c | CLIENT REPLY ON",
            "CLIENT REPLY SKIP | RESET | PING",
            "CLIENT NO-EVICT on | CLIENT NO-EVICT off | CLIENT TRACKING off",
        ])
        .await;
}

#[tokio::test]
async fn transactions_are_the_servers_own() {
    let twins = Twins::start().await;
    twins
        .check_all(&[
            "MULTI | SET k 1 | INCR k | GET k | EXEC",
            "MULTI | SET k 1 | DISCARD | GET k",
            "EXEC | DISCARD | MULTI | MULTI | EXEC",
            "MULTI | NOSUCHCOMMAND | SET k 1 | EXEC | PING",
            "MULTI | SET k | EXEC",
            "MULTI | LPUSH k x | GET k | EXEC",
            "MULTI | WATCH k | EXEC | WATCH | UNWATCH",
            "WATCH k | SET k changed | MULTI | GET k | EXEC",
            "WATCH k | UNWATCH | SET k changed | MULTI | GET k | EXEC",
            "MULTI | SELECT 1 | SET k in-one | EXEC | GET k | SELECT 0",
            "MULTI | BLPOP nothing 0 | EXEC",
            "MULTI | EXEC",
            "MULTI | RESET | EXEC",
            "MULTI | DISCARD x | SET k 1 | GET k | DISCARD | GET k",
            "MULTI | SET k 1 | EXEC x | GET k | WATCH k | UNWATCH x",
        ])
        .await;
}

#[tokio::test]
async fn scripts_blocking_and_subscriptions_are_the_servers_own() {
    let twins = Twins::start().await;
    twins
        .check_all(&[
            "",
            "",
            "EVALSHA 0123456789012345678901234567890123456789 0 | SCRIPT EXISTS a | SCRIPT",
            "",
            "BLPOP nothing 0.05 | BLPOP nothing x | BLPOP | PING",
            "LPUSH l a | BLPOP l 1 | BRPOP l 0.05 | BLMOVE l m LEFT RIGHT 0.05",
            "XADD x 1-1 f v | XREAD COUNT 1 BLOCK 50 STREAMS x 1-1 | BZPOPMIN z 0.05",
            "SUBSCRIBE a b | UNSUBSCRIBE a | GET k | PUNSUBSCRIBE | UNSUBSCRIBE | GET k",
            "PSUBSCRIBE a* | PING | PUNSUBSCRIBE a* | PING",
            "UNSUBSCRIBE | PUBLISH nobody hears | PUBSUB NUMSUB a | PUBSUB CHANNELS",
            "SSUBSCRIBE s | SUNSUBSCRIBE s | SPUBLISH s x",
        ])
        .await;
}

#[tokio::test]
async fn the_slow_log_names_who_ran_a_command_on_a_connection_of_its_own() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let (mut named, mut other) = (client(&proxy).await, client(&proxy).await);
    let run = async |wire: &mut Wire, line: &str| wire.run(line).await.unwrap();
    run(&mut named, "CLIENT SETNAME me").await;
    run(&mut named, "CONFIG SET slowlog-log-slower-than 0").await;
    run(&mut named, "COMMAND LIST").await;
    // The same connection, from the pool.
    run(&mut other, "MEMORY STATS").await;
    run(&mut named, "CONFIG SET slowlog-log-slower-than -1").await;
    let log = run(&mut named, "SLOWLOG GET -1").await;
    let name_of = |first: &str| {
        let ran = |entry: &&Value| entry.items()[3].items()[0] == Value::bulk(first);
        log.items().iter().find(ran).unwrap().items()[5].text()
    };
    assert_eq!(
        (name_of("COMMAND"), name_of("MEMORY")),
        ("me".into(), "".into())
    );
}

/// A monitor's own connection is made before it begins to see, on every master, and the trial of
/// others is left out.
#[tokio::test]
async fn a_monitor_sees_nothing_of_how_connections_were_made() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let (mut monitor, mut writing) = (client(&proxy).await, client(&proxy).await);
    for line in ["HELLO 3 SETNAME me", "SELECT 1", "MONITOR"] {
        let reply = monitor.run(line).await.unwrap();
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
    }
    for round in 1..=3 {
        let marker = format!("marker-{round}");
        assert!(writing.call(&["SET", "k", &marker]).await.unwrap().ok());
        loop {
            let line = monitor.reply().await.unwrap().text();
            let greets = ["\"HELLO\"", "\"SELECT\"", "\"me\"", "\"MONITOR\""];
            assert!(!greets.iter().any(|word| line.contains(word)), "{line}");
            // A replica that comes to a new master asks so too.
            assert!(round > 1 || !line.contains("\"PING\""), "{line}");
            if line.contains(&marker) {
                break;
            }
        }
        let report = switchover(&proxy, &shard.addr(round % 2)).await;
        assert_eq!(report.outcome, "switched", "{report:?}");
        shard.in_sync(&shard.addr(round % 2)).await;
    }
}

#[tokio::test]
async fn a_user_who_may_not_select_stays_in_its_database() {
    let twins = Twins::start().await;
    twins
        .check_all(&[
            "ACL SETUSER low on >pw ~* +@all -select | SELECT 3 | SET k three | AUTH low pw | GET k",
            "SELECT 3 | AUTH low pw | GET k | SELECT 0 | BLPOP none 0.01 | MULTI | GET k | EXEC",
        ])
        .await;
}

#[tokio::test]
async fn a_reply_may_nest_as_deep_as_a_script_makes_it() {
    let twins = Twins::start().await;
    let mut input = Vec::new();
    let endless = "local a = {}; local b = {a}; a[1] = b; return a";
    let deep = "local a = {1}; for i = 1, 500 do a = {a, i} end; return a";
    for script in [endless, deep] {
        put_request(&mut input, &["EVAL", script, "0"]);
    }
    twins.check(&input).await;
}

#[tokio::test]
async fn inline_commands_and_oddities_are_read_as_the_server_reads_them() {
    let twins = Twins::start().await;
    let inputs: &[&[u8]] = &[
        b"PING\r\n",
        b"PING\n",
        b"  PING   hello  \r\n",
        b"SET k \"a b\\x41\\n\"\r\nGET k\r\n",
        b"SET k 'a \\' b'\r\nGET k\r\n",
        b"\r\n\r\nPING\r\n",
        b"*0\r\n*-1\r\nPING\r\n",
        b"*1\r\n$4\r\nPING\r\nPING inline\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
        b"*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$3\r\n\x00\xff\n\r\n*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n",
        b"*1\r\n$0\r\n\r\n",
        b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n",
        b"\n\n\nPING\n\r\n",
        b"*0\r\n*0\r\n*-5\r\n\r\n*1\r\n$4\r\nPING\r\n*0\r\n",
        b"*2\r\n$3\r\nSET\r\n$1\r\nk\r\n*0\r\n\r\nGET k\r\n",
        b"MULTI\r\n*0\r\n\r\nSET in 1\r\n*0\r\nEXEC\r\nGET in\r\n",
        b"SUBSCRIBE c\r\n\r\n*0\r\nPING\r\nUNSUBSCRIBE\r\n*0\r\nPING\r\n",
        b"   \r\n \r\nPING\r\n",
        b"EVAL \"return {1,'two',{3}}\" 0\r\n",
        b"SET inline 1\r\nINCR inline\r\nQUIT\r\n",
    ];
    for input in inputs {
        twins.check(input).await;
    }
}

#[tokio::test]
async fn protocol_errors_are_answered_and_the_connection_closed_as_by_the_server() {
    let twins = Twins::start().await;
    let inputs: &[&[u8]] = &[
        b"*a\r\n",
        b"*99999999999999999999\r\n",
        b"*2147483648\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n:4\r\n",
        b"*1\r\n$a\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$-5\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*1\r\n$+4\r\nPING\r\n",
        b"*+1\r\n$4\r\nPING\r\n",
        b"SET k \"unbalanced\r\n",
        b"SET k 'unbalanced\r\n",
        b"SET k \"a\"b\r\n",
        b"*1\r\n$4\r\nPING\r\n*1\r\nwrong\r\n",
        b"*2\r\n$3\r\nGET\r\n$x\r\n",
        b"*2\r\n$3\r\nGET\r\n$536870913\r\n",
    ];
    for input in inputs {
        twins.check(input).await;
    }
    let mut endless_header = b"*".to_vec();
    endless_header.resize(100_000, b'1');
    twins.check(&endless_header).await;
    let endless_line = vec![b'x'; 100_000];
    twins.check(&endless_line).await;
}

#[tokio::test]
async fn bytes_of_other_protocols_are_answered_as_by_the_server() {
    let twins = Twins::start().await;
    // Without NUL: Redis waits for ever for the end of a line in which there is one.
    let garbage: Vec<u8> = (0..2000u32).map(|at| (1 + at * at % 251) as u8).collect();
    let inputs: &[&[u8]] = &[
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\nSET pwned 1\r\n",
        b"host: a\r\nSET pwned 1\r\n",
        b"*2\r\n$4\r\nPOST\r\n$1\r\n/\r\nSET pwned 1\r\n",
        b"\x16\x03\x01\x01\xc8\x01\x02\x03\xc4\x03\x03\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &b"*1\r\n".repeat(20_000),
        &garbage,
    ];
    for input in inputs {
        twins.check(input).await;
    }
    // The answer to the first line is given or not, by what the server read at once.
    let behind_others: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nSET pwned 1\r\n",
        b"MULTI\r\nPOST / HTTP/1.1\r\nSET pwned 1\r\nEXEC\r\n",
        b"SUBSCRIBE c\r\nPOST / HTTP/1.1\r\nUNSUBSCRIBE\r\nSET pwned 1\r\n",
        b"CLIENT REPLY OFF\r\nHost: a\r\nSET pwned 1\r\n",
    ];
    for input in behind_others {
        let (_, ending) = exchange(&twins.proxy.addr, input).await;
        assert_eq!(ending, Ending::Closed);
    }
    twins.check(b"EXISTS pwned\r\n").await;
}

#[tokio::test]
async fn a_long_pipeline_is_answered_in_order() {
    let twins = Twins::start().await;
    let mut input = Vec::new();
    for number in 0..3000 {
        let key = format!("k{}", number % 7);
        put_request(&mut input, &["SET", &key, &number.to_string()]);
        put_request(&mut input, &["GET", &key]);
        if number % 500 == 0 {
            for line in [
                "MULTI",
                "INCR k1",
                "EXEC",
                "BLPOP none 0.01",
                "CLIENT GETNAME",
                "NOPE",
            ] {
                put_request(&mut input, &line.split(' ').collect::<Vec<_>>());
            }
        }
    }
    twins.check(&input).await;
}

/// The client reads nothing until it has written everything, as most libraries do with a pipeline.
#[tokio::test]
async fn a_pipeline_of_a_hundred_thousand_commands_is_answered_in_order() {
    let twins = Twins::start().await;
    let value = "v".repeat(200);
    let mut input = Vec::new();
    for number in 0..50_000 {
        let key = format!("k{}", number % 97);
        put_request(&mut input, &["SET", &key, &format!("{value}{number}")]);
        put_request(&mut input, &["GET", &key]);
    }
    twins.check(&input).await;
}

/// As large as servers take it; in pieces, so that neither end keeps it twice.
#[tokio::test]
async fn the_largest_value_passes_in_both_directions() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 512;
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut stream = TcpStream::connect(&proxy.addr).await.unwrap();
    let piece = |number: usize| vec![b'a' + (number % 26) as u8; PIECE];
    let head = format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n", PIECE * PIECES);
    stream.write_all(head.as_bytes()).await.unwrap();
    for number in 0..PIECES {
        stream.write_all(&piece(number)).await.unwrap();
    }
    stream.write_all(b"\r\n").await.unwrap();
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"+OK\r\n");
    stream.write_all(b"GET big\r\n").await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head, *format!("${}\r\n", PIECE * PIECES).as_bytes());
    let mut arrived = vec![0; PIECE];
    for number in 0..PIECES {
        stream.read_exact(&mut arrived).await.unwrap();
        assert!(arrived == piece(number), "piece {number} is another");
    }
    let mut end = [0; 2];
    stream.read_exact(&mut end).await.unwrap();
    assert_eq!(&end, b"\r\n");
    stream.write_all(b"DEL big\r\n").await.unwrap();
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b":1\r\n");
}
