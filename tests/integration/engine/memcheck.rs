//! The library under valgrind's memcheck: a short life of a filter, with messages, a protocol error, a timeout, an
//! abort and a warm restart, without an error and without lost memory.

use super::{Filter, Mta, program};
use crate::support::Library;
use milter::protocol::Kind;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_short_life_without_an_error() {
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"])
        .arg(program())
        .env("LD_LIBRARY_PATH", Library::Ours.dir());
    let steps = ["register", "conn=unix:{dir}/s", "timeout=4", "main", "open=1", "main"];
    let mut filter = Filter::start_with(command, &steps);
    // The start of valgrind alone costs so much that a busy machine may need more than a test's patience for it.
    while filter.count("register 0") == 0 {
        assert!(filter.daemon.ended().is_none(), "{:?}", filter.output());
        std::thread::sleep(Duration::from_millis(5));
    }
    for round in 0..2 {
        filter.wait_for_count("main 0", round);
        let mut whole = Mta::order(&filter, "half-full");
        whole.begin_message();
        assert_eq!(whole.end_message(b"text\r\n"), 'b');
        whole.hear();
        assert_eq!(whole.answer(), 'c');
        whole.begin_message();
        let mut faulty = Mta::order(&filter, "macro j");
        faulty.begin_message();
        faulty.command(Kind::Header, b"no value");
        assert!(faulty.has_ended());
        if round == 0 {
            assert!(Mta::order(&filter, "silent").has_ended());
        }
        let mut last = Mta::order(&filter, "last");
        last.begin_message();
        filter.daemon.signal(libc::SIGINT);
        assert!(last.has_ended());
    }
    filter.end();
    assert_eq!(filter.count("main 0"), 2);
}
