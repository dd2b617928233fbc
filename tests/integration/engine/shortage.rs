//! Too many open files, no more threads, no more room in the poller (contract 3, entry 7): the listener rests and goes on, those who are served
//! already do not notice. For ours alone: the reference burns a core, or lets connections hang for ever.

use super::stop::wait_until_refused;
use super::{Filter, Mta, SERVE, command, limit_threads, optneg, somebody_is_in};
use crate::support::{Library, wait_until};
use milter::protocol::Kind;
use std::fs;
use std::io::Write;
use std::sync::Barrier;
use std::time::Duration;

#[test]
fn at_the_limit_of_descriptors_the_listener_rests() {
    let filter = Filter::start(Library::Ours, &["register", SERVE[1], "descriptors=32", "main"]);
    let mut served = Mta::order(&filter, "served");
    let crowd: Vec<Mta> = (0..60).map(|_| Mta::connect(&filter)).collect();
    let complaint = "syslog 3 steered: cannot accept a connection: Too many open files (os error 24)";
    filter.wait_for(complaint);

    check_idle(&filter);
    served.begin_message();
    assert_eq!(served.end_message(b"text\r\n"), 'c');
    assert_eq!(filter.log().len(), 1, "it does not complain all the time: {:?}", filter.log());

    drop(crowd);
    Mta::order(&filter, "late").quit();
    served.quit();
    filter.wait_for("close 1");
}

/// Whatever is short, the filter does not try again and again.
#[track_caller]
fn check_idle(filter: &Filter) {
    let before = filter.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let used = filter.cpu_ticks() - before;
    assert!(used < 25, "{used} of about 100 ticks used");
}

/// accept(2) wants a descriptor even if nobody waits.
#[test]
fn a_full_table_of_descriptors_alone_is_no_reason_to_complain() {
    let needed = {
        let filter = Filter::serve(Library::Ours);
        wait_until("the filter serves", || filter.threads() > 2);
        free_descriptor(&filter)
    };
    let limit = format!("descriptors={needed}");
    let filter = Filter::start(Library::Ours, &["register", SERVE[1], &limit, "main"]);
    filter.wait_for_socket();
    wait_until("the filter serves", || filter.threads() > 2);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((filter.log(), free_descriptor(&filter)), (vec![], needed));
    // Now somebody has to wait.
    let _waiting = Mta::connect(&filter);
    filter.wait_for("syslog 3 steered: cannot accept a connection: Too many open files (os error 24)");
}

/// The lowest number that no descriptor of the filter has. (A limit is one of numbers, not of how many there are.)
fn free_descriptor(filter: &Filter) -> usize {
    let dir = format!("/proc/{}/fd", filter.daemon.pid());
    let is_open = |number: &usize| fs::symlink_metadata(format!("{dir}/{number}")).is_ok();
    (0..).find(|number| !is_open(number)).unwrap()
}

/// Takes all threads that there are: the sessions whose callbacks hold them, and one for which there was none.
fn take_all_threads(filter: &Filter) -> (Vec<Mta>, Mta) {
    let mut holders = Vec::new();
    loop {
        let mut mta = Mta::greet(filter);
        assert_eq!(mta.connect_from("holder"), 'c');
        mta.command(Kind::Helo, b"hold\0");
        // Whoever takes up the last one serves nobody else.
        let all = holders.len() + 1;
        filter.wait_until("it is held, or all others are", || {
            held(filter) == all || !somebody_is_in(filter, libc::SYS_epoll_wait)
        });
        holders.push(mta);
        if !somebody_is_in(filter, libc::SYS_epoll_wait) {
            return (holders, Mta::connect(filter));
        }
        assert!(all < 50, "there are always more threads");
    }
}

/// Without threads it is not refused: it is served as soon as one comes free.
#[test]
fn without_another_thread_a_connection_waits_its_turn() {
    for threads in ["", "session"] {
        let mut command = Library::Ours.command(super::program());
        command.env("LIBMILTER_THREADS", threads);
        let filter = Filter::start_with(command, &["register", "threads-back-on-usr2", SERVE[1], "main"]);
        let mut served = Mta::order(&filter, "threads-short");
        if threads == "session" {
            served.quit();
            served = Mta::greet(&filter);
            assert_eq!(served.connect_from("served"), 'c');
        }
        let (mut holders, mut waiting) = take_all_threads(&filter);
        waiting.send(&optneg());
        check_idle(&filter);
        assert_eq!(filter.log(), [""; 0]);
        filter.daemon.signal(libc::SIGUSR2);
        assert_eq!(waiting.answer(), 'O', "{threads}");
        assert_eq!(waiting.helo("late"), 'c');
        for _ in &holders {
            waiting.command(Kind::Helo, b"release\0");
            assert_eq!(waiting.answer(), 'c');
        }
        assert!(holders.iter_mut().all(|holder| holder.answer() == 'c'));
        served.quit();
    }
}

/// Nobody can take up what the poller does not take either.
#[test]
fn a_connection_that_cannot_even_wait_is_refused() {
    let filter = Filter::serve(Library::Ours);
    let mut served = Mta::order(&filter, "threads-short");
    served.command(Kind::Helo, b"poller-short\0");
    assert_eq!(served.answer(), 'c');
    // The threads that there are have waited long enough to be gone, but one of each kind.
    filter.wait_until("a connection is refused", || Mta::connect(&filter).is_refused());
    filter.wait_for("syslog 3 steered: no thread for another connection, refused");
    assert!(Mta::connect(&filter).is_refused(), "the next one too");
    let refusals = |line: &String| line.contains("no thread");
    assert_eq!(filter.log().iter().filter(|line| refusals(line)).count(), 1, "{:?}", filter.log());
    served.begin_message();
    assert_eq!(served.end_message(b"text\r\n"), 'c', "who is served already does not notice");
    served.command(Kind::Helo, b"threads-back\0");
    assert_eq!(served.answer(), 'c');
    Mta::order(&filter, "late").quit();
}

/// All come at once, and `limits` are steps that limit what the system gives.
fn sixty_sessions(limits: &[String]) {
    const SESSIONS: usize = 60;
    let filter = Filter::start_limited(Library::Ours, limits);
    filter.wait_for_socket();
    let all_are_open = Barrier::new(SESSIONS);
    std::thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                // If one is refused, the others are not to wait for it.
                let mta = std::panic::catch_unwind(|| {
                    // At once, so that a thread that has begun with it is held up by the callback.
                    let mut mta = Mta::connect(&filter);
                    let commands =
                        [optneg(), command(Kind::Connect, b"client\0U"), command(Kind::Helo, b"sleep 300\0")];
                    mta.send(&commands.concat());
                    assert_eq!([mta.answer(), mta.answer(), mta.answer()], ['O', 'c', 'c']);
                    mta
                });
                all_are_open.wait();
                let mut mta = mta.unwrap();
                mta.begin_message();
                assert_eq!(mta.end_message(b"text\r\n"), 'c');
                mta.quit();
            });
        }
    });
    filter.wait_for_count("close", SESSIONS);
    assert_eq!((filter.count("eom"), filter.log()), (SESSIONS, vec![]), "{limits:?}");
}

#[test]
fn sixty_sessions_are_served_by_sixteen_threads() {
    sixty_sessions(&limit_threads(16));
}

/// A stack alone takes 8 MiB of it.
#[test]
fn sixty_sessions_are_served_in_256_megabytes() {
    sixty_sessions(&["megabytes=256".to_owned()]);
}

impl Mta {
    /// Whether the filter refuses it, perhaps before it has said a word.
    fn is_refused(&mut self) -> bool {
        self.0.write_all(&optneg()).is_err() || self.has_ended()
    }
}

/// A filter without threads for all the sessions that are ready: each of these has been sent "hold", and there are
/// more of them than threads. SIGUSR2 ends the shortage.
fn serve_with_all_threads_held() -> (Filter, Vec<Mta>) {
    let filter = Filter::start(Library::Ours, &["register", "threads-back-on-usr2", SERVE[1], "main"]);
    let mut mtas: Vec<Mta> = (0..30).map(|_| Mta::order(&filter, "silent")).collect();
    Mta::order(&filter, "threads-short").quit();
    wait_until("a handful of threads", || filter.threads() < 10);
    for mta in &mut mtas {
        mta.command(Kind::Helo, b"hold\0");
    }
    filter.wait_until("all threads are held", || {
        held(&filter) > 0 && !somebody_is_in(&filter, libc::SYS_epoll_wait)
    });
    assert!(held(&filter) < mtas.len());
    (filter, mtas)
}

/// How many sessions have begun to be held.
fn held(filter: &Filter) -> usize {
    filter.output().iter().filter(|line| line.ends_with(" hold")).count()
}

#[test]
fn as_soon_as_there_are_threads_again_all_sessions_go_on() {
    let (filter, mut mtas) = serve_with_all_threads_held();
    filter.daemon.signal(libc::SIGUSR2);
    filter.wait_until("all are held", || held(&filter) == mtas.len());
    let mut late = Mta::order(&filter, "late");
    for _ in &mtas {
        late.command(Kind::Helo, b"release\0");
        assert_eq!(late.answer(), 'c');
    }
    assert!(mtas.iter_mut().all(|mta| mta.answer() == 'c'));
}

/// Sessions that no thread had taken up end in order then; those that are held do not.
#[test]
fn a_shortage_of_threads_may_end_after_a_stop() {
    let (mut filter, mtas) = serve_with_all_threads_held();
    filter.daemon.signal(libc::SIGTERM);
    wait_until_refused(&filter);
    filter.daemon.signal(libc::SIGUSR2);
    let output = filter.end();
    assert_eq!(output.last().unwrap(), "main 0");
    for session in 1..=mtas.len() {
        let is_held = output.contains(&format!("helo {session} hold"));
        assert_eq!(filter.count(&format!("close {session}")), usize::from(!is_held), "{output:#?}");
    }
    let left_behind = format!("3 steered: {} session", held(&filter));
    assert!(filter.log()[0].starts_with(&left_behind), "{output:#?}");
}

/// How many sessions the filter's poller knows.
fn parked(filter: &Filter) -> usize {
    let proc = format!("/proc/{}", filter.daemon.pid());
    let is_poller = |fd: &fs::DirEntry| {
        // A connection may be closed meanwhile.
        fs::read_link(fd.path()).is_ok_and(|file| file.to_str() == Some("anon_inode:[eventpoll]"))
    };
    let mut files = fs::read_dir(format!("{proc}/fd")).unwrap().map(Result::unwrap);
    let poller = files.find(is_poller).unwrap().file_name().into_string().unwrap();
    let info = fs::read_to_string(format!("{proc}/fdinfo/{poller}")).unwrap();
    // The alarm that ends all watchers is there, too.
    info.lines().filter(|line| line.starts_with("tfd:")).count() - 1
}

const UNWATCHED: &str = "3 steered: a silent session keeps its thread: Cannot allocate memory (os error 12)";

#[test]
fn a_session_that_the_poller_does_not_take_keeps_its_thread() {
    let filter = Filter::serve(Library::Ours);
    let mut known = Mta::order(&filter, "known");
    filter.wait_until("the poller knows it", || parked(&filter) == 1);
    let mut fresh = Mta::order(&filter, "poller-short");
    filter.wait_for("not added");
    known.command(Kind::Helo, b"again\0");
    assert_eq!(known.answer(), 'c');
    filter.wait_for("not rearmed");
    check_idle(&filter);
    for mta in [&mut known, &mut fresh] {
        mta.begin_message();
        assert_eq!(mta.end_message(b"text\r\n"), 'c');
    }
    assert_eq!(filter.log(), [UNWATCHED], "it does not complain all the time");

    fresh.command(Kind::Helo, b"poller-back\0");
    assert_eq!(fresh.answer(), 'c');
    filter.wait_until("the poller knows both", || parked(&filter) == 2);
    for mut mta in [known, fresh] {
        mta.begin_message();
        assert_eq!(mta.end_message(b"text\r\n"), 'c');
        mta.quit();
    }
    filter.wait_for_count("close", 2);
    assert_eq!(parked(&filter), 0);
}

#[test]
fn a_session_that_the_poller_does_not_take_times_out_like_any_other() {
    let filter = Filter::start(Library::Ours, &["register", "timeout=1", SERVE[1], "main"]);
    assert!(Mta::order(&filter, "poller-short").has_ended());
    filter.wait_for("close 1");
    assert_eq!(filter.log(), [UNWATCHED, "3 steered: timed out waiting for the MTA, session ended"]);
}

/// There are so many of them that it is crowded.
#[test]
fn sessions_that_the_poller_does_not_take_may_finish_their_messages() {
    const SESSIONS: usize = 40;
    let mut filter = Filter::serve(Library::Ours);
    let mut mtas: Vec<Mta> = (0..SESSIONS).map(|_| Mta::order(&filter, "poller-short")).collect();
    mtas.iter_mut().for_each(Mta::begin_message);
    filter.daemon.signal(libc::SIGTERM);
    wait_until_refused(&filter);
    // Nor while it stops.
    check_idle(&filter);
    assert_eq!(mtas[0].end_message(b"text\r\n"), 'c');
    filter.daemon.signal(libc::SIGINT);
    assert!(mtas.iter_mut().all(Mta::has_ended));
    assert_eq!(filter.end().last().unwrap(), "main 0");
    assert_eq!(filter.count("abort"), SESSIONS - 1);
}
