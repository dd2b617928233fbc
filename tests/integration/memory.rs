//! A limit on the process's address space: what does not fit ends a session, never the filter. `c-tests/limited.c` is
//! the filter.

use crate::support::{Daemon, Library, compile_c_with, temp_dir, wait_until};
use milter::protocol::frame;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

struct Filter {
    process: Daemon,
    dir: TempDir,
}

impl Filter {
    fn start(library: Library, megabytes: usize, delay: u32) -> Self {
        let dir = temp_dir();
        let program = dir.path().join("limited");
        // Its syslog stands in for the C library's only if it is exported.
        compile_c_with("c-tests/limited.c", &program, &["-rdynamic"]);
        let mut command = library.command(&program);
        command.arg(dir.path().join("s")).args([megabytes.to_string(), delay.to_string()]);
        let process = Daemon::start(command.stdout(File::create(dir.path().join("log")).unwrap()));
        let filter = Self { process, dir };
        wait_until("the filter listens", || Peer::connect(&filter).is_some());
        filter
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Checks that the filter has survived, and serves.
    #[track_caller]
    fn check(&mut self) {
        let serves = |filter: &Self| {
            let mut peer = Peer::connect(filter)?;
            peer.begin(b"")?;
            peer.ask(b'H', b"late\0")
        };
        wait_until("a session is served", || {
            let ended = self.process.ended();
            assert!(ended.is_none(), "{ended:?}\n{}", self.log());
            serves(self).is_some()
        });
    }
}

impl Filter {
    /// How many arenas malloc has reserved, beside the one that needs no reservation.
    fn arenas(&self) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.process.pid())).unwrap();
        let reserved = |line: &&str| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let size = usize::from_str_radix(end, 16).unwrap() - usize::from_str_radix(start, 16).unwrap();
            // Not a thread's stack: those are writable, but for a page.
            rest.starts_with("---p") && size > 16 << 20
        };
        maps.lines().filter(reserved).count()
    }
}

/// The reference takes 5 s for an orderly end.
impl Drop for Filter {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.process.signal(libc::SIGKILL);
        }
    }
}

/// An MTA to which anything may happen: `None` is that the session is over.
struct Peer(UnixStream);

impl Peer {
    fn connect(filter: &Filter) -> Option<Self> {
        let stream = UnixStream::connect(filter.socket()).ok()?;
        // Whoever waits so long is given up: the reference lets sessions wait for a thread.
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        Some(Self(stream))
    }

    fn tell(&mut self, kind: u8, payload: &[u8]) -> Option<()> {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, kind, &[payload]);
        self.0.write_all(&bytes).ok()
    }

    fn hear(&mut self) -> Option<()> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        self.0.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).ok()
    }

    fn ask(&mut self, kind: u8, payload: &[u8]) -> Option<()> {
        self.tell(kind, payload)?;
        self.hear()
    }

    /// Negotiates, and defines macros for all stages unless there are none.
    fn begin(&mut self, macros: &[u8]) -> Option<()> {
        self.ask(b'O', &[6, 0x1ff, 0x1f_ffff].map(u32::to_be_bytes).concat())?;
        if !macros.is_empty() {
            for stage in *b"CHMRTNE" {
                self.tell(b'D', &[&[stage], macros].concat())?;
            }
        }
        self.ask(b'C', b"client.example\0U")
    }
}

/// So many peers at once, each with a few sessions that last until all have had them, or are over before.
fn crowd(filter: &Filter, peers: usize, macros: &[u8]) {
    let all = Barrier::new(peers);
    thread::scope(|scope| {
        for _ in 0..peers {
            scope.spawn(|| {
                let sessions: Vec<_> = (0..3)
                    .filter_map(|_| {
                        let mut peer = Peer::connect(filter)?;
                        peer.begin(macros)?;
                        peer.ask(b'H', b"client.example\0")?;
                        peer.ask(b'M', &b"<a>\0".repeat(1 + macros.len() / 8))?;
                        Some(peer)
                    })
                    .collect();
                all.wait();
                drop(sessions);
            });
        }
    });
}

#[test]
fn a_crowd_with_slow_callbacks_or_large_macros_kills_no_filter() {
    let large = [&b"{large}\0"[..], &[b'v'; 64_990], b"\0"].concat();
    for (library, limits) in [(Library::Reference, &[300][..]), (Library::Ours, &[200, 230, 420])] {
        for &megabytes in limits {
            let mut filter = Filter::start(library, megabytes, 200);
            crowd(&filter, 66, b"");
            filter.check();
            if library == Library::Ours {
                // Each takes the room of eight threads. Without any care there are as many as fit.
                assert!(filter.arenas() <= megabytes / 256, "{} in {megabytes} MiB", filter.arenas());
            }
            let mut filter = Filter::start(library, megabytes, 10);
            crowd(&filter, 66, &large);
            filter.check();
        }
    }
}

/// For ours alone: the reference does not say why it ends a session.
#[test]
fn what_there_is_no_memory_for_ends_the_session_with_a_line() {
    // A filter for each, because lines of a kind are logged once in a while.
    let ends = |send: &dyn Fn(&mut Peer) -> Option<()>| {
        let mut filter = Filter::start(Library::Ours, 200, 0);
        let mut peer = Peer::connect(&filter).unwrap();
        peer.begin(b"").unwrap();
        assert!(send(&mut peer).and_then(|()| peer.hear()).is_none(), "the session goes on");
        wait_until("a line in the log", || {
            filter.log() == "limited: no memory for what the MTA sends, session ended\n"
        });
        filter.check();
    };
    // A frame that is announced.
    ends(&|peer| peer.0.write_all(b"\x30\0\0\0Bthe beginning of it").ok());
    // Definitions: there is room for the frame, but not for a copy of them.
    ends(&|peer| peer.tell(b'D', &[b"M", &b"a\0b\0"[..].repeat(24 << 20)[..]].concat()));
    // Pointers to arguments.
    ends(&|peer| peer.tell(b'M', &vec![0; 30 << 20]));
}
