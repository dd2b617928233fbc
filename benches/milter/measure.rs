//! Plays a scenario against running servers in short slices, one server after the other, round after round, so
//! that whatever else the machine does meets all of them alike; and counts system calls and instructions in runs
//! of their own.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cpu::{self, SharedCpu};
use crate::link::{Address, Link};
use crate::message::Script;
use crate::scenario::Scenario;
use crate::stats::median;
use crate::subject::{Server, Subject, Wants, Workshop};

/// What one slice gave.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Messages in a second.
    pub throughput: f64,
    /// Seconds of the filter's CPU time for a message.
    pub cpu: f64,
}

/// What one subject reached in a scenario.
pub struct Outcome {
    /// Whose figures these are.
    pub subject: Subject,
    /// Medians over the slices.
    pub typical: Sample,
    /// Medians of each round's ratio to Debian's libmilter.
    pub ratio: Sample,
    /// System calls for a message.
    pub calls: f64,
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
    let mut link = Link::open(address)?;
    link.play(&script.open)?;
    for _ in 0..messages {
        match scenario.silence {
            None => link.play(&script.message)?,
            Some(silence) => waited += link.play_slowly(&script.message, silence)?.iter().sum::<Duration>(),
        }
    }
    link.quit(script)?;
    Ok(waited)
}

fn slice(server: &Server, scenario: &Scenario, script: &Script, length: Duration) -> Sample {
    let mut messages = 0;
    let mut waited = Duration::ZERO;
    let cpu = server.cpu_time();
    let start = Instant::now();
    while start.elapsed() < length {
        waited += connection(server.address(), scenario, script, scenario.messages).expect(scenario.id);
        messages += scenario.messages;
    }
    let time = if scenario.silence.is_some() { waited } else { start.elapsed() };
    Sample {
        throughput: f64::from(messages) / time.as_secs_f64(),
        cpu: (server.cpu_time() - cpu).as_secs_f64() / f64::from(messages),
    }
}

fn middle(values: Vec<f64>) -> f64 {
    median(values).expect("at least one round")
}

/// Measures the subjects (Debian's libmilter among them) in one scenario.
pub fn run(workshop: &Workshop, scenario: &Scenario, subjects: &[Subject], effort: Effort) -> Vec<Outcome> {
    let script = Script::new(scenario.shape);
    let subjects: Vec<Subject> =
        subjects.iter().copied().filter(|s| s.can_be_silent() || !scenario.wants.silent_headers).collect();
    let servers: Vec<Server> = subjects
        .iter()
        .map(|&subject| workshop.start(subject, Wants { cpu: Some(cpu::shared()), ..scenario.wants }, &[]))
        .collect();
    let _shared = SharedCpu::enter(scenario.polite).expect("a CPU to run on");
    // Silences leave no time for more than a few messages.
    let length = if scenario.silence.is_some() { 4 * effort.slice } else { effort.slice };
    for server in &servers {
        slice(server, scenario, &script, length / 4);
    }
    let mut samples: Vec<Vec<Sample>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..effort.rounds {
        for turn in 0..servers.len() {
            let which = (round + turn) % servers.len();
            samples[which].push(slice(&servers[which], scenario, &script, length));
        }
    }
    let debian = subjects.iter().position(|&s| s == Subject::Debian).expect("what the ratios are to");
    subjects
        .iter()
        .zip(&samples)
        .zip(&servers)
        .map(|((&subject, own), server)| {
            let pairs = || own.iter().zip(&samples[debian]);
            Outcome {
                subject,
                typical: Sample {
                    throughput: middle(own.iter().map(|s| s.throughput).collect()),
                    cpu: middle(own.iter().map(|s| s.cpu).collect()),
                },
                ratio: Sample {
                    throughput: middle(pairs().map(|(s, d)| s.throughput / d.throughput).collect()),
                    cpu: middle(pairs().map(|(s, d)| s.cpu / d.cpu).collect()),
                },
                calls: calls(server, scenario),
            }
        })
        .collect()
}

/// What [`calls`] has perf run: so many messages of a scenario, and nothing else.
pub fn load(address: &Address, scenario: &Scenario, messages: u32) -> io::Result<()> {
    let script = Script::new(scenario.shape);
    for _ in 0..messages / scenario.messages {
        connection(address, scenario, &script, scenario.messages)?;
    }
    Ok(())
}

/// The server's system calls for a message, counted by the kernel's tracepoint while a process of its own sends
/// the load.
fn calls(server: &Server, scenario: &Scenario) -> f64 {
    let messages = scenario.counted.max(scenario.messages);
    let program = std::env::current_exe().expect("our own path");
    let output = Command::new("perf")
        .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &server.pid().to_string(), "--"])
        .arg(program)
        .args(["load", scenario.id, &server.address().spec(), &messages.to_string()])
        .output()
        .expect("perf is missing: run `make bench-deps`");
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find(|line| line.contains("sys_enter")).and_then(|line| line.split(',').next());
    let count: f64 = count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("perf: {text}"));
    count / f64::from(messages)
}

/// The server's user-space instructions for a message, by callgrind; the profile stays in `keep`.
pub fn instructions(workshop: &Workshop, scenario: &Scenario, subject: Subject, keep: &Path) -> f64 {
    const MESSAGES: u32 = 200;
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
    load(server.address(), scenario, MESSAGES / 4).expect(scenario.id);
    server.settle();
    tell("zero");
    load(server.address(), scenario, MESSAGES).expect(scenario.id);
    server.settle();
    tell("dump");
    let profile = std::fs::read_to_string(out.with_extension(format!("{subject:?}.1"))).expect("a profile");
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    total.trim().parse::<f64>().expect("a number") / f64::from(MESSAGES)
}
