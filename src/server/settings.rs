//! What can be set before a server starts, with its defaults: by the filter, or by the environment (`ops`).

use super::{manager, watch};
use crate::observe;
use crate::protocol::frame::DEFAULT_MAX_PAYLOAD;
use crate::session::Timeouts;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

/// Which threads serve a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// A silent session gives its thread back and may go on in another one.
    Shared,
    /// One thread for the session's whole life.
    PerSession,
}

/// What SIGHUP does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// It stops the server, as SIGTERM does.
    Stop,
    /// Nothing, unless the filter does something with it.
    Ignore,
}

/// What holds for each session that begins. It may be changed while a server runs, as libmilter allows.
#[derive(Debug)]
pub struct Limits {
    timeout: AtomicI32,
    max_payload: AtomicUsize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: AtomicI32::new(7210), max_payload: AtomicUsize::new(DEFAULT_MAX_PAYLOAD) }
    }
}

impl Limits {
    /// How long the MTA may take.
    pub fn timeouts(&self) -> Timeouts {
        Timeouts(self.timeout.load(Ordering::Relaxed))
    }

    /// Sets [`Self::timeouts`], in seconds.
    pub fn set_timeout(&self, seconds: i32) {
        self.timeout.store(seconds, Ordering::Relaxed);
    }

    /// The largest payload of a frame, in bytes.
    pub fn max_payload(&self) -> usize {
        self.max_payload.load(Ordering::Relaxed)
    }

    /// Sets [`Self::max_payload`]; what it was before.
    pub fn set_max_payload(&self, bytes: usize) -> usize {
        self.max_payload.swap(bytes, Ordering::Relaxed)
    }
}

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many connections may wait to be accepted: listen(2).
    pub backlog: i32,
    /// What holds for each session.
    pub limits: Arc<Limits>,
    /// How long messages may go on after a stop.
    pub drain: Duration,
    /// Which threads serve a session.
    pub threads: Threads,
    /// What SIGHUP does.
    pub hangup: Hangup,
    /// The size of a thread's stack, in bytes; `None` for that which the process's limits give.
    pub stack: Option<NonZero<usize>>,
    /// The service manager, if it wants to know how it goes.
    pub manager: Option<manager::Address>,
    /// How many sessions may be open at the same time; others wait.
    pub max_sessions: Option<NonZero<usize>>,
    /// How many threads there may be for sessions.
    pub max_threads: Option<NonZero<usize>>,
    /// What callbacks are watched for.
    pub watch: Option<watch::Terms>,
    /// What is to be seen of the sessions.
    pub observe: observe::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backlog: libc::SOMAXCONN,
            limits: Arc::default(),
            drain: Duration::from_secs(5),
            threads: Threads::Shared,
            hangup: Hangup::Stop,
            stack: None,
            manager: None,
            max_sessions: None,
            max_threads: None,
            watch: None,
            observe: observe::Settings::default(),
        }
    }
}
