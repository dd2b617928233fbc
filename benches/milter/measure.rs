//! Plays a scenario against running servers in short slices, one server after the other, round after round; and
//! counts system calls, context switches and instructions in runs of their own.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::counters::{Counts, count_while};
use crate::cpu::{self, SharedCpu};
use crate::link::{Address, Link};
use crate::message::Script;
use crate::rounds::{PerSubject, Rounds};
use crate::scenario::Scenario;
use crate::subject::{Server, Subject, Wants, Workshop};

/// What one slice gave.
#[derive(Clone, Copy)]
pub struct Slice {
    /// Messages in a second.
    pub throughput: f64,
    /// Seconds of the filter's CPU time for a message.
    pub cpu: f64,
}

/// One scenario and what each subject reached in it.
pub struct Row {
    /// Which.
    pub scenario: &'static Scenario,
    /// What was timed.
    pub rounds: Rounds<Slice>,
    /// What was counted, for a message.
    pub counts: PerSubject<Counts>,
}

/// How long and how often.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Rounds over all subjects.
    pub rounds: usize,
    /// One subject's share of a round.
    pub slice: Duration,
}

/// One connection of a scenario, from connect to quit; the time spent waiting for answers, where there are
/// silences.
fn connection(
    address: &Address,
    scenario: &Scenario,
    script: &Script,
    messages: u32,
) -> io::Result<Duration> {
    let mut waited = Duration::ZERO;
    let mut link = Link::open(address, script)?;
    for _ in 0..messages {
        match scenario.silence {
            None => link.play(&script.message)?,
            Some(silence) => waited += link.play_slowly(&script.message, silence)?.iter().sum::<Duration>(),
        }
    }
    link.quit(script)?;
    Ok(waited)
}

fn slice(server: &Server, scenario: &Scenario, script: &Script, length: Duration) -> Slice {
    let mut messages = 0;
    let mut waited = Duration::ZERO;
    let cpu = server.cpu_time();
    let start = Instant::now();
    while start.elapsed() < length {
        waited += connection(server.address(), scenario, script, scenario.messages).expect(scenario.id);
        messages += scenario.messages;
    }
    let time = if scenario.silence.is_some() { waited } else { start.elapsed() };
    Slice {
        throughput: f64::from(messages) / time.as_secs_f64(),
        cpu: (server.cpu_time() - cpu).as_secs_f64() / f64::from(messages),
    }
}

/// Measures those of the subjects that can play the scenario.
pub fn run(workshop: &Workshop, scenario: &'static Scenario, subjects: &[Subject], effort: Effort) -> Row {
    let script = Script::new(scenario.shape);
    let subjects: Vec<Subject> =
        subjects.iter().copied().filter(|s| s.can_be_silent() || !scenario.wants.silent_headers).collect();
    let wants = Wants { cpu: Some(cpu::shared()), ..scenario.wants };
    let servers: Vec<Server> = subjects.iter().map(|&subject| workshop.start(subject, wants, &[])).collect();
    let _shared = SharedCpu::enter(scenario.batch).expect("a CPU to run on");
    // Silences leave no time for more than a few messages.
    let length = if scenario.silence.is_some() { 4 * effort.slice } else { effort.slice };
    for server in &servers {
        slice(server, scenario, &script, length / 4);
    }
    let rounds =
        Rounds::measured(&subjects, effort.rounds, |which| slice(&servers[which], scenario, &script, length));
    let messages = scenario.counted.max(scenario.messages);
    let counts = PerSubject::of(&subjects, |which| {
        let server = &servers[which];
        let load = || load(server.address(), scenario, messages).map(|()| f64::from(messages));
        count_while(workshop, server, load).expect("perf and its tracepoints: run `make bench-deps`, as root")
    });
    Row { scenario, rounds, counts }
}

/// So many messages of a scenario, and nothing else.
fn load(address: &Address, scenario: &Scenario, messages: u32) -> io::Result<()> {
    let script = Script::new(scenario.shape);
    for _ in 0..messages / scenario.messages {
        connection(address, scenario, &script, scenario.messages)?;
    }
    Ok(())
}

/// The server's user-space instructions for a message, by callgrind; the profile stays in `keep`.
pub fn instructions(workshop: &Workshop, scenario: &Scenario, subject: Subject, keep: &Path) -> f64 {
    const MESSAGES: u32 = 200;
    /// Before them: more than the sessions of which this library keeps something, so that no more memory is asked for.
    const WARM_UP: u32 = 400;
    let out = keep.join(format!("callgrind.{subject:?}"));
    let wrapper = ["valgrind".to_owned(), "-q".to_owned(), "--tool=callgrind".to_owned()];
    let server = workshop.start(
        subject,
        scenario.wants,
        &[wrapper.as_slice(), &[format!("--callgrind-out-file={}", out.display())]].concat(),
    );
    let tell = |what: &str| {
        let told = Command::new("vgdb").arg(format!("--pid={}", server.pid())).arg(what).output();
        assert!(told.is_ok_and(|told| told.status.success()), "vgdb {what}");
    };
    load(server.address(), scenario, WARM_UP).expect(scenario.id);
    server.settle();
    tell("zero");
    load(server.address(), scenario, MESSAGES).expect(scenario.id);
    server.settle();
    tell("dump");
    let profile = std::fs::read_to_string(out.with_extension(format!("{subject:?}.1"))).expect("a profile");
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    total.trim().parse::<f64>().expect("a number") / f64::from(MESSAGES)
}
