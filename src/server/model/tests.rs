//! What must hold in every order of events: no wake-up is lost, nobody is served twice at once, everybody is closed once,
//! nothing runs after the end.

use super::sync::ThreadGroup;
use super::world::{Server, World, acceptors, pool};
use crate::server::live::Live;
use shuttle::thread;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many orders each test tries.
fn runs() -> usize {
    std::env::var("MODEL_RUNS").map_or(300, |runs| runs.parse().expect("MODEL_RUNS is a number"))
}

fn check(test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    let random = Arc::clone(&test);
    shuttle::check_random(move || random(), runs());
    shuttle::check_pct(move || test(), runs(), 4);
}

/// What a test varies.
#[derive(Clone, Copy, Default)]
struct Plan {
    sessions: usize,
    commands: usize,
    first_waits_for: usize,
    refusals: usize,
    stops: bool,
    expires: bool,
    threads_are_scarce: bool,
}

/// Starts a server, lets MTAs talk, waits until all sessions have ended, ends the server.
fn play(plan: Plan) {
    let world = World::new(plan.sessions, plan.first_waits_for, plan.refusals);
    let mut threads = ThreadGroup::default();
    threads.scarce = plan.threads_are_scarce;
    let threads = Arc::new(threads);
    let server = Arc::new(Server::new(&world));
    let pool = pool(&server, &threads);
    // As the supervisor does.
    while pool.restock().is_err() {}
    let mtas: Vec<_> = (0..plan.sessions)
        .map(|number| {
            let (world, server) = (Arc::clone(&world), Arc::clone(&server));
            thread::spawn(move || {
                server.begin(number);
                // Who hangs up ends the session anyway.
                world.talk(number, plan.commands, !plan.stops);
            })
        })
        .collect();
    if plan.expires {
        server.parking.expire(Instant::now() + Duration::from_secs(3600));
    }
    if plan.stops {
        world.stop();
        server.parking.release_ending();
    }
    if plan.threads_are_scarce {
        let mut live = world.live.lock();
        while *live > 0 {
            if std::mem::take(&mut *server.missing.lock()) {
                drop(live);
                while pool.restock().is_err() {
                    thread::yield_now();
                }
                live = world.live.lock();
            } else {
                world.ended.wait_until(&mut live, Instant::now());
            }
        }
    } else {
        world.wait_for_ends();
    }
    pool.close();
    threads.wait(Instant::now());
    *world.is_over.lock() = true;
    mtas.into_iter().for_each(|mta| mta.join().unwrap());
    assert!(world.wires.iter().all(|wire| wire.lock().closes == 1), "closed once each");
}

#[test]
fn every_command_is_answered() {
    check(|| play(Plan { sessions: 3, commands: 2, ..Plan::default() }));
}

#[test]
fn nobody_waits_behind_a_callback_that_is_stuck() {
    check(|| play(Plan { sessions: 3, commands: 1, first_waits_for: 1, ..Plan::default() }));
}

#[test]
fn a_stop_at_any_moment_ends_every_session_once() {
    check(|| play(Plan { sessions: 3, commands: 2, stops: true, ..Plan::default() }));
}

#[test]
fn a_deadline_at_any_moment_ends_a_session_once() {
    check(|| play(Plan { sessions: 3, commands: 2, expires: true, ..Plan::default() }));
}

#[test]
fn a_poller_that_refuses_now_and_then_loses_nobody() {
    check(|| play(Plan { sessions: 2, commands: 2, refusals: 2, ..Plan::default() }));
}

#[test]
fn whom_the_poller_never_takes_expires() {
    check(|| {
        let world = World::new(1, 0, usize::MAX);
        let server = Server::new(&world);
        let acceptor = thread::spawn(move || server.begin(0));
        thread::yield_now();
        acceptor.join().unwrap();
        assert_eq!(world.wires[0].lock().closes, 1);
    });
}

#[test]
fn nothing_runs_once_a_stop_has_seen_that_nobody_is_left() {
    check(|| {
        let (live, world) = (Arc::new(Live::default()), World::new(0, 0, 0));
        let acceptor = thread::spawn({
            let (live, world) = (Arc::clone(&live), Arc::clone(&world));
            move || {
                if live.admit(|| world.is_stopping()) {
                    assert!(!*world.is_over.lock(), "a callback after the end");
                }
                live.leave();
            }
        });
        world.stop();
        while live.count() > 0 {
            thread::yield_now();
        }
        *world.is_over.lock() = true;
        acceptor.join().unwrap();
    });
}

#[test]
fn threads_that_are_missing_come_later() {
    check(|| play(Plan { sessions: 2, commands: 2, threads_are_scarce: true, ..Plan::default() }));
}

/// The first session's callback lasts until all others have ended, and there are three threads: one has to wait for
/// connections, one is stuck.
#[test]
fn whoever_finds_no_thread_waits_its_turn() {
    const SESSIONS: usize = 3;
    check(|| {
        let world = World::new(SESSIONS, SESSIONS - 1, 0);
        let mut threads = ThreadGroup::default();
        threads.limit = 3;
        let threads = Arc::new(threads);
        let server = Arc::new(Server::new(&world));
        let workers = pool(&server, &threads);
        let acceptors = acceptors(&server, &workers, &threads);
        workers.restock().and_then(|()| acceptors.restock()).unwrap();
        let mtas: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    world.connect(number);
                    world.talk(number, 1, true);
                })
            })
            .collect();
        // As the supervisor does.
        let mut threads_wanted = false;
        let mut live = world.live.lock();
        while *live > 0 {
            threads_wanted |= std::mem::take(&mut *server.missing.lock());
            if threads_wanted {
                drop(live);
                threads_wanted = workers.restock().and_then(|()| acceptors.restock()).is_err();
                thread::yield_now();
                live = world.live.lock();
            } else {
                world.ended.wait_until(&mut live, Instant::now());
            }
        }
        drop(live);
        acceptors.close();
        workers.close();
        threads.wait(Instant::now());
        *world.is_over.lock() = true;
        mtas.into_iter().for_each(|mta| mta.join().unwrap());
        assert!(world.wires.iter().all(|wire| wire.lock().closes == 1), "closed once each");
    });
}
