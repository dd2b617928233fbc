//! What the tests share: which library a C program runs on, private directories, processes that end with
//! the test, waiting for a condition.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once, before it fails. Generous: only a
/// failing test ever waits that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The SONAME that C programs ask the loader for.
pub const SONAME: &str = "libmilter.so.1.0.1";

/// A libmilter that a C program can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// The one built from this repository.
    Ours,
    /// Debian's package `libmilter1.0.1`.
    Reference,
}

impl Library {
    /// Both, the reference first.
    pub const BOTH: [Self; 2] = [Self::Reference, Self::Ours];

    /// The directory that holds `libmilter.so.1.0.1`.
    pub fn dir(self) -> &'static Path {
        static OURS: OnceLock<PathBuf> = OnceLock::new();
        static REFERENCE: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::Ours => OURS.get_or_init(|| {
                let built = release_dir().join("libmilter.so");
                assert!(built.exists(), "{} is missing: run `make`", built.display());
                let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ours");
                let _ = fs::remove_dir_all(&dir);
                fs::create_dir_all(&dir).unwrap();
                for name in ["libmilter.so", SONAME] {
                    symlink(&built, dir.join(name)).unwrap();
                }
                dir
            }),
            Self::Reference => REFERENCE.get_or_init(|| {
                if let Some(dir) = std::env::var_os("LIBMILTER_REFERENCE_DIR") {
                    return dir.into();
                }
                let multiarch = stdout(Command::new("cc").arg("-print-multiarch"));
                ["/usr/lib", "/lib"]
                    .iter()
                    .map(|lib| Path::new(lib).join(multiarch.trim()))
                    .find(|dir| dir.join(SONAME).exists())
                    .expect("Debian's libmilter1.0.1 is missing: run `make deps`")
            }),
        }
    }

    /// The library file itself.
    pub fn file(self) -> PathBuf {
        self.dir().join(SONAME)
    }

    /// A command whose program finds this library through `LD_LIBRARY_PATH`.
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        let program = Path::new(&program);
        let built_apart = apart(program);
        let program = if self == Self::Reference && built_apart.exists() { &built_apart } else { program };
        let mut command = match std::env::var("LIBMILTER_EMULATOR") {
            Err(_) => Command::new(program),
            Ok(emulator) => {
                let mut words = emulator.split(' ');
                let mut command = Command::new(words.next().unwrap());
                command.args(words).arg(program);
                command
            }
        };
        use_library(&mut command, self.dir());
        forget_ignored_signals(&mut command);
        command
    }
}

/// Lets a command's program begin as one that nobody has told to ignore signals, whatever runs the tests: nohup ignores SIGHUP,
/// and a shell SIGINT and SIGQUIT for what it starts in the background.
pub fn forget_ignored_signals(command: &mut Command) {
    const SIGNALS: [libc::c_int; 6] =
        [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];
    let forget = || {
        for signal in SIGNALS {
            // SAFETY: SIG_DFL is valid for all of them.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: signal(2) may be called between fork and exec, and nothing is allocated.
    unsafe { command.pre_exec(forget) };
}

/// Whether the C programs are for another system than this one. `tests/platforms/run` says so by the environment:
/// `LIBMILTER_CC` is a compiler for them, `LIBMILTER_REFERENCE_CC` another one for those that run on the reference,
/// `LIBMILTER_REFERENCE_DIR` is where that is, and `LIBMILTER_EMULATOR` a command, with its first arguments, that runs them.
pub fn is_foreign() -> bool {
    std::env::var_os("LIBMILTER_CC").is_some()
}

/// Where the program stands that runs on the reference, when both libraries do not have the same C library.
fn apart(program: &Path) -> PathBuf {
    program.with_file_name("reference-cc").join(program.file_name().unwrap())
}

/// Lets a command's program find the library in this directory.
pub fn use_library(command: &mut Command, dir: &Path) {
    command.env("LD_LIBRARY_PATH", dir);
    if sanitizer().is_some() && dir == Library::Reference.dir() {
        // It is not built with the sanitizer, what it does is not at issue, and some tests are about its crashes.
        command.env("ASAN_OPTIONS", "detect_leaks=0:handle_segv=0");
        command.env("TSAN_OPTIONS", "report_bugs=0:handle_segv=0");
    }
}

/// The sanitizer that our library was built with, if it was: `tests/sanitize/run` says so.
fn sanitizer() -> Option<String> {
    std::env::var("LIBMILTER_SANITIZER").ok()
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `make` lets cargo put what it builds; `LIBMILTER_RELEASE_DIR` names another place.
pub fn release_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("LIBMILTER_RELEASE_DIR") {
        return dir.into();
    }
    // This very program is <target>/<profile>/deps/integration-<hash>.
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(3).unwrap().join("release")
}

/// The released `milter-send`.
pub fn milter_send() -> PathBuf {
    release_dir().join("milter-send")
}

/// A private directory that goes away with the value.
pub fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("milter").tempdir().unwrap()
}

/// The C compiler of the system that our library is built for.
pub fn c_compiler() -> String {
    std::env::var("LIBMILTER_CC").unwrap_or_else(|_| "cc".to_owned())
}

/// Compiles one C program of the repository (`source` is relative to its root) against our header and
/// links it with `-lmilter`; the loader decides at run time which library it gets.
pub fn compile_c(source: &str, output: &Path) {
    compile_c_with(source, output, &[]);
}

/// [`compile_c`] with more options.
pub fn compile_c_with(source: &str, output: &Path, options: &[&str]) {
    compile_c_by(&c_compiler(), Library::Ours, source, output, options);
    if let Ok(compiler) = std::env::var("LIBMILTER_REFERENCE_CC") {
        let output = apart(output);
        fs::create_dir_all(output.parent().unwrap()).unwrap();
        compile_c_by(&compiler, Library::Reference, source, &output, options);
    }
}

fn compile_c_by(compiler: &str, library: Library, source: &str, output: &Path, options: &[&str]) {
    let mut command = Command::new(compiler);
    if let Some(sanitizer) = sanitizer() {
        command.arg(format!("-fsanitize={sanitizer}")).arg(repository().join("tests/sanitize/runtime.c"));
        // Or the compiler makes calls of itself in the functions that this file has for the sanitizer.
        command.arg("-fno-builtin");
    }
    run(command
        .args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread", "-I"])
        .arg(repository().join("include"))
        .arg(repository().join(source))
        .arg("-o")
        .arg(output)
        // By a path it would be recorded, and found, by that path if it had no SONAME: each program would run on this very file.
        .arg("-L")
        .arg(library.dir())
        .arg(format!("-l:{SONAME}"))
        .args(options));
}

/// Runs a command to its end; fails the test, with all its output, unless it exits with 0.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// [`run`], and what it printed.
#[track_caller]
pub fn stdout(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).unwrap()
}

/// Waits until `condition` holds; fails the test, naming `what`, after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A TCP port on `host` ("127.0.0.1", "::1") that was free a moment ago. It is given once in this process, and it is
/// not among those that the kernel picks by itself (32768 and above, ip(7)): neither another test nor a connection can
/// take it until the server under test listens there.
pub fn free_port(host: &str) -> u16 {
    const RANGE: Range<u32> = 10_000..32_768;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Two processes with tests begin at different places.
    let from = std::process::id().wrapping_mul(97);
    (0..RANGE.len())
        .map(|_| from.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % RANGE.len() as u32 + RANGE.start)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|&port| TcpListener::bind((host, port)).is_ok())
        .expect("a free port")
}

/// A process that ends with the test: asked by SIGTERM, then killed.
pub struct Daemon {
    child: Child,
    name: String,
}

impl Daemon {
    /// Starts it.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let child = command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { child, name }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by number.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill(2) takes numbers only; the child has not been waited for, so the pid is still its own.
        assert_eq!(unsafe { libc::kill(self.pid() as libc::pid_t, signal) }, 0, "kill {}", self.name);
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end; fails the test when it does not come.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        let mut status = None;
        wait_until(&format!("end of {name}"), || {
            status = self.ended();
            status.is_some()
        });
        status.unwrap()
    }

    /// Whether the process has mapped the file `library` (so: runs on it).
    pub fn has_mapped(&self, library: &Path) -> bool {
        let file = fs::canonicalize(library).unwrap();
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap_or_default();
        maps.lines().any(|line| line.ends_with(file.to_str().unwrap()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.signal(libc::SIGTERM);
            let start = Instant::now();
            while self.child.try_wait().ok().flatten().is_none() && start.elapsed() < Duration::from_secs(10)
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A service manager's ear.
pub struct ServiceManager {
    pub socket: UnixDatagram,
    dir: tempfile::TempDir,
    /// The lines that it has heard so far.
    pub heard: Vec<String>,
}

impl ServiceManager {
    /// One that listens.
    pub fn new() -> Self {
        let dir = temp_dir();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, dir, heard: Vec::new() }
    }

    /// Where: `NOTIFY_SOCKET`.
    pub fn path(&self) -> String {
        self.dir.path().join("notify").to_str().unwrap().to_owned()
    }

    /// Waits until it has heard a line.
    #[track_caller]
    pub fn wait_for(&mut self, line: &str) {
        while !self.heard.iter().any(|heard| heard == line) {
            let buffer = &mut [0; 1000];
            let length = self.socket.recv(buffer).unwrap_or_else(|e| panic!("{line}: {e}; {:?}", self.heard));
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }
}

/// Lets this process, and those that it starts, have that many descriptors.
pub fn allow_descriptors(count: usize) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills in a live variable.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = limit.rlim_cur.max(count as libc::rlim_t);
    // SAFETY: the call reads a live variable.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0, "the limit is too low");
}

/// How many threads of a process wait in a system call. One that ends is there for a moment more, on a busy machine for
/// long, but runs or waits only to leave.
pub fn waiting_threads(pid: u32) -> usize {
    let leaving = [libc::SYS_exit, libc::SYS_munmap, libc::SYS_madvise];
    let waits = |task: io::Result<fs::DirEntry>| {
        let line = fs::read_to_string(task.ok()?.path().join("syscall")).ok()?;
        let call = line.split(' ').next()?.parse().ok()?;
        (!leaving.contains(&call)).then_some(())
    };
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(waits).count()
}
