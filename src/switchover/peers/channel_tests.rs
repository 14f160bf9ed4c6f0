//! Against a node that answers everything but who is connected to it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::resp::reply::{REPLY_BYTES_MAX, ReplyDecoder};

/// For what is to happen.
const SOON: Duration = Duration::from_secs(20);
/// What a link waits for an answer; a silent one is waited for so long.
const WITHIN: Duration = Duration::from_secs(2);
const CHANNEL: &str = "__pointsman__:scripted";

/// What a node says to CLIENT LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Mute,
    TooLong,
    Broken,
}

struct Node {
    name: NodeName,
    /// Connections that have ended on which it was asked for its clients.
    given_up: watch::Receiver<usize>,
    /// Closes all connections.
    cut: watch::Sender<()>,
    _accepting: JoinSet<()>,
}

impl Node {
    async fn start(list: List) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string().into();
        let (ended, given_up) = watch::channel(0);
        let cut = watch::Sender::new(());
        let cuts = cut.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let (ended, mut open) = (Arc::new(ended), JoinSet::new());
            for id in 1.. {
                let (client, _) = listener.accept().await.unwrap();
                let (ended, mut cut) = (ended.clone(), cuts.subscribe());
                open.spawn(async move {
                    let mut listed = false;
                    tokio::select! {
                        _ = serve(client, id, list, &mut listed) => {}
                        _ = cut.changed() => return,
                    }
                    ended.send_modify(|count| *count += usize::from(listed));
                });
            }
        });
        Node {
            name,
            given_up,
            cut,
            _accepting: accepting,
        }
    }

    async fn given_up(&self, least: usize) {
        let mut given_up = self.given_up.clone();
        let ended = given_up.wait_for(|count| *count >= least);
        timeout(SOON, ended).await.unwrap().unwrap();
    }
}

/// One connection.
async fn serve(
    mut client: TcpStream,
    id: usize,
    list: List,
    listed: &mut bool,
) -> std::io::Result<()> {
    let mut asked = ReplyDecoder::default();
    loop {
        // A request is framed like a reply.
        let Some(request) = asked.next_value().unwrap() else {
            if client.read_buf(asked.buffer()).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let words: Option<Vec<&str>> = request.items().unwrap().iter().map(Value::text).collect();
        let answer = match words.unwrap().as_slice() {
            ["CLIENT", "ID"] => format!(":{id}\r\n"),
            ["CLIENT", "LIST", ..] => {
                *listed = true;
                match list {
                    List::Mute => continue,
                    List::TooLong => {
                        format!("${}\r\n", REPLY_BYTES_MAX + 1) + &"x".repeat(REPLY_BYTES_MAX + 1)
                    }
                    List::Broken => return Ok(()),
                }
            }
            ["PUBSUB", ..] => format!("*2\r\n${}\r\n{CHANNEL}\r\n:2\r\n", CHANNEL.len()),
            ["SUBSCRIBE", ..] => "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n".to_owned(),
            ["PING", ..] => "+PONG\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        client.write_all(answer.as_bytes()).await?;
    }
}

/// The link to a node breaks for no list: neither for that of a census nor for that of older
/// listeners.
async fn check(list: List) {
    let nodes = [Node::start(list).await, Node::start(list).await];
    let names = nodes.each_ref().map(|node| node.name.clone());
    let peers = Peers::of("scripted", &names).unwrap();
    let (credentials, stop) = (Credentials::default(), CancellationToken::new());
    let _stops = stop.clone().drop_guard();
    let _heard = peers.run(peers.links().unwrap(), &credentials, WITHIN, &stop);
    let [node, _] = &nodes;
    let counted = async || peers.ask(0, vec![peers.count()]).await;

    peers.ready(&node.name, SOON).await.unwrap();
    let mut state = peers.links[0].state.subscribe();
    state.mark_unchanged();
    assert_eq!(peers.census(&node.name, &credentials, WITHIN).await, None);
    node.given_up(1).await;
    assert!(counted().await.is_some(), "{list:?}");
    assert!(!state.has_changed().unwrap(), "{list:?}: {state:?}");

    node.cut.send_replace(());
    let cut = state.wait_for(|state| *state != State::Up);
    timeout(SOON, cut).await.unwrap().unwrap();
    peers.ready(&node.name, SOON).await.unwrap();
    state.mark_unchanged();
    node.given_up(2).await;
    assert!(counted().await.is_some(), "{list:?}");
    assert!(!state.has_changed().unwrap(), "{list:?}: {state:?}");
}

#[tokio::test]
async fn a_list_that_does_not_come_breaks_no_link() {
    check(List::Mute).await;
}

#[tokio::test]
async fn nor_does_one_that_is_too_long() {
    check(List::TooLong).await;
}

#[tokio::test]
async fn nor_one_that_ends_the_connection() {
    check(List::Broken).await;
}
