//! A socket and the TLS session on it, driven without waiting and through a shared reference.
//!
//! tokio-rustls shakes hands and is then taken apart: its stream wants to be borrowed mutably and
//! polled by one task, and a lane is written by whoever has a request for it.
//!
//! **Invariant:** plain text is only accepted once everything that was encrypted before has left,
//! so at most one record buffer (64 KiB, rustls' own limit) waits here. Bytes are read from the
//! socket only when everything that was decrypted has been taken.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};
use std::net::Shutdown;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

/// Both directions of one connection.
#[derive(Debug)]
pub struct TlsSocket {
    socket: TcpStream,
    session: RefCell<Connection>,
}

impl TlsSocket {
    pub fn new(socket: TcpStream, session: Connection) -> Self {
        Self {
            socket,
            session: RefCell::new(session),
        }
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub fn poll_read(
        &self,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.take(out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done.map(|_| ())),
            }
            // Asked before every read, not only after one that found nothing: this is where tokio
            // has a task that never runs out of input let the others run.
            ready!(self.socket.poll_read_ready(context))?;
            match self.decrypt_more() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                _ => {}
            }
        }
    }

    /// Takes what is decrypted, or decrypts what the socket has; 0 is the end of the stream.
    pub fn try_read(&self, out: &mut ReadBuf<'_>) -> io::Result<usize> {
        loop {
            match self.take(out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            self.decrypt_more()?;
        }
    }

    /// Takes what is decrypted.
    fn take(&self, out: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut session = self.session.borrow_mut();
        let mut reader = session.reader();
        match reader.fill_buf() {
            Ok(plain) => {
                let taken = plain.len().min(out.remaining());
                out.put_slice(plain.get(..taken).unwrap_or_default());
                reader.consume(taken);
                Ok(taken)
            }
            // RESP says itself where a message ends: what broke off is not mistaken for whole.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Reads from the socket once and decrypts it.
    fn decrypt_more(&self) -> io::Result<()> {
        let mut session = self.session.borrow_mut();
        session.read_tls(&mut Unwaiting(&self.socket))?;
        let decrypted = session.process_new_packets();
        // Answers of the protocol itself. What finds no room leaves with the next write.
        let _ = send(&mut session, &self.socket);
        decrypted.map_err(io::Error::other)?;
        Ok(())
    }

    pub fn try_write(&self, plain: &[u8]) -> io::Result<usize> {
        let mut session = self.session.borrow_mut();
        send(&mut session, &self.socket)?;
        let accepted = session.writer().write(plain)?;
        match send(&mut session, &self.socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(accepted),
        }
    }

    pub fn try_flush(&self) -> io::Result<()> {
        send(&mut self.session.borrow_mut(), &self.socket)
    }

    pub fn has_unsent(&self) -> bool {
        self.session.borrow().wants_write()
    }

    /// Queues TLS' own end of the stream, by which the peer knows that nothing was cut off.
    pub fn say_goodbye(&self) {
        self.session.borrow_mut().send_close_notify();
    }

    /// Ends our direction of the TCP connection.
    pub fn end_sending(&self) {
        // A connection that is gone already has nothing to end.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Write);
    }
}

fn send(session: &mut Connection, socket: &TcpStream) -> io::Result<()> {
    while session.wants_write() {
        if session.write_tls(&mut Unwaiting(socket))? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// The socket as rustls wants it: `WouldBlock` where it has nothing, or no room.
struct Unwaiting<'s>(&'s TcpStream);

impl Read for Unwaiting<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(out)
    }
}

impl Write for Unwaiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
