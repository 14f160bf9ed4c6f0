//! A session on a connection of its own: transactions, blocking commands, subscriptions, large
//! requests, and everything that is not known to leave a connection as it was.
//!
//! Requests are still read one by one, because each may have to pass the gate; replies are matched
//! to what is expected ([`Expect`]), so that the relay knows when the connection is clean. A clean
//! connection goes back to the pool and the session back to its lane.
//!
//! * [`feed`]: requests, client to server.
//! * [`queue`]: commands of a transaction, and its `EXEC`.
//! * [`unfold`]: the reply to an `EXEC`, element by element.
//! * [`subscribe`]: what the session is subscribed to.
//! * [`ask`]: commands about the session itself.
//! * [`effects`]: those of them in a transaction, until its `EXEC`.
//! * [`expects`]: what the server owes.
//! * [`deal`]: replies, server to client.
//! * [`message`]: what tells a message from an array in RESP2.
//! * [`tunnel`]: bytes both ways, for what is not requests and replies.
//! * [`shown`]: what others see of the session meanwhile.
//! * [`reach`]: other sessions' connections, on the server.
//! * [`blocking`]: commands that wait on the server, and wait on the next one.
//! * [`carry`]: leaves a node that is not master any more.
//! * [`refused`]: a master that refuses to be one.
//! * [`reopen`]: what was open on the old master is opened again on the new one.
//! * [`requeue`]: the same for a transaction, when the client goes on with it.
//! * [`send`]: requests and what is expected for them.
//! * [`upload`]: large requests on their way, piece by piece.
//! * [`tracking`]: client-side caching, as the session has switched it on.
//!
//! **Invariants:** no byte of a write passes a closed gate unless the server cannot execute it
//! yet (an upload without its end). Nothing is sent to a node after the route has left it. A
//! connection is given back only with nothing expected, nothing open and nothing unknown on it.

mod ask;
mod blocking;
mod carry;
mod deal;
mod effects;
mod expects;
mod feed;
mod message;
mod pauses;
mod queue;
mod reach;
mod refused;
mod reopen;
mod requeue;
mod send;
mod shown;
mod subscribe;
mod tracking;
mod tunnel;
mod unfold;
mod upload;

use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::{Instant, sleep_until};
use tokio_util::io::poll_read_buf;

use self::expects::{Again, Awaited, Expect, Expects};
use self::pauses::Pausing;
use self::refused::Queueing;
use self::shown::Shown;
use self::subscribe::Subscriptions;
use self::unfold::Unfolding;
use self::upload::Upload;
use super::links::NodeLinks;
use super::local::OwnLink;
use super::outbox::OutboxState;
use super::session::Session;
use super::state::{Blocked, Closed, Transaction};
use super::withheld::Withheld;
use crate::resp::command::{Local, Path, Pin};
use crate::resp::scan::{Form, Request};
use crate::shard::gate::{GateState, GateWatch, Receiver};
use crate::upstream::connection::{Connection, poll_write_all};
pub(super) use effects::Effects;
pub(super) use tracking::Tracking;

/// Bytes on their way to the server before the client is not read further.
const OUT_BYTES_MAX: usize = 256 * 1024;
/// Room made before each read from the server.
const READ_BYTES: usize = 64 * 1024;
/// Why the connection cannot be given back yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    Nothing,
    /// Subscriptions: messages arrive unasked for.
    Subscriptions,
    /// `MONITOR`: lines arrive unasked for, until the connection ends.
    Monitor,
    /// State that the proxy does not know; until the connection ends.
    Unknown,
}

/// What the relay needs before it can take the next request.
#[derive(Debug, PartialEq, Eq)]
enum Feed {
    /// More bytes of the client.
    Read,
    /// Replies of the server.
    Wait,
    /// Room towards the server.
    Room,
    /// The client: it leaves too many replies untaken.
    Backlog,
    /// The gate.
    Hold,
    /// Nothing: the connection is clean.
    Leave,
    /// The route has left this node: open on the new master what is open here.
    Carry,
    /// The master refused what it was sent: another one is asked.
    Refused,
    /// Writes are held: the blocked command is called back before the master is fenced.
    CallBack,
    /// The `len` bytes in front turn the connection into a tunnel.
    Tunnel(usize),
    /// The client that a `CLIENT TRACKING` of this many bytes names, as the server knows it.
    Target(usize),
    /// A step of an iteration, `len` bytes, in front.
    Scan(usize),
    /// Scripts that the request of `len` bytes in front asks for and this master does not know.
    Scripts(usize),
    /// An answer of the session itself to the `len` bytes in front.
    Answer(Local, usize),
}

struct Relay<'s> {
    session: &'s mut Session,
    shown: Shown,
    epoch: u64,
    links: Rc<NodeLinks>,
    link: Connection,
    link_ended: bool,
    out: BytesMut,
    expects: Expects,
    transaction: Option<Transaction>,
    /// What the server says to the commands of a transaction.
    queueing: Queueing,
    /// What was refused, and everything that was answered behind it.
    withheld: Option<Withheld>,
    /// The transaction whose `EXEC` was refused first.
    refused_transaction: Option<Box<Transaction>>,
    /// Something of a transaction is among what is withheld.
    withheld_queue: bool,
    /// The server's words when it refused last.
    refusal_line: Bytes,
    watching: bool,
    /// Watched keys whose connection is gone, with no transaction open yet.
    watch_lost: bool,
    keeps: Keeps,
    tracking: Tracking,
    /// The client that the `CLIENT TRACKING` to be sent next names, and the server's id of it.
    target: Option<(u64, u64)>,
    /// The connection is closed, not given back, when the session leaves it.
    spent: bool,
    subscriptions: Subscriptions,
    /// The reply to an `EXEC` that is taken element by element.
    unfolding: Option<Unfolding>,
    /// What the subscription under way adds, to be forgotten when the server refuses it.
    subscribing: Vec<Bytes>,
    /// A pause that the server has not answered yet.
    pausing: Option<Pausing>,
    upload: Option<Upload>,
    blocked: Option<Blocked>,
    /// The old master unblocked the command; it is sent again to the new one.
    reissue: bool,
    /// The place among those whom a release waits for, while messages are received.
    receiver: Option<Receiver>,
    /// The old node was asked to say everything it has sent before the connection is left.
    flushed: bool,
    /// The frame that is arriving was not asked for.
    unasked: bool,
    watch: GateWatch,
    /// Since when the request in front has been held.
    held_since: Option<Instant>,
    /// When the node that the route has left, or the one that is moved to, must have answered.
    reply_due: Option<Instant>,
    /// Replies that the proxy reads itself, as far as they have come.
    collected: BytesMut,
}

impl Session {
    /// Runs requests on a connection of their own until none is needed any more.
    pub(super) async fn relay(&mut self) -> Result<(), Closed> {
        let link = match self.connect_for_front().await? {
            Ok(link) => link,
            Err(text) => return self.refuse_front(&text).await,
        };
        Relay::new(self, link).run().await
    }
}

impl<'s> Relay<'s> {
    fn new(session: &'s mut Session, (epoch, links, link): OwnLink) -> Self {
        let watch = session.seat.gate.watch();
        let gate = Rc::clone(&session.seat.gate);
        let shown = Shown::of(session);
        let mut relay = Self {
            session,
            shown,
            epoch,
            links,
            link,
            link_ended: false,
            out: BytesMut::new(),
            expects: Expects::new(gate),
            transaction: None,
            queueing: Queueing::Clean,
            withheld: None,
            refused_transaction: None,
            withheld_queue: false,
            refusal_line: Bytes::new(),
            watching: false,
            watch_lost: false,
            keeps: Keeps::Nothing,
            tracking: Tracking::Off,
            target: None,
            spent: false,
            subscriptions: Subscriptions::default(),
            unfolding: None,
            subscribing: Vec::new(),
            pausing: None,
            upload: None,
            blocked: None,
            reissue: false,
            unasked: false,
            receiver: None,
            flushed: false,
            watch,
            held_since: None,
            reply_due: None,
            collected: BytesMut::new(),
        };
        relay.arrived();
        relay
    }

    async fn run(mut self) -> Result<(), Closed> {
        self.wear_name();
        loop {
            if self.reissue {
                Box::pin(self.reissue_blocked()).await?;
            }
            let feed = self.feed()?;
            match feed {
                Feed::Leave => {
                    self.leave();
                    return Ok(());
                }
                Feed::Answer(local @ (Local::Reset | Local::Quit | Local::HangUp), len) => {
                    // The connection's state ends with the connection.
                    return Box::pin(self.session.answer(local, len)).await;
                }
                Feed::Hold => self.note_held()?,
                Feed::Read | Feed::Wait | Feed::Room | Feed::Backlog => self.held_since = None,
                aside => {
                    // Boxed: who waits for messages is not to be as large as what is rarely done.
                    Box::pin(self.step_aside(aside)).await?;
                    continue;
                }
            }
            self.show();
            self.wait(&feed).await?;
            self.deal()?;
            self.show();
        }
    }

    /// Does what takes more than passing on.
    async fn step_aside(&mut self, feed: Feed) -> Result<(), Closed> {
        match feed {
            Feed::Carry => self.carry().await,
            Feed::Refused => self.refused().await,
            Feed::CallBack => self.call_back().await,
            Feed::Target(len) => self.name_target(len).await,
            Feed::Answer(local, len) => self.answer(local, len).await,
            Feed::Tunnel(len) => self.tunnel(len).await,
            Feed::Scripts(len) => self.bring_scripts(len).await,
            Feed::Scan(len) => self.session.scan(len).await,
            Feed::Read | Feed::Wait | Feed::Room | Feed::Backlog | Feed::Hold | Feed::Leave => {
                Ok(())
            }
        }
    }

    fn note_held(&mut self) -> Result<(), Closed> {
        if self.session.eof {
            return Err(Closed::GoneWhileHeld);
        }
        self.watch.write_waits();
        if self.held_since.is_none() {
            self.held_since = Some(Instant::now());
        }
        Ok(())
    }

    fn has_moved(&self) -> bool {
        self.session.seat.epoch() != self.epoch
    }

    /// At shutdown nobody waits for what has not been asked yet, nor for a blocked command.
    fn may_stop(&self) -> bool {
        self.expects.is_empty() || self.blocked.is_some()
    }

    /// Nothing is expected, open or unknown on the connection.
    fn is_clean(&self) -> bool {
        self.expects.is_empty()
            && self.out.is_empty()
            && self.transaction.is_none()
            && !self.watching
            && !self.watch_lost
            && self.keeps == Keeps::Nothing
            && !self.tracking.is_on()
            && !self.shown.0.is_wanted()
            && !self.session.modes.any()
            && self.upload.is_none()
            && self.unfolding.is_none()
    }

    fn leave(self) {
        self.shown.0.has_upstream(None);
        let claimed = self.shown.0.was_claimed();
        if !self.has_moved() && !self.link_ended && !self.spent && !claimed {
            self.links.pool.give_back(self.link);
        }
    }

    async fn answer(&mut self, local: Local, len: usize) -> Result<(), Closed> {
        match local {
            Local::ClientUnblock => self.unblock(len).await,
            _ => self.session.answer(local, len).await,
        }
    }

    /// Waits until something has happened that may let [`Relay::feed`] go on.
    async fn wait(&mut self, feed: &Feed) -> Result<(), Closed> {
        self.session.outbox.flush_now();
        let deadline = self.deadline();
        let timer = sleep_until(deadline.unwrap_or_else(Instant::now));
        tokio::pin!(timer);
        let woken = poll_fn(|context| {
            if let Poll::Ready(woken) = self.poll_events(context, feed) {
                return Poll::Ready(woken);
            }
            if deadline.is_some() {
                return timer.as_mut().poll(context).map(|()| Woken::Deadline);
            }
            Poll::Pending
        })
        .await;
        match woken {
            Woken::Deadline => Box::pin(self.deadline_passed()).await,
            Woken::ClientGone => self.client_gone(feed),
            Woken::LinkEnded => {
                self.link_ended = true;
                Ok(())
            }
            Woken::Events => Ok(()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let held = self
            .held_since
            .map(|since| since + self.session.seat.limits.hold_budget);
        held.into_iter().chain(self.reply_due).min()
    }

    async fn deadline_passed(&mut self) -> Result<(), Closed> {
        if self.reply_due.is_some() {
            let crowded = self.session.outbox.is_crowded();
            if !crowded || self.is_reopening() || self.expects.any_write() {
                return Err(self.unanswered());
            }
            // The server is not read, because the client takes nothing.
            self.reply_due = None;
            return Ok(());
        }
        self.held_since = None;
        if !self.expects.is_empty() || self.upload.is_some() {
            return Err(Closed::NotCarried);
        }
        let text = self.session.budget_spent_text();
        if self.transaction.is_some() {
            return self.refuse_in_transaction(&text);
        }
        self.session.refuse_front(&text).await
    }

    /// How a session ends whose server does not answer.
    fn unanswered(&self) -> Closed {
        match self.expects.any_write() {
            true => Closed::AmbiguousWrite,
            false => Closed::NotCarried,
        }
    }

    /// A command that was held too long fails its transaction; `EXEC` itself ends it.
    fn refuse_in_transaction(&mut self, text: &str) -> Result<(), Closed> {
        let limits = &self.session.seat.limits.request;
        let front = self.session.scanner.scan(&self.session.input, limits);
        let Ok(Request::Complete {
            len,
            form: Form::Multibulk,
        }) = front
        else {
            return Err(Closed::NotCarried);
        };
        if self.session.verdict(&self.session.input).path == Path::Pinned(Pin::Exec) {
            self.session.input.advance(len);
            self.give_up_transaction(text);
        } else {
            self.refuse(len, text);
        }
        Ok(())
    }

    fn poll_events(&mut self, context: &mut Context<'_>, feed: &Feed) -> Poll<Woken> {
        let session = &mut *self.session;
        session.outbox.remember(context.waker());
        self.watch.register(context.waker());
        if session.outbox.state() != OutboxState::Open {
            return Poll::Ready(Woken::Events);
        }
        if *feed == Feed::Hold && session.poll_hung_up(context) {
            return Poll::Ready(Woken::ClientGone);
        }
        if session.outbox.backlog() > 0 {
            let _ = session.outbox.poll_flushed(context);
        }
        let taken = session.outbox.poll_room(context).is_ready();
        let gate = session.seat.gate.state();
        let gate_open = gate == GateState::Open && session.seat.has_master();
        let moved = session.seat.epoch() != self.epoch && self.reply_due.is_none();
        let stops = session.seat.is_stopping() && self.may_stop() || self.is_called_back();
        if (*feed == Feed::Backlog && taken) || (*feed == Feed::Hold && gate_open) || moved || stops
        {
            return Poll::Ready(Woken::Events);
        }
        match self.poll_out(context) {
            Poll::Ready(Err(_)) => return Poll::Ready(Woken::LinkEnded),
            Poll::Ready(Ok(())) if *feed == Feed::Room => return Poll::Ready(Woken::Events),
            _ => {}
        }
        let mut woken = Poll::Pending;
        if (taken || self.must_hear(gate)) && !self.link_ended {
            self.link.input.reserve(READ_BYTES);
            let input = &mut self.link.input;
            match poll_read_buf(std::pin::Pin::new(&mut self.link.read), context, input) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Woken::LinkEnded),
                Poll::Ready(Ok(_)) => {
                    // A node that the route has left may take its time as long as something comes.
                    self.reply_due = self.reply_due.filter(|_| self.is_reopening());
                    woken = Poll::Ready(Woken::Events);
                }
                Poll::Pending => {}
            }
        }
        if self.wants_client(feed) && self.session.poll_read(context).is_ready() {
            let gone = self.session.eof;
            return Poll::Ready(if gone {
                Woken::ClientGone
            } else {
                Woken::Events
            });
        }
        woken
    }

    /// Whether the server is read although the client takes nothing: its write keeps nobody waiting
    /// who holds, or is waited for on a node that was left, and what is opened anew is for the proxy.
    fn must_hear(&self, gate: GateState) -> bool {
        let left = gate == GateState::Holding || self.has_moved();
        if !(left && self.expects.any_write() || self.is_reopening()) {
            return false;
        }
        let most = self.session.seat.limits.output_buffer_bytes_max / 2;
        self.session.outbox.backlog() < most
    }

    /// The client is read even while its requests wait, up to a limit: its hanging up must be
    /// seen.
    fn wants_client(&self, feed: &Feed) -> bool {
        let limit = match feed {
            Feed::Read => usize::MAX,
            _ => self.session.seat.limits.session_buffer_bytes_max,
        };
        !self.session.eof && self.session.input.len() < limit
    }

    fn client_gone(&mut self, feed: &Feed) -> Result<(), Closed> {
        if *feed == Feed::Hold {
            return Err(Closed::GoneWhileHeld);
        }
        if self.waits_on_server() || self.expects.is_empty() {
            return Err(Closed::ClientGone);
        }
        // Replies to what was asked before are still delivered; `feed` sees the end.
        Ok(())
    }

    /// The server may take for ever to answer. It lets go of what waits for a client that is gone.
    fn waits_on_server(&self) -> bool {
        match self.expects.front() {
            Some(Expect {
                what: Awaited::Blocking,
                ..
            }) => true,
            Some(Expect { write, .. }) => self.session.seat.pause.stops(*write),
            None => false,
        }
    }

    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_write_all(&self.link.write, &mut self.out, context)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    Events,
    Deadline,
    ClientGone,
    LinkEnded,
}

/// Whether this way of running a command keeps its connection for later.
fn keeps_after(path: &Path) -> Keeps {
    match path {
        Path::Pinned(Pin::Sticky) => Keeps::Unknown,
        Path::Pinned(Pin::Monitor) => Keeps::Monitor,
        _ => Keeps::Nothing,
    }
}
