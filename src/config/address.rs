//! `host:port` as it may stand in the config and on the command line.
//!
//! **Invariant:** nothing is resolved here; a name that no resolver knows is a valid address. Who
//! connects tells what went wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name that the domain name system knows.
const HOST_BYTES_MAX: usize = 253;

/// An address in its parts; an IPv6 host is without its brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Splits `host:port`; port 0 is accepted and means that the kernel chooses.
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressFault::NoPort)?;
        let host = parse_host(host)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(port) if digits => Ok(Address { host, port }),
            _ => Err(AddressFault::BadPort(port.to_owned())),
        }
    }

    /// Whether two listeners at these addresses would be in each other's way.
    pub fn collides_with(&self, other: &Address) -> bool {
        let same_host = self.host.eq_ignore_ascii_case(&other.host)
            || self.is_unspecified()
            || other.is_unspecified();
        self.port != 0 && self.port == other.port && same_host
    }

    /// Whether the host stands for every address of this machine.
    fn is_unspecified(&self) -> bool {
        let host = self.host.parse::<IpAddr>();
        host == Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
            || host == Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }
}

/// Checks a host alone: a name, an IPv4 address, or an IPv6 address in brackets.
pub fn parse_host(text: &str) -> Result<String, AddressFault> {
    if let Some(rest) = text.strip_prefix('[') {
        let inner = rest.strip_suffix(']').unwrap_or(rest);
        let valid = rest.ends_with(']') && inner.parse::<Ipv6Addr>().is_ok();
        return if valid {
            Ok(inner.to_owned())
        } else {
            Err(AddressFault::BadHost(text.to_owned()))
        };
    }
    if text.is_empty() {
        return Err(AddressFault::NoHost);
    }
    if text.contains(':') {
        return Err(AddressFault::BareIpv6);
    }
    let valid = text.len() <= HOST_BYTES_MAX
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if valid {
        Ok(text.to_owned())
    } else {
        Err(AddressFault::BadHost(text.to_owned()))
    }
}

/// Why a text is no address. Nothing was contacted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// There is no colon in it.
    #[error("the port is missing: write host:port, as in \"127.0.0.1:6379\"")]
    NoPort,
    /// There is nothing before the colon.
    #[error("the host is missing: write host:port, as in \"127.0.0.1:6379\"")]
    NoHost,
    /// What follows the last colon is not a number from 0 to 65535.
    #[error("`{0}` is no port: write a number from 1 to 65535 behind the colon")]
    BadPort(String),
    /// An IPv6 address cannot be told from its port without brackets.
    #[error("an IPv6 address needs brackets, as in \"[::1]:6379\"")]
    BareIpv6,
    /// A character that no host has, or too many of them.
    #[error("`{0}` is no host: write a name, an IPv4 address, or an IPv6 address in brackets")]
    BadHost(String),
}
