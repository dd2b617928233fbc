//! What the figures say: a line for each target, and docs/performance.md with its tables. It states what was
//! measured and how, and where others are better, from the figures alone.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::crowd::{Busy, Silence};
use crate::figures::{Figures, Level, Row};
use crate::measure::Outcome;
use crate::pictures;
use crate::stats::{micros, short};
use crate::subject::Subject;

/// One target and what was reached.
struct Goal {
    id: String,
    what: &'static str,
    reached: f64,
    wanted: f64,
    at_least: bool,
    limit: Option<f64>,
    bare: Option<f64>,
}

impl Goal {
    fn met(&self) -> bool {
        if self.at_least { self.reached >= self.wanted } else { self.reached <= self.wanted }
    }

    fn bound(&self) -> String {
        format!("{} {}", if self.at_least { ">=" } else { "<=" }, self.wanted)
    }

    fn verdict(&self) -> &'static str {
        if self.met() { "met" } else { "MISSED" }
    }
}

fn throughput(busy: &Busy) -> f64 {
    busy.throughput
}

fn p99(busy: &Busy) -> f64 {
    busy.latency(0.99).as_secs_f64()
}

fn of(outcomes: &[Outcome], subject: Subject) -> Option<&Outcome> {
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
    let goal = |what, reached, target: crate::scenario::Target, at_least, bare| Goal {
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

/// All others.
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
    for level in &figures.levels {
        let to_debian = |subject| level.ratio(subject, Subject::Debian, throughput);
        let bare = level.runs.iter().any(|(subject, _)| *subject == Subject::Bare);
        match level.connections {
            64 => {
                let to_plain = |subject| level.ratio(subject, Subject::Plain, p99);
                let ours = to_plain(Subject::Ours);
                add(
                    "64 busy",
                    "p99 to plain threads",
                    ours,
                    0.8,
                    false,
                    bare.then(|| to_plain(Subject::Bare)),
                );
                let ours = to_debian(Subject::Ours);
                add("64 busy", "throughput", ours, 1.3, true, bare.then(|| to_debian(Subject::Bare)));
            }
            1000 => {
                let ours = to_debian(Subject::Ours);
                add("1,000 busy", "throughput", ours, 2.0, true, bare.then(|| to_debian(Subject::Bare)));
            }
            _ => {}
        }
    }
    let many = figures.rests.iter().find(|rest| rest.connections == 10_000);
    let cost = |subject| many?.costs.iter().find(|(which, _)| *which == subject).map(|(_, silence)| silence);
    if let Some(ours) = cost(Subject::Ours) {
        let bare = |figure: fn(&Silence) -> f64| cost(Subject::Bare).map(figure);
        let goals: [(&str, fn(&Silence) -> f64, f64); 4] = [
            ("KiB per connection", |silence| silence.bytes / 1024.0, 1.0),
            ("threads", |silence| silence.threads as f64, 64.0),
            ("live p50 us", |silence| silence.busy.as_secs_f64() * 1e6, 60.0),
            ("CPU share at rest", |silence| silence.cpu, 0.001),
        ];
        for (what, figure, wanted) in goals {
            add("10,000 idle", what, figure(ours), wanted, false, bare(figure));
        }
    }
    goals
}

/// One line for each scenario: ratios to Debian's libmilter, each with its target.
pub fn lines(figures: &Figures) -> String {
    let mut text = String::new();
    let phrase =
        |goal: &Goal| format!("{} {} ({} {})", goal.what, short(goal.reached), goal.bound(), goal.verdict());
    for row in &figures.rows {
        let goals: Vec<String> = scenario_goals(row).iter().map(phrase).collect();
        let _ = writeln!(text, "{:12}{}", row.scenario.id, goals.join("  "));
    }
    let goals = other_goals(figures);
    for group in goals.chunk_by(|one, next| one.id == next.id) {
        let phrases: Vec<String> = group.iter().map(phrase).collect();
        let _ = writeln!(text, "{:12}{}", group[0].id, phrases.join("  "));
    }
    text
}

fn goal_table(goals: &[Goal]) -> String {
    let mut text = String::from(
        "| scenario | figure | target | reached | | bare server, this run | limit when the target was set |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let optional = |value: Option<f64>| value.map_or("-".to_owned(), short);
    for goal in goals {
        let _ = writeln!(
            text,
            "| {} | {} | {} | **{}** | {} | {} | {} |",
            goal.id,
            goal.what,
            goal.bound(),
            short(goal.reached),
            goal.verdict(),
            optional(goal.bare),
            goal.limit.map_or("-".to_owned(), |limit| limit.to_string())
        );
    }
    text
}

fn scenario_table(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(
            text,
            "### {}: {}\n\n| | messages/s | ratio | CPU us per message | ratio | system calls per message |\n\
             |---|---|---|---|---|---|",
            row.scenario.id, row.scenario.title
        );
        for outcome in &row.outcomes {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                outcome.subject.name(),
                short(outcome.typical.throughput),
                short(outcome.ratio.throughput),
                short(outcome.typical.cpu * 1e6),
                short(outcome.ratio.cpu),
                short(outcome.calls)
            );
        }
        text.push('\n');
    }
    text
}

fn busy_table(levels: &[Level]) -> String {
    let mut text = String::from("| connections | | messages/s | p50 us | p99 us |\n|---|---|---|---|---|\n");
    for level in levels {
        for (subject, _) in &level.runs {
            let latency = |share: f64| {
                let seconds = level.typical(*subject, |busy| busy.latency(share).as_secs_f64());
                micros(Duration::from_secs_f64(seconds))
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                level.connections,
                subject.name(),
                short(level.typical(*subject, throughput)),
                latency(0.5),
                latency(0.99)
            );
        }
    }
    text
}

fn silence_table(figures: &Figures) -> String {
    let mut text = String::from(
        "| idle connections | | bytes each | threads | CPU at rest | live session, p50 us | pausing session, p50 us \
         |\n|---|---|---|---|---|---|---|\n",
    );
    for rest in &figures.rests {
        for (subject, silence) in &rest.costs {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.2} % | {} | {} |",
                rest.connections,
                subject.name(),
                short(silence.bytes),
                silence.threads,
                silence.cpu * 100.0,
                micros(silence.busy),
                micros(silence.pausing)
            );
        }
    }
    text
}

/// Whatever is better elsewhere, or worse than wanted.
fn losses(figures: &Figures, goals: &[Goal]) -> String {
    let mut text = String::new();
    for goal in goals.iter().filter(|goal| !goal.met()) {
        let bare =
            goal.bare.map_or(String::new(), |bare| format!("; the bare server reaches {}", short(bare)));
        let _ = writeln!(
            text,
            "- {}, {}: {} where {} is wanted{bare}.",
            goal.id,
            goal.what,
            short(goal.reached),
            goal.bound()
        );
    }
    let library = |subject: &Subject| !matches!(subject, Subject::Ours | Subject::Bare | Subject::Plain);
    for row in &figures.rows {
        let Some(ours) = of(&row.outcomes, Subject::Ours) else { continue };
        for other in row.outcomes.iter().filter(|outcome| library(&outcome.subject)) {
            if other.ratio.throughput > ours.ratio.throughput {
                let (name, times) = (other.subject.name(), other.ratio.throughput / ours.ratio.throughput);
                let _ = writeln!(
                    text,
                    "- {}: {name} has {} times our throughput.",
                    row.scenario.id,
                    short(times)
                );
            }
        }
    }
    for level in &figures.levels {
        for (subject, _) in level.runs.iter().filter(|(subject, _)| library(subject)) {
            let times = level.ratio(*subject, Subject::Ours, throughput);
            if times > 1.0 {
                let name = subject.name();
                let _ = writeln!(
                    text,
                    "- {} busy: {name} has {} times our throughput.",
                    level.connections,
                    short(times)
                );
            }
        }
    }
    for rest in &figures.rests {
        let bytes = |wanted| rest.costs.iter().find(|(which, _)| *which == wanted).map(|(_, s)| s.bytes);
        let ours = bytes(Subject::Ours).unwrap_or_default();
        for (subject, silence) in rest.costs.iter().filter(|(which, s)| library(which) && s.bytes < ours) {
            let _ = writeln!(
                text,
                "- {} idle: a connection costs {} bytes on {}, {} on ours.",
                rest.connections,
                short(silence.bytes),
                subject.name(),
                short(ours)
            );
        }
    }
    if text.is_empty() { "Nowhere in this run.\n".to_owned() } else { text }
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let version = |package: &str| {
        first_line(Command::new("dpkg-query").args(["-W", "-f", "${Package} ${Version}", package]))
    };
    let lock = fs::read_to_string("benches/peers/indymilter/Cargo.lock").unwrap_or_default();
    let indymilter = lock
        .split_once("name = \"indymilter\"\nversion = \"")
        .map_or("unknown", |(_, rest)| rest.split('"').next().unwrap_or("unknown"));
    format!(
        "{} with {} CPUs, Linux {}; {}; indymilter {indymilter}; {}; {}.",
        model.map_or("unknown", |(_, model)| model),
        std::thread::available_parallelism().map_or(0, usize::from),
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        version("libmilter1.0.1"),
        version("golang-github-emersion-go-milter-dev"),
        version("python3-milter"),
    )
}

/// Writes docs/performance.md and the charts that it shows.
pub fn write(figures: &Figures, docs: &Path) -> std::io::Result<()> {
    let mut goals: Vec<Goal> = figures.rows.iter().flat_map(scenario_goals).collect();
    goals.extend(other_goals(figures));
    let debian = figures.rows.first().and_then(|row| of(&row.outcomes, Subject::Debian));
    let bare = figures.rows.first().and_then(|row| of(&row.outcomes, Subject::Bare));
    let calls = |outcome: Option<&Outcome>| outcome.map_or("-".to_owned(), |outcome| short(outcome.calls));
    let instructions: Vec<String> = figures
        .instructions
        .iter()
        .map(|(subject, count)| format!("{} {}", subject.name(), short(*count)))
        .collect();
    let text = include_str!("performance-template.md")
        .replace("@MACHINE@", &machine())
        .replace("@CALLS_DEBIAN@", &calls(debian))
        .replace("@CALLS_BARE@", &calls(bare))
        .replace("@GOALS@", goal_table(&goals).trim_end())
        .replace("@LOSSES@", losses(figures, &goals).trim_end())
        .replace("@SCENARIOS@", scenario_table(&figures.rows).trim_end())
        .replace("@EAGER@", scenario_table(&figures.eager).trim_end())
        .replace("@INSTRUCTIONS@", &instructions.join(", "))
        .replace("@BUSY@", busy_table(&figures.levels).trim_end())
        .replace("@SILENCE@", silence_table(figures).trim_end());
    let charts = docs.join("performance");
    fs::create_dir_all(&charts)?;
    for (name, picture) in pictures::all(figures) {
        fs::write(charts.join(name), picture)?;
    }
    fs::write(docs.join("performance.md"), text)
}
