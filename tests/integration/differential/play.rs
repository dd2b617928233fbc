//! Plays a session to a probe process: writes each step, waits for the answers that it must bring, and collects
//! everything that comes back, and the probe's log. It never waits for time to pass: a step without an
//! answer is followed by the next at once.

use super::plan::{Act, Part};
use super::script::{Script, Shape};
use super::session::describe;
use crate::support::{Daemon, PATIENCE, use_library, wait_until};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

// The layout of the shared file, as in probe.c.
pub const SLOTS: usize = 8;
const SLOT_BYTES: u64 = 1 << 20;
const FIRST_SLOT: u64 = 4096;
const SCRIPT_AT: usize = 128;
const LOG_AT: u64 = 1 << 19;
/// Where valgrind writes.
const FINDINGS: &str = "findings";
/// The head of the file when no session is expected: no slot is next, no callback was stray.
const NO_SLOT: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// A library to be compared, and how.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// The probe.
    pub program: &'a Path,
    /// The directory with the library.
    pub library: &'a Path,
    pub environment: &'a [(&'a str, &'a str)],
    /// Whether valgrind watches.
    pub memcheck: bool,
    /// How long to wait for an answer before it counts as missing.
    pub patience: Duration,
}

impl<'a> Candidate<'a> {
    /// A library as it usually runs.
    pub fn new(program: &'a Path, library: &'a Path) -> Self {
        Self { program, library, environment: &[], memcheck: false, patience: PATIENCE }
    }

    fn command(&self, dir: &Path) -> Command {
        let mut command = if self.memcheck {
            let mut valgrind = Command::new("valgrind");
            valgrind.args(["--quiet", "--leak-check=no"]);
            valgrind.arg(format!("--log-file={}", dir.join(FINDINGS).display())).arg(self.program);
            valgrind
        } else {
            Command::new(self.program)
        };
        use_library(&mut command, self.library);
        command.envs(self.environment.iter().copied());
        command
    }
}

/// A running probe.
pub struct Probe {
    process: Daemon,
    socket: PathBuf,
    shared: File,
    patience: Duration,
}

impl Probe {
    /// Starts the probe in a directory of its own, registered as the shape says.
    pub fn start(candidate: &Candidate<'_>, dir: &Path, shape: &Shape) -> Self {
        std::fs::create_dir(dir).unwrap();
        let shared_path = dir.join("shared");
        let shared = File::options().read(true).write(true).create_new(true).open(&shared_path).unwrap();
        shared.set_len(FIRST_SLOT + SLOTS as u64 * SLOT_BYTES).unwrap();
        shared.write_all_at(&NO_SLOT, 0).unwrap();
        let socket = dir.join("socket");
        let hex = |number: u32| format!("{number:x}");
        let mut command = candidate.command(dir);
        command.args([&socket, &shared_path]);
        command.args([shape.version, shape.flags, shape.callbacks, shape.max_data].map(hex));
        let process = Daemon::start(&mut command);
        let patience = candidate.patience;
        let probe = Self { process, socket, shared, patience };
        wait_until("the probe's socket", || UnixStream::connect(&probe.socket).is_ok());
        // That connection calls close, for no slot.
        wait_until("the first close", || probe.stray() == 1);
        probe.shared.write_all_at(&NO_SLOT, 0).unwrap();
        probe
    }

    fn at(slot: usize) -> u64 {
        FIRST_SLOT + slot as u64 * SLOT_BYTES
    }

    /// Empties a slot for the next session.
    fn arm(&self, slot: usize, script: &Script) {
        let script = script.encode();
        assert!(script.len() < LOG_AT as usize - SCRIPT_AT, "the script fits into a slot");
        let mut bytes = vec![0; SCRIPT_AT];
        bytes[12..16].copy_from_slice(&(script.len() as u32).to_ne_bytes());
        bytes.extend(script);
        self.shared.write_all_at(&bytes, Self::at(slot)).unwrap();
        self.shared.write_all_at(&(slot as u32).to_ne_bytes(), 0).unwrap();
    }

    /// Whether the session in a slot has had a callback.
    fn bound(&self, slot: usize) -> bool {
        let mut ctx = [0; 8];
        self.shared.read_exact_at(&mut ctx, Self::at(slot)).unwrap();
        ctx != [0; 8]
    }

    /// What the probe has logged in a slot, which is then free.
    fn take_log(&self, slot: usize) -> String {
        let mut head = [0; 12];
        self.shared.read_exact_at(&mut head, Self::at(slot)).unwrap();
        let mut log = vec![0; u32::from_ne_bytes(head[8..].try_into().unwrap()) as usize];
        self.shared.read_exact_at(&mut log, Self::at(slot) + LOG_AT).unwrap();
        self.shared.write_all_at(&[0; 12], Self::at(slot)).unwrap();
        String::from_utf8(log).unwrap()
    }

    /// How many callbacks belonged to no session.
    fn stray(&self) -> u32 {
        let mut head = [0; 8];
        self.shared.read_exact_at(&mut head, 0).unwrap();
        u32::from_ne_bytes(head[4..].try_into().unwrap())
    }

    /// What valgrind has found.
    pub fn findings(&self) -> String {
        std::fs::read_to_string(self.socket.with_file_name(FINDINGS)).unwrap()
    }

    /// Plays sessions at the same time, a step of each in turn, with a silence between the turns.
    pub fn play(&self, parts: &[&Part], silence: Duration) -> Vec<Outcome> {
        assert!(parts.len() <= SLOTS);
        let mut waiting = parts.iter().enumerate();
        let mut running: Vec<(usize, Player<'_>)> = Vec::new();
        let mut outcomes: Vec<Option<Outcome>> = parts.iter().map(|_| None).collect();
        loop {
            // The next session may begin when all before it have a slot of their own.
            if running.last().is_none_or(|(slot, _)| self.bound(*slot))
                && let Some((slot, part)) = waiting.next()
            {
                running.push((slot, Player::start(self, slot, part)));
            }
            if running.is_empty() {
                break;
            }
            if !silence.is_zero() {
                std::thread::sleep(silence);
            }
            running.retain_mut(|(slot, player)| {
                player.step();
                if player.done {
                    // At once: the library may give the next session the same context.
                    outcomes[*slot] = Some(player.outcome(self.take_log(*slot)));
                }
                !player.done
            });
        }
        let mut outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
        let stray = self.stray();
        self.shared.write_all_at(&NO_SLOT, 0).unwrap();
        if stray != 0 {
            outcomes[0].trouble.get_or_insert(format!("{stray} callbacks came after their session's end"));
        }
        outcomes
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // The reference takes seconds to stop when it is asked.
        self.process.signal(libc::SIGKILL);
    }
}

/// What came of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The filter's frames, without their lengths.
    pub frames: Vec<Vec<u8>>,
    pub log: String,
    /// Where the session left the model's expectation.
    pub trouble: Option<String>,
}

impl Outcome {
    /// The frames, readable.
    pub fn describe_frames(&self) -> Vec<String> {
        self.frames
            .iter()
            .map(|frame| describe(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat()))
            .collect()
    }
}

struct Player<'a> {
    part: &'a Part,
    next: usize,
    stream: UnixStream,
    patience: Duration,
    unread: Vec<u8>,
    frames: Vec<Vec<u8>>,
    closed: bool,
    done: bool,
    trouble: Option<String>,
}

impl<'a> Player<'a> {
    fn start(probe: &Probe, slot: usize, part: &'a Part) -> Self {
        probe.arm(slot, &part.script);
        let stream = UnixStream::connect(&probe.socket).unwrap();
        stream.set_read_timeout(Some(probe.patience)).unwrap();
        stream.set_write_timeout(Some(probe.patience)).unwrap();
        Self {
            part,
            next: 0,
            stream,
            patience: probe.patience,
            unread: Vec::new(),
            frames: Vec::new(),
            closed: false,
            done: false,
            trouble: None,
        }
    }

    /// Plays the next step, or the end.
    fn step(&mut self) {
        match self.part.acts.get(self.next) {
            Some(act) => self.act(act),
            None => self.finish(),
        }
        self.next += 1;
        self.done |= self.trouble.is_some() || self.closed;
    }

    fn act(&mut self, act: &Act) {
        let bytes = act.frames.concat();
        let mut from = 0;
        for to in act.cuts.iter().copied().filter(|cut| *cut < bytes.len()).chain([bytes.len()]) {
            self.write(&bytes[from..to]);
            from = to;
        }
        let mut answers = 0;
        while answers < act.expect.answers {
            match self.frame() {
                Some(frame) => {
                    answers += u32::from(b"Ocartdsy".contains(&frame[0]));
                    self.frames.push(frame);
                }
                None => return self.complain(format_args!("{answers} of {} answers", act.expect.answers)),
            }
        }
        if act.expect.closes {
            self.drain();
        } else if self.closed {
            self.complain(format_args!("the filter closed the connection"));
        }
    }

    fn finish(&mut self) {
        self.write(&self.part.tail);
        let _ = self.stream.shutdown(Shutdown::Write);
        self.drain();
    }

    /// Reads to the end of the connection.
    fn drain(&mut self) {
        while let Some(frame) = self.frame() {
            self.frames.push(frame);
        }
        if !self.closed {
            self.complain(format_args!("the connection was not closed"));
        } else if !self.unread.is_empty() {
            self.complain(format_args!("half a frame at the end"));
        }
    }

    fn complain(&mut self, what: std::fmt::Arguments<'_>) {
        let patience = self.patience;
        self.trouble.get_or_insert(format!("step {}: {what} (after {patience:?} or a close)", self.next));
    }

    fn write(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            // Whoever has closed does not take what is left; the answers before it are still to be read.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => self.complain(format_args!("write: {error}")),
        }
    }

    /// The next frame, without its length; `None` at the end, or when nothing comes.
    fn frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = self.unread.first_chunk::<4>() {
                let end = 4 + u32::from_be_bytes(*length) as usize;
                if end > 4 && self.unread.len() >= end {
                    let rest = self.unread.split_off(end);
                    return Some(std::mem::replace(&mut self.unread, rest).split_off(4));
                }
            }
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.closed = true;
                    return None;
                }
                Ok(n) => self.unread.extend(&buffer[..n]),
                // A close with unread bytes of ours resets the connection.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.closed = true;
                    return None;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    fn outcome(&mut self, log: String) -> Outcome {
        Outcome { frames: std::mem::take(&mut self.frames), log, trouble: self.trouble.take() }
    }
}
