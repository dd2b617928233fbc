//! Many silent connections: what silence costs, and what one connection that talks notices of it.

use std::ffi::OsString;
use std::io;
use std::thread;
use std::time::Duration;

use crate::link::{Address, Link};
use crate::message::{Script, Shape};
use crate::stats::quantile;
use crate::subject::Server;

fn idlers(address: &Address, script: &Script, count: usize) -> io::Result<Vec<Link>> {
    (0..count).map(|_| Link::open(address, script)).collect()
}

/// What silent connections cost.
pub struct Silence {
    /// Bytes for each connection: resident memory, page tables, kernel stacks.
    pub bytes: f64,
    /// Threads of the process.
    pub threads: u64,
    /// Share of a CPU that the process uses while nothing happens.
    pub cpu: f64,
    /// How often in a second one of its threads wakes up meanwhile.
    pub wakeups: f64,
    /// Among the silent ones, half of the commands of a session without pauses are answered sooner.
    pub busy: Duration,
    /// The same for a session that pauses 3 ms before each command.
    pub pausing: Duration,
}

/// Connects so many, lets them fall silent, and looks at the process; then lets one more connection talk.
pub fn silence(server: &Server, count: usize) -> io::Result<Silence> {
    const SETTLE: Duration = Duration::from_millis(1500);
    const REST: Duration = Duration::from_secs(3);
    const MESSAGES: usize = 100;
    let script = Script::new(Shape::default());
    // What the first few connections cost once and for all is no connection's own cost.
    drop(idlers(server.address(), &script, 4)?);
    thread::sleep(SETTLE);
    let before = server.footprint();
    let silent = idlers(server.address(), &script, count)?;
    thread::sleep(SETTLE);
    let after = server.footprint();
    let threads = server.threads();
    // Threads that were needed to connect may take their time to end.
    thread::sleep(SETTLE);
    let (cpu, slept) = (server.cpu_time(), server.sleeps());
    thread::sleep(REST);
    let cpu = (server.cpu_time() - cpu).as_secs_f64() / REST.as_secs_f64();
    let more = |(thread, sleeps): (OsString, u64)| sleeps - slept.get(&thread).copied().unwrap_or_default();
    let wakeups = server.sleeps().into_iter().map(more).sum::<u64>() as f64 / REST.as_secs_f64();
    let mut live = Link::open(server.address(), &script)?;
    let mut typical = |messages: usize, pause: Duration| {
        let mut waited = Vec::new();
        for _ in 0..messages {
            waited.extend(live.play_slowly(&script.message, pause)?);
        }
        waited.sort_unstable();
        io::Result::Ok(quantile(&waited, 0.5))
    };
    let busy = typical(MESSAGES, Duration::ZERO)?;
    let pausing = typical(MESSAGES / 20, Duration::from_millis(3))?;
    drop(silent);
    let bytes = after.saturating_sub(before) as f64 / count as f64;
    Ok(Silence { bytes, threads, cpu, wakeups, busy, pausing })
}

/// Allows this process, and those it starts, as many open sockets as the scenarios need.
pub fn raise_descriptor_limit() {
    const NEEDED: libc::rlim_t = 16_384;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes to the structure, setrlimit reads it.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = NEEDED.max(limit.rlim_cur);
            limit.rlim_max = NEEDED.max(limit.rlim_max);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    assert!(raised, "10,000 connections need `ulimit -n` at {NEEDED}: {}", io::Error::last_os_error());
}
