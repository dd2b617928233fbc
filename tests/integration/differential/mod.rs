//! Seeded random MTA sessions, played to the reference and to ours: every byte that comes back, the moment of
//! closing and everything that the filter sees must be the same, but for the entries of `docs/compatibility.md`,
//! which are predicted to the byte (see `model.rs`).
//!
//! `LIBMILTER_DIFF_SESSIONS` sets how many, `LIBMILTER_DIFF_SEED` where to begin; a failure prints both, so
//! that it can be played alone.

mod compare;
mod deviation;
mod generate;
mod model;
mod mutants;
mod plan;
mod play;
mod script;
mod session;

use crate::support::{Library, compile_c, repository, temp_dir};
use compare::{Pair, Tally, play_many};
use deviation::Deviation;
use plan::Plan;
use play::{Candidate, Probe};
use script::{Call, Callback, Op, Rule, SHAPES, Script};
use session::{Session, Step, frame};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Long enough for our library to take the thread from a session that is silent.
const SILENCE: Duration = Duration::from_millis(150);

fn probe_program(dir: &Path) -> PathBuf {
    let program = dir.join("probe");
    compile_c("tests/integration/differential/probe.c", &program);
    program
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Plays many sessions to a library, or fails with a report.
#[track_caller]
fn agree(library: Library, environment: &[(&str, &str)], usual_count: u64) -> Tally {
    let (seed, count) = (setting("LIBMILTER_DIFF_SEED", 1), setting("LIBMILTER_DIFF_SESSIONS", usual_count));
    let dir = temp_dir();
    let program = &probe_program(dir.path());
    let candidate = Candidate { environment, ..Candidate::new(program, library.dir()) };
    let start = Instant::now();
    match play_many(&candidate, seed, count) {
        Ok(tally) => {
            let rate = tally.sessions as f64 / start.elapsed().as_secs_f64();
            println!("{} sessions from seed {seed}, no difference, {rate:.0} sessions/s", tally.sessions);
            tally
        }
        Err(report) => panic!("the libraries differ; {report}"),
    }
}

/// The reference behaves the same each time: what the comparison finds is not chance.
#[test]
fn the_reference_agrees_with_itself() {
    agree(Library::Reference, &[], 500);
}

/// Ours behaves as the reference, as far as it should, and all that should differ does occur.
#[test]
fn sessions_agree() {
    let tally = agree(Library::Ours, &[], 6000);
    for deviation in Deviation::ALL {
        let times = tally.met.get(&deviation).copied().unwrap_or(0);
        println!("{times:8} times {}", deviation.name());
        assert!(times > 0 || tally.sessions < 6000, "no session shows {deviation:?}");
    }
}

/// So it does when each session keeps a thread of its own.
#[test]
fn sessions_with_threads_of_their_own_agree() {
    agree(Library::Ours, &[("LIBMILTER_THREADS", "session")], 1000);
}

/// So it does when sessions are silent for so long that they lose their thread.
#[test]
fn silent_sessions_agree() {
    let dir = temp_dir();
    let program = &probe_program(dir.path());
    let candidate = Candidate::new(program, Library::Ours.dir());
    std::thread::scope(|scope| {
        for (shape, filter) in SHAPES.iter().enumerate() {
            let candidate = &candidate;
            scope.spawn(move || {
                let mut sessions = generate::group_of(shape as u64, shape, play::SLOTS);
                for session in &mut sessions {
                    session.steps.truncate(15);
                }
                if Pair::start(candidate, shape).compare(&sessions, SILENCE).is_err() {
                    panic!("sessions with silences differ, filter: {}", filter.name);
                }
            });
        }
    });
}

/// So it does under valgrind, which finds nothing wrong with what sessions of all kinds do to memory.
#[test]
fn sessions_agree_under_memcheck() {
    let dir = temp_dir();
    let program = &probe_program(dir.path());
    let candidate = Candidate { memcheck: true, ..Candidate::new(program, Library::Ours.dir()) };
    std::thread::scope(|scope| {
        for shape in [0, 4, 8] {
            let candidate = &candidate;
            scope.spawn(move || {
                let pair = Pair::start(candidate, shape);
                for seed in 0..40 {
                    if pair.compare(&generate::group_of(seed, shape, 2), Duration::ZERO).is_err() {
                        panic!("sessions differ, seed {seed}, filter: {}", SHAPES[shape].name);
                    }
                }
                assert_eq!(pair.ours.findings(), "");
            });
        }
    });
}

/// Sessions that decline different steps don't disturb one another: `steps-per-session`. The reference needs a
/// process for each choice; ours plays them all in one.
#[test]
fn declined_steps_belong_to_the_session() {
    let dir = temp_dir();
    let program = probe_program(dir.path());
    let start = |name: String, library: Library, shape: usize| {
        Probe::start(&Candidate::new(&program, library.dir()), &dir.path().join(name), &SHAPES[shape])
    };
    let ours = start("ours".into(), Library::Ours, script::CHOOSY[0]);
    let references =
        script::CHOOSY.map(|shape| start(format!("reference{shape}"), Library::Reference, shape));
    for seed in 0..60 {
        let sessions = script::CHOOSY.map(|shape| generate::group_of(seed, shape, 1).remove(0));
        let plans = sessions.each_ref().map(Plan::of);
        let mine = ours.play(&plans.each_ref().map(Plan::ours), Duration::ZERO);
        for (number, mine) in mine.iter().enumerate() {
            let theirs = references[number].play(&[plans[number].reference()], Duration::ZERO).remove(0);
            assert_eq!(theirs, *mine, "seed {seed}\n{}", sessions[number]);
        }
    }
}

/// Macros before all commands reach the filter however late the first command comes: `macros-first`. The reference has them
/// if all comes at once, and not for sure otherwise.
#[test]
fn macros_before_all_commands_do_not_depend_on_the_mtas_speed() {
    let dir = temp_dir();
    let program = &probe_program(dir.path());
    let shape = SHAPES.iter().position(|shape| shape.name == "only eom and close, no envelope").unwrap();
    let pair = Pair::start(&Candidate::new(program, Library::Ours.dir()), shape);
    let ask = Op { call: Call::GetSymval, number: 0, strings: vec![Some(b"i".to_vec())] };
    let rules = BTreeMap::from([((Callback::Close, 0), Rule { status: 0, ops: vec![ask] })]);
    let frames = [frame(b'D', b"Ci\0value\0"), frame(b'E', b""), frame(b'Q', b"")];
    let session = |steps| Session { shape, script: Script { rules: rules.clone() }, steps, tail: Vec::new() };
    let at_once = session(vec![Step { frames: frames.to_vec(), cuts: Vec::new() }]);
    let slowly = session(frames.map(|frame| Step { frames: vec![frame], cuts: Vec::new() }).to_vec());
    let (at_once, slowly) = (Plan::of(&at_once), Plan::of(&slowly));
    let ours = pair.ours.play(&[at_once.ours()], Duration::ZERO);
    assert!(ours[0].log.contains("\"value\""), "{}", ours[0].log);
    assert_eq!(ours, pair.ours.play(&[slowly.ours()], SILENCE));
    assert_eq!(ours, pair.reference.play(&[at_once.reference()], Duration::ZERO));
}

/// What is listed as a difference is one: the reference, given the very session, does otherwise.
#[test]
fn each_predicted_difference_is_real() {
    let dir = temp_dir();
    let program = &probe_program(dir.path());
    let candidate = Candidate::new(program, Library::Ours.dir());
    let mut wanted: BTreeSet<_> = Deviation::ALL.into_iter().filter(|one| one.is_safe_to_show()).collect();
    let mut pairs: [Option<Pair>; SHAPES.len()] = Default::default();
    for seed in 0..200_000 {
        let Some(session) = generate::group(seed).into_iter().next() else { continue };
        let plan = Plan::of(&session);
        let &[deviation] = &plan.met[..] else { continue };
        if wanted.contains(&deviation) {
            let shape = session.shape;
            let pair = pairs[shape].get_or_insert_with(|| Pair::start(&candidate, shape));
            // All at once and then the end, because the reference may not answer.
            let blind = plan.ours().without_expectations();
            let reference = pair.reference.play(&[&blind], Duration::ZERO);
            if reference != pair.ours.play(&[&blind], Duration::ZERO) {
                wanted.remove(&deviation);
            }
        }
        if wanted.is_empty() {
            return;
        }
    }
    panic!("these are listed as differences, but none was seen: {wanted:?}");
}

/// Each difference that a session can show is an entry of the document.
#[test]
fn every_difference_is_documented() {
    let document = std::fs::read_to_string(repository().join("docs/compatibility.md")).unwrap();
    for name in Deviation::ALL.map(Deviation::name).into_iter().chain(["steps-per-session"]) {
        let heading = |line: &str| line.starts_with("#### ") && line.contains(&format!("`{name}`"));
        assert!(document.lines().any(heading), "docs/compatibility.md has no entry `{name}`");
    }
}
