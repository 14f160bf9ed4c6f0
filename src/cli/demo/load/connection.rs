//! One client connection of the load: what it sends, what it is owed, what it got.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::net::TcpStream;

use super::{Kind, Live, Record, Sample};
use crate::cli::demo::marked::Series;
use crate::cli::demo::wire::{Flat, flat};

const RECONNECT_EVERY: Duration = Duration::from_millis(20);
const READ_BYTES: usize = 32 * 1024;

/// What all connections of a load write into.
pub(super) struct Tally {
    series: Series,
    origin: Instant,
    live: Arc<Live>,
    record: RefCell<Record>,
    dice: Cell<u64>,
}

impl Tally {
    pub(super) fn new(series: Series, origin: Instant, live: Arc<Live>) -> Tally {
        let dice = Cell::new(0x9e37_79b9_7f4a_7c15);
        Tally {
            series,
            origin,
            live,
            record: RefCell::default(),
            dice,
        }
    }

    pub(super) fn take_record(&self) -> Record {
        self.record.take()
    }

    pub(super) fn note_late(&self, late: Duration) {
        self.record.borrow_mut().late_us.push(micros(late));
    }

    /// The number of some acknowledged write, recent or old.
    pub(super) fn any_acked(&self) -> Option<u64> {
        // xorshift: good enough to spread reads, and cheap.
        let mut dice = self.dice.get();
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        self.dice.set(dice);
        let record = self.record.borrow();
        let len = record.acked.len() as u64;
        record.acked.get(dice.checked_rem(len)? as usize).copied()
    }

    fn error(&self, text: String) {
        self.record.borrow_mut().error(text);
        self.live.errors.fetch_add(1, Relaxed);
    }

    /// Judges one reply. `Err` when the connection cannot be trusted any further.
    fn settle(&self, owed: &Owed, reply: &Flat<'_>, now: Instant) -> Result<(), String> {
        match (owed.kind, reply) {
            (Kind::Write, Flat::Line(b'+', b"OK")) => {
                self.record.borrow_mut().acked.push(owed.number);
                self.live.acked.fetch_add(1, Relaxed);
            }
            (Kind::ReadAlone | Kind::ReadMixed, Flat::Bulk(value))
                if self.series.matches(owed.number, value) => {}
            (kind, Flat::Line(b'-', text)) => {
                let text = String::from_utf8_lossy(text);
                self.error(format!("{kind:?} {}: {text}", self.series.key(owed.number)));
            }
            (Kind::ReadAlone | Kind::ReadMixed, Flat::Null) => {
                let key = self.series.key(owed.number);
                self.error(format!("read of the acknowledged {key} found nothing"));
            }
            (kind, _) => return Err(format!("a reply that does not belong to a {kind:?}")),
        }
        let latency = now.saturating_duration_since(owed.due);
        let due_us = micros(owed.due.saturating_duration_since(self.origin));
        let sample = Sample {
            due_us,
            latency_us: micros(latency),
        };
        self.record.borrow_mut().samples(owed.kind).push(sample);
        if owed.kind == Kind::Write {
            self.live
                .slowest_us
                .fetch_max(u64::from(sample.latency_us), Relaxed);
        }
        Ok(())
    }
}

struct Owed {
    kind: Kind,
    number: u64,
    due: Instant,
}

pub(super) struct Connection {
    addr: String,
    number: usize,
    owed_max: usize,
    /// `None` while it is broken.
    stream: RefCell<Option<Rc<TcpStream>>>,
    unsent: RefCell<BytesMut>,
    owed: RefCell<VecDeque<Owed>>,
    scratch: RefCell<Vec<u8>>,
}

impl Connection {
    pub(super) async fn open(addr: &str, number: usize, owed_max: usize) -> std::io::Result<Self> {
        let stream = connect(addr).await?;
        Ok(Connection {
            addr: addr.to_owned(),
            number,
            owed_max,
            stream: RefCell::new(Some(Rc::new(stream))),
            unsent: RefCell::default(),
            owed: RefCell::default(),
            scratch: RefCell::default(),
        })
    }

    pub(super) fn owes(&self) -> bool {
        !self.owed.borrow().is_empty()
    }

    pub(super) fn write(&self, number: u64, due: Instant, tally: &Tally) {
        self.request(
            Owed {
                kind: Kind::Write,
                number,
                due,
            },
            tally,
            Series::put_set,
        );
    }

    pub(super) fn read(&self, number: u64, kind: Kind, due: Instant, tally: &Tally) {
        self.request(Owed { kind, number, due }, tally, Series::put_get);
    }

    fn request(&self, owed: Owed, tally: &Tally, put: impl Fn(&Series, &mut Vec<u8>, u64)) {
        if self.stream.borrow().is_none() || self.owed.borrow().len() >= self.owed_max {
            let why = if self.owes() {
                "too many replies are owed"
            } else {
                "no connection"
            };
            tally.error(format!(
                "{:?} on connection {} not sent: {why}",
                owed.kind, self.number
            ));
            return;
        }
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        put(&tally.series, &mut scratch, owed.number);
        self.unsent.borrow_mut().extend_from_slice(&scratch);
        self.owed.borrow_mut().push_back(owed);
    }

    /// Sends as much as the socket takes now; the rest goes with the next slot.
    pub(super) fn flush(&self) {
        let mut unsent = self.unsent.borrow_mut();
        let stream = self.stream.borrow();
        let Some(stream) = stream.as_ref() else {
            return;
        };
        while !unsent.is_empty() {
            match stream.try_write(&unsent) {
                Ok(sent) => unsent.advance(sent),
                // A broken connection is noticed, and counted once, by the reading side.
                Err(_) => return,
            }
        }
    }

    /// Reads for ever, over as many connections as it takes.
    pub(super) async fn read_replies(self: Rc<Self>, tally: Rc<Tally>) {
        loop {
            let stream = self.stream.borrow().clone();
            if let Some(stream) = stream {
                let why = self.read_until_broken(&stream, &tally).await;
                tally.error(format!("connection {} lost: {why}", self.number));
                self.give_up(&tally);
                self.stream.borrow_mut().take();
            }
            match connect(&self.addr).await {
                Ok(stream) => *self.stream.borrow_mut() = Some(Rc::new(stream)),
                Err(_) => tokio::time::sleep(RECONNECT_EVERY).await,
            }
        }
    }

    async fn read_until_broken(&self, stream: &TcpStream, tally: &Tally) -> String {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            if let Err(error) = stream.readable().await {
                return error.to_string();
            }
            buffer.reserve(READ_BYTES / 2);
            match stream.try_read_buf(&mut buffer) {
                Ok(0) => return "closed by the other side".into(),
                Ok(_) => {
                    if let Err(why) = self.settle_all(&mut buffer, tally) {
                        return why;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    fn settle_all(&self, buffer: &mut BytesMut, tally: &Tally) -> Result<(), String> {
        let now = Instant::now();
        while let Some((reply, used)) = flat(buffer).map_err(|error| error.to_string())? {
            let owed = self
                .owed
                .borrow_mut()
                .pop_front()
                .ok_or("a reply nobody asked for")?;
            tally.settle(&owed, &reply, now)?;
            buffer.advance(used);
        }
        Ok(())
    }

    /// What is still owed will not come.
    pub(super) fn give_up(&self, tally: &Tally) {
        self.unsent.borrow_mut().clear();
        let owed = self.owed.borrow_mut().drain(..).count() as u64;
        tally.record.borrow_mut().unanswered += owed;
    }
}

async fn connect(addr: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
