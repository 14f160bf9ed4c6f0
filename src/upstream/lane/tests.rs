use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::*;
use crate::transport::Dialer;
use crate::upstream::identity::Identity;

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
const INCR: &[u8] = b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n";
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Five of them are longer than the patience with silence, and one is much shorter.
const STEP: Duration = Duration::from_millis(500);

/// What a session has been told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    delivered: Vec<u8>,
    replied: usize,
    /// Replies that will never come, and how many of them to writes.
    cut: (usize, usize),
    given_back: Vec<u8>,
}

#[derive(Debug, Default)]
struct Sink(RefCell<Told>);

impl ReplySink for Sink {
    fn deliver(&self, bytes: &[u8]) {
        self.0.borrow_mut().delivered.extend_from_slice(bytes);
    }
    fn replied(&self, _write: bool) {
        self.0.borrow_mut().replied += 1;
    }
    fn withhold(&self, _bytes: &[u8]) {}
    fn withheld(&self, _request: &[u8], _write: bool, _mute: bool) {}
    fn cut(&self, owed: usize, writes: usize) {
        self.0.borrow_mut().cut = (owed, writes);
    }
    fn lost(&self, requests: &[u8], _owed: usize, _mute: bool) {
        self.0.borrow_mut().given_back.extend_from_slice(requests);
    }
    fn flush(&self) {}
    fn mark_touched(&self) -> bool {
        true
    }
}

/// A lane, and the server at its other end.
async fn lane() -> (Rc<Lane<Sink>>, LaneTask<Sink>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = listener.local_addr().unwrap().to_string();
    let (dialer, nobody) = (Dialer::default(), Identity::default());
    let dialled = Connection::dial(&dialer, &node, &nobody, SILENCE_MAX);
    let (connection, accepted) = tokio::join!(dialled, listener.accept());
    let (lane, task) = Lane::new(connection.unwrap());
    (lane, task, accepted.unwrap().0)
}

async fn asked(server: &mut TcpStream, requests: &[u8]) {
    let mut read = vec![0; requests.len()];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(read, requests);
}

#[tokio::test]
async fn a_lane_that_was_left_gives_up_replies_that_do_not_come() {
    let (lane, task, mut server) = lane().await;
    let (reader, writer) = (Rc::<Sink>::default(), Rc::<Sink>::default());
    lane.send(GET, &reader, 1, false, false);
    lane.send(INCR, &writer, 1, true, false);
    let silent = async {
        asked(&mut server, &[GET, INCR].concat()).await;
        lane.retire(SILENCE_MAX);
    };
    let (why, ()) = tokio::join!(task.run(), silent);
    assert_eq!(why, Cut::Silent);
    assert_eq!(reader.0.borrow().given_back, GET);
    assert_eq!(reader.0.borrow().cut, (0, 0));
    assert_eq!(writer.0.borrow().cut, (1, 1));
}

#[tokio::test]
async fn a_lane_that_is_in_use_waits_for_as_long_as_it_takes() {
    let (lane, task, mut server) = lane().await;
    let reader = Rc::<Sink>::default();
    lane.send(GET, &reader, 1, false, false);
    let slow = async {
        asked(&mut server, GET).await;
        sleep(SILENCE_MAX + STEP).await;
        server.write_all(b"+late\r\n").await.unwrap();
        drop(server);
    };
    let (why, ()) = tokio::join!(task.run(), slow);
    assert_eq!(why, Cut::Closed);
    assert_eq!(reader.0.borrow().delivered, b"+late\r\n");
}

#[tokio::test]
async fn a_reply_that_comes_slowly_is_delivered_whole_by_a_lane_that_was_left() {
    let (lane, task, mut server) = lane().await;
    let reader = Rc::<Sink>::default();
    lane.send(GET, &reader, 1, false, false);
    let slow = async {
        asked(&mut server, GET).await;
        lane.retire(SILENCE_MAX);
        for part in ["$6", "\r\n", "abc", "def", "\r\n"] {
            sleep(STEP).await;
            server.write_all(part.as_bytes()).await.unwrap();
        }
    };
    let (why, ()) = tokio::join!(task.run(), slow);
    // It owes nothing any more.
    assert_eq!(why, Cut::Closed);
    assert_eq!(reader.0.borrow().delivered, b"$6\r\nabcdef\r\n");
    assert_eq!(reader.0.borrow().replied, 1);
    assert_eq!(reader.0.borrow().given_back, b"");
}
