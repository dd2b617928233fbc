//! The numbers of a server, for Prometheus. Threads count in shards of their own, so that they do not wait for one
//! another's caches; whoever asks gets the sums. Only the beginning and the end of a session take a lock.

use super::exposition::{Exposition, Type};
use super::{Ending, Fault, Observed};
use crate::protocol::Kind;
use crate::sys::thread;
use parking_lot::Mutex;
use std::array::from_fn;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many shards there are.
const SHARDS: usize = 16;

/// A callback that runs longer counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The callbacks, by the commands that call them; QUIT calls close.
const CALLBACKS: [(Kind, &str); 13] = [
    (Kind::Negotiate, "negotiate"),
    (Kind::Connect, "connect"),
    (Kind::Helo, "helo"),
    (Kind::Mail, "envfrom"),
    (Kind::Rcpt, "envrcpt"),
    (Kind::Data, "data"),
    (Kind::Unknown, "unknown"),
    (Kind::Header, "header"),
    (Kind::EndOfHeader, "eoh"),
    (Kind::Body, "body"),
    (Kind::EndOfMessage, "eom"),
    (Kind::Abort, "abort"),
    (Kind::Quit, "close"),
];

/// What a callback may return, `SMFIS_*`, and what stands for the rest.
const VERDICTS: [(i32, &str); 7] = [
    (0, "continue"),
    (1, "reject"),
    (2, "discard"),
    (3, "accept"),
    (4, "tempfail"),
    (7, "noreply"),
    (8, "skip"),
];
const OTHER: &str = "other";

/// The upper bounds of the buckets of a histogram: nanoseconds, and as they are shown, in seconds.
const BOUNDS: [(u64, &str); 17] = [
    (50_000, "5e-05"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
    (10_000_000_000, "10.0"),
    (30_000_000_000, "30.0"),
    (100_000_000_000, "100.0"),
];

/// The modifications, by the bytes of their frames.
const MODIFICATIONS: [(u8, &str); 10] = [
    (b'h', "addheader"),
    (b'i', "insheader"),
    (b'm', "chgheader"),
    (b'e', "chgfrom"),
    (b'+', "addrcpt"),
    (b'2', "addrcpt_par"),
    (b'-', "delrcpt"),
    (b'b', "replacebody"),
    (b'q', "quarantine"),
    (b'p', "progress"),
];

/// How sessions end; any [`Fault`] counts as the last one.
const ENDINGS: [Ending; 12] = [
    Ending::Quit,
    Ending::Closed,
    Ending::Stopped,
    Ending::TimedOut,
    Ending::NoMemory,
    Ending::Broken,
    Ending::Unused,
    Ending::NoAgreement,
    Ending::BadStatus,
    Ending::TooLarge,
    Ending::Internal,
    Ending::Fault(Fault::Frame),
];

const FAULTS: [(Fault, &str); 8] = [
    (Fault::Frame, "frame"),
    (Fault::UnknownCommand, "unknown_command"),
    (Fault::NoData, "no_data"),
    (Fault::Unterminated, "unterminated"),
    (Fault::Header, "header"),
    (Fault::Address, "address"),
    (Fault::Negotiation, "negotiation"),
    (Fault::OutOfOrder, "out_of_order"),
];

const MISSING: [&str; 2] = ["thread", "memory"];

/// The macros that MTAs have. There must be no more series than these, whatever a filter asks for.
const MACROS: [&str; 53] = [
    "_",
    "auth_authen",
    "auth_author",
    "auth_ssf",
    "auth_type",
    "b",
    "cert_issuer",
    "cert_subject",
    "cipher",
    "cipher_bits",
    "client_addr",
    "client_connections",
    "client_name",
    "client_port",
    "client_ptr",
    "client_rate",
    "client_resolve",
    "cn_issuer",
    "cn_subject",
    "currHeader",
    "daemon_addr",
    "daemon_family",
    "daemon_info",
    "daemon_name",
    "daemon_port",
    "deliveryMode",
    "envid",
    "f",
    "hdr_name",
    "i",
    "if_addr",
    "if_family",
    "if_name",
    "j",
    "load_avg",
    "mail_addr",
    "mail_host",
    "mail_mailer",
    "msg_id",
    "msg_size",
    "nbadrcpts",
    "nrcpts",
    "ntries",
    "opMode",
    "r",
    "rcpt_addr",
    "rcpt_host",
    "rcpt_mailer",
    "s",
    "server_name",
    "tls_version",
    "v",
    "verify",
];

/// Since when a callback of a session runs: nanoseconds of the metrics' age, or 0 when none runs.
#[derive(Debug, Default)]
pub struct Running(AtomicU64);

impl Running {
    pub fn begin(&self, age: Duration) {
        self.0.store(nanoseconds(age).max(1), Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The numbers.
#[derive(Debug)]
pub struct Metrics {
    name: String,
    start: Instant,
    start_time: Duration,
    shards: Box<[Shard]>,
    begun: AtomicU64,
    /// The sessions that have not ended, by number.
    live: Mutex<HashMap<u64, Arc<Observed>>>,
}

/// What some threads have counted; in cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    messages: AtomicU64,
    completed: AtomicU64,
    callbacks: [Callback; CALLBACKS.len()],
    modifications: [AtomicU64; MODIFICATIONS.len()],
    endings: [AtomicU64; ENDINGS.len()],
    faults: [AtomicU64; FAULTS.len()],
    refused: [AtomicU64; MISSING.len()],
    /// The last one is for all others.
    macros: [AtomicU64; MACROS.len() + 1],
}

#[derive(Debug)]
struct Callback {
    /// The last one has no bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
    /// The last one is for all others.
    verdicts: [AtomicU64; VERDICTS.len() + 1],
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    from_fn(|_| AtomicU64::new(0))
}

fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Ordering::Relaxed);
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Shard {
    fn new() -> Self {
        Self {
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            callbacks: from_fn(|_| Callback {
                buckets: zeros(),
                nanoseconds: AtomicU64::new(0),
                verdicts: zeros(),
            }),
            modifications: zeros(),
            endings: zeros(),
            faults: zeros(),
            refused: zeros(),
            macros: zeros(),
        }
    }
}

impl Metrics {
    pub fn new(name: &CStr) -> Self {
        Self {
            name: name.to_string_lossy().into_owned(),
            start: Instant::now(),
            start_time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            shards: (0..SHARDS).map(|_| Shard::new()).collect(),
            begun: AtomicU64::new(0),
            live: Mutex::default(),
        }
    }

    /// The calling thread's.
    fn shard(&self) -> &Shard {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        if MINE.get() == usize::MAX {
            MINE.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        &self.shards[MINE.get()]
    }

    /// How long it has counted.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    pub fn session_begins(&self, observed: &Arc<Observed>) {
        add(&self.begun, 1);
        self.live.lock().insert(observed.number, Arc::clone(observed));
    }

    pub fn session_ends(&self, observed: &Observed, ending: Ending) {
        let place = ENDINGS.iter().position(|known| *known == ending).unwrap_or(ENDINGS.len() - 1);
        add(&self.shard().endings[place], 1);
        if let Ending::Fault(fault) = ending {
            self.fault(fault);
        }
        self.live.lock().remove(&observed.number);
    }

    pub fn refused(&self, missing: &str) {
        if let Some(place) = MISSING.iter().position(|known| *known == missing) {
            add(&self.shard().refused[place], 1);
        }
    }

    pub fn received(&self, kind: u8, payload: usize) {
        let shard = self.shard();
        add(&shard.received_bytes, payload + crate::protocol::frame::OVERHEAD);
        match kind {
            b'M' => add(&shard.messages, 1),
            b'E' => add(&shard.completed, 1),
            _ => {}
        }
    }

    pub fn sent(&self, frames: &[u8]) {
        let shard = self.shard();
        add(&shard.sent_bytes, frames.len());
        for (kind, _) in super::frames(frames) {
            if let Some(place) = MODIFICATIONS.iter().position(|(known, _)| *known == kind) {
                add(&shard.modifications[place], 1);
            }
        }
    }

    pub fn called(&self, kind: Kind, status: Option<i32>, time: Duration) {
        let Some(place) = CALLBACKS.iter().position(|(known, _)| *known == kind) else { return };
        let callback = &self.shard().callbacks[place];
        let time = nanoseconds(time);
        let bucket = BOUNDS.iter().position(|(bound, _)| time <= *bound).unwrap_or(BOUNDS.len());
        add(&callback.buckets[bucket], 1);
        callback.nanoseconds.fetch_add(time, Ordering::Relaxed);
        if let Some(status) = status {
            let place = VERDICTS.iter().position(|(known, _)| *known == status).unwrap_or(VERDICTS.len());
            add(&callback.verdicts[place], 1);
        }
    }

    pub fn macro_is_missing(&self, name: &[u8]) {
        let name = name.strip_prefix(b"{").and_then(|name| name.strip_suffix(b"}")).unwrap_or(name);
        let place = MACROS.binary_search_by(|known| known.as_bytes().cmp(name)).unwrap_or(MACROS.len());
        add(&self.shard().macros[place], 1);
    }

    pub fn fault(&self, fault: Fault) {
        if let Some(place) = FAULTS.iter().position(|(known, _)| *known == fault) {
            add(&self.shard().faults[place], 1);
        }
    }

    fn sum<'a>(&'a self, counter: impl Fn(&'a Shard) -> &'a AtomicU64) -> u64 {
        self.shards.iter().map(|shard| counter(shard).load(Ordering::Relaxed)).sum()
    }

    /// How long the callbacks that run now have been running.
    fn running(&self) -> Vec<Duration> {
        let now = nanoseconds(self.age(Instant::now()));
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
        let stuck = running.iter().filter(|time| **time >= STUCK_AFTER).count();
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
            "Callbacks that have been running for 10 seconds or longer.",
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
        let metrics = Metrics::new(c"name");
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
        let metrics = Metrics::new(c"name");
        for micros in [50, 51, 200_000_000] {
            metrics.called(Kind::Helo, Some(0), Duration::from_micros(micros));
        }
        metrics.called(Kind::Helo, Some(5), Duration::ZERO);
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
