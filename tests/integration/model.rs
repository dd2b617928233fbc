//! Races, put into a copy of `src/` one at a time: the model checker of `src/server/model` must find each of them. The first
//! three were in the library once, and are named by the commits that removed them.

use crate::workshop::{Mutant, Workshop};

const RACES: [(Mutant, &str); 9] = [
    (
        Mutant {
            name: "1314e66: a thread counts as waiting only after it was called",
            file: "src/server/pool.rs",
            good: "        state.coming += 1;
        if state.spares > 0 {
            state.spares -= 1;
            state.calls += 1;
            self.spare.notify_one();
            return Ok(());
        }
",
            bad: "        if state.spares > 0 {
            state.spares -= 1;
            state.calls += 1;
            self.spare.notify_one();
            MutexGuard::unlocked(state, || ());
            state.coming = state.coming.wrapping_add(1);
            return Ok(());
        }
        state.coming += 1;
",
        },
        "every_command_is_answered",
    ),
    (
        Mutant {
            name: "303a81a: a connection is counted after looking for a stop",
            file: "src/server/live.rs",
            good: "        self.0.fetch_add(1, Ordering::SeqCst);
        !has_stopped()",
            bad: "        let is_admitted = !has_stopped();
        self.0.fetch_add(1, Ordering::SeqCst);
        is_admitted",
        },
        "nothing_runs_once_a_stop_has_seen_that_nobody_is_left",
    ),
    (
        Mutant {
            name: "468c515: a session that the poller refuses begins its silence anew",
            file: "src/server/parking.rs",
            good: "if session.wait(until) {",
            bad: "if session.wait(until) || until <= deadline {",
        },
        "whom_the_poller_never_takes_expires",
    ),
    (
        Mutant {
            name: "a session that speaks while it is away is forgotten",
            file: "src/server/parking.rs",
            good: "None => table.slots[index].has_spoken = true,",
            bad: "None => {}",
        },
        "every_command_is_answered",
    ),
    (
        Mutant {
            name: "nobody is told that the MTA has hung up",
            file: "src/server/parking.rs",
            good: "found.push_back((session, Cause::HungUp))",
            bad: "found.push_back((session, Cause::Ready))",
        },
        "every_command_is_answered",
    ),
    (
        Mutant {
            name: "whoever the poller has refused does not look for the end",
            file: "src/server/parking.rs",
            good: "// Whether it has hung up, nobody has told.
                return Err((session, Cause::HungUp));",
            bad: "return Err((session, Cause::Ready));",
        },
        "a_poller_that_refuses_now_and_then_loses_nobody",
    ),
    (
        Mutant {
            name: "a session is parked without looking for a stop",
            file: "src/server/parking.rs",
            good: "if session.must_end() {",
            bad: "if false {",
        },
        "a_stop_at_any_moment_ends_every_session_once",
    ),
    (
        Mutant {
            name: "nobody looks after short work",
            file: "src/server/pool.rs",
            good: "Effort::Short => self.ensure_monitor(state),",
            bad: "Effort::Short => Ok(()),",
        },
        "nobody_waits_behind_a_callback_that_is_stuck",
    ),
    (
        Mutant {
            name: "the last acceptor helps the workers",
            file: "src/server/pool.rs",
            good: "} else if state.waiting > 0 && self.job.is_needed_elsewhere() {",
            bad: "} else if self.job.is_needed_elsewhere() {",
        },
        "whoever_finds_no_thread_waits_its_turn",
    ),
];

#[test]
fn every_race_is_found() {
    let workshop = Workshop::new("races");
    for (race, test) in RACES {
        let output = workshop.with(&race, || {
            let mut cargo = workshop.cargo("test");
            cargo.args(["--lib", "--features", "model", &format!("server::model::tests::{test}")]);
            cargo.env("MODEL_RUNS", "3000").env("RUST_BACKTRACE", "0").output().unwrap()
        });
        let (printed, complaints) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            printed.contains("test result: FAILED. 0 passed; 1 failed"),
            "not found: {}
{printed}{complaints}",
            race.name
        );
    }
}
