//! `docs/reliability.md`: each of its promises names tests that exist; and its figures, which one test measures on both
//! libraries and prints. `cargo test reliability -- --nocapture` shows them.

use super::sockets::start_with_descriptor;
use super::{Filter, Mta, SERVE, command, limit_threads, optneg};
use crate::protocol::tests;
use crate::support::{Library, repository, temp_dir, wait_until};
use milter::protocol::Kind;
use regex::Regex;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Every promise has a section that names its tests.
#[test]
fn every_promise_names_its_tests() {
    let text = fs::read_to_string(repository().join("docs/reliability.md")).unwrap();
    let name = Regex::new("`([a-z_]+(?:::[a-z_0-9]+)+)`").unwrap();
    let known = tests();
    let promises: Vec<_> = text.split("\n## ").filter(|part| part.starts_with(char::is_numeric)).collect();
    assert_eq!(promises.len(), 8);
    for promise in promises {
        let title = promise.lines().next().unwrap();
        let named: Vec<_> = name.captures_iter(promise).map(|found| found[1].to_owned()).collect();
        assert!(!named.is_empty(), "{title}: no test");
        for test in named {
            assert!(known.contains(&test), "{title}: there is no {test}");
        }
    }
}

/// Prints a figure for docs/reliability.md.
fn show(library: Library, figure: &str) {
    println!("{library:?}: {figure}");
}

/// Longer than it may take until the next line is logged, if there is a line every ten seconds.
const SHORTAGE: Duration = Duration::from_secs(11);

#[test]
fn a_shortage_of_descriptors_costs_no_processor_and_one_line() {
    std::thread::scope(|scope| {
        for library in Library::BOTH {
            scope.spawn(move || {
                let filter = Filter::start(library, &["register", SERVE[1], "descriptors=32", "main"]);
                let mut served = Mta::order(&filter, "served");
                let crowd: Vec<Mta> = (0..60).map(|_| Mta::connect(&filter)).collect();
                // The reference logs nothing.
                std::thread::sleep(Duration::from_millis(500));
                let before = filter.cpu_ticks();
                std::thread::sleep(SHORTAGE);
                let (used, lines) = (filter.cpu_ticks() - before, filter.log().len());
                let freed = Instant::now();
                drop(crowd);
                Mta::order(&filter, "late").quit();
                show(
                    library,
                    &format!(
                        "without descriptors: {} % of a processor, {lines} lines in 11 s; a new session is served {} ms after there are some",
                        used * 100 / (SHORTAGE.as_secs() * 100),
                        freed.elapsed().as_millis()
                    ),
                );
                served.begin_message();
                assert_eq!(served.end_message(b"text\r\n"), 'c');
                if library == Library::Ours {
                    assert_eq!(lines, 1, "{:?}", filter.log());
                    assert!(used * 100 < 2 * SHORTAGE.as_secs() * 100, "{used} ticks");
                }
            });
        }
    });
}

/// A session in small steps; `None` as soon as an answer is missing for ten seconds.
fn patient_session(filter: &Filter, name: &str) -> Option<()> {
    let mut mta = UnixStream::connect(filter.file("s")).ok()?;
    mta.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let hear = |mta: &mut UnixStream| {
        let mut head = [0; 5];
        mta.read_exact(&mut head).ok()?;
        mta.read_exact(&mut vec![0; head[3] as usize - 1]).ok()
    };
    mta.write_all(
        &[optneg(), command(Kind::Connect, b"client\0U"), command(Kind::Helo, name.as_bytes())].concat(),
    )
    .ok()?;
    (0..3).try_for_each(|_| hear(&mut mta))?;
    for kind in [Kind::Mail, Kind::Rcpt] {
        mta.write_all(&command(kind, b"<a@example.org>\0")).ok()?;
        hear(&mut mta)?;
    }
    mta.write_all(&command(Kind::EndOfMessage, b"")).ok()?;
    hear(&mut mta)
}

#[test]
fn sixty_sessions_at_sixteen_threads_or_in_256_megabytes() {
    for limits in [&limit_threads(16)[..], &["megabytes=256".to_owned()]] {
        for library in Library::BOTH {
            let filter = Filter::start_limited(library, limits);
            filter.wait_for_socket();
            let (served, start) = (AtomicUsize::new(0), Instant::now());
            std::thread::scope(|scope| {
                for _ in 0..60 {
                    scope.spawn(|| {
                        let done = patient_session(&filter, "sleep 300\0").is_some();
                        served.fetch_add(usize::from(done), Ordering::Relaxed);
                    });
                }
            });
            let served = served.into_inner();
            show(library, &format!("{limits:?}: {served} of 60 served, after {:?}", start.elapsed()));
            assert!(library == Library::Reference || served == 60);
        }
    }
}

/// A filter, and so many sessions with half a frame each, that begin in this way.
fn with_half_frames(
    library: Library,
    limits: &[String],
    count: usize,
    begin: fn(&Filter) -> Mta,
) -> (Filter, Vec<Mta>) {
    let filter = Filter::start_limited(library, limits);
    Mta::order(&filter, "first").quit();
    let mut halves: Vec<Mta> = (0..count).map(|_| begin(&filter)).collect();
    halves.iter_mut().for_each(|mta| mta.send(b"\0\0\0\x20Cabc"));
    (filter, halves)
}

#[test]
fn two_hundred_peers_that_send_half_a_frame_cost_only_themselves() {
    for library in Library::BOTH {
        let (filter, mut halves) = with_half_frames(library, &[], 200, Mta::greet);
        // Threads that have nothing to do end after a while.
        std::thread::sleep(Duration::from_secs(4));
        if library == Library::Ours {
            filter.wait_until("a handful of threads", || filter.threads() <= 8);
        }
        let (threads, before) = (filter.threads(), filter.cpu_ticks());
        std::thread::sleep(Duration::from_secs(1));
        let used = filter.cpu_ticks() - before;
        let start = Instant::now();
        patient_session(&filter, "good\0").unwrap();
        let took = start.elapsed();
        show(
            library,
            &format!("200 half frames: {threads} threads, {used} % of a processor, a session takes {took:?}"),
        );
        assert!(library == Library::Reference || used < 25);
        // However late the rest comes, it makes a whole command.
        for mta in &mut halves {
            mta.send(&[&[b'x'; 26][..], b"\0U"].concat());
            assert_eq!(mta.answer(), 'c');
        }
    }
}

#[test]
fn half_frames_do_not_use_up_the_threads_there_are() {
    for library in Library::BOTH {
        let (filter, mut halves) = with_half_frames(library, &limit_threads(16), 60, Mta::connect);
        let start = Instant::now();
        // A byte now and then makes them no better.
        for _ in 0..5 {
            halves.iter_mut().for_each(|mta| mta.send(b"x"));
        }
        let served = patient_session(&filter, "good\0").is_some();
        show(
            library,
            &format!("60 half frames at 16 threads: another is served: {served}, {:?}", start.elapsed()),
        );
        assert!(served || library == Library::Reference);
    }
}

/// How long a stop takes, with a callback that never returns or without.
fn stop(library: Library, stuck: bool) -> Duration {
    let mut filter = Filter::serve(library);
    Mta::order(&filter, "first").quit();
    let mut mta = Mta::greet(&filter);
    assert_eq!(mta.connect_from("client"), 'c');
    if stuck {
        mta.command(Kind::Helo, b"hang\0");
        filter.wait_for("helo 2 hang");
        // It blocks nobody.
        let mut other = Mta::order(&filter, "other");
        other.begin_message();
        assert_eq!(other.end_message(b"text\r\n"), 'c');
        other.quit();
    }
    let start = Instant::now();
    filter.daemon.signal(libc::SIGTERM);
    filter.daemon.wait();
    let (took, closed) = (start.elapsed(), filter.count("close 2"));
    show(library, &format!("stop, stuck: {stuck}: {took:?}, the open session is closed {closed} times"));
    assert!(library == Library::Reference || closed == usize::from(!stuck));
    took
}

/// One of several filters must show it, because any of them may be held up by other processes.
#[test]
fn a_stop_takes_as_long_as_promised() {
    std::thread::scope(|scope| {
        let all = [(Library::Reference, false), (Library::Reference, true)];
        let reference = all.map(|(library, stuck)| scope.spawn(move || stop(library, stuck)));
        for (stuck, limit) in [(false, Duration::from_secs(1)), (true, Duration::from_millis(6_500))] {
            let filters: Vec<_> = (0..4).map(|_| scope.spawn(move || stop(Library::Ours, stuck))).collect();
            let shortest = filters.into_iter().map(|filter| filter.join().unwrap()).min().unwrap();
            assert!(shortest < limit, "stuck: {stuck}, {shortest:?}");
        }
        assert!(reference.into_iter().all(|filter| filter.join().is_ok()));
    });
}

/// What became of the sessions during a restart.
#[derive(Debug, Default)]
struct Tally {
    done: AtomicUsize,
    refused: AtomicUsize,
    /// Inside a message.
    cut: AtomicUsize,
    /// Before a message.
    sent_away: AtomicUsize,
}

/// One message of one session.
fn one_message(socket: &std::path::Path) -> fn(&Tally) -> &AtomicUsize {
    let Ok(stream) = UnixStream::connect(socket) else { return |tally| &tally.refused };
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut mta = stream;
    let mut ask = |bytes: &[u8]| {
        let mut head = [0; 5];
        mta.write_all(bytes).ok()?;
        mta.read_exact(&mut head).ok()?;
        mta.read_exact(&mut vec![0; head[3] as usize - 1]).ok()
    };
    let before = [optneg(), command(Kind::Connect, b"client\0U"), command(Kind::Helo, b"name\0")];
    for frame in before.iter().chain([&command(Kind::Mail, b"<a@b>\0")]) {
        if ask(frame).is_none() {
            return |tally| &tally.sent_away;
        }
    }
    for frame in [command(Kind::Rcpt, b"<c@d>\0"), command(Kind::EndOfMessage, b"")] {
        std::thread::sleep(Duration::from_millis(5));
        if ask(&frame).is_none() {
            return |tally| &tally.cut;
        }
    }
    |tally| &tally.done
}

/// The socket belongs to this process, as it does to systemd: the next filter begins before the last one is stopped.
#[test]
fn a_restart_under_load_cuts_no_message_and_refuses_nobody() {
    for library in Library::BOTH {
        let dir = temp_dir();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let start = || {
            let filter = start_with_descriptor(
                library,
                listener.as_fd().try_clone_to_owned().unwrap(),
                &["register", "conn=fd:2", "main"],
            );
            wait_until("the filter serves", || filter.threads() > 2);
            filter
        };
        let (tally, is_over) = (Tally::default(), AtomicBool::new(false));
        // It lives until the last session has ended.
        let mut filter = start();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        one_message(&socket)(&tally).fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // Whatever happens here, the load must end.
            let restarted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..3 {
                    let next = start();
                    std::thread::sleep(Duration::from_millis(300));
                    filter.daemon.signal(libc::SIGTERM);
                    filter.daemon.wait();
                    filter = next;
                }
                std::thread::sleep(Duration::from_millis(300));
            }));
            is_over.store(true, Ordering::Relaxed);
            restarted.unwrap();
        });
        show(library, &format!("three restarts: {tally:?}"));
        assert!(tally.done.into_inner() > 50);
        if library == Library::Ours {
            assert_eq!((tally.cut.into_inner(), tally.refused.into_inner()), (0, 0));
        }
    }
}
