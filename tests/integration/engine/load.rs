//! Two hundred sessions at once, and what they leave behind.

use super::{Filter, Mta, SERVE, command, on_both, optneg, program};
use crate::support::{Library, wait_until};
use milter::protocol::Kind;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Barrier;

const SESSIONS: usize = 200;
const MESSAGES: usize = 3;

/// All sessions are open before the first message begins.
fn storm(filter: &Filter) {
    let all_open = Barrier::new(SESSIONS);
    std::thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                let mut mta = Mta::order(filter, "load");
                all_open.wait();
                for _ in 0..MESSAGES {
                    mta.begin_message();
                    assert_eq!(mta.end_message(&[b'x'; 8192]), 'c');
                }
                mta.quit();
            });
        }
    });
}

#[test]
fn two_hundred_sessions_at_once() {
    on_both(|library| {
        let filter = Filter::start(library, &["register", "conn=unix:{dir}/s", "main"]);
        storm(&filter);
        filter.wait_for_count("close", SESSIONS);
        assert_eq!(filter.count("eom"), SESSIONS * MESSAGES, "{library:?}");
        assert_eq!(filter.log(), [""; 0], "{library:?}");
    });
}

#[test]
fn afterwards_threads_memory_and_descriptors_are_given_back() {
    let filter = Filter::start(Library::Ours, &["register", "conn=unix:{dir}/s", "main"]);
    // The first sessions load code and set up what stays.
    Mta::order(&filter, "first").quit();
    filter.wait_for("close 1");
    wait_until("threads at rest", || filter.threads() <= 4);
    let (memory, files) = (filter.status("VmRSS"), filter.open_files());
    for round in 1..=2 {
        storm(&filter);
        filter.wait_for_count("close", 1 + round * SESSIONS);
    }
    wait_until("idle threads have ended", || filter.threads() <= 4);
    assert_eq!(filter.open_files(), files);
    let now = filter.status("VmRSS");
    assert!(now <= memory + 1024, "{memory} KiB before, {now} KiB after");
}

/// A session in one go: up to its QUIT, or cut off inside its message.
fn dialogue(whole: bool) -> Vec<u8> {
    let mut bytes = optneg();
    let commands: [(Kind, &[u8]); 6] = [
        (Kind::Connect, b"client\0U"),
        (Kind::Helo, b"storm\0"),
        (Kind::Mail, b"<a@b>\0"),
        (Kind::Rcpt, b"<c@d>\0"),
        (Kind::EndOfMessage, b""),
        (Kind::Quit, b""),
    ];
    for (kind, payload) in &commands[..if whole { 6 } else { 4 }] {
        bytes.extend(command(*kind, payload));
    }
    bytes
}

/// Sessions come and go without a pause until the filter refuses them.
fn besiege(filter: &Filter, index: usize) {
    for round in index.. {
        let Ok(mut mta) = Mta::try_connect(filter) else { return };
        // The filter may end the session at any moment.
        let _ = mta.0.write_all(&dialogue(round % 3 > 0));
        if round % 5 > 0 {
            let _ = mta.0.shutdown(std::net::Shutdown::Write);
            let _ = mta.0.read_to_end(&mut Vec::new());
        }
    }
}

#[test]
fn a_stop_in_a_storm_closes_every_session_once() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        for threads in ["", "session"] {
            let mut command = Library::Ours.command(program());
            command.env("LIBMILTER_THREADS", threads);
            let mut filter = Filter::start_with(command, &SERVE);
            filter.wait_for_socket();
            Mta::greet(&filter).quit();
            std::thread::scope(|scope| {
                for index in 0..16 {
                    let filter = &filter;
                    scope.spawn(move || besiege(filter, index));
                }
                // Whatever happens here, the siege must end.
                let begun = std::panic::catch_unwind(|| filter.wait_for_count("close", 300));
                filter.daemon.signal(signal);
                begun.unwrap();
            });
            let output = filter.end();
            assert_eq!(output.last().unwrap(), "main 0");
            // Some clients are gone before they are answered.
            let broke = "3 steered: connection to the MTA broke: ";
            assert!(filter.log().iter().all(|line| line.starts_with(broke)), "{:?}", filter.log());
            let mut ends: HashMap<&str, (usize, usize)> = HashMap::new();
            for line in &output {
                let mut words = line.split(' ');
                let (event, session) = (words.next().unwrap(), words.next().unwrap());
                match event {
                    "connect" => drop(ends.entry(session).or_default()),
                    "close" => ends.entry(session).or_default().0 += 1,
                    "eom" | "abort" => ends.entry(session).or_default().1 += 1,
                    _ => {}
                }
            }
            assert!(ends.len() >= 300);
            for (session, (closed, ended)) in ends {
                assert!(closed == 1 && ended <= 1, "session {session}: {closed} closes, {ended} ends");
            }
        }
    }
}
