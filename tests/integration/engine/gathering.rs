//! When replies and changes leave: together with what belongs to them, but never so late that the MTA could lose patience
//! (`gathered-replies` in `docs/compatibility.md`). `c-tests/slow-filter.c` takes its time.

use super::{Filter, Mta, command, on_both, somebody_is_in};
use crate::support::{Library, compile_c};
use milter::protocol::Kind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

fn slow_filter(library: Library, mode: &str) -> Filter {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slow-filter");
        compile_c("c-tests/slow-filter.c", &program);
        program
    });
    let filter = Filter::start_with(library.command(program), &["unix:{dir}/s", mode]);
    filter.wait_for_socket();
    filter
}

/// What leaves while a callback runs is heard before the callback is released.
#[test]
fn nothing_waits_for_a_callback_that_takes_long() {
    on_both(|library| {
        let filter = slow_filter(library, "hold");
        let mut mta = Mta::greet(&filter);
        mta.send(&[command(Kind::Connect, b"client\0U"), command(Kind::Helo, b"name\0")].concat());
        assert_eq!(mta.answer(), 'c', "the reply to CONNECT");
        filter.wait_for("helo");
        filter.daemon.signal(libc::SIGUSR1);
        assert_eq!(mta.answer(), 'c', "the reply to HELO");
        mta.begin_message();
        mta.command(Kind::EndOfMessage, b"");
        assert_eq!(mta.hear(), Some(('h', b"X-Slow\0early\0".to_vec())));
        filter.wait_for("eom");
        filter.daemon.signal(libc::SIGUSR1);
        assert_eq!(mta.hear(), Some(('h', b"X-Slow\0late\0".to_vec())));
        assert_eq!(mta.answer(), 'c');
        mta.quit();
    });
}

/// Ours only: frames of the reference would mix.
#[test]
fn macros_and_replies_do_not_wait_for_a_change_that_is_being_sent() {
    let filter = slow_filter(Library::Ours, "helper");
    let mut mta = Mta::greet(&filter);
    assert_eq!(mta.helo("name"), 'c');
    mta.begin_message();
    mta.command(Kind::EndOfMessage, b"");
    filter.wait_for("eom");
    filter.wait_until("the body is being sent", || somebody_is_in(&filter, libc::SYS_poll));
    filter.daemon.signal(libc::SIGUSR1);
    filter.wait_for("no macro");
    filter.wait_for("reply");
    assert_eq!(filter.count("replaced"), 0);
    while mta.answer() == 'b' {}
    filter.wait_for("replaced");
    mta.quit();
}
