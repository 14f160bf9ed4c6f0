//! `CLIENT TRACKING`: what a session has switched on, so that another node can be told the same.
//!
//! The node that a session leaves remembers which keys the client may have in its cache; the next
//! one does not, and cannot be told. So tracking is switched on there before anything else of the
//! session is sent, and then the client is told to forget everything it has cached. Until it has
//! been told, writes stay held: a session that tracks is one that receives (see [`Gate::receive`]),
//! like a subscriber.
//!
//! **Invariant:** what stands here is what the server has confirmed. A connection on which tracking
//! was ever on is never given back: the server goes on to remember keys for it.
//!
//! [`Gate::receive`]: crate::shard::gate::Gate::receive

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use super::{Awaited, Relay};
use crate::resp::scan::{ReplyKind, args, write_request};
use crate::upstream::trial;

/// Prefixes that one session may have asked for, and bytes of all of them together.
const PREFIXES_MAX: usize = 4096;
const PREFIX_BYTES_MAX: usize = 1 << 20;

/// Asks the server what is switched on, when the answer to the change itself is not at hand.
pub(super) const ASK: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$12\r\nTRACKINGINFO\r\n";
/// What a server says to a client with RESP3 when all its keys are gone.
pub(super) const FORGET_ALL: &[u8] = b">2\r\n$10\r\ninvalidate\r\n_\r\n";

/// Client-side caching of one session.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::client) enum Tracking {
    #[default]
    Off,
    On(Options),
}

/// How tracking was switched on.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::client) struct Options {
    /// The client that the invalidations are for, as this one named it.
    pub redirect: Option<u64>,
    pub keys: Keys,
    pub no_loop: bool,
    /// `CLIENT CACHING` was said, and counts for the next command.
    pub caching_said: bool,
}

/// Which keys are tracked.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::client) enum Keys {
    /// Those that are read.
    #[default]
    Read,
    /// Those that are read after `CLIENT CACHING YES`.
    OptedIn,
    /// Those that are read, but not after `CLIENT CACHING NO`.
    NotOptedOut,
    /// All that begin like one of these; the empty prefix stands for all keys.
    Broadcast(BTreeSet<Bytes>),
}

/// What a request asks for, to be done when the server agrees.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    Off,
    On(Options),
    /// `CLIENT CACHING`.
    Caching,
}

impl Change {
    /// What `CLIENT TRACKING` or `CLIENT CACHING` asks for. Requests that the server will refuse
    /// are read as if they were right.
    pub(super) fn read(request: &[u8]) -> Self {
        let mut words = args(request).skip(1);
        let is_caching = words
            .next()
            .is_some_and(|sub| sub.eq_ignore_ascii_case(b"CACHING"));
        if is_caching {
            return Self::Caching;
        }
        if !words
            .next()
            .is_some_and(|on| on.eq_ignore_ascii_case(b"ON"))
        {
            return Self::Off;
        }
        let mut options = Options::default();
        let mut broadcast = false;
        let mut prefixes = BTreeSet::new();
        while let Some(word) = words.next() {
            let is = |option: &[u8]| word.eq_ignore_ascii_case(option);
            if is(b"BCAST") {
                broadcast = true;
            } else if is(b"OPTIN") {
                options.keys = Keys::OptedIn;
            } else if is(b"OPTOUT") {
                options.keys = Keys::NotOptedOut;
            } else if is(b"NOLOOP") {
                options.no_loop = true;
            } else if is(b"REDIRECT") {
                options.redirect = words.next().and_then(number).filter(|id| *id > 0);
            } else if is(b"PREFIX") {
                prefixes.extend(words.next().map(Bytes::copy_from_slice));
            }
        }
        if broadcast {
            if prefixes.is_empty() {
                prefixes.insert(Bytes::new());
            }
            options.keys = Keys::Broadcast(prefixes);
        }
        Self::On(options)
    }
}

impl Tracking {
    pub(super) fn is_on(&self) -> bool {
        *self != Self::Off
    }

    /// The client that the invalidations are for, if not this one.
    pub(super) fn redirect(&self) -> Option<u64> {
        match self {
            Self::On(options) => options.redirect,
            Self::Off => None,
        }
    }

    /// Whether a change would leave more prefixes than are kept.
    pub(super) fn is_too_much(&self, change: &Change) -> bool {
        let kept = match self {
            Self::On(options) => options.prefixes().collect(),
            Self::Off => Vec::new(),
        };
        let Change::On(options) = change else {
            return false;
        };
        let all = || kept.iter().copied().chain(options.prefixes());
        all().count() > PREFIXES_MAX || all().map(Bytes::len).sum::<usize>() > PREFIX_BYTES_MAX
    }

    /// The server has agreed to a change.
    pub(super) fn become_changed(&mut self, change: Change) {
        match (change, self) {
            (Change::Off, tracking) => *tracking = Self::Off,
            (Change::Caching, Self::On(options)) => options.caching_said = true,
            (Change::Caching, Self::Off) => {}
            (Change::On(mut options), tracking) => {
                if let (Self::On(before), Keys::Broadcast(all)) = (&*tracking, &mut options.keys) {
                    all.extend(before.prefixes().cloned());
                }
                *tracking = Self::On(options);
            }
        }
    }

    /// A command other than `CLIENT` was executed, which ends what `CLIENT CACHING` said.
    pub(super) fn command_executed(&mut self) {
        if let Self::On(options) = self {
            options.caching_said = false;
        }
    }

    /// Takes over what `CLIENT TRACKINGINFO` answers; `redirect` is the client that the session
    /// named. `None` when the answer is not understood.
    pub(super) fn from_info(info: &[u8], redirect: Option<u64>) -> Option<Self> {
        let mut tokens = Tokens::new(info);
        if tokens.next()? != b"flags" {
            return None;
        }
        let mut options = Options::default();
        let mut broadcast = false;
        loop {
            match tokens.next()? {
                b"redirect" => break,
                b"off" => return Some(Self::Off),
                b"bcast" => broadcast = true,
                b"optin" => options.keys = Keys::OptedIn,
                b"optout" => options.keys = Keys::NotOptedOut,
                b"noloop" => options.no_loop = true,
                _ => {}
            }
        }
        let is_redirected = tokens.next().and_then(number).is_some_and(|id| id > 0);
        options.redirect = redirect.filter(|_| is_redirected);
        if tokens.next()? != b"prefixes" {
            return None;
        }
        if broadcast {
            options.keys = Keys::Broadcast(tokens.map(Bytes::copy_from_slice).collect());
        }
        Some(Self::On(options))
    }
}

impl Options {
    fn prefixes(&self) -> impl Iterator<Item = &Bytes> {
        match &self.keys {
            Keys::Broadcast(prefixes) => Some(prefixes.iter()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// The requests that switch the same on on a connection that has nothing on; `redirect` is the
    /// server's own id of the client that the invalidations are for.
    pub(super) fn requests(&self, redirect: Option<u64>) -> Vec<BytesMut> {
        let id = redirect.map(|id| id.to_string());
        let mut words: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON"];
        if let Some(id) = &id {
            words.extend([&b"REDIRECT"[..], id.as_bytes()]);
        }
        if self.no_loop {
            words.push(b"NOLOOP");
        }
        match &self.keys {
            Keys::Read => {}
            Keys::OptedIn => words.push(b"OPTIN"),
            Keys::NotOptedOut => words.push(b"OPTOUT"),
            Keys::Broadcast(_) => words.push(b"BCAST"),
        }
        let mut requests = Vec::new();
        let mut add = |words: &[&[u8]]| {
            let mut request = BytesMut::new();
            write_request(&mut request, words);
            requests.push(request);
        };
        // The prefix of all keys overlaps with every other: a server grants it beside others only
        // to who does not name it.
        let named: Vec<&Bytes> = self.prefixes().filter(|one| !one.is_empty()).collect();
        let all_keys = self.prefixes().any(Bytes::is_empty);
        if !named.is_empty() {
            let mut words = words.clone();
            for prefix in &named {
                words.extend([&b"PREFIX"[..], prefix]);
            }
            add(&words);
        }
        if all_keys || named.is_empty() {
            add(&words);
        }
        requests
    }

    /// The request that makes [`Options::caching_said`] true again.
    pub(super) fn caching(&self) -> Option<&'static [u8]> {
        match self.keys {
            Keys::OptedIn if self.caching_said => {
                Some(b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n")
            }
            Keys::NotOptedOut if self.caching_said => {
                Some(b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n")
            }
            _ => None,
        }
    }
}

impl Relay<'_> {
    /// Passes on `CLIENT TRACKING` or `CLIENT CACHING`.
    pub(super) fn pass_on_tracking(&mut self, request: &Bytes) {
        let change = Change::read(request);
        if self.tracking.is_too_much(&change) {
            self.send_own(trial::request(), Awaited::Substitute(too_much()));
            return;
        }
        let asked = self.with_target(request);
        let what = Awaited::Tracking(Box::new(change));
        self.send_instead(&asked, request, what, false);
    }

    /// The server has agreed to a change.
    pub(super) fn track(&mut self, change: Change) {
        self.tracking.become_changed(change);
        self.tracking_changed();
    }

    /// The open transaction changes this. The error, when that is more than is kept.
    pub(super) fn will_track(&mut self, change: Change) -> Result<(), Vec<u8>> {
        let now = &self.tracking;
        if change != Change::Caching
            && let Some(open) = &mut self.transaction
        {
            let tracks = open.tracks.get_or_insert_with(|| Box::new(now.clone()));
            if tracks.is_too_much(&change) {
                return Err(too_much());
            }
            tracks.become_changed(change);
        }
        Ok(())
    }

    /// The server has said what is on, in `info`, behind a transaction that `asked` for it. It says
    /// nothing to who has subscribed in the same transaction, in RESP2: then that was executed.
    pub(super) fn tracking_told(&mut self, info: &[u8], kind: ReplyKind, asked: Tracking) {
        match Tracking::from_info(info, asked.redirect()) {
            Some(told) => self.tracking = told,
            None if kind == ReplyKind::Error && self.only_listens() => self.tracking = asked,
            None => self.keeps_unknown(),
        }
        self.tracking_changed();
    }

    fn tracking_changed(&mut self) {
        self.session.redirect = self.tracking.redirect();
        if self.tracking.is_on() {
            self.spent = true;
            self.become_receiver();
        } else {
            self.receives_less();
        }
    }
}

fn too_much() -> Vec<u8> {
    format!("-ERR more than {PREFIXES_MAX} prefixes\r\n").into_bytes()
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// The strings and numbers of a reply, without the aggregates around them.
pub(super) struct Tokens<'r>(&'r [u8]);

impl<'r> Tokens<'r> {
    pub(super) fn new(reply: &'r [u8]) -> Self {
        Self(reply)
    }
}

impl<'r> Iterator for Tokens<'r> {
    type Item = &'r [u8];

    fn next(&mut self) -> Option<&'r [u8]> {
        loop {
            let end = self.0.windows(2).position(|window| window == b"\r\n")?;
            let line = self.0.get(..end)?;
            self.0 = self.0.get(end + 2..)?;
            match line.split_first()? {
                (b'*' | b'%' | b'~', _) => {}
                (b'$', len) => {
                    let len = usize::try_from(number(len)?).ok()?;
                    let text = self.0.get(..len)?;
                    self.0 = self.0.get(len.checked_add(2)?..)?;
                    return Some(text);
                }
                (_, text) => return Some(text),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(words: &str) -> Change {
        let words: Vec<&str> = words.split(' ').collect();
        let mut request = BytesMut::new();
        write_request(&mut request, &words);
        Change::read(&request)
    }

    fn tracking(changes: &[&str]) -> Tracking {
        let mut tracking = Tracking::Off;
        for words in changes {
            tracking.become_changed(change(words));
        }
        tracking
    }

    fn check(changes: &[&str], again: &[&str]) {
        let Tracking::On(options) = tracking(changes) else {
            panic!("{changes:?} leave it off");
        };
        let requests: Vec<String> = options
            .requests(options.redirect)
            .iter()
            .map(|request| {
                let words: Vec<_> = args(request).map(String::from_utf8_lossy).collect();
                words.join(" ")
            })
            .collect();
        assert_eq!(requests, again, "{changes:?}");
    }

    #[test]
    fn what_was_switched_on_is_switched_on_again() {
        check(&["CLIENT TRACKING on"], &["CLIENT TRACKING ON"]);
        check(
            &["CLIENT TRACKING ON OPTIN REDIRECT 7 NOLOOP"],
            &["CLIENT TRACKING ON REDIRECT 7 NOLOOP OPTIN"],
        );
        check(
            &["CLIENT TRACKING ON OPTOUT"],
            &["CLIENT TRACKING ON OPTOUT"],
        );
        check(&["CLIENT TRACKING ON BCAST"], &["CLIENT TRACKING ON BCAST"]);
    }

    #[test]
    fn prefixes_add_up_and_options_do_not() {
        check(
            &[
                "CLIENT TRACKING ON BCAST PREFIX b NOLOOP",
                "CLIENT TRACKING ON PREFIX a BCAST",
            ],
            &["CLIENT TRACKING ON BCAST PREFIX a PREFIX b"],
        );
        check(
            &[
                "CLIENT TRACKING ON BCAST PREFIX b",
                "CLIENT TRACKING ON BCAST",
            ],
            &[
                "CLIENT TRACKING ON BCAST PREFIX b",
                "CLIENT TRACKING ON BCAST",
            ],
        );
        let off = tracking(&["CLIENT TRACKING ON BCAST PREFIX b", "CLIENT TRACKING OFF"]);
        assert_eq!(off, Tracking::Off);
    }

    #[test]
    fn caching_counts_until_the_next_command() {
        let mut tracking = tracking(&["CLIENT TRACKING ON OPTIN", "CLIENT CACHING YES"]);
        let said = |tracking: &Tracking| match tracking {
            Tracking::On(options) => options.caching().is_some(),
            Tracking::Off => false,
        };
        assert!(said(&tracking));
        tracking.command_executed();
        assert!(!said(&tracking));
    }

    #[test]
    fn a_servers_own_account_is_understood() {
        let off = b"*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n\
                    $8\r\nprefixes\r\n*0\r\n";
        assert_eq!(Tracking::from_info(off, None), Some(Tracking::Off));
        let on = b"%3\r\n$5\r\nflags\r\n~3\r\n$2\r\non\r\n$5\r\nbcast\r\n$6\r\nnoloop\r\n\
                   $8\r\nredirect\r\n:0\r\n$8\r\nprefixes\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        let expected = tracking(&["CLIENT TRACKING ON BCAST NOLOOP PREFIX a PREFIX b"]);
        assert_eq!(Tracking::from_info(on, Some(7)), Some(expected));
        assert_eq!(Tracking::from_info(b"-ERR unknown\r\n", None), None);
    }

    #[test]
    fn more_prefixes_than_are_kept_are_too_much() {
        let many = |count: usize| {
            let words: Vec<String> = (0..count).map(|at| format!("PREFIX {at}.")).collect();
            change(&format!("CLIENT TRACKING ON BCAST {}", words.join(" ")))
        };
        let mut tracking = Tracking::Off;
        assert!(!tracking.is_too_much(&many(PREFIXES_MAX)));
        assert!(tracking.is_too_much(&many(PREFIXES_MAX + 1)));
        tracking.become_changed(many(PREFIXES_MAX));
        assert!(tracking.is_too_much(&change("CLIENT TRACKING ON BCAST PREFIX x")));
    }
}
