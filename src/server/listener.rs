//! The listening socket, and the unix socket file that goes with it: only a file that this value made itself is
//! ever removed at the end.

use super::endpoint::Endpoint;
use crate::sys::access::SocketAt;
use crate::sys::epoll::{Epoll, Trigger};
use crate::sys::event::EventFd;
use crate::sys::fork::{self, Moment};
use crate::sys::socket::{self, Address, Listening, Socket};
use crate::sys::{self, Interest, Woken};
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

/// A socket that MTAs connect to. When smfi_opensocket has opened it, other processes may have it by the time of
/// smfi_main, those that this one was forked from or that it has forked; and with `fd:` nobody knows who has it.
/// They go on to serve when this process stops, so nothing is done to the socket that they would notice.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    /// When this process opened the socket; `None` if that was somebody else.
    opened: Option<Moment>,
    /// Where threads wait, unless they wait in accept(2).
    queue: Option<Queue>,
    is_refusing: AtomicBool,
    file: Option<SocketFile>,
}

/// Where threads wait for connections on a socket that others have, too: nobody could end an accept(2) there without
/// hurting them. One thread is woken for each connection.
#[derive(Debug)]
struct Queue {
    poller: Epoll,
    refused: EventFd,
}

impl Queue {
    const CONNECTION: u64 = 0;
    const REFUSED: u64 = 1;

    fn new(socket: &Listening) -> io::Result<Self> {
        let queue = Self { poller: Epoll::new()?, refused: EventFd::new()? };
        queue.poller.add(queue.refused.as_fd(), Self::REFUSED, Trigger::Level)?;
        queue.poller.add(socket.as_fd(), Self::CONNECTION, Trigger::Once)?;
        Ok(queue)
    }
}

/// Who may use a unix socket.
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
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: None, owner: None, group: None, steals: true }
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
        socket.set_owner(self.owner, self.group).map_err(|error| ("set the owner of the socket", error))
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
                let socket = Listening::bind(Address::Inet(*address)).map_err(because(doing))?;
                socket.listen(backlog).map_err(because(doing))?;
                (socket, None)
            }
            Endpoint::Unix(bytes) => {
                let path = Path::new(OsStr::from_bytes(bytes));
                if remove_old {
                    remove_socket(path, access.steals).map_err(because("remove the old socket"))?;
                }
                let socket = Listening::bind(Address::Unix(bytes)).map_err(because("listen on the path"))?;
                let file = SocketFile::at(path).map_err(because("examine the new socket"))?;
                // Nobody can connect yet.
                if let Err((doing, error)) = access.grant(path) {
                    file.remove();
                    return Err(CannotOpen { doing, error });
                }
                socket.listen(backlog).map_err(because("listen on the path"))?;
                (socket, Some(file))
            }
        };
        fork::watch();
        Ok(Self {
            socket,
            opened: (!matches!(endpoint, Endpoint::Inherited(_))).then(Moment::now),
            queue: None,
            is_refusing: AtomicBool::new(false),
            file,
        })
    }

    /// Prepares for [`Self::accept`].
    ///
    /// # Errors
    /// Somebody has closed the socket, or no descriptor is to be had.
    pub fn prepare(&mut self) -> io::Result<()> {
        if !self.socket.is_open() {
            return Err(io::Error::other("the descriptor of the listening socket was closed"));
        }
        // Children that the filter forks from now on may have the socket, but do not serve it.
        if self.opened.is_some_and(|opened| !opened.is_before_a_fork()) {
            self.socket.set_accept_timeout(LONGEST_WAIT)?;
        } else {
            self.queue = Some(Queue::new(&self.socket)?);
        }
        Ok(())
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
                None => accepted(self.socket.accept())?,
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
        let (mut is_wanted, mut is_refused) = (false, false);
        queue.poller.wait(left, |report| match report.token {
            Queue::CONNECTION => is_wanted = true,
            _ => is_refused = true,
        })?;
        if is_refused || !is_wanted {
            return Ok(None);
        }
        let socket = accepted(self.socket.accept());
        queue.poller.arm(self.as_fd(), Queue::CONNECTION, Trigger::Once)?;
        socket
    }

    /// Waits for a connection without accepting it; `false` if there is none in this time, or when `stopping`
    /// becomes readable.
    pub fn is_wanted(&self, time: Duration, stopping: BorrowedFd<'_>) -> bool {
        let woken = sys::wait(self.as_fd(), Interest::Read, stopping, Instant::now() + time);
        matches!(woken, Ok(Woken::Ready))
    }

    /// Ends the waits of [`Self::accept`], and refuses connections from now on, if no other process accepts them.
    pub fn refuse(&self) {
        self.is_refusing.store(true, Ordering::SeqCst);
        match &self.queue {
            Some(queue) => queue.refused.raise(),
            None => self.socket.shut_down(),
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

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Root's sockets stay, as scripts expect of libmilter.
        if let Some(file) = &self.file
            && !sys::is_root()
        {
            file.remove();
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
    fn only_a_descriptor_that_can_listen_is_taken_over() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&one);
        assert!(Listener::open(&Endpoint::Inherited(fd), 1, false, &Access::default()).is_err());
        assert!(Listener::open(&Endpoint::Inherited(9999), 1, false, &Access::default()).is_err());
    }
}
