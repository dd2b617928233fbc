//! Lines on their way into a file. A thread of its own writes them, so that a disk that hangs does not hold up mail: they wait in
//! memory, and what does not fit there is not written.
//!
//! As long as the disk is quick, who adds a line may wait until it is written. So the file tells what a callback was called with
//! that crashes the process.

use crate::log::{self, LineKind};
use crate::sys;
use crate::sys::memory::fallibly;
use crate::sys::signal::{Blocked, SignalSet};
use crate::sys::thread::{self, ThreadGroup};
use parking_lot::{Condvar, Mutex};
use std::ffi::{CStr, CString};
use std::fmt::Arguments;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::mem::take;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many bytes may wait for the disk. As many more may be in the hands of the thread that writes.
const MOST_WAITING: usize = 4 << 20;

/// How many bytes a buffer keeps when nothing waits.
const KEPT: usize = 64 << 10;

/// How long to wait for a line to be written. A disk that takes longer is not waited for any more until it is quick again.
const PATIENCE: Duration = Duration::from_secs(1);

/// A disk is quick if it takes less for what there is to write: each command waits for it.
const QUICK: Duration = Duration::from_millis(50);

/// How long the end waits for what has not been written yet.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// How often it is logged that lines are lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Lines for a file, from any thread.
#[derive(Debug)]
pub struct Lines {
    name: CString,
    path: PathBuf,
    state: Mutex<State>,
    /// There is something to write, or it ends.
    added: Condvar,
    /// Something was written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: Vec<u8>,
    /// How many lines there were, and how many of them are in the file.
    added: u64,
    written: u64,
    /// The disk was slow.
    is_late: bool,
    /// No more lines will come.
    ends: bool,
    /// Nobody writes any more.
    is_over: bool,
    /// How many have lost lines.
    losers: u64,
}

/// Whether who adds a line waits until it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    No,
    IfQuick,
}

impl Lines {
    /// Adds a line; whether there was room for it. Once the file cannot be written any more, lines go nowhere.
    pub fn add(&self, line: &str, wait: Wait) -> bool {
        let mut state = self.state.lock();
        if state.is_over {
            return true;
        }
        let is_full = !state.text.is_empty() && state.text.len() + line.len() > MOST_WAITING;
        if is_full || fallibly(|| state.text.try_reserve(line.len())).is_err() {
            return false;
        }
        state.text.extend_from_slice(line.as_bytes());
        state.added += 1;
        self.added.notify_one();
        if wait == Wait::No {
            return true;
        }
        let number = state.added;
        let deadline = Instant::now() + PATIENCE;
        while !state.is_late && !state.is_over && state.written < number {
            if self.written.wait_until(&mut state, deadline).timed_out() && state.written < number {
                state.is_late = true;
                self.written.notify_all();
            }
        }
        true
    }

    /// One more has lost lines, and adds no others.
    pub fn is_lost(&self) {
        let losers = {
            let mut state = self.state.lock();
            state.losers += 1;
            state.losers
        };
        let message = format_args!(
            "LIBMILTER_TRACE: {}: the disk does not keep up, so far {losers} sessions are not in the trace, or not to \
             their end",
            self.path.display()
        );
        log::error_at_most(COMPLAINT_INTERVAL, LineKind("trace", 0), &self.name, message);
    }

    fn complain(&self, what: Arguments<'_>) {
        log::error(&self.name, format_args!("LIBMILTER_TRACE: {}: {what}", self.path.display()));
    }
}

/// The thread that writes lines. On drop it writes what there is, but nobody waits for long.
#[derive(Debug)]
pub struct Writer {
    lines: Arc<Lines>,
    thread: Arc<ThreadGroup>,
}

impl Writer {
    /// Begins with a file; each has so many bytes at most, and begins with this line.
    ///
    /// # Errors
    /// The file or the thread is not to be had.
    pub fn start(name: &CStr, path: &Path, size: u64, head: String) -> io::Result<Self> {
        let output = Output::open(path)?;
        let lines = Arc::new(Lines {
            name: name.to_owned(),
            path: path.to_owned(),
            state: Mutex::default(),
            added: Condvar::new(),
            written: Condvar::new(),
        });
        lines.add(&head, Wait::No);
        let writer = Self { lines: Arc::clone(&lines), thread: Arc::default() };
        thread::allow_another();
        // The thread must not take signals that belong to the filter.
        let _all = Blocked::new(&SignalSet::all())?;
        let mut files = Files { path: path.to_owned(), size, head, output };
        writer.thread.spawn(Box::new(move || run(&lines, &mut files)))?;
        Ok(writer)
    }

    /// What it writes.
    pub fn lines(&self) -> Arc<Lines> {
        Arc::clone(&self.lines)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lines.state.lock().ends = true;
        self.lines.added.notify_one();
        if !self.thread.wait(Instant::now() + LAST_PATIENCE) {
            self.lines.complain(format_args!("the disk does not answer, the end of the trace is missing"));
        }
        let losers = self.lines.state.lock().losers;
        if losers > 0 {
            self.lines.complain(format_args!("{losers} sessions are not in the trace, or not to their end"));
        }
    }
}

/// Writes lines until the end.
fn run(lines: &Lines, files: &mut Files) {
    let mut text = Vec::new();
    let mut state = lines.state.lock();
    loop {
        while state.text.is_empty() && !state.ends {
            lines.added.wait(&mut state);
        }
        std::mem::swap(&mut text, &mut state.text);
        let count = state.added;
        if text.is_empty() {
            break;
        }
        drop(state);
        let start = Instant::now();
        let result = files.write(&text);
        text.clear();
        text.shrink_to(KEPT);
        if let Err(error) = result {
            lines.complain(format_args!("{error}, the trace ends"));
            state = lines.state.lock();
            break;
        }
        state = lines.state.lock();
        state.written = count;
        state.is_late = start.elapsed() >= QUICK;
        lines.written.notify_all();
    }
    state.is_over = true;
    drop(take(&mut state.text));
    lines.written.notify_all();
}

/// The file, and the one before.
#[derive(Debug)]
struct Files {
    path: PathBuf,
    size: u64,
    head: String,
    output: Output,
}

impl Files {
    /// Writes whole lines, as many as fit into the file, then the others into the next one.
    fn write(&mut self, mut text: &[u8]) -> io::Result<()> {
        let end_of_line = |text: &[u8]| text.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
        while !text.is_empty() {
            let line = end_of_line(text).unwrap_or(text.len());
            if self.output.written > 0 && self.output.written + line as u64 > self.size {
                self.begin_another()?;
            }
            let room = self.size.saturating_sub(self.output.written).try_into().unwrap_or(usize::MAX);
            let fitting = match text.get(..room) {
                None => text.len(),
                Some(start) => start.iter().rposition(|byte| *byte == b'\n').map_or(line, |end| end + 1),
            };
            self.output.write(&text[..fitting])?;
            text = &text[fitting..];
        }
        Ok(())
    }

    fn begin_another(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        fs::rename(&self.path, old)?;
        self.output = Output::open(&self.path)?;
        self.output.write(self.head.as_bytes())
    }
}

#[derive(Debug)]
struct Output {
    file: File,
    written: u64,
}

impl Output {
    /// Nobody but the owner may read it. A symbolic link may lead to a file of somebody else's, and a pipe may be full.
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self { file: File::from(sys::above_standard_streams(file.into())?), written: metadata.len() })
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.file.write_all(text)?;
        self.written += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines that nobody writes.
    fn lines() -> Lines {
        Lines {
            name: c"name".to_owned(),
            path: "/t".into(),
            state: Mutex::default(),
            added: Condvar::new(),
            written: Condvar::new(),
        }
    }

    /// A disk that hangs is waited for once, and what waits for it is bounded; a single line always has room.
    #[test]
    fn lines_are_lost_when_too_many_wait() {
        let lines = lines();
        let line = "x".repeat(MOST_WAITING / 4);
        assert!(lines.add(&line, Wait::IfQuick));
        assert!(lines.state.lock().is_late);
        for _ in 1..4 {
            assert!(lines.add(&line, Wait::IfQuick), "there is room");
        }
        assert!(!lines.add(&line, Wait::IfQuick) && !lines.add("x", Wait::No));
        assert_eq!(lines.state.lock().text.len(), MOST_WAITING);
        *lines.state.lock() = State::default();
        assert!(lines.add(&line.repeat(5), Wait::No) && !lines.add("x", Wait::No));
        *lines.state.lock() = State { is_over: true, ..State::default() };
        assert!(lines.add("x", Wait::IfQuick) && lines.state.lock().text.is_empty());
    }

    /// Whatever comes at one go, no file is cut within a line, or larger than it may be but for one line.
    #[test]
    fn files_are_cut_between_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let old = dir.path().join("trace.1");
        let (size, head) = (100, "head\n".to_owned());
        let mut files = Files { path: path.clone(), size, head, output: Output::open(&path).unwrap() };
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        files.write("0123456789abcde\n".repeat(10).as_bytes()).unwrap();
        assert_eq!(read(&old), "0123456789abcde\n".repeat(6));
        assert_eq!(read(&path), format!("head\n{}", "0123456789abcde\n".repeat(4)));
        let long = format!("{}\n", "y".repeat(150));
        files.write(format!("{long}z\n").as_bytes()).unwrap();
        assert_eq!(read(&old), format!("head\n{long}"));
        assert_eq!(read(&path), "head\nz\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert!(Output::open(&dir.path().join("link")).is_err());
    }
}
