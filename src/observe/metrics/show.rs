//! The numbers as text: sums over the shards, and what is so at the moment.

use super::names::{BOUNDS, CALLBACKS, ENDINGS, FAULTS, MACROS, MISSING, MODIFICATIONS, OTHER, VERDICTS};
use super::{Metrics, Shard};
use crate::observe::Ending;
use crate::observe::exposition::{Exposition, Type};
use crate::protocol::Kind;
use crate::sys::{clock, thread};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

impl Metrics {
    fn sum<'a>(&'a self, counter: impl Fn(&'a Shard) -> &'a AtomicU64) -> u64 {
        self.shards.iter().map(|shard| counter(shard).load(Ordering::Relaxed)).sum()
    }

    /// How long the callbacks that run now have been running.
    fn running(&self) -> Vec<Duration> {
        let now = clock::nanoseconds();
        let live = self.live.lock();
        let since = live.values().map(|observed| observed.running.0.load(Ordering::Relaxed));
        since
            .filter(|since| *since > 0)
            .map(|since| Duration::from_nanos(now.saturating_sub(since)))
            .collect()
    }

    /// All numbers, in the one format or the other.
    pub fn show(&self, out: &mut Exposition) {
        let running = self.running();
        let stuck = running.iter().filter(|time| **time >= self.stuck_after).count();
        let stuck_after = self.stuck_after.as_secs();
        out.family("milter_library_info", Type::Gauge, "The filter and the version of its libmilter-rs.");
        out.sample("", &[("filter", &self.name), ("version", env!("CARGO_PKG_VERSION"))], 1);
        out.family("milter_start_time_seconds", Type::Gauge, "When smfi_main began, in seconds since 1970.");
        out.sample("", &[], self.start_time.as_secs_f64());
        out.family("milter_threads", Type::Gauge, "Threads of the library.");
        out.sample("", &[], thread::count());

        out.family("milter_sessions", Type::Gauge, "Sessions that have not ended.");
        out.sample("", &[], self.live.lock().len());
        let begun = self.begun.load(Ordering::Relaxed);
        self.counter(out, "milter_sessions_started", "Sessions that have begun.", begun);
        self.counters(
            out,
            "milter_sessions_refused",
            "Connections refused for want of something.",
            "missing",
            MISSING.iter().copied(),
            |shard| &shard.refused,
        );
        let reasons = ENDINGS.iter().map(|ending| ending.name());
        self.counters(
            out,
            "milter_session_ends",
            "Sessions that have ended, by the reason.",
            "reason",
            reasons,
            |shard| &shard.endings,
        );
        let timed_out = ENDINGS.iter().position(|ending| *ending == Ending::TimedOut).unwrap_or_default();
        self.counter(
            out,
            "milter_timeouts",
            "Sessions that ended because the MTA was silent, or slow, for too long.",
            self.sum(|shard| &shard.endings[timed_out]),
        );
        self.counters(
            out,
            "milter_protocol_errors",
            "What MTAs did against the protocol.",
            "kind",
            FAULTS.iter().map(|(_, name)| *name),
            |shard| &shard.faults,
        );

        self.counter(
            out,
            "milter_messages",
            "Messages that have begun (MAIL).",
            self.sum(|shard| &shard.messages),
        );
        self.counter(
            out,
            "milter_messages_completed",
            "Messages whose end the filter was told of.",
            self.sum(|shard| &shard.completed),
        );
        self.counter(
            out,
            "milter_received_bytes",
            "Bytes from the MTA.",
            self.sum(|shard| &shard.received_bytes),
        );
        self.counter(out, "milter_sent_bytes", "Bytes to the MTA.", self.sum(|shard| &shard.sent_bytes));
        self.counters(
            out,
            "milter_modifications",
            "Modifications that the filter has made, by kind.",
            "kind",
            MODIFICATIONS.iter().map(|(_, name)| *name),
            |shard| &shard.modifications,
        );
        self.counters(
            out,
            "milter_macros_missing",
            "Macros that the filter has asked for and the MTA has not sent.",
            "macro",
            MACROS.iter().copied().chain([OTHER]),
            |shard| &shard.macros,
        );

        out.family("milter_callbacks_running", Type::Gauge, "Callbacks that run now.");
        out.sample("", &[], running.len());
        out.family(
            "milter_callbacks_stuck",
            Type::Gauge,
            &format!("Callbacks that have been running for {stuck_after} s or longer."),
        );
        out.sample("", &[], stuck);
        out.family(
            "milter_callback_oldest_seconds",
            Type::Gauge,
            "How long the callback has been running that has been running longest.",
        );
        out.sample("", &[], running.iter().max().copied().unwrap_or_default().as_secs_f64());
        self.verdicts(out);
        self.durations(out);
    }

    fn counter(&self, out: &mut Exposition, name: &str, help: &str, value: u64) {
        out.family(name, Type::Counter, help);
        out.sample("_total", &[], value);
    }

    /// One counter for each value of a label.
    fn counters<'a, const N: usize>(
        &'a self,
        out: &mut Exposition,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = &'a str>,
        counters: impl Fn(&Shard) -> &[AtomicU64; N],
    ) {
        out.family(name, Type::Counter, help);
        for (place, value) in values.enumerate() {
            out.sample("_total", &[(label, value)], self.sum(|shard| &counters(shard)[place]));
        }
    }

    fn verdicts(&self, out: &mut Exposition) {
        out.family("milter_callback_verdicts", Type::Counter, "What callbacks have returned.");
        for (callback, (kind, name)) in CALLBACKS.iter().enumerate() {
            if matches!(kind, Kind::Negotiate | Kind::Abort | Kind::Quit) {
                continue;
            }
            for (place, verdict) in VERDICTS.iter().map(|(_, name)| *name).chain([OTHER]).enumerate() {
                let count = self.sum(|shard| &shard.callbacks[callback].verdicts[place]);
                out.sample("_total", &[("callback", name), ("verdict", verdict)], count);
            }
        }
    }

    fn durations(&self, out: &mut Exposition) {
        out.family("milter_callback_duration_seconds", Type::Histogram, "How long callbacks have taken.");
        for (callback, (_, name)) in CALLBACKS.iter().enumerate() {
            let mut count = 0;
            for (place, bound) in BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]).enumerate() {
                count += self.sum(|shard| &shard.callbacks[callback].buckets[place]);
                out.sample("_bucket", &[("callback", name), ("le", bound)], count);
            }
            let sum = Duration::from_nanos(self.sum(|shard| &shard.callbacks[callback].nanoseconds));
            out.sample("_sum", &[("callback", name)], sum.as_secs_f64());
            out.sample("_count", &[("callback", name)], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_are_found_with_and_without_braces() {
        assert!(MACROS.is_sorted(), "they are searched");
        let metrics = Metrics::new(c"name", Duration::from_secs(10));
        for name in [&b"i"[..], b"{i}", b"{auth_type}", b"auth_type", b"{x-own}", b"", b"{"] {
            metrics.macro_is_missing(name);
        }
        let mut out = Exposition::new(false);
        metrics.show(&mut out);
        let text = out.finish();
        for line in ["{macro=\"i\"} 2", "{macro=\"auth_type\"} 2", "{macro=\"other\"} 3", "{macro=\"j\"} 0"] {
            assert!(text.contains(&format!("\nmilter_macros_missing_total{line}\n")), "{line}: {text}");
        }
    }

    #[test]
    fn a_time_is_in_its_bucket_and_all_larger_ones() {
        let metrics = Metrics::new(c"name", Duration::from_secs(10));
        for micros in [50, 51, 200_000_000] {
            metrics.called(Kind::Helo, Some(0), micros * 1000);
        }
        metrics.called(Kind::Helo, Some(5), 0);
        let mut out = Exposition::new(true);
        metrics.show(&mut out);
        let text = out.finish();
        for (le, count) in [("5e-05", 2), ("0.0001", 3), ("100.0", 3), ("+Inf", 4)] {
            let line =
                format!("milter_callback_duration_seconds_bucket{{callback=\"helo\",le=\"{le}\"}} {count}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
        assert!(text.contains("milter_callback_duration_seconds_sum{callback=\"helo\"} 200.000101\n"));
        assert!(text.contains("milter_callback_verdicts_total{callback=\"helo\",verdict=\"other\"} 1\n"));
    }
}
