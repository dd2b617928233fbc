//! Names of hosts and services, looked up in the system's databases.

use std::ffi::CString;
use std::io;
use std::mem::zeroed;
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

/// The port of a TCP service. getservbyname(3) would do, but not for two threads at once.
fn tcp_service(name: &str) -> Option<u16> {
    // Without a letter it is no name, but perhaps one of the spellings of a number that getaddrinfo(3) takes.
    let name = CString::new(name).ok().filter(|_| name.contains(|c: char| c.is_ascii_alphabetic()))?;
    // SAFETY: all-zero is a valid addrinfo.
    let mut hints: libc::addrinfo = unsafe { zeroed() };
    (hints.ai_family, hints.ai_socktype) = (libc::AF_INET, libc::SOCK_STREAM);
    let mut list = std::ptr::null_mut();
    // SAFETY: the name ends with NUL; hints and list are live variables.
    if unsafe { libc::getaddrinfo(std::ptr::null(), name.as_ptr(), &raw const hints, &raw mut list) } != 0 {
        return None;
    }
    // SAFETY: on success there is at least one address, and it is of the family that was asked for.
    let port = unsafe { (*(*list).ai_addr.cast::<libc::sockaddr_in>()).sin_port };
    // SAFETY: the list comes from getaddrinfo, and nothing points into it any more.
    unsafe { libc::freeaddrinfo(list) };
    Some(u16::from_be(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_do_not_disturb_each_other() {
        std::thread::scope(|scope| {
            for (name, port) in [("smtp", 25), ("http", 80)] {
                scope.spawn(move || (0..1000).for_each(|_| assert_eq!(tcp_port(name), Some(port))));
            }
        });
    }

    #[test]
    fn ports_are_numbers_or_services() {
        assert_eq!(tcp_port("8891"), Some(8891));
        assert_eq!(tcp_port("smtp"), Some(25));
        for text in ["", "65536", "25x", "-1", "+25", " 25", "*", "no-such-service"] {
            assert_eq!(tcp_port(text), None, "{text}");
        }
    }
}
