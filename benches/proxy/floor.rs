//! A server that reads writes and says OK to each, on the runtime of a worker: where everything
//! else is the kernel's, so that no proxy in this shape can cost less. Run as a program of its own.
//!
//! **Invariant:** it is only sent what redis-benchmark sends: `*` begins a request, and is nowhere
//! else in one.

use std::convert::Infallible;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// As much as a session reads at once.
const READ_BYTES: usize = 16 * 1024;
/// More than are pipelined.
const REPLIES_MAX: usize = 4096;

/// Until it is killed.
pub async fn serve(addr: &str) -> io::Result<Infallible> {
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        // A client that has gone is no error.
        tokio::spawn(async move { answer(client).await.unwrap_or_default() });
    }
}

async fn answer(mut client: TcpStream) -> io::Result<()> {
    let (mut read, replies) = (vec![0; READ_BYTES], b"+OK\r\n".repeat(REPLIES_MAX));
    loop {
        let asked = match client.read(&mut read).await? {
            0 => return Ok(()),
            count => read.get(..count).unwrap_or_default(),
        };
        if asked.windows(4).any(|word| word == b"PING") {
            client.write_all(b"+PONG\r\n").await?;
            continue;
        }
        let begun = asked.iter().filter(|byte| **byte == b'*').count();
        let replies = replies.get(..5 * begun).unwrap_or(&replies);
        client.write_all(replies).await?;
    }
}
