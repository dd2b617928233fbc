//! Everything that one run has measured. What the figures say is told by `report` and `goals`.

use std::time::Duration;

use crate::busy::Busy;
use crate::counters::Counts;
use crate::idle::Silence;
use crate::measure::Row;
use crate::rounds::{PerSubject, Rounds};
use crate::subject::Subject;

/// So many busy connections, and what each subject made of them.
pub struct Level {
    /// How many.
    pub connections: usize,
    /// What was timed.
    pub rounds: Rounds<Busy>,
    /// What was counted, for a message.
    pub counts: PerSubject<Counts>,
}

impl Level {
    /// All latencies of a subject, sorted.
    pub fn latencies(&self, subject: Subject) -> Vec<Duration> {
        let rounds = self.rounds.rounds(subject).iter();
        let mut all: Vec<Duration> = rounds.flat_map(|busy| busy.latencies.iter().copied()).collect();
        all.sort_unstable();
        all
    }
}

/// What busy connections give without and with others whose callbacks take long.
pub struct Neighbours {
    /// While those others are silent.
    pub without: Busy,
    /// While they keep as many threads asleep.
    pub with: Busy,
}

/// So many silent connections, and what they cost each subject.
pub struct Rest {
    /// How many.
    pub connections: usize,
    /// For each subject.
    pub costs: PerSubject<Silence>,
}

/// All of it.
pub struct Figures {
    /// One connection at a time.
    pub rows: Vec<Row>,
    /// Some of the same with a client under SCHED_BATCH.
    pub batch: Vec<Row>,
    /// S1 on our library, without and with metrics.
    pub metrics: Option<Row>,
    /// User-space instructions for a message in S1.
    pub instructions: Option<PerSubject<f64>>,
    /// How many times as long it takes this processor to receive a large frame at the start of a page.
    pub page_start: Option<f64>,
    /// Busy connections, few to many.
    pub levels: Vec<Level>,
    /// Busy connections beside slow callbacks.
    pub neighbours: Option<Rounds<Neighbours>>,
    /// How long 60 callbacks of one second take that begin at the same time.
    pub at_once: Option<PerSubject<Duration>>,
    /// Silent connections, few to many.
    pub rests: Vec<Rest>,
}
