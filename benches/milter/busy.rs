//! Many connections at once, driven by one thread: each sends its next command as soon as the one before is
//! answered. Some of them may be sleepers, whose every command takes the filter a while.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::link::{Address, Link};
use crate::message::{self, Exchange, Script, Shape};
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

/// What busy connections gave. Sleepers do not count.
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

    /// How many commands took longer.
    pub fn slower_than(&self, limit: Duration) -> usize {
        self.latencies.len() - self.latencies.partition_point(|&latency| latency <= limit)
    }
}

/// One connection, and where it is in what it says again and again.
struct Speaker {
    link: Link,
    sleeper: bool,
    next: usize,
    asked: Instant,
}

/// Who talks.
#[derive(Clone, Copy, PartialEq)]
pub enum Talking {
    /// All.
    All,
    /// All but the sleepers, who are silent.
    Others,
}

/// Connections to one server.
pub struct Connections {
    script: Script,
    /// All that a sleeper says.
    sleep: [Exchange; 1],
    speakers: Vec<Speaker>,
    poller: Poller,
    events: Vec<libc::epoll_event>,
}

impl Connections {
    /// Connects so many, up to and with HELO; every command of the first `sleepers` will take the filter `time`.
    pub fn open(address: &Address, count: usize, sleepers: usize, time: Duration) -> io::Result<Self> {
        let script = Script::new(Shape::default());
        let poller = Poller::new()?;
        let mut speakers = Vec::with_capacity(count);
        for index in 0..count {
            let link = Link::open(address, &script)?;
            poller.add(&link, index)?;
            speakers.push(Speaker { link, sleeper: index < sleepers, next: 0, asked: Instant::now() });
        }
        let sleep = [message::sleeper(time)];
        Ok(Self { script, sleep, speakers, poller, events: Vec::with_capacity(1024) })
    }

    /// Lets them talk for a while; each ends with its last command answered.
    pub fn talk(&mut self, server: &Server, talking: Talking, length: Duration) -> io::Result<Busy> {
        let Self { script, sleep, speakers, poller, events } = self;
        let commands = script.message.len();
        let mut latencies = Vec::with_capacity(1 << 20);
        let mut answered_in_time = 0;
        let mut waiting = 0;
        let cpu = server.cpu_time();
        let start = Instant::now();
        let ask = |speaker: &mut Speaker, now| {
            speaker.asked = now;
            let said: &[Exchange] = if speaker.sleeper { sleep } else { &script.message };
            let next = speaker.next;
            speaker.next = (next + 1) % said.len();
            speaker.link.ask(&said[next])
        };
        for speaker in speakers.iter_mut().filter(|speaker| talking == Talking::All || !speaker.sleeper) {
            ask(speaker, Instant::now())?;
            waiting += 1;
        }
        while waiting > 0 {
            poller.wait(events)?;
            for event in events.iter() {
                let speaker = &mut speakers[event.u64 as usize];
                if !speaker.link.answered()? {
                    continue;
                }
                let now = Instant::now();
                let in_time = now - start < length;
                if !speaker.sleeper {
                    latencies.push(now - speaker.asked);
                    answered_in_time += usize::from(in_time);
                }
                match in_time {
                    true => ask(speaker, now)?,
                    false => waiting -= 1,
                }
            }
        }
        let messages = latencies.len() as f64 / commands as f64;
        let cpu = (server.cpu_time() - cpu).as_secs_f64() / messages;
        latencies.sort_unstable();
        let throughput = answered_in_time as f64 / commands as f64 / length.as_secs_f64();
        Ok(Busy { throughput, cpu, messages, latencies })
    }

    /// Lets all sleepers talk at once, one command each; how long it takes until the last is answered.
    pub fn sleep_at_once(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        let mut waiting = 0;
        for speaker in self.speakers.iter_mut().filter(|speaker| speaker.sleeper) {
            speaker.link.ask(&self.sleep[0])?;
            waiting += 1;
        }
        while waiting > 0 {
            self.poller.wait(&mut self.events)?;
            for event in &self.events {
                waiting -= usize::from(self.speakers[event.u64 as usize].link.answered()?);
            }
        }
        Ok(start.elapsed())
    }
}
