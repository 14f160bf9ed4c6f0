//! Clients: they do things to keys, record what they did and what they were told, and dial again
//! whenever they are cut off.
//!
//! **Invariant:** a reply is taken only when it can be the reply to this request on this key.
//! Values carry the name of their key, so that a reply that belongs to somebody else is seen as
//! such.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::book::{Book, Place, User};
use crate::dice::Dice;
use crate::history::{Call, Reply};
use crate::support::{Value, Wire, WireError, find_master, put_request};

/// Past the time that the proxy holds a command when there is no master.
const PATIENCE: Duration = Duration::from_millis(3500);
/// Before it dials again. A client that is cut off at once would else fill the record with nothing.
const REDIAL: Duration = Duration::from_millis(20);
/// A node that hangs is not asked for longer whether it is the master.
const LOOK: Duration = Duration::from_millis(500);
const BATCH_MAX: usize = 4;
const SWAP: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
                    redis.call('SET', KEYS[1], ARGV[2]) return 1 else return 0 end";

/// Where clients connect.
#[derive(Clone)]
pub enum Way {
    Proxy(String),
    /// Straight to whoever is master among these.
    Past(Vec<String>),
}

pub struct Clients {
    pub book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    running: JoinSet<()>,
}

impl Clients {
    pub fn start(ways: Vec<Way>, blocks: bool, dice: &mut Dice) -> Clients {
        let clients = Clients {
            book: Arc::new(Mutex::new(Book::new(blocks))),
            stop: Arc::default(),
            running: JoinSet::new(),
        };
        let mut running = JoinSet::new();
        for (id, way) in ways.into_iter().enumerate() {
            let client = Client {
                id,
                way,
                book: clients.book.clone(),
                stop: clients.stop.clone(),
                dice: dice.split(),
            };
            running.spawn(client.run());
        }
        Clients { running, ..clients }
    }

    pub fn acked(&self) -> u64 {
        self.book.lock().unwrap().ok
    }

    /// Returns when every client has what it waited for.
    pub async fn finish(self) -> Book {
        self.stop.store(true, Relaxed);
        self.running.join_all().await;
        let book = Arc::into_inner(self.book).expect("clients have ended");
        book.into_inner().unwrap()
    }
}

struct Client {
    id: usize,
    way: Way,
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    dice: Dice,
}

/// Why a connection is given up.
enum Break {
    Cut,
    /// Refused by a node that is no master; look for another one.
    Moved,
    Nonsense(String),
}

impl From<WireError> for Break {
    fn from(error: WireError) -> Break {
        match error {
            WireError::Garbled(text) => Break::Nonsense(text),
            _ => Break::Cut,
        }
    }
}

impl Client {
    async fn run(mut self) {
        while !self.stop.load(Relaxed) {
            let Some(mut wire) = self.connect().await else {
                sleep(REDIAL).await;
                continue;
            };
            // One of those who are refused because the master has changed dials at once.
            let mut redial = REDIAL;
            while !self.stop.load(Relaxed) {
                match self.turn(&mut wire).await {
                    Ok(()) => {}
                    Err(Break::Nonsense(text)) => {
                        self.book.lock().unwrap().complain(text);
                        break;
                    }
                    Err(Break::Moved) => {
                        redial = Duration::ZERO;
                        break;
                    }
                    Err(Break::Cut) => break,
                }
                sleep(self.dice.ms(1, 9)).await;
            }
            sleep(redial).await;
        }
    }

    async fn connect(&self) -> Option<Wire> {
        let addr = match &self.way {
            Way::Proxy(addr) => addr.clone(),
            Way::Past(nodes) => find_master(nodes, LOOK).await?,
        };
        Some(Wire::connect(&addr).await.ok()?.with_deadline(PATIENCE))
    }

    /// Some requests at once, each about a key of its own, or one that takes several.
    async fn turn(&mut self, wire: &mut Wire) -> Result<(), Break> {
        let user = match self.way {
            Way::Proxy(_) => User::Proxied,
            Way::Past(_) => User::Past,
        };
        let count = 1 + self.dice.below(BATCH_MAX);
        let mut batch: Vec<(usize, Call)> = Vec::new();
        for _ in 0..count {
            let mut book = self.book.lock().unwrap();
            let key = book.some_key(&mut self.dice, user);
            let call = book.some_call(key, &mut self.dice, user);
            if batch.iter().all(|(other, _)| *other != key) {
                batch.push((key, call));
            }
        }
        if let Some(at) = batch.iter().position(|(_, call)| *call == Call::AddTwice) {
            let (key, _) = batch[at];
            return self.transaction(wire, key).await;
        }
        let mut request = Vec::new();
        let mut places = Vec::new();
        {
            let mut book = self.book.lock().unwrap();
            for (key, call) in &batch {
                put(&mut request, &book.keys[*key].name, *call);
                places.push((book.begin(self.id, *key, *call), *call));
            }
        }
        let mut moved = false;
        let mut done = 0;
        let ended = self
            .exchange(wire, &request, &places, &mut done, &mut moved)
            .await;
        if ended.is_err() {
            let mut book = self.book.lock().unwrap();
            for (place, _) in &places[done..] {
                book.unknown(*place);
            }
        }
        match moved && user == User::Past {
            true => Err(Break::Moved),
            false => ended,
        }
    }

    async fn exchange(
        &mut self,
        wire: &mut Wire,
        request: &[u8],
        places: &[(Place, Call)],
        done: &mut usize,
        moved: &mut bool,
    ) -> Result<(), Break> {
        wire.send_raw(request).await?;
        for (place, call) in places {
            let value = wire.reply().await?;
            *moved |= matches!(value, Value::Error(_));
            self.take(*place, *call, value)?;
            *done += 1;
        }
        Ok(())
    }

    fn take(&self, place: Place, call: Call, value: Value) -> Result<(), Break> {
        let mut book = self.book.lock().unwrap();
        if let Value::Error(text) = value {
            book.refused(place, &text);
            return Ok(());
        }
        if call == Call::AwaitPop && value == Value::Null {
            book.forgotten(place);
            return Ok(());
        }
        let name = book.keys[place.key].name.clone();
        match understand(&name, call, &value) {
            Some(reply) => book.replied(place, reply),
            None => {
                return Err(Break::Nonsense(format!(
                    "{call:?} of {name} was answered {value:?}"
                )));
            }
        }
        Ok(())
    }

    /// `MULTI` is awaited alone: if it were refused, the rest would run outside of it.
    async fn transaction(&mut self, wire: &mut Wire, key: usize) -> Result<(), Break> {
        let (place, name) = {
            let mut book = self.book.lock().unwrap();
            let name = book.keys[key].name.clone();
            (book.begin(self.id, key, Call::AddTwice), name)
        };
        let ended = self.transact(wire, place, &name).await;
        if matches!(ended, Err(Break::Cut | Break::Nonsense(_))) {
            self.book.lock().unwrap().unknown(place);
        }
        ended
    }

    async fn transact(&mut self, wire: &mut Wire, place: Place, name: &str) -> Result<(), Break> {
        let begun = wire.call(&["MULTI"]).await?;
        if let Value::Error(text) = begun {
            self.book.lock().unwrap().refused(place, &text);
            return Err(Break::Moved);
        }
        let mut request = Vec::new();
        for _ in 0..2 {
            put_request(&mut request, &["INCR", name]);
        }
        put_request(&mut request, &["EXEC"]);
        wire.send_raw(&request).await?;
        let _queued = (wire.reply().await?, wire.reply().await?);
        let executed = wire.reply().await?;
        let mut book = self.book.lock().unwrap();
        match (&executed, executed.items()) {
            (Value::Error(text), _) => book.refused(place, text),
            (_, [Value::Int(first), Value::Int(second)]) if first + 1 == *second => {
                book.replied(place, Reply::Number(*second));
            }
            // Kvrocks refuses each command of its own.
            (_, [Value::Error(text), Value::Error(second)]) if text == second => {
                book.refused(place, text);
            }
            _ => {
                let text = format!("two INCR of {name} in a transaction: {executed:?}");
                return Err(Break::Nonsense(text));
            }
        }
        let done = matches!(executed.items(), [Value::Int(_), _]);
        match &self.way {
            Way::Past(_) if !done => Err(Break::Moved),
            _ => Ok(()),
        }
    }
}

/// The value that write number `number` of a key leaves.
fn tagged(key: &str, number: u32) -> String {
    format!("{key}={number}")
}

/// Appends a request.
pub fn put(out: &mut Vec<u8>, key: &str, call: Call) {
    let mut words: Vec<String> = Vec::new();
    let mut say = |name: &str, more: &[String]| {
        words.push(name.to_owned());
        words.push(key.to_owned());
        words.extend_from_slice(more);
    };
    match call {
        Call::Set(to) => say("SET", &[tagged(key, to)]),
        Call::Get | Call::Count => say("GET", &[]),
        Call::GetSet(to) => say("GETSET", &[tagged(key, to)]),
        Call::SetNx(to) => say("SETNX", &[tagged(key, to)]),
        Call::Add(1) => say("INCR", &[]),
        Call::Add(by) => say("INCRBY", &[by.to_string()]),
        Call::Push(item) => say("LPUSH", &[tagged(key, item)]),
        Call::Pop => say("RPOP", &[]),
        Call::AwaitPop => say("BRPOP", &["1".to_owned()]),
        Call::Range => say("LRANGE", &["0".to_owned(), "-1".to_owned()]),
        Call::Join(member) => say("SADD", &[tagged(key, u32::from(member))]),
        Call::Leave(member) => say("SREM", &[tagged(key, u32::from(member))]),
        Call::Members => say("SMEMBERS", &[]),
        Call::Cas { from, to } => {
            words = vec!["EVAL".to_owned(), SWAP.to_owned(), "1".to_owned()];
            words.extend([key.to_owned(), tagged(key, from), tagged(key, to)]);
        }
        Call::AddTwice => unreachable!("a transaction is no single request"),
    }
    put_request(out, &words);
}

/// What a reply says, if it can be one to this request.
pub fn understand(key: &str, call: Call, value: &Value) -> Option<Reply> {
    let tag = |value: &Value| -> Option<u32> {
        let Value::Bulk(bytes) = value else {
            return None;
        };
        let text = std::str::from_utf8(bytes).ok()?;
        text.strip_prefix(key)?.strip_prefix('=')?.parse().ok()
    };
    match (call, value) {
        (Call::Set(_), Value::Simple(_)) if value.ok() => Some(Reply::Done),
        (Call::Get | Call::GetSet(_) | Call::Pop, Value::Null) => Some(Reply::Value(None)),
        (Call::Get | Call::GetSet(_) | Call::Pop, _) => Some(Reply::Value(Some(tag(value)?))),
        (Call::AwaitPop, Value::Array(items)) => match items.as_slice() {
            [name, item] if name.text() == key => Some(Reply::Value(Some(tag(item)?))),
            _ => None,
        },
        (Call::Count, Value::Null) => Some(Reply::Number(0)),
        (Call::Count, Value::Bulk(_)) => Some(Reply::Number(value.text().parse().ok()?)),
        (Call::Range, Value::Array(items)) => {
            let items: Option<Vec<u32>> = items.iter().map(tag).collect();
            Some(Reply::List(items?))
        }
        (Call::Members, Value::Array(items)) => {
            let mut members = 0;
            for item in items {
                members |= 1 << tag(item)?;
            }
            Some(Reply::Members(members))
        }
        (
            Call::SetNx(_)
            | Call::Cas { .. }
            | Call::Add(_)
            | Call::Push(_)
            | Call::Join(_)
            | Call::Leave(_),
            Value::Int(number),
        ) => Some(Reply::Number(*number)),
        _ => None,
    }
}
