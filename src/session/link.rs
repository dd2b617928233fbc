//! The connection to the MTA, with its deadlines: the one place that reads and writes the socket. It moves
//! bytes; frames are cut out of them by [`Inbox`].

use super::shutdown::Shutdown;
use crate::protocol::frame::{self, Frame, FrameError, OVERHEAD};
use crate::sys::pages::Pages;
use crate::sys::socket::Socket;
use crate::sys::{self, Interest, Woken};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a thread waits for an MTA's next command before it looks for something else to do.
pub const MOMENT: Duration = Duration::from_millis(100);

/// How long the MTA may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a frame, from its first byte to its last, in either direction.
    pub frame: Duration,
    /// For the silence between frames.
    pub silence: Duration,
}

impl Timeouts {
    /// So long that nobody sees its end, and short enough to be added to an instant.
    const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

    /// The timeouts that smfi_settimeout sets. With 0 a frame must be there at once, as a whole, but the MTA may
    /// take its time between frames; a negative number means no limit.
    pub fn from_seconds(seconds: i32) -> Self {
        let limit = u64::try_from(seconds).map_or(Self::FOREVER, Duration::from_secs);
        Self { frame: limit, silence: if limit.is_zero() { Self::FOREVER } else { limit } }
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
    /// Nothing, and no frame is under way.
    Silence,
    /// The session is to end because the process stops.
    Shutdown,
    /// The MTA has closed the connection.
    Closed,
    /// Nothing, or not a whole frame, within the timeout.
    TimedOut,
    /// The connection broke.
    Broken(io::Error),
}

impl Link {
    /// Takes over a new connection.
    ///
    /// # Errors
    /// The socket refuses its settings.
    pub fn new(socket: Socket, timeouts: Timeouts, shutdown: Arc<Shutdown>) -> io::Result<Self> {
        socket.set_patience(MOMENT)?;
        Ok(Self { socket, timeouts, shutdown })
    }

    /// When a silence will have been too long that, `now`, has lasted for a [`MOMENT`].
    pub fn silence_deadline(&self, now: Instant) -> Instant {
        now + self.timeouts.silence.saturating_sub(MOMENT)
    }

    /// Hears nothing more from the MTA: the connection counts as readable from now on, and at its end.
    pub fn stop_reading(&self) {
        self.socket.stop_reading();
    }

    /// The state that says when sessions end.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Receives bytes; if none have come, waits for a [`MOMENT`], or with `at_once` not at all. But a frame that has
    /// begun is waited for: it must be complete before `frame_deadline`, which this function sets when it sees the
    /// first part of a frame.
    #[inline]
    pub(super) fn receive(
        &self,
        inbox: &mut Inbox,
        at_once: bool,
        in_message: bool,
        frame_deadline: &mut Option<Instant>,
    ) -> Arrival {
        if !inbox.is_empty() {
            let deadline = *frame_deadline.get_or_insert_with(|| Instant::now() + self.timeouts.frame);
            return self.receive_until(inbox, in_message, deadline);
        }
        let room = inbox.room();
        let received = if at_once { self.socket.try_receive(room) } else { self.socket.receive(room) };
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

    /// Waits for bytes until `deadline`, or until the process stops.
    fn receive_until(&self, inbox: &mut Inbox, in_message: bool, deadline: Instant) -> Arrival {
        loop {
            match self.socket.try_receive(inbox.room()) {
                Ok(0) => return Arrival::Closed,
                Ok(count) => {
                    inbox.received(count);
                    return Arrival::Bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Arrival::Broken(error),
            }
            match sys::wait(self.socket.as_fd(), Interest::Read, self.shutdown.alarm(in_message), deadline) {
                Ok(Woken::Ready) => {}
                Ok(Woken::Alarm) => return Arrival::Shutdown,
                Ok(Woken::TimedOut) => return Arrival::TimedOut,
                Err(error) => return Arrival::Broken(error),
            }
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The connection broke, the MTA did not take the bytes within the timeout, or the process aborts.
    #[inline]
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self.socket.try_send(bytes) {
            Ok(count) if count == bytes.len() => Ok(()),
            result => self.send_rest(bytes, result),
        }
    }

    /// [`Self::send`] when the MTA is slower than the filter: what the first try has not sent.
    #[cold]
    fn send_rest(&self, mut bytes: &[u8], mut sent: io::Result<usize>) -> io::Result<()> {
        let deadline = Instant::now() + self.timeouts.frame;
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

/// Bytes received and not yet worked off. A thread keeps one inbox and lends it to the session that it
/// serves; between sessions it is empty.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Always at least one byte longer than `end`, see `covered`, or empty as long as it is not needed.
    buffer: Pages,
    /// Where the first byte stands that belongs to no frame handed out.
    start: usize,
    /// Where the received bytes end.
    end: usize,
    /// The byte behind the frame handed out last, if it has been received already. While the frame is in use a NUL
    /// stands in its place, which keeps sloppy string code in filters from running off the end.
    covered: Option<u8>,
}

impl Inbox {
    /// Room for one frame of the default size, received in one call; larger ones make it grow.
    const USUAL: usize = OVERHEAD + frame::DEFAULT_MAX_PAYLOAD;

    /// Makes sure that there is memory to receive into.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.grow(Self::USUAL)?;
        }
        Ok(())
    }

    /// Forgets what is left of a session.
    pub(super) fn clear(&mut self) {
        (self.start, self.end, self.covered) = (0, 0, None);
        if self.buffer.len() > Self::USUAL + 1 {
            self.buffer = Pages::default();
        }
    }

    /// Gives the memory back, if there is nothing in it.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Whether all received bytes have been handed out.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes the next complete frame out. It stands where it was received, with one NUL behind it.
    ///
    /// # Errors
    /// The bytes are not a frame.
    #[inline]
    pub(super) fn next_frame(&mut self, max_payload: usize) -> Result<Option<Frame<'_>>, FrameError> {
        if self.is_empty() {
            return Ok(None);
        }
        self.uncover();
        let buffer = &mut *self.buffer;
        let Some(length) = frame::measure(&buffer[self.start..self.end], max_payload)? else {
            return Ok(None);
        };
        let (from, to) = (self.start, self.start + length);
        if to > self.end {
            return Ok(None);
        }
        if to < self.end {
            self.covered = Some(buffer[to]);
        }
        buffer[to] = 0;
        self.start = to;
        Ok(Some(frame::read(&mut buffer[from..to])))
    }

    /// Room to receive into, enough for what the frame under way still needs. It is empty if there is no memory for
    /// that; receiving 0 bytes then ends the session.
    #[inline]
    fn room(&mut self) -> &mut [u8] {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else {
            self.make_room();
        }
        self.free()
    }

    /// Moves a frame that has come in part to the front, and makes the buffer large enough for the rest of it.
    #[cold]
    fn make_room(&mut self) {
        self.uncover();
        let buffer = &mut *self.buffer;
        buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        // The frame's length was checked against the limit before anyone came here for more bytes.
        if let Ok(Some(length)) = frame::measure(&buffer[..self.end], usize::MAX)
            && length > buffer.len() - 1
            && self.grow(length).is_err()
        {
            *self = Self::default();
        }
    }

    /// What is behind the received bytes, but for the last byte.
    #[inline]
    fn free(&mut self) -> &mut [u8] {
        match &mut *self.buffer {
            [free @ .., _] => free.get_mut(self.end..).unwrap_or_default(),
            [] => &mut [],
        }
    }

    #[inline]
    fn received(&mut self, count: usize) {
        self.end += count;
    }

    #[inline]
    fn uncover(&mut self) {
        if let Some(byte) = self.covered.take() {
            self.buffer[self.start] = byte;
        }
    }

    /// Makes room for a frame of `length` bytes in all, and the NUL behind it.
    fn grow(&mut self, length: usize) -> io::Result<()> {
        let mut pages = Pages::new(length + 1)?;
        pages[..self.end].copy_from_slice(&self.buffer[..self.end]);
        self.buffer = pages;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(inbox: &mut Inbox, bytes: &[u8]) {
        inbox.room()[..bytes.len()].copy_from_slice(bytes);
        inbox.received(bytes.len());
    }

    fn next(inbox: &mut Inbox) -> Option<(u8, Vec<u8>)> {
        inbox
            .next_frame(frame::DEFAULT_MAX_PAYLOAD)
            .unwrap()
            .map(|frame| (frame.kind, frame.payload.to_vec()))
    }

    fn prepared() -> Inbox {
        let mut inbox = Inbox::default();
        inbox.prepare().unwrap();
        inbox
    }

    #[test]
    fn seconds_become_timeouts() {
        let of = |seconds| {
            let Timeouts { frame, silence } = Timeouts::from_seconds(seconds);
            (frame.as_secs(), silence.as_secs())
        };
        assert_eq!(of(7210), (7210, 7210));
        assert_eq!(of(0), (0, Timeouts::FOREVER.as_secs()));
        assert_eq!(of(-1), (Timeouts::FOREVER.as_secs(), Timeouts::FOREVER.as_secs()));
    }

    #[test]
    fn several_frames_in_one_delivery() {
        let mut inbox = prepared();
        deliver(&mut inbox, b"\0\0\0\x02Ha\0\0\0\x01T\0\0");
        assert_eq!(next(&mut inbox), Some((b'H', b"a".to_vec())));
        assert_eq!(next(&mut inbox), Some((b'T', vec![])));
        assert_eq!(next(&mut inbox), None);
        assert!(!inbox.is_empty());
        deliver(&mut inbox, b"\0\x02Bx");
        assert_eq!(next(&mut inbox), Some((b'B', b"x".to_vec())));
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_nul_stands_behind_every_payload_and_harms_nothing() {
        let mut inbox = prepared();
        deliver(&mut inbox, b"\0\0\0\x02Ha\xff");
        let frame = inbox.next_frame(10).unwrap().unwrap();
        assert_eq!(frame.payload, b"a");
        let behind = inbox.start;
        assert_eq!(inbox.buffer[behind], 0);
        deliver(&mut inbox, b"\xff\xff\xff");
        assert_eq!(
            inbox.next_frame(10),
            Err(FrameError::TooLong { payload: 0xffff_fffe, max: 10 }),
            "the covered byte is back in its place"
        );
    }

    #[test]
    fn the_largest_usual_frame_fits_into_one_receive() {
        let mut inbox = prepared();
        assert_eq!(inbox.room().len(), 65_540);
    }

    #[test]
    fn a_larger_frame_makes_room_for_itself_and_gives_it_back() {
        let mut inbox = prepared();
        let payload = vec![b'x'; 200_000];
        let mut bytes = Vec::new();
        frame::append(&mut bytes, b'B', &[&payload]);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let count = inbox.room().len().min(rest.len());
            deliver(&mut inbox, &rest[..count]);
            rest = &rest[count..];
        }
        let frame = inbox.next_frame(1 << 20).unwrap().unwrap();
        assert_eq!(frame.payload, payload);
        inbox.clear();
        assert!(inbox.buffer.is_empty());
    }
}
