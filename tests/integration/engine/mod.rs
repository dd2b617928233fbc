//! The process of a filter: sessions that go wrong, configuration, load, timeouts, stopping, shortages. A C program
//! (`c-tests/steerable-filter.c`) does what a test tells it and prints what happens; the MTA is played here.

mod configuration;
mod descriptors;
mod errors;
mod gathering;
mod limits;
mod listen;
mod load;
mod log;
mod memcheck;
mod observation;
mod operations;
mod parking;
mod reliability;
mod shortage;
mod sockets;
mod stop;
mod timeouts;
mod watch;

use crate::support::{Daemon, Library, PATIENCE, compile_c_with, temp_dir};
use milter::protocol::Kind;
use milter::protocol::command::encode;
use milter::protocol::{MacroStage, Offer, frame};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Steps of a filter that listens on `{dir}/s` and serves until it is stopped.
const SERVE: [&str; 3] = ["register", "conn=unix:{dir}/s", "main"];

/// Steps that limit a filter to so many threads. They make it a user that nobody else is: RLIMIT_NPROC counts what a user runs,
/// here another test's filter as well, and does not hold for root.
fn limit_threads(threads: usize) -> [String; 2] {
    static USERS: AtomicU64 = AtomicU64::new(0);
    static FIRST: OnceLock<u64> = OnceLock::new();
    // Another run of the tests beside this one, perhaps in a container of its own, most likely begins elsewhere.
    let first = FIRST.get_or_init(|| RandomState::new().hash_one(std::process::id()));
    let user = 20_000 + first.wrapping_add(USERS.fetch_add(1, Ordering::Relaxed)) % 40_000;
    [format!("processes={threads}"), format!("become={user}")]
}

/// Runs a test's body on the reference and on ours.
fn on_both(body: impl Fn(Library)) {
    Library::BOTH.into_iter().for_each(body);
}

/// The C program, compiled once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("steerable-filter");
        // Its syslog and pthread_create stand in for the C library's only if they are exported.
        compile_c_with("c-tests/steerable-filter.c", &program, &["-rdynamic"]);
        program
    })
}

/// The C program in a process of its own.
struct Filter {
    daemon: Daemon,
    dir: tempfile::TempDir,
    /// Another directory that its environment names, if there is one.
    companion: Option<tempfile::TempDir>,
}

impl Filter {
    /// Starts it with the steps of its main thread; `{dir}` in a step is its private directory.
    fn start(library: Library, steps: &[&str]) -> Self {
        Self::start_with(library.command(program()), steps)
    }

    /// Starts it and waits until it listens.
    fn serve(library: Library) -> Self {
        let filter = Self::start(library, &SERVE);
        filter.wait_for_socket();
        filter
    }

    /// Starts it with steps that limit what the system gives; it opens its socket before them.
    fn start_limited(library: Library, limits: &[String]) -> Self {
        let limits: Vec<_> = limits.iter().map(String::as_str).collect();
        Self::start(library, &[&["register", SERVE[1], "open=1"], &limits[..], &["main"]].concat())
    }

    /// Starts it by a command of the caller's, to which the steps are added.
    fn start_with(mut command: Command, steps: &[&str]) -> Self {
        let dir = temp_dir();
        let path = dir.path().to_str().unwrap();
        let output = File::create(dir.path().join("output")).unwrap();
        command.args(steps.iter().map(|step| step.replace("{dir}", path))).stdout(Stdio::from(output));
        Self { daemon: Daemon::start(&mut command), dir, companion: None }
    }

    /// A file in its private directory.
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn wait_for_socket(&self) {
        let socket = self.file("s");
        // The library listens a moment after the file is there; connecting waits for that.
        self.wait_until("the filter listens", || socket.exists());
    }

    /// The lines that it has printed so far.
    fn output(&self) -> Vec<String> {
        let bytes = fs::read(self.file("output")).unwrap();
        // The last line may not be complete.
        let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        String::from_utf8_lossy(&bytes[..end]).lines().map(str::to_owned).collect()
    }

    /// How many lines it has printed that are, or begin with, `text` followed by a space.
    fn count(&self, text: &str) -> usize {
        let is_it = |line: &String| {
            line.strip_prefix(text).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        self.output().iter().filter(|line| is_it(line)).count()
    }

    /// What it has logged so far.
    fn log(&self) -> Vec<String> {
        self.output().iter().filter_map(|line| line.strip_prefix("syslog ")).map(str::to_owned).collect()
    }

    /// Waits until it has printed a line.
    #[track_caller]
    fn wait_for(&self, line: &str) {
        self.wait_for_count(line, 1);
    }

    /// Waits until it has printed a line that often.
    #[track_caller]
    fn wait_for_count(&self, line: &str, count: usize) {
        self.wait_until(&format!("{count} times \"{line}\""), || self.count(line) >= count);
    }

    /// [`wait_until`](crate::support::wait_until) that shows, when it fails, the last of what the filter has printed.
    #[track_caller]
    fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let start = Instant::now();
        while !condition() {
            if start.elapsed() > PATIENCE {
                let output = self.output();
                let last = &output[output.len().saturating_sub(60)..];
                panic!("waited in vain: {what}; after {} lines:\n{}", output.len(), last.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end of the process; what it printed.
    #[track_caller]
    fn end(&mut self) -> Vec<String> {
        let status = self.daemon.wait();
        assert!(status.success(), "{status}: {}", self.output().join("\n"));
        self.output()
    }

    /// A number in a line of one of the process's files in /proc.
    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn threads(&self) -> u64 {
        self.status("Threads")
    }

    fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).unwrap().count()
    }

    /// The processor time that it has used so far, in clock ticks (10 ms).
    fn cpu_ticks(&self) -> u64 {
        cpu_ticks_of(self.daemon.pid())
    }
}

/// The processor time that a process has used so far, in clock ticks (10 ms).
fn cpu_ticks_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind_name = &stat[stat.rfind(')').unwrap() + 2..];
    behind_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Whether a thread of the filter is in this system call.
fn somebody_is_in(filter: &Filter, call: libc::c_long) -> bool {
    let number = call.to_string();
    fs::read_dir(format!("/proc/{}/task", filter.daemon.pid())).unwrap().any(|task| {
        // A thread may end meanwhile.
        let call = fs::read_to_string(task.unwrap().path().join("syscall")).unwrap_or_default();
        call.split(' ').next() == Some(&number)
    })
}

/// A stop would take the reference nearly five seconds, and a callback that is stuck would hold ours up.
impl Drop for Filter {
    fn drop(&mut self) {
        if self.daemon.ended().is_none() {
            self.daemon.signal(libc::SIGKILL);
        }
    }
}

/// The MTA's end of one connection.
struct Mta<S = UnixStream>(S);

impl Mta {
    /// Connects as soon as the filter listens.
    #[track_caller]
    fn connect(filter: &Filter) -> Self {
        let mut mta = None;
        filter.wait_until("a connection", || {
            mta = Self::try_connect(filter).ok();
            mta.is_some()
        });
        mta.unwrap()
    }

    /// Connects if the filter listens.
    fn try_connect(filter: &Filter) -> std::io::Result<Self> {
        let stream = UnixStream::connect(filter.file("s"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Connects and negotiates.
    #[track_caller]
    fn greet(filter: &Filter) -> Self {
        let mut mta = Self::connect(filter);
        mta.negotiate();
        mta
    }

    /// Connects, negotiates and gives an order by HELO, which the filter answers with "continue".
    #[track_caller]
    fn order(filter: &Filter, order: &str) -> Self {
        let mut mta = Self::greet(filter);
        assert_eq!(mta.helo(order), 'c');
        mta
    }
}

impl<S: Read + Write> Mta<S> {
    /// Sends bytes as they stand.
    #[track_caller]
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Sends one command.
    #[track_caller]
    fn command(&mut self, kind: Kind, payload: &[u8]) {
        self.send(&command(kind, payload));
    }

    /// The kind of the next frame that the filter sends, or `None` if it has closed the connection.
    #[track_caller]
    fn hear(&mut self) -> Option<(char, Vec<u8>)> {
        let mut head = [0; 5];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            Err(error) => panic!("no answer: {error}"),
        }
        let length = frame::measure(&head, usize::MAX).unwrap().unwrap();
        let mut payload = vec![0; length - head.len()];
        self.0.read_exact(&mut payload).unwrap();
        Some((head[4].into(), payload))
    }

    /// The kind of the next frame.
    #[track_caller]
    fn answer(&mut self) -> char {
        self.hear().expect("the connection has ended").0
    }

    /// Whether the next thing that the filter does is to close the connection.
    #[track_caller]
    fn has_ended(&mut self) -> bool {
        self.hear().is_none()
    }

    #[track_caller]
    fn negotiate(&mut self) {
        self.send(&optneg());
        assert_eq!(self.answer(), 'O');
    }

    #[track_caller]
    fn connect_from(&mut self, host: &str) -> char {
        self.command(Kind::Connect, format!("{host}\0U").as_bytes());
        self.answer()
    }

    /// Reports a client, and its HELO; the answer to that.
    #[track_caller]
    fn helo(&mut self, name: &str) -> char {
        assert_eq!(self.connect_from("client"), 'c');
        self.command(Kind::Helo, format!("{name}\0").as_bytes());
        self.answer()
    }

    /// Begins a message.
    #[track_caller]
    fn begin_message(&mut self) {
        for kind in [Kind::Mail, Kind::Rcpt] {
            self.command(kind, b"<a@example.org>\0");
            assert_eq!(self.answer(), 'c');
        }
    }

    /// Ends a message; the answer.
    #[track_caller]
    fn end_message(&mut self, body: &[u8]) -> char {
        let mut commands = Vec::new();
        encode::header(&mut commands, b"Subject", b"test");
        encode::raw(&mut commands, Kind::EndOfHeader, b"");
        encode::raw(&mut commands, Kind::Body, body);
        self.send(&commands);
        for _ in 0..3 {
            assert_eq!(self.answer(), 'c');
        }
        self.command(Kind::EndOfMessage, b"");
        self.answer()
    }

    /// Ends the session in order.
    #[track_caller]
    fn quit(mut self) {
        self.command(Kind::Quit, b"");
        assert!(self.has_ended());
    }
}

/// One command as a frame.
fn command(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::raw(&mut bytes, kind, payload);
    bytes
}

/// The offer of a current MTA.
fn optneg() -> Vec<u8> {
    let mut payload = Vec::new();
    for number in [6_u32, 0x1ff, 0x1f_ffff] {
        payload.extend_from_slice(&number.to_be_bytes());
    }
    let mut bytes = Vec::new();
    encode::negotiate(&mut bytes, Offer::decode(&payload).unwrap());
    bytes
}

/// Macros for a stage, as a frame.
fn macros(stage: MacroStage, definitions: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::macros(&mut bytes, stage, definitions);
    bytes
}
