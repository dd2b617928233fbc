//! The mail server's side of the protocol in raw frames: plays what a test says, valid or not, and keeps a transcript
//! of both directions for comparison between two libraries. It knows no more of the protocol than which answer ends
//! the wait for one.

use crate::support::{PATIENCE, wait_until};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// All that a current MTA offers.
pub const ACTIONS: u32 = 0x1ff;
/// All that a current MTA offers.
pub const STEPS: u32 = 0x001f_ffff;

/// A connection to a filter.
pub struct Mta {
    stream: UnixStream,
    transcript: String,
}

impl Mta {
    /// Connects as soon as the filter listens.
    #[track_caller]
    pub fn connect(socket: &Path) -> Self {
        let mut stream = None;
        wait_until("filter to listen", || {
            stream = UnixStream::connect(socket).ok();
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, transcript: String::new() }
    }

    /// Sends a command that gets no answer.
    #[track_caller]
    pub fn tell(&mut self, kind: char, payload: &[u8]) -> &mut Self {
        let length = u32::try_from(payload.len() + 1).unwrap();
        let frame = [&length.to_be_bytes(), &[kind as u8][..], payload].concat();
        self.stream.write_all(&frame).unwrap();
        self.note("> ", kind as u8, payload);
        self
    }

    /// Sends a command and waits for its answer.
    #[track_caller]
    pub fn ask(&mut self, kind: char, payload: &[u8]) -> &mut Self {
        self.tell(kind, payload);
        loop {
            match self.receive() {
                Some(b'c' | b'a' | b'r' | b'd' | b't' | b's' | b'y' | b'O') => return self,
                Some(_) => {}
                None => panic!("no answer, after\n{}", self.transcript),
            }
        }
    }

    /// Offers the newest protocol, and takes the answer.
    #[track_caller]
    pub fn negotiate(&mut self, actions: u32, steps: u32) -> &mut Self {
        self.ask('O', &[6, actions, steps].map(u32::to_be_bytes).concat())
    }

    /// Quits, and waits for the end of the connection; all that was said and heard.
    #[track_caller]
    pub fn quit(mut self) -> String {
        self.tell('Q', b"");
        while self.receive().is_some() {}
        self.transcript.push_str("end\n");
        self.transcript
    }

    /// The next frame's kind, or `None` at the end. A reset is an end too: it says that we spoke unheard.
    #[track_caller]
    fn receive(&mut self) -> Option<u8> {
        let mut length = [0; 4];
        match self.stream.read(&mut length[..1]) {
            Ok(0) => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("{error}, after\n{}", self.transcript),
            Ok(_) => self.read(&mut length[1..]),
        }
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.read(&mut frame);
        self.note("< ", frame[0], &frame[1..]);
        Some(frame[0])
    }

    #[track_caller]
    fn read(&mut self, bytes: &mut [u8]) {
        if let Err(error) = self.stream.read_exact(bytes) {
            panic!("{error}, after\n{}", self.transcript);
        }
    }

    fn note(&mut self, direction: &str, kind: u8, payload: &[u8]) {
        self.transcript.push_str(direction);
        self.transcript.push(kind as char);
        self.transcript.push(' ');
        // Long payloads are bodies: their length and their ends tell enough.
        let shown = payload.escape_ascii().to_string();
        if shown.len() <= 2048 {
            self.transcript.push_str(&shown);
        } else {
            let (start, end) = (&shown[..64], &shown[shown.len() - 64..]);
            self.transcript.push_str(&format!("{start}... {} bytes ...{end}", payload.len()));
        }
        self.transcript.push('\n');
    }
}
