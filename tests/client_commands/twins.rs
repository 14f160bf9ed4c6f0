//! Replies that must be the same, byte for byte, with and without the proxy.

use std::time::Duration;

use crate::support::*;

/// Each line is one conversation: commands between bars, arguments between blanks.
async fn same_as_direct(conversations: &[&str]) {
    let (direct, proxied) = tokio::join!(Shard::redis(0), Shard::redis(0));
    let proxy = proxied.proxy().await;
    for line in conversations {
        let mut input = Vec::new();
        for command in line.split(" | ") {
            put_request(&mut input, &command.split_whitespace().collect::<Vec<_>>());
        }
        put_request(&mut input, &["PING", "last-answer"]);
        let direct = exchange(&direct.addr(0), &input).await;
        let proxied = exchange(&proxy.addr, &input).await;
        assert_eq!(proxied, direct, "proxied (left) and direct, after {line:?}");
    }
}

async fn exchange(addr: &str, input: &[u8]) -> (String, Ending) {
    const LAST: &[u8] = b"last-answer\r\n";
    let mut wire = Wire::connect(addr).await.unwrap();
    // A server that closes early may reset the connection while we still send.
    let _ = wire.send_raw(input).await;
    let (bytes, ending) = wire.raw_until(LAST, Duration::from_millis(400)).await;
    (without_id(&String::from_utf8_lossy(&bytes)), ending)
}

/// The id that `HELLO` tells is another server's, or the proxy's.
fn without_id(text: &str) -> String {
    const KEY: &str = "$2\r\nid\r\n:";
    match text.split_once(KEY) {
        Some((before, after)) => {
            let after = after.trim_start_matches(|byte: char| byte.is_ascii_digit());
            format!("{before}{KEY}{after}")
        }
        None => text.to_owned(),
    }
}

#[tokio::test]
async fn mistakes_in_commands_about_clients_are_told_in_the_servers_words() {
    same_as_direct(&[
        "CLIENT KILL | CLIENT KILL id 10 wrong | CLIENT KILL id x | CLIENT KILL id 0",
        "CLIENT KILL TYPE wrong | CLIENT KILL USER nobody | CLIENT KILL SKIPME maybe",
        "CLIENT KILL 1.2.3.4:5 | CLIENT KILL ID 999999 | CLIENT KILL ADDR x:1 LADDR y:2",
        "CLIENT LIST TYPE wrong | CLIENT LIST ID | CLIENT LIST ID x | CLIENT LIST nope",
        "CLIENT LIST ID 999998 999999 | CLIENT LIST TYPE replica | CLIENT INFO x",
        "CLIENT UNBLOCK | CLIENT UNBLOCK x | CLIENT UNBLOCK 999999 | CLIENT UNBLOCK 1 x",
        "CLIENT SETINFO LIB-NAME x | CLIENT SETINFO | CLIENT NO-TOUCH on | CLIENT CAPA redirect",
        "CLIENT NO-EVICT | CLIENT NO-EVICT maybe | CLIENT NO-EVICT on | CLIENT NO-EVICT off",
        "CLIENT SETNAME | CLIENT SETNAME a b | CLIENT ID x | CLIENT GETNAME x",
        "CLIENT GETREDIR | CLIENT TRACKINGINFO | CLIENT TRACKINGINFO x | CLIENT REPLY x",
        "CLIENT TRACKING on | CLIENT TRACKING on REDIRECT 999999 | CLIENT TRACKINGINFO",
        "HELLO 3 | CLIENT TRACKINGINFO | CLIENT GETNAME | CLIENT GETREDIR | RESET",
        "RESET x | QUIT x | PING",
    ])
    .await;
}

#[tokio::test]
async fn session_commands_in_transactions_run_in_them() {
    same_as_direct(&[
        "MULTI | CLIENT GETNAME | CLIENT SETNAME me | CLIENT GETNAME | EXEC | CLIENT GETNAME",
        "MULTI | SELECT 5 | SET k five | GET k | EXEC | GET k | SELECT 0 | GET k",
        "MULTI | SELECT 99 | GET k | EXEC | GET k",
        "MULTI | AUTH default x | EXEC | PING",
        "MULTI | HELLO | DISCARD | PING",
        "MULTI | CLIENT SETNAME x | DISCARD | CLIENT GETNAME",
        "MULTI | CLIENT KILL ID 999999 | CLIENT KILL 1.2.3.4:5 | EXEC",
        "MULTI | CLIENT UNBLOCK 999999 | CLIENT GETREDIR | CLIENT TRACKINGINFO | EXEC",
        "MULTI | CLIENT ID x | SET k v | EXEC",
        "MULTI | MULTI | SET k nested | EXEC | GET k",
        "MULTI | WATCH k | SET k watched | EXEC | GET k",
        "MULTI | MULTI x | SET k v | EXEC",
        "MULTI | RESET x | SET k v | EXEC",
        "MULTI | CLIENT NO-EVICT on | EXEC | PING",
        "WATCH k | MULTI | CLIENT GETNAME | EXEC | GET k",
        "HELLO 3 SETNAME me | MULTI | CLIENT GETNAME | CLIENT TRACKINGINFO | EXEC",
    ])
    .await;
}

/// Servers announce one reply for each command, and send more or fewer.
#[tokio::test]
async fn subscriptions_and_reply_modes_in_transactions_are_the_servers_own() {
    let conversations = [
        "MULTI | SUBSCRIBE a b | PUBLISH a x | PING | EXEC | PING | UNSUBSCRIBE b a | PING",
        "MULTI | SUBSCRIBE a | PSUBSCRIBE p* | SSUBSCRIBE s | UNSUBSCRIBE | PUNSUBSCRIBE no \
         | SUNSUBSCRIBE | SET k v | EXEC | PING | GET k",
        "SUBSCRIBE a | UNSUBSCRIBE a | MULTI | UNSUBSCRIBE | SUBSCRIBE a a | EXEC | UNSUBSCRIBE a",
        "MULTI | SUBSCRIBE a | DISCARD | GET k | MULTI | SUBSCRIBE | EXEC | PING",
        "WATCH k | SET k w | MULTI | SUBSCRIBE a | CLIENT REPLY OFF | EXEC | GET k",
        "MULTI | SUBSCRIBE a | NOSUCHCOMMAND | EXEC | GET k",
        "MULTI | SUBSCRIBE a | CLIENT SETNAME me | SELECT 1 | CLIENT GETNAME | EXEC | PING",
        "DEL l | RPUSH l message a x | MULTI | SUBSCRIBE a | LRANGE l 0 -1 | EXEC | UNSUBSCRIBE a",
        "DEL l | RPUSH l message a x | MULTI | SUBSCRIBE a | LPOP l 3 | PUBLISH a y | EXEC | PING",
        "MULTI | SUBSCRIBE a | EVAL return{'message','b','x'} 0 | EXEC | PING",
        "MULTI | SUBSCRIBE a | EVAL return{'message','a','x','y'} 0 | EXEC | PING",
        "MULTI | PSUBSCRIBE a | EVAL return{'pmessage','a','x'} 0 | PUBLISH a y | EXEC | PING",
        "CONFIG SET notify-keyspace-events KEA | DEL l | RPUSH l a b | MULTI \
         | SUBSCRIBE __keyevent@0__:lpop | LPOP l 1 | EXEC | PING",
        "CONFIG SET notify-keyspace-events KEA | DEL l | RPUSH l a b | MULTI \
         | PSUBSCRIBE __keyevent@0__:l* | LPOP l 1 | EXEC | PING",
        "MULTI | SET k v | CLIENT REPLY OFF | SET k w | SUBSCRIBE a | EXEC | CLIENT REPLY ON \
         | UNSUBSCRIBE a | CLIENT REPLY ON",
        "MULTI | SET k v | CLIENT REPLY SKIP | SET k w | EXEC | PING skipped | PING",
        "CLIENT REPLY OFF | MULTI | SET k v | CLIENT REPLY ON | SET k w | EXEC | PING",
        "CLIENT REPLY SKIP | MULTI | CLIENT REPLY ON | EXEC | PING",
        "MULTI | CLIENT REPLY SKIP | CLIENT REPLY ON | EXEC | PING skipped | PING",
        "MULTI | CLIENT REPLY OFF | CLIENT REPLY ON | GET k | EXEC | PING",
        "MULTI | SET k v | CLIENT REPLY FOO | CLIENT REPLY ON | EXEC | PING",
        "MULTI | CLIENT REPLY | EXEC | MULTI | CLIENT REPLY OFF | DISCARD | PING",
        "SUBSCRIBE a | CLIENT REPLY OFF | CLIENT REPLY x | CLIENT REPLY | PING",
        "SUBSCRIBE a | MULTI | PUBLISH a x | PUBLISH a y | EXEC | PING",
        "MULTI | SUBSCRIBE a | EXEC | MULTI | PUBLISH a x | GET k | EXEC | UNSUBSCRIBE a | GET k",
    ];
    same_as_direct(&conversations).await;
    let modern = conversations.map(|line| format!("HELLO 3 | {line}"));
    same_as_direct(&modern.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn in_resp3_an_array_that_begins_like_a_message_is_none() {
    same_as_direct(&[
        "HELLO 3 | DEL l | RPUSH l message a x | SUBSCRIBE a | LRANGE l 0 -1 | UNSUBSCRIBE a | GET k",
        "HELLO 3 | DEL l | RPUSH l subscribe a 1 | SUBSCRIBE a | LRANGE l 0 -1 | UNSUBSCRIBE a",
    ])
    .await;
}

#[tokio::test]
async fn a_session_may_be_changed_while_it_subscribes_or_tracks() {
    same_as_direct(&[
        "SUBSCRIBE c | SELECT 1 | AUTH x | HELLO 3 | CLIENT ID | UNSUBSCRIBE c | SELECT 1",
        "CLIENT REPLY SKIP | CLIENT GETNAME | CLIENT GETNAME",
        "CLIENT REPLY OFF | CLIENT SETNAME me | SELECT 1 | CLIENT REPLY ON | CLIENT GETNAME",
        "CLIENT TRACKING on | SELECT 2 | GET k | SET k v | SELECT 0 | CLIENT GETREDIR",
    ])
    .await;
}

#[tokio::test]
async fn a_blank_line_uses_up_the_reply_that_is_to_be_skipped() {
    let (direct, proxied) = tokio::join!(Shard::redis(0), Shard::redis(0));
    let proxy = proxied.proxy().await;
    for blank in ["\r\n", "*0\r\n"] {
        let input = format!("CLIENT REPLY SKIP\r\n{blank}PING seen\r\nPING last-answer\r\n");
        let direct = exchange(&direct.addr(0), input.as_bytes()).await;
        let proxied = exchange(&proxy.addr, input.as_bytes()).await;
        assert_eq!(proxied, direct, "{blank:?}");
        assert!(proxied.0.contains("seen"), "{proxied:?}");
    }
}

#[tokio::test]
async fn the_id_in_a_transaction_is_the_clients_own() {
    let shard = Shard::redis(0).await;
    let proxy = shard.proxy().await;
    let mut one = client(&proxy).await;
    let id = one.run("CLIENT ID").await.unwrap();
    assert!(one.run("MULTI").await.unwrap().ok());
    for command in ["CLIENT ID", "SET k v", "CLIENT INFO", "HELLO"] {
        assert_eq!(one.run(command).await.unwrap().text(), "QUEUED");
    }
    let replies = one.run("EXEC").await.unwrap();
    assert_eq!(replies.items()[0], id);
    let shown = format!("id={} addr={} ", id.text(), one.local_addr().unwrap());
    assert!(replies.items()[2].text().starts_with(&shown), "{replies:?}");
    assert!(replies.items()[3].items().contains(&id), "{replies:?}");
}
