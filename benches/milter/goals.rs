//! The targets and what was reached: which figure of a run is held against which number, how far it is from it, and
//! a line for each scenario.

use std::fmt::Write;
use std::time::Duration;

use crate::busy::Busy;
use crate::figures::{Figures, Level, Neighbours, Rest};
use crate::measure::{Row, Slice};
use crate::plan::{busy_id, idle_id};
use crate::rounds::Rounds;
use crate::stats::{median, short};
use crate::subject::Subject::{self, Bare, BareEpoll, BareTimeout, Debian, Observed, Ours};

/// What is wanted of a figure.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};

/// One target and what was reached.
pub struct Goal {
    /// The scenario.
    pub id: String,
    /// The figure, and what it is a ratio to.
    pub figure: String,
    /// What this library reached.
    pub reached: f64,
    bound: Bound,
}

impl Goal {
    /// Whether the target is met.
    pub fn met(&self) -> bool {
        match self.bound {
            AtLeast(wanted) => self.reached >= wanted,
            AtMost(wanted) => self.reached <= wanted,
        }
    }

    /// The target, as text.
    pub fn wanted(&self) -> String {
        match self.bound {
            AtLeast(wanted) => format!(">= {wanted}"),
            AtMost(wanted) => format!("<= {wanted}"),
        }
    }

    /// One word, and how far the figure is from the target, in percent of the target.
    pub fn verdict(&self) -> String {
        let (AtLeast(wanted) | AtMost(wanted)) = self.bound;
        let distance = match wanted {
            0.0 => format!("by {}", short(self.reached.abs())),
            _ => format!("by {} %", short((self.reached / wanted - 1.0).abs() * 100.0)),
        };
        format!("{} {distance}", if self.met() { "met" } else { "MISSED" })
    }
}

/// Messages in a second.
pub fn throughput(busy: &Busy) -> f64 {
    busy.throughput
}

/// The goals of one scenario, as far as their figures were measured.
struct Goals {
    id: String,
    goals: Vec<Goal>,
}

impl Goals {
    fn of(id: impl Into<String>) -> Self {
        Self { id: id.into(), goals: Vec::new() }
    }

    fn add(&mut self, figure: impl Into<String>, reached: Option<f64>, bound: Bound) {
        if let Some(reached) = reached {
            self.goals.push(Goal { id: self.id.clone(), figure: figure.into(), reached, bound });
        }
    }
}

fn single(row: &Row) -> Vec<Goal> {
    let mut goals = Goals::of(row.scenario.id);
    let throughput = |to| row.rounds.ratio(Ours, to, |slice: &Slice| slice.throughput);
    let cpu = |to| row.rounds.ratio(Ours, to, |slice: &Slice| slice.cpu);
    match row.scenario.id {
        "S3-4096" => {
            goals.add("throughput / Debian", throughput(Debian), AtLeast(1.05));
            goals.add("CPU / Debian", cpu(Debian), AtMost(0.85));
        }
        _ => {
            let calls = || Some(row.counts.get(Ours)?.calls - row.counts.get(Bare)?.calls);
            goals.add("throughput / bare", throughput(Bare), AtLeast(0.97));
            goals.add("CPU / bare", cpu(Bare), AtMost(1.05));
            goals.add("calls - bare", calls(), AtMost(1.5));
            goals.add("throughput / bare with a timeout", throughput(BareTimeout), AtLeast(0.97));
            goals.add("CPU / bare with a timeout", cpu(BareTimeout), AtMost(1.05));
        }
    }
    goals.goals
}

/// The processor's time for a message with metrics, as a multiple of that without.
pub fn cost_of_metrics(row: &Row) -> Option<f64> {
    row.rounds.ratio(Observed, Ours, |slice| slice.cpu)
}

fn metrics(row: &Row) -> Vec<Goal> {
    let mut goals = Goals::of(row.scenario.id);
    goals.add("CPU with metrics / without", cost_of_metrics(row), AtMost(1.03));
    goals.goals
}

fn instructions(figures: &Figures) -> Vec<Goal> {
    let mut goals = Goals::of("instructions");
    let ratio = || {
        let counts = figures.instructions.as_ref()?;
        Some(counts.get(Ours)? / counts.get(Debian)?)
    };
    goals.add("instructions / Debian", ratio(), AtMost(0.285));
    goals.goals
}

/// Our throughput as a fraction of the best of these.
fn of_best(level: &Level, others: impl Iterator<Item = Subject>) -> Option<(Subject, f64)> {
    let ratios = others.filter_map(|other| Some((other, level.rounds.ratio(Ours, other, throughput)?)));
    ratios.min_by(|one, other| one.1.total_cmp(&other.1))
}

fn busy(level: &Level) -> Vec<Goal> {
    let mut goals = Goals::of(busy_id(level.connections));
    if level.connections < 8 {
        if let Some((best, ratio)) = of_best(level, [Bare, Debian].into_iter()) {
            goals.add(format!("throughput / {}", best.word()), Some(ratio), AtLeast(1.0));
        }
        let timed = level.rounds.ratio(Ours, BareTimeout, throughput);
        goals.add("throughput / bare with a timeout", timed, AtLeast(1.0));
        return goals.goals;
    }
    let ratio = |figure: fn(&Busy) -> f64| level.rounds.ratio(Ours, BareEpoll, figure);
    let calls = || Some(level.counts.get(Ours)?.calls / level.counts.get(BareEpoll)?.calls);
    goals.add("throughput / bare-epoll", ratio(throughput), AtLeast(0.8));
    goals.add("CPU / bare-epoll", ratio(|busy| busy.cpu), AtMost(1.3));
    goals.add("calls / bare-epoll", calls(), AtMost(1.15));
    let peers = level.rounds.subjects().filter(|subject| subject.is_peer() || *subject == Debian);
    if let Some((best, ratio)) = of_best(level, peers) {
        goals.add(format!("throughput / best peer ({})", best.word()), Some(ratio), AtLeast(1.0));
    }
    goals.goals
}

/// What no command should take beside slow callbacks.
pub const PATIENCE: Duration = Duration::from_millis(5);

/// By how much slow callbacks delay the others, in milliseconds.
pub fn delay(rounds: &Rounds<Neighbours>, subject: Subject) -> Option<f64> {
    let p99 = |busy: &Busy| busy.latency(0.99).as_secs_f64() * 1e3;
    rounds.typical(subject, |round| p99(&round.with) - p99(&round.without))
}

fn neighbours(rounds: &Rounds<Neighbours>) -> Vec<Goal> {
    let mut goals = Goals::of("neighbours");
    let above = |busy: &Busy| busy.slower_than(PATIENCE) as f64;
    let late = median(rounds.rounds(Ours).iter().map(|round| above(&round.with)).collect());
    goals.add("the others' p99, ms above the run without", delay(rounds, Ours), AtMost(2.0));
    goals.add("commands above 5 ms (median round)", late, AtMost(0.0));
    goals.goals
}

fn at_once(figures: &Figures) -> Vec<Goal> {
    let mut goals = Goals::of("at-once");
    let seconds = figures.at_once.as_ref().and_then(|times| Some(times.get(Ours)?.as_secs_f64()));
    goals.add("seconds for 60 callbacks of 1 s", seconds, AtMost(1.1));
    goals.goals
}

fn idle(rest: &Rest) -> Vec<Goal> {
    let mut goals = Goals::of(idle_id(rest.connections));
    let bytes = match rest.connections {
        1000 => 1024.0,
        10_000 => 450.0,
        _ => return goals.goals,
    };
    let cost = rest.costs.get(Ours);
    goals.add("bytes for each", cost.map(|cost| cost.bytes), AtMost(bytes));
    goals.add("threads", cost.map(|cost| cost.threads as f64), AtMost(16.0));
    // A wake-up each second takes 0.003 %.
    goals.add("% of a CPU at rest", cost.map(|cost| cost.cpu * 100.0), AtMost(0.001));
    goals.goals
}

/// All of them.
pub fn all(figures: &Figures) -> Vec<Goal> {
    let mut goals: Vec<Goal> = figures.rows.iter().flat_map(single).collect();
    goals.extend(figures.metrics.iter().flat_map(metrics));
    goals.extend(instructions(figures));
    goals.extend(figures.levels.iter().flat_map(busy));
    goals.extend(figures.neighbours.iter().flat_map(neighbours));
    goals.extend(at_once(figures));
    goals.extend(figures.rests.iter().flat_map(idle));
    goals
}

/// One line for each scenario: every figure with its target.
pub fn lines(figures: &Figures) -> String {
    let mut text = String::new();
    let goals = all(figures);
    for group in goals.chunk_by(|one, next| one.id == next.id) {
        let phrase = |goal: &Goal| {
            format!("{} {} ({} {})", goal.figure, short(goal.reached), goal.wanted(), goal.verdict())
        };
        let phrases: Vec<String> = group.iter().map(phrase).collect();
        let _ = writeln!(text, "{:13}{}", group[0].id, phrases.join("; "));
    }
    let met = goals.iter().filter(|goal| goal.met()).count();
    let _ = writeln!(text, "{met} of {} targets met", goals.len());
    text
}
