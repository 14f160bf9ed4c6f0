//! The loop of one client: read a batch, scan it, pass the gate, send it upstream.
//!
//! A session is in one of two modes. On a *lane* its requests are copied, run by run, onto a shared
//! connection and the replies come back through its [`Outbox`] without waking it. Everything
//! that needs a connection of its own goes through [`super::relay`]. Between the modes, and
//! before any command that the proxy answers itself, the session *settles*: it waits until no
//! lane owes it a reply. That one rule keeps replies in the order of the requests.
//!
//! **Invariants:** a write is counted at the gate in the same tick in which it is queued on a
//! lane. A request is queued only on a lane of the current epoch. A session whose write is held
//! sends nothing behind it.

mod refused;
mod run;
mod scan;
mod stand_in;
mod wait;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::cursors::CursorKey;
use super::links::{LaneUse, NodeLinks};
use super::outbox::Outbox;
use super::presence::Presence;
use super::registry::{About, Entry};
use super::scripts::{Concern, concern};
use super::seat::Seat;
use super::state::{Closed, Modes, ReplyMode};
use crate::resp::command::{Local, Path, Verdict, classify};
use crate::resp::scan::{Form, Request, RequestScanner, args, reframe};
use crate::shard::route::Life;
use crate::transport::{ReadHalf, Stream};
use crate::upstream::identity::{Credentials, Identity, Resp};
use crate::upstream::lane::Lane;

use run::Run;

pub(super) use refused::{Refused, TOO_LATE};
pub(super) use wait::Waited;

/// Larger requests get a connection of their own: they would delay their neighbours.
pub const LANE_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// The lane a session uses and the epoch it belongs to.
#[derive(Debug, Clone)]
struct OwnLane {
    lane: Rc<Lane<Outbox>>,
    links: Rc<NodeLinks>,
    lane_use: LaneUse,
    epoch: u64,
}

/// One client.
#[derive(Debug)]
pub struct Session {
    /// `CLIENT ID`: the proxy's own, the same for the life of the session.
    pub id: u64,
    pub(super) seat: Rc<Seat>,
    pub(super) presence: Arc<Presence>,
    seat_key: usize,
    pub(super) read: ReadHalf,
    pub(super) input: BytesMut,
    pub(super) scanner: RequestScanner,
    pub(super) outbox: Rc<Outbox>,
    pub(super) identity: Identity,
    pub(super) name: Bytes,
    pub(super) lib_name: Bytes,
    pub(super) lib_ver: Bytes,
    /// The `CLIENT ID` of the session that gets this one's invalidations.
    pub(super) redirect: Option<u64>,
    /// It has ended itself: it goes once its replies are out.
    pub(super) ends: bool,
    pub(super) reply_mode: ReplyMode,
    pub(super) modes: Modes,
    lane: Option<OwnLane>,
    /// The session has become a user: it gets a lane before it asks for something, so that the end
    /// of the user is seen.
    lane_due: bool,
    /// The server's own line for a session that has not given a password yet.
    pub(super) noauth: Option<Bytes>,
    /// Since when a request has been refused by one master after the other.
    pub(super) refused: Option<Refused>,
    /// The requests that were lost with their lane last, counted as those are that are answered.
    lost: Range<u64>,
    /// A node has served this identity of the session.
    pub(super) proven: bool,
    /// Has written before: its lane is one for writes.
    writes: bool,
    /// The last cursors that this session was given, and by whom.
    own_cursors: VecDeque<(CursorKey, Life)>,
    /// The client will send no more.
    pub(super) eof: bool,
}

/// What the session has to do before it can go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The input is used up: wait for more.
    Read,
    /// Wait until no lane owes a reply.
    Settle,
    /// A master has refused what it was sent: see to it.
    Refused,
    /// Too many replies owed or untaken, or the lane is full.
    Room,
    /// The next request is a write and the gate is closed, or there is no master.
    Hold,
    /// A lane must be found or dialled.
    /// With the time that it may take.
    FindLane(LaneUse, Duration),
    /// The next request, `len` bytes, asks for scripts that this master has not been brought yet.
    Scripts(usize),
    /// The next request needs a connection of its own.
    Relay,
    /// The next request, `len` bytes, is a step of an iteration.
    Scan(usize),
    /// The next request, `len` bytes, is answered here.
    Answer(Local, usize),
    Close(Closed),
}

impl Session {
    pub fn new(id: u64, seat: &Rc<Seat>, stream: Stream) -> Self {
        let presence = Arc::new(Presence::new(id));
        let socket = stream.socket();
        if let (Ok(addr), Ok(laddr)) = (socket.peer_addr(), socket.local_addr()) {
            seat.registry.insert(Entry {
                presence: Arc::clone(&presence),
                door: seat.door.clone(),
                addr,
                laddr,
                fd: socket.as_raw_fd(),
                about: About::default(),
            });
        }
        let (read, write) = stream.split();
        let outbox = Outbox::new(
            write,
            seat.limits.output_buffer_bytes_max,
            Rc::clone(&seat.gate),
            Rc::clone(&seat.counts),
        );
        let identity = Identity::default();
        let seat_key = seat.enter(&presence, &outbox);
        seat.enter_identity(&identity);
        let session = Self {
            id,
            seat_key,
            seat: Rc::clone(seat),
            presence,
            read,
            input: BytesMut::new(),
            scanner: RequestScanner::default(),
            outbox,
            identity,
            name: Bytes::new(),
            lib_name: Bytes::new(),
            lib_ver: Bytes::new(),
            redirect: None,
            ends: false,
            reply_mode: ReplyMode::On,
            modes: Modes::default(),
            lane: None,
            lane_due: false,
            noauth: None,
            refused: None,
            lost: 0..0,
            proven: false,
            writes: false,
            own_cursors: VecDeque::new(),
            eof: false,
        };
        session.note_in_registry();
        session
    }

    /// Serves the client until it leaves, or must be closed.
    pub async fn run(mut self) -> Closed {
        let why = loop {
            if let Err(why) = self.turn().await {
                break why;
            }
        };
        self.finish(why).await;
        why
    }

    async fn turn(&mut self) -> Result<(), Closed> {
        if self.ends {
            return Err(Closed::Killed);
        }
        match self.forward() {
            Step::Read if !self.lane_due => self.read_more().await,
            Step::Settle => self.settle().await,
            Step::Room => self.make_room().await,
            Step::Close(why) => Err(why),
            // Boxed, because every session would be as large as what it rarely does (an idle one
            // took 11.8 KB, it takes 3.3), and a future is moved when it is awaited, at every turn.
            Step::Read => {
                Box::pin(self.lane_ahead()).await;
                self.read_more().await
            }
            Step::Refused => Box::pin(self.refused()).await,
            Step::Hold => Box::pin(self.hold()).await,
            Step::FindLane(lane_use, budget) => Box::pin(self.find_lane(lane_use, budget)).await,
            Step::Scripts(len) => Box::pin(self.scripts(len)).await,
            Step::Scan(len) => Box::pin(self.scan(len)).await,
            Step::Relay => Box::pin(self.relay()).await,
            Step::Answer(local, len) => Box::pin(self.answer(local, len)).await,
        }
    }

    /// Sends every request in the input that needs no waiting.
    fn forward(&mut self) -> Step {
        if self.outbox.is_withheld() {
            return Step::Refused;
        }
        if self.presence.is_wanted() || self.modes.any() {
            return if self.outbox.owed() > 0 {
                Step::Settle
            } else {
                Step::Relay
            };
        }
        let mut run = Run::default();
        let step = loop {
            if let Err(step) = self.may_go_on(&run) {
                break step;
            }
            let rest = self.input.get(run.end..).unwrap_or_default();
            match self.scanner.scan(rest, &self.seat.limits.request) {
                Ok(Request::Incomplete) => {
                    break if self.is_large(rest.len()) {
                        Step::Relay
                    } else {
                        Step::Read
                    };
                }
                Ok(Request::Blank { len }) => {
                    self.send_run(&mut run);
                    self.input.advance(len);
                    self.saw_blank();
                }
                Ok(Request::Complete {
                    form: Form::Inline, ..
                }) => {
                    self.send_run(&mut run);
                    if let Err(step) = self.reframe_inline() {
                        break step;
                    }
                }
                Ok(Request::Complete {
                    len,
                    form: Form::Multibulk,
                }) => {
                    if let Err(step) = self.take(&mut run, len) {
                        break step;
                    }
                }
                Err(error) => {
                    self.send_run(&mut run);
                    if self.outbox.owed() > 0 {
                        // What was asked before the broken bytes is answered before them.
                        self.scanner = RequestScanner::default();
                        break Step::Settle;
                    }
                    self.outbox.push(&error.reply());
                    break Step::Close(Closed::ProtocolError);
                }
            }
        };
        self.send_run(&mut run);
        match step {
            // A new lane too: the route may have been swapped in the middle of a run.
            Step::Relay | Step::Answer(..) | Step::Scan(_) | Step::FindLane(..)
                if self.outbox.owed() > 0 =>
            {
                Step::Settle
            }
            step => step,
        }
    }

    /// Whether the incomplete request in front is one that must not be collected here.
    fn is_large(&self, buffered: usize) -> bool {
        buffered > LANE_REQUEST_BYTES_MAX || self.scanner.needed() > LANE_REQUEST_BYTES_MAX as u64
    }

    #[inline]
    pub(super) fn verdict(&self, rest: &[u8]) -> Verdict {
        let name = self.scanner.arg(rest, 0).unwrap_or_default();
        let argc = self.scanner.argc().unwrap_or(0) as usize;
        let arg = |index| self.scanner.arg(rest, index);
        self.note_script(name, arg);
        self.seat.limits.policy.settle(classify(name, arg, argc))
    }

    /// Remembers the script that a command brings along.
    #[inline]
    fn note_script<'b>(&self, name: &[u8], arg: impl Fn(usize) -> Option<&'b [u8]>) {
        // Who has not been served yet may not be one who is: what it sends is judged again then.
        if self.proven
            && let Some(Concern::Brings(script)) = concern(name, arg)
        {
            let by = self.identity.credentials.as_deref();
            // A script that only reads is known to one of Kvrocks' threads: nobody can count on it.
            let alone = name.len() > b"EVAL".len() && self.seat.reads_scripts_alone();
            let known_in = if alone { 0 } else { self.seat.epoch() };
            self.seat.scripts.note(script, by, known_in);
        }
    }

    /// The same for a request that was read before.
    pub(super) fn note_script_of(&self, request: &[u8]) {
        let mut words = args(request);
        let words: [Option<&[u8]>; 3] = std::array::from_fn(|_| words.next());
        let word = |at: usize| words.get(at).copied().flatten();
        self.note_script(word(0).unwrap_or_default(), word);
    }

    fn refused_unauthenticated(&self, verdict: &Verdict) -> Option<Bytes> {
        match verdict.path {
            Path::Local(
                Local::Auth | Local::Hello | Local::Quit | Local::HangUp | Local::Reset,
            ) => None,
            _ => self.noauth.clone(),
        }
    }

    /// Turns the inline request in front, and those behind it, into the form that lanes carry.
    pub(super) fn reframe_inline(&mut self) -> Result<(), Step> {
        match reframe(&self.input, &self.seat.limits.request) {
            Ok(framed) => {
                self.input = framed;
                Ok(())
            }
            // It is answered once the replies before it are out.
            Err(_) if self.outbox.owed() > 0 => Err(Step::Settle),
            Err(error) => {
                self.outbox.push(&error.reply());
                Err(Step::Close(Closed::ProtocolError))
            }
        }
    }

    /// Says something to the client itself, unless it wants no replies.
    pub(super) fn say(&mut self, reply: &[u8]) {
        self.outbox.answered_one();
        match self.reply_mode {
            ReplyMode::On => self.outbox.push(reply),
            ReplyMode::SkipNext => self.reply_mode = ReplyMode::On,
            ReplyMode::Off => {}
        }
    }

    /// Changes who the session is to the server; its next request finds a lane for that.
    pub(super) fn become_identity(&mut self, identity: Identity) {
        self.seat.enter_identity(&identity);
        self.seat.leave_identity(&self.identity);
        self.seat.identify(self.seat_key, &identity);
        self.identity = identity;
        self.lane = None;
        self.lane_due = self.identity.user().is_some();
        self.noauth = None;
        self.proven = false;
    }

    /// Brings the session's line of `CLIENT LIST` up to date.
    pub(super) fn note_in_registry(&self) {
        let user = match self.identity.credentials.as_deref() {
            Some(Credentials {
                user: Some(user), ..
            }) => user.clone(),
            _ => Bytes::from_static(b"default"),
        };
        let about = About {
            name: self.name.clone(),
            user,
            lib_name: self.lib_name.clone(),
            lib_ver: self.lib_ver.clone(),
            db: self.identity.db,
            resp: if self.identity.resp == Resp::Resp3 {
                3
            } else {
                2
            },
        };
        self.seat.registry.update(self.id, about);
    }

    /// A line without a command is one for `CLIENT REPLY SKIP`.
    pub(super) fn saw_blank(&mut self) {
        if self.reply_mode == ReplyMode::SkipNext {
            self.reply_mode = ReplyMode::On;
        }
    }

    /// Delivers what can still be delivered, for a short while.
    async fn finish(&mut self, why: Closed) {
        tracing::debug!(session = self.id, why = why.label(), "session ended");
        if matches!(why, Closed::AmbiguousWrite | Closed::NotCarried) {
            tracing::warn!(
                session = self.id,
                why = why.label(),
                "client connection closed"
            );
        }
        *self
            .seat
            .counts
            .closed
            .borrow_mut()
            .entry(why.label())
            .or_default() += 1;
        let outbox = Rc::clone(&self.outbox);
        let flushed = poll_fn(|context| outbox.poll_flushed(context));
        let _ = tokio::time::timeout(self.seat.limits.connect_timeout, flushed).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.seat.registry.remove(self.id);
        self.seat.leave_identity(&self.identity);
        self.seat.leave(self.seat_key);
    }
}
