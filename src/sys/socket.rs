//! Stream sockets: connected ones and listening ones. Nothing here blocks but [`Socket::receive`].
//!
//! Receiving and sending, which is most of what a filter asks of the system, goes to it directly, through rustix. The C
//! library's recv(3) and send(3) are cancellation points and pay for that with several times the instructions of the call;
//! nobody cancels the threads of this library.

use super::fork::{Moment, Process};
use super::{check, opened, set_option};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit, offset_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A connection to an MTA. On drop it ends, whoever else has a descriptor of it: a child that a callback has forked may
/// live longer. But in such a child the drop closes the descriptor only.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The process whose connection it is.
    process: Process,
    /// When it was accepted.
    accepted: Moment,
    /// Whether the system knows how long a receive may wait.
    has_timeout: AtomicBool,
}

impl Socket {
    /// Receives what has arrived, or waits for it, for at most `time`, which is the same in all calls: the number of bytes, 0
    /// at the peer's end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing came in time, or before a signal; otherwise the connection is broken.
    pub fn receive(&self, buffer: &mut [u8], time: Duration) -> io::Result<usize> {
        if !self.has_timeout.load(Ordering::Relaxed) {
            self.set_timeout(time)?;
        }
        // A signal ends the wait. If it began anew, signals that come in a row would make it endless.
        received(&self.fd, buffer, RecvFlags::empty()).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => io::ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }

    /// Connections that nobody waits for do without this call.
    #[cold]
    fn set_timeout(&self, time: Duration) -> io::Result<()> {
        set_receive_timeout(self.fd.as_raw_fd(), time)?;
        self.has_timeout.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Receives what has arrived, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has; otherwise the connection is broken.
    pub fn try_receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        received(&self.fd, buffer, RecvFlags::DONTWAIT)
    }

    /// Sends as much as there is room for, without waiting and without SIGPIPE.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; otherwise the connection is broken.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(failed)
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        let fd = self.fd.as_raw_fd();
        let Ok((name, _)) = name_by(fd, libc::getpeername) else { return Peer::Unknown };
        match libc::c_int::from(name.ss_family) {
            libc::AF_UNIX => peer_process(fd).map_or(Peer::Unknown, Peer::Process),
            _ => inet_address(&name).map_or(Peer::Unknown, Peer::Inet),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, process: Process::current(), accepted: Moment::now(), has_timeout: AtomicBool::new(false) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.process == Process::current() && self.accepted.is_before_a_fork() {
            // Closing it is not enough. What was sent still arrives.
            // SAFETY: shutdown takes numbers only. It fails when the peer is gone, and then nobody waits for it.
            unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_RDWR) };
        }
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An IPv4 or IPv6 address with port.
    Inet(SocketAddr),
    /// The process that has connected to a unix socket.
    Process(libc::pid_t),
    /// The connection is broken, or of another kind.
    Unknown,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Process(number) => write!(f, "process {number}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// A socket's name or its peer's, and how many bytes of it count.
fn name_by(
    fd: RawFd,
    call: unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
) -> io::Result<(libc::sockaddr_storage, usize)> {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut name: libc::sockaddr_storage = unsafe { zeroed() };
    let mut size = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: getpeername or getsockname; the kernel writes at most `size` bytes into a live variable of that size.
    check(unsafe { call(fd, std::ptr::from_mut(&mut name).cast(), &raw mut size) })?;
    Ok((name, size as usize))
}

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The path of a unix socket.
    Unix(Vec<u8>),
    /// An IPv4 or IPv6 address with port.
    Inet(SocketAddr),
}

/// Where the descriptor's socket listens; `None` if it does not, or is none.
pub fn listens_at(fd: RawFd) -> Option<Place> {
    if get_option(fd, libc::SO_ACCEPTCONN).ok()? == 0 {
        return None;
    }
    let (name, size) = name_by(fd, libc::getsockname).ok()?;
    if libc::c_int::from(name.ss_family) != libc::AF_UNIX {
        return inet_address(&name).map(Place::Inet);
    }
    // SAFETY: a name of this family is a sockaddr_un, and the storage is large enough and aligned for all.
    let path = unsafe { &*std::ptr::from_ref(&name).cast::<libc::sockaddr_un>() }.sun_path;
    let length = size.saturating_sub(offset_of!(libc::sockaddr_un, sun_path)).min(path.len());
    let bytes = path[..length].iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0);
    Some(Place::Unix(bytes.collect()))
}

/// The process at the other end of a unix socket, if it is one of this system's.
fn peer_process(fd: RawFd) -> Option<libc::pid_t> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes into a live variable of that size.
    let result = check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            std::ptr::from_mut(&mut peer).cast(),
            &raw mut size,
        )
    });
    (result.is_ok() && peer.pid > 0).then_some(peer.pid)
}

/// The IPv4 or IPv6 address in a socket's name.
fn inet_address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: a name of this family is a sockaddr_in, and the storage is large enough and aligned for all.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddr::from((address, u16::from_be(name.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddr::from((address, u16::from_be(name.sin6_port))))
        }
        _ => None,
    }
}

/// As many bytes as the system says. (The other number that rustix returns is this one, compared with the buffer's length
/// once more.)
fn received(fd: &OwnedFd, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    recv(fd, buffer, flags).map(|(_, size)| size).map_err(failed)
}

/// Apart, so that calls that succeed prepare no error.
#[cold]
#[inline(never)]
fn failed(error: Errno) -> io::Error {
    error.into()
}

fn set_receive_timeout(fd: RawFd, time: Duration) -> io::Result<()> {
    // What the types of the fields are differs from system to system.
    let time = libc::timeval { tv_sec: time.as_secs() as _, tv_usec: time.subsec_micros() as _ };
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)
}

/// Where a listening socket is bound.
#[derive(Debug, Clone, Copy)]
pub enum Address<'a> {
    /// The path of a unix socket, at most 107 bytes without NUL.
    Unix(&'a [u8]),
    /// An IPv4 or IPv6 address with port.
    Inet(SocketAddr),
}

/// A socket that MTAs connect to. Other processes may have it, too: behind a fork, or because it was theirs. So what
/// they would notice is set before they can have it, or not at all.
#[derive(Debug)]
pub struct Listening {
    fd: ManuallyDrop<OwnedFd>,
    /// What the descriptor leads to. A daemon may have closed it together with all others.
    file: FileId,
    /// What accepted connections do not inherit.
    settings: Settings,
}

/// What is set on each accepted connection.
#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    keep_alive: bool,
    no_delay: bool,
}

impl Listening {
    /// Creates a socket and binds it to `address`. Nobody can connect before [`Self::listen`]. [`Self::accept`] does not
    /// wait. The mode of a unix socket's file follows the umask. An IPv6 socket may be closed to IPv4.
    ///
    /// # Errors
    /// As socket(2), bind(2).
    pub fn bind(address: Address<'_>, v6_only: bool) -> io::Result<Self> {
        let family = match address {
            Address::Unix(_) => libc::AF_UNIX,
            Address::Inet(SocketAddr::V4(_)) => libc::AF_INET,
            Address::Inet(SocketAddr::V6(_)) => libc::AF_INET6,
        };
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket takes numbers only, and its descriptor is new.
        let socket = unsafe { opened(libc::socket(family, kind, 0)) }?;
        let fd = socket.as_raw_fd();
        match address {
            Address::Unix(path) => {
                let (name, length) = unix_name(path)?;
                bind(fd, &name, length)?;
            }
            Address::Inet(address) => {
                set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1)?;
                // Accepted connections inherit them.
                set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1)?;
                set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
                match address {
                    SocketAddr::V4(address) => bind(fd, &inet_name(address), size_of::<libc::sockaddr_in>())?,
                    SocketAddr::V6(address) => {
                        if v6_only {
                            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1)?;
                        }
                        bind(fd, &inet6_name(address), size_of::<libc::sockaddr_in6>())?;
                    }
                }
            }
        }
        Ok(Self { file: FileId::of(fd)?, fd: ManuallyDrop::new(socket), settings: Settings::default() })
    }

    /// Lets peers connect.
    ///
    /// # Errors
    /// As listen(2).
    pub fn listen(&self, backlog: libc::c_int) -> io::Result<()> {
        // SAFETY: listen takes numbers only.
        check(unsafe { libc::listen(self.fd.as_raw_fd(), backlog) }).map(drop)
    }

    /// Takes over a descriptor that this process inherited, and listens on it. [`Self::accept`] may wait.
    ///
    /// # Errors
    /// It is not open, or not a socket that can listen. It stays open then.
    pub fn inherit(fd: RawFd, backlog: libc::c_int) -> io::Result<Self> {
        // SAFETY: listen takes numbers only.
        check(unsafe { libc::listen(fd, backlog) })?;
        let domain = get_option(fd, libc::SO_DOMAIN)?;
        let file = FileId::of(fd)?;
        // SAFETY: fcntl with these commands takes numbers only.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        // SAFETY: the descriptor is open, and whoever configures `fd:` hands it over to the library.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let settings = Settings {
            // Both ends of a unix socket are on this system, so it does nothing there.
            keep_alive: domain != libc::AF_UNIX,
            no_delay: matches!(domain, libc::AF_INET | libc::AF_INET6),
        };
        Ok(Self { fd: ManuallyDrop::new(socket), file, settings })
    }

    /// Whether the descriptor still is the socket.
    pub fn is_open(&self) -> bool {
        FileId::of(self.fd.as_raw_fd()).is_ok_and(|file| file == self.file)
    }

    /// Lets [`Self::accept`] wait, but for at most `time`, in all processes that have the socket.
    ///
    /// # Errors
    /// As setsockopt(2) and fcntl(2).
    pub fn set_accept_timeout(&self, time: Duration) -> io::Result<()> {
        let fd = self.fd.as_raw_fd();
        set_receive_timeout(fd, time)?;
        // SAFETY: fcntl with these commands takes numbers only.
        unsafe {
            let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
            check(libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_NONBLOCK)).map(drop)
        }
    }

    /// Refuses connections from now on, in all processes that have the socket; a waiting [`Self::accept`] fails.
    pub fn shut_down(&self) {
        // SAFETY: shutdown takes numbers only. That it was shut down before is the only possible failure.
        unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_RDWR) };
    }

    /// Accepts one connection, or waits for it.
    ///
    /// # Errors
    /// `WouldBlock` when there is none, or none comes in time; `Interrupted` by a signal; see accept(2).
    pub fn accept(&self) -> io::Result<Socket> {
        let none = std::ptr::null_mut();
        // SAFETY: NULL means that the peer's address is not wanted. The descriptor is new.
        let socket =
            unsafe { opened(libc::accept4(self.fd.as_raw_fd(), none, none.cast(), libc::SOCK_CLOEXEC)) }?;
        // A connection is as good without them, and not every family of addresses has them.
        if self.settings.keep_alive {
            let _ = set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1);
        }
        if self.settings.no_delay {
            let _ = set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, &1);
        }
        Ok(Socket::from(socket))
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.is_open() {
            // SAFETY: the value is not used any more.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
        // Else the number is nobody's by now, or that of a descriptor of somebody else.
    }
}

/// What a descriptor leads to: the device and the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(libc::dev_t, libc::ino_t);

impl FileId {
    fn of(fd: RawFd) -> io::Result<Self> {
        let mut status = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the call fills in the variable.
        check(unsafe { libc::fstat(fd, status.as_mut_ptr()) })?;
        // SAFETY: the call succeeded.
        let status = unsafe { status.assume_init() };
        Ok(Self(status.st_dev, status.st_ino))
    }
}

/// Whether somebody serves the unix socket at `path`: a connection is made, or would be if there was room for it.
///
/// # Errors
/// It is no stream socket, may not be connected to, or is not there.
pub fn is_served(path: &[u8]) -> io::Result<bool> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes numbers only, and its descriptor is new.
    let socket = unsafe { opened(libc::socket(libc::AF_UNIX, kind, 0)) }?;
    let (name, length) = unix_name(path)?;
    // SAFETY: the kernel reads `length` bytes from a live socket name that is at least that long.
    let result = check(unsafe {
        libc::connect(socket.as_raw_fd(), std::ptr::from_ref(&name).cast(), length as libc::socklen_t)
    });
    match result {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Ok(false),
            io::ErrorKind::WouldBlock => Ok(true),
            _ => Err(error),
        },
    }
}

fn bind<T>(fd: RawFd, name: &T, length: usize) -> io::Result<()> {
    debug_assert!(length <= size_of::<T>());
    // SAFETY: the kernel reads `length` bytes from a live socket name that is at least that long.
    check(unsafe { libc::bind(fd, std::ptr::from_ref(name).cast(), length as libc::socklen_t) }).map(drop)
}

/// Takes over a connected socket that this process has inherited; whether it is a unix socket.
///
/// # Errors
/// It is not open, or no connected stream socket.
pub fn inherit_connection(fd: RawFd) -> io::Result<(OwnedFd, bool)> {
    if get_option(fd, libc::SO_TYPE)? != libc::SOCK_STREAM || get_option(fd, libc::SO_ACCEPTCONN)? != 0 {
        return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
    }
    let domain = get_option(fd, libc::SO_DOMAIN)?;
    // SAFETY: the descriptor is an open socket, and whoever names it with `fd:` hands it over.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: fcntl with these commands takes numbers only.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok((socket, domain == libc::AF_UNIX))
}

/// A unix socket name, and how many bytes of it count.
///
/// # Errors
/// The path does not fit with its NUL.
pub fn unix_name(path: &[u8]) -> io::Result<(libc::sockaddr_un, usize)> {
    // SAFETY: all-zero is a valid sockaddr_un.
    let mut name: libc::sockaddr_un = unsafe { zeroed() };
    if path.len() >= name.sun_path.len() {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    name.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in name.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    Ok((name, offset_of!(libc::sockaddr_un, sun_path) + path.len() + 1))
}

/// An IPv4 socket name.
pub fn inet_name(address: std::net::SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: all-zero is a valid sockaddr_in.
    let mut name: libc::sockaddr_in = unsafe { zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_port = address.port().to_be();
    name.sin_addr.s_addr = address.ip().to_bits().to_be();
    name
}

/// An IPv6 socket name.
pub fn inet6_name(address: std::net::SocketAddrV6) -> libc::sockaddr_in6 {
    // SAFETY: all-zero is a valid sockaddr_in6.
    let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
    name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    name.sin6_port = address.port().to_be();
    name.sin6_addr.s6_addr = address.ip().octets();
    name.sin6_scope_id = address.scope_id();
    name
}

fn get_option(fd: RawFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes into a live variable of that size.
    check(unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, name, std::ptr::from_mut(&mut value).cast(), &raw mut size)
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;

    /// Forks a child that does this and ends.
    fn in_child(body: impl FnOnce()) {
        crate::sys::fork::watch();
        // SAFETY: the child makes system calls only, no matter what other threads did at the moment of the fork.
        match unsafe { libc::fork() } {
            0 => {
                body();
                // SAFETY: it takes a number only.
                unsafe { libc::_exit(0) };
            }
            child => {
                // SAFETY: NULL means that the status is not wanted.
                assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
            }
        }
    }

    #[test]
    fn a_connection_ends_with_its_process_and_not_with_a_child() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        let held_by_a_child = ours.try_clone().unwrap();
        let mut socket = Some(Socket::from(OwnedFd::from(ours)));
        in_child(|| drop(socket.take()));
        let buffer = &mut [0; 10];
        assert_eq!(peer.read(buffer).unwrap_err().kind(), ErrorKind::WouldBlock, "still connected");
        assert_eq!(socket.as_ref().unwrap().try_send(b"last").unwrap(), 4);
        drop(socket);
        assert_eq!(peer.read(buffer).unwrap(), 4, "what was sent still arrives");
        assert_eq!(peer.read(buffer).unwrap(), 0, "the end, although there is another descriptor");
        drop(held_by_a_child);
    }
}
