//! The four charts of docs/performance.md, made of the figures.

use crate::chart::{self, Axis, Bar, COLOURS, Series};
use crate::figures::Figures;
use crate::stats::{quantile, short};
use crate::subject::Subject;

fn colour(subject: Subject) -> &'static str {
    let place = Subject::ALL.iter().position(|&which| which == subject).unwrap_or_default();
    COLOURS[place % COLOURS.len()]
}

fn log(label: &'static str) -> Axis {
    Axis { label, logarithmic: true }
}

/// File names and contents.
pub fn all(figures: &Figures) -> [(&'static str, String); 4] {
    [
        ("throughput.svg", throughput(figures)),
        ("latency.svg", latency(figures)),
        ("memory.svg", memory(figures)),
        ("calls.svg", calls(figures)),
    ]
}

fn series(subject: Subject, points: Vec<(f64, f64)>, dots: bool) -> Series {
    Series { name: subject.name().to_owned(), colour: colour(subject), points, dots }
}

fn throughput(figures: &Figures) -> String {
    let lines = Subject::ALL.map(|subject| {
        let levels = figures.levels.iter();
        let points = levels.filter_map(|level| {
            Some((level.connections as f64, level.rounds.typical(subject, |busy| busy.throughput)?))
        });
        series(subject, points.collect(), true)
    });
    let up = Axis { label: "messages per second", logarithmic: false };
    chart::lines("Throughput by concurrency", &log("busy connections"), &up, &lines)
}

fn latency(figures: &Figures) -> String {
    let level = figures.levels.iter().find(|level| level.connections == 64);
    let lines: Vec<Series> = level
        .into_iter()
        .flat_map(|level| {
            Subject::ALL.map(|subject| {
                let sorted = level.latencies(subject);
                let shares = (1..=997).map(|share| f64::from(share) / 1000.0);
                let points = shares
                    .map(|share| (quantile(&sorted, share).as_secs_f64() * 1e6, share * 100.0))
                    .collect();
                series(subject, points, false)
            })
        })
        .collect();
    let up = Axis { label: "% of commands answered by then", logarithmic: false };
    chart::lines("Latency of a command, 64 busy connections", &log("microseconds"), &up, &lines)
}

fn memory(figures: &Figures) -> String {
    let lines = Subject::ALL.map(|subject| {
        let points = figures.rests.iter().filter_map(|rest| {
            let (_, silence) = rest.costs.iter().find(|(which, _)| *which == subject)?;
            Some((rest.connections as f64, silence.bytes.max(1.0)))
        });
        series(subject, points.collect(), true)
    });
    let across = log("idle connections");
    chart::lines("Memory of an idle connection", &across, &log("bytes per connection"), &lines)
}

fn calls(figures: &Figures) -> String {
    let shown = [Subject::Debian, Subject::Ours, Subject::Bare, Subject::Indymilter, Subject::Go];
    let legend: Vec<_> = shown.iter().map(|&subject| (subject.name().to_owned(), colour(subject))).collect();
    let groups: Vec<(String, Vec<Bar>)> = figures
        .rows
        .iter()
        .map(|row| {
            let calls = |wanted| row.outcomes.iter().find(|o| o.subject == wanted).map(|o| o.calls);
            let whole = calls(Subject::Debian).unwrap_or(1.0);
            let bars = shown.iter().map(|&subject| Bar {
                share: calls(subject).map(|calls| calls / whole),
                text: calls(subject).map_or("not offered".to_owned(), short),
            });
            (row.scenario.id.to_owned(), bars.collect())
        })
        .collect();
    chart::bars("System calls per message (Debian's libmilter = full width)", &legend, &groups)
}
