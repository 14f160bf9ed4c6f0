//! A link that can be bad: between clients and the proxy, or in front of a node.
//!
//! Bytes are delayed, trickle, are withheld in one direction or in both and arrive late, vanish, or
//! the connections are reset. **Invariant:** what is delivered is a prefix of what was sent: a
//! connection that lost bytes never carries another one, as TCP would have it.
//!
//! In front of a node the relay is the node's only name: the proxy knows a node by the address that
//! its replicas follow (`topology::identity`), so replication passes the relay as well. A link of
//! replication gives itself away by its first words, and can be spared, or struck alone.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::trap::{Track, Trap};

const READ_BYTES: usize = 16 * 1024;
/// A trickle delivers what was sent at once in so many drops.
const DROPS: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Clear,
    Delay(Duration),
    Trickle,
    /// Nothing arrives on either side; when it is over, everything does.
    Silent,
    /// Requests arrive and are executed; their replies come when it is over.
    NoReplies,
    /// Requests come when it is over.
    NoRequests,
    /// What is sent vanishes. Connections that lost something are reset when it is over.
    Swallow,
    /// No connection is taken; those that were open have been reset.
    Refuse,
}

/// Whose connections a fault is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Whose {
    Everybodys,
    Replication,
    AllButReplication,
}

#[derive(Clone, Copy, Debug)]
struct Weather {
    fault: Fault,
    whose: Whose,
    /// Grows with every cut: connections that are older and concerned are reset.
    era: u64,
}

pub struct Relay {
    pub name: String,
    weather: watch::Sender<Weather>,
    backend: Arc<Mutex<String>>,
    pub trap: Arc<Trap>,
    _accepting: JoinSet<()>,
}

impl Relay {
    pub async fn start(backend: &str) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let (weather, seen) = watch::channel(Weather {
            fault: Fault::Clear,
            whose: Whose::Everybodys,
            era: 0,
        });
        let backend = Arc::new(Mutex::new(backend.to_owned()));
        let trap = Arc::new(Trap::new());
        let (to, traps) = (backend.clone(), trap.clone());
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let to = to.lock().unwrap().clone();
                open.spawn(link(client, to, seen.clone(), traps.clone()));
                while open.try_join_next().is_some() {}
            }
        });
        Relay {
            name,
            weather,
            backend,
            trap,
            _accepting: accepting,
        }
    }

    /// Where connections lead from now on.
    pub fn leads_to(&self, backend: &str) {
        *self.backend.lock().unwrap() = backend.to_owned();
    }

    pub fn strike(&self, fault: Fault, whose: Whose) {
        self.weather.send_modify(|weather| {
            (weather.fault, weather.whose) = (fault, whose);
            weather.era += u64::from(fault == Fault::Refuse);
        });
    }

    pub fn clear(&self) {
        self.weather
            .send_modify(|weather| weather.fault = Fault::Clear);
    }

    /// Resets what is open; new connections are taken.
    pub fn cut(&self, whose: Whose) {
        self.weather.send_modify(|weather| {
            weather.whose = whose;
            weather.era += 1;
        });
    }
}

/// One connection.
struct Link {
    born: u64,
    replicates: AtomicBool,
    lost_bytes: AtomicBool,
    trap: Arc<Trap>,
    track: Track,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    There,
    Back,
}

impl Link {
    fn concerns(&self, weather: &Weather) -> bool {
        match weather.whose {
            Whose::Everybodys => true,
            Whose::Replication => self.replicates.load(Relaxed),
            Whose::AllButReplication => !self.replicates.load(Relaxed),
        }
    }

    fn fault(&self, weather: &Weather) -> Fault {
        match self.concerns(weather) {
            true => weather.fault,
            false => Fault::Clear,
        }
    }

    fn look_at(&self, bytes: &[u8]) {
        let says = |word: &[u8]| bytes.windows(word.len()).any(|part| part == word);
        if [b"REPLCONF".as_slice(), b"replconf", b"PSYNC", b"_fetch_"]
            .into_iter()
            .any(says)
        {
            self.replicates.store(true, Relaxed);
        }
    }

    /// Returns when this connection must be reset.
    async fn doomed(&self, weather: &mut watch::Receiver<Weather>) {
        loop {
            let now = *weather.borrow_and_update();
            let cut = now.era != self.born && self.concerns(&now);
            if cut || self.lost_bytes.load(Relaxed) && self.fault(&now) != Fault::Swallow {
                return;
            }
            if weather.changed().await.is_err() {
                return;
            }
        }
    }
}

async fn link(
    mut client: TcpStream,
    backend: String,
    mut weather: watch::Receiver<Weather>,
    trap: Arc<Trap>,
) {
    let now = *weather.borrow_and_update();
    let link = Link {
        born: now.era,
        replicates: AtomicBool::default(),
        lost_bytes: AtomicBool::default(),
        trap,
        track: Track::default(),
    };
    let server = match link.fault(&now) {
        Fault::Refuse => Err(io::ErrorKind::ConnectionRefused.into()),
        _ => TcpStream::connect(&backend).await,
    };
    let Ok(mut server) = server else {
        reset(&client);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ended = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let there = pump(from_client, to_server, Way::There, &link, weather.clone());
        let back = pump(from_server, to_client, Way::Back, &link, weather.clone());
        tokio::select! {
            ended = async { tokio::try_join!(there, back) } => ended.is_ok(),
            () = link.doomed(&mut weather) => false,
        }
    };
    if !ended {
        reset(&client);
        reset(&server);
    }
}

/// The peer sees a reset instead of an end.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Carries one direction to its end. An end is withheld like everything else.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    link: &Link,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        let bytes = &buffer[..count];
        match way {
            Way::There => {
                link.look_at(bytes);
                link.trap.request(bytes, &link.track).await;
            }
            Way::Back => link.trap.reply(&link.track).await,
        }
        loop {
            let now = *weather.borrow_and_update();
            match (link.fault(&now), way) {
                (Fault::Silent, _)
                | (Fault::NoReplies, Way::Back)
                | (Fault::NoRequests, Way::There) => {
                    if weather.changed().await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                (Fault::Swallow, _) => link.lost_bytes.store(true, Relaxed),
                (Fault::Trickle, _) => {
                    for drop in bytes.chunks(count / DROPS + 1) {
                        to.write_all(drop).await?;
                        sleep(Duration::from_millis(1)).await;
                    }
                }
                (Fault::Delay(by), _) => {
                    sleep(by).await;
                    to.write_all(bytes).await?;
                }
                _ => to.write_all(bytes).await?,
            }
            break;
        }
        if count == 0 {
            return match link.lost_bytes.load(Relaxed) {
                // The end vanishes too.
                true => std::future::pending().await,
                false => to.shutdown().await,
            };
        }
    }
}
