//! Ports of this machine for programs that want to be told where to listen.
//!
//! **Invariant:** until the [`Port`] is dropped, nobody is given the same port by the kernel,
//! neither to listen nor to connect from; also not while the program that listens there is dead.
//!
//! The port stays bound by a socket that does not listen. Linux lets another socket bind and
//! listen there when both allow reuse (`SO_REUSEADDR`, as all servers set it) and none of the others
//! listens (socket(7)), and passes the port over when it chooses one itself. Connections to it are
//! refused, as everywhere where nobody listens.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

#[derive(Debug)]
pub struct Port {
    addr: SocketAddr,
    _bound: Socket,
}

impl Port {
    /// One that the kernel chooses.
    pub fn reserve() -> io::Result<Port> {
        Port::reserve_at(Ipv4Addr::LOCALHOST)
    }

    /// The same at another address of this machine.
    pub fn reserve_at(host: Ipv4Addr) -> io::Result<Port> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((host, 0)).into())?;
        let addr = socket.local_addr()?.as_socket();
        Ok(Port {
            addr: addr.ok_or(io::ErrorKind::AddrNotAvailable)?,
            _bound: socket,
        })
    }

    pub fn number(&self) -> u16 {
        self.addr.port()
    }

    /// As `host:port`.
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_port_is_there_for_its_server_alone_and_refuses_until_it_listens() {
        let port = Port::reserve().unwrap();
        let refused = TcpStream::connect(port.addr()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        for _life in 0..2 {
            let listener = TcpListener::bind(port.addr()).unwrap();
            let _client = TcpStream::connect(port.addr()).unwrap();
            listener.accept().unwrap();
        }
    }
}
