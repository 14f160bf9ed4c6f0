//! The requests of a lane from the moment in which they are queued until their replies are here.
//!
//! They are kept where they were queued: a request that the server refuses, in words which prove
//! that it was not executed, is taken out again and sent to another master.
//!
//! **Invariant:** what has been answered is the beginning of what has been sent.
//!
//! # Trade-offs
//! Keeping them costs no copy, only memory for as long as the server takes to answer. A copy per
//! session would cost a second memcpy per request.

use std::io;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};

use super::connection::poll_write_from;
use crate::resp::scan::{Form, Request, RequestLimits, RequestScanner};
use crate::transport::WriteHalf;

/// Lanes carry what sessions have scanned within their own limits.
const NO_LIMITS: RequestLimits = RequestLimits {
    inline_bytes_max: usize::MAX,
    elements_max: u64::MAX,
    bulk_bytes_max: u64::MAX,
};

/// A larger buffer is given back to the allocator once it is empty.
const KEEP_BYTES: usize = 256 * 1024;

/// Queued requests, oldest first: sent and unanswered ones, then unsent ones.
#[derive(Debug, Default)]
pub(super) struct OnWay {
    bytes: BytesMut,
    sent: usize,
}

impl OnWay {
    #[inline]
    pub(super) fn push(&mut self, requests: &[u8]) {
        self.bytes.extend_from_slice(requests);
    }

    /// Bytes of all requests that have no reply yet.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes what is unsent. `Pending`: the server reads too slowly.
    pub(super) fn poll_send(
        &mut self,
        write: &WriteHalf,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        poll_write_from(write, &self.bytes, &mut self.sent, context)
    }

    /// The oldest `len` bytes have been answered. `None`: they have not even been sent.
    #[inline]
    pub(super) fn answered(&mut self, len: usize) -> Option<()> {
        self.sent = self.sent.checked_sub(len)?;
        self.bytes.advance(len);
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_BYTES {
            self.bytes = BytesMut::new();
        }
        Some(())
    }

    /// Of the requests that begin `at` bytes behind the beginning of the oldest and are `len` bytes
    /// long, those behind the first `skipped`.
    pub(super) fn behind(&self, mut at: usize, len: usize, skipped: usize) -> Option<&[u8]> {
        let end = at.checked_add(len)?;
        for _ in 0..skipped {
            at += self.request(at)?.len();
        }
        self.bytes.get(at..end)
    }

    /// The request that begins `at` bytes behind the beginning of the oldest.
    pub(super) fn request(&self, at: usize) -> Option<&[u8]> {
        let rest = self.bytes.get(at..)?;
        rest.get(..request_len(rest)?)
    }
}

/// The length of the request that `bytes` begin with.
pub fn request_len(bytes: &[u8]) -> Option<usize> {
    match RequestScanner::default().scan(bytes, &NO_LIMITS) {
        Ok(Request::Complete {
            len,
            form: Form::Multibulk,
        }) => Some(len),
        _ => None,
    }
}
