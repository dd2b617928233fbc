//! Seeded random MTA sessions, played to the reference and to ours: every byte that comes back, the moment of
//! closing and everything that the filter sees must be the same, but for the deviations, which are predicted
//! to the byte (see `model.rs`).
//!
//! `LIBMILTER_DIFF_SESSIONS` sets how many, `LIBMILTER_DIFF_SEED` where to begin; a failure prints both, so
//! that it can be played alone.

mod deviation;
mod generate;
mod model;
mod plan;
mod play;
mod script;
mod session;

use crate::support::{Library, PATIENCE, compile_c, temp_dir};
use deviation::Deviation;
use plan::Plan;
use play::{Outcome, Probe};
use script::SHAPES;
use session::Session;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A probe on each library, registered alike.
struct Pair {
    reference: Probe,
    ours: Probe,
    /// Whether both are given the reference's part.
    same: bool,
    _dir: TempDir,
}

impl Pair {
    fn start(program: &Path, shape: usize, library: &Path, patience: Duration) -> Self {
        let dir = temp_dir();
        let start = |name: &str, library: &Path| {
            let dir = dir.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            Probe::start(program, library, &dir, &SHAPES[shape], patience)
        };
        let reference = start("reference", Library::Reference.dir());
        let ours = start("ours", library);
        Self { reference, ours, same: library == Library::Reference.dir(), _dir: dir }
    }

    /// Plays a group of sessions to both; the deviations that were met, or the report of a difference.
    fn compare(&self, sessions: &[Session]) -> Result<Vec<Deviation>, String> {
        let plans: Vec<Plan> = sessions.iter().map(Plan::of).collect();
        let reference = self.reference.play(&plans.iter().map(|plan| &plan.reference).collect::<Vec<_>>());
        let parts: Vec<_> =
            plans.iter().map(|plan| if self.same { &plan.reference } else { &plan.ours }).collect();
        let ours = self.ours.play(&parts);
        for (number, (reference, ours)) in reference.iter().zip(&ours).enumerate() {
            if reference != ours || ours.trouble.is_some() {
                return Err(report(&sessions[number], &plans[number], reference, ours));
            }
        }
        Ok(plans.into_iter().flat_map(|plan| plan.met).collect())
    }
}

/// A difference, for a reader.
fn report(session: &Session, plan: &Plan, reference: &Outcome, ours: &Outcome) -> String {
    let mut text = format!("{session}");
    let names: Vec<_> = plan.met.iter().map(|deviation| deviation.name()).collect();
    text += &format!("  deviations predicted: {names:?}\n");
    for act in plan.ours.acts.iter().enumerate() {
        text += &format!("  step {} must bring {:?}\n", act.0, act.1.expect);
    }
    for (name, outcome) in [("reference", reference), ("ours", ours)] {
        text += &format!("  {name}: {}\n", outcome.trouble.as_deref().unwrap_or("as expected"));
    }
    let side = |outcome: &Outcome| {
        let mut lines = outcome.describe_frames();
        lines.extend(outcome.log.lines().map(str::to_owned));
        lines
    };
    text + &difference(&side(reference), &side(ours))
}

/// Two lists of lines as one: `-` stands before what only the first has, `+` before what only the second has.
fn difference(first: &[String], second: &[String]) -> String {
    // common[i][j]: the length of the longest common subsequence of first[i..] and second[j..].
    let mut common = vec![vec![0u32; second.len() + 1]; first.len() + 1];
    for (i, a) in first.iter().enumerate().rev() {
        for (j, b) in second.iter().enumerate().rev() {
            common[i][j] =
                if a == b { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < first.len() || j < second.len() {
        if i < first.len() && j < second.len() && first[i] == second[j] {
            text += &format!("      {}\n", first[i]);
            (i, j) = (i + 1, j + 1);
        } else if j == second.len() || i < first.len() && common[i + 1][j] >= common[i][j + 1] {
            text += &format!("    - {}\n", first[i]);
            i += 1;
        } else {
            text += &format!("    + {}\n", second[j]);
            j += 1;
        }
    }
    text
}

fn probe_program(dir: &Path) -> PathBuf {
    let program = dir.join("probe");
    compile_c("tests/integration/differential/probe.c", &program);
    program
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// What a run of many sessions came to.
struct Tally {
    sessions: u64,
    met: BTreeMap<Deviation, u64>,
    failure: Option<String>,
}

/// Plays groups from `seed` on until `count` sessions were played or one failed.
fn play_many(program: &Path, ours: &Path, seed: u64, count: u64, patience: Duration) -> Tally {
    const LANES: u64 = 4;
    let next = AtomicU64::new(0);
    let played = AtomicU64::new(0);
    let lane = || {
        let mut pairs: [Option<Pair>; SHAPES.len()] = Default::default();
        let mut met = BTreeMap::new();
        while played.load(Ordering::Relaxed) < count {
            let group_seed = seed + next.fetch_add(1, Ordering::Relaxed);
            let sessions = generate::group(group_seed);
            let shape = sessions[0].shape;
            let pair = pairs[shape].get_or_insert_with(|| Pair::start(program, shape, ours, patience));
            played.fetch_add(sessions.len() as u64, Ordering::Relaxed);
            match pair.compare(&sessions) {
                Ok(deviations) => deviations.into_iter().for_each(|one| *met.entry(one).or_insert(0) += 1),
                Err(report) => {
                    played.store(count, Ordering::Relaxed);
                    let again = format!("LIBMILTER_DIFF_SEED={group_seed} LIBMILTER_DIFF_SESSIONS=1");
                    return (met, Some(format!("again: {again}\n{report}")));
                }
            }
        }
        (met, None)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES.min(count)).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let mut tally = Tally { sessions: played.into_inner(), met: BTreeMap::new(), failure: None };
    for (met, failure) in results {
        met.into_iter().for_each(|(one, times)| *tally.met.entry(one).or_insert(0) += times);
        tally.failure = tally.failure.or(failure);
    }
    tally
}

/// The reference behaves the same each time: what the comparison finds is not chance.
#[test]
fn the_reference_agrees_with_itself() {
    let dir = temp_dir();
    let program = probe_program(dir.path());
    let tally =
        play_many(&program, Library::Reference.dir(), setting("LIBMILTER_DIFF_SEED", 1), 500, PATIENCE);
    if let Some(failure) = tally.failure {
        panic!("the reference differs from itself; {failure}");
    }
}

/// The library and the reference behave the same, as far as they should.
#[test]
fn sessions_agree() {
    let (seed, count) = (setting("LIBMILTER_DIFF_SEED", 1), setting("LIBMILTER_DIFF_SESSIONS", 4000));
    let dir = temp_dir();
    let program = probe_program(dir.path());
    let start = Instant::now();
    let tally = play_many(&program, Library::Ours.dir(), seed, count, PATIENCE);
    if let Some(failure) = tally.failure {
        panic!("the libraries differ; {failure}");
    }
    let rate = tally.sessions as f64 / start.elapsed().as_secs_f64();
    println!("{} sessions from seed {seed}: no difference, {rate:.0} sessions per second", tally.sessions);
    for (deviation, times) in tally.met {
        println!("  {times:8} times {}", deviation.name());
    }
}
