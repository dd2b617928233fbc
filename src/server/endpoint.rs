//! Socket specifications: text to [`Endpoint`] (contract 2.5). Nothing is opened here.

use crate::protocol::address::{MAX_UNIX_PATH, inet_aton, inet6};
use crate::sys::resolve;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The path of a unix socket.
    Unix(Vec<u8>),
    /// An IPv4 or IPv6 address with port.
    Inet(SocketAddr),
    /// A descriptor that is listening already.
    Inherited(RawFd),
}

/// Why a specification is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadSpec {
    /// `unix:` without a path.
    NoPath,
    /// The path does not fit a socket address.
    PathTooLong(usize),
    /// Something else than `unix`, `local`, `inet`, `inet6`, `fd` in front of the colon.
    Scheme(String),
    /// Neither a number up to 65535 nor a known service.
    Port(String),
    /// No such host, or none with an address of this family.
    Host(String),
    /// Not the number of a descriptor.
    Descriptor(String),
}

impl std::fmt::Display for BadSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoPath => f.write_str("the path of the socket is empty"),
            Self::PathTooLong(length) => {
                write!(f, "the path of the socket has {length} bytes, {MAX_UNIX_PATH} are possible")
            }
            Self::Scheme(scheme) => {
                write!(f, "unknown socket type \"{scheme}\", known are unix, local, inet, inet6, fd")
            }
            Self::Port(port) => {
                write!(f, "\"{port}\" is neither a port number nor a known service")?;
                // As Postfix and most of the world write it.
                match port.rsplit_once(':') {
                    Some((host, port)) if !host.is_empty() && !host.contains(':') => {
                        write!(f, "; the port comes first: {port}@{host}")
                    }
                    _ => Ok(()),
                }
            }
            Self::Host(host) => write!(f, "no address of this family for host \"{host}\""),
            Self::Descriptor(number) => write!(f, "\"{number}\" is not the number of a descriptor"),
        }
    }
}

impl std::error::Error for BadSpec {}

impl Endpoint {
    /// Reads `unix:path`, `local:path`, `:path`, a path without a colon, `inet:port[@host]`,
    /// `inet6:port[@host]` or `fd:number`. Host and service names are looked up.
    ///
    /// # Errors
    /// See [`BadSpec`].
    pub fn parse(spec: &[u8]) -> Result<Self, BadSpec> {
        let (scheme, rest) = match spec.iter().position(|&b| b == b':') {
            Some(colon) => (&spec[..colon], &spec[colon + 1..]),
            None => (&b""[..], spec),
        };
        match scheme.to_ascii_lowercase().as_slice() {
            b"" | b"unix" | b"local" => match rest.len() {
                0 => Err(BadSpec::NoPath),
                length if length > MAX_UNIX_PATH => Err(BadSpec::PathTooLong(length)),
                _ => Ok(Self::Unix(rest.to_vec())),
            },
            b"inet" => inet(rest, Family::V4),
            b"inet6" => inet(rest, Family::V6),
            b"fd" => {
                // As strtol(3) reads it.
                let number = std::str::from_utf8(rest).ok().and_then(|text| {
                    let is_space = |c: char| matches!(c, ' ' | '\t'..='\r');
                    text.trim_start_matches(is_space).parse().ok()
                });
                number
                    .filter(|&number: &RawFd| number >= 0)
                    .map(Self::Inherited)
                    .ok_or_else(|| BadSpec::Descriptor(lossy(rest)))
            }
            _ => Err(BadSpec::Scheme(lossy(scheme))),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

fn inet(spec: &[u8], family: Family) -> Result<Endpoint, BadSpec> {
    let (port_text, host) = match spec.iter().position(|&b| b == b'@') {
        Some(at) => (&spec[..at], Some(&spec[at + 1..])),
        None => (spec, None),
    };
    let port = std::str::from_utf8(port_text)
        .ok()
        .and_then(resolve::tcp_port)
        .ok_or_else(|| BadSpec::Port(lossy(port_text)))?;
    let address = match (host, family) {
        (None, Family::V4) => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (None, Family::V6) => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        // The reference takes this one for the error of inet_addr(3).
        (Some([b'[', number @ .., b']']), Family::V4) => {
            inet_aton(number).filter(|address| !address.is_broadcast()).map(IpAddr::V4)
        }
        (Some([b'[', number @ .., b']']), Family::V6) => inet6(number).map(IpAddr::V6),
        (Some(name), _) => lookup(name, family),
    };
    let address = address.ok_or_else(|| BadSpec::Host(lossy(host.unwrap_or_default())))?;
    Ok(Endpoint::Inet(SocketAddr::new(address, port)))
}

fn lookup(name: &[u8], family: Family) -> Option<IpAddr> {
    let mut addresses = resolve::host(std::str::from_utf8(name).ok()?).ok()?;
    addresses.find(|address| (family == Family::V6) == address.is_ipv6())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(address: &str) -> Result<Endpoint, BadSpec> {
        Ok(Endpoint::Inet(address.parse().unwrap()))
    }

    #[test]
    fn unix_paths_in_all_spellings() {
        for spec in ["unix:/run/x", "LOCAL:/run/x", ":/run/x", "/run/x"] {
            assert_eq!(Endpoint::parse(spec.as_bytes()), Ok(Endpoint::Unix(b"/run/x".to_vec())), "{spec}");
        }
        assert_eq!(Endpoint::parse(b"unix:a:b"), Ok(Endpoint::Unix(b"a:b".to_vec())));
    }

    #[test]
    fn paths_that_are_none() {
        for spec in ["", ":", "unix:", "local:"] {
            assert_eq!(Endpoint::parse(spec.as_bytes()), Err(BadSpec::NoPath), "{spec}");
        }
        let long = format!("unix:{}", "x".repeat(108));
        assert_eq!(Endpoint::parse(long.as_bytes()), Err(BadSpec::PathTooLong(108)));
        assert!(Endpoint::parse(&long.as_bytes()[..long.len() - 1]).is_ok());
    }

    #[test]
    fn inet_with_and_without_host() {
        assert_eq!(Endpoint::parse(b"inet:2525"), inet("0.0.0.0:2525"));
        assert_eq!(Endpoint::parse(b"inet6:2525"), inet("[::]:2525"));
        assert_eq!(Endpoint::parse(b"Inet:2525@127.0.0.1"), inet("127.0.0.1:2525"));
        assert_eq!(Endpoint::parse(b"inet:2525@[127.0.0.1]"), inet("127.0.0.1:2525"));
        assert_eq!(Endpoint::parse(b"inet6:2525@[::1]"), inet("[::1]:2525"));
        assert_eq!(Endpoint::parse(b"inet6:2525@[IPv6:::1]"), inet("[::1]:2525"));
        assert_eq!(Endpoint::parse(b"inet:2525@localhost"), inet("127.0.0.1:2525"));
    }

    #[test]
    fn inet_that_is_none() {
        let port = |text: &str| Err(BadSpec::Port(text.to_owned()));
        assert_eq!(Endpoint::parse(b"inet:"), port(""));
        assert_eq!(Endpoint::parse(b"inet:65536"), port("65536"));
        assert_eq!(Endpoint::parse(b"inet:25x"), port("25x"));
        assert_eq!(Endpoint::parse(b"inet:no-such-service"), port("no-such-service"));
        let host = |text: &str| Err(BadSpec::Host(text.to_owned()));
        assert_eq!(Endpoint::parse(b"inet:1@[::1]"), host("[::1]"));
        assert_eq!(Endpoint::parse(b"inet6:1@[127.0.0.1]"), host("[127.0.0.1]"));
        assert_eq!(Endpoint::parse(b"inet:1@[localhost]"), host("[localhost]"));
        assert_eq!(Endpoint::parse(b"inet:1@"), host(""));
        assert_eq!(Endpoint::parse(b"inet:1@[255.255.255.255]"), host("[255.255.255.255]"));
        assert_eq!(Endpoint::parse(b"inet:1@[0xffffffff]"), host("[0xffffffff]"));
    }

    #[test]
    fn descriptors_and_unknown_schemes() {
        for spec in ["fd:3", "FD: 3", "fd:\t\n\u{b}\u{c}\r +3", "fd:003"] {
            assert_eq!(Endpoint::parse(spec.as_bytes()), Ok(Endpoint::Inherited(3)), "{spec}");
        }
        for bad in ["3 ", "3x", "0x3", "+ 3", ""] {
            let spec = format!("fd:{bad}");
            assert_eq!(Endpoint::parse(spec.as_bytes()), Err(BadSpec::Descriptor(bad.to_owned())));
        }
        assert_eq!(Endpoint::parse(b"fd:-1"), Err(BadSpec::Descriptor("-1".to_owned())));
        assert_eq!(Endpoint::parse(b"fd:x"), Err(BadSpec::Descriptor("x".to_owned())));
        assert_eq!(Endpoint::parse(b"tcp:1"), Err(BadSpec::Scheme("tcp".to_owned())));
    }
}
