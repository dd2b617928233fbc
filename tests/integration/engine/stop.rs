//! Stopping and starting again (contract 2.6, contract 3 entries 10 to 12, 13 and 15): who hears of it, who may
//! finish, and what is left behind. Most of it is for ours alone, because the reference closes no session in order.

use super::{Filter, Mta, SERVE, on_both, somebody_is_in};
use crate::support::{Library, PATIENCE, free_port, wait_until};
use milter::protocol::Kind;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

/// Who nobody is.
const NOBODY: u32 = 65_534;

/// The place of a line in what the filter has printed.
#[track_caller]
fn place(output: &[String], line: &str) -> usize {
    output
        .iter()
        .position(|printed| printed == line)
        .unwrap_or_else(|| panic!("no \"{line}\" in {output:#?}"))
}

/// Waits until nobody can connect any more.
pub fn wait_until_refused(filter: &Filter) {
    wait_until("new connections are refused", || Mta::try_connect(filter).is_err());
}

#[test]
fn without_sessions_everything_stops_it() {
    on_both(|library| {
        // In the reference, smfi_stop in a signal handler has no effect.
        let handler = (library == Library::Ours).then_some(libc::SIGUSR2);
        let signals = [libc::SIGTERM, libc::SIGHUP, libc::SIGINT].into_iter().chain(handler);
        // All at once, because each stop takes the reference nearly five seconds.
        let mut filters: Vec<(i32, Filter)> = signals
            .map(|signal| (signal, Filter::start(library, &["register", "stop-on-usr2", SERVE[1], "main"])))
            .collect();
        for (signal, filter) in &filters {
            // A session that has come and gone shows that it serves.
            Mta::greet(filter).quit();
            filter.wait_for("close 1");
            filter.daemon.signal(*signal);
        }
        for (signal, filter) in &mut filters {
            let output = filter.end();
            assert_eq!(output.last().unwrap(), "main 0", "{library:?}, signal {signal}: {output:#?}");
            assert_eq!(filter.log(), [""; 0], "{library:?}, signal {signal}");
        }
    });
}

#[test]
fn a_stop_before_the_start_counts() {
    on_both(|library| {
        let mut filter = Filter::start(library, &["register", SERVE[1], "stop", "main"]);
        filter.end();
        assert_eq!(filter.count("main 0"), 1, "{library:?}");
    });
}

/// Contract 3, entry 11.
#[test]
fn sessions_outside_a_message_are_closed_in_order() {
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        let mut filter = Filter::serve(Library::Ours);
        let mut between = Mta::order(&filter, "between");
        between.begin_message();
        assert_eq!(between.end_message(b"body\r\n"), 'c');
        let mut helo = Mta::order(&filter, "helo");
        let mut negotiated = Mta::greet(&filter);
        let mut silent = Mta::connect(&filter);
        filter.daemon.signal(signal);
        for mta in [&mut between, &mut helo, &mut negotiated, &mut silent] {
            assert!(mta.has_ended(), "signal {signal}");
        }
        let output = filter.end();
        assert_eq!(output.last().unwrap(), "main 0");
        // The connection that was never heard of may have been refused, if nobody had accepted it yet.
        for session in 1..=3 {
            assert_eq!(filter.count(&format!("close {session}")), 1, "signal {signal}: {output:#?}");
        }
        assert_eq!(filter.count("abort"), 0, "signal {signal}: {output:#?}");
        assert_eq!(filter.log(), [""; 0]);
    }
}

/// Contract 3, entries 11 and 12: the orders of the HELO name stop the filter from a callback and from a thread of
/// the filter's; the session that gives them goes on.
#[test]
fn a_message_under_way_may_finish() {
    for order in ["signal", "stop", "stop-in-thread"] {
        let mut filter = Filter::serve(Library::Ours);
        let mut mta = Mta::order(&filter, "message");
        mta.begin_message();
        let mut idle = Mta::order(&filter, "idle");
        if order == "signal" {
            filter.daemon.signal(libc::SIGTERM);
        } else {
            assert_eq!(Mta::greet(&filter).helo(order), 'c', "the callback's answer still goes out");
            filter.wait_for("stop 0");
        }
        wait_until_refused(&filter);
        assert!(idle.has_ended());
        assert_eq!(mta.end_message(b"body\r\n"), 'c', "{order}");
        assert!(mta.has_ended(), "{order}: no second message");
        let output = filter.end();
        assert!(place(&output, "close 2") < place(&output, "close 1"), "{order}: {output:#?}");
        assert!(place(&output, "close 1") < place(&output, "main 0"), "{order}: {output:#?}");
        assert_eq!(filter.count("abort"), 0, "{order}: {output:#?}");
    }
}

/// The filter's threads get a handled signal every 20 ms: no wait may begin anew each time.
#[test]
fn signals_do_not_keep_a_stop_from_being_seen() {
    for (threads, opens_early) in [("", false), ("", true), ("session", false)] {
        let mut command = Library::Ours.command(super::program());
        command.env("LIBMILTER_THREADS", threads);
        let steps = if opens_early {
            &["register", "interrupt", SERVE[1], "open=0", "main"][..]
        } else {
            &["register", "interrupt", SERVE[1], "main"]
        };
        let mut filter = Filter::start_with(command, steps);
        let mut idle = Mta::order(&filter, "idle");
        let mut message = Mta::order(&filter, "message");
        message.begin_message();
        filter.daemon.signal(libc::SIGTERM);
        assert!(idle.has_ended());
        assert_eq!(message.end_message(b"text\r\n"), 'c');
        assert!(message.has_ended());
        assert_eq!(filter.end().last().unwrap(), "main 0");
        assert_eq!((filter.count("close"), filter.count("abort")), (2, 0));
        assert_eq!(filter.log(), [""; 0]);
    }
}

#[test]
fn the_same_over_tcp() {
    for (host, family) in [("127.0.0.1", "inet"), ("::1", "inet6")] {
        let port = free_port(host);
        let conn = format!("conn={family}:{port}@[{host}]");
        let mut filter = Filter::start(Library::Ours, &["register", &conn, "main"]);
        wait_until("the filter listens", || TcpStream::connect((host, port)).is_ok());
        filter.wait_for("close 1");
        let stream = TcpStream::connect((host, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut mta = Mta(stream);
        mta.negotiate();
        assert_eq!(mta.helo("tcp"), 'c');
        mta.begin_message();
        filter.daemon.signal(libc::SIGTERM);
        wait_until("new connections are refused", || TcpStream::connect((host, port)).is_err());
        assert_eq!(mta.end_message(b"body\r\n"), 'c');
        assert!(mta.has_ended());
        assert_eq!(filter.end().last().unwrap(), "main 0");
        assert_eq!((filter.count("close 2"), filter.count("abort")), (1, 0));
    }
}

/// Daemons fork between smfi_opensocket and smfi_main: the socket is their parent's too, until that has gone.
#[test]
fn a_daemon_refuses_new_connections_as_well() {
    for steps in [&["open=0", "daemonise"][..], &["daemonise"]] {
        let mut filter = Filter::start(Library::Ours, &[&["register", SERVE[1]], steps, &["main"]].concat());
        let mut mta = Mta::order(&filter, "message");
        mta.begin_message();
        filter.daemon.signal(libc::SIGTERM);
        wait_until_refused(&filter);
        assert_eq!(mta.end_message(b"body\r\n"), 'c', "{steps:?}");
        assert!(mta.has_ended(), "{steps:?}");
        assert_eq!(filter.end().last().unwrap(), "main 0");
        assert_eq!((filter.count("close 1"), filter.count("abort")), (1, 0), "{steps:?}");
    }
}

#[test]
fn a_message_that_does_not_finish_is_cut_off() {
    let mut filter = Filter::serve(Library::Ours);
    let mut mta = Mta::order(&filter, "message");
    mta.begin_message();
    filter.daemon.signal(libc::SIGTERM);
    assert!(mta.has_ended());
    let output = filter.end();
    assert!(output.ends_with(&["abort 1".into(), "close 1".into(), "main 0".into()]), "{output:#?}");
}

/// Contract 3, entry 15.
#[test]
fn a_callback_that_is_stuck_is_logged_and_left_behind() {
    let mut filter = Filter::serve(Library::Ours);
    let mut stuck = Mta::greet(&filter);
    assert_eq!(stuck.connect_from("client"), 'c');
    stuck.command(Kind::Helo, b"hang\0");
    filter.wait_for("helo 1 hang");
    let mut mta = Mta::order(&filter, "message");
    mta.begin_message();
    filter.daemon.signal(libc::SIGTERM);
    assert!(mta.has_ended());
    let output = filter.end();
    assert_eq!(filter.count("close 2"), 1);
    assert_eq!(filter.count("close 1"), 0);
    assert_eq!(filter.log().len(), 1, "{output:#?}");
    assert!(filter.log()[0].starts_with("3 steered: 1 session left behind"), "{output:#?}");
    assert_eq!(output.last().unwrap(), "main 0");
}

/// Once it is known that a callback is stuck, nothing is waited for any more. One of several filters must show it,
/// because any of them may be held up by other processes.
#[test]
fn nobody_waits_for_a_callback_that_was_left_behind() {
    let mut filters: Vec<(Filter, Mta)> = (0..4)
        .map(|_| {
            let filter = Filter::serve(Library::Ours);
            let mut stuck = Mta::greet(&filter);
            assert_eq!(stuck.connect_from("client"), 'c');
            stuck.command(Kind::Helo, b"hang\0");
            filter.wait_for("helo 1 hang");
            (filter, stuck)
        })
        .collect();
    filters.iter().for_each(|(filter, _)| filter.daemon.signal(libc::SIGTERM));
    let waits: Vec<Duration> = std::thread::scope(|scope| {
        let wait = |filter: &mut Filter| {
            filter.wait_until("it is left behind", || !filter.log().is_empty());
            let start = Instant::now();
            filter.end();
            start.elapsed()
        };
        let waits: Vec<_> = filters.iter_mut().map(|(filter, _)| scope.spawn(move || wait(filter))).collect();
        waits.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let shortest = waits.into_iter().min().unwrap();
    assert!(shortest < Duration::from_millis(900), "{shortest:?}");
}

/// Contract 3, entry 15: a connection that was accepted in the instant of the stop counts as a session, too. Its
/// acceptor is held up right behind accept(2) until smfi_main has returned.
#[test]
fn a_connection_that_is_accepted_during_the_stop_is_waited_for() {
    let go = "wait={dir}/go";
    let mut filter = Filter::start(Library::Ours, &["register", SERVE[1], "main", go]);
    let mut mtas = vec![Mta::order(&filter, "next-thread-late")];
    // The acceptor that takes up work while no other one is waiting starts another thread.
    filter.wait_until("a late thread", || {
        mtas.push(Mta::connect(&filter));
        filter.count("late thread") == 1
    });
    filter.daemon.signal(libc::SIGTERM);
    assert!(mtas.iter_mut().all(Mta::has_ended));
    fs::write(filter.file("go"), "").unwrap();
    let output = filter.end();
    assert_eq!(output[place(&output, "main 0")..], ["main 0", "waiting"], "{output:#?}");
    assert_eq!(filter.log().len(), 1, "{output:#?}");
    assert!(filter.log()[0].starts_with("3 steered: 1 session left behind"), "{output:#?}");
}

#[test]
fn an_abort_ends_messages_too() {
    for first in [None, Some(libc::SIGTERM)] {
        let mut filter = Filter::serve(Library::Ours);
        let mut mta = Mta::order(&filter, "message");
        mta.begin_message();
        if let Some(signal) = first {
            filter.daemon.signal(signal);
            wait_until_refused(&filter);
        }
        filter.daemon.signal(libc::SIGINT);
        assert!(mta.has_ended());
        let output = filter.end();
        assert!(output.ends_with(&["abort 1".into(), "close 1".into(), "main 0".into()]), "{output:#?}");
    }
}

/// Contract 3, entries 10 and 16.
#[test]
fn it_can_be_started_again_but_not_twice_at_once() {
    let mut filter = Filter::start(
        Library::Ours,
        &["register", SERVE[1], "mask", "main", "mask", "open=1", "main", "mask", "open=1", "main"],
    );
    for round in 1..=3 {
        filter.wait_for_count("main 0", round - 1);
        let mut mta = Mta::order(&filter, "main");
        filter.wait_for_count("second main -1", round);
        if round == 2 {
            filter.daemon.signal(libc::SIGTERM);
        } else {
            // Asked for twice in one run, it is not carried into the next.
            mta.send(
                &[super::command(Kind::Helo, b"stop\0"), super::command(Kind::Helo, b"stop\0")].concat(),
            );
            assert_eq!(mta.answer(), 'c');
            continue;
        }
        assert!(mta.has_ended());
    }
    filter.end();
    assert_eq!(filter.count("main 0"), 3);
    assert_eq!(filter.count("blocked 000"), 2, "the signal mask is restored");
    assert_eq!(filter.count("blocked 111"), 1, "but not when a signal has stopped it");
    assert_eq!(filter.count("syslog 3 steered: smfi_main: already running"), 3);
}

/// The connections of the first run are not long gone when the second one begins.
#[test]
fn it_can_be_started_again_on_the_same_port() {
    let port = free_port("127.0.0.1");
    let conn = format!("conn=inet:{port}@127.0.0.1");
    let mut filter = Filter::start(Library::Ours, &["register", &conn, "main", "main"]);
    for round in 1..=2 {
        filter.wait_for_count("main 0", round - 1);
        let mut stream = None;
        wait_until("a connection", || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let mut mta = Mta(stream.unwrap());
        mta.negotiate();
        filter.daemon.signal(libc::SIGTERM);
        assert!(mta.has_ended());
    }
    assert_eq!(filter.end().last().unwrap(), "main 0");
    assert_eq!(filter.log(), [""; 0]);
}

/// Init scripts send SIGTERM twice, and a filter's cleanup may take a while.
#[test]
fn a_second_signal_does_not_end_a_filter_that_cleans_up() {
    on_both(|library| {
        for (first, second) in [(libc::SIGTERM, libc::SIGTERM), (libc::SIGINT, libc::SIGHUP)] {
            let go = "wait={dir}/go";
            let mut filter = Filter::start(library, &["register", SERVE[1], "main", "mask", go, "mask"]);
            Mta::greet(&filter).quit();
            filter.daemon.signal(first);
            filter.wait_for("waiting");
            filter.daemon.signal(second);
            fs::write(filter.file("go"), "").unwrap();
            filter.end();
            assert_eq!(filter.count("blocked 111"), 2, "{library:?}");
        }
    });
}

/// Only on the reference it is always so: there the file goes when smfi_stop is called, and smfi_main then opens the
/// socket again, which fails for root.
#[test]
fn after_a_stop_before_the_start_the_socket_file_goes_with_smfi_main() {
    for library in Library::BOTH {
        let steps = [
            "register",
            SERVE[1],
            "wait={dir}/go",
            "become=65534",
            "open=0",
            "stop",
            "wait={dir}/on",
            "main",
        ];
        let mut filter = Filter::start(library, &steps);
        fs::set_permissions(filter.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(filter.file("go"), "").unwrap();
        filter.wait_for("stop 0");
        assert_eq!(filter.file("s").exists(), library == Library::Ours);
        fs::write(filter.file("on"), "").unwrap();
        // The reference may complain about its own threads at the end.
        assert!(filter.end().contains(&"main 0".to_owned()), "{library:?}");
        assert!(!filter.file("s").exists(), "{library:?}");

        let mut filter = Filter::start(library, &["register", SERVE[1], "open=0", "stop", "main"]);
        let result = if library == Library::Ours { "main 0" } else { "main -1" };
        assert!(filter.end().contains(&result.to_owned()), "{library:?}");
    }
}

/// Whether it can start or not.
#[test]
fn sigpipe_is_ignored_from_smfi_main_on() {
    on_both(|library| {
        let steps = ["register", "conn=unix:{dir}/none/s", "open=0", "pipe", "main", "pipe"];
        let mut filter = Filter::start(library, &steps);
        let output = filter.end();
        let told: Vec<&String> = output.iter().filter(|line| !line.starts_with("syslog ")).collect();
        assert_eq!(told[2..], ["open -1", "pipe default", "main -1", "pipe ignored"], "{library:?}");
    });
}

/// Contract 3, entry 15.
#[test]
fn afterwards_a_signal_ends_the_process_as_before() {
    let mut filter =
        Filter::start(Library::Ours, &["register", SERVE[1], "stop", "main", "wait={dir}/never"]);
    filter.wait_for("waiting");
    filter.daemon.signal(libc::SIGTERM);
    assert_eq!(filter.daemon.wait().signal(), Some(libc::SIGTERM));
}

/// Contract 2.6 and contract 4.
#[test]
fn signals_of_the_filter_are_left_alone() {
    on_both(|library| {
        let filter = Filter::start(library, &["register", "tell=10", SERVE[1], "main"]);
        let _mta = Mta::order(&filter, "hello");
        for count in 1..=3 {
            filter.daemon.signal(libc::SIGUSR1);
            filter.wait_for_count("signal 10", count);
        }
        let bit = |signal: i32| 1_u64 << (signal - 1);
        let three = bit(libc::SIGHUP) | bit(libc::SIGTERM) | bit(libc::SIGINT);
        // A thread that is just being started has all signals blocked for an instant.
        wait_until("all threads but one block three signals, and all but one are open to others", || {
            let threads = signal_masks(&filter);
            let blocking = threads.iter().filter(|(blocked, _)| blocked & three == three).count();
            let open = threads.iter().filter(|(blocked, _)| blocked & bit(libc::SIGUSR1) == 0).count();
            assert!(threads.iter().all(|(_, ignored)| ignored & bit(libc::SIGPIPE) != 0), "{library:?}");
            blocking + 1 >= threads.len() && open + 1 >= threads.len()
        });
    });
}

/// Contract 4: Python programs run smfi_main in a second thread, and keep the signals for their first.
#[test]
fn a_main_thread_with_handlers_of_its_own_gets_the_signals() {
    on_both(|library| {
        let filter = Filter::start(library, &["register", "tell=1", "tell=15", SERVE[1], "main-in-thread"]);
        let mut mta = Mta::order(&filter, "hello");
        for count in 1..=10 {
            for (signal, told) in [(libc::SIGHUP, "signal 1"), (libc::SIGTERM, "signal 15")] {
                // The system gives a signal to any thread that wants it while the main thread is in a handler, or
                // to one that begins to wait before the main thread has run.
                wait_until("the main thread is free, and another one waits for signals", || {
                    main_thread_is_free(&filter) && somebody_is_in(&filter, libc::SYS_rt_sigtimedwait)
                });
                filter.daemon.signal(signal);
                filter.wait_for_count(told, count);
            }
        }
        mta.begin_message();
        assert_eq!(mta.end_message(b"text\r\n"), 'c', "{library:?}: nothing has stopped");
    });
}

/// Whether no handler is running in the main thread, which would block its signal.
fn main_thread_is_free(filter: &Filter) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", filter.daemon.pid())).unwrap();
    status.lines().any(|line| line == "SigBlk:\t0000000000000000")
}

/// Which signals are blocked, and which ignored, in each thread of the filter.
fn signal_masks(filter: &Filter) -> Vec<(u64, u64)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", filter.daemon.pid())).unwrap();
    tasks
        // A thread may end meanwhile.
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(|status| {
            let mask = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                u64::from_str_radix(line.trim(), 16).unwrap()
            };
            (mask("SigBlk:"), mask("SigIgn:"))
        })
        .collect()
}

#[test]
fn the_socket_file_stays_with_root_and_goes_otherwise() {
    let mut filters = Vec::new();
    for library in Library::BOTH {
        for (id, stays) in [(0, true), (NOBODY, false)] {
            let filter = open_then_become(library, id);
            // Nobody else may connect to root's socket, but this process is root.
            Mta::greet(&filter).quit();
            filter.daemon.signal(libc::SIGTERM);
            filters.push((library, id, stays, filter));
        }
    }
    for (library, id, stays, mut filter) in filters {
        filter.end();
        assert_eq!(filter.file("s").exists(), stays, "{library:?} as {id}");
    }
}

/// A filter that opens its socket as root, in a directory that is writable for all, and serves as somebody else.
fn open_then_become(library: Library, id: u32) -> Filter {
    let become_someone = format!("become={id}");
    let filter =
        Filter::start(library, &["register", SERVE[1], "wait={dir}/go", "open=0", &become_someone, "main"]);
    fs::set_permissions(filter.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(filter.file("go"), "").unwrap();
    filter
}

/// Contract 3, entry 13.
#[test]
fn a_successors_socket_file_stays() {
    let mut filter = open_then_become(Library::Ours, NOBODY);
    Mta::greet(&filter).quit();
    fs::remove_file(filter.file("s")).unwrap();
    let successor = UnixListener::bind(filter.file("s")).unwrap();
    filter.daemon.signal(libc::SIGTERM);
    filter.end();
    assert!(filter.file("s").exists());
    drop(successor);
}
