//! Requests too large to be collected, passed on in pieces. A server executes such a request when
//! its end is there, so until then it is not in flight: a hold does not wait for it. What has been
//! sent is kept, and sent again when the master changes before the end.
//!
//! **Invariants:** the pieces kept by all uploads of a worker are at most
//! `upload_buffer_bytes_max` bytes. An upload for which there is no room there is streamed all the
//! same, and its client's connection is closed if the master changes before its end: nothing of it
//! was executed, and nobody else could send its beginning again.
//!
//! # Trade-offs
//! The pieces are the buffers that were read into, handed on and not copied. They are kept once the
//! server has them too, because no other node has.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::super::seat::Seat;
use super::super::state::Closed;
use super::{Feed, OUT_BYTES_MAX, Relay};
use crate::resp::command::Verdict;

/// A request that is being passed on in pieces.
#[derive(Debug)]
pub(super) struct Upload {
    pub verdict: Verdict,
    /// The rest of it is here, this many bytes, and waits for the gate.
    pub end: Option<usize>,
    seat: Rc<Seat>,
    pieces: Pieces,
}

#[derive(Debug)]
enum Pieces {
    /// Everything sent so far, and how many pieces of it this connection has been given.
    Kept { all: Vec<Bytes>, given: usize },
    /// There was no room for them.
    Lost,
}

impl Upload {
    pub(super) fn new(verdict: Verdict, seat: &Rc<Seat>) -> Self {
        Self {
            verdict,
            end: None,
            seat: Rc::clone(seat),
            pieces: Pieces::Kept {
                all: Vec::new(),
                given: 0,
            },
        }
    }

    /// Takes note of a piece that is being sent.
    pub(super) fn keep(&mut self, piece: Bytes) {
        let seat = &self.seat;
        let Pieces::Kept { all, given } = &mut self.pieces else {
            return;
        };
        let kept = seat.upload_bytes.get().saturating_add(piece.len());
        if kept > seat.limits.upload_buffer_bytes_max {
            self.forget();
            return;
        }
        seat.upload_bytes.set(kept);
        all.push(piece);
        *given = all.len();
    }

    fn forget(&mut self) {
        if let Pieces::Kept { all, .. } = &self.pieces {
            let bytes: usize = all.iter().map(Bytes::len).sum();
            let left = self.seat.upload_bytes.get().saturating_sub(bytes);
            self.seat.upload_bytes.set(left);
        }
        self.pieces = Pieces::Lost;
    }

    /// Whether it can be begun again elsewhere.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.pieces, Pieces::Kept { .. })
    }

    /// All of it that has been sent.
    pub(super) fn whole(&self) -> Option<Bytes> {
        let Pieces::Kept { all, .. } = &self.pieces else {
            return None;
        };
        let mut whole = BytesMut::with_capacity(all.iter().map(Bytes::len).sum());
        for piece in all {
            whole.extend_from_slice(piece);
        }
        Some(whole.freeze())
    }

    /// Everything has to be sent once more.
    pub(super) fn begin_again(&mut self) {
        if let Pieces::Kept { given, .. } = &mut self.pieces {
            *given = 0;
        }
    }

    /// The next piece that this connection has not been given.
    fn next(&mut self) -> Option<Bytes> {
        let Pieces::Kept { all, given } = &mut self.pieces else {
            return None;
        };
        let piece = all.get(*given)?.clone();
        *given += 1;
        Some(piece)
    }

    fn is_given(&self) -> bool {
        match &self.pieces {
            Pieces::Kept { all, given } => *given == all.len(),
            Pieces::Lost => true,
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Relay<'_> {
    /// What has to be waited for before the upload under way can go on.
    pub(super) fn upload_first(&mut self) -> Result<Option<Feed>, Closed> {
        if self.upload.as_ref().is_none_or(Upload::is_given) {
            return Ok(None);
        }
        if let Some(feed) = self.reopen_for_upload()? {
            return Ok(Some(feed));
        }
        Ok((!self.upload_again()).then_some(Feed::Room))
    }

    /// The transaction that a large request belongs to has to be open before it. Where that cannot
    /// be, nothing can stand for the request, whose end is still to come.
    pub(super) fn reopen_for_upload(&mut self) -> Result<Option<Feed>, Closed> {
        let feed = self.reopen_transaction();
        if feed.is_none() && self.is_broken() {
            return Err(Closed::NotCarried);
        }
        Ok(feed)
    }

    /// Sends again what another master was sent of an upload, as much as there is room for. Says
    /// whether all of it is on its way.
    fn upload_again(&mut self) -> bool {
        let Some(upload) = &mut self.upload else {
            return true;
        };
        while self.out.len() <= OUT_BYTES_MAX
            && let Some(piece) = upload.next()
        {
            self.out.extend_from_slice(&piece);
        }
        upload.is_given()
    }
}
