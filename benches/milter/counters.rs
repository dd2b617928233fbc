//! System calls and context switches of a running server, counted by the kernel's own counters (perf) and only
//! while they are switched on. Counting slows a server down a little, so that nothing is timed meanwhile.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::stats::median;
use crate::subject::{Server, Workshop};

/// How often something happens for a message, in all threads of a process.
#[derive(Clone, Copy)]
pub struct Counts {
    /// System calls begun.
    pub calls: f64,
    /// Times that a thread was taken off its CPU, of its own accord or not.
    pub switches: f64,
}

/// perf, attached to a process and told over two FIFOs when to count.
struct Perf {
    child: Child,
    control: File,
    acknowledged: File,
}

fn fifo(directory: &Path, name: &str) -> io::Result<(PathBuf, File)> {
    let path = directory.join(name);
    let _ = std::fs::remove_file(&path);
    let text = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that lives through the call.
    if unsafe { libc::mkfifo(text.as_ptr(), 0o600) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Open for both directions, so that neither side waits for the other to open it.
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    Ok((path, file))
}

impl Perf {
    fn attach(server: &Server, directory: &Path) -> io::Result<Self> {
        let (control_path, control) = fifo(directory, "perf-control")?;
        let (acknowledged_path, acknowledged) = fifo(directory, "perf-acknowledged")?;
        let child = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter,context-switches", "--delay", "-1"])
            .arg("--control")
            .arg(format!("fifo:{},{}", control_path.display(), acknowledged_path.display()))
            .args(["-p", &server.pid().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self { child, control, acknowledged })
    }

    /// One that counts. It ends now and then instead, when it is to look at a thousand threads.
    fn counting(server: &Server, directory: &Path) -> io::Result<Self> {
        const TRIES: u32 = 5;
        let attempt = || {
            let mut perf = Self::attach(server, directory)?;
            perf.tell("enable\n").map(|()| perf)
        };
        (1..TRIES).find_map(|_| attempt().ok()).map_or_else(attempt, Ok)
    }

    /// Gives an order and waits until it is carried out.
    fn tell(&mut self, order: &str) -> io::Result<()> {
        self.control.write_all(order.as_bytes())?;
        let mut byte = [0];
        while byte[0] != b'\n' {
            self.await_word()?;
            self.acknowledged.read_exact(&mut byte)?;
        }
        Ok(())
    }

    /// Waits until there is something to read. We hold the FIFO open ourselves, so its end would never come.
    fn await_word(&mut self) -> io::Result<()> {
        const CHECK_AFTER: libc::c_int = 100;
        let mut wait = libc::pollfd { fd: self.acknowledged.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which lives through the call.
        while unsafe { libc::poll(&mut wait, 1, CHECK_AFTER) } != 1 {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("perf ended: {status}: {}", self.words()?)));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<String> {
        // SAFETY: sends a signal to our own child, which has not been waited for yet.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) };
        let text = self.words()?;
        self.child.wait()?;
        Ok(text)
    }

    /// What it has said, up to its end.
    fn words(&mut self) -> io::Result<String> {
        let mut text = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            errors.read_to_string(&mut text)?;
        }
        Ok(text)
    }
}

fn count(text: &str, event: &str) -> f64 {
    let line = text.lines().find(|line| line.contains(event)).unwrap_or_else(|| panic!("perf: {text}"));
    match line.split(',').next() {
        // The process has not run at all.
        Some("<not counted>") => 0.0,
        Some(number) => number.parse().unwrap_or_else(|_| panic!("perf: {text}")),
        None => unreachable!("split gives at least one piece"),
    }
}

/// Counts while `load` sends messages to the server, and divides by their number, which `load` returns: the median of
/// three. Before them it is sent once uncounted: what only the first time costs (threads that are needed again, say)
/// is no message's own cost.
pub fn count_while(
    workshop: &Workshop,
    server: &Server,
    mut load: impl FnMut() -> io::Result<f64>,
) -> io::Result<Counts> {
    load()?;
    let (mut calls, mut switches) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut perf = Perf::counting(server, workshop.scratch())?;
        let messages = load()?;
        server.settle();
        perf.tell("disable\n")?;
        let text = perf.finish()?;
        calls.push(count(&text, "sys_enter") / messages);
        switches.push(count(&text, "context-switches") / messages);
    }
    let middle = |counts| median(counts).expect("three counts");
    Ok(Counts { calls: middle(calls), switches: middle(switches) })
}
