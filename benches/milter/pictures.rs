//! The charts of docs/performance.md, made of the figures.

use crate::chart::{self, Axis, Bar, COLOURS, Series};
use crate::figures::{Figures, Level};
use crate::goals::throughput;
use crate::stats::{quantile, short};
use crate::subject::Subject::{self, Bare, BareEpoll, Debian, Go, Indymilter, Ours, Plain};

fn colour(subject: Subject) -> &'static str {
    const { assert!(Subject::ALL.len() <= COLOURS.len(), "two subjects would look the same") };
    let place = Subject::ALL.iter().position(|&which| which == subject).unwrap_or_default();
    COLOURS[place]
}

fn log(label: &'static str) -> Axis {
    Axis { label, logarithmic: true }
}

fn linear(label: &'static str) -> Axis {
    Axis { label, logarithmic: false }
}

/// File names and contents.
pub fn all(figures: &Figures) -> [(&'static str, String); 8] {
    [
        ("fractions.svg", fractions(figures)),
        ("throughput.svg", busy_throughput(figures)),
        ("latency.svg", latency(figures)),
        ("busy-calls.svg", busy_calls(figures)),
        ("busy-switches.svg", busy_switches(figures)),
        ("neighbours.svg", neighbours(figures)),
        ("memory.svg", memory(figures)),
        ("calls.svg", calls(figures)),
    ]
}

fn series(subject: Subject, points: Vec<(f64, f64)>, dots: bool) -> Series {
    Series { name: subject.name().to_owned(), colour: colour(subject), points, dots }
}

fn legend(shown: &[Subject]) -> Vec<(String, &'static str)> {
    shown.iter().map(|&subject| (subject.name().to_owned(), colour(subject))).collect()
}

fn bar(share: Option<f64>, text: Option<String>) -> Bar {
    Bar { share, text: text.unwrap_or_else(|| "not offered".to_owned()) }
}

fn fractions(figures: &Figures) -> String {
    let shown = [Debian, Ours, Plain, Indymilter, Go];
    let single = figures.rows.iter().map(|row| {
        let bars = shown.iter().map(|&subject| {
            let fraction = row.rounds.ratio(subject, Bare, |slice| slice.throughput);
            bar(fraction, fraction.map(short))
        });
        (row.scenario.id.to_owned(), bars.collect())
    });
    let busy = figures.levels.iter().filter(|level| level.connections >= 8).map(|level| {
        let bars = shown.iter().map(|&subject| {
            let fraction = level.rounds.ratio(subject, BareEpoll, throughput);
            bar(fraction, fraction.map(short))
        });
        (format!("{} busy", level.connections), bars.collect())
    });
    let groups: Vec<(String, Vec<Bar>)> = single.chain(busy).collect();
    chart::bars("Throughput (best bare server = 1)", &legend(&shown), &groups)
}

/// Lines over the number of busy connections.
fn by_concurrency(
    figures: &Figures,
    title: &str,
    up: &Axis,
    figure: impl Fn(&Level, Subject) -> Option<f64>,
) -> String {
    let lines = Subject::ALL.map(|subject| {
        let point = |level: &Level| Some((level.connections as f64, figure(level, subject)?));
        series(subject, figures.levels.iter().filter_map(point).collect(), true)
    });
    chart::lines(title, &log("busy connections"), up, &lines)
}

fn busy_throughput(figures: &Figures) -> String {
    by_concurrency(figures, "Throughput by concurrency", &linear("messages per second"), |level, subject| {
        level.rounds.typical(subject, throughput)
    })
}

fn busy_calls(figures: &Figures) -> String {
    by_concurrency(
        figures,
        "System calls by concurrency",
        &linear("system calls per message"),
        |level, subject| level.counts.get(subject).map(|counts| counts.calls),
    )
}

fn busy_switches(figures: &Figures) -> String {
    by_concurrency(
        figures,
        "Context switches by concurrency",
        &log("context switches per message"),
        // A logarithmic scale has no zero.
        |level, subject| level.counts.get(subject).map(|counts| counts.switches.max(0.001)),
    )
}

fn latency(figures: &Figures) -> String {
    let level = figures.levels.iter().find(|level| level.connections == 64);
    let lines: Vec<Series> = level
        .into_iter()
        .flat_map(|level| {
            level.rounds.subjects().map(|subject| {
                let sorted = level.latencies(subject);
                let shares = (1..=997).map(|share| f64::from(share) / 1000.0);
                let points = shares
                    .map(|share| (quantile(&sorted, share).as_secs_f64() * 1e6, share * 100.0))
                    .collect();
                series(subject, points, false)
            })
        })
        .collect();
    let up = linear("% of commands answered by then");
    chart::lines("Latency of a command, 64 busy connections", &log("microseconds"), &up, &lines)
}

fn neighbours(figures: &Figures) -> String {
    let without = ("all callbacks quick".to_owned(), "#56b4e9");
    let with = ("8 of 64 sessions in callbacks of 50 ms".to_owned(), "#d55e00");
    let p99 = |busy: &crate::busy::Busy| busy.latency(0.99).as_secs_f64() * 1e3;
    let groups: Vec<(String, Vec<Bar>)> = figures
        .neighbours
        .iter()
        .flat_map(|rounds| {
            let bars = |subject: Subject| {
                let figures = [
                    rounds.typical(subject, |round| p99(&round.without)),
                    rounds.typical(subject, |round| p99(&round.with)),
                ];
                // 5 ms, which no command should take, are the usual full width; what is far beyond is cut off.
                figures
                    .map(|ms| bar(ms.map(|ms| (ms / 5.0).min(3.0)), ms.map(|ms| format!("{} ms", short(ms)))))
                    .into()
            };
            rounds.subjects().map(move |subject| (subject.name().to_owned(), bars(subject)))
        })
        .collect();
    chart::bars("p99 of the others beside slow callbacks", &[without, with], &groups)
}

fn memory(figures: &Figures) -> String {
    let lines = Subject::ALL.map(|subject| {
        let points = figures
            .rests
            .iter()
            .filter_map(|rest| Some((rest.connections as f64, rest.costs.get(subject)?.bytes.max(1.0))));
        series(subject, points.collect(), true)
    });
    let across = log("idle connections");
    chart::lines("Memory of an idle connection", &across, &log("bytes per connection"), &lines)
}

fn calls(figures: &Figures) -> String {
    let shown = [Debian, Ours, Bare, Indymilter, Go];
    let groups: Vec<(String, Vec<Bar>)> = figures
        .rows
        .iter()
        .map(|row| {
            let calls = |wanted| row.counts.get(wanted).map(|counts| counts.calls);
            let whole = calls(Debian).unwrap_or(1.0);
            let bars = shown
                .iter()
                .map(|&subject| bar(calls(subject).map(|n| n / whole), calls(subject).map(short)));
            (row.scenario.id.to_owned(), bars.collect())
        })
        .collect();
    chart::bars("System calls per message (Debian's libmilter = full width)", &legend(&shown), &groups)
}
