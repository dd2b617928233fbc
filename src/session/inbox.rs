//! Received bytes, and the frames in them.

use crate::protocol::frame::{self, Frame, FrameError, OVERHEAD};
use crate::sys::memory;
use crate::sys::pages::Pages;
use std::collections::TryReserveError;
use std::io;
use std::time::Instant;

/// Bytes received and not yet processed. A thread keeps one inbox and lends it to the session that it
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
    /// Since when the rest of the frame under way has been waited for; `None` as long as it has not.
    waiting_since: Option<Instant>,
}

/// The beginning of a frame whose rest is late: what a session keeps of it that has no thread meanwhile.
#[derive(Debug)]
pub(super) struct Beginning {
    bytes: Vec<u8>,
    waiting_since: Instant,
}

impl Beginning {
    /// Since when the rest has been waited for.
    pub(super) fn waiting_since(&self) -> Instant {
        self.waiting_since
    }
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
        (self.start, self.end, self.covered, self.waiting_since) = (0, 0, None, None);
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

    /// Whether a frame has begun to arrive and was waited for.
    pub(super) fn has_waited(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// Since when the rest of the frame under way has been waited for: since the first call.
    pub(super) fn waiting_since(&mut self) -> Instant {
        *self.waiting_since.get_or_insert_with(Instant::now)
    }

    /// Takes the beginning of a frame out, if there is one.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn take_beginning(&mut self) -> Result<Option<Beginning>, TryReserveError> {
        if self.is_empty() {
            return Ok(None);
        }
        self.uncover();
        let received = &self.buffer[self.start..self.end];
        let mut bytes = Vec::new();
        memory::fallibly(|| bytes.try_reserve_exact(received.len()))?;
        bytes.extend_from_slice(received);
        let beginning = Beginning { bytes, waiting_since: self.waiting_since() };
        self.clear();
        Ok(Some(beginning))
    }

    /// Goes on with the beginning of a frame, instead of with nothing.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn go_on_with(&mut self, beginning: &Beginning) -> io::Result<()> {
        self.prepare()?;
        let length = beginning.bytes.len();
        if length >= self.buffer.len() {
            self.grow(length)?;
        }
        self.buffer[..length].copy_from_slice(&beginning.bytes);
        (self.start, self.end, self.waiting_since) = (0, length, Some(beginning.waiting_since));
        Ok(())
    }

    /// Takes the next complete frame out. It stands where it was received, with one NUL behind it.
    ///
    /// # Errors
    /// The bytes are not a frame.
    #[inline(always)]
    pub(super) fn next_frame(&mut self, max_payload: usize) -> Result<Option<Frame<'_>>, FrameError> {
        if self.is_empty() {
            return Ok(None);
        }
        self.uncover();
        // With the byte behind them.
        let bytes = &mut self.buffer[self.start..=self.end];
        let [received @ .., _] = &*bytes else { return Ok(None) };
        let available = received.len();
        let Some(length) = frame::measure(received, max_payload)? else {
            return Ok(None);
        };
        if length > available {
            return Ok(None);
        }
        if length < available {
            self.covered = Some(bytes[length]);
        }
        bytes[length] = 0;
        self.start += length;
        self.waiting_since = None;
        Ok(Some(frame::read(&mut bytes[..length])))
    }

    /// Room to receive into, enough for what the frame under way still needs; `None` if there is no memory for that.
    #[inline(always)]
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else {
            self.make_room()?;
        }
        Some(self.free())
    }

    /// Moves a frame that has come in part to the front, and makes the buffer large enough for the rest of it.
    #[cold]
    fn make_room(&mut self) -> Option<()> {
        self.uncover();
        let buffer = &mut *self.buffer;
        buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        // The frame's length was checked against the limit before anyone came here for more bytes.
        if let Ok(Some(length)) = frame::measure(&buffer[..self.end], usize::MAX)
            && length > buffer.len() - 1
        {
            self.grow(length).ok()?;
        }
        Some(())
    }

    /// What is behind the received bytes, but for the last byte.
    #[inline(always)]
    fn free(&mut self) -> &mut [u8] {
        let last = self.buffer.len().saturating_sub(1);
        self.buffer.get_mut(self.end..last).unwrap_or_default()
    }

    /// Takes in what was received into [`Self::room`].
    #[inline(always)]
    pub(super) fn received(&mut self, count: usize) {
        self.end += count;
    }

    /// Whether all received bytes have been handed out, and there was room for more when they were received. A call of its
    /// own: most sessions wait for the next command, and need not know.
    #[inline(never)]
    pub(super) fn has_handed_out_all(&mut self) -> bool {
        self.is_empty() && !self.free().is_empty()
    }

    #[inline(always)]
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
        inbox.room().unwrap()[..bytes.len()].copy_from_slice(bytes);
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
        deliver(&mut inbox, b"\xff\xff\xff\xff");
        assert_eq!(
            inbox.next_frame(10),
            Err(FrameError::TooLong { payload: 0xffff_fffe, max: 10 }),
            "the covered byte is back in its place"
        );
    }

    #[test]
    fn the_beginning_of_a_frame_is_taken_out_and_put_back() {
        let mut inbox = prepared();
        assert!(inbox.take_beginning().unwrap().is_none());
        deliver(&mut inbox, b"\0\0\0\x02Ha\0\0\0\x03Bx");
        // A NUL covers the first byte of the second frame.
        assert_eq!(next(&mut inbox), Some((b'H', b"a".to_vec())));
        inbox.buffer[inbox.start] = 0;
        let since = inbox.waiting_since();
        let beginning = inbox.take_beginning().unwrap().unwrap();
        assert!(inbox.is_empty() && !inbox.has_waited());
        deliver(&mut inbox, b"\0\0\0\x01T");
        assert_eq!(next(&mut inbox), Some((b'T', vec![])));
        inbox.release();
        inbox.go_on_with(&beginning).unwrap();
        assert_eq!(inbox.waiting_since(), since, "its time goes on");
        deliver(&mut inbox, b"y");
        assert_eq!(next(&mut inbox), Some((b'B', b"xy".to_vec())));
        assert!(inbox.is_empty() && !inbox.has_waited());
    }

    #[test]
    fn the_largest_usual_frame_fits_into_one_receive() {
        let mut inbox = prepared();
        assert_eq!(inbox.room().unwrap().len(), 65_540);
    }

    #[test]
    fn a_larger_frame_makes_room_for_itself_and_gives_it_back() {
        let mut inbox = prepared();
        let payload = vec![b'x'; 200_000];
        let mut bytes = Vec::new();
        frame::append(&mut bytes, b'B', &[&payload]);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let count = inbox.room().unwrap().len().min(rest.len());
            deliver(&mut inbox, &rest[..count]);
            rest = &rest[count..];
            // A pause makes no difference.
            let beginning = inbox.take_beginning().unwrap().unwrap();
            assert!(inbox.buffer.len() <= Inbox::USUAL + 1);
            inbox.go_on_with(&beginning).unwrap();
        }
        let frame = inbox.next_frame(1 << 20).unwrap().unwrap();
        assert_eq!(frame.payload, payload);
        inbox.clear();
        assert!(inbox.buffer.is_empty());
    }
}
