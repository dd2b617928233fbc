//! The numbers of a server, for Prometheus. Threads count in shards of their own, so that they do not wait for one
//! another's caches; whoever asks gets the sums ([`show`]). Only the beginning and the end of a session take a lock.

mod names;
mod show;

use super::{Ending, Fault, Observed};
use crate::protocol::Kind;
use names::{BOUNDS, CALLBACKS, ENDINGS, FAULTS, MACROS, MISSING, MODIFICATIONS, VERDICTS};
use parking_lot::Mutex;
use std::array::from_fn;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many shards there are.
const SHARDS: usize = 16;

/// Since when a callback of a session runs, in [nanoseconds](crate::sys::clock::nanoseconds), or 0 when none runs.
#[derive(Debug, Default)]
pub struct Running(AtomicU64);

impl Running {
    pub fn begin(&self, now: u64) {
        self.0.store(now.max(1), Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The numbers.
#[derive(Debug)]
pub struct Metrics {
    name: String,
    /// A callback that runs for so long counts as stuck.
    stuck_after: Duration,
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
    pub fn new(name: &CStr, stuck_after: Duration) -> Self {
        Self {
            name: name.to_string_lossy().into_owned(),
            stuck_after,
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

    /// A callback has taken so many nanoseconds.
    pub fn called(&self, kind: Kind, status: Option<i32>, time: u64) {
        let Some(place) = CALLBACKS.iter().position(|(known, _)| *known == kind) else { return };
        let callback = &self.shard().callbacks[place];
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
}
