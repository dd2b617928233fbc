//! Many connections at once, driven by one thread: all busy (throughput, and the latency of each command), or all
//! silent but one (what silence costs, and what the one notices of it).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use crate::link::{Address, Link};
use crate::message::{Script, Shape};
use crate::stats::quantile;
use crate::subject::Server;

/// Readiness of many sockets.
struct Poller(OwnedFd);

impl Poller {
    fn new() -> io::Result<Self> {
        // SAFETY: takes a flag, returns a new descriptor or -1.
        match unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the descriptor is new and nobody else's.
            fd => Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) })),
        }
    }

    fn add(&self, link: &Link, index: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: index as u64 };
        let (poller, socket) = (self.0.as_raw_fd(), link.as_raw_fd());
        // SAFETY: both descriptors are open, and the event lives through the call.
        match unsafe { libc::epoll_ctl(poller, libc::EPOLL_CTL_ADD, socket, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn wait(&self, events: &mut Vec<libc::epoll_event>) -> io::Result<()> {
        let room = events.capacity() as libc::c_int;
        // SAFETY: the vector has room for that many events.
        let ready = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, 10_000) };
        match ready {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer on any connection for 10 s")),
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the kernel has filled in that many.
            ready => unsafe {
                events.set_len(ready as usize);
                Ok(())
            },
        }
    }
}

/// What busy connections gave.
pub struct Busy {
    /// Messages in a second, over all connections.
    pub throughput: f64,
    /// Seconds of the filter's CPU time for a message.
    pub cpu: f64,
    /// How many messages' worth of commands were answered.
    pub messages: f64,
    /// From command to answer, sorted.
    pub latencies: Vec<Duration>,
}

impl Busy {
    /// The latency below which this share of the commands stayed.
    pub fn latency(&self, share: f64) -> Duration {
        quantile(&self.latencies, share)
    }
}

/// Connections that each send a typical message again and again, every command as soon as the one before is
/// answered.
pub struct Crowd {
    script: Script,
    links: Vec<Link>,
    poller: Poller,
    /// Which command each connection waits for, and since when.
    asked: Vec<(usize, Instant)>,
    events: Vec<libc::epoll_event>,
}

impl Crowd {
    /// Connects them all, up to and with HELO.
    pub fn gather(address: &Address, count: usize) -> io::Result<Self> {
        let script = Script::new(Shape::default());
        let poller = Poller::new()?;
        let links = idlers(address, &script, count)?;
        for (index, link) in links.iter().enumerate() {
            poller.add(link, index)?;
        }
        let asked = vec![(0, Instant::now()); count];
        Ok(Self { script, links, poller, asked, events: Vec::with_capacity(256) })
    }

    /// Lets them all talk for a while; each ends with its last command answered.
    pub fn talk(&mut self, server: &Server, length: Duration) -> io::Result<Busy> {
        let commands = self.script.message.len();
        let mut latencies = Vec::with_capacity(1 << 20);
        let cpu = server.cpu_time();
        let start = Instant::now();
        for (link, asked) in self.links.iter_mut().zip(&mut self.asked) {
            *asked = (asked.0, Instant::now());
            link.ask(&self.script.message[asked.0])?;
        }
        let mut waiting = self.links.len();
        let mut answered_in_time = 0;
        while waiting > 0 {
            self.poller.wait(&mut self.events)?;
            for event in &self.events {
                let index = event.u64 as usize;
                if !self.links[index].answered()? {
                    continue;
                }
                let now = Instant::now();
                latencies.push(now - self.asked[index].1);
                let next = (self.asked[index].0 + 1) % commands;
                self.asked[index] = (next, now);
                if now - start < length {
                    answered_in_time += 1;
                    self.links[index].ask(&self.script.message[next])?;
                } else {
                    waiting -= 1;
                }
            }
        }
        let messages = latencies.len() as f64 / commands as f64;
        let cpu = (server.cpu_time() - cpu).as_secs_f64() / messages;
        latencies.sort_unstable();
        let in_time = f64::from(answered_in_time) / commands as f64;
        Ok(Busy { throughput: in_time / length.as_secs_f64(), cpu, messages, latencies })
    }
}

fn idlers(address: &Address, script: &Script, count: usize) -> io::Result<Vec<Link>> {
    let mut links = Vec::with_capacity(count);
    for _ in 0..count {
        let mut link = Link::open(address)?;
        link.play(&script.open)?;
        links.push(link);
    }
    Ok(links)
}

/// What silent connections cost.
pub struct Silence {
    /// Bytes for each connection: resident memory, page tables, kernel stacks.
    pub bytes: f64,
    /// Threads of the process.
    pub threads: u64,
    /// Share of a CPU that the process uses while nothing happens.
    pub cpu: f64,
    /// Among the silent ones, half of the commands of a session without pauses are answered sooner.
    pub busy: Duration,
    /// The same for a session that pauses 3 ms before each command.
    pub pausing: Duration,
}

/// Connects so many, lets them fall silent, and looks at the process; then lets one more connection talk.
pub fn silence(server: &Server, count: usize) -> io::Result<Silence> {
    const REST: Duration = Duration::from_millis(1500);
    const MESSAGES: usize = 100;
    let script = Script::new(Shape::default());
    // What the first few connections cost once and for all is no connection's own cost.
    drop(idlers(server.address(), &script, 4)?);
    thread::sleep(REST);
    let before = server.footprint();
    let silent = idlers(server.address(), &script, count)?;
    thread::sleep(REST);
    let after = server.footprint();
    let threads = server.status("Threads");
    let cpu = server.cpu_time();
    thread::sleep(REST);
    let cpu = (server.cpu_time() - cpu).as_secs_f64() / REST.as_secs_f64();
    let mut live = Link::open(server.address())?;
    live.play(&script.open)?;
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
    Ok(Silence { bytes: after.saturating_sub(before) as f64 / count as f64, threads, cpu, busy, pausing })
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
