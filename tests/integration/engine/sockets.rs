//! Sockets and descriptors that the library shares with others: with processes that have been forked before or are
//! forked meanwhile, with whoever passes a descriptor on, and with what the program itself opens and closes.

use super::{Filter, Mta, SERVE, on_both};
use crate::support::{Library, PATIENCE, free_port, temp_dir, wait_until};
use milter::protocol::Kind;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;
use std::time::Duration;

/// A child that a filter has forked and said so. It is not this process's child, so nobody waits for it here.
struct Child(u32);

impl Child {
    /// The one that the filter has named first.
    fn of(filter: &Filter) -> Self {
        let mut pid = None;
        filter.wait_until("a child", || {
            pid = filter.output().iter().find_map(|line| line.strip_prefix("child ")?.parse().ok());
            pid.is_some()
        });
        Self(pid.unwrap())
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill takes numbers only. The child has an alarm, so that its number is not another process's yet.
        unsafe { libc::kill(self.0 as libc::pid_t, signal) };
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
    }
}

/// A filter that has a descriptor of this process's under the number 2.
pub fn start_with_descriptor(library: Library, fd: OwnedFd, steps: &[&str]) -> Filter {
    let mut command = library.command(super::program());
    command.stderr(Stdio::from(fd));
    Filter::start_with(command, steps)
}

/// Neither process uses the processor while nobody wants it.
#[track_caller]
fn check_idle(filter: &Filter, child: &Child) {
    let ticks = || [filter.daemon.pid(), child.0].map(super::cpu_ticks_of);
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    for (used, before) in ticks().into_iter().zip(before) {
        assert!(used - before < 25, "{} of about 100 ticks used", used - before);
    }
}

/// Some filters fork between smfi_opensocket and smfi_main, and all processes serve.
#[test]
fn processes_of_a_pre_forked_filter_do_not_disturb_each_other() {
    on_both(|library| {
        for first in ["parent", "child"] {
            let mut filter = Filter::start(library, &["register", SERVE[1], "open=0", "prefork", "main"]);
            let child = Child::of(&filter);
            for _ in 0..20 {
                Mta::order(&filter, "either").quit();
            }
            check_idle(&filter, &child);
            if first == "parent" {
                filter.daemon.signal(libc::SIGTERM);
            } else {
                child.signal(libc::SIGTERM);
            }
            filter.wait_until("one process stops", || {
                // The reference may wait in accept(2) for a connection that the other process has taken.
                let _ = (library == Library::Reference).then(|| Mta::try_connect(&filter));
                filter.count("main 0") == 1
            });
            let mut mta = Mta::order(&filter, "the other one");
            mta.begin_message();
            assert_eq!(mta.end_message(b"text\r\n"), 'c', "{library:?}, {first}");
            mta.quit();
            if library == Library::Ours {
                filter.daemon.signal(libc::SIGTERM);
                child.signal(libc::SIGTERM);
                filter.wait_for_count("main 0", 2);
                assert!(Mta::try_connect(&filter).is_err(), "nobody is left");
                assert!(filter.daemon.wait().success());
                assert_eq!(filter.log(), [""; 0]);
            }
        }
    });
}

/// The same when the descriptor comes from somebody else, who has set it up so that accept(2) waits.
#[test]
fn processes_that_share_a_passed_descriptor_do_not_disturb_each_other() {
    let dir = temp_dir();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let steps = ["register", "conn=fd:2", "open=0", "prefork", "main"];
    let filter = start_with_descriptor(Library::Ours, listener.into(), &steps);
    std::os::unix::fs::symlink(dir.path().join("s"), filter.file("s")).unwrap();
    let child = Child::of(&filter);
    for _ in 0..5 {
        // Many at once, so that many threads want to accept them.
        let mut mtas: Vec<Mta> = (0..30).map(|_| Mta::connect(&filter)).collect();
        mtas.iter_mut().for_each(Mta::negotiate);
        mtas.into_iter().for_each(Mta::quit);
    }
    check_idle(&filter, &child);
    filter.daemon.signal(libc::SIGTERM);
    filter.wait_for("main 0");
    for _ in 0..5 {
        Mta::order(&filter, "the other one").quit();
    }
}

/// Whoever has passed the descriptor on finds the socket as it was, and can serve it when the filter has gone.
#[test]
fn a_passed_socket_stays_as_it_was() {
    on_both(|library| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = || {
            // SAFETY: fcntl with this command takes numbers only.
            let flags = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_GETFL) };
            let socket = socket2::SockRef::from(&listener);
            let timeout = socket.read_timeout().unwrap();
            (flags, timeout, socket.keepalive().unwrap(), socket.tcp_nodelay().unwrap())
        };
        let before = state();
        let passed = listener.as_fd().try_clone_to_owned().unwrap();
        let mut filter = start_with_descriptor(library, passed, &["register", "conn=fd:2", "main"]);
        let mut mta = Mta(TcpStream::connect(address).unwrap());
        mta.0.set_read_timeout(Some(PATIENCE)).unwrap();
        mta.negotiate();
        assert_eq!(mta.helo("sockets"), 'c');
        let ours = "connection keep-alive 1 no-delay 1";
        assert_eq!(filter.count(ours), usize::from(library == Library::Ours), "{:#?}", filter.output());
        assert_eq!(state(), before, "{library:?}");
        mta.quit();
        filter.daemon.signal(libc::SIGTERM);
        assert_eq!(filter.end().last().unwrap(), "main 0", "{library:?}");
        assert_eq!(state(), before, "{library:?}");
        let _mta = TcpStream::connect(address).unwrap();
        listener.accept().unwrap();
    });
}

/// A callback may fork, and its child may send something. Nothing goes out twice, and nothing is lost.
#[test]
fn a_forked_child_sends_only_what_is_its_own() {
    on_both(|library| {
        let filter = Filter::serve(library);
        let mut mta = Mta::order(&filter, "fork-in-eom");
        mta.begin_message();
        mta.command(Kind::EndOfMessage, b"");
        let mut frames = Vec::new();
        while frames.last().is_none_or(|(kind, _)| *kind != 'c') {
            frames.push(mta.hear().unwrap());
        }
        frames.sort_unstable();
        let piece = |text: &[u8]| ('b', text.to_vec());
        let wanted = [piece(b"before"), piece(b"behind"), piece(b"child"), ('c', vec![]), ('p', vec![])];
        assert_eq!(frames, wanted, "{library:?}");
        mta.quit();
    });
}

/// Daemons close all descriptors that they do not know. What has the number by then is left alone.
#[test]
fn a_listener_that_the_program_has_closed_is_missed() {
    for daemonise in [false, true] {
        for reuse in [false, true] {
            let mut steps = vec!["register", SERVE[1], "open=0"];
            steps.extend(daemonise.then_some("daemonise"));
            steps.push("close-from=3");
            steps.extend(reuse.then_some("open-something"));
            steps.extend(["main", "is-open=3"]);
            let mut filter = Filter::start(Library::Ours, &steps);
            let output = filter.end();
            let last = [String::from("main -1"), format!("is-open {}", u8::from(reuse))];
            assert!(output.ends_with(&last), "{output:#?}");
            assert_eq!(filter.count("something 3"), usize::from(reuse));
            let line =
                "3 steered: smfi_main: cannot start: the descriptor of the listening socket was closed";
            assert_eq!(filter.log(), [line]);
        }
    }
}

/// A program that closes descriptors by mistake may hit the library's epoll set. Then nobody hears of silent sessions any
/// more: the filter ends, as it would without its listener, and burns no processor time on the way.
#[test]
fn a_broken_poller_ends_the_filter() {
    // Side by side, because each waits for a message that does not end.
    std::thread::scope(|scope| {
        for opens_early in [false, true] {
            scope.spawn(move || {
                check_broken_poller(opens_early, "close-pollers", "Bad file descriptor (os error 9)");
            });
            scope.spawn(move || {
                check_broken_poller(opens_early, "replace-pollers", "Invalid argument (os error 22)");
            });
        }
    });
}

#[track_caller]
fn check_broken_poller(opens_early: bool, order: &str, error: &str) {
    let mut steps = vec!["register", SERVE[1]];
    steps.extend(opens_early.then_some("open=0"));
    steps.push("main");
    let mut filter = Filter::start(Library::Ours, &steps);
    let mut idle: Vec<Mta> = (0..3).map(|_| Mta::order(&filter, "idle")).collect();
    let mut message = Mta::order(&filter, "message");
    message.begin_message();
    filter.wait_until("all are parked", || filter.threads() <= 6);
    let before = filter.cpu_ticks();
    let mut breaking = Mta::order(&filter, order);
    assert!(idle.iter_mut().all(Mta::has_ended) && breaking.has_ended());
    // It would have to speak in the poller's hearing, so it is cut off after the time for messages.
    assert!(message.has_ended());
    let used = filter.cpu_ticks() - before;
    assert!(used < 100, "{used} of about 500 ticks used");
    let output = filter.end();
    assert_eq!(output.last().unwrap(), "main -1", "{order}: {output:#?}");
    assert_eq!((filter.count("close"), filter.count("abort")), (5, 1), "{order}: {output:#?}");
    // A session that could not be parked may have been logged before.
    let log = filter.log();
    let last = log.last().unwrap();
    assert!(last.starts_with("3 steered: smfi_main: ") && last.ends_with(error), "{log:?}");
}

/// Only for ours: with the reference the MTA waits for the child.
#[test]
fn a_connection_ends_although_a_forked_child_has_it_too() {
    let mut filter = Filter::start(Library::Ours, &SERVE);
    let quitting = Mta::order(&filter, "quits");
    let mut faulty = Mta::order(&filter, "makes an error");
    let mut forking = Mta::order(&filter, "fork-and-stay");
    let _child = Child::of(&filter);
    quitting.quit();
    faulty.send(b"\0\0\0\x01Z");
    assert!(faulty.has_ended());
    // What the filter has sent arrives before the end.
    forking.begin_message();
    filter.daemon.signal(libc::SIGTERM);
    assert_eq!(forking.end_message(b"text\r\n"), 'c');
    assert!(forking.has_ended());
    assert_eq!(filter.end().last().unwrap(), "main 0");
}

#[test]
fn the_same_over_tcp() {
    let port = free_port("127.0.0.1");
    let conn = format!("conn=inet:{port}@127.0.0.1");
    let filter = Filter::start(Library::Ours, &["register", &conn, "main"]);
    wait_until("the filter listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut mta = Mta(TcpStream::connect(("127.0.0.1", port)).unwrap());
    mta.0.set_read_timeout(Some(PATIENCE)).unwrap();
    mta.negotiate();
    assert_eq!(mta.helo("fork-and-stay"), 'c');
    let _child = Child::of(&filter);
    mta.quit();
}

/// Setting it would cost a system call for each connection, and do nothing.
#[test]
fn connections_over_unix_sockets_are_not_kept_alive() {
    for (library, keep_alive) in [(Library::Reference, 1), (Library::Ours, 0)] {
        for steps in [&["register", SERVE[1], "main"][..], &["register", SERVE[1], "open=0", "main"]] {
            let filter = Filter::start(library, steps);
            let _mta = Mta::order(&filter, "sockets");
            filter.wait_for(&format!("connection keep-alive {keep_alive}"));
        }
    }
}

#[test]
fn connections_over_tcp_are_kept_alive() {
    on_both(|library| {
        let port = free_port("127.0.0.1");
        let conn = format!("conn=inet:{port}@127.0.0.1");
        let filter = Filter::start(library, &["register", &conn, "main"]);
        let mut stream = None;
        wait_until("the filter listens", || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let mut mta = Mta(stream.unwrap());
        mta.0.set_read_timeout(Some(PATIENCE)).unwrap();
        mta.negotiate();
        assert_eq!(mta.helo("sockets"), 'c');
        filter.wait_for("connection keep-alive 1");
    });
}

/// Neither INET nor UNIX: AF_VSOCK, for example, which virtual machines have.
#[test]
fn a_passed_socket_may_have_any_family() {
    on_both(|library| {
        let dir = temp_dir();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let steps = ["strange-families", "register", "conn=fd:2", "main"];
        let filter = start_with_descriptor(library, listener.into(), &steps);
        std::os::unix::fs::symlink(dir.path().join("s"), filter.file("s")).unwrap();
        Mta::order(&filter, "hello").quit();
        filter.wait_for("close 1");
        assert_eq!(filter.log(), [""; 0], "{library:?}");
    });
}

/// The reference closes it.
#[test]
fn a_descriptor_that_is_refused_stays_open() {
    let (datagram, _other) = UnixDatagram::pair().unwrap();
    let steps = ["register", "conn=fd:2", "open=0", "is-open=2"];
    let mut filter = start_with_descriptor(Library::Ours, datagram.into(), &steps);
    assert_eq!(filter.end().last().unwrap(), "is-open 1");
    let complaint = "3 steered: smfi_opensocket: connection \"fd:2\": cannot take over the descriptor: ";
    assert!(filter.log().len() == 1 && filter.log()[0].starts_with(complaint), "{:?}", filter.log());
}

/// Daemons close the standard streams, and still print there now and then.
#[test]
fn no_descriptor_of_the_library_is_one_of_the_standard_streams() {
    let port = free_port("127.0.0.1");
    let inet = format!("conn=inet:{port}@127.0.0.1");
    for (conn, opens_early) in [(SERVE[1], false), (SERVE[1], true), (&inet, false)] {
        let mut steps = vec!["register", conn, "close-standard"];
        steps.extend(opens_early.then_some("open=0"));
        steps.push("main");
        let filter = Filter::start(Library::Ours, &steps);
        if conn == inet {
            wait_until("a connection", || TcpStream::connect(("127.0.0.1", port)).is_ok());
            filter.wait_for("close 1");
        } else {
            let mut parked = Mta::order(&filter, "parked");
            let _busy: Vec<Mta> = (0..4).map(|_| Mta::order(&filter, "busy")).collect();
            check_standard_streams(&filter);
            parked.begin_message();
        }
        check_standard_streams(&filter);
    }
}

/// Nothing is open there.
#[track_caller]
fn check_standard_streams(filter: &Filter) {
    let files = fs::read_dir(format!("/proc/{}/fd", filter.daemon.pid())).unwrap();
    let names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| ["0", "1", "2"].contains(&&**name)), "{names:?}");
}
