//! Everything that one run measures, and how much effort goes into each part: much for the document, little for a
//! quick look. It gathers; what the figures say is told by `report`.

use std::time::Duration;

use crate::crowd::{self, Busy, Crowd, Silence};
use crate::measure::{self, Effort, Outcome};
use crate::scenario::{self, Scenario};
use crate::stats::median;
use crate::subject::{Server, Subject, Wants, Workshop};

/// One scenario and what each subject reached in it.
pub struct Row {
    /// Which.
    pub scenario: &'static Scenario,
    /// Debian's libmilter first.
    pub outcomes: Vec<Outcome>,
}

/// So many busy connections, and each subject's rounds.
pub struct Level {
    /// How many.
    pub connections: usize,
    /// One entry for each round; the same round ran at about the same time for all subjects.
    pub runs: Vec<(Subject, Vec<Busy>)>,
}

impl Level {
    fn rounds(&self, subject: Subject) -> &[Busy] {
        self.runs.iter().find(|(which, _)| *which == subject).map_or(&[], |(_, rounds)| rounds)
    }

    /// The median of a figure over the rounds of a subject.
    pub fn typical(&self, subject: Subject, figure: impl Fn(&Busy) -> f64) -> f64 {
        median(self.rounds(subject).iter().map(figure).collect())
    }

    /// The median of each round's ratio of a figure between two subjects.
    pub fn ratio(&self, subject: Subject, to: Subject, figure: impl Fn(&Busy) -> f64) -> f64 {
        let pairs = self.rounds(subject).iter().zip(self.rounds(to));
        median(pairs.map(|(one, other)| figure(one) / figure(other)).collect())
    }

    /// All latencies of a subject, sorted.
    pub fn latencies(&self, subject: Subject) -> Vec<Duration> {
        let mut all: Vec<Duration> =
            self.rounds(subject).iter().flat_map(|busy| busy.latencies.iter().copied()).collect();
        all.sort_unstable();
        all
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
            levels: &[1, 4, 16, 64, 256, 1000],
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
            levels: &[64, 1000],
            silent: &[10_000],
            rested: vec![Subject::Ours],
            eager: false,
        }
    }

    /// Measures, telling on standard error what it is at.
    pub fn run(&self, workshop: &Workshop) -> Figures {
        crowd::raise_descriptor_limit();
        let row = |scenario: &'static Scenario, subjects: &[Subject]| {
            eprintln!("{} ({})", scenario.id, scenario.title);
            Row { scenario, outcomes: measure::run(workshop, scenario, subjects, self.scenarios) }
        };
        let yardsticks = [Subject::Debian, Subject::Ours, Subject::Bare];
        Figures {
            rows: scenario::ALL.iter().map(|scenario| row(scenario, &self.subjects)).collect(),
            eager: match self.eager {
                true => scenario::EAGER.iter().map(|scenario| row(scenario, &yardsticks)).collect(),
                false => Vec::new(),
            },
            instructions: yardsticks
                .into_iter()
                .filter(|subject| self.subjects.contains(subject))
                .map(|subject| {
                    eprintln!("instructions of {}", subject.name());
                    (subject, measure::instructions(workshop, &scenario::S1, subject, workshop.scratch()))
                })
                .collect(),
            levels: self.levels.iter().map(|&connections| self.level(workshop, connections)).collect(),
            rests: self.silent.iter().map(|&connections| self.rest(workshop, connections)).collect(),
        }
    }

    fn level(&self, workshop: &Workshop, connections: usize) -> Level {
        eprintln!("{connections} busy connections");
        let mut subjects = self.subjects.clone();
        if !subjects.contains(&Subject::Plain) {
            subjects.push(Subject::Plain);
        }
        let servers: Vec<Server> =
            subjects.iter().map(|&subject| workshop.start(subject, Wants::default(), &[])).collect();
        let mut crowds: Vec<Crowd> = servers
            .iter()
            .map(|server| Crowd::gather(server.address(), connections).expect("connections"))
            .collect();
        let mut runs: Vec<(Subject, Vec<Busy>)> =
            subjects.iter().map(|&subject| (subject, Vec::new())).collect();
        for _ in 0..self.busy.rounds {
            for (crowd, (subject, rounds)) in crowds.iter_mut().zip(&mut runs) {
                // The first moments are spent waking up.
                for length in [self.busy.slice / 4, self.busy.slice] {
                    let busy = crowd.talk(length).unwrap_or_else(|error| panic!("{subject:?}: {error}"));
                    if length == self.busy.slice {
                        rounds.push(busy);
                    }
                }
            }
        }
        Level { connections, runs }
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
