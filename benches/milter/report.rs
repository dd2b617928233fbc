//! docs/performance.md with its tables. It states what was measured and how, and where others are better, from the
//! figures alone.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::crowd::Busy;
use crate::figures::{Figures, Level, Row};
use crate::goals::{self, Goal, of, throughput};
use crate::measure::Outcome;
use crate::pictures;
use crate::stats::{micros, short};
use crate::subject::Subject;

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

/// Busy connections: medians, ratios to Debian's libmilter and to bare-epoll, and counts for a message.
pub fn busy_table(levels: &[Level]) -> String {
    let mut text = String::from(
        "| connections | | messages/s | to Debian | to bare-epoll | p50 us | p99 us | CPU us per message | calls per \
         message | switches per message |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let optional = |value: Option<f64>| value.map_or("-".to_owned(), short);
    for level in levels {
        for subject in level.rounds.subjects() {
            let typical = |figure: &dyn Fn(&Busy) -> f64| optional(level.rounds.typical(subject, figure));
            let latency = |share: f64| typical(&|busy| busy.latency(share).as_secs_f64() * 1e6);
            let ratio = |to| optional(level.rounds.ratio(subject, to, throughput));
            let counts = level.counts(subject);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                level.connections,
                subject.name(),
                typical(&throughput),
                ratio(Subject::Debian),
                ratio(Subject::BareEpoll),
                latency(0.5),
                latency(0.99),
                typical(&|busy| busy.cpu * 1e6),
                optional(counts.map(|counts| counts.calls)),
                optional(counts.map(|counts| counts.switches)),
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
    let library = |subject: &Subject| subject.is_peer() || *subject == Subject::Debian;
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
        for subject in level.rounds.subjects().filter(library) {
            let times = level.rounds.ratio(subject, Subject::Ours, throughput).unwrap_or_default();
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

/// The tables of what was measured, and no more.
pub fn tables(figures: &Figures) -> String {
    let mut text = scenario_table(&figures.rows) + &scenario_table(&figures.eager);
    if !figures.levels.is_empty() {
        text += &busy_table(&figures.levels);
    }
    if !figures.rests.is_empty() {
        text += &silence_table(figures);
    }
    text
}

/// Writes docs/performance.md and the charts that it shows.
pub fn write(figures: &Figures, docs: &Path) -> std::io::Result<()> {
    let goals = goals::all(figures);
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
