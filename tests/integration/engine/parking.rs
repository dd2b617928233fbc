//! Sessions whose MTA is silent for a while give their thread back and go on later, perhaps in another one: nobody
//! may notice. And the setting that keeps one thread for each session.

use super::{Filter, Mta, SERVE, command, macros, on_both};
use crate::support::{Library, allow_descriptors, wait_until};
use milter::protocol::{Kind, MacroStage};
use std::time::Duration;

/// Longer than a thread waits for the next command.
const PAUSE: Duration = Duration::from_millis(150);

#[test]
fn a_pause_before_every_command_changes_nothing() {
    on_both(|library| {
        let filter = Filter::serve(library);
        let mut mtas: Vec<Mta> = (0..8).map(|_| Mta::greet(&filter)).collect();
        let dialogue: [(Kind, &[u8]); 10] = [
            (Kind::Connect, b"client\0U"),
            (Kind::Helo, b"macro j\0"),
            (Kind::Unknown, b"NOSUCH\0"),
            (Kind::Mail, b"<a@b>\0"),
            (Kind::Rcpt, b"<c@d>\0"),
            (Kind::Data, b""),
            (Kind::Header, b"Subject\0test\0"),
            (Kind::EndOfHeader, b""),
            (Kind::Body, b"text\r\n"),
            (Kind::EndOfMessage, b""),
        ];
        for (kind, payload) in dialogue {
            std::thread::sleep(PAUSE);
            for mta in &mut mtas {
                let mut bytes = match kind {
                    Kind::Connect => macros(MacroStage::Connect, &[(b"j", b"host")]),
                    Kind::Mail => macros(MacroStage::Mail, &[(b"i", b"queue-id")]),
                    _ => vec![],
                };
                if !bytes.is_empty() {
                    // The macros come first, and then a pause.
                    mta.send(&bytes);
                    bytes.clear();
                }
            }
            if matches!(kind, Kind::Connect | Kind::Mail) {
                std::thread::sleep(PAUSE);
            }
            for mta in &mut mtas {
                mta.send(&command(kind, payload));
                assert_eq!(mta.answer(), 'c', "{library:?}, {kind:?}");
            }
        }
        for session in 1..=mtas.len() {
            assert_eq!(filter.count(&format!("macro {session} j=host")), 1, "{library:?}");
            assert_eq!(filter.count(&format!("eom {session} j=host i=queue-id")), 1, "{library:?}");
        }
        mtas.into_iter().for_each(Mta::quit);
        filter.wait_for_count("close", 8);
        assert_eq!(filter.count("abort"), 0);
    });
}

/// More connections than select(2) can name (contract 3, entry 8), on a handful of threads.
#[test]
fn thousands_of_silent_sessions_need_a_handful_of_threads() {
    const SESSIONS: usize = 2_000;
    allow_descriptors(SESSIONS + 200);
    let filter = Filter::start(Library::Ours, &["register", SERVE[1], "main"]);
    // By then all descriptors are open that are not for sessions.
    wait_until("the filter serves", || filter.threads() > 2);
    let files = filter.open_files();
    let mut mtas: Vec<Mta> = (0..SESSIONS).map(|_| Mta::order(&filter, "silent")).collect();
    wait_until("a handful of threads", || filter.threads() <= 8);
    assert!(filter.open_files() > files + SESSIONS - 1);
    for mta in &mut mtas {
        mta.begin_message();
        assert_eq!(mta.end_message(b"text\r\n"), 'c');
    }
    wait_until("a handful of threads again", || filter.threads() <= 8);
    mtas.into_iter().for_each(Mta::quit);
    filter.wait_for_count("close", SESSIONS);
    wait_until("all descriptors are closed", || filter.open_files() == files);
    assert_eq!(filter.log(), [""; 0]);
}

/// Contract 3, entry 21: all callbacks run at once, those of silent sessions as well as those of new ones.
#[test]
fn sessions_that_become_ready_together_run_together() {
    const EACH: usize = 20;
    let filter = Filter::serve(Library::Ours);
    let mut mtas: Vec<Mta> = (0..EACH).map(|_| Mta::order(&filter, "silent")).collect();
    std::thread::sleep(PAUSE);
    mtas.extend((0..EACH).map(|_| {
        let mut mta = Mta::greet(&filter);
        assert_eq!(mta.connect_from("new"), 'c');
        mta
    }));
    hold_all(&filter, &mut mtas);
    let mut late = Mta::greet(&filter);
    assert_eq!(late.connect_from("late"), 'c');
    release_all(&mut late, &mut mtas);
}

/// Lets all sessions run a callback that waits for [`release_all`], and waits until all do.
#[track_caller]
fn hold_all(filter: &Filter, mtas: &mut [Mta]) {
    let held = || filter.output().iter().filter(|line| line.ends_with(" hold")).count();
    let all = held() + mtas.len();
    for mta in mtas {
        mta.command(Kind::Helo, b"hold\0");
    }
    filter.wait_until("all are held", || held() == all);
}

/// Lets the callbacks of all sessions end, by the means of another session.
#[track_caller]
fn release_all(other: &mut Mta, mtas: &mut [Mta]) {
    for _ in &*mtas {
        other.command(Kind::Helo, b"release\0");
        assert_eq!(other.answer(), 'c');
    }
    assert!(mtas.iter_mut().all(|mta| mta.answer() == 'c'));
}

/// A thread that calls another one back may be held up right after that, while the other one is already at work:
/// it once lost count of who was waiting then, and ready sessions waited for ever.
#[test]
fn a_slow_caller_does_not_lose_count_of_those_whom_it_calls_back() {
    let filter = Filter::start(Library::Ours, &["slow-wakers", SERVE[0], SERVE[1], SERVE[2]]);
    let mut other = Mta::order(&filter, "other");
    let mut mtas: Vec<Mta> = (0..20).map(|_| Mta::order(&filter, "silent")).collect();
    // The first round starts threads, which the second round calls back.
    for _ in 0..2 {
        hold_all(&filter, &mut mtas);
        release_all(&mut other, &mut mtas);
    }
}

#[test]
fn a_setting_keeps_one_thread_for_each_session() {
    let mut command = Library::Ours.command(super::program());
    command.env("LIBMILTER_THREADS", "session");
    let mut filter = Filter::start_with(command, &SERVE);
    let mut mtas: Vec<Mta> = (0..4).map(|_| Mta::order(&filter, "thread")).collect();
    for round in 2..=4 {
        std::thread::sleep(PAUSE);
        for mta in &mut mtas {
            mta.command(Kind::Helo, b"thread\0");
            assert_eq!(mta.answer(), 'c');
        }
        filter.wait_for_count("thread", round * mtas.len());
    }
    let output = filter.output();
    let mut threads: Vec<&str> = output.iter().filter_map(|line| line.strip_prefix("thread ")).collect();
    threads.sort_unstable();
    threads.dedup();
    assert_eq!(threads.len(), mtas.len(), "{threads:?}");
    threads.sort_unstable_by_key(|line| line.split(' ').nth(1).unwrap().to_owned());
    threads.dedup_by_key(|line| line.split(' ').nth(1).unwrap().to_owned());
    assert_eq!(threads.len(), mtas.len(), "{threads:?}");

    // It stops, times out and so on like the others.
    mtas[0].begin_message();
    filter.daemon.signal(libc::SIGTERM);
    assert!(mtas[1..].iter_mut().all(Mta::has_ended));
    assert_eq!(mtas[0].end_message(b"text\r\n"), 'c');
    assert!(mtas[0].has_ended());
    assert_eq!(filter.end().last().unwrap(), "main 0");
    assert_eq!((filter.count("close"), filter.count("abort")), (4, 0));
}
