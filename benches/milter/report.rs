//! docs/performance.md with its tables. It states what was measured and how, and where others are better, from the
//! figures alone.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::busy::Busy;
use crate::figures::{Figures, Level, Neighbours, Rest};
use crate::goals::{self, Goal, PATIENCE, throughput};
use crate::measure::{Row, Slice};
use crate::pictures;
use crate::plan::{busy_id, idle_id};
use crate::rounds::{PerSubject, Rounds};
use crate::stats::{micros, short};
use crate::subject::Subject::{self, Bare, BareEpoll, Debian, Ours};

fn optional(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), short)
}

fn goal_table(goals: &[Goal]) -> String {
    let mut text = String::from("| scenario | figure | target | reached | |\n|---|---|---|---|---|\n");
    for goal in goals {
        let (id, figure, reached) = (&goal.id, &goal.figure, short(goal.reached));
        let _ =
            writeln!(text, "| {id} | {figure} | {} | **{reached}** | {} |", goal.wanted(), goal.verdict());
    }
    text
}

fn scenario_table(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(
            text,
            "### {}: {}\n\n| | messages/s | / Debian | / bare | CPU us per message | / Debian | / bare | calls per \
             message | switches per message |\n|---|---|---|---|---|---|---|---|---|",
            row.scenario.id, row.scenario.title
        );
        for subject in row.rounds.subjects() {
            let speed = |slice: &Slice| slice.throughput;
            let cpu = |slice: &Slice| slice.cpu;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                subject.name(),
                optional(row.rounds.typical(subject, speed)),
                optional(row.rounds.ratio(subject, Debian, speed)),
                optional(row.rounds.ratio(subject, Bare, speed)),
                optional(row.rounds.typical(subject, |slice| slice.cpu * 1e6)),
                optional(row.rounds.ratio(subject, Debian, cpu)),
                optional(row.rounds.ratio(subject, Bare, cpu)),
                optional(row.counts.get(subject).map(|counts| counts.calls)),
                optional(row.counts.get(subject).map(|counts| counts.switches)),
            );
        }
        text.push('\n');
    }
    text
}

/// Without and with metrics; one row for each.
fn metrics_table(row: &Row) -> String {
    let mut text = String::from(
        "| | messages/s | CPU us per message | / without | calls per message | switches per message |\n\
         |---|---|---|---|---|---|\n",
    );
    for subject in row.rounds.subjects() {
        let counts = row.counts.get(subject);
        let cost = if subject == Ours { Some(1.0) } else { goals::cost_of_metrics(row) };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            subject.name(),
            optional(row.rounds.typical(subject, |slice| slice.throughput)),
            optional(row.rounds.typical(subject, |slice| slice.cpu * 1e6)),
            optional(cost),
            optional(counts.map(|counts| counts.calls)),
            optional(counts.map(|counts| counts.switches)),
        );
    }
    text
}

fn busy_table(levels: &[Level]) -> String {
    let mut text = String::from(
        "| connections | | messages/s | / Debian | / bare | / bare-epoll | p50 us | p99 us | CPU us per message | calls \
         per message | switches per message |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for level in levels {
        for subject in level.rounds.subjects() {
            let typical = |figure: &dyn Fn(&Busy) -> f64| optional(level.rounds.typical(subject, figure));
            let latency = |share: f64| typical(&|busy| busy.latency(share).as_secs_f64() * 1e6);
            let ratio = |to| optional(level.rounds.ratio(subject, to, throughput));
            let counts = level.counts.get(subject);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                level.connections,
                subject.name(),
                typical(&throughput),
                ratio(Debian),
                ratio(Bare),
                ratio(BareEpoll),
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

fn neighbours_table(rounds: &Rounds<Neighbours>) -> String {
    let mut text = String::from(
        "| | messages/s without | with | p99 without, ms | p99 with | difference | slowest without, ms | slowest with | \
         above 5 ms without | with | of |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (subject, own) in rounds.iter() {
        let typical = |figure: &dyn Fn(&Neighbours) -> f64| optional(rounds.typical(subject, figure));
        let p99 = |busy: &Busy| busy.latency(0.99).as_secs_f64() * 1e3;
        let slowest = |rounds: &[&Busy]| {
            let slowest = rounds.iter().map(|busy| busy.latency(1.0).as_secs_f64() * 1e3);
            short(slowest.fold(0.0, f64::max))
        };
        let late = |rounds: &[&Busy]| rounds.iter().map(|busy| busy.slower_than(PATIENCE)).sum::<usize>();
        let without: Vec<&Busy> = own.iter().map(|round| &round.without).collect();
        let with: Vec<&Busy> = own.iter().map(|round| &round.with).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            subject.name(),
            typical(&|round| round.without.throughput),
            typical(&|round| round.with.throughput),
            typical(&|round| p99(&round.without)),
            typical(&|round| p99(&round.with)),
            optional(goals::delay(rounds, subject)),
            slowest(&without),
            slowest(&with),
            late(&without),
            late(&with),
            with.iter().map(|busy| busy.latencies.len()).sum::<usize>(),
        );
    }
    text
}

/// One line: a figure of each subject.
fn list<T>(figures: &PerSubject<T>, text: impl Fn(&T) -> String) -> String {
    let each: Vec<String> =
        figures.iter().map(|(subject, figure)| format!("{} {}", subject.name(), text(figure))).collect();
    each.join(", ")
}

fn at_once(figures: &Figures) -> String {
    let seconds = |time: &std::time::Duration| format!("{:.2} s", time.as_secs_f64());
    figures.at_once.as_ref().map_or("-".to_owned(), |times| list(times, seconds))
}

fn instructions(figures: &Figures) -> String {
    figures.instructions.as_ref().map_or("-".to_owned(), |counts| list(counts, |count| short(*count)))
}

fn silence_table(rests: &[Rest]) -> String {
    let mut text = String::from(
        "| idle connections | | bytes each | threads | CPU at rest | wake-ups/s at rest | live session, p50 us | \
         pausing session, p50 us |\n|---|---|---|---|---|---|---|---|\n",
    );
    for rest in rests {
        for (subject, silence) in rest.costs.iter() {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.3} % | {} | {} | {} |",
                rest.connections,
                subject.name(),
                short(silence.bytes),
                silence.threads,
                silence.cpu * 100.0,
                short(silence.wakeups),
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
        let (reached, wanted) = (short(goal.reached), goal.wanted());
        let _ = writeln!(text, "- {}, {}: {reached} where {wanted} is wanted.", goal.id, goal.figure);
    }
    let library = |subject: &Subject| subject.is_peer() || *subject == Debian;
    let mut faster = |id: &str, subject: Subject, times: Option<f64>| {
        if let Some(times) = times.filter(|&times| times > 1.0) {
            let _ = writeln!(text, "- {id}: {} has {} times our throughput.", subject.name(), short(times));
        }
    };
    for row in &figures.rows {
        for subject in row.rounds.subjects().filter(library) {
            let times = row.rounds.ratio(subject, Ours, |slice| slice.throughput);
            faster(row.scenario.id, subject, times);
        }
    }
    for level in &figures.levels {
        for subject in level.rounds.subjects().filter(library) {
            let times = level.rounds.ratio(subject, Ours, throughput);
            faster(&busy_id(level.connections), subject, times);
        }
    }
    for rest in &figures.rests {
        let Some(ours) = rest.costs.get(Ours).map(|silence| silence.bytes) else { continue };
        for (subject, silence) in rest.costs.iter().filter(|(which, s)| library(which) && s.bytes < ours) {
            let (id, theirs) = (idle_id(rest.connections), short(silence.bytes));
            let _ = writeln!(
                text,
                "- {id}: a connection costs {theirs} bytes on {}, {} on ours.",
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
    // The name alone may hide which generation it is.
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value)
    };
    let version = |package: &str| {
        first_line(Command::new("dpkg-query").args(["-W", "-f", "${Package} ${Version}", package]))
    };
    let lock = fs::read_to_string("benches/peers/indymilter/Cargo.lock").unwrap_or_default();
    let indymilter = lock
        .split_once("name = \"indymilter\"\nversion = \"")
        .map_or("unknown", |(_, rest)| rest.split('"').next().unwrap_or("unknown"));
    format!(
        "{} (family {}, model {}) with {} CPUs, Linux {}; {}; indymilter {indymilter}; {}; {}.",
        field("model name"),
        field("cpu family"),
        field("model"),
        std::thread::available_parallelism().map_or(0, usize::from),
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        version("libmilter1.0.1"),
        version("golang-github-emersion-go-milter-dev"),
        version("python3-milter"),
    )
}

/// The tables of what was measured, and no more.
pub fn tables(figures: &Figures) -> String {
    let mut text = scenario_table(&figures.rows) + &scenario_table(&figures.batch);
    let mut add = |wanted: bool, table: &dyn Fn() -> String| {
        if wanted {
            let _ = writeln!(text, "{}", table());
        }
    };
    add(figures.metrics.is_some(), &|| figures.metrics.as_ref().map_or(String::new(), metrics_table));
    add(figures.instructions.is_some(), &|| format!("Instructions: {}\n", instructions(figures)));
    add(figures.page_start.is_some(), &|| {
        format!("Receiving at the start of a page: {} times the time\n", optional(figures.page_start))
    });
    add(!figures.levels.is_empty(), &|| busy_table(&figures.levels));
    add(figures.neighbours.is_some(), &|| {
        figures.neighbours.as_ref().map_or(String::new(), neighbours_table)
    });
    add(figures.at_once.is_some(), &|| format!("All callbacks at once: {}\n", at_once(figures)));
    add(!figures.rests.is_empty(), &|| silence_table(&figures.rests));
    text
}

/// Writes docs/performance.md and the charts that it shows.
pub fn write(figures: &Figures, docs: &Path) -> std::io::Result<()> {
    let goals = goals::all(figures);
    let calls = |subject| {
        let counts = figures.rows.first().and_then(|row| row.counts.get(subject));
        optional(counts.map(|counts| counts.calls))
    };
    let neighbours = figures.neighbours.as_ref().map(neighbours_table).unwrap_or_default();
    let metrics = figures.metrics.as_ref().map(metrics_table).unwrap_or_default();
    let text = include_str!("performance-template.md")
        .replace("@MACHINE@", &machine())
        .replace("@CALLS_DEBIAN@", &calls(Debian))
        .replace("@CALLS_BARE@", &calls(Bare))
        .replace("@GOALS@", goal_table(&goals).trim_end())
        .replace("@LOSSES@", losses(figures, &goals).trim_end())
        .replace("@PAGE_START@", &optional(figures.page_start))
        .replace("@SCENARIOS@", scenario_table(&figures.rows).trim_end())
        .replace("@BATCH@", scenario_table(&figures.batch).trim_end())
        .replace("@METRICS@", metrics.trim_end())
        .replace("@INSTRUCTIONS@", &instructions(figures))
        .replace("@BUSY@", busy_table(&figures.levels).trim_end())
        .replace("@NEIGHBOURS@", neighbours.trim_end())
        .replace("@AT_ONCE@", &at_once(figures))
        .replace("@SILENCE@", silence_table(&figures.rests).trim_end());
    let charts = docs.join("performance");
    fs::create_dir_all(&charts)?;
    for (name, picture) in pictures::all(figures) {
        fs::write(charts.join(name), picture)?;
    }
    fs::write(docs.join("performance.md"), text)
}
