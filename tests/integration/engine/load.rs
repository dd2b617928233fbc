//! Two hundred sessions at once, and what they leave behind.

use super::{Filter, Mta, on_both};
use crate::support::{Library, wait_until};
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
