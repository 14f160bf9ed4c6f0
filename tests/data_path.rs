//! What clients send and get: as if they were connected to the server itself.

mod support;

use std::time::Duration;

use support::*;

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

    /// Arguments split at blanks.
    async fn check_all(&self, conversations: &[&[&str]]) {
        for lines in conversations {
            let mut input = Vec::new();
            for line in *lines {
                put_request(&mut input, &line.split_whitespace().collect::<Vec<_>>());
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
    let mut all = Vec::new();
    loop {
        let (bytes, ending) = wire.raw_until_quiet(Duration::from_millis(400)).await;
        all.extend_from_slice(&bytes);
        if ending == Ending::Closed || bytes.is_empty() || all.ends_with(LAST) {
            return (all, ending);
        }
    }
}

#[tokio::test]
async fn plain_commands_and_their_errors_are_the_servers_own() {
    let twins = Twins::start().await;
    twins
        .check_all(&[
            &["PING", "PING hello", "ping", "PiNg", "ECHO x"],
            &["SET k v", "GET k", "GET nothing", "DEL k", "EXISTS k"],
            &[
                "SET k v EX 100 NX",
                "TTL k",
                "PTTL nothing",
                "SET k w NX",
                "GET k",
                "GETDEL k",
            ],
            &["SET", "GET", "GET a b", "SET k v WRONG", "INCR"],
            &[
                "SET n ten",
                "INCR n",
                "INCRBY n x",
                "SET n 41",
                "INCR n",
                "DECRBY n 2",
            ],
            &[
                "LPUSH l a b c",
                "LRANGE l 0 -1",
                "GET l",
                "LPOP l 2",
                "LLEN l",
            ],
            &[
                "HSET h a 1 b 2",
                "HGETALL h",
                "HGET h a",
                "HMGET h a c",
                "HINCRBY h a 5",
            ],
            &[
                "ZADD z 1 a 2 b",
                "ZRANGE z 0 -1 WITHSCORES",
                "ZSCORE z a",
                "ZADD z x y",
            ],
            &["SADD s a", "SISMEMBER s a", "SMEMBERS s", "SINTERCARD 1 s"],
            &[
                "XADD x 1-1 f v",
                "XRANGE x - +",
                "XLEN x",
                "XADD x 1-1 f v",
                "XREAD STREAMS x 0",
            ],
            &[
                "MSET a 1 b 2",
                "MGET a b c",
                "APPEND a x",
                "STRLEN a",
                "GETRANGE a 0 0",
            ],
            &[
                "PFADD p a b",
                "PFCOUNT p",
                "BITCOUNT a",
                "GETBIT a 1",
                "SETBIT a 1 1",
            ],
            &[
                "NOSUCHCOMMAND",
                "NOSUCHCOMMAND with arguments",
                "GET",
                "OBJECT",
                "OBJECT ENCODING a",
            ],
            &[
                "TYPE a",
                "EXPIRE a 100",
                "PERSIST a",
                "RENAME a c",
                "RENAME none d",
                "COPY c e",
            ],
            &[
                "SCAN 0 COUNT 1000",
                "DBSIZE",
                "KEYS *",
                "FLUSHALL",
                "DBSIZE",
                "RANDOMKEY",
            ],
            &[
                "CONFIG GET maxmemory",
                "CONFIG GET",
                "COMMAND COUNT",
                "MEMORY USAGE nothing",
            ],
            &[
                "SORT nothing",
                "WAIT 0 0",
                "LASTSAVE x",
                "DEBUG",
                "OBJECT FREQ nothing",
            ],
        ])
        .await;
}

#[tokio::test]
async fn sessions_keep_their_state_as_on_a_server() {
    let twins = Twins::start().await;
    twins
        .check_all(&[
            &["SELECT 1", "SET k one", "GET k", "SELECT 0", "GET k"],
            &[
                "SELECT 16",
                "SELECT x",
                "SELECT",
                "SELECT -1",
                "SWAPDB 0 1",
                "GET k",
            ],
            &[
                "CLIENT GETNAME",
                "CLIENT SETNAME me",
                "CLIENT GETNAME",
                "CLIENT",
                "CLIENT NOPE",
            ],
            &[
                "AUTH secret",
                "AUTH nobody secret",
                "AUTH",
                "AUTH a b c",
                "PING",
            ],
            &[
                "HELLO 4",
                "HELLO x",
                "HELLO 2 SETNAME",
                "HELLO 3 AUTH nobody wrong",
                "PING",
            ],
            &[
                "CLIENT SETNAME me",
                "SELECT 2",
                "RESET",
                "CLIENT GETNAME",
                "SET k v",
            ],
            &["QUIT", "PING"],
            &["CLIENT REPLY SKIP", "PING unseen", "PING seen"],
            &["CLIENT REPLY OFF", "PING unseen", "CLIENT REPLY ON"],
            &[
                "CLIENT NO-EVICT on",
                "CLIENT NO-EVICT off",
                "CLIENT TRACKING off",
            ],
        ])
        .await;
}

#[tokio::test]
async fn transactions_are_the_servers_own() {
    let twins = Twins::start().await;
    twins
        .check_all(&[
            &["MULTI", "SET k 1", "INCR k", "GET k", "EXEC"],
            &["MULTI", "SET k 1", "DISCARD", "GET k"],
            &["EXEC", "DISCARD", "MULTI", "MULTI", "EXEC"],
            &["MULTI", "NOSUCHCOMMAND", "SET k 1", "EXEC", "PING"],
            &["MULTI", "SET k", "EXEC"],
            &["MULTI", "LPUSH k x", "GET k", "EXEC"],
            &["MULTI", "WATCH k", "EXEC", "WATCH", "UNWATCH"],
            &["WATCH k", "SET k changed", "MULTI", "GET k", "EXEC"],
            &[
                "WATCH k",
                "UNWATCH",
                "SET k changed",
                "MULTI",
                "GET k",
                "EXEC",
            ],
            &[
                "MULTI",
                "SELECT 1",
                "SET k in-one",
                "EXEC",
                "GET k",
                "SELECT 0",
            ],
            &["MULTI", "SUBSCRIBE c", "EXEC"],
            &["MULTI", "BLPOP nothing 0", "EXEC"],
            &["MULTI", "EXEC"],
            &["MULTI", "RESET", "EXEC"],
        ])
        .await;
}

#[tokio::test]
async fn scripts_blocking_and_subscriptions_are_the_servers_own() {
    let twins = Twins::start().await;
    twins
        .check_all(&[
            &[
                "EVAL return{1,KEYS[1],ARGV[1]} 1 k v",
                "EVAL nonsense( 0",
                "EVAL",
                "EVAL x y",
            ],
            &[
                "EVAL return(redis.call('incr',KEYS[1])) 1 n",
                "EVAL_RO return(1) 0",
            ],
            &[
                "EVALSHA 0123456789012345678901234567890123456789 0",
                "SCRIPT EXISTS a",
                "SCRIPT",
            ],
            &[
                "EVAL_RO return(redis.call('incr',KEYS[1])) 1 n",
                "FCALL nothing 0",
            ],
            &["BLPOP nothing 0.05", "BLPOP nothing x", "BLPOP", "PING"],
            &[
                "LPUSH l a",
                "BLPOP l 1",
                "BRPOP l 0.05",
                "BLMOVE l m LEFT RIGHT 0.05",
            ],
            &[
                "XADD x 1-1 f v",
                "XREAD COUNT 1 BLOCK 50 STREAMS x 1-1",
                "BZPOPMIN z 0.05",
            ],
            &[
                "SUBSCRIBE a b",
                "UNSUBSCRIBE a",
                "GET k",
                "PUNSUBSCRIBE",
                "UNSUBSCRIBE",
                "GET k",
            ],
            &["PSUBSCRIBE a*", "PING", "PUNSUBSCRIBE a*", "PING"],
            &[
                "UNSUBSCRIBE",
                "PUBLISH nobody hears",
                "PUBSUB NUMSUB a",
                "PUBSUB CHANNELS",
            ],
            &["SSUBSCRIBE s", "SUNSUBSCRIBE s", "SPUBLISH s x"],
        ])
        .await;
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
    ];
    for input in inputs {
        twins.check(input).await;
    }
    let mut endless_header = b"*".to_vec();
    endless_header.resize(70_000, b'1');
    twins.check(&endless_header).await;
    let endless_line = vec![b'x'; 70_000];
    twins.check(&endless_line).await;
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

#[tokio::test]
async fn a_request_may_arrive_in_any_pieces() {
    let twins = Twins::start().await;
    let mut input = Vec::new();
    put_request(&mut input, &["SET", "k", "some value"]);
    put_request(&mut input, &["GET", "k"]);
    for size in [1, 2, 3, 7] {
        let mut wire = client(&twins.proxy).await;
        for piece in input.chunks(size) {
            wire.send_raw(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(wire.reply().await.unwrap().ok());
        assert_eq!(wire.reply().await.unwrap(), Value::bulk("some value"));
    }
    twins.check(&input).await;
}

#[tokio::test]
async fn half_a_request_disturbs_nobody_else() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut half = client(&proxy).await;
    half.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nonly a part")
        .await
        .unwrap();
    let mut other = client(&proxy).await;
    assert!(other.run("SET other 1").await.unwrap().ok());
    drop(half);
    assert_eq!(other.run("GET k").await.unwrap(), Value::Null);
}

#[tokio::test]
async fn a_value_of_100_mb_goes_there_and_back() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let value: Vec<u8> = (0..100_000_000u32).map(|at| (at % 251) as u8).collect();
    let mut wire = client(&proxy).await.with_deadline(Duration::from_secs(60));
    let reply = wire
        .call(&[b"SET".as_slice(), b"big", value.as_slice()])
        .await
        .unwrap();
    assert!(reply.ok(), "{reply:?}");
    let mut other = client(&proxy).await;
    wire.send(&["GET", "big"]).await.unwrap();
    // The large reply is on its way and nobody reads it yet; others are served meanwhile.
    assert!(other.run("SET small 1").await.unwrap().ok());
    let back = wire.reply().await.unwrap();
    assert!(back == Value::Bulk(value), "the value came back changed");
}

#[tokio::test]
async fn hello_3_speaks_resp3_and_hello_2_goes_back() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut wire = client(&proxy).await;
    let greeting = wire.run("HELLO 3 SETNAME modern").await.unwrap();
    let texts: Vec<String> = greeting.items().iter().map(Value::text).collect();
    let proto = texts
        .iter()
        .position(|text| text == "proto")
        .expect("a proto field");
    assert_eq!(texts[proto + 1], "3");
    wire.run("HSET h a 1").await.unwrap();
    wire.send(&["HGETALL", "h"]).await.unwrap();
    let (map, _) = wire.raw_until_quiet(Duration::from_millis(200)).await;
    assert_eq!(map, b"%1\r\n$1\r\na\r\n$1\r\n1\r\n");
    assert_eq!(
        wire.run("CLIENT GETNAME").await.unwrap(),
        Value::bulk("modern")
    );
    wire.run("HELLO 2").await.unwrap();
    wire.send(&["HGETALL", "h"]).await.unwrap();
    let (list, _) = wire.raw_until_quiet(Duration::from_millis(200)).await;
    assert_eq!(list, b"*2\r\n$1\r\na\r\n$1\r\n1\r\n");
}

#[tokio::test]
async fn subscribers_of_both_protocols_hear_what_is_published() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut plain = client(&proxy).await;
    let mut modern = client(&proxy).await;
    modern.run("HELLO 3").await.unwrap();
    for wire in [&mut plain, &mut modern] {
        wire.run("SUBSCRIBE news").await.unwrap();
    }
    let mut publisher = client(&proxy).await;
    assert_eq!(
        publisher.run("PUBLISH news hello").await.unwrap(),
        Value::Int(2)
    );
    let message = Value::Array(["message", "news", "hello"].map(Value::bulk).to_vec());
    assert_eq!(plain.reply().await.unwrap(), message);
    assert_eq!(modern.reply().await.unwrap(), message);
    // In RESP3 a subscriber may run other commands.
    assert!(modern.run("SET k v").await.unwrap().ok());
}

#[tokio::test]
async fn a_blocked_pop_is_woken_by_another_client() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut popper = client(&proxy).await;
    popper.send(&["BLPOP", "queue", "15"]).await.unwrap();
    assert_eq!(
        client(&proxy).await.run("RPUSH queue job").await.unwrap(),
        Value::Int(1)
    );
    let expected = Value::Array(["queue", "job"].map(Value::bulk).to_vec());
    assert_eq!(popper.reply().await.unwrap(), expected);
}

#[tokio::test]
async fn credentials_are_checked_by_the_server_and_kept_apart() {
    let shard = Shard::redis(0).await;
    let mut admin = shard.wire(0).await;
    for user in ["alice on >one ~a:* +@all", "bob on >two ~b:* +get"] {
        assert!(
            admin
                .run(&format!("ACL SETUSER {user}"))
                .await
                .unwrap()
                .ok()
        );
    }
    let proxy = shard.proxy().await;
    let (mut alice, mut bob) = (client(&proxy).await, client(&proxy).await);
    let wrong = alice.run("AUTH alice two").await.unwrap().text();
    assert!(wrong.starts_with("WRONGPASS"), "{wrong}");
    assert!(alice.run("AUTH alice one").await.unwrap().ok());
    assert!(bob.run("AUTH bob two").await.unwrap().ok());
    assert!(alice.run("SET a:k v").await.unwrap().ok());
    assert!(
        alice
            .run("SET b:k v")
            .await
            .unwrap()
            .text()
            .starts_with("NOPERM")
    );
    assert!(
        bob.run("SET b:k v")
            .await
            .unwrap()
            .text()
            .starts_with("NOPERM")
    );
    assert!(
        bob.run("GET a:k")
            .await
            .unwrap()
            .text()
            .starts_with("NOPERM")
    );
    assert_eq!(bob.run("GET b:k").await.unwrap(), Value::Null);
    assert_eq!(alice.run("ACL WHOAMI").await.unwrap(), Value::bulk("alice"));
}

#[tokio::test]
async fn a_server_that_wants_a_password_wants_it_from_clients_of_the_proxy_too() {
    let shard = Shard::redis(0).await;
    shard
        .wire(0)
        .await
        .run("CONFIG SET requirepass secret")
        .await
        .unwrap();
    let settings = Settings {
        shard: "password = \"secret\"".into(),
        ..Settings::default()
    };
    let proxy = shard.proxy_with(settings).await;
    let mut wire = client(&proxy).await;
    assert!(
        wire.run("GET k")
            .await
            .unwrap()
            .text()
            .starts_with("NOAUTH")
    );
    assert!(
        wire.run("AUTH wrong")
            .await
            .unwrap()
            .text()
            .starts_with("WRONGPASS")
    );
    assert!(wire.run("AUTH secret").await.unwrap().ok());
    assert!(wire.run("SET k v").await.unwrap().ok());
}

#[tokio::test]
async fn each_client_has_an_id_of_its_own_that_stays() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let (mut one, mut two) = (client(&proxy).await, client(&proxy).await);
    let id = one.run("CLIENT ID").await.unwrap();
    assert_ne!(id, two.run("CLIENT ID").await.unwrap());
    one.run("MULTI").await.unwrap();
    one.run("EXEC").await.unwrap();
    assert_eq!(one.run("CLIENT ID").await.unwrap(), id);
}

#[tokio::test]
async fn one_client_past_the_limit_is_told_so_and_the_others_stay() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy_with(proxy_settings("clients_max = 5")).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut wire = client(&proxy).await;
        wire.run("PING").await.unwrap();
        clients.push(wire);
    }
    let mut sixth = client(&proxy).await;
    let (answer, ending) = sixth.raw_until_quiet(Duration::from_secs(5)).await;
    assert_eq!(
        String::from_utf8_lossy(&answer),
        "-ERR max number of clients reached\r\n"
    );
    assert_eq!(ending, Ending::Closed);
    for wire in &mut clients {
        assert_eq!(
            wire.run("PING").await.unwrap(),
            Value::Simple("PONG".into())
        );
    }
    drop(clients.pop());
    wait_until("the free place is given away", async || {
        client(&proxy)
            .await
            .run("PING")
            .await
            .is_ok_and(|reply| reply.text() == "PONG")
    })
    .await;
}

#[tokio::test]
async fn a_request_at_a_limit_is_served_and_one_past_it_refused() {
    let shard = Shard::redis(0).await;
    let lines = "inline_bytes_max = 1024\nbulk_bytes_max = 1000\nelements_max = 10";
    let proxy = shard.proxy_with(proxy_settings(lines)).await;
    let mut wire = client(&proxy).await;
    let (fits, too_long) = ("x".repeat(1000), "x".repeat(1001));
    assert!(wire.call(&["SET", "k", &fits]).await.unwrap().ok());
    let reply = wire.call(&["SET", "k", &too_long]).await.unwrap().text();
    assert_eq!(reply, "ERR Protocol error: invalid bulk length");
    let mut wire = client(&proxy).await;
    let ten = "MGET 1 2 3 4 5 6 7 8 9";
    assert_eq!(wire.run(ten).await.unwrap().items().len(), 9);
    let reply = wire.run(&format!("{ten} 10")).await.unwrap().text();
    assert_eq!(reply, "ERR Protocol error: invalid multibulk length");
    let mut wire = client(&proxy).await;
    wire.send_raw(&[b'x'; 1100]).await.unwrap();
    let reply = wire.reply().await.unwrap().text();
    assert_eq!(reply, "ERR Protocol error: too big inline request");
}

#[tokio::test]
async fn a_thousand_clients_are_served_side_by_side() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut clients = Vec::new();
    for _ in 0..1000 {
        clients.push(client(&proxy).await);
    }
    for (number, wire) in clients.iter_mut().enumerate() {
        wire.send(&["SET", &format!("k{number}"), &number.to_string()])
            .await
            .unwrap();
        wire.send(&["GET", &format!("k{number}")]).await.unwrap();
    }
    for (number, wire) in clients.iter_mut().enumerate() {
        assert!(wire.reply().await.unwrap().ok());
        assert_eq!(wire.reply().await.unwrap(), Value::bulk(number.to_string()));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_nobody_else() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut other = client(&proxy).await;
    other
        .call(&["SET", "k", &"x".repeat(100_000)])
        .await
        .unwrap();
    let mut lazy = client(&proxy).await;
    for _ in 0..100 {
        lazy.send(&["GET", "k"]).await.unwrap();
    }
    for number in 0..1000 {
        assert_eq!(other.run("INCR n").await.unwrap(), Value::Int(number + 1));
    }
    for _ in 0..100 {
        assert_eq!(lazy.reply().await.unwrap().text().len(), 100_000);
    }
}

#[tokio::test]
async fn the_client_library_most_people_use_works() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let client = redis::Client::open(format!("redis://{}/2?protocol=resp3", proxy.addr)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut pipe = redis::pipe();
    pipe.atomic().set("k", 41).ignore().incr("k", 1);
    let (number,): (i64,) = pipe.query_async(&mut connection).await.unwrap();
    assert_eq!(number, 42);
    let script = redis::Script::new("return redis.call('GET', KEYS[1])");
    let text: String = script.key("k").invoke_async(&mut connection).await.unwrap();
    assert_eq!(text, "42");
}
