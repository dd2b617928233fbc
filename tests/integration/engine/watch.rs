//! Callbacks that take long: LIBMILTER_SLOW_CALLBACK, LIBMILTER_KEEPALIVE.

use super::{Filter, Mta, SERVE, macros, program};
use crate::support::{Library, compile_c};
use milter::protocol::{Kind, MacroStage};
use std::path::Path;
use std::time::{Duration, Instant};

/// It is logged while it runs, once, with the session, who is at the other end, and the message; others are not.
#[test]
fn a_slow_callback_is_logged_while_it_runs() {
    let mut command = Library::Ours.command(program());
    command.env("LIBMILTER_SLOW_CALLBACK", "1").env("LIBMILTER_KEEPALIVE", "yes");
    let mut filter = Filter::start_with(command, &SERVE);
    let mut slow = Mta::greet(&filter);
    assert_eq!(slow.connect_from("client"), 'c');
    slow.send(&macros(MacroStage::Helo, &[(b"i", b"4XyZ\n")]));
    slow.command(Kind::Helo, b"hold\0");
    filter.wait_until("the line", || !filter.log().is_empty());
    assert_eq!(filter.count("released"), 0);
    let line = filter.log().remove(0);
    let number = line.strip_prefix("4 steered: the HELO callback has been running for ").unwrap();
    let (seconds, about) = number.split_once(" s ").unwrap();
    assert!(seconds.parse::<u32>().unwrap() >= 1);
    let peer = std::process::id();
    assert_eq!(about, format!("(session 1, peer process {peer}, queue id 4XyZ\\n)"));

    // It goes on, and is not logged again; another one is.
    let mut other = Mta::greet(&filter);
    assert_eq!(other.connect_from("client"), 'c');
    other.command(Kind::Helo, b"hold\0");
    filter.wait_until("the next line", || filter.log().len() == 2);
    assert!(filter.log()[1].contains("(session 2, peer process "), "{:?}", filter.log());
    assert!(filter.log()[1].ends_with(", no queue id)"), "{:?}", filter.log());
    Mta::order(&filter, "release").quit();
    Mta::order(&filter, "release").quit();
    // No sign of life outside the end of a message.
    assert_eq!((slow.answer(), other.answer()), ('c', 'c'));
    slow.quit();
    other.quit();
    filter.daemon.signal(libc::SIGTERM);
    filter.end();
    assert_eq!(filter.log().len(), 2);
}

/// Between what the filter itself sends, and never behind its answer.
#[test]
fn the_mta_gets_signs_of_life_at_the_end_of_a_message() {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slow-filter-watched");
    compile_c("c-tests/slow-filter.c", &program);
    let start = |keep_alive: &str| {
        let mut command = Library::Ours.command(&program);
        command.env("LIBMILTER_SLOW_CALLBACK", "1").env("LIBMILTER_KEEPALIVE", keep_alive);
        let filter = Filter::start_with(command, &["unix:{dir}/s", "hold"]);
        let mut mta = Mta::greet(&filter);
        assert_eq!(mta.connect_from("client"), 'c');
        mta.command(Kind::Helo, b"client\0");
        filter.wait_for("helo");
        filter.daemon.signal(libc::SIGUSR1);
        assert_eq!(mta.answer(), 'c');
        mta.begin_message();
        mta.command(Kind::EndOfHeader, b"");
        assert_eq!(mta.answer(), 'c');
        mta.command(Kind::EndOfMessage, b"");
        filter.wait_for("eom");
        assert_eq!(mta.hear(), Some(('h', b"X-Slow\0early\0".to_vec())));
        (filter, mta)
    };
    let begun = Instant::now();
    let (idle_filter, mut idle) = start("no");
    let (filter, mut mta) = start("yes");
    for _ in 0..3 {
        assert_eq!(mta.hear(), Some(('p', vec![])));
    }
    assert!(begun.elapsed() >= Duration::from_secs(3), "one in each second");
    let answers = [(&filter, &mut mta), (&idle_filter, &mut idle)].map(|(filter, mta)| {
        filter.daemon.signal(libc::SIGUSR1);
        let mut frames: Vec<_> =
            std::iter::from_fn(|| mta.hear()).take_while(|frame| frame.0 != 'c').collect();
        frames.dedup();
        mta.command(Kind::Quit, b"");
        assert!(mta.has_ended(), "nothing comes behind the answer");
        frames
    });
    let late = ('h', b"X-Slow\0late\0".to_vec());
    assert_eq!(answers[1], std::slice::from_ref(&late));
    assert_eq!(answers[0].last(), Some(&late));
    assert!(answers[0].iter().all(|frame| *frame == late || frame.0 == 'p'), "{:?}", answers[0]);
}
