//! The framed connection to a filter, with deadlines. What the frames mean is not its business.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::address::Stream;
use super::error::{Error, Fault};
use crate::protocol::Kind;
use crate::protocol::frame::{self, Frame};
use crate::sys;

/// How much is read at once.
const READ_SIZE: usize = 64 * 1024;

/// The largest payload of an answer: Postfix's limit. Filters keep to 64 KiB, MTAs do not ask for that.
const MAX_PAYLOAD: usize = (1 << 30) - 2;

/// How long a filter may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// To accept the connection.
    pub connect: Duration,
    /// For the answer to the negotiation or an SMTP command.
    pub command: Duration,
    /// For the answer to a part of the message; each PROGRESS gives it that time again.
    pub content: Duration,
    /// For the end of the message as a whole: looked at behind each PROGRESS.
    pub end_of_message: Option<Duration>,
}

impl Limits {
    /// The same time for each answer.
    pub fn all(time: Duration) -> Self {
        Self { connect: time, command: time, content: time, end_of_message: None }
    }

    fn of(&self, during: Kind) -> Duration {
        match during {
            Kind::Header | Kind::EndOfHeader | Kind::Body | Kind::EndOfMessage => self.content,
            _ => self.command,
        }
    }
}

/// How servers of other protocols begin to speak. None of it begins the answer to an offer.
const MARKS: [(&[u8], &str); 7] = [
    (b"HTTP", "HTTP"),
    (b"220 ", "SMTP"),
    (b"220-", "SMTP"),
    (b"* OK", "IMAP"),
    (b"+OK", "POP3"),
    (b"SSH-", "SSH"),
    (b"\x15\x03", "TLS"),
];

const LONGEST_MARK: usize = 4;

/// The protocol of a server that speaks another one.
fn other_protocol(received: &[u8]) -> Option<&'static str> {
    MARKS.iter().find(|(mark, _)| received.starts_with(mark)).map(|(_, name)| *name)
}

/// A connection on which frames go out and come in.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    limits: Limits,
    /// When the answer to the end of the message must be there at the latest.
    end: Option<(Instant, Duration)>,
    /// Frames that wait to be sent.
    outgoing: Vec<u8>,
    /// Received and not yet used: what stands behind `used`.
    incoming: Vec<u8>,
    used: usize,
}

impl Link {
    /// Takes a connected stream. Every answer has `timeout` to come in.
    pub fn new(stream: Stream, timeout: Duration) -> Self {
        Self::with_limits(stream, Limits::all(timeout))
    }

    /// Takes a connected stream. Answers have as long as `limits` say.
    pub fn with_limits(stream: Stream, limits: Limits) -> Self {
        Self { stream, limits, end: None, outgoing: Vec::new(), incoming: Vec::new(), used: 0 }
    }

    /// The buffer that the next [`flush`](Self::flush) sends: append frames to it.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    /// Sends everything that waits, in one write if the system takes it.
    ///
    /// # Errors
    /// It cannot be sent, or not in time.
    pub fn flush(&mut self, during: Kind) -> Result<(), Error> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let sent = self
            .stream
            .set_write_timeout(Some(self.limits.of(during)))
            .and_then(|()| self.stream.write_all(&self.outgoing));
        self.outgoing.clear();
        sent.map_err(|source| match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Error::Timeout { during, after: self.limits.of(during) }
            }
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                Error::Protocol { during, fault: Fault::Closed }
            }
            _ => Error::Io { during, source },
        })
    }

    /// The end of the message goes out: from now on its total limit counts.
    pub(super) fn begin_end_of_message(&mut self) {
        self.end = self.limits.end_of_message.map(|limit| (Instant::now() + limit, limit));
    }

    /// Whatever has come in that nobody has read: `Some` with the command byte of the frame, if that is there.
    /// Does not wait.
    pub(super) fn unread(&mut self) -> Option<Option<u8>> {
        if self.unread_answer().is_none() && sys::is_readable(self.stream.as_fd()) {
            // An error, or the end, is told by the next command.
            let _ = self.read_more(Kind::Abort, Instant::now() + Duration::from_secs(1));
        }
        self.unread_answer()
    }

    /// The first frame that waits to be read and answers something: a sign of life is none, wherever it comes.
    fn unread_answer(&self) -> Option<Option<u8>> {
        const PROGRESS: &[u8] = b"\0\0\0\x01p";
        let mut unread = &self.incoming[self.used..];
        while let Some(rest) = unread.strip_prefix(PROGRESS) {
            unread = rest;
        }
        (!unread.is_empty()).then(|| unread.get(frame::LENGTH_FIELD).copied())
    }

    /// Sends everything that waits, then receives one frame.
    ///
    /// # Errors
    /// It does not come, not in time, or what comes is no frame.
    pub fn receive(&mut self, during: Kind) -> Result<Frame<'_>, Error> {
        self.flush(during)?;
        self.incoming.drain(..self.used);
        self.used = 0;
        let now = Instant::now();
        // Sendmail looks at the total only before it waits: an answer that comes too late still counts.
        match self.end {
            Some((end, total)) if during == Kind::EndOfMessage && end < now => {
                return Err(Error::Timeout { during, after: total });
            }
            _ => {}
        }
        let deadline = now + self.limits.of(during);
        let size = loop {
            self.hear_who_it_is(during)?;
            let measured = frame::measure(&self.incoming, MAX_PAYLOAD)
                .map_err(|error| Error::Protocol { during, fault: Fault::Frame(error) })?;
            match measured {
                Some(size) if self.incoming.len() >= size => break size,
                _ => self.read_more(during, deadline).map_err(|error| self.reconsider(error))?,
            }
        };
        self.used = size;
        Ok(frame::read(&mut self.incoming[..size]))
    }

    /// Tells the filter that nothing more will come, and waits for it to close the connection, so that its
    /// close callback has run. Whether it does is its own affair, but it must not say anything more: what it
    /// says is returned as [`unread`](Self::unread) does.
    pub fn close(mut self) -> Option<Option<u8>> {
        // A filter that is gone already is as good as one that goes now.
        if self.flush(Kind::Quit).is_ok() && self.stream.shutdown_write().is_ok() {
            let deadline = Instant::now() + self.limits.command;
            while self.unread_answer().is_none() && self.read_more(Kind::Quit, deadline).is_ok() {}
        }
        self.unread_answer()
    }

    /// Before there is a filter there may be another server, which says what it is.
    fn hear_who_it_is(&self, during: Kind) -> Result<(), Error> {
        match other_protocol(&self.incoming) {
            Some(name) if during == Kind::Negotiate => {
                Err(Error::Protocol { during, fault: Fault::OtherProtocol(name) })
            }
            _ => Ok(()),
        }
    }

    /// A server that does not answer the offer may be waiting for the end of a line. Many say who they are when
    /// nothing more can come.
    fn reconsider(&mut self, error: Error) -> Error {
        const LAST_CHANCE: Duration = Duration::from_secs(2);
        let Error::Timeout { during: during @ Kind::Negotiate, .. } = error else { return error };
        if self.incoming.is_empty() && self.stream.shutdown_write().is_ok() {
            let deadline = Instant::now() + LAST_CHANCE;
            while self.incoming.len() < LONGEST_MARK && self.read_more(during, deadline).is_ok() {}
        }
        self.hear_who_it_is(during).err().unwrap_or(error)
    }

    fn read_more(&mut self, during: Kind, deadline: Instant) -> Result<(), Error> {
        let expired = || Error::Timeout { during, after: self.limits.of(during) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(expired());
        }
        let failed = |source| Error::Io { during, source };
        self.stream.set_read_timeout(Some(left)).map_err(failed)?;
        let length = self.incoming.len();
        self.incoming.resize(length + READ_SIZE, 0);
        let read = self.stream.read(&mut self.incoming[length..]);
        self.incoming.truncate(length + *read.as_ref().unwrap_or(&0));
        let closed = |fault| Err(Error::Protocol { during, fault });
        match read {
            Ok(0) if length == 0 => closed(Fault::Closed),
            Ok(0) => closed(Fault::Truncated),
            Ok(_) => Ok(()),
            Err(source) => match source.kind() {
                ErrorKind::Interrupted => Ok(()),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(expired()),
                ErrorKind::ConnectionReset => closed(Fault::Closed),
                _ => Err(failed(source)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::FrameError;
    use std::os::unix::net::UnixStream;

    fn pair(timeout: Duration) -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::new(Stream::Unix(ours), timeout), theirs)
    }

    fn fault(error: Error) -> Fault {
        match error {
            Error::Protocol { during: Kind::Helo, fault } => fault,
            other => panic!("{other}"),
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn frames_come_out_one_by_one_however_they_arrive() {
        let (mut link, mut peer) = pair(LONG);
        peer.write_all(b"\0\0\0\x01c\0\0\0\x03h").unwrap();
        assert_eq!(link.receive(Kind::Helo).unwrap(), Frame { kind: b'c', payload: &mut [] });
        let writer = std::thread::spawn(move || peer.write_all(b"ab").map(|()| peer));
        assert_eq!(link.receive(Kind::Helo).unwrap(), Frame { kind: b'h', payload: &mut b"ab".to_vec() });
        drop(writer.join());
        assert_eq!(fault(link.receive(Kind::Helo).unwrap_err()), Fault::Closed);
    }

    #[test]
    fn what_waits_goes_out_before_an_answer_is_awaited() {
        let (mut link, mut peer) = pair(LONG);
        link.outgoing().extend_from_slice(b"question");
        peer.write_all(b"\0\0\0\x01c").unwrap();
        link.receive(Kind::Helo).unwrap();
        let mut asked = [0; 8];
        peer.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"question");
    }

    #[test]
    fn a_silent_filter_runs_out_of_time() {
        let (mut link, _peer) = pair(Duration::from_millis(20));
        assert!(matches!(link.receive(Kind::Helo), Err(Error::Timeout { during: Kind::Helo, .. })));
    }

    #[test]
    fn broken_frames_are_told_apart() {
        let (mut link, mut peer) = pair(LONG);
        peer.write_all(b"\0\0\0\x05c").unwrap();
        drop(peer);
        assert_eq!(fault(link.receive(Kind::Helo).unwrap_err()), Fault::Truncated);

        let (mut link, mut peer) = pair(LONG);
        peer.write_all(b"\0\0\0\0").unwrap();
        assert_eq!(fault(link.receive(Kind::Helo).unwrap_err()), Fault::Frame(FrameError::Empty));

        let (mut link, mut peer) = pair(LONG);
        peer.write_all(b"\x40\0\0\0c").unwrap();
        let too_long = FrameError::TooLong { payload: MAX_PAYLOAD + 1, max: MAX_PAYLOAD };
        assert_eq!(fault(link.receive(Kind::Helo).unwrap_err()), Fault::Frame(too_long));
    }

    #[test]
    fn servers_of_other_protocols_are_named() {
        for (greeting, name) in [
            (&b"220 mx.example.org ESMTP\r\n"[..], "SMTP"),
            (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
            (b"\x15\x03\x01\0\x02", "TLS"),
        ] {
            let (mut link, mut peer) = pair(LONG);
            peer.write_all(greeting).unwrap();
            let error = link.receive(Kind::Negotiate).unwrap_err();
            assert_eq!(error.to_string(), format!("OPTNEG: the peer speaks {name}, not the milter protocol"));
        }
    }

    #[test]
    fn a_server_that_waits_for_the_end_of_a_line_is_named_too() {
        let (mut link, mut peer) = pair(Duration::from_millis(50));
        link.outgoing().extend_from_slice(b"offer");
        let server = std::thread::spawn(move || {
            peer.read_to_end(&mut Vec::new()).unwrap();
            peer.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        });
        let error = link.receive(Kind::Negotiate).unwrap_err();
        let fault = Fault::OtherProtocol("HTTP");
        assert!(matches!(&error, Error::Protocol { fault: found, .. } if *found == fault), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn what_has_come_unasked_is_seen_without_waiting() {
        let (mut link, mut peer) = pair(LONG);
        assert_eq!(link.unread(), None);
        peer.write_all(b"\0\0\0\x01p").unwrap();
        assert_eq!(link.unread(), None, "a sign of life is no answer");
        peer.write_all(b"\0\0\0").unwrap();
        assert_eq!(link.unread(), Some(None), "the start of a frame");
        assert_eq!(link.receive(Kind::Helo).unwrap().kind, b'p');
        assert_eq!(link.unread(), Some(None));
        peer.write_all(b"\x01c").unwrap();
        assert_eq!(link.receive(Kind::Helo).unwrap().kind, b'c');
        drop(peer);
        assert_eq!(link.unread(), None, "an end is nothing to read");
        assert_eq!(link.close(), None);
    }

    #[test]
    fn closing_waits_for_the_filter_to_close() {
        let (mut link, mut peer) = pair(LONG);
        link.outgoing().extend_from_slice(b"last words");
        let filter = std::thread::spawn(move || {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).unwrap();
            heard
        });
        assert_eq!(link.close(), None);
        assert_eq!(filter.join().unwrap(), b"last words");
    }
}
