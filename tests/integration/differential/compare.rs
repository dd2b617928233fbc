//! Plays sessions to two probes and compares what came of them; many of them, on several threads. A difference
//! becomes a report with the shortest session that still shows it.

use super::deviation::Deviation;
use super::generate;
use super::plan::{Part, Plan};
use super::play::{Candidate, Outcome, Probe};
use super::script::SHAPES;
use super::session::{Session, Step};
use crate::support::{Library, temp_dir};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the shortest session that shows a difference is looked for.
const SHRINKING: Duration = Duration::from_secs(60);

/// A probe on each library, registered alike.
pub struct Pair {
    pub reference: Probe,
    pub ours: Probe,
    /// Whether the candidate is the reference itself, and plays the reference's part.
    same: bool,
    _dir: TempDir,
}

impl Pair {
    pub fn start(candidate: &Candidate<'_>, shape: usize) -> Self {
        let dir = temp_dir();
        let library = Library::Reference.dir();
        let usual = Candidate { library, environment: &[], memcheck: false, ..*candidate };
        let reference = Probe::start(&usual, &dir.path().join("reference"), &SHAPES[shape]);
        let ours = Probe::start(candidate, &dir.path().join("ours"), &SHAPES[shape]);
        let same = candidate.library == Library::Reference.dir();
        Self { reference, ours, same, _dir: dir }
    }

    /// Plays sessions to both at the same time, with a silence between their steps; the deviations that were
    /// met, or the number of the session that differs.
    pub fn compare(
        &self,
        sessions: &[Session],
        silence: Duration,
    ) -> Result<Vec<Deviation>, Box<Difference>> {
        let plans: Vec<Plan> = sessions.iter().map(Plan::of).collect();
        let part = if self.same { Plan::reference } else { Plan::ours };
        let reference: Vec<&Part> = plans.iter().map(Plan::reference).collect();
        let ours: Vec<&Part> = plans.iter().map(part).collect();
        let reference = self.reference.play(&reference, silence);
        let ours = self.ours.play(&ours, silence);
        for (number, (reference, ours)) in reference.into_iter().zip(ours).enumerate() {
            if reference != ours || ours.trouble.is_some() {
                let session = sessions[number].clone();
                return Err(Box::new(Difference { session, reference, ours }));
            }
        }
        Ok(plans.into_iter().flat_map(|plan| plan.met).collect())
    }
}

/// A session that was not the same on both.
pub struct Difference {
    pub session: Session,
    pub reference: Outcome,
    pub ours: Outcome,
}

impl Difference {
    /// A shorter session that differs too, if there is one.
    fn shrink(self: Box<Self>, candidate: &Candidate<'_>) -> Box<Self> {
        let hurried = Candidate { patience: candidate.patience.min(Duration::from_secs(1)), ..*candidate };
        let pair = Pair::start(&hurried, self.session.shape);
        let start = Instant::now();
        let mut best = self;
        loop {
            let smaller = smaller_sessions(&best.session)
                .take_while(|_| start.elapsed() < SHRINKING)
                .find_map(|session| pair.compare(&[session], Duration::ZERO).err());
            match smaller {
                Some(difference) => best = difference,
                None => return best,
            }
        }
    }

    pub fn report(&self) -> String {
        let plan = Plan::of(&self.session);
        let names: Vec<_> = plan.met.iter().map(|deviation| deviation.name()).collect();
        let mut text = format!("{}  differences predicted: {names:?}\n", self.session);
        for (name, outcome) in [("reference", &self.reference), ("ours", &self.ours)] {
            text += &format!("  {name}: {}\n", outcome.trouble.as_deref().unwrap_or("as the model expects"));
        }
        let lines = |outcome: &Outcome| -> Vec<String> {
            outcome.describe_frames().into_iter().chain(outcome.log.lines().map(str::to_owned)).collect()
        };
        text + &unite(&lines(&self.reference), &lines(&self.ours))
    }
}

/// Sessions with one thing less, the coarsest first.
fn smaller_sessions(session: &Session) -> impl Iterator<Item = Session> {
    let alone = |frame: &Vec<u8>| Step { frames: vec![frame.clone()], cuts: Vec::new() };
    let apart = Session {
        steps: session.steps.iter().flat_map(|step| step.frames.iter().map(alone)).collect(),
        ..session.clone()
    };
    let already = session.steps.iter().all(|step| step.frames.len() == 1 && step.cuts.is_empty());
    let mut smaller = if already { Vec::new() } else { vec![apart] };
    let mut without_steps = |from: usize, to: usize| {
        let mut one = session.clone();
        one.steps.drain(from..to);
        smaller.push(one);
    };
    let steps = session.steps.len();
    for length in [steps / 2, steps / 4, steps / 8].into_iter().filter(|length| *length > 1) {
        for from in (0..steps - length).step_by(length) {
            without_steps(from, from + length);
        }
    }
    for step in 0..steps {
        without_steps(step, step + 1);
    }
    for key in session.script.rules.keys() {
        let mut one = session.clone();
        one.script.rules.remove(key);
        smaller.push(one);
        for op in 0..session.script.rules[key].ops.len() {
            let mut one = session.clone();
            one.script.rules.get_mut(key).unwrap().ops.remove(op);
            smaller.push(one);
        }
    }
    smaller.into_iter().filter(Session::is_fair)
}

/// Two lists of lines as one: `-` stands before what only the first has, `+` before what only the second has.
fn unite(first: &[String], second: &[String]) -> String {
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

/// What many sessions came to.
pub struct Tally {
    pub sessions: u64,
    pub met: BTreeMap<Deviation, u64>,
}

/// Plays groups from `seed` on until `count` sessions were played; `Err` with a report if one differs.
pub fn play_many(candidate: &Candidate<'_>, seed: u64, count: u64) -> Result<Tally, String> {
    find_difference(candidate, seed, count).map_err(|(seed, difference)| {
        let again = format!("LIBMILTER_DIFF_SEED={seed} LIBMILTER_DIFF_SESSIONS=1");
        format!("again with {again}; in short:\n{}", difference.shrink(candidate).report())
    })
}

/// The same, with the difference as it was found and the seed of its group.
pub fn find_difference(
    candidate: &Candidate<'_>,
    seed: u64,
    count: u64,
) -> Result<Tally, (u64, Box<Difference>)> {
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
            let pair = pairs[shape].get_or_insert_with(|| Pair::start(candidate, shape));
            played.fetch_add(sessions.len() as u64, Ordering::Relaxed);
            match pair.compare(&sessions, Duration::ZERO) {
                Ok(deviations) => deviations.into_iter().for_each(|one| *met.entry(one).or_insert(0) += 1),
                Err(difference) => {
                    played.store(count, Ordering::Relaxed);
                    return Err((group_seed, difference));
                }
            }
        }
        Ok(met)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES.min(count)).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let mut tally = Tally { sessions: played.into_inner(), met: BTreeMap::new() };
    for met in results {
        met?.into_iter().for_each(|(one, times)| *tally.met.entry(one).or_insert(0) += times);
    }
    Ok(tally)
}
