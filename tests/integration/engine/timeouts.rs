//! smfi_settimeout (contract 2.2, contract 3 entries 9 and 14): MTAs that fall silent, that never finish a frame, or
//! that do not read what they are sent.

use super::{Filter, Mta, command, on_both};
use crate::support::Library;
use milter::protocol::Kind;
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// A filter of ours with this timeout, for each way to give threads to sessions.
fn serve_in_both_ways(timeout: i32) -> [Filter; 2] {
    ["", "session"].map(|threads| {
        let mut command = Library::Ours.command(super::program());
        command.env("LIBMILTER_THREADS", threads);
        let timeout = format!("timeout={timeout}");
        let filter = Filter::start_with(command, &["register", &timeout, "conn=unix:{dir}/s", "main"]);
        filter.wait_for_socket();
        filter
    })
}

/// The filter's threads get a handled signal every 20 ms: no wait may begin anew each time.
#[test]
fn signals_do_not_prolong_a_silence() {
    for threads in ["", "session"] {
        let mut program = Library::Ours.command(super::program());
        program.env("LIBMILTER_THREADS", threads);
        let steps = ["register", "timeout=1", "interrupt", "conn=unix:{dir}/s", "main"];
        let filter = Filter::start_with(program, &steps);
        let mut silent = Mta::order(&filter, "message");
        silent.begin_message();
        let mut half = Mta::order(&filter, "half a frame");
        half.send(&command(Kind::Mail, b"<a@b>\0")[..3]);
        assert!(silent.has_ended() && half.has_ended());
        filter.wait_for_count("close", 2);
        assert_eq!(filter.count("abort"), 1);
        // The second one is held back.
        assert_eq!(filter.log(), ["3 steered: timed out waiting for the MTA, session ended"]);
    }
}

fn serve(library: Library, timeout: i32) -> Filter {
    let filter =
        Filter::start(library, &["register", &format!("timeout={timeout}"), "conn=unix:{dir}/s", "main"]);
    filter.wait_for_socket();
    filter
}

/// The one line in the log says that the MTA took too long.
#[track_caller]
fn check_log(filter: &Filter) {
    let log = filter.log();
    assert_eq!(log, ["3 steered: timed out waiting for the MTA, session ended"]);
}

/// Contract 3, entry 14.
#[test]
fn silence_ends_a_session() {
    for filter in serve_in_both_ways(1) {
        let mut unheard = Mta::connect(&filter);
        assert!(unheard.has_ended());
        filter.wait_for("close 1");
        check_log(&filter);
    }
    for filter in serve_in_both_ways(1) {
        let mut mta = Mta::order(&filter, "message");
        mta.begin_message();
        assert!(mta.has_ended());
        filter.wait_for("close 1");
        check_log(&filter);
        assert!(filter.output().ends_with(&["abort 1".into(), "close 1".into()]), "{:?}", filter.output());
    }
}

/// When it is crowded sessions are parked after each command, and not when they have been silent for a moment.
#[test]
fn no_silence_is_cut_short() {
    let filter = serve(Library::Ours, 1);
    let mtas: Vec<Mta> = (0..16).map(|_| Mta::order(&filter, "crowd")).collect();
    let silences: Vec<Duration> = std::thread::scope(|scope| {
        let talk = |mut mta: Mta| {
            let mut last = Instant::now();
            for _ in 0..1000 {
                last = Instant::now();
                mta.command(Kind::Helo, b"again\0");
                assert_eq!(mta.answer(), 'c');
            }
            assert!(mta.has_ended());
            last.elapsed()
        };
        let talks: Vec<_> = mtas.into_iter().map(|mta| scope.spawn(move || talk(mta))).collect();
        talks.into_iter().map(|talk| talk.join().unwrap()).collect()
    });
    assert!(silences.iter().all(|silence| *silence >= Duration::from_secs(1)), "{silences:?}");
}

/// Sessions that begin after the change heed it.
#[test]
fn a_timeout_can_be_set_while_the_filter_serves() {
    let filter = serve(Library::Ours, 7210);
    let mut old = Mta::order(&filter, "timeout 1");
    filter.wait_for_count("timeout 0", 2);
    assert!(Mta::order(&filter, "new").has_ended());
    filter.wait_for("close 2");
    check_log(&filter);
    old.begin_message();
}

#[test]
fn pauses_do_not_add_up() {
    let filter = serve(Library::Ours, 5);
    let mut mta = Mta::order(&filter, "message");
    for _ in 0..6 {
        std::thread::sleep(Duration::from_secs(1));
        mta.command(Kind::Helo, b"again\0");
        assert_eq!(mta.answer(), 'c');
    }
    mta.quit();
}

/// Contract 3, entry 9.
#[test]
fn half_a_frame_ends_a_session() {
    let whole = command(Kind::Mail, b"<a@example.org>\0");
    let filter = serve(Library::Ours, 1);
    let mut mtas: Vec<Mta> = [1, 3, 4, 5, whole.len() - 1]
        .map(|length| {
            let mut mta = Mta::order(&filter, "half");
            mta.send(&whole[..length]);
            mta
        })
        .into();
    assert!(mtas.iter_mut().all(Mta::has_ended));
    filter.wait_for_count("close", mtas.len());
    assert_eq!(filter.count("abort"), 0);
    check_log(&filter);
}

/// A length that is too large is an error as soon as a command follows, and not before.
#[test]
fn a_length_alone_is_no_error() {
    on_both(|library| {
        let filter = serve(library, 7210);
        let mut mta = Mta::order(&filter, "length");
        mta.send(&[0, 1, 0, 1]);
        mta.0.shutdown(Shutdown::Write).unwrap();
        assert!(mta.has_ended());
        filter.wait_for("close 1");
        assert_eq!(filter.log(), [""; 0], "{library:?}");
    });
}

/// Contract 3, entry 9.
#[test]
fn a_byte_now_and_then_does_not_keep_a_session() {
    let filter = serve(Library::Ours, 1);
    let mut mta = Mta::order(&filter, "trickle");
    mta.begin_message();
    let frame = command(Kind::Body, &[b'x'; 60_000]);
    let mut bytes = frame.chunks(1);
    // At this pace the frame would take ten minutes.
    while mta.0.write_all(bytes.next().unwrap()).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(mta.has_ended());
    filter.wait_for("close 1");
    assert_eq!(filter.count("abort 1"), 1);
    check_log(&filter);
}

#[test]
fn zero_wants_whole_frames_and_bears_silence() {
    on_both(|library| {
        let filter = serve(library, 0);
        let mut mta = Mta::order(&filter, "zero");
        std::thread::sleep(Duration::from_millis(300));
        mta.begin_message();
        mta.send(&command(Kind::EndOfHeader, b"")[..3]);
        assert!(mta.has_ended(), "{library:?}");
        filter.wait_for("close 1");
        assert_eq!(filter.count("abort 1"), 1, "{library:?}");
    });
}

#[test]
fn a_negative_number_means_no_limit() {
    on_both(|library| {
        let filter = serve(library, -1);
        let mut mta = Mta::order(&filter, "for ever");
        for byte in command(Kind::Mail, b"<a@b>\0") {
            std::thread::sleep(Duration::from_millis(50));
            mta.send(&[byte]);
        }
        assert_eq!(mta.answer(), 'c', "{library:?}");
    });
}

#[test]
fn an_mta_that_does_not_read_ends_its_own_session_only() {
    on_both(|library| {
        let filter = serve(library, 1);
        let mut deaf = Mta::order(&filter, "flood");
        deaf.begin_message();
        deaf.command(Kind::EndOfHeader, b"");
        assert_eq!(deaf.answer(), 'c');
        deaf.command(Kind::EndOfMessage, b"");
        filter.wait_for("eom 1");
        let mut other = Mta::order(&filter, "other");
        other.begin_message();
        assert_eq!(other.end_message(b"body\r\n"), 'c', "{library:?}");
        other.quit();
        filter.wait_for("replaced 1 -1");
        filter.wait_for("close 1");
        assert_eq!(filter.count("abort"), 0, "{library:?}");
    });
}

/// What the filter has sent fits the socket's buffer but has not been read, so the socket does not count as
/// writable; the session is silent, and ends like any other.
#[test]
fn an_mta_that_has_not_read_yet_is_timed_out_and_closed_like_any_other() {
    for timeout in [1, 7210] {
        for mut filter in serve_in_both_ways(timeout) {
            let mut deaf = Mta::order(&filter, "half-full");
            deaf.begin_message();
            deaf.command(Kind::EndOfHeader, b"");
            assert_eq!(deaf.answer(), 'c');
            deaf.command(Kind::EndOfMessage, b"");
            filter.wait_for("replaced 1 0");
            if timeout > 1 {
                // It is to fall silent first.
                std::thread::sleep(Duration::from_millis(300));
                filter.daemon.signal(libc::SIGTERM);
                assert_eq!(filter.end().last().unwrap(), "main 0");
                assert_eq!(filter.log(), [""; 0]);
            } else {
                filter.wait_for("close 1");
                check_log(&filter);
            }
            assert_eq!(filter.count("close 1"), 1);
        }
    }
}
