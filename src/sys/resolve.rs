//! Names of hosts and services, looked up in the system's databases.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};

/// The addresses of a host, or the address that `name` is.
///
/// # Errors
/// There is no such host, or the lookup failed.
pub fn host(name: &str) -> io::Result<impl Iterator<Item = IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()))
}

/// The TCP port that is meant: a number up to 65535, or the name of a service.
pub fn tcp_port(text: &str) -> Option<u16> {
    if text.starts_with(|c: char| c.is_ascii_digit()) { text.parse().ok() } else { tcp_service(text) }
}

/// The port of a TCP service.
fn tcp_service(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    // SAFETY: both strings end with NUL. The result is NULL or points to static storage that stays unchanged until
    // the next call; sockets are configured before there are threads (contract 2.2).
    let entry = unsafe { libc::getservbyname(name.as_ptr(), c"tcp".as_ptr()).as_ref() }?;
    // The port is 16 bits in network order, in an int.
    Some(u16::from_be(entry.s_port as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_or_services() {
        assert_eq!(tcp_port("8891"), Some(8891));
        assert_eq!(tcp_port("smtp"), Some(25));
        for text in ["", "65536", "25x", "-1", "+25", "no-such-service"] {
            assert_eq!(tcp_port(text), None, "{text}");
        }
    }
}
