//! One of the filters of `examples-c`, running on one of the libraries, on a socket of its own. It tells each mail
//! server how to reach that socket, for they spell it differently.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::{Daemon, Library, free_port, temp_dir, wait_until};

/// The kinds of socket that a filter and its mail server can meet on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Unix,
    Inet,
    Inet6,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Unix, Self::Inet, Self::Inet6];
}

/// Where a filter listens.
#[derive(Clone, Debug)]
pub enum Endpoint {
    Unix(PathBuf),
    Inet(u16),
    Inet6(u16),
}

impl Endpoint {
    /// A free one of the family; a unix socket goes into `dir`.
    pub fn free(family: Family, dir: &Path) -> Self {
        match family {
            Family::Unix => Self::Unix(dir.join("milter.sock")),
            Family::Inet => Self::Inet(free_port("127.0.0.1")),
            Family::Inet6 => Self::Inet6(free_port("::1")),
        }
    }

    /// As libmilter and Sendmail spell it.
    pub fn spec(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix:{}", path.display()),
            Self::Inet(port) => format!("inet:{port}@127.0.0.1"),
            Self::Inet6(port) => format!("inet6:{port}@::1"),
        }
    }

    /// As Postfix spells it.
    pub fn postfix_spec(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix:{}", path.display()),
            Self::Inet(port) => format!("inet:127.0.0.1:{port}"),
            Self::Inet6(port) => format!("inet:[::1]:{port}"),
        }
    }

    /// Whether something listens there.
    fn is_listening(&self) -> bool {
        match self {
            Self::Unix(path) => is_listening("unix", path.to_str().unwrap()),
            Self::Inet(port) => is_listening("tcp", &format!(":{port:04X}")),
            Self::Inet6(port) => is_listening("tcp6", &format!(":{port:04X}")),
        }
    }

    /// Waits for the listener, and lets the mail server's user connect to it, as an administrator would.
    #[track_caller]
    pub fn await_listener(&self) {
        wait_until(&format!("listener on {}", self.spec()), || self.is_listening());
        if let Self::Unix(path) = self {
            fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
        }
    }
}

/// Whether the kernel's table of sockets (`/proc/net/TABLE`) has a listener whose local address ends with `local`.
/// A connection just to find out would be one more session for the filter.
fn is_listening(table: &str, local: &str) -> bool {
    // In TCP's tables the local address is the second word, as ADDRESS:PORT in hexadecimal, and the state the
    // fourth, 0A for listening; in that of unix sockets the path is the last word, and the flags are the fourth.
    let (position, state) = if table == "unix" { (7, "00010000") } else { (1, "0A") };
    fs::read_to_string(format!("/proc/net/{table}")).unwrap().lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.get(position).is_some_and(|address| address.ends_with(local)) && words[3] == state
    })
}

/// The running filter.
pub struct Filter {
    program: PathBuf,
    library: Library,
    daemon: Daemon,
    endpoint: Endpoint,
    dir: TempDir,
}

impl Filter {
    /// Starts the program, a compiled filter of `examples-c`.
    #[track_caller]
    pub fn start(program: &Path, library: Library, family: Family) -> Self {
        let dir = temp_dir();
        // The mail server's user must get at the socket.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        let endpoint = Endpoint::free(family, dir.path());
        let daemon = run(program, library, &endpoint, dir.path());
        Self { program: program.to_owned(), library, daemon, endpoint, dir }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("output")).unwrap()).into_owned()
    }

    /// Stops it in order; it must end with success.
    #[track_caller]
    pub fn stop(mut self) {
        // By SIGTERM the reference takes more than four seconds to end, too long for as many runs as there are.
        if self.library == Library::Ours {
            self.daemon.signal(libc::SIGTERM);
            let status = self.daemon.wait();
            assert!(status.success(), "the filter ended with {status}");
        }
    }

    /// Stops it amid whatever it does.
    pub fn kill(&mut self) {
        self.daemon.signal(libc::SIGKILL);
        self.daemon.wait();
    }

    /// Starts it again, on the same socket, after [`Self::kill`].
    #[track_caller]
    pub fn start_again(&mut self) {
        self.daemon = run(&self.program, self.library, &self.endpoint, self.dir.path());
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // See `stop`.
        if self.library == Library::Reference && self.daemon.ended().is_none() {
            self.daemon.signal(libc::SIGKILL);
        }
    }
}

/// Starts the filter and waits until it listens.
#[track_caller]
fn run(program: &Path, library: Library, endpoint: &Endpoint, dir: &Path) -> Daemon {
    let output = File::options().create(true).append(true).open(dir.join("output")).unwrap();
    let daemon = Daemon::start(library.command(program).arg(endpoint.spec()).stdout(output));
    endpoint.await_listener();
    assert!(daemon.has_mapped(&library.file()), "the filter does not run on {library:?}");
    daemon
}
