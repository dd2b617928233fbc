//! The servers that are measured: how each is started on a private socket, and what the kernel says of a running
//! one (CPU time, memory, threads). It neither sends a command nor judges a figure.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cpu::pin;
use crate::link::Address;

/// Whose engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The null filter on this repository's library.
    Ours,
    /// The same with `LIBMILTER_METRICS` set. It is compared with [`Ours`](Self::Ours) alone.
    Observed,
    /// The null filter on Debian's libmilter: what all others are compared with.
    Debian,
    /// The hand-written server with the fewest system calls.
    Bare,
    /// The same with a timeout for each receive.
    BareTimeout,
    /// The null filter on the least that a library can do.
    Least,
    /// The hand-written server with one thread that takes the ready connections in batches.
    BareEpoll,
    /// The hand-written server with a thread for each connection and poll before each call.
    Plain,
    /// Rust's indymilter.
    Indymilter,
    /// Go's go-milter.
    Go,
    /// Python's pymilter (on Debian's libmilter).
    Pymilter,
}

impl Subject {
    /// All that are compared with Debian's libmilter, in the order of the tables.
    pub const ALL: [Self; 10] = [
        Self::Debian,
        Self::Ours,
        Self::Bare,
        Self::BareTimeout,
        Self::Least,
        Self::BareEpoll,
        Self::Plain,
        Self::Indymilter,
        Self::Go,
        Self::Pymilter,
    ];

    /// What tables and charts call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "libmilter-rs",
            Self::Observed => "libmilter-rs with metrics",
            Self::Debian => "Debian libmilter",
            Self::Bare => "bare server",
            Self::BareTimeout => "bare with timeout",
            Self::Least => "least library",
            Self::BareEpoll => "bare-epoll",
            Self::Plain => "plain threads",
            Self::Indymilter => "indymilter",
            Self::Go => "go-milter",
            Self::Pymilter => "pymilter",
        }
    }

    /// What it is called on the command line: the name of its program, where it has one of its own.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Observed => "ours-metrics",
            Self::Debian => "debian",
            Self::Bare => "bare",
            Self::BareTimeout => "bare-timeout",
            Self::Least => "least",
            Self::BareEpoll => "bare-epoll",
            Self::Plain => "plain",
            Self::Indymilter => "indymilter",
            Self::Go => "go-milter",
            Self::Pymilter => "pymilter",
        }
    }

    /// Whether it is a milter library of others.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Indymilter | Self::Go | Self::Pymilter)
    }

    /// Whether it can leave header lines unanswered.
    pub fn can_be_silent(self) -> bool {
        self != Self::Go
    }
}

/// What a scenario asks of a server.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Wants {
    /// Add one header at the end of each message.
    pub header: bool,
    /// Leave header lines unanswered.
    pub silent_headers: bool,
    /// Listen on TCP.
    pub tcp: bool,
    /// Run on this CPU only.
    pub cpu: Option<usize>,
}

/// Where `make bench` has put the programs, and room for sockets.
pub struct Workshop {
    programs: PathBuf,
    library: PathBuf,
    sockets: tempfile::TempDir,
    started: Cell<u32>,
}

impl Workshop {
    /// `target` is Cargo's directory, where make has built everything.
    pub fn new(target: &Path) -> Self {
        let sockets = tempfile::Builder::new().prefix("milter-bench").tempdir().expect("a private directory");
        Self { programs: target.join("bench"), library: target.join("lib"), sockets, started: Cell::new(0) }
    }

    /// A directory that goes away at the end.
    pub fn scratch(&self) -> &Path {
        self.sockets.path()
    }

    fn program(&self, subject: Subject) -> PathBuf {
        self.programs.join(match subject {
            Subject::Ours | Subject::Observed | Subject::Debian | Subject::Least => "null-filter",
            Subject::BareTimeout => Subject::Bare.word(),
            _ => subject.word(),
        })
    }

    /// Starts a server, under `wrapper` (say, valgrind and its options) if there is one, and waits until it
    /// listens.
    pub fn start(&self, subject: Subject, wants: Wants, wrapper: &[String]) -> Server {
        let program = self.program(subject);
        let mut words = wrapper.to_vec();
        words.push(program.to_str().expect("a plain path").to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        match subject {
            Subject::Ours | Subject::Observed => drop(command.env("LD_LIBRARY_PATH", &self.library)),
            Subject::Least => drop(command.env("LD_LIBRARY_PATH", self.programs.join(subject.word()))),
            _ => {}
        }
        let metrics = (subject == Subject::Observed).then(|| self.free_address(subject, false));
        if let Some(metrics) = &metrics {
            command.env("LIBMILTER_METRICS", metrics.spec());
        }
        let address = self.free_address(subject, wants.tcp);
        command.arg(address.spec());
        let letters =
            [(wants.header, "h"), (wants.silent_headers, "n"), (subject == Subject::BareTimeout, "t")];
        command
            .arg(letters.iter().filter(|(wanted, _)| *wanted).map(|(_, letter)| *letter).collect::<String>());
        if let Some(cpu) = wants.cpu {
            // SAFETY: between fork and exec the closure makes a single system call and allocates nothing.
            unsafe { command.pre_exec(move || pin(Some(cpu))) };
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}; build it with make"));
        let mut server = Server { child, address };
        server.wait_until_it_listens(&server.address.clone());
        // Without the endpoint the row would show that nothing costs nothing.
        if let Some(metrics) = metrics {
            server.wait_until_it_listens(&metrics);
        }
        server
    }

    fn free_address(&self, subject: Subject, tcp: bool) -> Address {
        if tcp {
            let probe = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
            return Address::Inet(probe.local_addr().expect("a bound port").port());
        }
        self.started.set(self.started.get() + 1);
        Address::Unix(self.scratch().join(format!("{subject:?}{}", self.started.get())))
    }
}

/// A running server; it is killed with the value.
pub struct Server {
    child: Child,
    address: Address,
}

impl Server {
    fn wait_until_it_listens(&mut self, address: &Address) {
        let start = Instant::now();
        while address.connect().is_err() {
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "the server at {address:?} ended: {ended:?}");
            assert!(start.elapsed() < Duration::from_secs(30), "nothing listens at {address:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of the whole process so far, ended threads included, to the nanosecond.
    pub fn cpu_time(&self) -> Duration {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both calls write to the variables they are given and to nothing else.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.pid() as libc::pid_t, &mut clock) != 0
                || libc::clock_gettime(clock, &mut time) != 0
        };
        assert!(!failed, "the server at {:?} is gone", self.address);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// Waits until it has stopped working on what went before.
    pub fn settle(&self) {
        let mut before = self.cpu_time();
        for _ in 0..200 {
            thread::sleep(Duration::from_millis(5));
            let now = self.cpu_time();
            if now - before < Duration::from_micros(50) {
                break;
            }
            before = now;
        }
    }

    /// What a file of /proc/PID says.
    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("a running server")
    }

    /// How many threads it has.
    pub fn threads(&self) -> u64 {
        field(&self.proc("status"), "Threads")
    }

    /// How often each of its threads has gone to sleep so far.
    pub fn sleeps(&self) -> HashMap<OsString, u64> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("a running server");
        let sleeps = |thread: io::Result<fs::DirEntry>| {
            let thread = thread.ok()?;
            // A thread may end while we look.
            let status = fs::read_to_string(thread.path().join("status")).ok()?;
            Some((thread.file_name(), field(&status, "voluntary_ctxt_switches")))
        };
        threads.filter_map(sleeps).collect()
    }

    /// What it costs the machine, in bytes: resident memory, page tables, and 16 KiB of kernel stack for a thread.
    /// The sum of its mappings is exact; VmRSS may be wrong by some hundred KiB.
    pub fn footprint(&self) -> u64 {
        let status = self.proc("status");
        let resident = field(&self.proc("smaps_rollup"), "Rss");
        (resident + field(&status, "VmPTE") + 16 * field(&status, "Threads")) * 1024
    }
}

/// A number in a file of proc(5): KiB, or a plain number.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()).expect("a field of proc(5)");
    number.parse().expect("a number")
}

impl Drop for Server {
    fn drop(&mut self) {
        // Debian's library takes seconds to stop on request, and nothing is left to be learnt from it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
