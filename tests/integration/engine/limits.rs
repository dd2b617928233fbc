//! Limits that an administrator sets: LIBMILTER_MAX_SESSIONS, LIBMILTER_MAX_THREADS. Above them sessions wait.

use super::{Filter, Mta, SERVE, optneg, program};
use crate::support::{Library, waiting_threads};
use milter::protocol::Kind;
use std::io::{ErrorKind, Read};
use std::time::Duration;

fn start(variable: &str, value: &str) -> Filter {
    let mut command = Library::Ours.command(program());
    command.env(variable, value);
    Filter::start_with(command, &SERVE)
}

/// Many MTAs, each with some messages, all at once.
fn crowd(filter: &Filter, mtas: usize, messages: usize) {
    drop(Mta::connect(filter));
    std::thread::scope(|scope| {
        for _ in 0..mtas {
            scope.spawn(|| {
                let mut mta = Mta::order(filter, "client");
                for _ in 0..messages {
                    mta.begin_message();
                    assert_eq!(mta.end_message(b"text\r\n"), 'c');
                }
                mta.quit();
            });
        }
    });
}

/// The most sessions that were open at once, as the callbacks have seen it.
fn most_at_once(filter: &Filter) -> i32 {
    let step = |line: String| match line.split(' ').next() {
        Some("connect") => 1,
        Some("close") => -1,
        _ => 0,
    };
    let open = filter.output().into_iter().map(step).scan(0, |open, step| {
        *open += step;
        Some(*open)
    });
    open.collect::<Vec<_>>().into_iter().max().unwrap()
}

#[test]
fn sessions_above_the_limit_wait() {
    let mut filter = start("LIBMILTER_MAX_SESSIONS", "2");
    let mut mtas = [Mta::order(&filter, "one"), Mta::order(&filter, "two")];
    let mut third = Mta::connect(&filter);
    third.send(&optneg());
    filter.wait_until("the line", || !filter.log().is_empty());
    third.0.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(
        third.0.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "neither served nor refused"
    );
    third.0.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    // The others are not held up.
    for mta in &mut mtas {
        mta.begin_message();
        assert_eq!(mta.end_message(b"text\r\n"), 'c');
    }
    let [one, two] = mtas;
    one.quit();
    assert_eq!(third.answer(), 'O');
    two.quit();
    third.quit();
    assert_eq!(filter.log(), ["3 steered: as many sessions as LIBMILTER_MAX_SESSIONS allows, others wait"]);

    crowd(&filter, 20, 3);
    assert!(most_at_once(&filter) <= 2, "{}", most_at_once(&filter));
    assert_eq!(filter.count("eom"), 62);

    // Who waits does not hold up the end.
    let _open = [Mta::order(&filter, "one"), Mta::order(&filter, "two")];
    let mut waiting = Mta::connect(&filter);
    waiting.send(&optneg());
    filter.daemon.signal(libc::SIGTERM);
    assert!(waiting.has_ended());
    assert_eq!(filter.end().last().unwrap(), "main 0");
}

/// Also with one thread for each session.
#[test]
fn no_more_threads_than_allowed_serve_all_sessions() {
    for threads in ["park", "session"] {
        let mut command = Library::Ours.command(program());
        command.env("LIBMILTER_MAX_THREADS", "3").env("LIBMILTER_THREADS", threads);
        let mut filter = Filter::start_with(command, &SERVE);
        drop(Mta::connect(&filter));
        let most = std::thread::scope(|scope| {
            let mtas = scope.spawn(|| crowd(&filter, 20, 5));
            let mut most = 0;
            while !mtas.is_finished() {
                most = most.max(waiting_threads(filter.daemon.pid()));
            }
            mtas.join().unwrap();
            most
        });
        // With the thread of smfi_main, and the one that waits for signals.
        assert!(most <= 5, "{threads}: {most}");
        assert_eq!(filter.count("eom"), 100, "{threads}");
        assert_eq!(filter.log(), [""; 0], "{threads}");
        filter.daemon.signal(libc::SIGTERM);
        assert_eq!(filter.end().last().unwrap(), "main 0");
    }
}

/// Threads that serve no session are not among those that may.
#[test]
fn whoever_observes_takes_no_thread_from_the_sessions() {
    let dir = crate::support::temp_dir();
    let mut command = Library::Ours.command(program());
    command.env("LIBMILTER_MAX_THREADS", "3");
    command.env("LIBMILTER_METRICS", format!("unix:{}", dir.path().join("m").display()));
    command.env("LIBMILTER_TRACE", dir.path().join("trace"));
    let filter = Filter::start_with(command, &SERVE);
    let mut held = Mta::greet(&filter);
    assert_eq!(held.connect_from("client"), 'c');
    held.command(Kind::Helo, b"hold\0");
    // One waits for connections, one is held, one serves.
    Mta::order(&filter, "release").quit();
    assert_eq!(held.answer(), 'c');
}

/// A session that has no thread waits for one, whether it is new or not; nobody is refused.
#[test]
fn sessions_wait_for_callbacks_when_there_are_no_more_threads() {
    let mut filter = start("LIBMILTER_MAX_THREADS", "4");
    let mut early = Mta::order(&filter, "early");
    let mut held: Vec<Mta> = (0..2).map(|_| Mta::greet(&filter)).collect();
    for mta in &mut held {
        assert_eq!(mta.connect_from("client"), 'c');
        mta.command(Kind::Helo, b"hold\0");
    }
    let mut late: Vec<Mta> = (0..10).map(|_| Mta::connect(&filter)).collect();
    for mta in &mut late {
        mta.send(&optneg());
    }
    early.command(Kind::Mail, b"<a@example.org>\0");
    // Those who hold have a thread each, and one thread must wait for connections: one is left for all others.
    Mta::order(&filter, "release").quit();
    Mta::order(&filter, "release").quit();
    for mta in &mut held {
        assert_eq!(mta.answer(), 'c');
    }
    assert_eq!(early.answer(), 'c');
    for mta in &mut late {
        assert_eq!(mta.answer(), 'O');
    }
    assert!(filter.threads() <= 6);
    assert_eq!(filter.log(), [""; 0]);
    filter.daemon.signal(libc::SIGTERM);
    assert_eq!(filter.end().last().unwrap(), "main 0");
}
