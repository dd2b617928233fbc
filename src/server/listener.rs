//! The listening sockets, and the unix socket files that go with them: only a file that this value made itself is
//! ever removed at the end.

use super::endpoint::Endpoint;
use crate::sys::access::SocketAt;
use crate::sys::epoll::{Epoll, Trigger};
use crate::sys::event::EventFd;
use crate::sys::fork::{self, Moment};
use crate::sys::socket::{self, Address, Listening, Socket};
use crate::sys::{self, Interest, Woken};
use smallvec::SmallVec;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest wait for a connection.
pub const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Where MTAs connect to: one socket, or several. When smfi_opensocket has opened it, other processes may have it by the
/// time of smfi_main, those that this one was forked from or that it has forked; and with `fd:` nobody knows who has it.
/// They go on to serve when this process stops, so nothing is done to the socket that they would notice.
#[derive(Debug)]
pub struct Listener {
    /// At least one.
    sockets: Vec<Bound>,
    /// Where threads wait, unless they wait in accept(2).
    queue: Option<Queue>,
    is_refusing: AtomicBool,
}

/// One of the sockets.
#[derive(Debug)]
struct Bound {
    socket: Listening,
    /// When this process opened the socket; `None` if that was somebody else.
    opened: Option<Moment>,
    file: Option<SocketFile>,
}

/// Where threads wait for connections on several sockets, or on one that others have, too: nobody could end an accept(2)
/// there without hurting them. One thread is woken for each connection.
#[derive(Debug)]
struct Queue {
    poller: Epoll,
    refused: EventFd,
}

impl Queue {
    /// The token of the event; those of the sockets are their indices.
    const REFUSED: u64 = u64::MAX;

    fn new(sockets: &[Bound]) -> io::Result<Self> {
        let queue = Self { poller: Epoll::new()?, refused: EventFd::new()? };
        queue.poller.add(queue.refused.as_fd(), Self::REFUSED, Trigger::Level)?;
        for (token, bound) in (0..).zip(sockets) {
            queue.poller.add(bound.socket.as_fd(), token, Trigger::Once)?;
        }
        Ok(queue)
    }
}

/// Who may use a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The mode; `None` for what the umask leaves.
    pub mode: Option<u32>,
    /// The owner; `None` for the process's user.
    pub owner: Option<u32>,
    /// The group; `None` for the process's, or the directory's.
    pub group: Option<u32>,
    /// Whether a socket that is to be removed may be one that somebody serves.
    pub steals: bool,
    /// Whether an IPv6 socket is closed to IPv4, so that there can be one for IPv4 beside it.
    pub v6_only: bool,
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: None, owner: None, group: None, steals: true, v6_only: false }
    }
}

impl Access {
    /// Sets it on the new socket at `path`.
    fn grant(&self, path: &Path) -> Result<(), (&'static str, io::Error)> {
        if (self.mode, self.owner, self.group) == (None, None, None) {
            return Ok(());
        }
        let socket = SocketAt::open(path).map_err(|error| ("examine the new socket", error))?;
        // The mode first: afterwards the file may be somebody else's.
        if let Some(mode) = self.mode {
            socket.set_mode(mode).map_err(|error| ("set the mode of the socket", error))?;
        }
        if (self.owner, self.group) == (None, None) {
            return Ok(());
        }
        socket
            .set_owner(self.owner, self.group)
            .map_err(|error| ("set the owner and the group of the socket", error))
    }
}

/// Why a socket cannot be opened: what was tried, and what the system said.
#[derive(Debug)]
pub struct CannotOpen {
    doing: &'static str,
    error: io::Error,
}

impl std::fmt::Display for CannotOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.error)
    }
}

impl std::error::Error for CannotOpen {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Listener {
    /// Listens. With `remove_old` a unix socket that is in the way is removed first, but nothing else is; and not even that,
    /// if somebody serves it and it is not to be stolen.
    ///
    /// # Errors
    /// Something is in the way, or the system refuses.
    pub fn open(
        endpoint: &Endpoint,
        backlog: i32,
        remove_old: bool,
        access: &Access,
    ) -> Result<Self, CannotOpen> {
        let because = |doing| move |error| CannotOpen { doing, error };
        let (socket, file) = match endpoint {
            Endpoint::Inherited(fd) => {
                (Listening::inherit(*fd, backlog).map_err(because("take over the descriptor"))?, None)
            }
            Endpoint::Inet(address) => {
                let doing = "listen on the address";
                let socket =
                    Listening::bind(Address::Inet(*address), access.v6_only).map_err(because(doing))?;
                socket.listen(backlog).map_err(because(doing))?;
                (socket, None)
            }
            Endpoint::Unix(bytes) => {
                let path = Path::new(OsStr::from_bytes(bytes));
                if remove_old {
                    remove_socket(path, access.steals).map_err(because("remove the old socket"))?;
                }
                let doing = "listen on the path";
                let socket = Listening::bind(Address::Unix(bytes), false).map_err(because(doing))?;
                let file = SocketFile::at(path).map_err(because("examine the new socket"))?;
                // Nobody can connect yet.
                if let Err((doing, error)) = access.grant(path) {
                    file.remove();
                    return Err(CannotOpen { doing, error });
                }
                socket.listen(backlog).map_err(because(doing))?;
                (socket, Some(file))
            }
        };
        fork::watch();
        let opened = (!matches!(endpoint, Endpoint::Inherited(_))).then(Moment::now);
        Ok(Self {
            sockets: vec![Bound { socket, opened, file }],
            queue: None,
            is_refusing: AtomicBool::new(false),
        })
    }

    /// One that listens where either does.
    #[must_use]
    pub fn and(mut self, mut other: Self) -> Self {
        self.sockets.append(&mut other.sockets);
        self
    }

    /// Prepares for [`Self::accept`].
    ///
    /// # Errors
    /// Somebody has closed the socket, or no descriptor is to be had.
    pub fn prepare(&mut self) -> io::Result<()> {
        if !self.sockets.iter().all(|bound| bound.socket.is_open()) {
            return Err(io::Error::other("the descriptor of the listening socket was closed"));
        }
        // Children that the filter forks from now on may have the socket, but do not serve it.
        match &*self.sockets {
            [Bound { socket, opened: Some(opened), .. }] if !opened.is_before_a_fork() => {
                socket.set_accept_timeout(LONGEST_WAIT)
            }
            sockets => {
                self.queue = Some(Queue::new(sockets)?);
                Ok(())
            }
        }
    }

    /// Waits for a connection and accepts it; `None` if there is none for [`LONGEST_WAIT`], or after
    /// [`Self::refuse`].
    ///
    /// # Errors
    /// See accept(2).
    pub fn accept(&self) -> io::Result<Option<Socket>> {
        let deadline = Instant::now() + LONGEST_WAIT;
        loop {
            let socket = match &self.queue {
                Some(queue) => self.accept_from(queue, deadline)?,
                None => accepted(self.sockets[0].socket.accept())?,
            };
            if socket.is_some() || Instant::now() >= deadline || self.is_refusing.load(Ordering::SeqCst) {
                return Ok(socket);
            }
        }
    }

    /// A connection that another process accepts first is none. But accept(2) may wait on an inherited socket: then the
    /// thread gets the next connection.
    fn accept_from(&self, queue: &Queue, deadline: Instant) -> io::Result<Option<Socket>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (mut wanted, mut is_refused) = (SmallVec::<[u64; 4]>::new(), false);
        queue.poller.wait(left, |report| match report.token {
            Queue::REFUSED => is_refused = true,
            token => wanted.push(token),
        })?;
        let Some((&token, others)) = wanted.split_first().filter(|_| !is_refused) else { return Ok(None) };
        for &other in others {
            // Another thread may have them at once.
            self.arm(queue, other)?;
        }
        let socket = accepted(self.sockets[token as usize].socket.accept());
        self.arm(queue, token)?;
        socket
    }

    fn arm(&self, queue: &Queue, token: u64) -> io::Result<()> {
        queue.poller.arm(self.sockets[token as usize].socket.as_fd(), token, Trigger::Once)
    }

    /// Waits for a connection without accepting it; `false` if there is none in this time, or when `stopping`
    /// becomes readable.
    pub fn is_wanted(&self, time: Duration, stopping: BorrowedFd<'_>) -> bool {
        let fd = match (&*self.sockets, &self.queue) {
            ([_, _, ..], Some(queue)) => queue.poller.as_fd(),
            (sockets, _) => sockets[0].socket.as_fd(),
        };
        let woken = sys::wait(fd, Interest::Read, stopping, Instant::now() + time);
        matches!(woken, Ok(Woken::Ready))
    }

    /// Ends the waits of [`Self::accept`], and refuses connections from now on, if no other process accepts them.
    pub fn refuse(&self) {
        self.is_refusing.store(true, Ordering::SeqCst);
        match &self.queue {
            Some(queue) => queue.refused.raise(),
            None => self.sockets[0].socket.shut_down(),
        }
    }
}

/// The connection, unless there is none.
fn accepted(result: io::Result<Socket>) -> io::Result<Option<Socket>> {
    match result {
        Ok(socket) => Ok(Some(socket)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {
                Ok(None)
            }
            _ => Err(error),
        },
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Root's sockets stay, as scripts expect of libmilter.
        if !sys::is_root() {
            self.sockets.iter().filter_map(|bound| bound.file.as_ref()).for_each(SocketFile::remove);
        }
    }
}

/// A unix socket's file, known by device and inode.
#[derive(Debug)]
struct SocketFile {
    /// Absolute, because daemons change their directory.
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let metadata = fs::symlink_metadata(&path)?;
        Ok(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }

    /// Removes the file, if it is still the same.
    fn remove(&self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| metadata.dev() == self.device && metadata.ino() == self.inode);
        if is_ours {
            // A directory that the process may no longer write to is no reason to complain at the end.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket at `path`, or the symbolic link to a socket, if there is one. What a link leads to stays.
fn remove_socket(path: &Path, steals: bool) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if !steals && socket::is_served(path.as_os_str().as_bytes())? {
                return Err(io::Error::other("another process listens on it"));
            }
            fs::remove_file(path)
        }
        Ok(_) => Err(io::Error::other("the file is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(path: &Path) -> Endpoint {
        Endpoint::Unix(path.as_os_str().as_bytes().to_vec())
    }

    #[test]
    fn a_socket_in_the_way_is_removed_only_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = Listener::open(&endpoint(&path), 1, true, &Access::default()).unwrap();
        let error = Listener::open(&endpoint(&path), 1, false, &Access::default()).unwrap_err();
        assert_eq!(error.error.kind(), io::ErrorKind::AddrInUse);
        let second = Listener::open(&endpoint(&path), 1, true, &Access::default()).unwrap();
        drop(first);
        assert!(path.exists(), "a successor's socket stays");
        drop(second);
        assert_eq!(path.exists(), crate::sys::is_root(), "root's sockets stay");
    }

    #[test]
    fn no_other_file_is_ever_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "precious").unwrap();
        let error = Listener::open(&endpoint(&path), 1, true, &Access::default()).unwrap_err();
        assert_eq!(error.to_string(), "cannot remove the old socket: the file is not a socket");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_connection_to_any_of_several_sockets_is_accepted_once() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| dir.path().join(name));
        let open = |path: &PathBuf| Listener::open(&endpoint(path), 10, false, &Access::default()).unwrap();
        let mut listener = open(&paths[0]).and(open(&paths[1])).and(open(&paths[2]));
        listener.prepare().unwrap();
        for _ in 0..3 {
            let connect = |path| std::os::unix::net::UnixStream::connect(path).unwrap();
            let _peers = [&paths[2], &paths[0], &paths[2], &paths[1]].map(connect);
            for _ in 0..4 {
                assert!(listener.accept().unwrap().is_some());
            }
        }
        listener.refuse();
        assert!(listener.accept().unwrap().is_none());
    }

    #[test]
    fn only_a_descriptor_that_can_listen_is_taken_over() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&one);
        assert!(Listener::open(&Endpoint::Inherited(fd), 1, false, &Access::default()).is_err());
        assert!(Listener::open(&Endpoint::Inherited(9999), 1, false, &Access::default()).is_err());
    }
}
