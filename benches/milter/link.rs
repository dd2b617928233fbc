//! One connection to a filter, as cheap as it can be made: one write and, when the filter answers at one go, one
//! read for an exchange. It follows the frames only as far as to know when an answer is complete.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::message::{Exchange, Script};

/// Where a filter listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// A socket file.
    Unix(PathBuf),
    /// A port of 127.0.0.1.
    Inet(u16),
}

impl Address {
    /// As libmilter's `smfi_setconn` takes it.
    pub fn spec(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix:{}", path.display()),
            Self::Inet(port) => format!("inet:{port}@127.0.0.1"),
        }
    }

    /// Connects, and says nothing.
    pub fn connect(&self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Unix(path) => UnixStream::connect(path)?.into(),
            Self::Inet(port) => TcpStream::connect(("127.0.0.1", *port))?.into(),
        })
    }
}

/// Finds the end of an answer in whatever pieces it arrives.
#[derive(Default)]
struct ReplyPolicy {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReplyPolicy {
    /// Reads once; whether that completes the answer. Modifications are passed over.
    fn read(&mut self, mut from: impl Read) -> io::Result<bool> {
        if self.buffer.is_empty() {
            self.buffer.resize(4096, 0);
        }
        let got = from.read(&mut self.buffer[self.end..])?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the filter hung up"));
        }
        self.end += got;
        while let [a, b, c, d, command, ..] = self.buffer[self.start..self.end] {
            let length = 4 + u32::from_be_bytes([a, b, c, d]) as usize;
            if self.end - self.start < length {
                break;
            }
            self.start += length;
            if matches!(command, b'O' | b'c') {
                (self.start, self.end) = (0, 0);
                return Ok(true);
            }
            if command != b'h' {
                let text = format!("the filter answered {:?}", char::from(command));
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(false)
    }
}

/// A connection that waits for each answer.
pub struct Link {
    stream: File,
    answers: ReplyPolicy,
    /// The most bytes in one write.
    write: usize,
}

impl Link {
    /// Connects, and speaks the opening of the script.
    pub fn open(address: &Address, script: &Script) -> io::Result<Self> {
        let answers = ReplyPolicy::default();
        let mut link = Self { stream: address.connect()?.into(), answers, write: script.write };
        link.play(&script.open)?;
        Ok(link)
    }

    /// Writes the commands.
    pub fn ask(&mut self, exchange: &Exchange) -> io::Result<()> {
        exchange.chunks(self.write).try_for_each(|piece| self.stream.write_all(piece))
    }

    /// Reads once; whether the answer is complete.
    pub fn answered(&mut self) -> io::Result<bool> {
        self.answers.read(&self.stream)
    }

    /// Writes the commands and waits for the answer to the last.
    pub fn converse(&mut self, exchange: &Exchange) -> io::Result<()> {
        self.ask(exchange)?;
        while !self.answered()? {}
        Ok(())
    }

    /// Several exchanges, one behind the other.
    pub fn play(&mut self, exchanges: &[Exchange]) -> io::Result<()> {
        exchanges.iter().try_for_each(|exchange| self.converse(exchange))
    }

    /// Several exchanges, each after a silence; how long each answer took.
    pub fn play_slowly(&mut self, exchanges: &[Exchange], silence: Duration) -> io::Result<Vec<Duration>> {
        let mut waited = Vec::with_capacity(exchanges.len());
        for exchange in exchanges {
            thread::sleep(silence);
            let asked = Instant::now();
            self.converse(exchange)?;
            waited.push(asked.elapsed());
        }
        Ok(waited)
    }

    /// Takes leave; nothing answers that.
    pub fn quit(mut self, script: &Script) -> io::Result<()> {
        self.ask(&script.quit)
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
