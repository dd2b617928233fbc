//! The connection to the MTA, with its deadlines: the one place that reads and writes the socket. It moves
//! bytes; frames are cut out of them by [`Inbox`].

use super::inbox::Inbox;
use super::scheduling::{FRAME_PATIENCE, PARK_AFTER};
use super::shutdown::Shutdown;
use crate::sys::socket::{Peer, Socket};
use crate::sys::{self, Interest, Woken};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the MTA may take, as smfi_settimeout sets it, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts(pub i32);

impl Timeouts {
    /// So long that nobody sees its end, and short enough to be added to an instant.
    const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

    /// For a frame, from its first byte to its last, in either direction. With 0 it must be there at once, as a whole; a
    /// negative number means no limit.
    pub fn frame(self) -> Duration {
        u64::try_from(self.0).map_or(Self::FOREVER, Duration::from_secs)
    }

    /// For the silence between frames. 0 means no limit here.
    pub fn silence(self) -> Duration {
        if self.0 == 0 { Self::FOREVER } else { self.frame() }
    }
}

/// One connection, and how long it may take.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
    timeouts: Timeouts,
    shutdown: Arc<Shutdown>,
}

/// What waiting for the MTA has brought.
#[derive(Debug)]
pub enum Arrival {
    /// More bytes are in the inbox.
    Bytes,
    /// Nothing, for as long as a thread waits.
    Silence,
    /// The session is to end because the process stops.
    Shutdown,
    /// The MTA has closed the connection.
    Closed,
    /// Nothing, or not a whole frame, within the timeout.
    TimedOut,
    /// There is no memory to receive into.
    NoMemory,
    /// The connection broke.
    Broken(io::Error),
}

impl Link {
    /// Takes over a new connection.
    pub fn new(socket: Socket, timeouts: Timeouts, shutdown: Arc<Shutdown>) -> Self {
        Self { socket, timeouts, shutdown }
    }

    /// When a silence will have been too long that is noticed `now`. It may have lasted for [`PARK_AFTER`] already, but that
    /// is not sure, and no session may end too early.
    pub fn silence_deadline(&self, now: Instant) -> Instant {
        now + self.timeouts.silence()
    }

    /// The state that says when sessions end.
    pub fn shutdown(&self) -> &Arc<Shutdown> {
        &self.shutdown
    }

    /// When a frame must be complete whose rest has been waited for `since` then.
    pub(super) fn frame_deadline(&self, since: Instant) -> Instant {
        since + self.timeouts.frame()
    }

    /// Receives bytes. If none have come, waits for [`PARK_AFTER`], or not at all unless it `may_block`. But for the rest of a
    /// frame that has begun it waits for [`FRAME_PATIENCE`].
    #[inline(always)]
    pub(super) fn receive(&self, inbox: &mut Inbox, may_block: bool, in_message: bool) -> Arrival {
        if !inbox.is_empty() {
            return self.receive_rest(inbox, may_block, in_message);
        }
        let Some(room) = inbox.room() else { return Arrival::NoMemory };
        let received =
            if may_block { self.socket.receive(room, PARK_AFTER) } else { self.socket.try_receive(room) };
        match received {
            Ok(0) => Arrival::Closed,
            Ok(count) => {
                inbox.received(count);
                Arrival::Bytes
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Arrival::Silence,
            Err(error) => Arrival::Broken(error),
        }
    }

    /// Waits until there is something to do for the session: bytes, or the end of the process; `false` if there
    /// is not before `deadline`.
    pub(super) fn wait(&self, in_message: bool, deadline: Instant) -> bool {
        let woken = sys::wait(self.socket.as_fd(), Interest::Read, self.shutdown.alarm(in_message), deadline);
        // If the wait itself fails, receiving will find out why.
        !matches!(woken, Ok(Woken::TimedOut))
    }

    /// Waits for more of the frame under way as long as a thread waits for that, or until its deadline, or until the process
    /// stops. First the MTA may write more of it, if it runs on the same processor: whoever is faster than the MTA would be woken
    /// for each piece. (S3-4096: 1.4 of Debian's throughput instead of 1.0, half of its CPU instead of nine tenths.)
    fn receive_rest(&self, inbox: &mut Inbox, may_block: bool, in_message: bool) -> Arrival {
        std::thread::yield_now();
        let since = inbox.waiting_since();
        let deadline = self.frame_deadline(since);
        let until = deadline.min(since + FRAME_PATIENCE);
        let now = Instant::now();
        let blocks = may_block && now < until && now + PARK_AFTER < deadline;
        loop {
            let Some(room) = inbox.room() else { return Arrival::NoMemory };
            let received =
                if blocks { self.socket.receive(room, PARK_AFTER) } else { self.socket.try_receive(room) };
            match received {
                Ok(0) => return Arrival::Closed,
                Ok(count) => {
                    inbox.received(count);
                    return Arrival::Bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && blocks => return Arrival::Silence,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Arrival::Broken(error),
            }
            match sys::wait(self.socket.as_fd(), Interest::Read, self.shutdown.alarm(in_message), until) {
                Ok(Woken::Ready) => {}
                Ok(Woken::Alarm) => return Arrival::Shutdown,
                Ok(Woken::TimedOut) if Instant::now() >= deadline => return Arrival::TimedOut,
                Ok(Woken::TimedOut) => return Arrival::Silence,
                Err(error) => return Arrival::Broken(error),
            }
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The connection broke, the MTA did not take the bytes within the timeout, or the process aborts.
    #[inline(always)]
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self.socket.try_send(bytes) {
            Ok(count) if count == bytes.len() => Ok(()),
            result => self.send_rest(bytes, result),
        }
    }

    /// Sends what there is room for: how many of `bytes`.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; otherwise the connection is broken.
    pub(super) fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.try_send(bytes)
    }

    /// Who is at the other end. When the connection is broken, nobody can tell any more.
    pub(super) fn peer(&self) -> Peer {
        self.socket.peer()
    }

    /// [`Self::send`] when the MTA is slower than the filter: what the first try has not sent.
    #[cold]
    fn send_rest(&self, mut bytes: &[u8], mut sent: io::Result<usize>) -> io::Result<()> {
        let deadline = Instant::now() + self.timeouts.frame();
        loop {
            match sent {
                Ok(count) if count == bytes.len() => return Ok(()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match sys::wait(self.socket.as_fd(), Interest::Write, self.shutdown.alarm(true), deadline)? {
                Woken::Ready => {}
                Woken::Alarm => return Err(io::ErrorKind::ConnectionAborted.into()),
                Woken::TimedOut => return Err(io::ErrorKind::TimedOut.into()),
            }
            sent = self.socket.try_send(bytes);
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_timeouts() {
        let of = |seconds| (Timeouts(seconds).frame().as_secs(), Timeouts(seconds).silence().as_secs());
        assert_eq!(of(7210), (7210, 7210));
        assert_eq!(of(0), (0, Timeouts::FOREVER.as_secs()));
        assert_eq!(of(-1), (Timeouts::FOREVER.as_secs(), Timeouts::FOREVER.as_secs()));
    }
}
