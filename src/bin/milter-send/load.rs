//! Many connections at once, to see how much a filter bears and how long messages then take.
//!
//! The figures are to be believed: with a rate, a message's time starts when it was due, not when a connection had
//! time for it; what was due and never began is counted; nothing is left out at the start; a percentile is only
//! told if enough messages stand behind it; and it is told what milter-send itself took from the machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, available_parallelism, sleep};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use milter::mta::{Client, Delivery, Disposition, Error, Exchange, MacroValues, Player};
use milter::system;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::dialogue::in_words;
use super::input::Inputs;
use super::options::Options;
use super::output::Shared;
use super::{Exit, greet, hints, reach, submission};

/// How long a connection rests that has failed: a filter that is gone is no reason to keep the machine busy.
const REST: Duration = Duration::from_millis(20);

/// How often a terminal is told how far it has come.
const TICK: Duration = Duration::from_millis(100);

/// From this on a message began too late to call it the rate that was asked for.
const LATE: Duration = Duration::from_millis(5);

/// Longer latencies, in microseconds, are not told apart: an hour.
const LONGEST: u64 = 3_600_000_000;

/// What a percentile must have above it.
const MESSAGES_ABOVE: f64 = 10.0;

/// Percentiles, and their names in the report.
const PERCENTILES: [(f64, &str, &str); 4] =
    [(50.0, "p50", "p50"), (90.0, "p90", "p90"), (99.0, "p99", "p99"), (99.9, "p99.9", "p99_9")];

/// How much the stack of a connection's thread needs, generously.
const STACK: usize = 512 * 1024;

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Connections at once.
    pub connections: u32,
    /// Messages a second; without it each connection sends one after the other.
    pub rate: Option<f64>,
    /// For how long.
    pub duration: Duration,
}

/// A run: what was asked for, and what has happened so far.
pub struct Load {
    demand: Demand,
    started: Instant,
    processor_before: Duration,
    /// The message that is due next.
    next: AtomicU64,
    figures: Mutex<Figures>,
}

/// What has happened so far.
struct Figures {
    sessions: u64,
    late: u64,
    /// Latencies in microseconds.
    latencies: Histogram<u64>,
    dispositions: BTreeMap<&'static str, u64>,
    errors: BTreeMap<String, u64>,
    first_error: Option<(Exit, String, Option<String>)>,
    /// When the last message ended.
    ended: Instant,
}

/// A message's turn.
struct Turn {
    number: u64,
    due: Instant,
}

impl Load {
    /// A run that starts now.
    pub fn new(demand: Demand) -> Self {
        let started = Instant::now();
        let figures = Figures {
            sessions: 0,
            late: 0,
            latencies: Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order"),
            dispositions: BTreeMap::new(),
            errors: BTreeMap::new(),
            first_error: None,
            ended: started,
        };
        Self {
            demand,
            started,
            processor_before: system::processor_time(),
            next: AtomicU64::new(0),
            figures: Mutex::new(figures),
        }
    }

    /// Waits for the turn of the next message; `None` if the time is over.
    fn turn(&self) -> Option<Turn> {
        let end = self.started + self.demand.duration;
        if Instant::now() >= end {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(rate) = self.demand.rate else { return Some(Turn { number, due: Instant::now() }) };
        let offset = Duration::try_from_secs_f64(number as f64 / rate).unwrap_or(Duration::MAX);
        let due = self.started + offset.min(self.demand.duration);
        if due >= end {
            return None;
        }
        sleep(due.saturating_duration_since(Instant::now()));
        let late = due.elapsed() >= LATE;
        if late && Instant::now() >= end {
            return None;
        }
        self.figures.lock().late += u64::from(late);
        Some(Turn { number, due })
    }

    fn delivered(&self, turn: &Turn, delivery: &Delivery) {
        let latency = turn.due.elapsed();
        let mut figures = self.figures.lock();
        figures.ended = Instant::now();
        figures.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST));
        *figures.dispositions.entry(disposition(delivery)).or_default() += 1;
    }

    fn failed(&self, error: &Error, options: &Options) {
        let mut figures = self.figures.lock();
        figures.ended = Instant::now();
        *figures.errors.entry(error.to_string()).or_default() += 1;
        if figures.first_error.is_none() {
            let hint = hints::about(error, &options.socket);
            figures.first_error = Some((Exit::from(error), error.to_string(), hint));
        }
    }

    /// How many messages were due and did not begin; nothing is due without a rate.
    fn not_begun(&self, figures: &Figures) -> u64 {
        let Some(rate) = self.demand.rate else { return 0 };
        let due = (self.demand.duration.min(self.started.elapsed()).as_secs_f64() * rate).ceil() as u64;
        let begun = figures.latencies.len() + figures.errors.values().sum::<u64>();
        due.saturating_sub(begun)
    }

    /// What must be known to believe the figures.
    pub fn warnings(&self) -> Vec<String> {
        let figures = self.figures.lock();
        let mut warnings = Vec::new();
        let not_begun = self.not_begun(&figures);
        if not_begun > 0 || figures.late > figures.latencies.len() / 100 {
            warnings.push(format!(
                "the rate was not kept: {} messages began late, {not_begun} not at all; more connections may help, or \
                 it is more than the filter bears",
                figures.late
            ));
        }
        let elapsed = self.elapsed(&figures).as_secs_f64();
        let own = self.own_processor().as_secs_f64();
        if own > elapsed * processors() as f64 / 3.0 {
            warnings.push(format!(
                "milter-send itself kept {:.1} of {} processors busy: if the filter is on this machine the figures say \
                 less than it can do",
                own / elapsed,
                processors()
            ));
        }
        warnings
    }

    /// Why messages failed, if some did, and how the program ends then.
    pub fn error(&self) -> Option<(Exit, String, Option<String>)> {
        let figures = self.figures.lock();
        let (exit, error, hint) = figures.first_error.clone()?;
        let failed = figures.errors.values().sum::<u64>();
        let all = failed + figures.latencies.len();
        Some((exit, format!("{failed} of {all} messages failed, the first: {error}"), hint))
    }

    /// How long it has been going on, or went on until the last message ended if that was behind the end.
    fn elapsed(&self, figures: &Figures) -> Duration {
        figures.ended.duration_since(self.started).max(self.demand.duration.min(self.started.elapsed()))
    }

    fn own_processor(&self) -> Duration {
        system::processor_time().saturating_sub(self.processor_before)
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let figures = self.figures.lock();
        let Figures { latencies, .. } = &*figures;
        let elapsed = self.elapsed(&figures);
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            writeln!(text, "{name:<12} {value}").expect("a String takes everything");
        };
        let rate = match self.demand.rate {
            Some(rate) => format!("{rate} messages/s wanted"),
            None => "as fast as they can".to_owned(),
        };
        line(
            "connections",
            &format!("{} at once, {rate}; {} in all", self.demand.connections, figures.sessions),
        );
        line(
            "messages",
            &format!(
                "{} in {}, {:.1}/s",
                latencies.len(),
                in_words(elapsed),
                per_second(latencies.len(), elapsed)
            ),
        );
        for (disposition, count) in &figures.dispositions {
            line(&format!("  {disposition}"), &count.to_string());
        }
        if figures.late > 0 {
            line("  late", &format!("{} began {} or more after they were due", figures.late, in_words(LATE)));
        }
        for (error, count) in &figures.errors {
            line("  failed", &format!("{count}: {error}"));
        }
        if !latencies.is_empty() {
            let from =
                if self.demand.rate.is_some() { "from when they were due" } else { "from their start" };
            let known: Vec<_> = PERCENTILES
                .iter()
                .filter_map(|(percentile, name, _)| {
                    let value = value_at(latencies, *percentile)?;
                    Some(format!("{name} {}, ", in_words(Duration::from_micros(value))))
                })
                .collect();
            let largest = in_words(Duration::from_micros(latencies.max()));
            line("latency", &format!("{}max {largest}, {from}", known.concat()));
            let buckets = buckets(latencies);
            let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1);
            for bucket in buckets {
                let bar = "#".repeat((bucket.count * 40).div_ceil(most) as usize);
                let up_to = in_words(Duration::from_micros(bucket.to));
                line(&format!("  <{up_to:>9}"), format!("{:>8} {bar}", bucket.count).trim_end());
            }
        }
        text
    }

    /// For programs; docs/milter-send.schema.json describes it.
    pub fn to_json(&self) -> Value {
        let figures = self.figures.lock();
        let Figures { latencies, .. } = &*figures;
        let elapsed = self.elapsed(&figures);
        let milliseconds = |microseconds: u64| microseconds as f64 / 1e3;
        let mut latency = json!({
            "from": if self.demand.rate.is_some() { "due" } else { "start" },
            "max": (!latencies.is_empty()).then(|| milliseconds(latencies.max())),
        });
        for (percentile, _, key) in PERCENTILES {
            latency[key] = json!(value_at(latencies, percentile).map(milliseconds));
        }
        let histogram = buckets(latencies).into_iter().map(|bucket| {
            json!({ "from": milliseconds(bucket.from), "to": milliseconds(bucket.to), "count": bucket.count })
        });
        json!({
            "connections": self.demand.connections,
            "rate": self.demand.rate,
            "seconds": elapsed.as_secs_f64(),
            "sessions": figures.sessions,
            "messages": latencies.len(),
            "messages_per_second": per_second(latencies.len(), elapsed),
            "dispositions": figures.dispositions,
            "errors": figures.errors,
            "late": figures.late,
            "not_begun": self.not_begun(&figures),
            "latency": latency,
            "histogram": histogram.collect::<Vec<_>>(),
            "processors": processors(),
            "own_processor_seconds": self.own_processor().as_secs_f64(),
        })
    }
}

fn processors() -> usize {
    available_parallelism().map_or(1, std::num::NonZero::get)
}

fn per_second(messages: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { messages as f64 / elapsed.as_secs_f64() }
}

fn disposition(delivery: &Delivery) -> &'static str {
    match delivery.disposition {
        Disposition::Accepted if delivery.mail.envelope.quarantine.is_some() => "quarantined",
        Disposition::Accepted => "accepted",
        Disposition::Rejected(_) => "rejected",
        Disposition::TempFailed(_) => "tempfailed",
        Disposition::Discarded => "discarded",
        Disposition::GivenUp => "given up",
    }
}

/// A percentile, if enough messages took longer.
fn value_at(latencies: &Histogram<u64>, percentile: f64) -> Option<u64> {
    let above = latencies.len() as f64 * (100.0 - percentile) / 100.0;
    (above >= MESSAGES_ABOVE).then(|| latencies.value_at_percentile(percentile))
}

/// How many messages took so many microseconds, from `from` on and less than `to`.
struct Bucket {
    from: u64,
    to: u64,
    count: u64,
}

/// All from the fastest message to the slowest, between 1, 2, 5, 10, 20, 50 and so on.
fn buckets(latencies: &Histogram<u64>) -> Vec<Bucket> {
    let mut limits = (0..).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)));
    let mut buckets = Vec::new();
    let mut open = Bucket { from: 0, to: 0, count: 0 };
    for recorded in latencies.iter_recorded() {
        while recorded.value_iterated_to() >= open.to {
            let next = Bucket { from: open.to, to: limits.next().unwrap_or(u64::MAX), count: 0 };
            let full = std::mem::replace(&mut open, next);
            if full.count > 0 || !buckets.is_empty() {
                buckets.push(full);
            }
        }
        open.count += recorded.count_at_value();
    }
    if open.count > 0 {
        buckets.push(open);
    }
    buckets
}

/// Runs it: starts the connections, and tells a terminal how far they are.
pub fn run(load: &Load, options: &Options, inputs: &Inputs, output: &Shared) {
    let client = options.smtp_client();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..load.demand.connections {
            let work = || {
                while let Some(turn) = load.turn() {
                    if let Err(error) = session(load, options, inputs, &client, turn) {
                        load.failed(&error, options);
                        sleep(REST);
                    }
                }
            };
            match Builder::new().stack_size(STACK).spawn_scoped(scope, work) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    let address = format!("{} with another thread", options.socket);
                    load.failed(&Error::Connect { address, source }, options);
                    break;
                }
            }
        }
        while threads.iter().any(|thread| !thread.is_finished()) {
            sleep(TICK.min(load.demand.duration));
            let messages = load.figures.lock().latencies.len();
            let elapsed = load.started.elapsed();
            output.tell(|output| {
                output.progress(&format!("{messages} messages, {:.1} s", elapsed.as_secs_f64()))
            });
        }
    });
}

/// One connection, for as many messages as it shall have.
fn session(
    load: &Load,
    options: &Options,
    inputs: &Inputs,
    client: &Client,
    turn: Turn,
) -> Result<(), Error> {
    let like = options.like();
    let values = MacroValues::new(options.macros.clone());
    let session = reach(options, &values)?.with_policy(options.policy())?;
    load.figures.lock().sessions += 1;
    let mut silent = |_: &Exchange| {};
    let mut player = Player::new(session, like, client, values, &mut silent);
    greet(&mut player, options)?;
    let mut turn = turn;
    for left in (0..options.repeat).rev() {
        let number = usize::try_from(turn.number).unwrap_or(usize::MAX);
        let input = &inputs.messages[number % inputs.messages.len()];
        let delivery = player.deliver(&submission(options, client, number, &input.message))?;
        load.delivered(&turn, &delivery);
        // A filter that has decided on the connection will not be asked again.
        if left == 0 || player.is_decided() {
            break;
        }
        match load.turn() {
            Some(next) => turn = next,
            None => break,
        }
    }
    player.leave()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(values: &[(u64, u64)]) -> Histogram<u64> {
        let mut latencies = Histogram::new_with_bounds(1, LONGEST, 3).unwrap();
        values.iter().for_each(|&(value, count)| latencies.saturating_record_n(value, count));
        latencies
    }

    #[test]
    fn every_message_is_in_one_bucket() {
        let counts = |values: &[(u64, u64)]| -> Vec<_> {
            buckets(&latencies(values)).iter().map(|bucket| (bucket.from, bucket.to, bucket.count)).collect()
        };
        assert_eq!(counts(&[]), []);
        assert_eq!(counts(&[(0, 3)]), [(0, 1, 3)]);
        assert_eq!(counts(&[(70, 1)]), [(50, 100, 1)]);
        assert_eq!(
            counts(&[(100, 1), (199, 1), (200, 2), (1_999, 5)]),
            [(100, 200, 2), (200, 500, 2), (500, 1_000, 0), (1_000, 2_000, 5)]
        );
        let many: Vec<_> = (1..200).map(|step| (step * step * 997, step)).collect();
        let all: u64 = many.iter().map(|(_, count)| count).sum();
        assert_eq!(counts(&many).iter().map(|(_, _, count)| count).sum::<u64>(), all);
    }

    #[test]
    fn percentiles_need_messages_above_them() {
        let few = latencies(&[(10, 999)]);
        assert_eq!([50.0, 90.0, 99.0].map(|at| value_at(&few, at).is_some()), [true, true, false]);
        let enough = latencies(&[(10, 990), (20, 10)]);
        assert_eq!((value_at(&enough, 50.0), value_at(&enough, 99.0)), (Some(10), Some(10)));
        assert_eq!(value_at(&enough, 99.9), None);
    }

    #[test]
    fn a_rate_says_when_messages_are_due() {
        let duration = Duration::from_millis(100);
        let load = Load::new(Demand { connections: 1, rate: Some(50.0), duration });
        let turns: Vec<_> = std::iter::from_fn(|| load.turn()).collect();
        let due: Vec<_> = turns.iter().map(|turn| (turn.due - load.started).as_millis()).collect();
        // A machine that is busy may let some of the last ones go by, but none moves.
        assert!(!due.is_empty() && due.len() <= 5 && due == [0, 20, 40, 60, 80][..due.len()], "{due:?}");
        assert!(turns.iter().all(|turn| Instant::now() >= turn.due));
        assert_eq!(load.not_begun(&load.figures.lock()), 5);
    }

    #[test]
    fn the_next_message_may_be_due_behind_the_end_of_time() {
        let demand = Demand { connections: 1, rate: Some(1e-300), duration: Duration::from_secs(60) };
        let load = Load::new(demand);
        assert!(load.turn().is_some() && load.turn().is_none());
    }
}
