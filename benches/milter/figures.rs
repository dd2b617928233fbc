//! Everything that one run measures, and how much effort goes into each part: much for the document, little for a
//! quick look. It gathers; what the figures say is told by `report`.

use std::time::Duration;

use crate::counters::{self, Counts};
use crate::crowd::{self, Busy, Crowd, Silence};
use crate::measure::{self, Effort, Outcome};
use crate::rounds::Rounds;
use crate::scenario::{self, Scenario};
use crate::selection::Selection;
use crate::subject::{Server, Subject, Wants, Workshop};

/// One scenario and what each subject reached in it.
pub struct Row {
    /// Which.
    pub scenario: &'static Scenario,
    /// Debian's libmilter first.
    pub outcomes: Vec<Outcome>,
}

/// So many busy connections, and what each subject made of them.
pub struct Level {
    /// How many.
    pub connections: usize,
    /// What was timed.
    pub rounds: Rounds<Busy>,
    /// What was counted, for a message.
    pub counts: Vec<(Subject, Counts)>,
}

impl Level {
    /// All latencies of a subject, sorted.
    pub fn latencies(&self, subject: Subject) -> Vec<Duration> {
        let mut all: Vec<Duration> =
            self.rounds.of(subject).iter().flat_map(|busy| busy.latencies.iter().copied()).collect();
        all.sort_unstable();
        all
    }

    /// Calls and context switches for a message.
    pub fn counts(&self, subject: Subject) -> Option<Counts> {
        self.counts.iter().find(|(which, _)| *which == subject).map(|(_, counts)| *counts)
    }
}

/// So many silent connections, and what they cost each subject.
pub struct Rest {
    /// How many.
    pub connections: usize,
    /// In the order of the tables.
    pub costs: Vec<(Subject, Silence)>,
}

/// All of it.
pub struct Figures {
    /// The scenarios with targets.
    pub rows: Vec<Row>,
    /// Single scenarios with a client that interrupts the server.
    pub eager: Vec<Row>,
    /// User-space instructions for a message in S1.
    pub instructions: Vec<(Subject, f64)>,
    /// Busy connections, few to many.
    pub levels: Vec<Level>,
    /// Silent connections, few to many.
    pub rests: Vec<Rest>,
}

/// How thorough a run is.
pub struct Plan {
    /// Whom to measure, Debian's libmilter first.
    pub subjects: Vec<Subject>,
    /// For the scenarios.
    pub scenarios: Effort,
    /// Whom to measure with busy connections.
    pub busy_subjects: Vec<Subject>,
    /// For the busy connections.
    pub busy: Effort,
    /// How many busy connections.
    pub levels: &'static [usize],
    /// How many silent ones.
    pub silent: &'static [usize],
    /// To whom.
    pub rested: Vec<Subject>,
    /// Whether to repeat single scenarios with a client that interrupts.
    pub eager: bool,
}

impl Plan {
    /// For docs/performance.md.
    pub fn full() -> Self {
        Self {
            subjects: Subject::ALL.to_vec(),
            scenarios: Effort { rounds: 15, slice: Duration::from_millis(150) },
            busy: Effort { rounds: 7, slice: Duration::from_millis(300) },
            busy_subjects: Subject::ALL.to_vec(),
            levels: &[1, 2, 4, 8, 16, 64, 256, 1000],
            silent: &[100, 1000, 10_000],
            rested: Subject::ALL.to_vec(),
            eager: true,
        }
    }

    /// For a look at the targets.
    pub fn quick() -> Self {
        Self {
            subjects: vec![Subject::Debian, Subject::Ours],
            scenarios: Effort { rounds: 5, slice: Duration::from_millis(120) },
            busy: Effort { rounds: 5, slice: Duration::from_millis(200) },
            busy_subjects: vec![Subject::Debian, Subject::Ours, Subject::BareEpoll],
            levels: &[8, 64, 256, 1000],
            silent: &[10_000],
            rested: vec![Subject::Ours],
            eager: false,
        }
    }

    /// Measures what is selected, telling on standard error what it is at.
    pub fn run(&self, workshop: &Workshop, selection: &Selection) -> Figures {
        crowd::raise_descriptor_limit();
        let row = |scenario: &'static Scenario, subjects: &[Subject]| {
            eprintln!("{} ({})", scenario.id, scenario.title);
            let effort = Effort {
                rounds: selection.rounds(self.scenarios.rounds, self.scenarios.slice),
                ..self.scenarios
            };
            let outcomes = measure::run(workshop, scenario, &selection.of(subjects), effort);
            Row { scenario, outcomes }
        };
        let rows = |table: &'static [Scenario], subjects: &[Subject]| {
            let wanted = table.iter().filter(|scenario| selection.wants(scenario.id));
            wanted.map(|scenario| row(scenario, subjects)).collect::<Vec<_>>()
        };
        let yardsticks = [Subject::Debian, Subject::Ours, Subject::Bare];
        let levels = self.levels.iter().filter(|connections| selection.wants(&format!("busy-{connections}")));
        let silent = self.silent.iter().filter(|connections| selection.wants(&format!("idle-{connections}")));
        Figures {
            rows: rows(&scenario::ALL, &self.subjects),
            eager: if self.eager { rows(&scenario::EAGER, &yardsticks) } else { Vec::new() },
            instructions: selection
                .of(&yardsticks)
                .into_iter()
                .filter(|_| selection.wants("instructions"))
                .map(|subject| {
                    eprintln!("instructions of {}", subject.name());
                    (subject, measure::instructions(workshop, &scenario::S1, subject, workshop.scratch()))
                })
                .collect(),
            levels: levels.map(|&connections| self.level(workshop, selection, connections)).collect(),
            rests: silent.map(|&connections| self.rest(workshop, connections)).collect(),
        }
    }

    fn level(&self, workshop: &Workshop, selection: &Selection, connections: usize) -> Level {
        eprintln!("{connections} busy connections");
        let subjects = selection.of(&self.busy_subjects);
        let servers: Vec<Server> =
            subjects.iter().map(|&subject| workshop.start(subject, Wants::default(), &[])).collect();
        let mut crowds: Vec<Crowd> = servers
            .iter()
            .map(|server| Crowd::gather(server.address(), connections).expect("connections"))
            .collect();
        let rounds = selection.rounds(self.busy.rounds, self.busy.slice);
        let mut talk = |which: usize, length| {
            let busy = crowds[which].talk(&servers[which], length);
            busy.unwrap_or_else(|error| panic!("{:?}: {error}", subjects[which]))
        };
        let rounds = Rounds::measured(&subjects, rounds, |which| {
            // The first moments are spent waking up.
            talk(which, self.busy.slice / 4);
            talk(which, self.busy.slice)
        });
        let counts = (0..subjects.len()).map(|which| {
            talk(which, self.busy.slice / 4);
            let load = || Ok(talk(which, self.busy.slice).messages);
            (subjects[which], counters::count_while(workshop, &servers[which], load).expect("perf"))
        });
        Level { connections, counts: counts.collect(), rounds }
    }

    fn rest(&self, workshop: &Workshop, connections: usize) -> Rest {
        let costs = self.rested.iter().map(|&subject| {
            eprintln!("{connections} silent connections to {}", subject.name());
            let server = workshop.start(subject, Wants::default(), &[]);
            (subject, crowd::silence(&server, connections).expect("connections"))
        });
        Rest { connections, costs: costs.collect() }
    }
}
