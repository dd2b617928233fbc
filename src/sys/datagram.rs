//! Datagrams to unix sockets, for the service manager.

use super::socket::unix_name;
use super::{check, opened};
use std::io;
use std::os::fd::AsRawFd;

/// Sends one datagram to the socket at `address`, a path, or `@` and a name in the abstract namespace. It does not wait.
///
/// # Errors
/// `WouldBlock` when the receiver has not read what came before; else as socket(2) and sendto(2).
pub fn send(address: &[u8], text: &[u8]) -> io::Result<()> {
    // A new socket each time: daemons close descriptors that they do not know, and others get their numbers.
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes numbers only, and its descriptor is new.
    let socket = unsafe { opened(libc::socket(libc::AF_UNIX, kind, 0)) }?;
    let (mut name, mut length) = unix_name(address)?;
    if address.first() == Some(&b'@') {
        // Such a name begins with a NUL and does not end with one.
        name.sun_path[0] = 0;
        length -= 1;
    }
    // SAFETY: the kernel reads the text, and `length` bytes from a live socket name that is at least that long.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            text.as_ptr().cast(),
            text.len(),
            libc::MSG_NOSIGNAL,
            std::ptr::from_ref(&name).cast(),
            length as libc::socklen_t,
        )
    };
    check(if sent == -1 { -1 } else { 0 }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    #[test]
    fn a_datagram_arrives_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let name = format!("libmilter-test-{}", std::process::id());
        let sockets = [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}"),
            ),
        ];
        for (socket, address) in sockets {
            send(address.as_bytes(), b"text").unwrap();
            let buffer = &mut [0; 9];
            assert_eq!((socket.recv(buffer).unwrap(), &buffer[..4]), (4, &b"text"[..]));
            // Nobody reads: it does not wait.
            let full = (0..10_000).find_map(|_| send(address.as_bytes(), b"text").err());
            assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        }
        assert_eq!(send(b"/nonexistent", b"").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
