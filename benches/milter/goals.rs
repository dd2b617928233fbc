//! The targets and what was reached: which figure of a run is held against which number, and a line for each
//! scenario.

use std::fmt::Write;

use crate::crowd::{Busy, Silence};
use crate::figures::{Figures, Level, Row};
use crate::measure::Outcome;
use crate::scenario::Target;
use crate::stats::short;
use crate::subject::Subject;

/// One target and what was reached.
pub struct Goal {
    /// The scenario.
    pub id: String,
    /// The figure.
    pub what: &'static str,
    /// What this library reached.
    pub reached: f64,
    wanted: f64,
    at_least: bool,
    /// What was found possible when the target was set.
    pub limit: Option<f64>,
    /// What the bare server reached.
    pub bare: Option<f64>,
}

impl Goal {
    /// Whether the target is met.
    pub fn met(&self) -> bool {
        if self.at_least { self.reached >= self.wanted } else { self.reached <= self.wanted }
    }

    /// The target, as text.
    pub fn bound(&self) -> String {
        format!("{} {}", if self.at_least { ">=" } else { "<=" }, self.wanted)
    }

    /// One word.
    pub fn verdict(&self) -> &'static str {
        if self.met() { "met" } else { "MISSED" }
    }
}

/// Messages in a second.
pub fn throughput(busy: &Busy) -> f64 {
    busy.throughput
}

/// What one subject reached.
pub fn of(outcomes: &[Outcome], subject: Subject) -> Option<&Outcome> {
    outcomes.iter().find(|outcome| outcome.subject == subject)
}

/// The three goals of a scenario.
fn scenario_goals(row: &Row) -> Vec<Goal> {
    let Some((ours, debian)) = of(&row.outcomes, Subject::Ours).zip(of(&row.outcomes, Subject::Debian))
    else {
        return Vec::new();
    };
    let bare = of(&row.outcomes, Subject::Bare);
    let scenario = row.scenario;
    let goal = |what, reached, target: Target, at_least, bare| Goal {
        id: scenario.id.to_owned(),
        what,
        reached,
        wanted: target.wanted,
        at_least,
        limit: target.limit,
        bare,
    };
    vec![
        goal(
            "throughput",
            ours.ratio.throughput,
            scenario.throughput,
            true,
            bare.map(|b| b.ratio.throughput),
        ),
        goal("CPU", ours.ratio.cpu, scenario.cpu, false, bare.map(|b| b.ratio.cpu)),
        goal("calls", ours.calls / debian.calls, scenario.calls, false, bare.map(|b| b.calls / debian.calls)),
    ]
}

/// The goals beyond the scenarios.
fn other_goals(figures: &Figures) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut add = |id: &str, what, reached, wanted, at_least, bare| {
        let limit = (what == "instructions").then_some(0.18);
        goals.push(Goal { id: id.to_owned(), what, reached, wanted, at_least, limit, bare });
    };
    let instructions =
        |subject| figures.instructions.iter().find(|(which, _)| *which == subject).map(|(_, n)| *n);
    if let Some((ours, debian)) = instructions(Subject::Ours).zip(instructions(Subject::Debian)) {
        let bare = instructions(Subject::Bare).map(|bare| bare / debian);
        add("S1", "instructions", ours / debian, 0.30, false, bare);
    }
    let many = figures.rests.iter().find(|rest| rest.connections == 10_000);
    let cost = |subject| many?.costs.iter().find(|(which, _)| *which == subject).map(|(_, silence)| silence);
    if let Some(ours) = cost(Subject::Ours) {
        let mut add_cost = |what, wanted, figure: fn(&Silence) -> f64| {
            add("10,000 idle", what, figure(ours), wanted, false, cost(Subject::Bare).map(figure));
        };
        add_cost("KiB per connection", 1.0, |silence| silence.bytes / 1024.0);
        add_cost("threads", 64.0, |silence| silence.threads as f64);
        add_cost("live p50 us", 60.0, |silence| silence.busy.as_secs_f64() * 1e6);
        add_cost("CPU share at rest", 0.001, |silence| silence.cpu);
    }
    goals
}

/// Busy connections: those of bare-epoll are the limit.
fn busy_goals(level: &Level) -> Vec<Goal> {
    let mut goals = Vec::new();
    let ratio = |figure: fn(&Busy) -> f64| level.rounds.ratio(Subject::Ours, Subject::BareEpoll, figure);
    let counted = || Some(level.counts(Subject::Ours)?.calls / level.counts(Subject::BareEpoll)?.calls);
    let mut add = |what, reached: Option<f64>, wanted, at_least| {
        let id = format!("busy-{}", level.connections);
        goals.extend(reached.map(|reached| Goal {
            id,
            what,
            reached,
            wanted,
            at_least,
            limit: None,
            bare: None,
        }));
    };
    if level.connections >= 8 {
        add("throughput", ratio(throughput), 0.8, true);
        add("CPU", ratio(|busy| busy.cpu), 1.3, false);
        add("calls", counted(), 1.15, false);
    }
    goals
}

/// All of them.
pub fn all(figures: &Figures) -> Vec<Goal> {
    let mut goals: Vec<Goal> = figures.rows.iter().flat_map(scenario_goals).collect();
    goals.extend(other_goals(figures));
    goals.extend(figures.levels.iter().flat_map(busy_goals));
    goals
}

/// One line for each scenario: ratios to Debian's libmilter, each with its target.
pub fn lines(figures: &Figures) -> String {
    let mut text = String::new();
    for group in all(figures).chunk_by(|one, next| one.id == next.id) {
        let phrases: Vec<String> = group
            .iter()
            .map(|goal| {
                format!("{} {} ({} {})", goal.what, short(goal.reached), goal.bound(), goal.verdict())
            })
            .collect();
        let _ = writeln!(text, "{:12}{}", group[0].id, phrases.join("  "));
    }
    text
}
