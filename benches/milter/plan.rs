//! What is measured, against whom, and how much effort goes into each part: much for the document, little for a
//! quick look.

use std::time::Duration;

use crate::busy::{Connections, Talking};
use crate::counters;
use crate::figures::{Figures, Level, Neighbours, Rest};
use crate::idle;
use crate::measure::{self, Effort, Row};
use crate::placement;
use crate::rounds::{PerSubject, Rounds};
use crate::scenario::{self, Scenario};
use crate::selection::Selection;
use crate::subject::{Server, Subject, Wants, Workshop};

/// How many connections are busy.
const LEVELS: [usize; 7] = [1, 2, 4, 8, 64, 256, 1000];

/// How many are idle.
const IDLE: [usize; 2] = [1000, 10_000];

/// Of so many connections some have slow callbacks.
const BESIDE: usize = 64;
const SLOW: usize = 8;
const SLOW_CALLBACK: Duration = Duration::from_millis(50);

/// So many callbacks that begin at the same time, and how long each takes.
const AT_ONCE: usize = 60;
const LONG_CALLBACK: Duration = Duration::from_secs(1);

/// How thorough a run is.
pub struct Plan {
    /// Whether to measure everybody, or only those that the targets speak of.
    everybody: bool,
    /// For one connection at a time.
    single: Effort,
    /// For many.
    busy: Effort,
}

impl Plan {
    /// For docs/performance.md.
    pub fn full() -> Self {
        Self {
            everybody: true,
            single: Effort { rounds: 15, slice: Duration::from_millis(150) },
            busy: Effort { rounds: 7, slice: Duration::from_millis(300) },
        }
    }

    /// For a look at the targets.
    pub fn quick() -> Self {
        Self {
            everybody: false,
            single: Effort { rounds: 5, slice: Duration::from_millis(120) },
            busy: Effort { rounds: 5, slice: Duration::from_millis(200) },
        }
    }

    /// The names of all scenarios.
    pub fn scenarios() -> Vec<String> {
        let single = scenario::ALL.iter().chain(&scenario::BATCH).map(|scenario| scenario.id.to_owned());
        let busy = LEVELS.iter().map(|&connections| busy_id(connections));
        let idle = IDLE.iter().map(|&connections| idle_id(connections));
        let others = [scenario::METRICS.id, "instructions", "page-start", "neighbours", "at-once"];
        let others = others.map(str::to_owned);
        single.chain(others).chain(busy).chain(idle).collect()
    }

    /// Measures what is selected, telling on standard error what it is at.
    pub fn run(&self, workshop: &Workshop, selection: &Selection) -> Figures {
        idle::raise_descriptor_limit();
        let run = Run { plan: self, workshop, selection };
        let wanted = |id: &str| selection.wants(id);
        Figures {
            rows: run.rows(&scenario::ALL, &run.subjects(&[Subject::BareEpoll])),
            batch: run.rows(&scenario::BATCH, &YARDSTICKS),
            metrics: wanted(scenario::METRICS.id).then(|| run.metrics()),
            instructions: wanted("instructions").then(|| run.instructions()),
            page_start: wanted("page-start").then(|| {
                eprintln!("receiving at the start of a page");
                placement::cost_of_page_start().expect("a pair of sockets")
            }),
            levels: run.levels(),
            neighbours: wanted("neighbours").then(|| run.neighbours()),
            at_once: wanted("at-once").then(|| run.at_once()),
            rests: run.rests(),
        }
    }
}

/// Those that the targets for a single connection speak of.
const YARDSTICKS: [Subject; 4] = [Subject::Debian, Subject::Ours, Subject::Bare, Subject::Least];

/// What the scenario of so many busy connections is called.
pub fn busy_id(connections: usize) -> String {
    format!("busy-{connections}")
}

/// What the scenario of so many idle connections is called.
pub fn idle_id(connections: usize) -> String {
    format!("idle-{connections}")
}

/// A plan being carried out.
struct Run<'a> {
    plan: &'a Plan,
    workshop: &'a Workshop,
    selection: &'a Selection,
}

impl Run<'_> {
    /// Whom to measure, apart from some.
    fn subjects(&self, without: &[Subject]) -> Vec<Subject> {
        let named = |s: &Subject| {
            self.plan.everybody
                || YARDSTICKS.contains(s)
                || matches!(s, Subject::BareTimeout | Subject::BareEpoll)
        };
        let subjects =
            Subject::ALL.into_iter().filter(|subject| named(subject) && !without.contains(subject));
        self.selection.of(&subjects.collect::<Vec<_>>())
    }

    fn start(&self, subjects: &[Subject]) -> Vec<Server> {
        subjects.iter().map(|&subject| self.workshop.start(subject, Wants::default(), &[])).collect()
    }

    fn rows(&self, table: &'static [Scenario], subjects: &[Subject]) -> Vec<Row> {
        let Effort { rounds, slice } = self.plan.single;
        let effort = Effort { rounds: self.selection.rounds(rounds, slice), slice };
        let wanted = table.iter().filter(|scenario| self.selection.wants(scenario.id));
        wanted
            .map(|scenario| {
                eprintln!("{} ({})", scenario.id, scenario.title);
                measure::run(self.workshop, scenario, &self.selection.of(subjects), effort)
            })
            .collect()
    }

    /// A few percent are looked for, so it takes more rounds than other rows.
    fn metrics(&self) -> Row {
        let scenario = &scenario::METRICS;
        eprintln!("{} ({})", scenario.id, scenario.title);
        let Effort { rounds, slice } = self.plan.single;
        let effort = Effort { rounds: self.selection.rounds(3 * rounds, slice), slice };
        measure::run(self.workshop, scenario, &[Subject::Ours, Subject::Observed], effort)
    }

    fn instructions(&self) -> PerSubject<f64> {
        let subjects = self.selection.of(&YARDSTICKS);
        PerSubject::of(&subjects, |which| {
            eprintln!("instructions of {}", subjects[which].name());
            let scratch = self.workshop.scratch();
            measure::instructions(self.workshop, &scenario::S1, subjects[which], scratch)
        })
    }

    fn levels(&self) -> Vec<Level> {
        let wanted = LEVELS.iter().filter(|&&count| self.selection.wants(&busy_id(count)));
        wanted.map(|&connections| self.level(connections)).collect()
    }

    fn level(&self, connections: usize) -> Level {
        eprintln!("{connections} busy connections");
        // The other bare server is no limit there, and slow.
        let without: &[Subject] = match (self.plan.everybody, connections) {
            (true, ..8) => &[],
            (true, 8..) => &[Subject::BareTimeout, Subject::Least],
            (false, ..8) => &[Subject::BareEpoll],
            (false, 8..) => &[Subject::Bare, Subject::BareTimeout, Subject::Least],
        };
        let subjects = self.subjects(without);
        let servers = self.start(&subjects);
        let open = |server: &Server| Connections::open(server.address(), connections, 0, Duration::ZERO);
        let mut crowds: Vec<Connections> =
            servers.iter().map(|server| open(server).expect("connections")).collect();
        let Effort { mut rounds, mut slice } = self.plan.busy;
        if connections < 8 {
            // Where the kernel puts a few threads changes from moment to moment: look more often.
            (rounds, slice) = (3 * rounds, slice / 3);
        }
        let mut talk = |which: usize, length| {
            let busy = crowds[which].talk(&servers[which], Talking::All, length);
            busy.unwrap_or_else(|error| panic!("{:?}: {error}", subjects[which]))
        };
        let rounds = Rounds::measured(&subjects, self.selection.rounds(rounds, slice), |which| {
            // The first moments are spent waking up.
            talk(which, slice / 4);
            talk(which, slice)
        });
        let counts = PerSubject::of(&subjects, |which| {
            let load = || Ok(talk(which, slice / 2).messages);
            counters::count_while(self.workshop, &servers[which], load).expect("perf and its tracepoints")
        });
        Level { connections, rounds, counts }
    }

    fn neighbours(&self) -> Rounds<Neighbours> {
        eprintln!("{SLOW} of {BESIDE} busy connections in callbacks of {SLOW_CALLBACK:?}");
        // One thread for all would sleep all the time.
        let subjects = self.subjects(&[Subject::BareTimeout, Subject::Least, Subject::BareEpoll]);
        let servers = self.start(&subjects);
        let open = |server: &Server| Connections::open(server.address(), BESIDE, SLOW, SLOW_CALLBACK);
        let mut crowds: Vec<Connections> =
            servers.iter().map(|server| open(server).expect("connections")).collect();
        let Effort { rounds, slice } = self.plan.busy;
        Rounds::measured(&subjects, self.selection.rounds(rounds, slice), |which| {
            let mut talk = |talking, length| {
                let busy = crowds[which].talk(&servers[which], talking, length);
                busy.unwrap_or_else(|error| panic!("{:?}: {error}", subjects[which]))
            };
            talk(Talking::Others, slice / 4);
            let without = talk(Talking::Others, slice);
            talk(Talking::All, slice / 4);
            Neighbours { without, with: talk(Talking::All, slice) }
        })
    }

    fn at_once(&self) -> PerSubject<Duration> {
        eprintln!("{AT_ONCE} callbacks of {LONG_CALLBACK:?} at once");
        let subjects = self.subjects(&[Subject::BareTimeout, Subject::Least, Subject::BareEpoll]);
        let servers = self.start(&subjects);
        PerSubject::of(&subjects, |which| {
            Connections::open(servers[which].address(), AT_ONCE, AT_ONCE, LONG_CALLBACK)
                .and_then(|mut connections| connections.sleep_at_once())
                .unwrap_or_else(|error| panic!("{:?}: {error}", subjects[which]))
        })
    }

    fn rests(&self) -> Vec<Rest> {
        let wanted = IDLE.iter().filter(|&&count| self.selection.wants(&idle_id(count)));
        wanted.map(|&connections| self.rest(connections)).collect()
    }

    fn rest(&self, connections: usize) -> Rest {
        let subjects = match self.plan.everybody {
            true => self.subjects(&[Subject::BareTimeout, Subject::Least]),
            false => vec![Subject::Ours],
        };
        let costs = PerSubject::of(&subjects, |which| {
            eprintln!("{connections} silent connections to {}", subjects[which].name());
            let server = self.workshop.start(subjects[which], Wants::default(), &[]);
            idle::silence(&server, connections).expect("connections")
        });
        Rest { connections, costs }
    }
}
