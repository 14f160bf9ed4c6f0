//! The two halves of a connection, as the data path reads and writes them.
//!
//! Plain, they are tokio's own. In TLS, both ends of the traffic go through one session, which the
//! halves share; they live on one thread, so that needs no lock.
//!
//! **Invariant:** what a [`WriteHalf`] has accepted is not on its way before [`try_flush`] has
//! said so: in TLS it may wait, encrypted, for room in the socket. Plain, nothing ever waits here.
//!
//! [`try_flush`]: WriteHalf::try_flush

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::socket::TlsSocket;

/// The half that is read.
#[derive(Debug)]
pub enum ReadHalf {
    Plain(OwnedReadHalf),
    Tls(Rc<TlsSocket>),
}

/// The half that is written; dropped, it tells the peer that no more will come.
#[derive(Debug)]
pub enum WriteHalf {
    Plain(OwnedWriteHalf),
    Tls(TlsWrite),
}

/// Makes both halves of a connection in TLS.
pub(super) fn halves(socket: TcpStream, session: rustls::Connection) -> (ReadHalf, WriteHalf) {
    let shared = Rc::new(TlsSocket::new(socket, session));
    let write = TlsWrite(Rc::clone(&shared));
    (ReadHalf::Tls(shared), WriteHalf::Tls(write))
}

impl ReadHalf {
    /// Reads what is there without waiting.
    pub fn try_read(&self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            ReadHalf::Plain(read) => read.try_read(out),
            ReadHalf::Tls(shared) => shared.try_read(&mut ReadBuf::new(out)),
        }
    }

    /// What the socket is ready for, as tokio tells it.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            ReadHalf::Plain(read) => read.ready(interest).await,
            ReadHalf::Tls(shared) => shared.socket().ready(interest).await,
        }
    }
}

impl AsyncRead for ReadHalf {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ReadHalf::Plain(read) => Pin::new(read).poll_read(context, out),
            ReadHalf::Tls(shared) => shared.poll_read(context, out),
        }
    }
}

impl WriteHalf {
    /// Accepts as much as there is room for, without waiting.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            WriteHalf::Plain(write) => write.try_write(bytes),
            WriteHalf::Tls(write) => write.0.try_write(bytes),
        }
    }

    /// `WouldBlock` while something that was accepted still waits for room in the socket.
    #[inline]
    pub fn try_flush(&self) -> io::Result<()> {
        match self {
            WriteHalf::Plain(_) => Ok(()),
            WriteHalf::Tls(write) => write.0.try_flush(),
        }
    }

    /// Whether something that was accepted still waits for room in the socket.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        match self {
            WriteHalf::Plain(_) => false,
            WriteHalf::Tls(write) => write.0.has_unsent(),
        }
    }

    /// Ready when the socket takes more.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            WriteHalf::Plain(write) => write.as_ref().poll_write_ready(context),
            WriteHalf::Tls(write) => write.0.socket().poll_write_ready(context),
        }
    }

    fn poll_until_ok<T>(
        &self,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&Self) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_write_ready(context))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_until_ok(context, |half| half.try_write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_until_ok(context, WriteHalf::try_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteHalf::Plain(write) => Pin::new(write).poll_shutdown(context),
            half @ WriteHalf::Tls(_) => {
                if let WriteHalf::Tls(write) = half {
                    write.0.say_goodbye();
                }
                ready!(Pin::new(&mut *half).poll_flush(context))?;
                if let WriteHalf::Tls(write) = half {
                    write.0.end_sending();
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// The one half of a TLS connection that ends it.
#[derive(Debug)]
pub struct TlsWrite(Rc<TlsSocket>);

/// As tokio's own half does: the peer reads the end of the stream.
impl Drop for TlsWrite {
    fn drop(&mut self) {
        self.0.say_goodbye();
        let _ = self.0.try_flush();
        self.0.end_sending();
    }
}
