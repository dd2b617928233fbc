//! Where the filter listens: the socket specifications of smfi_setconn(3), of Sendmail's `S=` and of Postfix's
//! `smtpd_milters`, and connecting to one.

use crate::sys::{resolve, socket};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// A filter's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterAddress {
    /// `unix:path`, `local:path`, or a path alone.
    Unix(PathBuf),
    /// `inet:port@host`, or Postfix's `inet:host:port`.
    Inet(String, u16),
    /// `inet6:port@host`.
    Inet6(String, u16),
    /// `fd:number`, a connected socket that this process has inherited.
    Descriptor(i32),
}

/// A specification that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadAddress(&'static str);

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadAddress {}

impl std::str::FromStr for FilterAddress {
    type Err = BadAddress;

    fn from_str(spec: &str) -> Result<Self, BadAddress> {
        let (scheme, rest) = match spec.split_once(':') {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => ("unix".to_owned(), spec),
        };
        match scheme.as_str() {
            "unix" | "local" | "" if rest.is_empty() => Err(BadAddress("the path of the socket is missing")),
            "unix" | "local" | "" => Ok(Self::Unix(rest.into())),
            "inet" => host_and_port(rest, "127.0.0.1").map(|(host, port)| Self::Inet(host, port)),
            "inet6" => host_and_port(rest, "::1").map(|(host, port)| Self::Inet6(host, port)),
            "fd" => match rest.parse() {
                Ok(number @ 0..) => Ok(Self::Descriptor(number)),
                _ => Err(BadAddress("expected fd: and the number of an open descriptor")),
            },
            _ if scheme.starts_with(['/', '.']) => Ok(Self::Unix(spec.into())),
            _ => Err(BadAddress("expected unix:PATH, inet:PORT@HOST, inet6:PORT@HOST or fd:NUMBER")),
        }
    }
}

/// `port@host`, `port`, or `host:port`.
fn host_and_port(text: &str, local: &str) -> Result<(String, u16), BadAddress> {
    let (host, port) = match (text.split_once('@'), text.rsplit_once(':')) {
        (Some((port, host)), _) => (host, port),
        (None, Some((host, port))) => (host, port),
        (None, None) => (local, text),
    };
    let port = resolve::tcp_port(port)
        .ok_or(BadAddress("the port must be a number from 0 to 65535 or the name of a service"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = host.strip_prefix("IPv6:").unwrap_or(host);
    Ok((host.to_owned(), port))
}

impl fmt::Display for FilterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inet(host, port) => write!(f, "inet:{port}@{host}"),
            Self::Inet6(host, port) => write!(f, "inet6:{port}@{host}"),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
        }
    }
}

impl FilterAddress {
    /// Connects.
    ///
    /// # Errors
    /// The filter cannot be reached within `timeout`.
    pub fn connect(&self, timeout: Duration) -> io::Result<Stream> {
        let (host, port, wanted): (_, _, fn(&SocketAddr) -> bool) = match self {
            Self::Unix(path) => return UnixStream::connect(path).map(Stream::Unix),
            Self::Descriptor(number) => {
                return socket::inherit_connection(*number).map(|(socket, is_unix)| match is_unix {
                    true => Stream::Unix(socket.into()),
                    false => Stream::Tcp(socket.into()),
                });
            }
            Self::Inet(host, port) => (host, port, SocketAddr::is_ipv4),
            Self::Inet6(host, port) => (host, port, SocketAddr::is_ipv6),
        };
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address of this family");
        for address in (host.as_str(), *port).to_socket_addrs()?.filter(wanted) {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Stream::Tcp(stream));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// A connection to a filter.
#[derive(Debug)]
pub enum Stream {
    /// Over a unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

impl Stream {
    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(timeout),
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
        }
    }

    pub(super) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(timeout),
            Self::Tcp(stream) => stream.set_write_timeout(timeout),
        }
    }

    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    fn parse(spec: &str) -> Result<FilterAddress, BadAddress> {
        spec.parse()
    }

    #[test]
    fn every_way_to_name_a_socket() {
        let unix = |path: &str| Ok(FilterAddress::Unix(path.into()));
        for spec in ["unix:/run/f", "LOCAL:/run/f", ":/run/f", "/run/f"] {
            assert_eq!(parse(spec), unix("/run/f"), "{spec}");
        }
        assert_eq!(parse("f.sock"), unix("f.sock"));
        assert_eq!(parse("/run/a:b"), unix("/run/a:b"));
        let inet = |host: &str, port| Ok(FilterAddress::Inet(host.to_owned(), port));
        assert_eq!(parse("inet:smtp@localhost"), inet("localhost", 25));
        assert_eq!(parse("inet:8891@filter.example"), inet("filter.example", 8891));
        assert_eq!(parse("inet:8891@[192.0.2.1]"), inet("192.0.2.1", 8891));
        assert_eq!(parse("inet:192.0.2.1:8891"), inet("192.0.2.1", 8891));
        assert_eq!(parse("inet:8891"), inet("127.0.0.1", 8891));
        let inet6 = |host: &str, port| Ok(FilterAddress::Inet6(host.to_owned(), port));
        assert_eq!(parse("inet6:8891@[IPv6:::1]"), inet6("::1", 8891));
        assert_eq!(parse("Inet6:[::1]:8891"), inet6("::1", 8891));
        assert_eq!(parse("inet6:8891"), inet6("::1", 8891));
    }

    #[test]
    fn a_descriptor_must_be_a_connected_socket() {
        assert_eq!(parse("fd:3"), Ok(FilterAddress::Descriptor(3)));
        assert_eq!(parse("fd:3").unwrap().to_string(), "fd:3");
        let connect = |descriptor| FilterAddress::Descriptor(descriptor).connect(Duration::from_secs(1));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(connect(file.as_raw_fd()).is_err(), "no socket");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(connect(listener.as_raw_fd()).is_err(), "not connected");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut stream = connect(ours.into_raw_fd()).unwrap();
        theirs.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!((&heard, matches!(stream, Stream::Unix(_))), (b"hello", true));
    }

    #[test]
    fn what_names_no_socket() {
        for spec in
            ["", "unix:", ":", "inet:", "inet:x@h", "inet:65536@h", "smtp:25@h", "fd:", "fd:-1", "fd:x"]
        {
            assert!(parse(spec).is_err(), "{spec}");
        }
    }

    #[test]
    fn an_address_of_the_other_family_is_not_taken() {
        let error = parse("inet6:1@127.0.0.1").unwrap().connect(Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
